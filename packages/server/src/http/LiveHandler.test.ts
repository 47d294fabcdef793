import { Archive } from "@thrum/core"
import { encodeSamples, packCounts } from "@thrum/protocol"
import { Context, Effect, Exit, Layer, Logger, Scope } from "effect"
import { HttpServer } from "effect/http"
import { connect } from "node:net"
import { assert, describe, it } from "vitest"
import { serverLayerOver } from "../Server.ts"
import { LiveStreamLimits, type LiveStreamLimitValues } from "./LiveHandler.ts"

const limits: LiveStreamLimitValues = { unreadBytesMax: 65_536, drainWaitMs: 300, silenceMs: 100, lookEveryMs: 20 }

/** A server with short waits, and one session on it. */
const start = async (): Promise<{
  readonly url: string
  readonly id: string
  readonly key: string
  readonly stop: () => Promise<void>
}> => {
  const scope = await Effect.runPromise(Scope.make())
  const layer = serverLayerOver(Archive.layerMemory, { host: "127.0.0.1", port: 0, publicUrl: undefined }).pipe(
    Layer.provide([Layer.succeed(LiveStreamLimits, limits), Logger.layer([])])
  )
  const context = await Effect.runPromise(Layer.buildWithScope(layer, scope))
  const url = HttpServer.formatAddress(Context.get(context, HttpServer.HttpServer).address)
  const made = await fetch(`${url}/sessions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ rate: 100, channels: [{ name: "x" }] })
  })
  const { session, ingestKey } = await made.json()
  return { url, id: session.id, key: ingestKey, stop: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}

/** Reads an answer in the background. */
const open = async (url: string, accept: string) => {
  const abort = new AbortController()
  const answer = await fetch(url, { headers: { accept }, signal: abort.signal })
  const seen = { text: "", end: "none" as "none" | "ended" | "cut" }
  const decoder = new TextDecoder()
  const reading = (async () => {
    for await (const piece of answer.body ?? []) seen.text += decoder.decode(piece, { stream: true })
    seen.end = "ended"
  })().catch(() => {
    seen.end = "cut"
  })
  return {
    seen,
    reading,
    leave: async () => {
      abort.abort()
      await reading
    }
  }
}

const until = async (condition: () => boolean | Promise<boolean>): Promise<void> => {
  const deadline = Date.now() + 5000
  while (!(await condition()) && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5))
}

describe("live by plain HTTP", () => {
  it("gives signs of life while nothing happens, and none of a dialect's own", async () => {
    const { id, stop, url } = await start()
    const events = await open(`${url}/sessions/${id}/live`, "text/event-stream")
    const lines = await open(`${url}/sessions/${id}/live`, "application/x-ndjson")
    await until(() => [events, lines].every(({ seen }) => (seen.text.match(/^:$|heartbeat/gm)?.length ?? 0) >= 2))
    assert.match(events.seen.text, /\n\n:\n\n:\n\n/)
    assert.match(lines.seen.text, /\n\{"type":"heartbeat"\}\n\{"type":"heartbeat"\}\n/)
    await Promise.all([events.leave(), lines.leave()])
    await stop()
  })

  it("ends, and is not cut, when the server stops", async () => {
    const { id, stop, url } = await start()
    const events = await open(`${url}/sessions/${id}/live`, "text/event-stream")
    await until(() => events.seen.text.includes("caught-up"))
    const began = performance.now()
    await stop()
    await events.reading
    assert.strictEqual(events.seen.end, "ended")
    assert.isBelow(performance.now() - began, 2000)
  })

  it("cuts off who does not read on, and forgets it", async () => {
    const { id, key, stop, url } = await start()
    const { hostname, port } = new URL(url)
    // A bare socket: nothing reads for us.
    const socket = connect(Number(port), hostname)
    let isClosed = false
    socket.on("error", () => {}).on("close", () => {
      isClosed = true
    })
    socket.pause()
    socket.write(`GET /sessions/${id}/live?from=start HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n`)
    const viewers = async (): Promise<number> => (await (await fetch(`${url}/sessions/${id}`)).json()).viewers
    await until(async () => await viewers() === 1)
    const block = packCounts(Array.from({ length: 4000 }, (_, i) => Math.imul(i, 0x9e3779b1)), 1)
    if (!(block instanceof Uint8Array)) throw new Error(block.message)
    const send = (first: number): Promise<Response> =>
      fetch(`${url}/sessions/${id}/frames`, {
        method: "POST",
        headers: {
          authorization: `Bearer ${key}`,
          "thrum-boot-id": "1",
          "content-type": "application/vnd.thrum.frames"
        },
        body: Buffer.concat(Array.from({ length: 10 }, (_, i) => encodeSamples(first + i * 4000, 0, block)))
      })
    // Some 45 KB of text a frame: more than the machine keeps between the two ends.
    for (let i = 0; i < 30; i++) assert.strictEqual((await send(i * 40_000)).status, 200)
    await new Promise((resolve) => setTimeout(resolve, 3 * limits.drainWaitMs))
    let text = ""
    socket.on("data", (piece: Buffer) => {
      text = text.slice(-100) + piece.toString("latin1")
    })
    socket.resume()
    await until(() => isClosed)
    assert.isTrue(isClosed)
    // Not the last chunk of an answer that is whole.
    assert.notMatch(text, /\r\n0\r\n\r\n$/)
    await stop()
  })
})
