/** `thrum serve`: the server, until it is told to stop. */
import { Context, Effect, Layer, Option, Redacted } from "effect"
import { HttpServer } from "effect/http"
import type { Scope } from "effect/Scope"
import { serverLayer } from "../Server.ts"
import { type Settings, settings } from "../Settings.ts"
import { CommandError, reasonOf } from "./CommandError.ts"

/** What the command line says; it wins over the environment. */
export interface ServeFlags {
  readonly port: Option.Option<number>
  readonly host: Option.Option<string>
  readonly dataDir: Option.Option<string>
  readonly databaseUrl: Option.Option<string>
}

/** The settings of the environment, with those of the command line in their place. */
export const settingsOf: (flags: ServeFlags) => Effect.Effect<Settings, CommandError> = Effect.fnUntraced(
  function*(flags) {
    const { databaseUrl, dataDir, host, port, publicUrl } = yield* settings.pipe(
      Effect.mapError((error) =>
        new CommandError(`Cannot read the settings: ${oneLine(error.message)}`, { exitCode: 2 })
      )
    )
    return {
      port: Option.getOrElse(flags.port, () => port),
      host: Option.getOrElse(flags.host, () => host),
      dataDir: Option.getOrElse(flags.dataDir, () => dataDir),
      databaseUrl: Option.match(flags.databaseUrl, { onNone: () => databaseUrl, onSome: Redacted.make }),
      publicUrl
    }
  }
)

/** `SchemaError(Expected …\n  at ["PORT"])` → `Expected … at ["PORT"]`. */
const oneLine = (message: string): string => message.replace(/\s+/g, " ").trim().replace(/^SchemaError\((.*)\)$/, "$1")

/** Starts the server. It stops with the scope. @returns The address it listens on: `http://127.0.0.1:8080`. */
export const startServer: (settings: Settings) => Effect.Effect<string, CommandError, Scope> = Effect.fnUntraced(
  function*(settings: Settings) {
    const context = yield* Layer.build(serverLayer(settings)).pipe(
      Effect.mapError((error) => new CommandError(sentenceOf(error), { cause: error }))
    )
    return HttpServer.formatAddress(Context.get(context, HttpServer.HttpServer).address)
  }
)

/** Our own errors are sentences already; what the platform says gets a beginning. */
const sentenceOf = (error: unknown): string => {
  const reason = reasonOf(error)
  return reason.startsWith("Cannot ") ? reason : `Cannot start the server: ${reason}`
}

/** Runs the command: never returns; ends when it is interrupted, after everything was flushed. */
export const serve: (flags: ServeFlags) => Effect.Effect<never, CommandError, Scope> = Effect.fnUntraced(
  function*(flags: ServeFlags) {
    const settings = yield* settingsOf(flags)
    const address = yield* startServer(settings)
    const database = settings.databaseUrl === undefined
      ? `the database in ${settings.dataDir}`
      : "the database of DATABASE_URL"
    yield* Effect.sync(() => process.stdout.write(`Thrum serves at ${settings.publicUrl ?? address}, on ${database}\n`))
    return yield* Effect.never
  }
)
