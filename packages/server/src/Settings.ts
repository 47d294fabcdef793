/** What an operator sets, from the environment: the whole list. */
import { Config, Option, type Redacted, Schema } from "effect"
import { resolve } from "node:path"
import { dataDirectoryOf } from "./sql/DataDirectory.ts"

export interface Settings {
  /** `PORT`, TCP. 0 takes a free one. */
  readonly port: number
  /** `HOST`: the address to listen on. Only this machine unless said otherwise; a container says `0.0.0.0`. */
  readonly host: string
  /** `THRUM_DATA_DIR`: where the embedded database lives. */
  readonly dataDir: string
  /** `DATABASE_URL`: a PostgreSQL to use instead of the embedded one. */
  readonly databaseUrl: Redacted.Redacted | undefined
  /** `PUBLIC_URL`: what links begin with, where that is not what the request was sent to (behind a proxy with TLS). */
  readonly publicUrl: string | undefined
}

/** A variable that is set to nothing counts as not set: that is how most platforms unset one. */
const isSet = (name: string): Config.Config<boolean> =>
  Config.option(Config.String(name)).pipe(Config.map((value) => Option.getOrElse(value, () => "") !== ""))

const orElse = <A, B>(
  name: string,
  config: (name: string) => Config.Config<A>,
  otherwise: () => B
): Config.Config<A | B> =>
  isSet(name).pipe(Config.flatMap((set): Config.Config<A | B> => set ? config(name) : Config.succeed(otherwise())))

const none = (): undefined => undefined
const portSchema = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65_535 }))

/** The settings, or which of them cannot be read and why. */
export const settings: Config.Config<Settings> = Config.all({
  port: orElse("PORT", (name) => Config.schema(portSchema, name), () => 8080),
  host: orElse("HOST", Config.String, () => "127.0.0.1"),
  dataDir: orElse("THRUM_DATA_DIR", Config.String, dataDirectoryOf).pipe(Config.map((path) => resolve(path))),
  databaseUrl: orElse("DATABASE_URL", Config.Redacted, none),
  publicUrl: orElse("PUBLIC_URL", Config.URL, none).pipe(Config.map((url) => url?.href.replace(/\/+$/, "")))
})
