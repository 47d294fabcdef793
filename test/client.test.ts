/** The client against a real server, over a network that is cut, silent, slow and crumbling, and a server that is killed. */
import {
  type Created,
  createSession,
  type Device,
  getData,
  openDevice,
  readRecording,
  type Viewer,
  watch,
  type WatchEvent
} from "@thrum/client"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { chmodSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { readRecording as readCsv } from "./Recordings.ts"
import { until } from "./support/Device.ts"
import { startProcess } from "./support/Process.ts"
import { type Proxy, startProxy } from "./support/Proxy.ts"
import { startServer, type TestServer } from "./support/Server.ts"

const recording = readCsv("wrist_axivity_ax6")
const counts = Int32Array.from(recording.numbers)
const rate = 2000
/** 30 s of these samples take less. */
const bufferBytesMax = 1_048_576
/** ms: troubles are noticed sooner than in the field. */
const heartbeat = 200

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

const create = (url: string, channels = 3): Promise<Created> =>
  createSession(url, {
    rate,
    channels: ["x", "y", "z"].slice(0, channels).map((name) => ({ name, unit: "count", scale: 1, offset: 0 }))
  })

/** Pushes the recording as fast as it was said to be sampled; returns when the session is sealed. */
const stream = async (device: Device, seconds: number): Promise<number> => {
  const samples = Math.min(recording.count, seconds * rate)
  const started = performance.now()
  for (let pushed = 0; pushed < samples;) {
    const due = Math.min(samples, Math.floor((performance.now() - started) / 1000 * rate))
    if (due > pushed) device.push(counts.subarray(pushed * 3, due * 3), { time: Math.round(pushed * 1e6 / rate) })
    pushed = Math.max(pushed, due)
    await sleep(7)
  }
  await device.end()
  return samples
}

const errorOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(() => undefined, ({ code, name }) => ({ code, name }))

interface Seen {
  readonly values: ReadonlyArray<number>
  readonly events: ReadonlyArray<WatchEvent>
}

/** Watches to the end; fails at the first sample that is not the next, unless a gap has said so. */
const see = async (viewer: Viewer): Promise<Seen> => {
  const values: Array<number> = []
  const events: Array<WatchEvent> = []
  let next = 0
  for await (const event of viewer) {
    events.push(event)
    if (event.type === "gap" && event.reason !== "lost") next = event.to.index
    if (event.type !== "samples") continue
    assert.deepStrictEqual(event.position, { epoch: 0, index: next })
    next = event.next.index
    values.push(...event.values)
  }
  return { values, events }
}

const rowsOf = async (url: string): Promise<ReadonlyArray<ReadonlyArray<number>>> => {
  const answer: { readonly complete: boolean; readonly rows: ReadonlyArray<ReadonlyArray<number>> } =
    await (await getData(url, { format: "json" })).json()
  assert.isTrue(answer.complete)
  return answer.rows
}

/** What was pushed is what is stored, by REST as JSON and as frames, and what the viewer saw. */
const compare = async (url: string, samples: number, seen: Seen): Promise<void> => {
  const pushed = Array.from(counts.subarray(0, samples * 3))
  const stored = (await rowsOf(url)).flatMap((row) => row.slice(-3))
  assert.strictEqual(stored.length, pushed.length)
  assert.deepStrictEqual(stored, pushed)
  assert.strictEqual(seen.values.length, pushed.length)
  assert.deepStrictEqual(seen.values, pushed)
  assert.isEmpty(seen.events.filter(({ type }) => type === "gap"))
  assert.strictEqual(seen.events.at(-1)?.type, "ended")
  const read: Array<number> = []
  const { body } = await getData(url, { format: "frames" })
  for await (const event of readRecording(body ?? new Uint8Array())) {
    if (event.type === "samples") read.push(...event.values)
  }
  assert.deepStrictEqual(read, pushed)
}

describe("over a bad network", () => {
  let server: TestServer
  let proxy: Proxy
  beforeAll(async () => {
    server = await startServer()
    proxy = await startProxy(server.url)
  })
  afterAll(async () => {
    await proxy.close()
    await server.stop()
  })

  /** Streams and watches through the network while it is made worse and better again. */
  const through = async (seconds: number, troubles: (device: Device, viewer: Viewer) => Promise<void>) => {
    const { id, key } = await create(server.url)
    const near = `${proxy.url}/sessions/${id}`
    const device = await openDevice({ url: near, key, channels: 3, rate, bufferBytesMax, heartbeat })
    const viewer = watch(near, { from: "start", heartbeat })
    const [samples, seen] = await Promise.all([stream(device, seconds), see(viewer), troubles(device, viewer)])
    assert.strictEqual(device.status.dropped, 0)
    assert.strictEqual(device.status.durable, samples)
    await compare(`${server.url}/sessions/${id}`, samples, seen)
    return { device, viewer }
  }

  it("cut again and again: all is stored, all is seen, once", async () => {
    const { device, viewer } = await through(4, async () => {
      for (let i = 0; i < 8; i++) {
        await sleep(400)
        proxy.cut()
      }
    })
    assert.isAtLeast(device.status.reconnects, 3)
    assert.isAtLeast(viewer.status.reconnects, 3)
  })

  it("reset in the middle of frames", async () => {
    const { device } = await through(4, async () => {
      for (const bytes of [700, 3000, 1111, 5000, 2500]) {
        await sleep(400)
        proxy.resetAfter = bytes
      }
      await sleep(1000)
      proxy.resetAfter = Infinity
    })
    assert.isAtLeast(device.status.reconnects, 2)
  })

  it("half-open: nobody is told, and both notice", async () => {
    await through(5, async (device, viewer) => {
      await sleep(1000)
      proxy.isSilent = true
      await until("both to notice", () => device.status.reconnects > 0 && viewer.status.reconnects > 0, 10_000)
      for (const { status } of [device, viewer]) assert.include(status.lastError?.message, "the server was silent")
      proxy.isSilent = false
      // Connections that were opened in the silence have lost bytes: no network does that and goes on.
      proxy.cut()
    })
  })

  it("300 ms away", async () => {
    proxy.delay = 300
    const { device } = await through(3, async () => {})
    proxy.delay = 0
    assert.isAtLeast(device.status.latency ?? 0, 590)
    assert.isBelow(Math.abs(device.status.clockOffset ?? Infinity), 350_000)
  })

  it("byte by byte", async () => {
    proxy.pieceBytes = 1
    const { device } = await through(2, async () => {})
    proxy.pieceBytes = Infinity
    assert.strictEqual(device.status.reconnects, 0)
  })

  it("a device whose buffer is too small for it says what it dropped, and everyone sees that gap", async () => {
    const { id, key } = await create(server.url)
    const url = `${server.url}/sessions/${id}`
    const dropped: Array<readonly [number, number]> = []
    const device = await openDevice({
      url: `${proxy.url}/sessions/${id}`,
      key,
      channels: 3,
      rate,
      bufferBytesMax: 65_536,
      heartbeat,
      onDrop: ({ from, to }) => dropped.push([from, to])
    })
    const noise = Int32Array.from({ length: 300 }, (_, i) => Math.imul(i + 1, 0x9e3779b1))
    device.push(noise)
    await device.whenDurable()
    proxy.isSilent = true
    proxy.cut()
    const seeing = see(watch(url, { from: "start" }))
    for (let i = 1; i < 100; i++) device.push(noise)
    proxy.isSilent = false
    proxy.cut()
    await device.end()
    const { events } = await seeing
    const gap = { from: 100, to: 100 + device.status.dropped }
    assert.isAbove(device.status.dropped, 1000)
    assert.deepStrictEqual([dropped[0]?.[0], dropped.at(-1)?.[1]], [gap.from, gap.to])
    assert.deepStrictEqual(events.filter(({ type }) => type === "gap"), [
      { type: "gap", from: { epoch: 0, index: gap.from }, to: { epoch: 0, index: gap.to }, reason: "device" }
    ])
    const rows = await rowsOf(url)
    assert.strictEqual(rows.length, 10_000 - device.status.dropped)
  })

  it("one that is superseded says so and stays away; the newer one goes on in an epoch of its own", async () => {
    const session = await create(server.url, 1)
    const older = await openDevice({ ...session, values: "counts" })
    older.push([1, 2])
    await older.whenDurable()
    const newer = await openDevice({ ...session, values: "counts" })
    newer.push([3])
    await until("the older one's end", () => older.status.state === "failed")
    assert.strictEqual(older.status.lastError?.name, "Superseded")
    await newer.end()
    assert.deepStrictEqual([older.status.epoch, newer.status.epoch], [0, 1])
    assert.deepStrictEqual((await rowsOf(session.url)).map((row) => row.at(-1)), [1, 2, 3])
  })

  it("a session that is not there, and a key that is wrong, are told by name", async () => {
    const { id, key } = await create(server.url)
    const nowhere = server.url + "/sessions/" + crypto.randomUUID()
    const device = await openDevice({ url: nowhere, key, channels: 3, rate })
    assert.deepStrictEqual(await errorOf(device.end()), { code: 404, name: "SessionNotFound" })
    assert.deepStrictEqual(await errorOf(see(watch(nowhere))), { code: 404, name: "SessionNotFound" })
    const wrong = await openDevice({ url: `${server.url}/sessions/${id}`, key: "wrong", channels: 3, rate })
    assert.deepStrictEqual(await errorOf(wrong.end()), { code: 4003, name: "KeyRefused" })
  })
})

describe("with a server that is killed", () => {
  const folder = mkdtempSync(join(tmpdir(), "thrum-client-"))
  chmodSync(folder, 0o755)
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it("kill -9 in the middle, three times: all that was pushed is stored, and seen once", async () => {
    const env = { THRUM_DATA_DIR: join(folder, "data") }
    let server = await startProcess(env)
    const proxy = await startProxy(server.url)
    const { id, key } = await create(server.url)
    const near = `${proxy.url}/sessions/${id}`
    const device = await openDevice({ url: near, key, channels: 3, rate, bufferBytesMax, heartbeat })
    const viewer = watch(near, { from: "start", heartbeat })
    const kills = async (): Promise<void> => {
      for (let i = 0; i < 3; i++) {
        const { durable } = device.status
        await until("some durable", () => device.status.durable > durable + 500, 30_000)
        await server.end("SIGKILL")
        server = await startProcess(env)
        proxy.target = server.url
      }
    }
    const [samples, seen] = await Promise.all([stream(device, 5.6), see(viewer), kills()])
    assert.strictEqual(device.status.dropped, 0)
    assert.isAtLeast(device.status.reconnects, 3)
    await compare(`${server.url}/sessions/${id}`, samples, seen)
    await proxy.close()
    await server.end("SIGTERM")
  }, 120_000)

  it(
    "a device that is killed, and goes on with what its file kept, uses no index twice and loses none it sent",
    async () => {
      const server = await startServer()
      const proxy = await startProxy(server.url)
      const { id, key } = await create(server.url, 1)
      const url = `${server.url}/sessions/${id}`
      const total = 6000
      const children: Array<ChildProcess> = []
      const start = async (): Promise<{ readonly child: ChildProcess; readonly from: number }> => {
        const script = fileURLToPath(new URL("support/storingDevice.ts", import.meta.url))
        const args = [script, `${proxy.url}/sessions/${id}`, key, join(folder, "device.log"), String(total)]
        const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] })
        children.push(child)
        const [line]: Array<Buffer> = await once(child.stdout, "data")
        return { child, from: Number(/from (\d+)/.exec(String(line))?.[1]) }
      }
      try {
        const seeing = see(watch(url, { from: "start" }))
        const froms: Array<number> = []
        for (let i = 0; i < 4; i++) {
          const { child, from } = await start()
          froms.push(from)
          // While the network is silent, frames gather in the file; a killed device has nothing else.
          proxy.isSilent = i % 2 === 1
          await sleep(400)
          child.kill("SIGKILL")
          await once(child, "exit")
          proxy.cut()
        }
        proxy.isSilent = false
        const { child, from } = await start()
        froms.push(from)
        await once(child, "exit")
        assert.strictEqual(child.exitCode, 0)
        assert.isTrue(froms.every((from, i) => i === 0 || from > froms[i - 1]!), froms.join(", "))
        const expected = Array.from({ length: total }, (_, i) => i)
        assert.deepStrictEqual((await rowsOf(url)).map((row) => row.at(-1)), expected)
        assert.deepStrictEqual((await seeing).values, expected)
      } finally {
        for (const child of children) child.kill("SIGKILL")
        await proxy.close()
        await server.stop()
      }
    },
    60_000
  )
})
