/**
 * What a user would write instead: a table with a row per sample, `node:http`, a cursor, and `JSON.stringify` of each
 * row. Waits for its connections, so its memory is bounded too. `DATABASE_URL` names the database.
 */
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, ManagedRuntime, Redacted, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { once } from "node:events"
import { createServer, type ServerResponse } from "node:http"

const runtime = ManagedRuntime.make(
  PgClient.layer({ url: Redacted.make(process.env["DATABASE_URL"] ?? ""), maxConnections: 4 }).pipe(Layer.orDie)
)

interface SampleRow {
  readonly index: bigint
  readonly device_time: bigint
  readonly time: Date
  readonly x: number
  readonly y: number
  readonly z: number
}

const write = (response: ServerResponse, text: string): Promise<unknown> =>
  response.write(text) ? Promise.resolve() : once(response, "drain")

const answer = (response: ServerResponse): Effect.Effect<void, unknown, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    response.writeHead(200, { "content-type": "application/json" })
    yield* Effect.promise(() => write(response, "["))
    let before = ""
    yield* sql<SampleRow>`SELECT index, device_time, time, x, y, z FROM bench_samples ORDER BY index`.stream.pipe(
      Stream.runForEachArray((rows) => {
        let text = ""
        for (const { index, device_time, time, x, y, z } of rows) {
          text += before + JSON.stringify([`0:${index}`, Number(device_time), time, x, y, z])
          before = ",\n"
        }
        return Effect.promise(() => write(response, text))
      })
    )
    yield* Effect.sync(() => response.end("]"))
  })

const server = createServer((_, response) => {
  runtime.runPromise(answer(response)).catch((error: unknown) => {
    process.stderr.write(`${String(error)}\n`)
    response.destroy()
  })
})
server.listen(0, "127.0.0.1", () => {
  const address = server.address()
  const port = typeof address === "object" ? address?.port : undefined
  process.stdout.write(`serves at http://127.0.0.1:${port}\n`)
})
