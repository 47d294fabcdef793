/**
 * A process that owns an embedded PostgreSQL, for tests that kill it: `node ownerProcess.ts DATA_DIR [NATIVE_DIR]`.
 *
 * Prints one line of JSON when PostgreSQL runs. SIGINT: asks PostgreSQL and prints `answered`, goes on. SIGTERM: closes
 * the scope, exits 0. SIGHUP: exits 3 at once, with the scope open.
 */
import { PgConnection } from "@effect/sql-pg"
import { Deferred, Effect, Redacted } from "effect"
import { startEmbeddedPostgres } from "../EmbeddedPostgres.ts"

const [dataDir = "", nativeDir] = process.argv.slice(2)

const print = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

const program = Effect.gen(function*() {
  const { url, port, adopted } = yield* startEmbeddedPostgres({
    dataDir,
    ...(nativeDir === undefined ? {} : { nativeDir })
  })
  const told = Deferred.makeUnsafe<void>()
  const ask = PgConnection.make({ url }).pipe(
    Effect.flatMap((connection) => connection.queryValues("SELECT 1")),
    Effect.scoped
  )
  process.on("SIGINT", () => {
    Effect.runPromise(ask).then(() => print("answered"), (cause: unknown) => print(`failed: ${String(cause)}`))
  })
  process.on("SIGTERM", () => Deferred.doneUnsafe(told, Effect.void))
  process.on("SIGHUP", () => process.exit(3))
  print(JSON.stringify({ url: Redacted.value(url), port, adopted }))
  yield* Deferred.await(told)
})

await Effect.runPromise(Effect.scoped(program))
process.exit(0)
