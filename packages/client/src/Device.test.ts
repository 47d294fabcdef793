import { encodeError, encodeRewind, isFrameError, readBlock, readSamples } from "@thrum/protocol"
import { afterEach, assert, describe, it } from "vitest"
import { type Device, type DeviceOptions, openDevice } from "./Device.ts"
import type { FrameStore, StoredFrames } from "./FrameStore.ts"
import { MemoryStore } from "./testing/MemoryStore.ts"
import { PeerServer, until } from "./testing/PeerServer.ts"
import { ThrumError } from "./ThrumError.ts"

const started: Array<{ readonly close: () => unknown }> = []
afterEach(async () => {
  for (const each of started.splice(0)) await each.close()
})

const open = async (server: PeerServer, options: Partial<DeviceOptions> = {}): Promise<Device> => {
  const device = await openDevice({
    url: server.url,
    key: "secret",
    channels: 1,
    rate: 10,
    values: "counts",
    ...options
  })
  started.push(device)
  return device
}

const start = async (prepare: (server: PeerServer) => void = () => {}, options: Partial<DeviceOptions> = {}) => {
  const server = await PeerServer.start()
  started.push(server)
  prepare(server)
  return { device: await open(server, options), server }
}

/** Ten samples a frame, whose values are their indexes. */
const push = (device: Device, frames: number): void => {
  for (let i = 0; i < frames * 10; i++) device.push([device.status.next])
}

const valuesOf = (bytes: Uint8Array): ReadonlyArray<number> => {
  const samples = readSamples(bytes)
  if (isFrameError(samples)) throw samples
  const block = readBlock(samples.block, 1)
  if (isFrameError(block)) throw block
  return Array.from(block.integers)
}

const failureOf = async (promise: Promise<unknown>): Promise<ThrumError> => {
  try {
    await promise
  } catch (error) {
    assert.instanceOf(error, ThrumError)
    return error
  }
  throw new Error("nothing was refused")
}

const thrown = (act: () => unknown): ThrumError => {
  try {
    act()
  } catch (error) {
    assert.instanceOf(error, ThrumError)
    return error
  }
  throw new Error("nothing was refused")
}

const acking = (server: PeerServer): void => {
  server.onSamples = (_, next) => server.ack(next, next)
}
const sealing = (server: PeerServer): void => {
  server.onEnd = (index) => {
    server.ack(index, index)
    server.peer?.close(1000)
  }
}

describe("Device", () => {
  it("says hello, packs, sends in order, keeps until durable, ends, and is done when the server closes", async () => {
    const { device, server } = await start((server) => {
      server.onSamples = (_, next) => server.ack(next, 0)
      sealing(server)
    })
    push(device, 5)
    await until(() => device.status.received === 50 && device.status.latency !== undefined)
    assert.isBelow(Math.abs(device.status.clockOffset ?? Infinity), 1_000_000)
    assert.deepInclude(device.status, { state: "connected", epoch: 0, durable: 0, bufferedSamples: 50, next: 50 })
    await device.end()
    assert.deepStrictEqual(server.hellos.map(({ key, next }) => ({ key, next })), [{ key: "secret", next: 0 }])
    assert.deepStrictEqual(server.got.map(({ index }) => index), [0, 10, 20, 30, 40])
    assert.deepStrictEqual(server.got.flatMap(({ bytes }) => valuesOf(bytes)), Array.from({ length: 50 }, (_, i) => i))
    assert.deepInclude(device.status, { state: "ended", durable: 50, bufferedBytes: 0, bufferedSamples: 0, dropped: 0 })
    assert.deepStrictEqual(server.ends, [50])
    assert.strictEqual(thrown(() => device.push([1])).name, "Closed")
  })

  it("samples that do not fill a frame leave after a second, and when they are flushed", async () => {
    const { device, server } = await start(acking)
    device.push([1, 2, 3])
    device.flush()
    await until(() => server.got.length === 1)
    device.push([4])
    assert.strictEqual(server.got.length, 1)
    await until(() => server.got.length === 2)
    assert.deepStrictEqual(server.got.flatMap(({ bytes }) => valuesOf(bytes)), [1, 2, 3, 4])
  })

  it("skipped instants are a jump of the index, and at the end none at all", async () => {
    const { device, server } = await start((server) => {
      acking(server)
      sealing(server)
    })
    device.push([1, 2])
    device.skip(5)
    device.push([3])
    device.skip(100)
    await device.end()
    assert.deepStrictEqual(server.got.map(({ index, next }) => [index, next]), [[0, 2], [7, 8]])
    assert.deepStrictEqual(server.ends, [8])
  })

  it("never has more on its way than the window, and goes on as acks come", async () => {
    const { device, server } = await start((server) => {
      server.window = 50
    })
    push(device, 20)
    await until(() => server.got.length > 0)
    await new Promise((resolve) => setTimeout(resolve, 50))
    const sent = server.got.reduce((sum, { bytes }) => sum + bytes.length, 0)
    assert.isAtMost(sent, 50)
    assert.isAtLeast(sent + server.got[0]!.bytes.length, 50)
    acking(server)
    server.ack(server.next, 0)
    await device.whenDurable()
    assert.strictEqual(server.got.length, 20)
  })

  it("answers a rewind by sending all from there again, the end too", async () => {
    const { device, server } = await start((server) => {
      server.onEnd = (index) => {
        if (server.ends.length === 1) {
          server.ack(20, 20)
          server.peer?.send(encodeRewind(20))
        } else {
          server.ack(index, index)
          server.peer?.close(1000)
        }
      }
    })
    push(device, 4)
    await device.end()
    assert.deepStrictEqual(server.got.map(({ index }) => index), [0, 10, 20, 30, 20, 30])
    assert.deepStrictEqual(server.ends, [40, 40])
    assert.deepInclude(device.status, { durable: 40, resent: 2, state: "ended" })
  })

  it("an end that crossed a rewind and is refused for it is sent again on another connection", async () => {
    const { device, server } = await start((server) => {
      server.onEnd = (index) => {
        if (server.ends.length === 1) {
          server.peer?.send(encodeRewind(20))
          server.peer?.send(encodeError("EndMismatch", "Cannot end at 40: the stream is at 20"))
          server.peer?.close(4013)
          server.next = 20
        } else {
          server.ack(index, index)
          server.peer?.close(1000)
        }
      }
    })
    push(device, 4)
    await device.end()
    assert.deepStrictEqual([server.connections, server.ends, device.status.durable], [2, [40, 40], 40])
  })

  it("an end that is refused without a rewind is an error", async () => {
    const { device } = await start((server) => {
      server.onEnd = () => {
        server.peer?.send(encodeError("EndMismatch", "Cannot end at 40: the stream is at 20"))
        server.peer?.close(4013)
      }
    })
    push(device, 4)
    assert.strictEqual((await failureOf(device.end())).code, 4013)
  })

  it("comes back after a cut and goes on where the welcome says", async () => {
    const states: Array<string> = []
    const { device, server } = await start((server) => {
      server.onSamples = (index, next) => {
        if (server.connections === 1 && index === 30) {
          // Arrived up to here, stored up to there; the rest of the window is lost with the connection.
          server.ack(20, 10)
          server.next = 20
          server.peer?.terminate()
        } else server.ack(next, server.connections === 1 ? 0 : next)
      }
    }, { onStatus: ({ state }) => states.at(-1) === state || states.push(state) })
    push(device, 6)
    await device.whenDurable()
    assert.strictEqual(server.connections, 2)
    assert.deepStrictEqual(
      server.got.filter(({ connection }) => connection === 2).map(({ index }) => index),
      [20, 30, 40, 50]
    )
    assert.deepInclude(device.status, { durable: 60, reconnects: 1 })
    assert.strictEqual(device.status.lastError?.name, "ConnectionLost")
    assert.deepStrictEqual(new Set(server.hellos.map((hello) => hello.bootId)).size, 1)
    await until(() => states.length === 3)
    assert.deepStrictEqual(states, ["connected", "away", "connected"])
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
      acking(server)
    })
    push(device, 1)
    await device.whenDurable()
    assert.isAtLeast(backAfter, 600)
    assert.deepInclude(device.status.lastError, { name: "Overloaded", code: 4100, retryAfter: 600 })
  })

  it("a close that says not to come back ends it, in the server's words", async () => {
    const { device, server } = await start((server) => {
      server.onHello = (_, peer) => {
        peer.send(encodeError("KeyRefused", "Cannot publish: the key does not fit"))
        peer.close(4003)
      }
    })
    push(device, 1)
    const error = await failureOf(device.whenDurable())
    assert.deepInclude(error, { name: "KeyRefused", code: 4003 })
    assert.include(error.message, "the key does not fit")
    assert.strictEqual(thrown(() => device.push([1])), error)
    assert.strictEqual(device.signal.reason, error)
    assert.strictEqual(device.status.state, "failed")
    await new Promise((resolve) => setTimeout(resolve, 400))
    assert.strictEqual(server.connections, 1)
  })

  it("one that is superseded does not come back", async () => {
    const { device, server } = await start()
    await until(() => device.status.state === "connected")
    server.peer?.close(4010)
    assert.strictEqual((await failureOf(device.end())).name, "Superseded")
    await new Promise((resolve) => setTimeout(resolve, 300))
    assert.strictEqual(server.connections, 1)
  })

  it("a server that has less than it had acked, or more than was sent, is refused, not obeyed", async () => {
    const forgets = await start((server) => {
      server.onSamples = (_, next) => {
        server.ack(next, next)
        server.peer?.send(encodeRewind(5))
      }
    })
    push(forgets.device, 1)
    const error = await failureOf(forgets.device.end())
    assert.deepInclude(error, { name: "Contradiction", code: 0 })
    assert.include(error.message, "index 5")

    const knows = await start((server) => {
      server.next = 70
    })
    push(knows.device, 1)
    assert.include((await failureOf(knows.device.end())).message, "index 70")
  })

  it("an end whose answer was cut off is found sealed when it comes back", async () => {
    const { device } = await start((server) => {
      acking(server)
      server.onEnd = () => server.peer?.terminate()
      server.onHello = (connection, peer) => {
        if (connection === 1) return server.welcome()
        peer.send(encodeError("SessionEnded", "Cannot publish: it has ended"))
        peer.close(4005)
      }
    })
    push(device, 1)
    await device.whenDurable()
    await device.end()
    assert.deepInclude(device.status, { state: "ended", durable: 10 })
  })

  it("a session that others sealed is the end; a failure only where something is missing in it", async () => {
    const whole = await start(acking)
    push(whole.device, 1)
    await whole.device.whenDurable()
    whole.server.peer?.close(4005)
    await until(() => whole.device.status.state === "ended")
    assert.strictEqual(whole.device.status.lastError?.name, "SessionEnded")

    const missing = await start()
    push(missing.device, 2)
    await until(() => missing.server.got.length === 2)
    missing.server.ack(20, 10)
    await until(() => missing.device.status.durable === 10)
    missing.server.peer?.close(4005)
    const error = await failureOf(missing.device.whenDurable())
    assert.strictEqual(error.name, "SessionEnded")
    assert.include(error.message, "before 10")
  })

  it("at its bound it drops the oldest, says so, and the server sees the gap", async () => {
    const dropped: Array<readonly [number, number, number]> = []
    const { device, server } = await start((server) => {
      server.onHello = () => {}
    }, { bufferBytesMax: 65_536, onDrop: ({ from, samples, to }) => dropped.push([from, to, samples]) })
    const random = new Int32Array(1000).map((_, i) => Math.imul(i + 1, 0x9e3779b1))
    for (let i = 0; i < 100; i++) device.push(random)
    const { bufferedBytes, bufferedSamples, dropped: samples, next } = device.status
    assert.isAtMost(bufferedBytes, 65_536)
    assert.isAbove(bufferedBytes, 60_000)
    assert.deepStrictEqual([next, bufferedSamples + samples], [100_000, 100_000])
    assert.strictEqual(dropped.reduce((sum, [, , samples]) => sum + samples, 0), samples)
    // One after the other, from the first.
    assert.deepStrictEqual(dropped.map(([from]) => from), [0, ...dropped.slice(0, -1).map(([, to]) => to)])
    acking(server)
    await until(() => server.hellos.length === 1)
    server.welcome()
    await device.whenDurable()
    assert.strictEqual(server.got[0]?.index, samples)
    assert.deepInclude(device.status, { durable: 100_000, bufferedBytes: 0 })
  })

  it("told to wait, it takes no more when it is full, and again once some are durable", async () => {
    const { device, server } = await start((server) => {
      server.onHello = () => {}
    }, { full: "wait", bufferBytesMax: 65_536 })
    const random = new Int32Array(1000).map((_, i) => Math.imul(i + 1, 0x9e3779b1))
    let pushes = 0
    while (device.push(random)) pushes++
    const { bufferedBytes, dropped, next } = device.status
    assert.isAtMost(bufferedBytes, 65_536)
    assert.deepStrictEqual([next, dropped], [pushes * 1000, 0])
    const room = device.room()
    let hasRoom = false
    void room.then(() => hasRoom = true)
    await new Promise((resolve) => setTimeout(resolve, 20))
    assert.isFalse(hasRoom)
    acking(server)
    await until(() => server.hellos.length === 1)
    server.welcome()
    await room
    assert.isTrue(device.push(random))
    await device.whenDurable()
    assert.strictEqual(device.status.durable, (pushes + 1) * 1000)
    assert.strictEqual(thrown(() => device.push(new Int32Array(20_000))).name, "BadSamples")
  })

  it("takes frames that were packed elsewhere, upwards only", async () => {
    const { device, server } = await start(acking)
    push(device, 1)
    await until(() => server.got.length === 1)
    const { bytes } = server.got[0]!
    assert.strictEqual(
      thrown(() => device.put({ index: 5, next: 15, bytes: new Uint8Array(bytes) })).name,
      "BadSamples"
    )
    assert.strictEqual(
      thrown(() => device.put({ index: 20, next: 21, bytes: new Uint8Array(65_537) })).name,
      "BadSamples"
    )
    assert.strictEqual(device.status.next, 10)
  })

  it("what cannot be is refused before anything is opened", async () => {
    const options: DeviceOptions = { url: "ws://host/ingest", key: "k", channels: 3, rate: 100 }
    for (
      const [change, words] of [
        [{ channels: 17 }, "17"],
        [{ rate: 0 }, "rate 0"],
        [{ tick: 0.5 }, "tick 0.5"],
        [{ blockSamples: 5000 }, "5000"],
        [{ bufferBytesMax: 1000 }, "1000"],
        [{ bootId: new Uint8Array(17) }, "17"],
        [{ key: "k".repeat(129) }, "key"],
        [{ url: "nowhere" }, "nowhere"]
      ] as const
    ) assert.include((await failureOf(openDevice({ ...options, ...change }))).message, words)
  })

  it("is given up when the server takes nothing for longer than it has patience", async () => {
    const { device } = await start(undefined, { patience: 500 })
    await until(() => device.status.state === "connected")
    await new Promise((resolve) => setTimeout(resolve, 1200))
    assert.strictEqual(device.status.state, "connected")
    push(device, 1)
    assert.strictEqual((await failureOf(device.end())).name, "GivenUp")
  })
})

describe("a device with a store", () => {
  it("goes on after a reload in its epoch, with what was not durable, and uses no index twice", async () => {
    const disk = new MemoryStore()
    const server = await PeerServer.start()
    started.push(server)
    server.onSamples = (_, next) => server.ack(next, Math.min(next, 20))
    const first = await open(server, { store: disk.reopened() })
    push(first, 4)
    await until(() => first.status.durable === 20)
    await until(() => disk.content?.freed === 20)
    assert.isFalse(first.status.isResumed)
    // The page is gone, in the middle of a frame, without a word.
    first.push([40, 41])
    disk.cut()
    server.peer?.terminate()
    server.next = 20
    acking(server)
    sealing(server)
    const second = await open(server, { store: disk.reopened() })
    assert.deepInclude(second.status, { isResumed: true, isKept: true, next: 40, bufferedSamples: 20 })
    push(second, 2)
    await second.end()
    const hellos = server.hellos.filter(({ next }) => next === 20)
    assert.isAbove(hellos.length, 0)
    assert.strictEqual(new Set(server.hellos.map(({ bootId }) => bootId)).size, 1)
    const last = server.connections
    const again = server.got.filter(({ connection }) => connection === last)
    assert.deepStrictEqual(again.map(({ index }) => index), [20, 30, 40, 50])
    assert.deepStrictEqual(again.flatMap(({ bytes }) => valuesOf(bytes)), Array.from({ length: 40 }, (_, i) => i + 20))
    await until(() => disk.content === undefined)
  })

  it("sends no frame that the store has not kept", async () => {
    const disk = new MemoryStore()
    const { device, server } = await start(acking, { store: disk.reopened() })
    disk.isStuck = true
    push(device, 2)
    await until(() => device.status.state === "connected")
    await new Promise((resolve) => setTimeout(resolve, 50))
    assert.strictEqual(server.got.length, 0)
    disk.unstick()
    await device.whenDurable()
    assert.strictEqual(server.got.length, 2)
  })

  it("a store that breaks is given up and emptied, said, and the device goes on", async () => {
    const disk = new MemoryStore()
    const { device } = await start(acking, { store: disk.reopened() })
    push(device, 1)
    await device.whenDurable()
    disk.isFull = true
    push(device, 1)
    await device.whenDurable()
    assert.deepInclude(device.status, { durable: 20, isKept: false, state: "connected" })
    assert.strictEqual(device.status.lastError?.name, "StoreFailed")
    assert.isUndefined(disk.content)
  })

  it("frees what it dropped, and refuses another session's frames", async () => {
    const disk = new MemoryStore()
    const { device } = await start((server) => {
      server.onHello = () => {}
    }, { store: disk.reopened(), bufferBytesMax: 65_536 })
    const random = new Int32Array(1000).map((_, i) => Math.imul(i + 1, 0x9e3779b1))
    for (let i = 0; i < 30; i++) device.push(random)
    await device.close()
    const kept: StoredFrames | undefined = disk.content
    assert.strictEqual(kept?.frames[0]?.index, device.status.dropped)
    assert.strictEqual(kept?.freed, device.status.dropped)

    const store: FrameStore = disk.reopened()
    const error = await failureOf(openDevice({ url: "ws://other/ingest", key: "k", channels: 1, rate: 1, store }))
    assert.strictEqual(error.name, "StoreFailed")
  })
})
