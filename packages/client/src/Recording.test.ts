import {
  encodeCaughtUp,
  encodeDurable,
  encodeEnded,
  encodeEpoch,
  encodeGap,
  encodeSamples,
  encodeViewerWelcome,
  isFrameError,
  packCounts
} from "@thrum/protocol"
import * as fc from "fast-check"
import { assert, describe, it } from "vitest"
import { readRecording, type RecordingSource } from "./Recording.ts"
import { ThrumError } from "./ThrumError.ts"

const at = (index: number, epoch = 0) => ({ epoch, index })
const samples = (index: number, values: ReadonlyArray<number>): Uint8Array => {
  const block = packCounts(values, 1)
  if (isFrameError(block)) throw block
  return encodeSamples(index, undefined, block)
}
const frames = [
  encodeViewerWelcome({
    id: "3f0c2b1a-8d4e-4f6a-9b7c-5d1e2f3a4b5c",
    state: "ended",
    createdAt: "2026-01-01T00:00:00.000Z",
    channels: [{ name: "x", unit: "g", scale: 2, offset: 0 }],
    rate: 100,
    tick: 1
  }, at(0)),
  encodeEpoch({ epoch: 0, t0: undefined, wall: 1000, index: 0 }),
  samples(0, [1, 2, 3]),
  encodeGap({ from: at(3), to: at(10), reason: "device" }),
  samples(10, [4]),
  encodeEpoch({ epoch: 1, t0: undefined, wall: 2000, index: 0 }),
  samples(0, [5]),
  encodeEnded(at(1, 1))
]
const recording = Uint8Array.from(frames.flatMap((frame) => Array.from(frame)))

const collect = async (source: RecordingSource) => {
  const events = []
  for await (const event of readRecording(source)) {
    events.push(event.type === "samples" ? { at: event.position, values: Array.from(event.values) } : event.type)
  }
  return events
}

const expected = [
  "welcome",
  "epoch",
  { at: at(0), values: [2, 4, 6] },
  "gap",
  { at: at(10), values: [8] },
  "epoch",
  { at: at(0, 1), values: [10] },
  "ended"
]

const refusalOf = async (source: RecordingSource): Promise<ThrumError> => {
  try {
    await collect(source)
  } catch (error) {
    assert.instanceOf(error, ThrumError)
    return error
  }
  throw new Error("nothing was refused")
}

describe("Recording", () => {
  it("is read from bytes, and from any stream in any pieces (property)", async () => {
    assert.deepStrictEqual(await collect(recording), expected)
    await fc.assert(fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1 }), async (sizes) => {
      const stream = new ReadableStream<Uint8Array>({
        start: (controller) => {
          for (let from = 0, i = 0; from < recording.length; i++) {
            const to = from + sizes[i % sizes.length]!
            controller.enqueue(recording.subarray(from, to))
            from = to
          }
          controller.close()
        }
      })
      assert.deepStrictEqual(await collect(stream), expected)
    }))
  })

  it("passes over what only a live stream holds", async () => {
    const live = [...frames.slice(0, 3), encodeDurable(at(3)), encodeCaughtUp(at(3))]
    const events = await collect(Uint8Array.from(live.flatMap((frame) => Array.from(frame))))
    assert.deepStrictEqual(events.slice(-2), ["durable", "caught-up"])
  })

  it("one that was cut short, anywhere, says so", async () => {
    const ends = new Set(frames.map((_, i) => frames.slice(0, i + 1).reduce((sum, { length }) => sum + length, 0)))
    const names = new Set<string>()
    for (let length = 0; length < recording.length; length++) {
      if (!ends.has(length)) names.add((await refusalOf(recording.subarray(0, length))).name)
    }
    assert.deepStrictEqual(Array.from(names), ["CutShort"])
  })

  it("what is none is refused, by its place", async () => {
    assert.strictEqual((await refusalOf(Uint8Array.of(0xc1))).name, "NotThrum")
    assert.include((await refusalOf(Uint8Array.from([...frames[0]!, 0x91, 0x01]))).message, String(frames[0]!.length))
    assert.include((await refusalOf(frames[1]!)).message, "before the welcome")
  })
})
