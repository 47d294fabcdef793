/**
 * What a long download costs the server: memory above idle, and how long its event loop lets others wait.
 *
 * `node bench/data-memory.ts [millions of samples, 10]`. Each row is a fresh server process on the same embedded
 * PostgreSQL; idle is what it holds after its first answers. `NODE_OPTIONS` is passed on: most of what is above idle is
 * garbage that Node collects late, earlier with `--max-semi-space-size=8`. Exits 1 when a format takes more than 64 MiB above idle.
 * Linux only. Left out: the client, which runs beside it on the same machine, and the database's own memory.
 */
import {
  column,
  drain,
  forgetPeak,
  loopDelayOf,
  peakOf,
  print,
  recordSession,
  residentOf,
  startServer,
  withPostgres
} from "./support/Recorded.ts"

const samples = Number(process.argv[2] ?? 10) * 1e6
const boundMiB = 64

const asks: ReadonlyArray<readonly [string, string, Record<string, string>]> = [
  ["json", "data.json", {}],
  ["csv", "data.csv", {}],
  ["ndjson", "data.ndjson", {}],
  ["frames", "data.thrum", {}],
  ["arrow", "data.arrow", {}],
  ["arrow, counts", "data.arrow?values=counts", {}],
  ["parquet", "data.parquet", {}],
  ["wav", "data.wav", {}],
  ["csv, zstd", "data.csv", { "accept-encoding": "zstd" }],
  ["csv, br", "data.csv", { "accept-encoding": "br" }],
  ["csv, gzip", "data.csv", { "accept-encoding": "gzip" }],
  ["arrow, zstd", "data.arrow", { "accept-encoding": "zstd" }]
]

await withPostgres(async (databaseUrl) => {
  const recorder = await startServer(databaseUrl)
  const id = await recordSession(recorder.url, samples)
  const warm = await recordSession(recorder.url, 1000)
  await recorder.end("SIGTERM")
  print(`${samples / 1e6} million samples of 3 channels\n`)
  print(
    `${
      "format".padEnd(16)
    }   seconds        MB  Msamples/s  idle MiB  peak above  loop ms: cpu p50   p99   max  wall p99    max`
  )
  for (const [name, file, headers] of asks) {
    const server = await startServer(databaseUrl)
    await drain(`${server.url}/readyz`)
    await drain(`${server.url}/sessions/${warm}/${file}`, headers)
    await new Promise((resolve) => setTimeout(resolve, 500))
    const idle = residentOf(server.pid)
    forgetPeak(server.pid)
    await loopDelayOf(server)
    const began = performance.now()
    const bytes = await drain(`${server.url}/sessions/${id}/${file}`, headers)
    const seconds = (performance.now() - began) / 1000
    const above = peakOf(server.pid) - idle
    const { cpu, wall } = await loopDelayOf(server)
    if (above > boundMiB) process.exitCode = 1
    print(
      name.padEnd(16) + column(seconds.toFixed(1), 10) + column((bytes / 1e6).toFixed(0), 10) +
        column((samples / seconds / 1e6).toFixed(2), 12) + column(idle.toFixed(0), 10) +
        column(`${above.toFixed(0)}${above > boundMiB ? "!" : ""}`, 12) +
        column(cpu.p50.toFixed(1), 18) + column(cpu.p99.toFixed(1), 6) + column(cpu.max.toFixed(1), 6) +
        column(wall.p99.toFixed(1), 10) + column(wall.max.toFixed(1), 7)
    )
    await server.end("SIGTERM")
  }
})
