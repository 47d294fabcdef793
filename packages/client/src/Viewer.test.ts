import {
  encodeCaughtUp,
  encodeDurable,
  encodeEnded,
  encodeEpoch,
  encodeError,
  encodeGap,
  encodeSamples,
  encodeTime,
  encodeViewerWelcome,
  formatPosition,
  isFrameError,
  packCounts,
  packFloats,
  type SessionInfo
} from "@thrum/protocol"
import * as fc from "fast-check"
import { once } from "node:events"
import { afterEach, assert, describe, it } from "vitest"
import { type WebSocket as Peer, WebSocketServer } from "ws"
import { portOf } from "./testing/PeerServer.ts"
import { ThrumError } from "./ThrumError.ts"
import { watch, type WatchEvent, type WatchOptions } from "./Viewer.ts"

const session: SessionInfo = {
  id: "3f0c2b1a-8d4e-4f6a-9b7c-5d1e2f3a4b5c",
  state: "live",
  createdAt: "2026-01-01T00:00:00.000Z",
  channels: [{ name: "x", unit: "count", scale: 1, offset: 0 }],
  rate: 100,
  tick: 1
}

const samples = (index: number, count: number, t0?: number): Uint8Array => {
  const block = packCounts(Array.from({ length: count }, (_, i) => index + i), 1)
  if (isFrameError(block)) throw block
  return encodeSamples(index, t0, block)
}

const at = (index: number, epoch = 0) => ({ epoch, index })
const epoch = (epoch: number) => encodeEpoch({ epoch, t0: undefined, wall: 0, index: 0 })

const servers: Array<WebSocketServer> = []
afterEach(() => {
  for (const server of servers.splice(0)) {
    for (const peer of server.clients) peer.terminate()
    server.close()
  }
})

/** Serves, connection after connection, what `serve` says. */
const serving = async (serve: ReadonlyArray<(peer: Peer, from: string) => void>) => {
  const asked: Array<string> = []
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" })
  servers.push(server)
  server.on("connection", (peer, request) => {
    const query = new URL(request.url ?? "", "http://host").searchParams
    asked.push(query.get("from") ?? "")
    peer.on("message", () => peer.send(encodeTime(0, 1)))
    serve[Math.min(asked.length, serve.length) - 1]?.(peer, query.get("from") ?? "")
  })
  await once(server, "listening")
  return { asked, url: `ws://127.0.0.1:${portOf(server)}/live` }
}

const collect = async (
  serve: ReadonlyArray<(peer: Peer, from: string) => void>,
  options: WatchOptions = { from: "start" },
  onEvent: (event: WatchEvent) => Promise<void> | void = () => {}
) => {
  const { asked, url } = await serving(serve)
  const events: Array<WatchEvent> = []
  const viewer = watch(url, options)
  let failure: unknown
  try {
    for await (const event of viewer) {
      events.push(event)
      await onEvent(event)
    }
  } catch (error) {
    failure = error
  }
  const batches = events.filter((event) => event.type === "samples")
  return {
    asked,
    events,
    failure,
    viewer,
    positions: batches.map(({ position }) => position.index),
    values: batches.flatMap(({ values }) => Array.from(values))
  }
}

const send = (peer: Peer, frames: ReadonlyArray<Uint8Array>): void => {
  for (const frame of frames) peer.send(frame)
}

/** Everything there is, from where it is asked, as fast as it goes; then the end. */
const flood = (total: number) => (peer: Peer, from: string): void => {
  const first = from === "start" ? 0 : from === "now" ? total : Number(from.split(":")[1])
  send(peer, [encodeViewerWelcome(session, at(first)), epoch(0)])
  for (let index = first - first % 100; index < total; index += 100) peer.send(samples(index, 100))
  send(peer, [encodeCaughtUp(at(total)), encodeEnded(at(total))])
  peer.close(1000)
}
const slowly = (event: WatchEvent): Promise<void> | void =>
  event.type === "samples" && event.position.index % 1000 === 0 ?
    new Promise((resolve) => setTimeout(resolve, 2)) :
    undefined

describe("Viewer", () => {
  it("hands on what comes, in order, and is done when the session has ended", async () => {
    const { asked, events, failure, values, viewer } = await collect([(peer) => {
      send(peer, [
        encodeViewerWelcome(session, at(0)),
        epoch(0),
        samples(0, 3),
        encodeDurable(at(3)),
        encodeGap({ from: at(3), to: at(5), reason: "device" }),
        samples(5, 2),
        encodeCaughtUp(at(7)),
        encodeEnded(at(7))
      ])
      peer.close(1000)
    }])
    assert.isUndefined(failure)
    assert.deepStrictEqual(asked, ["start"])
    assert.deepStrictEqual(
      events.map(({ type }) => type),
      ["welcome", "epoch", "samples", "durable", "gap", "samples", "caught-up", "ended"]
    )
    assert.deepStrictEqual(values, [0, 1, 2, 5, 6])
    assert.deepInclude(viewer.status, { state: "ended", position: at(7), durable: at(7), reconnects: 0 })
  })

  it("after a cut goes on at the next sample: none twice, none missing, in any epoch", async () => {
    const { asked, events, positions, values } = await collect([
      (peer) => {
        send(peer, [encodeViewerWelcome(session, at(0)), epoch(0), samples(0, 3)])
        setTimeout(() => peer.terminate(), 50)
      },
      (peer) => {
        // The frame that holds the position begins before it.
        send(peer, [
          encodeViewerWelcome(session, at(3)),
          epoch(0),
          samples(0, 3),
          samples(2, 4),
          epoch(1),
          samples(0, 2)
        ])
        setTimeout(() => peer.close(1012), 50)
      },
      (peer) => {
        send(peer, [encodeViewerWelcome(session, at(2, 1)), epoch(1), samples(2, 1), encodeEnded(at(3, 1))])
        peer.close(1000)
      }
    ])
    assert.deepStrictEqual(asked, ["start", "0:3", "1:2"])
    assert.deepStrictEqual(values, [0, 1, 2, 3, 4, 5, 0, 1, 2])
    assert.deepStrictEqual(positions, [0, 3, 0, 2])
    const away = events.flatMap((event) => event.type === "away" ? [event.error.name] : [])
    assert.deepStrictEqual(away, ["ConnectionLost", "Restarting"])
  })

  it("what is lost lies behind, and does not take the position back", async () => {
    const { asked, events, values } = await collect([
      (peer) => {
        send(peer, [
          encodeViewerWelcome(session, at(0)),
          epoch(0),
          samples(0, 5),
          encodeGap({ from: at(1), to: at(3), reason: "lost" })
        ])
        setTimeout(() => peer.terminate(), 50)
      },
      (peer) => {
        send(peer, [encodeViewerWelcome(session, at(5)), epoch(0), samples(5, 1), encodeEnded(at(6))])
        peer.close(1000)
      }
    ])
    assert.deepStrictEqual(asked, ["start", "0:5"])
    assert.deepStrictEqual(values, [0, 1, 2, 3, 4, 5])
    assert.deepStrictEqual(events.filter(({ type }) => type === "gap"), [
      { type: "gap", from: at(1), to: at(3), reason: "lost" }
    ])
  })

  it("complete: one that is too slow holds no more than its bound, and misses nothing", async () => {
    let most = 0
    const { asked, url } = await serving([flood(20_000)])
    const viewer = watch(url, { from: "start", bufferBytesMax: 5000 })
    const values: Array<number> = []
    for await (const event of viewer) {
      most = Math.max(most, viewer.status.bufferedBytes)
      await slowly(event)
      if (event.type === "samples") values.push(...event.values)
    }
    assert.deepStrictEqual(values, Array.from({ length: 20_000 }, (_, i) => i))
    assert.isAbove(asked.length, 2)
    assert.strictEqual(viewer.status.pauses, asked.length - 1)
    assert.isAtMost(most, 5500)
  })

  it("latest: one that is too slow goes on at what is newest, and is told exactly what it missed", async () => {
    const { asked, events, values } = await collect(
      [flood(20_000)],
      { from: "start", policy: "latest", bufferBytesMax: 5000 },
      slowly
    )
    assert.deepStrictEqual(asked, ["start", "now"])
    assert.deepStrictEqual(values, Array.from({ length: values.length }, (_, i) => i))
    assert.deepStrictEqual(events.filter(({ type }) => type === "gap"), [
      { type: "gap", from: at(values.length), to: at(20_000), reason: "skipped" }
    ])
  })

  it("cut anywhere, served in any pieces: each sample once, in order (property)", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 }), async (cuts) => {
        const frames = Array.from({ length: 10 }, (_, i) => samples(i * 3, 3))
        const part = (stop: number) => (peer: Peer, from: string): void => {
          const first = from === "start" ? 0 : Number(from.split(":")[1])
          const start = Math.floor(first / 3)
          send(peer, [encodeViewerWelcome(session, at(first)), epoch(0), ...frames.slice(start, start + stop)])
          if (start + stop < 10) return peer.close(1012)
          peer.send(encodeEnded(at(30)))
          peer.close(1000)
        }
        const { values } = await collect([...cuts.map(part), part(10)])
        assert.deepStrictEqual(values, Array.from({ length: 30 }, (_, i) => i))
      }),
      { numRuns: 5 }
    )
  })

  it("gives values in the session's unit, their texts, and both clocks", async () => {
    const described: SessionInfo = {
      ...session,
      channels: [{ name: "x", unit: "g", scale: 0.5, offset: 1 }, { name: "y", unit: "g", scale: 0.1, offset: 0 }],
      tick: 1000
    }
    const counts = packCounts([2, 3, 4, 5, 6, 7], 2)
    const floats = packFloats([0.1, 0.2, 0.3, 0.4], 2, { times: [0, 12] })
    if (isFrameError(counts) || isFrameError(floats)) throw new Error("cannot pack")
    const { events } = await collect([(peer) => {
      send(peer, [
        encodeViewerWelcome(described, at(1)),
        encodeEpoch({ epoch: 0, t0: 1000, wall: 5_000_000, index: 0 }),
        encodeSamples(0, 1000, counts),
        encodeSamples(3, 40_000, floats),
        encodeEnded(at(5))
      ])
      peer.close(1000)
    }], { from: at(1) })
    const [first, second] = events.filter((event) => event.type === "samples")
    assert.deepStrictEqual([first?.position, first?.next, first?.count], [at(1), at(3), 2])
    assert.deepStrictEqual(Array.from(first?.values ?? []), [3, 0.5, 4, 7 * 0.1])
    assert.deepStrictEqual(Array.from(first?.counts ?? []), [4, 5, 6, 7])
    assert.deepStrictEqual(Array.from(first?.deviceTimes ?? []), [11_000, 21_000])
    assert.deepStrictEqual(Array.from(first?.wallTimes ?? []), [5_010_000, 5_020_000])
    assert.isUndefined(second?.counts)
    assert.deepStrictEqual([0, 1, 2, 3].map((i) => second?.texts(i)), ["0.1", "0.2", "0.3", "0.4"])
    assert.deepStrictEqual(Array.from(second?.wallTimes ?? []), [5_039_000, 5_051_000])
  })

  it("a close that says not to come back is an error in the server's words", async () => {
    const { asked, failure } = await collect([(peer) => {
      peer.send(encodeError("SessionNotFound", "Cannot find the session"))
      peer.close(4004)
    }])
    assert.strictEqual(asked.length, 1)
    assert.instanceOf(failure, ThrumError)
    assert.deepInclude(failure, { name: "SessionNotFound", code: 4004 })
    assert.include(failure.message, "Cannot find the session")
  })

  it("a server that breaks its promises is an error, not a hole and not a crash", async () => {
    const welcome = encodeViewerWelcome(session, at(0))
    for (
      const [frames, words] of [
        [[Uint8Array.of(0xc1, 0xc1)], "no frame of thrum.v1"],
        [[welcome, epoch(0), samples(0, 3), samples(5, 3)], "0:5"],
        [[welcome, samples(0, 3)], "before their epoch"],
        [[epoch(0)], "before the welcome"],
        [[welcome, epoch(0), encodeSamples(0, undefined, Uint8Array.of(0x10, 0x05, 0xff))], "block"]
      ] as const
    ) {
      const { failure } = await collect([(peer) => send(peer, frames)])
      assert.instanceOf(failure, ThrumError)
      assert.strictEqual(failure.name, "NotThrum")
      assert.include(failure.message, words)
    }
    const { failure } = await collect([(peer) => {
      peer.send(welcome)
      peer.close(1000)
    }])
    assert.include(String(failure), "before it said")
  })

  it("ends by its signal, with its reason, and lets go of the connection when the loop is left", async () => {
    const stop = new AbortController()
    const { failure, viewer } = await collect([(peer) => {
      send(peer, [encodeViewerWelcome(session, at(0)), epoch(0), samples(0, 3)])
      setTimeout(() => stop.abort(new Error("enough")), 20)
    }], { from: "start", signal: stop.signal })
    assert.strictEqual(String(failure), "Error: enough")
    assert.strictEqual(viewer.status.state, "closed")

    const closed = Promise.withResolvers<void>()
    const { url } = await serving([(peer) => {
      peer.once("close", () => closed.resolve())
      send(peer, [encodeViewerWelcome(session, at(0)), epoch(0), samples(0, 3)])
    }])
    const left = watch(url)
    for await (const event of left) if (event.type === "samples") break
    assert.strictEqual(left.status.state, "closed")
    await closed.promise
    assert.strictEqual(formatPosition(left.status.position ?? at(0)), "0:3")
  })
})
