import { afterEach, assert, describe, it } from "@effect/vitest"
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
  isFrameError,
  kinds,
  packCounts,
  type SessionInfo
} from "@thrum/protocol"
import { once } from "node:events"
import type { AddressInfo } from "node:net"
import { type WebSocket as Peer, WebSocketServer } from "ws"
import { type ViewerEvent, viewSession } from "./ViewerConnection.ts"

const portOf = (server: { readonly address: () => AddressInfo | string | null }): number => {
  const address = server.address()
  if (address === null || typeof address === "string") throw new Error("the server does not listen")
  return address.port
}

const session: SessionInfo = {
  id: "3f0c2b1a-8d4e-4f6a-9b7c-5d1e2f3a4b5c",
  state: "live",
  createdAt: "2026-01-01T00:00:00.000Z",
  channels: [{ name: "x", unit: "count", scale: 1, offset: 0 }],
  rate: 100,
  tick: 1
}

const samples = (index: number, count: number): Uint8Array => {
  const block = packCounts(Array.from({ length: count }, (_, i) => index + i), 1)
  if (isFrameError(block)) throw block
  return encodeSamples(index, undefined, block)
}

let server: WebSocketServer | undefined
afterEach(() => {
  for (const peer of server?.clients ?? []) peer.terminate()
  server?.close()
})

/** Watches a server that does, for connection after connection, what `serve` says. */
const watch = async (
  serve: ReadonlyArray<(peer: Peer, from: string) => void>,
  room: () => Promise<void> | undefined = () => undefined
) => {
  const asked: Array<string> = []
  server = new WebSocketServer({ port: 0, host: "127.0.0.1" })
  server.on("connection", (peer, request) => {
    const from = new URL(request.url ?? "", "http://host").searchParams.get("from") ?? ""
    asked.push(from)
    peer.on("message", () => peer.send(encodeTime(0, 1)))
    serve[asked.length - 1]?.(peer, from)
  })
  await once(server, "listening")
  const events: Array<ViewerEvent> = []
  const failure = await viewSession({
    url: `ws://127.0.0.1:${portOf(server)}/live`,
    from: "start",
    room,
    onEvent: (event) => events.push(event)
  }).then(() => undefined, (error: unknown) => error instanceof Error ? error.message : String(error))
  const values = events.flatMap((event) =>
    event.kind === kinds.samples ? Array.from(event.block.integers.subarray(event.skip)) : []
  )
  const positions = events.flatMap((event) => event.kind === kinds.samples ? [event.position.index] : [])
  return { asked, events, failure, positions, values }
}

const at = (index: number, epoch = 0) => ({ epoch, index })
const epoch = (epoch: number) => encodeEpoch({ epoch, t0: undefined, wall: 0, index: 0 })

describe("ViewerConnection", () => {
  it("hands on what comes, in order, and is done when the session has ended", async () => {
    const { asked, events, failure, values } = await watch([(peer) => {
      peer.send(encodeViewerWelcome(session, at(0)))
      for (
        const frame of [
          epoch(0),
          samples(0, 3),
          encodeDurable(at(3)),
          encodeGap({ from: at(3), to: at(5), reason: "device" }),
          samples(5, 2),
          encodeCaughtUp(at(7)),
          encodeEnded(at(7))
        ]
      ) peer.send(frame)
      peer.close(1000)
    }])
    assert.isUndefined(failure)
    assert.deepStrictEqual(asked, ["start"])
    assert.deepStrictEqual(events.filter(({ kind }) => kind !== "clock").map(({ kind }) => kind), [
      kinds.viewerWelcome,
      kinds.epoch,
      kinds.samples,
      kinds.durable,
      kinds.gap,
      kinds.samples,
      kinds.caughtUp,
      kinds.ended
    ])
    assert.deepStrictEqual(values, [0, 1, 2, 5, 6])
  })

  it("after a cut goes on at the next sample: none twice, none missing, in any epoch", async () => {
    const { asked, positions, values } = await watch([
      (peer) => {
        peer.send(encodeViewerWelcome(session, at(0)))
        for (const frame of [epoch(0), samples(0, 3)]) peer.send(frame)
        setTimeout(() => peer.terminate(), 50)
      },
      (peer) => {
        peer.send(encodeViewerWelcome(session, at(3)))
        // The frame that holds the position begins before it.
        for (const frame of [epoch(0), samples(0, 3), samples(2, 4), epoch(1), samples(0, 2)]) peer.send(frame)
        setTimeout(() => peer.close(1012), 50)
      },
      (peer) => {
        peer.send(encodeViewerWelcome(session, at(2, 1)))
        for (const frame of [epoch(1), samples(2, 1), encodeEnded(at(3, 1))]) peer.send(frame)
        peer.close(1000)
      }
    ])
    assert.deepStrictEqual(asked, ["start", "0:3", "1:2"])
    assert.deepStrictEqual(values, [0, 1, 2, 3, 4, 5, 0, 1, 2])
    assert.deepStrictEqual(positions, [0, 3, 0, 2])
  })

  it("takes no more while there is no room, and then goes on at the next sample", async () => {
    let isFull = false
    const { asked, values } = await watch([
      (peer) => {
        peer.send(encodeViewerWelcome(session, at(0)))
        for (const frame of [epoch(0), samples(0, 3)]) peer.send(frame)
        isFull = true
      },
      (peer, from) => {
        assert.isFalse(isFull)
        peer.send(encodeViewerWelcome(session, at(Number(from.split(":")[1]))))
        for (const frame of [epoch(0), samples(0, 3), samples(3, 2), encodeEnded(at(5))]) peer.send(frame)
        peer.close(1000)
      }
    ], () =>
      isFull
        ? new Promise((resolve) =>
          setTimeout(() => {
            isFull = false
            resolve()
          }, 50)
        )
        : undefined)
    assert.strictEqual(asked.length, 2)
    assert.deepStrictEqual(values, [0, 1, 2, 3, 4])
  })

  it("a close that says not to come back is an error in the server's words", async () => {
    const { asked, failure } = await watch([(peer) => {
      peer.send(encodeError("SessionNotFound", "Cannot find the session"))
      peer.close(4004)
    }])
    assert.strictEqual(asked.length, 1)
    assert.include(failure, "4004")
    assert.include(failure, "Cannot find the session")
  })

  it("a close as if it had ended, before it was said to have, is an error", async () => {
    const { failure } = await watch([(peer) => {
      peer.send(encodeViewerWelcome(session, at(0)))
      peer.close(1000)
    }])
    assert.include(failure, "before it said")
  })

  it("what is no frame is an error, not a crash", async () => {
    const { failure } = await watch([(peer) => peer.send(Uint8Array.of(0xc1, 0xc1))])
    assert.include(failure, "no frame of thrum.v1")
  })
})
