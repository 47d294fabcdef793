import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { coreLayer, CoreLimits, coreLimits, type CoreLimitValues, Sessions } from "@thrum/core"
import { makeFrames, makeTroubledArchive, sessionOf, type Trouble } from "@thrum/core/testing"
import { encodeEnd, encodeHello, encodeTime, isFrameError, kinds, packCounts } from "@thrum/protocol"
import { Effect, Exit, Layer, Scope } from "effect"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { connect as connectTcp } from "node:net"
import { afterEach, assert, describe, it } from "vitest"
import { Device, until } from "../../../../test/support/Device.ts"
import { Watcher } from "../../../../test/support/Watcher.ts"
import { Doors } from "./Doors.ts"
import { makeNodeServer } from "./Upgrade.ts"

/** Only the doors: what stands before them (links, queries, errors by HTTP) is tested with the HTTP side. */
const routes = Layer.mergeAll(
  HttpRouter.add(
    "GET",
    "/ingest/:id",
    Effect.gen(function*() {
      const request = yield* HttpServerRequest.HttpServerRequest
      const id = request.url.split("/")[2]!
      yield* (yield* Doors).ingest(id, request.headers["authorization"]?.slice(7), request)
      return HttpServerResponse.empty()
    })
  ),
  HttpRouter.add(
    "GET",
    "/live/:id",
    Effect.gen(function*() {
      const request = yield* HttpServerRequest.HttpServerRequest
      const url = new URL(request.url, "http://localhost")
      const from = url.searchParams.get("from") === "start" ? "start" : "now"
      const policy = url.searchParams.get("policy") === "latest" ? "latest" : "complete"
      const format = url.searchParams.get("format") === "json" ? "json" : "frames"
      yield* (yield* Doors).live(url.pathname.split("/")[2]!, { from, policy, format }, request)
      return HttpServerResponse.empty()
    })
  )
)

interface House {
  readonly base: string
  readonly id: string
  readonly key: string
  readonly trouble: Trouble
  readonly drain: () => Promise<void>
  readonly counts: Doors["Service"]["counts"]
}

let scope: Scope.Closeable | undefined
afterEach(async () => {
  if (scope !== undefined) await Effect.runPromise(Scope.close(scope, Exit.void))
  scope = undefined
})

const open = async (limits: Partial<CoreLimitValues> = {}): Promise<House> => {
  const made = await Effect.runPromise(Scope.make())
  scope = made
  const { layer, trouble } = makeTroubledArchive()
  const app = HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provideMerge(NodeHttpServer.layer(makeNodeServer, {
      port: 0,
      host: "127.0.0.1",
      gracefulShutdownTimeout: "1 second"
    })),
    Layer.provideMerge(Doors.layer),
    Layer.provideMerge(coreLayer),
    Layer.provideMerge(layer)
  )
  return Effect.runPromise(
    Effect.gen(function*() {
      const context = yield* Layer.buildWithScope(app, made)
      return yield* Effect.gen(function*() {
        const { standing, ingestKey } = yield* (yield* Sessions).create(sessionOf(0).description)
        const { address } = yield* HttpServer.HttpServer
        const doors = yield* Doors
        return {
          base: HttpServer.formatAddress(address).replace("http", "ws"),
          id: standing.record.id,
          key: ingestKey,
          trouble,
          drain: () => Effect.runPromise(doors.drain),
          counts: doors.counts
        }
      }).pipe(Effect.provideContext(context))
    }).pipe(Effect.provideService(CoreLimits, { ...coreLimits, ...limits }))
  )
}

const frames = makeFrames(50)
const sent = frames.map(({ next, bytes }) => ({ next, bytes: new Uint8Array(bytes) }))

describe("the device's door", () => {
  it("welcomes, acks received and durable, and ends by the device's word", async () => {
    const { base, id, key } = await open()
    const device = await Device.connect(`${base}/ingest/${id}`, key)
    assert.deepInclude(device.welcome, { epoch: 0, next: 0, version: 1 })
    assert.isBelow(Math.abs(device.welcome!.server / 1000 - Date.now()), 5000)
    await device.sendAll(sent)
    await until("durable", () => device.durable === 500)
    const closed = await device.end(500)
    assert.strictEqual(closed.code, 1000)
  })

  it("acks at once when all is durable, not only every 100 ms", async () => {
    const { base, id, key } = await open()
    const device = await Device.connect(`${base}/ingest/${id}`, key)
    for (const frame of sent.slice(0, 5)) {
      await device.sendAll([frame])
      await until("durable", () => device.durable === frame.next)
    }
    const acks = device.frames.filter((frame) => frame.kind === kinds.ack)
    assert.isAtLeast(acks.length, 5)
    await device.close()
  })

  it("takes the key as a bearer token too", async () => {
    const { base, id, key } = await open()
    const { WebSocket } = await import("ws")
    const ws = new WebSocket(`${base}/ingest/${id}`, "thrum.v1", { headers: { authorization: `Bearer ${key}` } })
    const messages: Array<Buffer> = []
    ws.on("message", (data: Buffer) => messages.push(data))
    ws.on("open", () => ws.send(encodeHello({ bootId: 7, next: 0 })))
    await until("a welcome", () => messages.length > 0)
    assert.strictEqual(messages[0]![1], kinds.welcome)
    ws.close()
  })

  const refusals: ReadonlyArray<
    readonly [what: string, code: number, send: (device: Device, key: string) => void]
  > = [
    ["a wrong key", 4003, (device) => device.send(encodeHello({ key: "wrong", bootId: 1, next: 0 }))],
    ["no key", 4003, (device) => device.send(encodeHello({ bootId: 1, next: 0 }))],
    ["a frame before the hello", 4011, (device) => device.send(sent[0]!.bytes)],
    ["text", 4000, (device) => device.send("hello")],
    ["bytes that are no msgpack", 4000, (device) => device.send(Uint8Array.of(0xc1, 1, 2))],
    ["another version", 4001, (device) => device.send(Uint8Array.of(0x95, 1, 2, 0xc0, 1, 0))],
    ["a second hello", 4011, (device, key) => {
      device.send(encodeHello({ key, bootId: 1, next: 0 }))
      device.send(encodeHello({ key, bootId: 1, next: 0 }))
    }],
    ["a block that cannot be read", 4006, (device, key) => {
      device.send(encodeHello({ key, bootId: 1, next: 0 }))
      const spoilt = sent[0]!.bytes.slice()
      spoilt.fill(0xff, spoilt.length - 8)
      device.send(spoilt)
    }],
    ["a block of another number of channels", 4006, (device, key) => {
      device.send(encodeHello({ key, bootId: 1, next: 0 }))
      const block = packCounts(Array.from({ length: 100 }, (_, i) => i * i), 1)
      if (isFrameError(block)) throw new Error(block.message)
      device.send(Uint8Array.of(0x94, 2, 0, 0xc0, 0xc4, block.length, ...block))
    }],
    ["a frame over 64 KiB", 4007, (device, key) => {
      device.send(encodeHello({ key, bootId: 1, next: 0 }))
      device.send(Uint8Array.of(0x94, 2, 0, 0xc0, 0xc6, 0, 1, 0, 0, ...new Uint8Array(65_536)))
    }],
    ["a message over 128 KiB", 1009, (device, key) => {
      device.send(encodeHello({ key, bootId: 1, next: 0 }))
      device.send(new Uint8Array(200_000))
    }],
    ["a frame that overlaps", 4008, (device, key) => {
      device.send(encodeHello({ key, bootId: 1, next: 0 }))
      device.send(sent[0]!.bytes)
      device.send(new Uint8Array(makeFrames(1, { from: 5 })[0]!.bytes))
    }],
    ["an end that is not where the stream is", 4013, (device, key) => {
      device.send(encodeHello({ key, bootId: 1, next: 0 }))
      device.send(encodeEnd(10))
    }]
  ]
  it.each(refusals)("%s: an error frame, then close %i", async (_, code, send) => {
    const { base, id, key } = await open()
    const device = new Device(`${base}/ingest/${id}`)
    await device.opened()
    send(device, key)
    await until("the close", () => device.closed !== undefined)
    assert.strictEqual(device.closed?.code, code, device.closed?.reason)
    if (code !== 1009) {
      assert.strictEqual(device.error?.code, code)
      assert.match(device.error?.text ?? "", /^Cannot /)
      assert.isUndefined(device.error?.retryAfter)
    }
  })

  it("what came before a wrong frame is kept", async () => {
    const { base, id, key } = await open()
    const device = await Device.connect(`${base}/ingest/${id}`, key)
    for (const frame of sent.slice(0, 3)) device.send(frame.bytes)
    device.send(Uint8Array.of(1, 2, 3))
    await until("the close", () => device.closed !== undefined)
    const again = await Device.connect(`${base}/ingest/${id}`, key)
    assert.strictEqual(again.welcome?.next, 30)
    await until("durable", () => again.durable === 30)
    await again.close()
  })

  it("an end that crosses a rewind waits for what comes again", async () => {
    const { base, id, key, trouble } = await open({ queueBytesMax: 1000 })
    const device = await Device.connect(`${base}/ingest/${id}`, key)
    trouble.hold()
    for (const frame of sent) device.send(frame.bytes)
    device.send(encodeEnd(500))
    await until("received", () => device.received === 500)
    trouble.release()
    const rewound = (): number => device.frames.findLast((frame) => frame.kind === kinds.rewind)?.next ?? -1
    let next = -1
    await until("the end", () => {
      if (rewound() !== next) {
        next = rewound()
        for (const frame of sent.filter((one) => one.next > next)) device.send(frame.bytes)
      }
      return device.closed !== undefined
    })
    assert.isAtLeast(next, 0)
    assert.strictEqual(device.closed?.code, 1000, device.closed?.reason)
    assert.strictEqual(device.durable, 500)
  })

  it("an end after a rewind that is not answered is refused after a while, and the device may come back", async () => {
    const { base, id, key, trouble } = await open({ queueBytesMax: 1000, endWaitMs: 300 })
    const device = await Device.connect(`${base}/ingest/${id}`, key)
    trouble.hold()
    for (const frame of sent) device.send(frame.bytes)
    device.send(encodeEnd(500))
    await until("received", () => device.received === 500)
    trouble.release()
    await until("the close", () => device.closed !== undefined)
    assert.strictEqual(device.closed?.code, 4101, device.closed?.reason)
    assert.isTrue(device.frames.some((frame) => frame.kind === kinds.rewind))
  })

  it("answers a time frame with its own clock", async () => {
    const { base, id, key } = await open()
    const device = await Device.connect(`${base}/ingest/${id}`, key)
    device.send(encodeTime(123_456_789_012))
    await until("an answer", () => device.frames.some((frame) => frame.kind === kinds.time))
    const answer = device.frames.find((frame) => frame.kind === kinds.time)!
    assert.strictEqual(answer.device, 123_456_789_012)
    assert.isBelow(Math.abs(answer.server! / 1000 - Date.now()), 5000)
    await device.close()
  })

  it("the newest connection wins and the older one is told why", async () => {
    const { base, id, key } = await open()
    const older = await Device.connect(`${base}/ingest/${id}`, key)
    const newer = await Device.connect(`${base}/ingest/${id}`, key)
    await until("the close", () => older.closed !== undefined)
    assert.strictEqual(older.closed?.code, 4010)
    await newer.sendAll(sent.slice(0, 2))
    await until("durable", () => newer.durable === 20)
    await newer.close()
  })

  it("at shutdown: last acks for all that was received, then 1012", async () => {
    const { base, id, key, drain, trouble, counts } = await open()
    const device = await Device.connect(`${base}/ingest/${id}`, key)
    const watcher = await Watcher.open(`${base}/live/${id}?from=start`)
    trouble.hold()
    await device.sendAll(sent)
    await until("received", () => device.received === 500)
    const drained = drain()
    setTimeout(trouble.release, 50)
    await drained
    await until("the closes", () => device.closed !== undefined && watcher.closed !== undefined)
    assert.deepStrictEqual([device.closed?.code, watcher.closed?.code], [1012, 1012])
    assert.strictEqual(device.durable, 500)
    assert.deepStrictEqual(counts(), { publishers: 0, viewers: 0 })
  })

  it("a reset in the middle of the handshake hurts nobody", async () => {
    const { base, id, key } = await open()
    const { port } = new URL(base)
    for (let i = 0; i < 20; i++) {
      const tcp = connectTcp(Number(port), "127.0.0.1")
      tcp.on("error", () => {})
      tcp.write(
        `GET /ingest/${id} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
          "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
      )
      setTimeout(() => tcp.resetAndDestroy(), i % 4)
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
    const device = await Device.connect(`${base}/ingest/${id}`, key)
    await device.sendAll(sent.slice(0, 1))
    await until("durable", () => device.durable === 10)
    await device.close()
  })
})

const framesOf = (seen: ReadonlyArray<number | undefined>): number =>
  seen.filter((kind) => kind === kinds.samples).length

describe("the viewer's door", () => {
  it("passes the device's bytes on untouched, from the start, and ends with the session", async () => {
    const { base, id, key } = await open()
    const device = await Device.connect(`${base}/ingest/${id}`, key)
    await device.sendAll(sent.slice(0, 20))
    const watcher = await Watcher.open(`${base}/live/${id}?from=start`)
    await device.sendAll(sent.slice(20))
    await device.end(500)
    await watcher.ended()
    assert.strictEqual(watcher.closed?.code, 1000)
    assert.deepStrictEqual(watcher.samples().map(({ index }) => index), Array.from({ length: 500 }, (_, i) => i))
    const order = watcher.frames.map((frame) => frame.kind).filter((kind) => kind !== kinds.durable)
    assert.deepStrictEqual([order[0], order[1], order[2], order.at(-1)], [
      kinds.viewerWelcome,
      kinds.epoch,
      kinds.samples,
      kinds.ended
    ])
    assert.isTrue(watcher.has(kinds.caughtUp) || order.length === 53)
  })

  it("gives text for format=json", async () => {
    const { base, id, key } = await open()
    const ws = new WebSocket(`${base}/live/${id}?from=start&format=json`)
    const events: Array<{ readonly type: string; readonly position?: string; readonly rows?: Array<Array<number>> }> =
      []
    ws.addEventListener("message", (event) => events.push(JSON.parse(event.data)))
    const device = await Device.connect(`${base}/ingest/${id}`, key)
    await device.sendAll(sent.slice(0, 2))
    await device.end(20)
    await until("the end", () => events.at(-1)?.type === "ended")
    const types = events.map((event) => event.type)
    assert.deepStrictEqual(types.filter((type) => type !== "durable"), [
      "welcome",
      "caught-up",
      "epoch",
      "samples",
      "samples",
      "ended"
    ])
    const samples = events.filter((event) => event.type === "samples")
    assert.deepStrictEqual(samples.map((event) => event.position), ["0:0", "0:10"])
    assert.strictEqual(samples[0]!.rows![0]!.length, 3)
  })

  it("a viewer that talks is closed with 4014, and the device goes on", async () => {
    const { base, id, key } = await open()
    const device = await Device.connect(`${base}/ingest/${id}`, key)
    const watcher = await Watcher.open(`${base}/live/${id}`)
    watcher.ws.send("hi")
    await until("the close", () => watcher.closed !== undefined)
    assert.strictEqual(watcher.closed?.code, 4014)
    await device.sendAll(sent.slice(0, 1))
    await until("durable", () => device.durable === 10)
    await device.close()
  })

  it("a viewer that does not read waits for nobody's memory: others see all, and so does it in the end", async () => {
    const { base, id, key } = await open({ ringBytesMax: 64 * 1024 })
    const { WebSocket } = await import("ws")
    const stalled = new WebSocket(`${base}/live/${id}?from=start`, "thrum.v1", { perMessageDeflate: false })
    const seen: Array<Buffer> = []
    stalled.on("message", (data: Buffer) => seen.push(data))
    await until("a stalled viewer", () => stalled.readyState === WebSocket.OPEN)
    stalled.pause()
    const watcher = await Watcher.open(`${base}/live/${id}?from=start`)
    const device = await Device.connect(`${base}/ingest/${id}`, key)
    const many = makeFrames(800, { count: 4000 }).map(({ next, bytes }) => ({ next, bytes: new Uint8Array(bytes) }))
    await device.sendAll(many)
    assert.strictEqual((await device.end(3_200_000)).code, 1000)
    await watcher.ended()
    assert.strictEqual(framesOf(watcher.frames.map((frame) => frame.kind)), 800)
    stalled.resume()
    await until("the stalled viewer's end", () => stalled.readyState === WebSocket.CLOSED, 30_000)
    assert.strictEqual(framesOf(seen.map((data) => data[1]!)), 800)
    assert.deepStrictEqual(
      seen.filter((data) => data[1] === kinds.samples).map((data) => data.length),
      many.map((frame) => frame.bytes.length)
    )
  }, 60_000)
})
