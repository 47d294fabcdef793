/**
 * The main job on real input: each recording goes from a device's socket to its viewers, into PostgreSQL and back by
 * REST, and every number arrives as the text it was measured as.
 */
import { encodeSamples, isFrameError, kinds, packCounts } from "@thrum/protocol"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { readRecording, recordingNames } from "./Recordings.ts"
import { checkedFetch } from "./support/contract.ts"
import { Device, until } from "./support/Device.ts"
import { framesOf } from "./support/Frames.ts"
import { startServer, type TestServer } from "./support/Server.ts"
import { Watcher } from "./support/Watcher.ts"

const rates: Readonly<Record<string, number>> = {
  phone_bmi160_walk_a: 50,
  phone_bmi160_walk_b: 50,
  wrist_axivity_ax3: 100,
  wrist_axivity_ax6: 100,
  wrist_geneactiv: 85.7,
  seismic_openeew_a: 31.25,
  seismic_openeew_b: 31.25,
  vib_endaq_832m1_5k: 5000,
  vib_endaq_adxl345_3k: 3134,
  vib_endaq_adxl357_4k: 4025,
  imu_xio_float: 100
}

/** Trailing zeros and exponents are spelling: `0.0` is `0`, `5.35E-05` is `0.0000535`. */
const digits = (text: string): string => String(Number(text))

let server: TestServer

beforeAll(async () => {
  server = await startServer()
})
afterAll(() => server.stop())

const create = async (rate: number): Promise<{ id: string; ingestKey: string; links: Record<string, string> }> => {
  const response = await checkedFetch(server.url, "/sessions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ rate })
  })
  assert.strictEqual(response.status, 201)
  const body = await response.json()
  return { id: body.session.id, ingestKey: body.ingestKey, links: body.links }
}

describe("recordings", () => {
  it.each(recordingNames)("%s: 20 viewers and REST get exactly what the file holds", async (name) => {
    const recording = readRecording(name)
    const rate = rates[name]!
    const { id, ingestKey, links } = await create(rate)
    const frames = framesOf(recording, rate > 1000 ? 1000 : 100, rate)
    const device = await Device.connect(links["ingest"]!, ingestKey)
    const early = await Promise.all(Array.from({ length: 8 }, () => Watcher.open(links["live"]!)))
    const third = Math.floor(frames.length / 3)
    await device.sendAll(frames.slice(0, third))
    const fromStart = await Promise.all(Array.from({ length: 6 }, () => Watcher.open(`${links["live"]}?from=start`)))
    const middle = frames[Math.floor(third / 2)]!.index + 7
    const fromMiddle = await Promise.all(
      Array.from({ length: 3 }, () => Watcher.open(`${links["live"]}?from=0:${middle}`))
    )
    await device.sendAll(frames.slice(third, 2 * third))
    const fromNow = await Promise.all(Array.from({ length: 3 }, () => Watcher.open(`${links["live"]}?from=now`)))
    await device.sendAll(frames.slice(2 * third))
    const closed = await device.end()
    assert.strictEqual(closed.code, 1000, closed.reason)
    assert.deepStrictEqual([device.received, device.durable], [recording.count, recording.count])

    const watchers = [...early, ...fromStart, ...fromMiddle, ...fromNow]
    await Promise.all(watchers.map((watcher) => watcher.ended()))
    for (const watcher of watchers) {
      assert.strictEqual(watcher.closed?.code, 1000)
      const samples = watcher.samples()
      const first = samples[0]!.index
      if (early.includes(watcher) || fromStart.includes(watcher)) assert.strictEqual(first, 0)
      if (fromMiddle.includes(watcher)) assert.isAtMost(first, middle)
      assert.strictEqual(samples.length, recording.count - first)
      samples.forEach(({ index, texts }, i) => {
        if (index !== first + i) assert.fail(`sample ${first + i} is at ${index}`)
        texts.forEach((text, c) => {
          if (digits(text) !== digits(recording.texts[index * 3 + c]!)) {
            assert.fail(`sample ${index}, channel ${c}: ${text}, the file has ${recording.texts[index * 3 + c]}`)
          }
        })
      })
      assert.deepStrictEqual(watcher.gaps, [])
    }

    const csv = await (await checkedFetch(server.url, `/sessions/${id}/data?format=csv`)).text()
    const rows = csv.trimEnd().split("\n").slice(1).map((line) => line.split(","))
    assert.strictEqual(rows.length, recording.count)
    rows.forEach((cells, i) => {
      assert.strictEqual(cells[0], `0:${i}`)
      const texts = recording.texts.slice(3 * i, 3 * i + 3)
      assert.deepStrictEqual(cells.slice(3).map(digits), texts.map(digits), `row ${i}`)
    })
    const json = await (await checkedFetch(server.url, `/sessions/${id}/data`)).json()
    assert.strictEqual(json.complete, true)
    assert.deepStrictEqual(json.gaps, [])
    assert.deepStrictEqual(json.rows.flatMap((row: ReadonlyArray<unknown>) => row.slice(3)), [...recording.numbers])
  }, 120_000)

  it("50 sessions at once do not mix", async () => {
    await Promise.all(Array.from({ length: 50 }, async (_, n) => {
      const { id, ingestKey, links } = await create(100)
      const device = await Device.connect(links["ingest"]!, ingestKey)
      const watcher = await Watcher.open(`${links["live"]}?from=start`)
      for (let f = 0; f < 20; f++) {
        const counts = Int32Array.from({ length: 30 }, (_, i) => n * 1_000_000 + f * 30 + i)
        const block = packCounts(counts, 3)
        if (isFrameError(block)) throw new Error(block.message)
        await device.sendAll([{ next: f * 10 + 10, bytes: encodeSamples(f * 10, undefined, block) }])
        await new Promise((resolve) => setTimeout(resolve, 1))
      }
      assert.strictEqual((await device.end()).code, 1000)
      await watcher.ended()
      const expected = Array.from({ length: 600 }, (_, i) => n * 1_000_000 + i)
      assert.deepStrictEqual(watcher.samples().flatMap(({ texts }) => texts.map(Number)), expected)
      const json = await (await checkedFetch(server.url, `/sessions/${id}/data`)).json()
      assert.deepStrictEqual(json.rows.flatMap((row: ReadonlyArray<unknown>) => row.slice(3)), expected)
    }))
  }, 60_000)

  it("durable follows within a moment, and viewers are told", async () => {
    const { ingestKey, links } = await create(100)
    const device = await Device.connect(links["ingest"]!, ingestKey)
    const watcher = await Watcher.open(links["live"]!)
    const recording = readRecording("wrist_geneactiv")
    await device.sendAll(framesOf(recording, 100, 85.7).slice(0, 3))
    await until("durable", () => device.durable === 300)
    await until(
      "the viewer's durable",
      () => watcher.frames.some((frame) => frame.kind === kinds.durable && frame.position.index === 300)
    )
    await device.close()
    await watcher.close()
  })
})
