import { afterEach, assert, describe, it } from "@effect/vitest"
import {
  encodeAck,
  encodeError,
  encodeRewind,
  encodeSamples,
  encodeTime,
  encodeWelcome,
  isFrameError,
  kinds,
  packCounts,
  readDeviceFrame,
  readSamples
} from "@thrum/protocol"
import { once } from "node:events"
import type { AddressInfo } from "node:net"
import { type WebSocket as Peer, WebSocketServer } from "ws"
import { DeviceConnection } from "./DeviceConnection.ts"
import type { PackedFrame } from "./FramePacker.ts"

const portOf = (server: { readonly address: () => AddressInfo | string | null }): number => {
  const address = server.address()
  if (address === null || typeof address === "string") throw new Error("the server does not listen")
  return address.port
}

const samplesEach = 10

/** Frames of ten samples, from index 0 on. */
const frames = (count: number): ReadonlyArray<PackedFrame> =>
  Array.from({ length: count }, (_, i) => {
    const block = packCounts(Array.from({ length: samplesEach }, (_, at) => i * samplesEach + at), 1)
    if (isFrameError(block)) throw block
    return {
      index: i * samplesEach,
      next: (i + 1) * samplesEach,
      bytes: encodeSamples(i * samplesEach, undefined, block)
    }
  })

/** A server that keeps what it was sent and does what a test says. */
class Server {
  /** Every samples frame in the order it came: connection and index. */
  readonly got: Array<readonly [connection: number, index: number]> = []
  readonly hellos: Array<{ readonly key: string | undefined; readonly bootId: string; readonly next: number }> = []
  readonly ends: Array<number> = []
  connections = 0
  window = 1 << 18
  /** Where the stream is. */
  next = 0
  peer: Peer | undefined
  onSamples: (index: number, next: number) => void = () => {}
  onHello: (connection: number, peer: Peer) => void = () => this.welcome()
  onEnd: (index: number) => void = () => {}
  readonly server: WebSocketServer

  constructor() {
    this.server = new WebSocketServer({ port: 0, host: "127.0.0.1" })
    this.server.on("connection", (peer) => {
      const connection = ++this.connections
      this.peer = peer
      peer.on("message", (data: Buffer) => this.take(connection, peer, data))
    })
  }

  get url(): string {
    return `ws://127.0.0.1:${portOf(this.server)}/ingest`
  }

  welcome(): void {
    this.peer?.send(encodeWelcome({ epoch: 0, next: this.next, window: this.window, server: 0 }))
  }

  ack(received: number, durable: number): void {
    this.peer?.send(encodeAck({ received, durable, window: this.window }))
  }

  close(): void {
    for (const peer of this.server.clients) peer.terminate()
    this.server.close()
  }

  private take(connection: number, peer: Peer, data: Buffer): void {
    // What a connection still held when it was cut is lost with it.
    if (peer.readyState !== peer.OPEN) return
    const frame = readDeviceFrame(data)
    if (isFrameError(frame)) throw frame
    if (frame.kind === kinds.hello) {
      this.hellos.push(frame)
      this.onHello(connection, peer)
    } else if (frame.kind === kinds.samples) {
      const samples = readSamples(data)
      if (isFrameError(samples)) throw samples
      this.got.push([connection, frame.index])
      this.next = frame.index + samplesEach
      this.onSamples(frame.index, this.next)
    } else if (frame.kind === kinds.end) {
      this.ends.push(frame.index)
      this.onEnd(frame.index)
    } else peer.send(encodeTime(frame.device, 1))
  }
}

const started: Array<{ readonly close: () => void }> = []
afterEach(() => {
  for (const each of started.splice(0)) each.close()
})

const start = async (
  prepare: (server: Server) => void = () => {},
  more: { readonly onAway?: (why: string) => void } = {}
) => {
  const server = new Server()
  prepare(server)
  await once(server.server, "listening")
  const device = new DeviceConnection({ url: server.url, key: "secret", bootId: Uint8Array.of(1, 2, 3), ...more })
  started.push(device, server)
  return { device, server }
}

const until = async (isTrue: () => boolean): Promise<void> => {
  for (let i = 0; i < 500; i++) {
    if (isTrue()) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  throw new Error("it did not become true in 5 s")
}

const refusalOf = async (promise: Promise<unknown>): Promise<string> => {
  try {
    await promise
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
  throw new Error("nothing was refused")
}

describe("DeviceConnection", () => {
  it("says hello, sends in order, keeps until durable, ends, and is done when the server closes", async () => {
    const { device, server } = await start((server) => {
      server.onSamples = (_, next) => server.ack(next, 0)
      server.onEnd = (index) => {
        server.ack(index, index)
        server.peer?.close(1000)
      }
    })
    for (const frame of frames(5)) assert.isTrue(device.put(frame))
    await until(() => device.received === 50)
    assert.strictEqual(device.durable, 0)
    await device.end()
    assert.deepStrictEqual(server.hellos.map(({ bootId, key, next }) => ({ bootId, key, next })), [
      { bootId: "x010203", key: "secret", next: 0 }
    ])
    assert.deepStrictEqual(server.got.map(([, index]) => index), [0, 10, 20, 30, 40])
    assert.deepStrictEqual([device.durable, device.isSealed, server.ends], [50, true, [50]])
  })

  it("never has more on its way than the window, and goes on as acks come", async () => {
    const all = frames(20)
    const two = all[0]!.bytes.length * 2 + 4
    const { device, server } = await start((server) => {
      server.window = two
    })
    for (const frame of all) device.put(frame)
    await until(() => server.got.length === 2)
    await new Promise((resolve) => setTimeout(resolve, 50))
    assert.strictEqual(server.got.length, 2)
    server.ack(10, 0)
    await until(() => server.got.length === 3)
    server.onSamples = (_, next) => server.ack(next, next)
    server.ack(30, 30)
    await device.settled()
    assert.strictEqual(server.got.length, 20)
  })

  it("answers a rewind by sending all from there again, the end too", async () => {
    const { device, server } = await start((server) => {
      server.onEnd = (index) => {
        if (server.ends.length === 1) {
          server.ack(index, 20)
          server.peer?.send(encodeRewind(20))
        } else {
          server.ack(index, index)
          server.peer?.close(1000)
        }
      }
    })
    for (const frame of frames(4)) device.put(frame)
    await device.end()
    assert.deepStrictEqual(server.got.map(([, index]) => index), [0, 10, 20, 30, 20, 30])
    assert.deepStrictEqual([server.ends, device.durable, device.resent], [[40, 40], 40, 2])
  })

  it("comes back after a cut and goes on where the welcome says", async () => {
    const away: Array<string> = []
    const { device, server } = await start((server) => {
      server.onSamples = (index, next) => {
        if (server.connections === 1 && index === 30) {
          // Arrived up to here, stored up to there; the rest of the window is lost with the connection.
          server.ack(20, 10)
          server.next = 20
          server.peer?.terminate()
        } else server.ack(next, server.connections === 1 ? 0 : next)
      }
    }, { onAway: (why) => away.push(why) })
    for (const frame of frames(6)) device.put(frame)
    await device.settled()
    assert.strictEqual(server.connections, 2)
    assert.strictEqual(away.length, 1)
    assert.deepStrictEqual(server.got.filter(([connection]) => connection === 2).map(([, index]) => index), [
      20,
      30,
      40,
      50
    ])
    assert.deepStrictEqual([device.durable, device.reconnects], [60, 1])
    assert.deepStrictEqual(new Set(server.hellos.map((hello) => hello.bootId)), new Set(["x010203"]))
  })

  it("waits as long as the server asks before it comes back", async () => {
    let closedAt = 0
    let backAfter = 0
    const { device } = await start((server) => {
      server.onHello = (connection, peer) => {
        if (connection === 1) {
          closedAt = performance.now()
          peer.send(encodeError("Overloaded", "full", 600))
          peer.close(4100)
        } else {
          backAfter = performance.now() - closedAt
          server.welcome()
        }
      }
      server.onSamples = (_, next) => server.ack(next, next)
    })
    device.put(frames(1)[0]!)
    await device.settled()
    assert.isAtLeast(backAfter, 600)
  })

  it("a close that says not to come back ends it, in the server's words", async () => {
    const { device, server } = await start((server) => {
      server.onHello = (_, peer) => {
        peer.send(encodeError("KeyRefused", "Cannot publish: the key does not fit"))
        peer.close(4003)
      }
    })
    device.put(frames(1)[0]!)
    const message = await refusalOf(device.settled())
    assert.include(message, "4003")
    assert.include(message, "the key does not fit")
    assert.throws(() => device.put(frames(1)[0]!))
    await new Promise((resolve) => setTimeout(resolve, 400))
    assert.strictEqual(server.connections, 1)
  })

  it("a server that wants what is not kept any more is refused, not obeyed", async () => {
    const { device } = await start((server) => {
      server.onSamples = (_, next) => {
        server.ack(next, next)
        server.peer?.send(encodeRewind(5))
      }
    })
    device.put(frames(1)[0]!)
    assert.include(await refusalOf(device.during(new Promise(() => {}))), "index 5")
  })

  it("an end whose answer was cut off is found sealed when it comes back", async () => {
    const { device } = await start((server) => {
      server.onSamples = (_, next) => server.ack(next, next)
      server.onEnd = () => server.peer?.terminate()
      server.onHello = (connection, peer) => {
        if (connection === 1) return server.welcome()
        peer.send(encodeError("SessionEnded", "Cannot publish: it has ended"))
        peer.close(4005)
      }
    })
    device.put(frames(1)[0]!)
    await device.settled()
    await device.end()
    assert.deepStrictEqual([device.isSealed, device.durable], [true, 10])
  })

  it("refuses a frame when its buffer is full, and takes it again once some are durable", async () => {
    const { device, server } = await start((server) => {
      server.onHello = () => {}
    })
    const bytes = new Uint8Array(60_000)
    let next = 0
    while (device.put({ index: next, next: next + 1, bytes })) next++
    assert.isAtLeast(next * bytes.length, 8_388_608)
    assert.isBelow(next * bytes.length, 8_388_608 + 2 * bytes.length)
    const room = device.room()
    await until(() => server.hellos.length === 1)
    server.welcome()
    server.ack(0, 2)
    await room
    assert.isTrue(device.put({ index: next, next: next + 1, bytes }))
  })
})
