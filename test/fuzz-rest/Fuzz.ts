/**
 * Asks a server whatever the contract can say, rightly and wrongly, and holds every answer against it. One after the
 * other, from one seed: the same seed asks the same, but for the ids and keys the server makes up.
 */
import { Archive } from "@thrum/core"
import { Effect, Exit, Layer, Logger, Scope } from "effect"
import { HttpServer } from "effect/http"
import { Agent, request } from "node:http"
import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from "node:zlib"
import { serverLayerOver } from "../../packages/server/src/Server.ts"
import { Random } from "../simulation/Random.ts"
import { type Answer, checkAnswer, checkedUpgrade, openFetch } from "../support/contract.ts"
import { type Call, nextCall, Pool } from "./Calls.ts"
import { isObject, listOf, parts } from "./Values.ts"

/** What came of it. */
export interface Outcome {
  readonly calls: number
  /** How often each status was answered. */
  readonly statuses: ReadonlyMap<number, number>
  /** How many different answers (operation and status) there were. */
  readonly kinds: number
  /** The first that was wrong: the number of the call, and what was wrong. */
  readonly failure: { readonly call: number; readonly what: string } | undefined
}

/** An answer that goes on for ever is left after so many ms. */
const leaveAfterMs = 4

const decoders: Readonly<Record<string, (bytes: Buffer) => Buffer>> = {
  br: brotliDecompressSync,
  gzip: gunzipSync,
  zstd: zstdDecompressSync
}

const decoded = (bytes: Buffer, coding: string | undefined): Uint8Array<ArrayBuffer> => {
  const decode = coding === undefined || bytes.length === 0 ? undefined : decoders[coding]
  return new Uint8Array(decode === undefined ? bytes : decode(bytes))
}

const ask = (base: string, agent: Agent, { method, path, headers, body }: Call): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const url = new URL(base)
    const sent = request({ host: url.hostname, port: url.port, method, path, headers, agent }, (answer) => {
      const pieces: Array<Buffer> = []
      answer.on("data", (piece: Buffer) => pieces.push(piece))
      answer.on("error", reject)
      answer.on("end", () =>
        resolve({
          status: answer.statusCode ?? 0,
          headers: new Headers(Object.entries(answer.headers).map(([name, value]) => [name, String(value)])),
          body: decoded(Buffer.concat(pieces), answer.headers["content-encoding"])
        }))
    })
    sent.on("error", reject)
    sent.end(body)
  })

/** A path as those clients send it that take URLs: they resolve `..`, and escape what must be. */
const asUrl = (base: string, path: string): string => {
  const { pathname, search } = new URL(`${base}${path}`)
  return `${pathname}${search}`
}

/** What must hold beyond the schema. */
const mustAddUp = ({ operation, path }: Call, { status, headers, body }: Answer): void => {
  if (status >= 500) throw new Error(`the server failed: ${new TextDecoder().decode(body)}`)
  if (operation !== "getData" || status !== 200 || body.length === 0) return
  if (headers.get("content-type") !== "application/json") return
  const { rows, samples } = JSON.parse(new TextDecoder().decode(body))
  const query = new URLSearchParams(path.split("?", 2)[1] ?? "")
  const most = Number(query.get("limit") ?? query.get("maxPoints") ?? Number.POSITIVE_INFINITY)
  if (rows.length !== samples) throw new Error(`it has ${rows.length} rows and says ${samples}`)
  if (samples > most) throw new Error(`it has ${samples} samples, ${most} were asked for`)
  const promised = headers.get("thrum-samples")
  if (promised !== null && Number(promised) !== samples) throw new Error(`it promised ${promised}, and has ${samples}`)
}

/** Learns of an answer what later calls can use. */
const learn = (pool: Pool, call: Call, { status, headers, body }: Answer): void => {
  const { session } = call
  if (status === 201) {
    const created: unknown = JSON.parse(new TextDecoder().decode(body))
    const { session: made, ingestKey } = parts(created)
    pool.add({
      id: String(parts(made)["id"]),
      key: String(ingestKey),
      channels: listOf(parts(made)["channels"]).length,
      next: 0,
      boot: 1,
      ended: false,
      etag: undefined
    })
  }
  if (session === undefined) return
  if (headers.get("etag") !== null) session.etag = headers.get("etag") ?? undefined
  if (call.operation !== "postFrames" || body.length === 0 || call.method !== "POST") return
  const answer: unknown = JSON.parse(new TextDecoder().decode(body))
  const ack = status === 200 ? parts(answer) : parts(parts(answer)["ack"])
  if (isObject(answer) && typeof ack["next"] === "number") session.next = ack["next"]
}

const told = ({ method, path, headers, body, upgrade }: Call): string =>
  `${upgrade ? "WebSocket " : ""}${method} ${path} ${JSON.stringify(headers)} ${
    body === undefined ? "" : Buffer.from(body).toString("base64").slice(0, 2000)
  }`

/** Makes `calls` calls to a server of its own, in memory. */
export const fuzz = async (calls: number, seed: number): Promise<Outcome> => {
  const scope = await Effect.runPromise(Scope.make())
  const layer = serverLayerOver(Archive.layerMemory, { host: "127.0.0.1", port: 0, publicUrl: undefined })
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const statuses = new Map<number, number>()
  const kinds = new Set<string>()
  try {
    const context = await Effect.runPromise(Layer.buildWithScope(layer.pipe(Layer.provide(Logger.layer([]))), scope))
    const base = await Effect.runPromise(
      HttpServer.HttpServer.useSync((server) => HttpServer.formatAddress(server.address)).pipe(
        Effect.provideContext(context)
      )
    )
    const [random, pool] = [new Random(seed), new Pool()]
    for (let number = 0; number < calls; number++) {
      const call = nextCall(pool, random)
      try {
        let status: number
        if (call.upgrade) {
          ;({ status } = await checkedUpgrade(base, asUrl(base, call.path)))
          if (status >= 500) throw new Error("the server failed")
        } else if (call.operation === "live" && call.method === "GET") {
          const answer = await openFetch(base, asUrl(base, call.path), call.headers)
          await new Promise((resolve) => setTimeout(resolve, leaveAfterMs))
          await answer.leave()
          status = answer.status
        } else {
          const answer = await ask(base, agent, call)
          checkAnswer(call.method, call.path, answer)
          mustAddUp(call, answer)
          learn(pool, call, answer)
          status = answer.status
        }
        statuses.set(status, (statuses.get(status) ?? 0) + 1)
        kinds.add(`${call.operation} ${status}`)
      } catch (error) {
        const what = `${error instanceof Error ? error.message : String(error)}\n${told(call)}`
        return { calls: number + 1, statuses, kinds: kinds.size, failure: { call: number, what } }
      }
    }
    return { calls, statuses, kinds: kinds.size, failure: undefined }
  } finally {
    agent.destroy()
    await Effect.runPromise(Scope.close(scope, Exit.void))
  }
}
