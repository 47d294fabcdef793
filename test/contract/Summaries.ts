/** Summaries, held against numbers that the test works out by itself. */
import { encodeSamples, packCounts, packFloats } from "@thrum/protocol"
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { assert, describe, it } from "vitest"
import { contract } from "../support/contract.ts"
import { problemOf, type Rig, type Sent, unknownId } from "./Rig.ts"

const bytesOf = ({ index, t0, block }: Sent): Uint8Array => {
  if (!(block instanceof Uint8Array)) throw new Error(block.message)
  return encodeSamples(index, t0, block)
}

/** As docs/PROTOCOL.md defines it. */
const receiptOf = (epochs: ReadonlyMap<number, ReadonlyArray<Uint8Array>>): { whole: string; each: Array<string> } => {
  const each: Array<string> = []
  const whole = createHash("sha256")
  for (const [epoch, frames] of epochs) {
    const hash = createHash("sha256").update(Buffer.concat(frames)).digest()
    const number = Buffer.alloc(4)
    number.writeUInt32BE(epoch)
    whole.update(Buffer.concat([number, hash]))
    each.push(hash.toString("hex"))
  }
  return { whole: whole.digest("hex"), each }
}

const mean = (values: ReadonlyArray<number>): number => values.reduce((sum, v) => sum + v, 0) / values.length

export const describeSummaries = (rig: Rig): void => {
  const { get, create, publish, end } = rig

  describe("summaries", () => {
    it("count, measure and sum up what is stored", async () => {
      const session = await create({
        rate: 100,
        channels: [{ name: "x", unit: "g", scale: 0.5, offset: 1e9 }, { name: "y" }]
      })
      // The device's clock runs 1 % slow: 99 samples in what it takes for a second.
      const first: ReadonlyArray<Sent> = [
        { index: 3, t0: 1_000_000, block: packCounts([1, 10, 2, -20, 4, 40], 2) },
        { index: 10, t0: 1_000_000 + Math.round(7e6 / 99), block: packCounts([8, 5], 2) },
        { index: 40, t0: 1_000_000 + Math.round(37e6 / 99), block: packCounts([-8, 6, -8, 7], 2) }
      ]
      const second: ReadonlyArray<Sent> = [
        { index: 0, t0: 5, block: packFloats([Number.NaN, 1, 2, Number.POSITIVE_INFINITY, 7.5, -1], 2) },
        { index: 99, t0: 1_000_005, block: packFloats([1, 1], 2) }
      ]
      await publish(session, first)
      await publish(session, second, "2")
      const live = await (await get(`/sessions/${session.id}/summary`)).json()
      assert.deepInclude(live, { complete: false, samples: 10, durable: "1:100" })
      await end(session)
      const answer = await get(`/sessions/${session.id}/summary`)
      const summary = await answer.json()
      assert.deepStrictEqual({ ...live, complete: true, session: summary.session }, summary)

      const xs = [1, 2, 4, 8, -8, -8].map((k) => k * 0.5 + 1e9).concat(2, 7.5, 1)
      const ys = [10, -20, 40, 5, 6, 7, 1, -1, 1]
      for (const [c, values] of [xs, ys].entries()) {
        const channel = summary.channels[c]
        const spread = Math.sqrt(values.reduce((sum, v) => sum + (v - mean(values)) ** 2, 0) / (values.length - 1))
        assert.deepInclude(channel, {
          name: ["x", "y"][c],
          unit: ["g", "m/s²"][c],
          count: 9,
          notFinite: 1,
          min: Math.min(...values),
          max: Math.max(...values)
        })
        assert.closeTo(channel.mean, mean(values), Math.abs(mean(values)) * 1e-13)
        assert.closeTo(channel.sd, spread, spread * 1e-9)
      }
      assert.closeTo(summary.rate.measured, 99, 0.001)
      assert.strictEqual(summary.rate.nominal, 100)
      assert.deepStrictEqual(summary.gaps, { count: 4, instants: 3 + 4 + 29 + 96 })
      assert.deepInclude(summary, { samples: 10, frames: 5 })
      const { rows } = await (await get(`/sessions/${session.id}/data`)).json()
      assert.deepStrictEqual([summary.first, summary.last], [rows[0][2], rows.at(-1)[2]])

      const [a, b] = [first.map(bytesOf), second.map(bytesOf)]
      const receipt = receiptOf(new Map([[0, a], [1, b]]))
      assert.strictEqual(summary.receipt.sha256, receipt.whole)
      assert.deepStrictEqual(summary.receipt.epochs, [
        { epoch: 0, samples: 6, frames: 3, bytes: Buffer.concat(a).length, sha256: receipt.each[0] },
        { epoch: 1, samples: 4, frames: 2, bytes: Buffer.concat(b).length, sha256: receipt.each[1] }
      ])
      assert.strictEqual(summary.bytes, Buffer.concat([...a, ...b]).length)

      assert.strictEqual(answer.headers.get("cache-control"), "public, max-age=31536000, immutable")
      const etag = answer.headers.get("etag") ?? ""
      assert.strictEqual((await get(`/sessions/${session.id}/summary`, { "if-none-match": etag })).status, 304)
      assert.deepStrictEqual(await (await get(`/sessions/${session.id}/summary`)).json(), summary)
    })

    it("keep the digits of a small signal on a large offset", async () => {
      const session = await create({ rate: 100, channels: [{ name: "x", offset: 1e12 }] })
      const values = Array.from({ length: 50_000 }, (_, i) => i % 2)
      await publish(
        session,
        Array.from({ length: 50 }, (_, f) => ({ index: f * 1000, block: packCounts(values.slice(0, 1000), 1) }))
      )
      await end(session)
      const { channels: [x] } = await (await get(`/sessions/${session.id}/summary`)).json()
      assert.closeTo(x.mean - 1e12, 0.5, 2e-4)
      assert.closeTo(x.sd, Math.sqrt(0.25 * 50_000 / 49_999), 1e-6)
    })

    it("of nothing have nothing to say", async () => {
      const session = await create()
      await end(session)
      const summary = await (await get(`/sessions/${session.id}/summary`)).json()
      assert.deepInclude(summary, {
        samples: 0,
        first: null,
        last: null,
        duration: null,
        gaps: { count: 0, instants: 0 }
      })
      assert.deepInclude(summary.channels[0], { count: 0, min: null, max: null, mean: null, sd: null })
      assert.deepStrictEqual(summary.receipt, { sha256: createHash("sha256").digest("hex"), epochs: [] })
    })

    it("have the receipt of docs/PROTOCOL.md and of the contract's example", async () => {
      const page = readFileSync(new URL("../../docs/PROTOCOL.md", import.meta.url), "utf8")
      const block = /```receipt\nframe +(\w+)\nR\(0\) +(\w+)\nR +(\w+)\n```/.exec(page)
      assert.isNotNull(block)
      const [, frame = "", epoch = "", whole = ""] = block ?? []
      const session = await create({ rate: 100 })
      const counts = packCounts([1, -2, 16384], 3)
      const sent = { index: 12_000, t0: 120_000_000, block: counts }
      assert.strictEqual(Buffer.from(bytesOf(sent)).toString("hex"), frame)
      await publish(session, [sent])
      await end(session)
      const { receipt, ...summary } = await (await get(`/sessions/${session.id}/summary`)).json()
      assert.deepStrictEqual(receipt, {
        sha256: whole,
        epochs: [{ epoch: 0, samples: 1, frames: 1, bytes: frame.length / 2, sha256: epoch }]
      })
      const text = JSON.stringify(contract)
      assert.include(text, JSON.stringify({ receipt: { sha256: whole, epochs: receipt.epochs } }).slice(1, -1))
      for (const key of ["durable", "samples", "frames", "bytes", "duration", "rate", "gaps", "channels"]) {
        assert.include(text, JSON.stringify({ [key]: summary[key] }).slice(1, -1), key)
      }
    })

    it("are refused for what is not there", async () => {
      const missing = await get(`/sessions/${unknownId}/summary`)
      assert.deepStrictEqual([missing.status, (await problemOf(missing)).type], [404, "/problems/session-not-found"])
      rig.setTrouble("down")
      assert.strictEqual((await get(`/sessions/${unknownId}/summary`)).status, 503)
      rig.setTrouble("broken")
      assert.strictEqual((await get(`/sessions/${unknownId}/summary`)).status, 500)
    })
  })
}
