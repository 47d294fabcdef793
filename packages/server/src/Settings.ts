/** What an operator sets, from the environment: the whole list. */
import { Config, Option, type Redacted } from "effect"
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

const optional = <A>(config: Config.Config<A>): Config.Config<A | undefined> =>
  Config.map(Config.option(config), Option.getOrUndefined)

/** The settings, or which of them cannot be read and why. */
export const settings: Config.Config<Settings> = Config.all({
  port: Config.Port("PORT").pipe(Config.withDefault(8080)),
  host: Config.NonEmptyString("HOST").pipe(Config.withDefault("127.0.0.1")),
  dataDir: Config.NonEmptyString("THRUM_DATA_DIR").pipe(
    Config.orElse(() => Config.succeed(dataDirectoryOf()))
  ),
  databaseUrl: optional(Config.Redacted("DATABASE_URL")),
  publicUrl: optional(Config.URL("PUBLIC_URL")).pipe(Config.map((url) => url?.href.replace(/\/+$/, "")))
})
