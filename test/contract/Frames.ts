/** Publishing by plain HTTP. */
import { encodeEnd, encodeSamples, packCounts } from "@thrum/protocol"
import { assert, describe, it } from "vitest"
import { checkedFetch } from "../support/contract.ts"
import { Device, until } from "../support/Device.ts"
import { type Created, problemOf, type Rig, unknownId } from "./Rig.ts"

const blockOf = (values: ReadonlyArray<number>): Uint8Array => {
  const block = packCounts(values, 1)
  if (!(block instanceof Uint8Array)) throw new Error(block.message)
  return block
}
/** A frame of `next - first` samples, each its own index. */
const frame = (first: number, next: number): Uint8Array =>
  encodeSamples(first, first * 10_000, blockOf(Array.from({ length: next - first }, (_, i) => first + i)))

export const describeFrames = (rig: Rig): void => {
  const { base, get, create, end } = rig
  const one = { rate: 100, channels: [{ name: "x" }] }

  const post = (
    { id, key }: Created,
    frames: ReadonlyArray<Uint8Array>,
    { boot = "1", query = "", headers = {} }: {
      readonly boot?: string
      readonly query?: string
      readonly headers?: Record<string, string>
    } = {}
  ): Promise<Response> =>
    checkedFetch(base(), `/sessions/${id}/frames${query}`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${key}`,
        "thrum-boot-id": boot,
        "content-type": "application/vnd.thrum.frames",
        ...headers
      },
      body: Buffer.concat(frames)
    })
  const windowed = { window: 262_144 }
  const rowsOf = async ({ id }: Created): Promise<ReadonlyArray<unknown>> =>
    (await (await get(`/sessions/${id}/data?partial=true`)).json()).rows.map((row: Array<unknown>) => row[0])

  describe("frames by plain HTTP", () => {
    it("are stored when the answer says so, and once", async () => {
      const session = await create(one)
      const first = await post(session, [frame(0, 10), frame(10, 15)])
      const ack = { epoch: 0, received: 15, durable: 15, next: 15, ...windowed }
      assert.deepStrictEqual([first.status, await first.json()], [200, ack])
      // The answer was lost: the device sends the same again, and more.
      const again = await post(session, [frame(0, 10), frame(10, 15), frame(15, 20)])
      assert.deepInclude(await again.json(), { received: 20, durable: 20 })
      assert.deepStrictEqual(await rowsOf(session), Array.from({ length: 20 }, (_, i) => `0:${i}`))
      const where = await post(session, [])
      assert.deepInclude(await where.json(), { epoch: 0, next: 20 })
      const reborn = await post(session, [frame(0, 2)], { boot: "x0123456789abcdef" })
      assert.deepInclude(await reborn.json(), { epoch: 1, received: 2, durable: 2 })
      const stale = await post(session, [frame(20, 21)])
      assert.deepStrictEqual([stale.status, (await problemOf(stale)).type], [409, "/problems/epoch-stale"])
    })

    it("end the session with an end frame, for good", async () => {
      const session = await create(one)
      const wrong = await post(session, [frame(0, 3), encodeEnd(4)])
      assert.deepStrictEqual([wrong.status, (await problemOf(wrong)).type], [409, "/problems/end-mismatch"])
      const ended = await post(session, [frame(0, 3), encodeEnd(3)])
      assert.deepStrictEqual(await ended.json(), { epoch: 0, received: 3, durable: 3, next: 3, ...windowed })
      assert.strictEqual((await (await get(`/sessions/${session.id}`)).json()).state, "ended")
      const late = await post(session, [frame(3, 4)])
      assert.deepStrictEqual([late.status, (await problemOf(late)).type], [409, "/problems/session-ended"])
    })

    it("that begin too far on are not taken for a gap, unless there is nothing older", async () => {
      const session = await create(one)
      await post(session, [frame(0, 10)])
      const ahead = await post(session, [frame(20, 25)])
      const { type, ack } = await problemOf(ahead)
      assert.deepStrictEqual([ahead.status, type, ack?.next], [409, "/problems/frames-missing", 10])
      assert.strictEqual((await post(session, [frame(20, 25)], { query: "?next=5" })).status, 409)
      const lost = await post(session, [frame(20, 25)], { query: "?next=20" })
      assert.deepInclude(await lost.json(), { received: 25, durable: 25 })
      // Within a body the device says itself what is missing.
      const gap = await post(session, [frame(25, 26), frame(30, 31)])
      assert.deepInclude(await gap.json(), { received: 31, durable: 31 })
      const { gaps } = await (await get(`/sessions/${session.id}/data?partial=true`)).json()
      assert.deepStrictEqual(gaps, [
        { from: "0:10", to: "0:20", reason: "device" },
        { from: "0:26", to: "0:30", reason: "device" }
      ])
    })

    it.each<[string, ReadonlyArray<Uint8Array>, number, RegExp, number]>([
      ["is cut short", [frame(0, 5), frame(5, 9).subarray(0, -1)], 1, /BadFrame.*cut short/, 5],
      ["is no msgpack", [frame(0, 5), Uint8Array.of(0xc1)], 1, /BadFrame/, 5],
      ["is text", [Buffer.from("hello")], 0, /BadFrame/, 0],
      ["is of another kind", [frame(0, 5), frame(5, 6), Uint8Array.of(0x92, 4, 0)], 2, /kind 4/, 6],
      ["has a broken block", [frame(0, 5), encodeSamples(5, 0, Uint8Array.of(0x10, 1))], 1, /BadBlock/, 5],
      ["overlaps", [frame(0, 5), frame(4, 8)], 1, /OutOfOrder/, 5],
      ["comes behind the end", [frame(0, 5), encodeEnd(5), frame(5, 6)], 2, /behind the end/, 5],
      ["is too large", [frame(0, 5), encodeSamples(5, 0, new Uint8Array(70_000))], 1, /TooLarge/, 5]
    ])("before one that %s are kept, and it is named", async (_, frames, number, says, received) => {
      const session = await create(one)
      const answer = await post(session, frames)
      assert.strictEqual(answer.status, 422)
      const { detail, errors, ack } = await problemOf(answer)
      assert.match(detail, says)
      assert.strictEqual(errors?.[0]?.pointer, `#/${number}`)
      assert.strictEqual(ack?.received, received)
      const next = await post(session, [frame(received, received + 1)])
      assert.deepInclude(await next.json(), { received: received + 1, durable: received + 1 })
      assert.lengthOf(await rowsOf(session), received + 1)
    })

    it("take the place of an older connection", async () => {
      const session = await create(one)
      const device = await Device.connect(`${base().replace("http", "ws")}/sessions/${session.id}/ingest`, session.key)
      assert.strictEqual((await post(session, [frame(0, 3)])).status, 200)
      await until("the close", () => device.closed !== undefined)
      assert.strictEqual(device.closed?.code, 4010)
    })

    it("wait as long as the device wants, and say what is not stored", async () => {
      const session = await create(one)
      rig.setTrouble("commits")
      const began = performance.now()
      const answer = await post(session, [frame(0, 3)], { query: "?wait=150" })
      assert.closeTo(performance.now() - began, 200, 120)
      assert.deepInclude(await answer.json(), { received: 3, durable: 0, next: 3 })
      const none = await post(session, [frame(3, 6)], { query: "?wait=0" })
      assert.deepInclude(await none.json(), { received: 6, durable: 0 })
      const unsealed = await post(session, [encodeEnd(6)])
      assert.deepStrictEqual([unsealed.status, (await problemOf(unsealed)).type], [503, "/problems/not-flushed"])
      rig.setTrouble("none")
      const stored = await post(session, [frame(3, 6)])
      assert.deepInclude(await stored.json(), { received: 6, durable: 6 })
    })

    it("are refused for what is not as the contract wants it", async () => {
      const session = await create(one)
      const path = `/sessions/${session.id}/frames`
      const bare = await checkedFetch(base(), path, { method: "POST", headers: { "thrum-boot-id": "1" } })
      assert.strictEqual(bare.status, 401)
      assert.strictEqual((await post({ ...session, key: "x".repeat(43) }, [])).status, 403)
      assert.strictEqual((await post({ ...session, id: unknownId }, [])).status, 404)
      for (const boot of ["", "x", "x1", "-1", "1.5", "9007199254740992", `x${"00".repeat(17)}`, "one"]) {
        const answer = await post(session, [], { boot })
        assert.strictEqual(answer.status, 400, boot)
        assert.strictEqual((await problemOf(answer)).errors?.[0]?.parameter, "thrum-boot-id")
      }
      for (const query of ["?wait=-1", "?wait=10001", "?next=x", "?from=0:0"]) {
        assert.strictEqual((await post(session, [], { query })).status, 400, query)
      }
      assert.strictEqual((await post(session, [], { headers: { "content-type": "application/json" } })).status, 415)
      assert.strictEqual((await post(session, [], { headers: { "content-encoding": "gzip" } })).status, 415)
      assert.strictEqual((await post(session, [new Uint8Array(262_145)])).status, 413)
      // As much as a window holds is taken, and more than other bodies may have.
      const large = Array.from(
        { length: 60 },
        (_, i) =>
          encodeSamples(i * 500, 0, blockOf(Array.from({ length: 500 }, (_, j) => Math.imul(i * 500 + j, 0x9e3779b1))))
      )
      assert.isAbove(Buffer.concat(large).length, 65_536)
      assert.deepInclude(await (await post(session, large)).json(), { received: 30_000, durable: 30_000 })
      for (const [trouble, status] of [["down", 503], ["draining", 503], ["broken", 500]] as const) {
        rig.setTrouble(trouble)
        assert.strictEqual((await post(session, [])).status, status, trouble)
      }
      rig.setTrouble("none")
      await end(session)
    })
  })
}
