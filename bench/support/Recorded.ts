/** A sealed session of many samples on an embedded PostgreSQL, and servers to get it from: processes of their own. */
import { encodeSamples, isFrameError, packCounts } from "@thrum/protocol"
import { Effect, Exit, Redacted, Scope } from "effect"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { request } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { embeddedPostgresDirectory, letThrough } from "../../packages/server/src/sql/DataDirectory.ts"
import { startEmbeddedPostgres } from "../../packages/server/src/sql/EmbeddedPostgres.ts"
import { Device, until } from "../../test/support/Device.ts"
import { type ServerProcess, startProcess } from "../../test/support/Process.ts"

export const rate = 1000
/** As an accelerometer of 14 bits and 2 g has it. */
export const scale = 0.001
const channels = ["x", "y", "z"].map((name) => ({ name, unit: "g", scale, offset: 0 }))

/** Count of channel `c` at an index: a wave with noise, the same each time. */
export const countAt = (index: number, c: number): number =>
  Math.round(1000 * Math.sin((index + 100 * c) / 50)) + ((Math.imul(3 * index + c, 0x9e3779b1) >>> 0) % 41) - 20

/** An embedded PostgreSQL of its own, for as long as `use` runs. */
export const withPostgres = async (use: (url: string) => Promise<void>): Promise<void> => {
  const dataDir = mkdtempSync(join(tmpdir(), "thrum-bench-"))
  const scope = await Effect.runPromise(Scope.make())
  try {
    await letThrough(dataDir)
    const { url } = await Effect.runPromise(
      startEmbeddedPostgres({ dataDir: embeddedPostgresDirectory(dataDir) }).pipe(Scope.provide(scope))
    )
    await use(Redacted.value(url))
  } finally {
    await Effect.runPromise(Scope.close(scope, Exit.void))
    rmSync(dataDir, { recursive: true, force: true })
  }
}

/** A server of ours on a database, with a look at its event loop. */
export const startServer = (databaseUrl: string): Promise<ServerProcess> =>
  startProcess({
    DATABASE_URL: databaseUrl,
    NODE_OPTIONS: `${process.env["NODE_OPTIONS"] ?? ""} --import=${new URL("LoopDelay.ts", import.meta.url).href}`
  })

/** Sends `samples` samples in frames of 1000 and seals. */
export const recordSession = async (server: string, samples: number): Promise<string> => {
  const response = await fetch(`${server}/sessions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ rate, channels })
  })
  const { session, ingestKey, links } = await response.json()
  const device = await Device.connect(links.ingest, ingestKey)
  const size = 1000
  for (let index = 0; index < samples; index += size) {
    const counts = Int32Array.from({ length: size * 3 }, (_, i) => countAt(index + Math.floor(i / 3), i % 3))
    const block = packCounts(counts, 3, { predictors: [0, 4, 13] })
    if (isFrameError(block)) throw new Error(block.message)
    await device.sendAll([{ next: index + size, bytes: encodeSamples(index, index * (1e6 / rate), block) }])
  }
  await until("the last samples", () => device.durable === samples, 60_000)
  const closed = await device.end()
  if (closed.code !== 1000) throw new Error(`the session did not end: ${closed.code} ${closed.reason}`)
  return session.id
}

/** Reads an answer and keeps nothing of it. Fails when it is cut. */
export const drain = (url: string, headers: Record<string, string> = {}): Promise<number> =>
  new Promise((resolve, reject) => {
    request(url, { headers }, (answer) => {
      let bytes = 0
      answer.on("data", (piece: Buffer) => {
        bytes += piece.length
      })
      answer.on("error", reject)
      answer.on("end", () => {
        if (answer.statusCode === 200 && answer.complete) resolve(bytes)
        else reject(new Error(`${url} answered ${answer.statusCode}`))
      })
    }).on("error", reject).end()
  })

const memoryOf = (pid: number, field: "VmRSS" | "VmHWM"): number => {
  const line = readFileSync(`/proc/${pid}/status`, "utf8").split("\n").find((line) => line.startsWith(field))
  return Number(/\d+/.exec(line ?? "")?.[0]) / 1024
}

/** MiB of memory a process holds now. Linux only. */
export const residentOf = (pid: number): number => memoryOf(pid, "VmRSS")

/** MiB a process held at most since {@link forgetPeak}. */
export const peakOf = (pid: number): number => memoryOf(pid, "VmHWM")

export const forgetPeak = (pid: number): void => writeFileSync(`/proc/${pid}/clear_refs`, "5")

/** Milliseconds the event loop of a server let others wait: see `LoopDelay.ts`. */
export interface LoopDelay {
  readonly cpu: { readonly p50: number; readonly p99: number; readonly max: number }
  readonly wall: { readonly p50: number; readonly p99: number; readonly max: number }
}

/** What the server saw of its event loop since it was asked last. */
export const loopDelayOf = async (server: ServerProcess): Promise<LoopDelay> => {
  const told = (): ReadonlyArray<string> => Array.from(server.output().matchAll(/^loop (.+)$/gm), (match) => match[1]!)
  const before = told().length
  server.signal("SIGUSR2")
  await until("a look at the event loop", () => told().length > before)
  return JSON.parse(told().at(-1)!)
}

export const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN

export const column = (text: string | number, width: number): string => String(text).padStart(width)
export const print = (line: string): void => void process.stdout.write(`${line}\n`)
