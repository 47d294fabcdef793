/** A live session by plain HTTP: server-sent events and NDJSON. */
import { packCounts } from "@thrum/protocol"
import { request } from "node:http"
import { assert, describe, it } from "vitest"
import { type OpenAnswer, openFetch, serverSentEvents } from "../support/contract.ts"
import { until } from "../support/Device.ts"
import { type Created, problemOf, type Rig, unknownId } from "./Rig.ts"

/** An event, as far as tests look into it. */
interface Seen {
  readonly type: string
  readonly position?: string
  readonly from?: string
  readonly to?: string
  readonly reason?: string
  readonly rows?: ReadonlyArray<ReadonlyArray<number>>
}

const eventsOf = (answer: OpenAnswer): ReadonlyArray<Seen & { readonly id: string | undefined }> =>
  serverSentEvents(answer.text()).map(({ data, id }) => ({ ...JSON.parse(data), id }))

const linesOf = (answer: OpenAnswer): ReadonlyArray<Seen> =>
  answer.text().split("\n").slice(0, -1).map((line): Seen => JSON.parse(line))

const valuesOf = (events: ReadonlyArray<Seen>): ReadonlyArray<number> =>
  events.flatMap(({ rows = [] }) => rows.map(([x = Number.NaN]) => x))

const upTo = (n: number, first = 0): ReadonlyArray<number> => Array.from({ length: n - first }, (_, i) => first + i)

/** A frame of 1,000 samples, the one with this number. */
const sendOne = (i: number): { readonly index: number; readonly block: ReturnType<typeof packCounts> } => ({
  index: i * 1000,
  block: packCounts(Array.from({ length: 1000 }, (_, k) => (i * 1000 + k) * 1000 + 7), 1)
})

/** Waits for the frame with this number near the end of a text. */
const has = (what: string, text: () => string, frame: number): Promise<void> =>
  until(what, () => text().slice(-40_000).includes(`"position":"0:${frame * 1000}","t0"`), 20_000)

const indexOf = (at: string | undefined): number => Number(at?.split(":")[1])

export const describeStreams = (rig: Rig): void => {
  const { base, get, create, publish, end } = rig
  const one = { rate: 100, channels: [{ name: "x" }] }
  const send = (session: Created, first: number, next: number): Promise<void> =>
    publish(session, [{ index: first, t0: first * 10_000, block: packCounts(upTo(next, first), 1) }])
  const sse = { accept: "text/event-stream" }
  const viewersOf = async ({ id }: Created): Promise<number> => (await (await get(`/sessions/${id}`)).json()).viewers

  describe("live by plain HTTP", () => {
    it("shows what is stored, then what comes, then the end, and ends", async () => {
      const session = await create(one)
      await send(session, 0, 5)
      const path = `/sessions/${session.id}/live?from=start`
      const [events, ndjson, curl] = await Promise.all([
        openFetch(base(), path, sse),
        openFetch(base(), path, { accept: "application/x-ndjson" }),
        openFetch(base(), path, { accept: "*/*" })
      ])
      assert.strictEqual(events.headers.get("content-type"), "text/event-stream; charset=utf-8")
      assert.strictEqual(curl.headers.get("content-type"), "text/event-stream; charset=utf-8")
      assert.strictEqual(ndjson.headers.get("content-type"), "application/x-ndjson")
      await until("the stored samples", () => valuesOf(eventsOf(events)).length === 5)
      await send(session, 5, 9)
      await send(session, 12, 14)
      await until("the live samples", () => valuesOf(eventsOf(events)).length === 11)
      await until("what is durable", () => eventsOf(events).at(-1)?.type === "durable")
      assert.isFalse(events.isOver())
      await end(session)
      await until("the end", () => events.isOver() && ndjson.isOver() && curl.isOver())
      const seen = eventsOf(events)
      assert.deepStrictEqual(valuesOf(seen), [...upTo(9), 12, 13])
      const told = seen.filter(({ type }) => type !== "durable").map(({ type, id }) => [type, id])
      assert.deepStrictEqual(told, [
        ["welcome", "0:0"],
        ["epoch", undefined],
        ["samples", "0:5"],
        ["caught-up", undefined],
        ["samples", "0:9"],
        ["gap", "0:12"],
        ["samples", "0:14"],
        ["ended", "0:14"]
      ])
      assert.deepStrictEqual(valuesOf(linesOf(ndjson)), valuesOf(seen))
      assert.match(events.text(), /^retry: 1000\n\nid: 0:0\nevent: welcome\ndata: /)
      await Promise.all([events, ndjson, curl].map((answer) => answer.leave()))
    })

    it("goes on behind Last-Event-ID, without a hole or a repeat, and stays away after the end", async () => {
      const session = await create(one)
      const path = `/sessions/${session.id}/live`
      for (let i = 0; i < 10; i++) await send(session, i * 3, i * 3 + 3)
      await end(session)
      const all = await openFetch(base(), `${path}?from=start`, sse)
      await until("the end", all.isOver)
      const events = eventsOf(all)
      for (const [i, { id }] of events.entries()) {
        if (id === undefined) continue
        // What the parameter says was for the first time.
        const rest = await openFetch(base(), `${path}?from=start`, { ...sse, "last-event-id": id })
        if (i === events.length - 1 || id === events.at(-1)!.id) {
          assert.strictEqual(rest.status, 204)
          await rest.leave()
          continue
        }
        await until("the end", rest.isOver)
        assert.deepStrictEqual(valuesOf(eventsOf(rest)), valuesOf(events.slice(i + 1)), id)
        await rest.leave()
      }
      // A place that never was is beyond the end all the same.
      assert.strictEqual((await get(path, { ...sse, "last-event-id": "7:0" })).status, 204)
    })

    it("begins where it is asked to", async () => {
      const session = await create(one)
      await send(session, 0, 10)
      const path = `/sessions/${session.id}/live`
      const [now, middle] = [
        await openFetch(base(), path, sse),
        await openFetch(base(), `${path}?from=0:4&policy=latest`, sse)
      ]
      await until(
        "caught up",
        () => [now, middle].every((one) => eventsOf(one).some(({ type }) => type === "caught-up"))
      )
      await send(session, 10, 12)
      await until("samples", () => [now, middle].every((one) => valuesOf(eventsOf(one)).includes(11)))
      assert.deepStrictEqual(valuesOf(eventsOf(now)), [10, 11])
      // Frames are whole: the first may begin before.
      assert.deepStrictEqual(valuesOf(eventsOf(middle)), upTo(12))
      await Promise.all([now.leave(), middle.leave()])
    })

    it("detaches who goes away, and counts who is there", async () => {
      const session = await create(one)
      const answers = await Promise.all(
        Array.from({ length: 5 }, () => openFetch(base(), `/sessions/${session.id}/live`, sse))
      )
      await until("welcomes", () => answers.every((answer) => eventsOf(answer).length > 0))
      assert.strictEqual(await viewersOf(session), 5)
      await Promise.all(answers.map((answer) => answer.leave()))
      let left = 5
      const deadline = Date.now() + 5000
      while (left > 0 && Date.now() < deadline) left = await viewersOf(session)
      assert.strictEqual(left, 0)
    })

    it.each(["complete", "latest"])("does not wait for who does not read, and serves %s", async (policy) => {
      const session = await create({ rate: 1000, channels: [{ name: "x" }] })
      const path = `/sessions/${session.id}/live?policy=${policy}`
      const quick = await openFetch(base(), `/sessions/${session.id}/live`, sse)
      const slow = await new Promise<import("node:http").IncomingMessage>((resolve) => {
        request(`${base()}${path}`, { headers: sse }, resolve).end()
      })
      slow.pause()
      await until("a welcome", () => eventsOf(quick).length > 0)
      // Far more than a reader's bytes and what the machine keeps on the way: some 12 MB of text.
      const count = 600
      for (let i = 0; i < count; i += 20) {
        await publish(session, Array.from({ length: 20 }, (_, j) => sendOne(i + j)))
      }
      await has("the quick one", quick.text, count - 1)
      let text = ""
      slow.setEncoding("utf8").on("data", (piece: string) => {
        text += piece
      })
      slow.resume()
      // Whether it was sent everything or skipped ahead: now it is with the others again.
      const caughtUp = [`"to":"0:${count * 1000}"`, `"position":"0:${(count - 1) * 1000}","t0"`]
      await until("the slow one", () => caughtUp.some((sign) => text.slice(-40_000).includes(sign)), 20_000)
      await publish(session, [sendOne(count)])
      await has("the slow one", () => text, count)
      await end(session)
      await until("the end", () => text.slice(-200).includes("\"type\":\"ended\"") && quick.isOver())
      const seen = serverSentEvents(text).map(({ data }): Seen => JSON.parse(data))
      const missed = seen.filter(({ type, reason }) => type === "gap" && reason === "skipped")
      if (policy === "complete") {
        assert.lengthOf(missed, 0)
        assert.strictEqual(valuesOf(seen).length, (count + 1) * 1000)
      } else assert.isAbove(missed.length, 0)
      // Together with what it was told to have missed, it is everything, once.
      let next = 0
      for (const { type, position, from, to, rows = [] } of seen) {
        if (type === "samples") {
          assert.strictEqual(indexOf(position), next)
          next += rows.length
        } else if (type === "gap") {
          assert.strictEqual(indexOf(from), next)
          next = indexOf(to)
        }
      }
      assert.strictEqual(next, (count + 1) * 1000)
      await quick.leave()
    }, 60_000)

    it("is announced by HEAD, which watches nothing", async () => {
      const session = await create(one)
      const head = await fetch(`${base()}/sessions/${session.id}/live`, { method: "HEAD" })
      assert.deepStrictEqual(
        [head.status, head.headers.get("content-type"), head.headers.get("cache-control")],
        [200, "text/event-stream; charset=utf-8", "no-store"]
      )
      assert.strictEqual(await viewersOf(session), 0)
    })

    it("is refused for what it cannot give", async () => {
      const { id } = await create(one)
      const path = `/sessions/${id}/live`
      assert.strictEqual((await get(path, { accept: "text/html" })).status, 406)
      assert.strictEqual((await get(`/sessions/${unknownId}/live`)).status, 404)
      const format = await get(`${path}?format=json`)
      assert.strictEqual(format.status, 400)
      assert.match((await problemOf(format)).detail, /format: is for WebSockets/)
      const id0 = await get(path, { "last-event-id": "12" })
      assert.deepStrictEqual([id0.status, (await problemOf(id0)).errors?.[0]?.parameter], [400, "last-event-id"])
      for (const query of ["from=yesterday", "policy=all", "form=now"]) {
        assert.strictEqual((await get(`${path}?${query}`)).status, 400, query)
      }
      rig.setTrouble("down")
      assert.strictEqual((await get(path)).status, 503)
      rig.setTrouble("broken")
      assert.strictEqual((await get(path)).status, 500)
    })
  })
}
