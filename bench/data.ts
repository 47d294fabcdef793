/**
 * A million samples out, in every format, beside what a user would write instead.
 *
 * `npm run bench:data` (`node bench/data.ts [samples, 1000000] [rounds, 5]`). One embedded PostgreSQL; our server, and a
 * plain `node:http` server with a cursor over a table of a row per sample that writes JSON, each a process of its own;
 * and, where `psql` is there, `COPY … TO STDOUT` of the same rows. One request at a time, round after round, medians.
 * Memory is the server's at most, above what it held when it had just started; one process serves all formats in turn,
 * so what one leaves behind is counted with the next (`data-memory.ts` has each by itself). For `COPY` it is not measured.
 *
 * Left out: the network, the time of whoever reads (who here throws the bytes away), and many clients at once.
 */
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { until } from "../test/support/Device.ts"
import {
  column,
  countAt,
  drain,
  forgetPeak,
  median,
  peakOf,
  print,
  rate,
  recordSession,
  residentOf,
  scale,
  startServer,
  withPostgres
} from "./support/Recorded.ts"

const samples = Number(process.argv[2] ?? 1e6)
const rounds = Number(process.argv[3] ?? 5)
const rowsPerInsert = 10_000

/** The same samples, as rows of a table. */
const fillTable = (databaseUrl: string): Promise<void> =>
  Effect.runPromise(
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE bench_samples (
        index int8 PRIMARY KEY, device_time int8, time timestamptz, x float8, y float8, z float8)`
      for (let from = 0; from < samples; from += rowsPerInsert) {
        const indexes = Array.from({ length: Math.min(rowsPerInsert, samples - from) }, (_, i) => BigInt(from + i))
        // As integers, scaled there: an array of 1.5 and 2 has no one type here.
        const counts = (c: number) => indexes.map((index) => BigInt(countAt(Number(index), c)))
        yield* sql`
          INSERT INTO bench_samples
          SELECT i, i * ${1e6 / rate}::int8, '2026-01-01'::timestamptz + i * ${
          1e6 / rate
        }::int8 * interval '1 microsecond',
            x * ${scale}::float8, y * ${scale}::float8, z * ${scale}::float8
          FROM unnest(${indexes}::int8[], ${counts(0)}::int8[], ${counts(1)}::int8[], ${counts(2)}::int8[])
            AS s(i, x, y, z)`
      }
      yield* sql`VACUUM ANALYZE bench_samples`
    }).pipe(Effect.provide(PgClient.layer({ url: Redacted.make(databaseUrl) }).pipe(Layer.orDie)))
  )

/** The plain server. Ends with this process or when told. */
const startRowServer = async (databaseUrl: string): Promise<{ readonly url: string; readonly child: ChildProcess }> => {
  const child = spawn(process.execPath, [fileURLToPath(new URL("support/RowServer.ts", import.meta.url))], {
    env: { ...process.env, DATABASE_URL: databaseUrl },
    stdio: ["ignore", "pipe", "inherit"]
  })
  let output = ""
  child.stdout.on("data", (data: Buffer) => {
    output += data.toString()
  })
  const address = (): string | undefined => /serves at (\S+)/.exec(output)?.[1]
  await until("the plain server", () => address() !== undefined || child.exitCode !== null)
  const url = address()
  if (url === undefined) throw new Error("the plain server ended")
  return { url, child }
}

/** Bytes of `COPY … TO STDOUT`; undefined when there is no psql. */
const copy = (databaseUrl: string, query: string): Promise<number | undefined> =>
  new Promise((resolve, reject) => {
    const child = spawn("psql", [databaseUrl, "-qc", query], { stdio: ["ignore", "pipe", "inherit"] })
    let bytes = 0
    child.stdout.on("data", (data: Buffer) => {
      bytes += data.length
    })
    child.once("error", () => resolve(undefined))
    child.once("close", (code) => {
      if (code === 0) resolve(bytes)
      else reject(new Error(`psql ended with ${code}`))
    })
  })

/** One way to get the samples out. */
interface Contender {
  readonly name: string
  readonly run: () => Promise<number | undefined>
  /** Whose memory counts. */
  readonly pid: number | undefined
}

await withPostgres(async (databaseUrl) => {
  const recorder = await startServer(databaseUrl)
  const id = await recordSession(recorder.url, samples)
  await recorder.end("SIGTERM")
  await fillTable(databaseUrl)
  const server = await startServer(databaseUrl)
  await drain(`${server.url}/readyz`)
  const plain = await startRowServer(databaseUrl)
  try {
    const idle = new Map([server.pid, plain.child.pid!].map((pid) => [pid, residentOf(pid)]))
    const ours = (name: string, file: string, coding?: string): Contender => ({
      name,
      run: () =>
        drain(`${server.url}/sessions/${id}/${file}`, coding === undefined ? {} : { "accept-encoding": coding }),
      pid: server.pid
    })
    const columns = "index, device_time, time, x, y, z"
    const contenders: ReadonlyArray<Contender> = [
      ours("json", "data.json"),
      ours("csv", "data.csv"),
      ours("ndjson", "data.ndjson"),
      ours("frames", "data.thrum"),
      ours("arrow", "data.arrow"),
      ours("parquet", "data.parquet"),
      ours("wav", "data.wav"),
      ours("csv, zstd", "data.csv", "zstd"),
      ours("csv, br", "data.csv", "br"),
      ours("csv, gzip", "data.csv", "gzip"),
      { name: "rows, node:http, JSON", run: () => drain(plain.url), pid: plain.child.pid },
      {
        name: "COPY (CSV) TO STDOUT",
        run: () =>
          copy(databaseUrl, `COPY (SELECT ${columns} FROM bench_samples ORDER BY index) TO STDOUT (FORMAT csv)`),
        pid: undefined
      }
    ]
    const seen = contenders.map(() => ({ seconds: [] as Array<number>, peaks: [] as Array<number>, bytes: 0 }))
    // The first round warms up.
    for (let round = 0; round <= rounds; round++) {
      for (const [i, { run, pid }] of contenders.entries()) {
        if (pid !== undefined) forgetPeak(pid)
        const began = performance.now()
        const bytes = await run()
        const seconds = (performance.now() - began) / 1000
        if (round === 0 || bytes === undefined) continue
        seen[i]!.seconds.push(seconds)
        if (pid !== undefined) seen[i]!.peaks.push(peakOf(pid) - idle.get(pid)!)
        seen[i]!.bytes = bytes
      }
    }
    print(`${samples} samples of 3 channels, ${rounds} rounds, medians\n`)
    print(`${"".padEnd(24)}  Msamples/s      MB/s  bytes/sample  peak MiB above`)
    for (const [i, { name, pid }] of contenders.entries()) {
      const { seconds, peaks, bytes } = seen[i]!
      if (seconds.length === 0) {
        print(`${name.padEnd(24)}  not run: there is no psql`)
        continue
      }
      const middle = median(seconds)
      print(
        name.padEnd(24) + column((samples / middle / 1e6).toFixed(2), 12) +
          column((bytes / middle / 1e6).toFixed(0), 10) +
          column((bytes / samples).toFixed(1), 14) + column(pid === undefined ? "–" : median(peaks).toFixed(0), 16)
      )
    }
  } finally {
    plain.child.kill()
    await server.end("SIGTERM")
  }
})
