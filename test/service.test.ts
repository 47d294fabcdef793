/** The service as its operators know it: processes that are told to stop, killed, started twice, cut off. */
import { startEmbeddedPostgres } from "../packages/server/src/sql/EmbeddedPostgres.ts"
import { encodeHello } from "@thrum/protocol"
import { Effect, Exit, Redacted, Scope } from "effect"
import { chmodSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { readRecording } from "./Recordings.ts"
import { checkedFetch } from "./support/contract.ts"
import { Device, until } from "./support/Device.ts"
import { framesOf, type SentFrame } from "./support/Frames.ts"
import { startProcess } from "./support/Process.ts"
import { Watcher } from "./support/Watcher.ts"

const folder = mkdtempSync(join(tmpdir(), "thrum-service-"))
chmodSync(folder, 0o755)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const recording = readRecording("wrist_axivity_ax6")
const frames = framesOf(recording, 50, 100)

interface Session {
  readonly id: string
  readonly ingestKey: string
}

const create = async (url: string): Promise<Session> => {
  const response = await checkedFetch(url, "/sessions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ rate: 100 })
  })
  assert.strictEqual(response.status, 201)
  const { session, ingestKey } = await response.json()
  return { id: session.id, ingestKey }
}

const ingest = (url: string, { id }: Session): string => `${url.replace("http", "ws")}/sessions/${id}/ingest`
const live = (url: string, { id }: Session): string => `${url.replace("http", "ws")}/sessions/${id}/live`

const end = (url: string, { id, ingestKey }: Session): Promise<Response> =>
  checkedFetch(url, `/sessions/${id}/end`, { method: "POST", headers: { authorization: `Bearer ${ingestKey}` } })

/** All values, as JSON gives them. */
const valuesOf = async (url: string, { id }: Session): Promise<ReadonlyArray<unknown>> => {
  const json = await (await checkedFetch(url, `/sessions/${id}/data`)).json()
  return json.rows.flatMap((row: ReadonlyArray<unknown>) => row.slice(3))
}

/** Sends without end at a steady pace until it is told to stop; what is not durable then must be sent again. */
const sendUntilClosed = async (device: Device, from: ReadonlyArray<SentFrame>): Promise<void> => {
  for (const frame of from) {
    if (device.closed !== undefined) return
    device.send(frame.bytes)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

describe("a server process on the embedded database", () => {
  const env = { THRUM_DATA_DIR: join(folder, "embedded") }

  it("SIGTERM under load: last acks, 1012, exit 0 within 8 s; what was acked is there after the restart", async () => {
    const first = await startProcess(env)
    const session = await create(first.url)
    const device = await Device.connect(ingest(first.url, session), session.ingestKey)
    const watcher = await Watcher.open(live(first.url, session))
    const sending = sendUntilClosed(device, frames)
    await until("some durable", () => device.durable > 200)
    const { code, ms } = await first.end("SIGTERM")
    await sending
    assert.strictEqual(code, 0, first.output())
    assert.isBelow(ms, 8000)
    await until("the closes", () => device.closed !== undefined && watcher.closed !== undefined)
    assert.deepStrictEqual([device.closed?.code, watcher.closed?.code], [1012, 1012])
    assert.strictEqual(device.durable, device.received)

    const second = await startProcess(env)
    const again = await Device.connect(ingest(second.url, session), session.ingestKey)
    assert.strictEqual(again.welcome?.epoch, 0)
    assert.isAtLeast(again.welcome?.next ?? 0, device.durable)
    await again.sendAll(frames.filter((frame) => frame.index >= again.welcome!.next))
    assert.strictEqual((await again.end(recording.count)).code, 1000)
    assert.deepStrictEqual(await valuesOf(second.url, session), [...recording.numbers])
    assert.strictEqual((await second.end("SIGINT")).code, 0, second.output())
  }, 60_000)

  it("kill -9 in the middle: everything under a durable ack is there, once, and the device goes on", async () => {
    let server = await startProcess(env)
    const session = await create(server.url)
    let durable = 0
    for (let round = 0; round < 4; round++) {
      const device = await Device.connect(ingest(server.url, session), session.ingestKey)
      const { next } = device.welcome!
      assert.isAtLeast(next, durable)
      const sending = sendUntilClosed(device, frames.filter((frame) => frame.index >= next))
      await until("more durable", () => device.durable >= next + 500)
      await server.end("SIGKILL")
      await sending
      durable = device.durable
      // The database was left behind alive: the next server takes it over.
      server = await startProcess(env)
    }
    const device = await Device.connect(ingest(server.url, session), session.ingestKey)
    assert.isAtLeast(device.welcome!.next, durable)
    await device.sendAll(frames.filter((frame) => frame.index >= device.welcome!.next))
    assert.strictEqual((await device.end(recording.count)).code, 1000)
    assert.deepStrictEqual(await valuesOf(server.url, session), [...recording.numbers])
    assert.strictEqual((await server.end("SIGTERM")).code, 0)
  }, 120_000)

  it("a second server on the same directory is refused in one line that names the owner", async () => {
    const first = await startProcess(env)
    const failure = await startProcess(env).then(() => "it started", (error: Error) => error.message)
    assert.match(failure, new RegExp(`thrum: Cannot start .*${first.pid}`))
    assert.strictEqual((await first.end("SIGTERM")).code, 0)
  }, 60_000)

  it("neither session ids nor ingest keys are in what it writes", async () => {
    const server = await startProcess(env)
    const session = await create(server.url)
    const device = await Device.connect(ingest(server.url, session), session.ingestKey)
    device.send(Uint8Array.of(1, 2, 3))
    await until("the close", () => device.closed !== undefined)
    await checkedFetch(server.url, `/sessions/${session.id}/data`)
    await server.end("SIGTERM")
    assert.notInclude(server.output(), session.ingestKey)
    assert.notInclude(server.output(), session.id)
  }, 60_000)
})

describe("server processes on DATABASE_URL", () => {
  let scope: Scope.Closeable
  let url: Redacted.Redacted
  const dataDir = join(folder, "shared", "postgres-18")

  beforeAll(async () => {
    scope = await Effect.runPromise(Scope.make())
    const database = await Effect.runPromise(startEmbeddedPostgres({ dataDir }).pipe(Scope.provide(scope)))
    url = database.url
  }, 60_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  it("three at once on an empty database: all migrate safely, any of them serves any session", async () => {
    const env = { DATABASE_URL: Redacted.value(url) }
    const [a, b, c] = await Promise.all([startProcess(env), startProcess(env), startProcess(env)])
    const session = await create(a.url)
    const device = await Device.connect(ingest(a.url, session), session.ingestKey)
    await device.sendAll(frames.slice(0, 20))
    await until("durable", () => device.durable === 1000)
    await device.close()
    const moved = await Device.connect(ingest(b.url, session), session.ingestKey)
    assert.deepInclude(moved.welcome, { epoch: 0, next: 1000, sure: true })
    await moved.sendAll(frames.slice(20))
    await until("durable", () => moved.durable === recording.count)
    await moved.close()
    assert.strictEqual((await end(c.url, session)).status, 200)
    assert.deepStrictEqual(await valuesOf(c.url, session), [...recording.numbers])
    const refused = new Device(ingest(c.url, session))
    await refused.opened()
    refused.send(encodeHello({ key: session.ingestKey, bootId: 1, next: 0 }))
    await until("the refusal", () => refused.closed !== undefined)
    assert.strictEqual(refused.closed?.code, 4005)
    for (const server of [a, b, c]) assert.strictEqual((await server.end("SIGTERM")).code, 0, server.output())
  }, 90_000)

  it(
    "the database stops: live goes on, readiness says no, durable stands still; it comes back: all is stored",
    async () => {
      const server = await startProcess({ DATABASE_URL: Redacted.value(url) })
      const session = await create(server.url)
      const device = await Device.connect(ingest(server.url, session), session.ingestKey)
      const watcher = await Watcher.open(`${live(server.url, session)}?from=start`)
      await device.sendAll(frames.slice(0, 10))
      await until("durable", () => device.durable === 500)
      const postmaster = Number(readFileSync(join(dataDir, "cluster", "postmaster.pid"), "utf8").split("\n")[0])
      const children = readFileSync(`/proc/${postmaster}/task/${postmaster}/children`, "utf8").trim().split(" ").map(
        Number
      )
      for (const pid of [postmaster, ...children]) process.kill(pid, "SIGSTOP")
      try {
        await device.sendAll(frames.slice(10))
        await until("received", () => device.received === recording.count)
        await until("shown", () => watcher.samples().length === recording.count)
        assert.strictEqual(device.durable, 500)
        assert.strictEqual((await checkedFetch(server.url, "/readyz")).status, 503)
        assert.strictEqual((await checkedFetch(server.url, "/healthz")).status, 200)
      } finally {
        for (const pid of [...children, postmaster]) process.kill(pid, "SIGCONT")
      }
      await until("durable", () => device.durable === recording.count)
      assert.strictEqual((await device.end(recording.count)).code, 1000)
      assert.deepStrictEqual(await valuesOf(server.url, session), [...recording.numbers])
      assert.strictEqual((await checkedFetch(server.url, "/readyz")).status, 200)
      assert.strictEqual((await server.end("SIGTERM")).code, 0)
    },
    90_000
  )

  it("a database that acks before it has written: not ready, and devices are told", async () => {
    const options = `options=${encodeURIComponent("-c synchronous_commit=off")}`
    const server = await startProcess({ DATABASE_URL: `${Redacted.value(url)}?${options}` })
    const answer = await checkedFetch(server.url, "/readyz")
    assert.strictEqual(answer.status, 503)
    assert.match((await answer.json()).detail, /synchronous_commit is off/)
    const session = await create(server.url)
    const device = await Device.connect(ingest(server.url, session), session.ingestKey)
    assert.strictEqual(device.welcome?.sure, false)
    await device.close()
    assert.strictEqual((await server.end("SIGTERM")).code, 0)
  }, 60_000)

  it("a database that is not there: the server starts, lives, and says that it is not ready", async () => {
    const server = await startProcess({ DATABASE_URL: "postgres://thrum:x@127.0.0.1:1/thrum" })
    assert.strictEqual((await checkedFetch(server.url, "/healthz")).status, 200)
    assert.strictEqual((await checkedFetch(server.url, "/readyz")).status, 503)
    const refused = await checkedFetch(server.url, "/sessions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ rate: 100 })
    })
    assert.strictEqual(refused.status, 503)
    assert.strictEqual((await server.end("SIGTERM")).code, 0, server.output())
    assert.notInclude(server.output(), "thrum:x@")
  }, 60_000)
})
