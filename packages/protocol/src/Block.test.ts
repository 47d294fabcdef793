import * as fc from "fast-check"
import { readFileSync } from "node:fs"
import { assert, describe, it } from "vitest"
import { measuredSizes, readRecording } from "../../../test/Recordings.ts"
import { type Block, checkBlock, readBlock } from "./Block.ts"
import { packCounts, packFloats, type PackOptions } from "./BlockEncoder.ts"
import { FrameError, isFrameError } from "./FrameError.ts"

interface Vector {
  readonly title: string
  readonly channels: number
  readonly kind: "counts" | "float32"
  /** Floats are texts, because JSON has no -0. */
  readonly input: ReadonlyArray<number | string>
  readonly times?: ReadonlyArray<number>
  readonly period?: number
  readonly hex: string
}

const vectors: ReadonlyArray<Vector> = JSON.parse(
  readFileSync(new URL("../../../test/vectors/block.json", import.meta.url), "utf8")
)

const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
const fromHex = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"))

/** The value, or the error as a failure of the test. */
const unwrap = <A>(result: A | FrameError): A => {
  if (isFrameError(result)) throw new Error(result.message)
  return result
}

const messageOf = (result: unknown): string => {
  assert(result instanceof FrameError, `expected a FrameError, got ${JSON.stringify(result)}`)
  return `${result.name}: ${result.message}`
}

/** Float32 bits of a block, from its numbers where it has a scale. */
const bitsOf = ({ exponent, integers }: Block): Int32Array => {
  assert(exponent !== undefined)
  if (exponent === 255) return integers.map((k) => k ^ ((k >> 31) & 0x7fffffff))
  const numberOf = (k: number): number => exponent > 192 ? k / 10 ** (exponent - 192) : k * 2 ** -exponent
  return new Int32Array(Float32Array.from(integers, numberOf).buffer)
}

/** Deterministic 32-bit noise. */
const makeNoise = (seed: number): () => number => {
  let state = seed | 0
  return () => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9 | 0
    let z = Math.imul(state ^ (state >>> 16), 0x21f0aaad)
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
    return z ^ (z >>> 15)
  }
}

describe("golden vectors", () => {
  for (const { channels, hex, input, kind, period, times, title } of vectors) {
    const values = input.map(Number)

    it(`packs "${title}" byte for byte`, () => {
      const options = times === undefined || period === undefined ? {} : { times, period }
      const bytes = kind === "counts"
        ? packCounts(values, channels, options)
        : packFloats(Float32Array.from(values), channels, options)
      assert.strictEqual(toHex(unwrap(bytes)), hex)
    })

    it(`reads "${title}"`, () => {
      const block = unwrap(readBlock(fromHex(hex), channels))
      assert.strictEqual(block.count, values.length / channels)
      if (kind === "counts") assert.deepStrictEqual(Array.from(block.integers), values)
      else assert.deepStrictEqual(bitsOf(block), new Int32Array(Float32Array.from(values).buffer))
      assert.deepStrictEqual(block.times && Array.from(block.times), times)
      assert.strictEqual(block.period, period)
      assert.strictEqual(checkBlock(fromHex(hex), channels), block.count)
    })
  }
})

const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })
/** Sensor-like and hostile values: small, wide, all bits, with the same low bits. */
const values = (length: number): fc.Arbitrary<ReadonlyArray<number>> =>
  fc.oneof(
    fc.array(fc.integer({ min: -20, max: 20 }), { minLength: length, maxLength: length }),
    fc.array(fc.oneof({ weight: 9, arbitrary: fc.integer({ min: -2000, max: 2000 }) }, int32), {
      minLength: length,
      maxLength: length
    }),
    fc.array(int32, { minLength: length, maxLength: length }),
    fc.tuple(fc.integer({ min: 1, max: 31 }), fc.array(int32, { minLength: length, maxLength: length })).map(
      ([shift, all]) => all.map((v) => (v << shift) | 1)
    )
  )
const samples = fc.tuple(fc.integer({ min: 1, max: 16 }), fc.integer({ min: 1, max: 90 })).chain(([channels, count]) =>
  fc.record({
    channels: fc.constant(channels),
    count: fc.constant(count),
    input: values(channels * count),
    times: fc.option(fc.array(int32, { minLength: count, maxLength: count }), { nil: undefined }),
    period: fc.option(fc.integer({ min: 0, max: 2 ** 32 - 1 }), { nil: undefined }),
    predictors: fc.option(fc.uniqueArray(fc.integer({ min: 0, max: 14 }), { minLength: 1 }), { nil: undefined })
  })
)
const optionsOf = (s: {
  readonly times: ReadonlyArray<number> | undefined
  readonly period: number | undefined
  readonly predictors: ReadonlyArray<number> | undefined
}): PackOptions => ({
  ...(s.times !== undefined && { times: s.times }),
  ...(s.times !== undefined && s.period !== undefined && { period: s.period }),
  ...(s.predictors !== undefined && { predictors: s.predictors })
})

/** No more than plain fields and the header: what the head of the encoder promises, in bits. */
const bytesMax = (count: number, channels: number, timed: boolean, float: boolean): number =>
  3 + (float ? 1 : 0) + (timed ? 5 : 0) +
  Math.ceil((10 + channels * (38 + 32 * count) + (timed ? 5 + 38 + 32 * count : 0)) / 8)

describe("packCounts() and readBlock()", () => {
  it("give back any integers of any number of channels, with and without times", () => {
    fc.assert(
      fc.property(samples, (s) => {
        const bytes = unwrap(packCounts(s.input, s.channels, optionsOf(s)))
        const block = unwrap(readBlock(bytes, s.channels))
        assert.deepStrictEqual(Array.from(block.integers), s.input)
        assert.deepStrictEqual(block.times && Array.from(block.times), s.times)
        assert.strictEqual(block.exponent, undefined)
        if (s.times !== undefined && s.period !== undefined) assert.strictEqual(block.period, s.period)
        assert.strictEqual(checkBlock(bytes, s.channels), s.count)
        assert.isAtMost(bytes.length, bytesMax(s.count, s.channels, s.times !== undefined, false))
      }),
      { numRuns: 1500 }
    )
  })

  it("give back walks of every predictor, from quiet to all bits", () => {
    for (let predictor = 0; predictor < 15; predictor++) {
      for (const drop of [32, 30, 28, 24, 16, 8, 0]) {
        const noise = makeNoise(predictor * 100 + drop)
        const input = new Int32Array(3 * 413)
        for (let i = 3; i < input.length; i++) input[i] = input[i - 3]! + (drop === 32 ? 0 : noise() >> drop)
        const bytes = unwrap(packCounts(input, 3, { predictors: [predictor] }))
        assert.deepStrictEqual(unwrap(readBlock(bytes, 3)).integers, input)
      }
    }
  })

  it("give back a full frame of 16 channels of noise, larger than a message, at 4 bytes a value", () => {
    const noise = makeNoise(1)
    const input = Int32Array.from({ length: 4096 * 16 }, noise)
    const bytes = unwrap(packCounts(input, 16, { predictors: [4] }))
    assert.isAtMost(bytes.length, bytesMax(4096, 16, false, false))
    assert.deepStrictEqual(unwrap(readBlock(bytes, 16)).integers, input)
  })

  it("write single spikes in quiet data as escapes instead of giving up prediction", () => {
    const noise = makeNoise(2)
    const input = Int32Array.from({ length: 100 }, () => noise() >> 30)
    input[50] = 2 ** 30
    const bytes = unwrap(packCounts(input, 1))
    // About 3 bits a sample, and two residuals of 56.
    assert.isBelow(bytes.length, 65)
    assert.deepStrictEqual(unwrap(readBlock(bytes, 1)).integers, input)
  })

  it("take the most frequent difference of the times for the period", () => {
    const block = unwrap(readBlock(unwrap(packCounts([1, 2, 3, 4, 5], 1, { times: [5, 15, 26, 36, 46] })), 1))
    assert.strictEqual(block.period, 10)
    assert.deepStrictEqual(block.times, Int32Array.of(5, 15, 26, 36, 46))
  })

  it("read bytes at any place of their buffer, and leave no view of them in the block", () => {
    const { hex } = vectors[0]!
    const buffer = fromHex(`ffffff${hex}ffffff`)
    const bytes = buffer.subarray(3, buffer.length - 3)
    const block = unwrap(readBlock(bytes, 3))
    bytes.fill(0)
    assert.deepStrictEqual(block.integers, Int32Array.of(1, -2, 16384))
  })
})

/** The E byte that a reader of packed numbers finds; -1 when there is none. */
const exponentOf = (input: Float32Array | ReadonlyArray<number>): number =>
  unwrap(readBlock(unwrap(packFloats(input, 1)), 1)).exponent ?? -1

describe("packFloats() and readBlock()", () => {
  const patterns = fc.tuple(fc.integer({ min: 1, max: 16 }), fc.integer({ min: 1, max: 40 })).chain((
    [channels, count]
  ) => fc.tuple(fc.constant(channels), fc.array(int32, { minLength: channels * count, maxLength: channels * count })))

  it("give back any float32 bits, the payload of NaN too", () => {
    fc.assert(
      fc.property(patterns, ([channels, input]) => {
        const bits = Int32Array.from(input)
        const bytes = unwrap(packFloats(new Float32Array(bits.buffer), channels))
        assert.deepStrictEqual(bitsOf(unwrap(readBlock(bytes, channels))), bits)
        assert.isAtMost(bytes.length, bytesMax(input.length / channels, channels, false, true))
      }),
      { numRuns: 1000 }
    )
  })

  it("give back float32 with a step, in binary and in decimal, as their bits", () => {
    const stepped = fc.tuple(
      fc.constantFrom(1, 2 ** -7, 2 ** -16, 2 ** -40, 2 ** -149, 0.1, 0.001, 1e-9),
      fc.array(fc.integer({ min: -(2 ** 23), max: 2 ** 23 }), { minLength: 1, maxLength: 60 })
    )
    fc.assert(
      fc.property(stepped, ([step, ks]) => {
        const input = Float32Array.from(ks, (k) => k * step)
        const bytes = unwrap(packFloats(input, 1))
        assert.deepStrictEqual(bitsOf(unwrap(readBlock(bytes, 1))), new Int32Array(input.buffer))
      }),
      { numRuns: 1000 }
    )
  })

  it("find the step that is hidden in float32", () => {
    assert.strictEqual(exponentOf(Float32Array.of(1.5, -2.25, 1000)), 2)
    assert.strictEqual(exponentOf(Float32Array.of(2 ** -149)), 149)
    assert.strictEqual(exponentOf(Float32Array.of(0.189, -0.03, 0.079)), 195)
    for (const special of [-0, NaN, Infinity, -Infinity]) {
      assert.strictEqual(exponentOf(Float32Array.of(0.5, special)), 255)
    }
  })

  it("keep the fewest places of a decimal beside others that need more", () => {
    const block = unwrap(readBlock(unwrap(packFloats(Float32Array.of(0.057, 0.0000123, 0.1), 1)), 1))
    assert.deepStrictEqual([block.exponent, ...block.integers], [199, 570_000, 123, 1_000_000])
  })

  it("pack float64 as decimals where float32 would lose them", () => {
    const block = unwrap(readBlock(unwrap(packFloats([0.057, -2, 214.748], 1)), 1))
    assert.deepStrictEqual([block.exponent, ...block.integers], [195, 57, -2000, 214_748])
  })

  it("never turn a float64 that is a float32 into the decimal near it", () => {
    const input = [Math.fround(0.057), Math.fround(0.06)]
    const block = unwrap(readBlock(unwrap(packFloats(input, 1)), 1))
    assert.isFalse(exponentOf(input) > 192 && exponentOf(input) < 255)
    assert.deepStrictEqual(Array.from(new Float32Array(bitsOf(block).buffer)), input)
  })

  it("name the number that fits no form", () => {
    assert.strictEqual(
      messageOf(packFloats([1, 9.81234567891], 2)),
      "BadBlock: Cannot pack 9.81234567891: it is neither a float32 nor a decimal of at most 9 places and 2^31"
    )
    assert.match(messageOf(packFloats([0.000000001, 1000.1], 1)), /^BadBlock: Cannot pack 1e-9 beside the others: /)
    assert.match(messageOf(packFloats([0.1, -0], 1)), /^BadBlock: Cannot pack 0.1 beside the others: /)
    assert.match(messageOf(packFloats(Float64Array.of(0.1, NaN), 1)), /^BadBlock: Cannot pack 0.1 beside the others: /)
  })
})

describe("packCounts()", () => {
  const cases: ReadonlyArray<readonly [string, () => unknown, RegExp]> = [
    ["no samples", () => packCounts([], 3), /^BadBlock: .*there are none$/],
    ["half a sample", () => packCounts([1, 2, 3, 4], 3), /^BadBlock: .*4 values are not whole samples of 3 channels$/],
    ["no channels", () => packCounts([1], 0), /^BadBlock: .*0 is no number of channels from 1 to 16$/],
    ["17 channels", () => packCounts(new Int32Array(17), 17), /^BadBlock: .*17 is no number of channels/],
    [
      "4097 samples",
      () => packCounts(new Int32Array(4097), 1),
      /^TooLarge: Cannot pack 4097 samples: .* at most 4096$/
    ],
    ["a fraction", () => packCounts([1.5], 1), /^BadBlock: .*1\.5 is not an integer of 32 bits$/],
    ["2^31", () => packCounts([2 ** 31], 1), /^BadBlock: .*2147483648 is not an integer of 32 bits$/],
    ["NaN", () => packCounts([NaN], 1), /^BadBlock: .*NaN is not an integer/],
    ["too few times", () => packCounts([1, 2], 1, { times: [0] }), /^BadBlock: .*1 times do not fit 2 samples$/],
    ["a time of half a tick", () => packCounts([1], 1, { times: [0.5] }), /^BadBlock: .*the time 0\.5 is not/],
    ["a negative period", () => packCounts([1], 1, { times: [0], period: -1 }), /^BadBlock: .*the period -1 is not/],
    ["a period alone", () => packCounts([1], 1, { period: 10 }), /^BadBlock: .*a period of 10 ticks says nothing/],
    ["predictor 15", () => packCounts([1], 1, { predictors: [4, 15] }), /^BadBlock: .*\[4, 15\] are not predictors/],
    ["no predictor", () => packCounts([1], 1, { predictors: [] }), /^BadBlock: .*\[\] are not predictors/]
  ]
  for (const [what, pack, message] of cases) {
    it(`refuses ${what}`, () => assert.match(messageOf(pack()), message))
  }

  it("is within 1 % of the measured size on every recording in frames of 100", () => {
    for (const { bytes100, name, recording, toCount } of measuredSizes) {
      const { count, numbers } = readRecording(recording)
      let bytes = 0
      for (let i = 0; i < count; i += 100) {
        const frame = numbers.subarray(i * 3, (i + 100) * 3)
        const packed = toCount === undefined
          ? packFloats(Float32Array.from(frame), 3)
          : packCounts(Int32Array.from(frame, toCount), 3)
        bytes += unwrap(packed).length
      }
      assert.closeTo(bytes / count, bytes100, bytes100 / 100, name)
    }
  })
})

const ones = (length: number): string => "1".repeat(length)

/** A block from its header in hex and its bits as text, filled up to whole bytes. */
const blockOf = (header: string, bits: string): Uint8Array => {
  const text = bits.replaceAll(" ", "")
  const bytes = text.padEnd(Math.ceil(text.length / 8) * 8, "0").match(/.{8}/g) ?? []
  return Uint8Array.of(...fromHex(header), ...bytes.map((byte) => parseInt(byte, 2)))
}

/** Asserts that reader and checker agree and keep their bounds; whether the bytes were a block. */
const soundlyRead = (bytes: Uint8Array, channels: number): boolean => {
  const block = readBlock(bytes, channels)
  const count = checkBlock(bytes, channels)
  if (isFrameError(block)) {
    assert.deepStrictEqual(messageOf(count), messageOf(block))
    assert.include(["BadBlock", "TooLarge"], block.name)
    return false
  }
  assert.strictEqual(count, block.count)
  assert.isTrue(block.count >= 1 && block.count <= 4096)
  assert.strictEqual(block.integers.length, block.count * channels)
  assert.strictEqual(block.times?.length, block.period === undefined ? undefined : block.count)
  return true
}

describe("readBlock() and checkBlock()", () => {
  const bad = "BadBlock: Cannot read the block: "
  // W = 1, predictor 4, base 0.
  const delta = "00000 0100 0"
  const cases: ReadonlyArray<readonly [string, Uint8Array, string]> = [
    ["no bytes", fromHex(""), `${bad}it is empty`],
    ["another version", fromHex("2001"), `${bad}its layout has version 2, only 1 is known`],
    ["a number of samples without end", fromHex("10ff"), `${bad}it ends in the number of samples`],
    ["a number of samples of 4 bytes", fromHex("1081808000"), `${bad}its number of samples is longer than 3 bytes`],
    ["no sample", blockOf("1000", delta), `${bad}it holds no sample`],
    ["4097 samples", fromHex("108120"), "TooLarge: Cannot read the block: it holds 4097 samples, a frame at most 4096"],
    ["a period without end", fromHex("140180"), `${bad}it ends in the period`],
    ["a period of 6 bytes", fromHex("1401808080808000"), `${bad}its period is longer than 5 bytes or 32 bits`],
    ["a period of 33 bits", fromHex("1401ffffffff1f"), `${bad}its period is longer than 5 bytes or 32 bits`],
    ["no scale", fromHex("1201"), `${bad}it ends before the scale of its floats`],
    ...[150, 192, 202, 254].map((scale) =>
      [
        `the scale ${scale}`,
        blockOf(`1201${scale.toString(16)}`, delta),
        `${bad}the scale ${scale} of its floats is reserved`
      ] as const
    ),
    ["no bits", fromHex("1001"), `${bad}its bits end early`],
    ["bits that end in a base", blockOf("1001", "11111 0100 0000000"), `${bad}its bits end early`],
    ["bits that end in residuals", blockOf("1009", `${delta} 00111`), `${bad}its bits end early`],
    ["bits that end before a segment", blockOf("1081 01".replace(" ", ""), delta), `${bad}its bits end early`],
    ["bits that end in fields", blockOf("1103", "00000 100000 0 0000"), `${bad}its bits end early`],
    ["the reserved predictor", blockOf("1001", "00000 1111 0"), `${bad}predictor 15 is reserved`],
    ["fields of 33 bits", blockOf("1101", `00000 100001 0 ${ones(33)}`), `${bad}a field is wider than 32 bits`],
    // 41 samples, 40 residuals in 2 segments: k = -1, then one less.
    ["a parameter below -1", blockOf("1029", `${delta} 00000 101 0000`), `${bad}a Rice parameter is outside -1 … 30`],
    [
      "a parameter above 30",
      blockOf("1029", `${delta} 00000 ${ones(32)} 00 0000000000`),
      `${bad}a Rice parameter is outside -1 … 30`
    ],
    [
      "a byte too many",
      Uint8Array.of(...fromHex(vectors[0]!.hex), 0),
      `${bad}15 bits are left behind its last channel`
    ],
    [
      "bytes no block can fill",
      new Uint8Array(1000).fill(0x10).fill(1, 1, 2),
      `${bad}1000 bytes are more than 1 samples can fill`
    ]
  ]
  for (const [what, bytes, message] of cases) {
    it(`refuse ${what}`, () => {
      const channels = what === "a byte too many" ? 3 : 1
      assert.strictEqual(messageOf(readBlock(bytes, channels)), message)
      assert.strictEqual(messageOf(checkBlock(bytes, channels)), message)
    })
  }

  it("refuse a number of channels that no session has", () => {
    for (const channels of [0, 17, 1.5, NaN]) {
      assert.match(messageOf(readBlock(fromHex("1001"), channels)), /is no number of channels from 1 to 16$/)
    }
  })

  it("take lengths that are longer than needed, and ignore the padding's bits", () => {
    const { hex } = vectors[0]!
    const long = fromHex(hex.replace(/^1001/, "10818000"))
    assert.deepStrictEqual(unwrap(readBlock(long, 3)).integers, Int32Array.of(1, -2, 16384))
    const padded = fromHex(hex)
    padded[padded.length - 1]! |= 1
    assert.deepStrictEqual(unwrap(readBlock(padded, 3)).integers, Int32Array.of(1, -2, 16384))
  })

  it("take 4096 samples in 3 bytes of fields without bits", () => {
    const block = unwrap(readBlock(blockOf("118020", "00001 000000 10"), 1))
    assert.deepStrictEqual(block.integers, new Int32Array(4096).fill(1))
  })

  it("wrap where a hostile block leaves 32 bits", () => {
    // k = 30, q = 23: 23·2^30 keeps its low 32 bits. Then the sum with the base wraps too.
    const bits = `11111 0100 ${ones(31)}0 11111 ${ones(23)}0 ${ones(30)}`
    const u = (Math.imul(23, 2 ** 30) | (2 ** 30 - 1)) >>> 0
    const expected = (2 ** 31 - 1 + ((u >>> 1) ^ -(u & 1))) | 0
    assert.deepStrictEqual(unwrap(readBlock(blockOf("1002", bits), 1)).integers, Int32Array.of(2 ** 31 - 1, expected))
  })

  it("stay within their bounds for any bytes, and agree", () => {
    const anyBytes = fc.uint8Array({ maxLength: 400, size: "max" })
    // Most bytes fail at the lead; these get further.
    const likely = fc.tuple(fc.integer({ min: 0x10, max: 0x1f }), fc.integer({ min: 1, max: 100 }), anyBytes).map(
      ([lead, count, rest]) => Uint8Array.of(lead, count, ...rest)
    )
    let readable = 0
    fc.assert(
      fc.property(fc.oneof(anyBytes, likely), fc.integer({ min: 1, max: 16 }), (bytes, channels) => {
        if (soundlyRead(bytes, channels)) return
        const left = /(\d+) bits are left/.exec(messageOf(checkBlock(bytes, channels)))
        if (left === null) return
        // All but its end was a block, so it is one without that end.
        assert.isTrue(soundlyRead(bytes.subarray(0, bytes.length - (Number(left[1]) >> 3)), channels))
        readable++
      }),
      { numRuns: 20_000 }
    )
    // Both outcomes must have been seen, or this proves less than it says.
    assert.isTrue(readable > 500 && readable < 19_000, `${readable} of 20000 were readable`)
  })

  it("stay within their bounds for blocks with wrong bits, cut short or grown, and agree", () => {
    const flips = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })), { maxLength: 4 })
    const wrong = fc.tuple(samples, flips, fc.double({ min: 0, max: 1, noNaN: true }), fc.uint8Array({ maxLength: 3 }))
    let readable = 0
    fc.assert(
      fc.property(wrong, fc.boolean(), ([s, flips, keep, more], cut) => {
        const bytes = unwrap(packCounts(s.input, s.channels, optionsOf(s)))
        for (const [at, mask] of flips) bytes[at % bytes.length]! ^= mask
        const end = cut ? Math.floor(bytes.length * keep) : bytes.length
        const changed = Uint8Array.of(...bytes.subarray(0, end), ...more)
        if (soundlyRead(changed, s.channels)) readable++
      }),
      { numRuns: 3000 }
    )
    assert.isTrue(readable > 100 && readable < 2900, `${readable} of 3000 were readable`)
  })

  it("read the same after a block that failed: nothing of one block stays for the next", () => {
    const { hex } = vectors[5]!
    const first = unwrap(readBlock(fromHex(hex), 3)).integers
    for (let end = 0; end < hex.length / 2; end++) {
      assert.isTrue(isFrameError(readBlock(fromHex(hex).subarray(0, end), 3)))
    }
    assert.deepStrictEqual(unwrap(readBlock(fromHex(hex), 3)).integers, first)
  })
})
