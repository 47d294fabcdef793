import { isFrameError, numbersOf, readBlock, readSamples } from "@thrum/protocol"
import * as fc from "fast-check"
import { assert, describe, it } from "vitest"
import { Packer, type PackerSettings } from "./Packer.ts"
import type { DeviceFrame } from "./Retention.ts"
import { ThrumError } from "./ThrumError.ts"

const packer = (settings: Partial<PackerSettings> = {}, index = 0) => {
  const frames: Array<DeviceFrame> = []
  const made = new Packer(
    { channels: 1, rate: 100, tick: 1, blockSamples: 100, values: "unit", float32: false, ...settings },
    index,
    (frame) => frames.push(frame)
  )
  return { packer: made, frames }
}

const unpack = ({ bytes }: DeviceFrame, channels = 1) => {
  const samples = readSamples(bytes)
  if (isFrameError(samples)) throw samples
  const block = readBlock(samples.block, channels)
  if (isFrameError(block)) throw block
  const described = Array.from({ length: channels }, () => ({ name: "x", unit: "g", scale: 1, offset: 0 }))
  return { samples, block, values: Array.from(numbersOf(block, described)) }
}

const refusalOf = (act: () => unknown): string => {
  try {
    act()
  } catch (error) {
    assert.instanceOf(error, ThrumError)
    assert.strictEqual(error.name, "BadSamples")
    return error.message
  }
  throw new Error("nothing was refused")
}

const single = fc.float({ noDefaultInfinity: true })
const decimal = fc.integer({ min: -100_000_000, max: 100_000_000 }).map((k) => k / 1000)
const batch = fc.oneof(
  fc.array(fc.integer({ min: -32_768, max: 32_767 }), { maxLength: 30 }).map((v) => Int16Array.from(v)),
  fc.array(fc.integer(), { maxLength: 30 }).map((v) => Int32Array.from(v)),
  fc.array(fc.float(), { maxLength: 30 }).map((v) => Float32Array.from(v)),
  fc.array(fc.oneof(single, decimal), { maxLength: 30 }).map((v) => Float64Array.from(v)),
  fc.array(decimal, { maxLength: 30 })
)

const isCounts = (values: "unit" | "counts", samples: Int8Array | ReadonlyArray<number>): boolean => {
  const { frames, packer: packing } = packer({ values })
  packing.push(samples)
  packing.flush()
  return unpack(frames[0]!).block.exponent === undefined
}

describe("Packer", () => {
  it("numbers of any kind, pushed in any pieces, come back as they are, under their indexes (property)", () => {
    fc.assert(fc.property(
      fc.array(batch, { maxLength: 12 }),
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 3 }),
      (batches, blockSamples, channels) => {
        const { frames, packer: packing } = packer({ blockSamples, channels })
        const given: Array<number> = []
        for (const samples of batches) {
          const whole = samples.slice(0, samples.length - samples.length % channels)
          try {
            packing.push(whole)
            given.push(...whole)
          } catch (error) {
            // A float32 and a decimal of one sample may have no form in common: then nothing of it is taken.
            assert.instanceOf(error, ThrumError)
          }
        }
        packing.flush()
        assert.deepStrictEqual(frames.flatMap((frame) => unpack(frame, channels).values), given)
        assert.deepStrictEqual(
          frames.map(({ index }) => index),
          [0, ...frames.slice(0, -1).map(({ next }) => next)].slice(0, frames.length)
        )
        assert.strictEqual(packing.index, given.length / channels)
        for (const frame of frames) assert.isAtMost(frame.next - frame.index, blockSamples)
      }
    ))
  })

  it("frames are never larger than was said before (property)", () => {
    fc.assert(fc.property(
      fc.array(fc.integer(), { minLength: 1, maxLength: 400 }),
      fc.integer({ min: 1, max: 100 }),
      (values, blockSamples) => {
        const { frames, packer: packing } = packer({ blockSamples })
        const said = packing.bytesMax(values.length)
        packing.push(Int32Array.from(values), { times: values.map((_, i) => i * 10_000 + (i % 3) * 1000) })
        packing.flush()
        assert.isAtMost(frames.reduce((sum, { bytes }) => sum + bytes.length, 0), said)
      }
    ))
  })

  it("integers of typed arrays are counts; plain numbers are what the device was told", () => {
    assert.deepStrictEqual(
      [isCounts("unit", Int8Array.of(1)), isCounts("unit", [1]), isCounts("counts", [1])],
      [true, false, true]
    )
  })

  it("what cannot be sent exactly is refused when it comes, by its value, and nothing of it is taken", () => {
    for (
      const [settings, samples, taken, words] of [
        [{ channels: 3 }, [1, 2], {}, "2 values"],
        [{ values: "counts" }, [1, 2.5], {}, "2.5"],
        [{ values: "counts" }, [2 ** 31], {}, "2147483648"],
        [{}, [1, Math.PI], {}, "3.14159"],
        [{ float32: true }, [1e300], {}, "1e+300"],
        [{}, [1], { time: -1 }, "-1"],
        [{}, [1], { time: Number.NaN }, "NaN"],
        [{}, [1, 2], { times: [1] }, "1 times"]
      ] as const
    ) {
      const { packer: packing } = packer(settings)
      assert.include(refusalOf(() => packing.push(samples, taken)), words)
      assert.deepStrictEqual([packing.index, packing.pending], [0, 0])
    }
    assert.include(refusalOf(() => packer({}, Number.MAX_SAFE_INTEGER).packer.push([1])), "indexes")
  })

  it("rounds to float32 where it is told to", () => {
    const { frames, packer: packing } = packer({ float32: true })
    packing.push([Math.PI, 0.1])
    packing.flush()
    assert.deepStrictEqual(unpack(frames[0]!).values.map(Math.fround), [Math.fround(Math.PI), Math.fround(0.1)])
  })

  it("regular times give t0 alone; jittery ones a time a sample, in ticks", () => {
    const { frames, packer: packing } = packer({ tick: 1000 })
    for (const i of [0, 1, 2]) packing.push([i], { time: 5000 + i * 10_000 })
    packing.flush()
    packing.push([1, 2, 3], { times: [100_000, 108_000, 121_000] })
    packing.flush()
    const [regular, jittery] = frames.map((frame) => unpack(frame))
    assert.deepStrictEqual([regular?.samples.t0, regular?.block.times], [5000, undefined])
    assert.deepStrictEqual([jittery?.samples.t0, Array.from(jittery?.block.times ?? [])], [100_000, [0, 8, 21]])
    assert.strictEqual(jittery?.block.period, 10)
  })

  it("a jump in time, and another kind of number, end the frame; the index goes on", () => {
    const { frames, packer: packing } = packer()
    packing.push([1, 2], { time: 0 })
    packing.push([3], { time: 5_000_000 })
    packing.push(Int8Array.of(4), { time: 5_010_000 })
    packing.push(Int8Array.of(5))
    packing.flush()
    assert.deepStrictEqual(frames.map(({ index, next }) => [index, next]), [[0, 2], [2, 3], [3, 4], [4, 5]])
    assert.deepStrictEqual(frames.map((frame) => unpack(frame).samples.t0), [0, 5_000_000, 5_010_000, undefined])
  })

  it("times too far apart for a block's ticks end the frame", () => {
    const { frames, packer: packing } = packer({ rate: 0.000_001 })
    for (let i = 0; i < 10; i++) packing.push([i], { time: i * 1.1e12 })
    packing.flush()
    assert.strictEqual(frames.length, 10)
  })

  it("a frame too large for a message is split", () => {
    const { frames, packer: packing } = packer({ channels: 16, blockSamples: 4096 })
    const noise = Int32Array.from({ length: 16 * 4096 }, (_, i) => Math.imul(i + 1, 0x9e3779b1))
    packing.push(noise)
    assert.isAbove(frames.length, 1)
    for (const { bytes } of frames) assert.isAtMost(bytes.length, 65_536)
    assert.deepStrictEqual(frames.flatMap((frame) => unpack(frame, 16).values), Array.from(noise))
  })

  it("instants without a sample are passed over", () => {
    const { frames, packer: packing } = packer({}, 40)
    packing.push([1])
    packing.skip(9)
    packing.push([2])
    packing.flush()
    assert.deepStrictEqual(frames.map(({ index, next }) => [index, next]), [[40, 41], [50, 51]])
  })
})
