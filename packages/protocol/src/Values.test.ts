import * as fc from "fast-check"
import { assert, describe, it } from "vitest"
import { readRecording, type Recording, recordingNames } from "../../../test/Recordings.ts"
import { type Block, readBlock } from "./Block.ts"
import { packCounts, packFloats } from "./BlockEncoder.ts"
import { type FrameError, isFrameError } from "./FrameError.ts"
import type { Channel } from "./Session.ts"
import { floatText, numbersOf, textsOf, writtenNumbersOf } from "./Values.ts"

const unwrap = <A>(result: A | FrameError): A => {
  if (isFrameError(result)) throw new Error(result.message)
  return result
}

const channel = (name: string, scale = 1, offset = 0): Channel => ({ name, unit: "g", scale, offset })
const xyz: ReadonlyArray<Channel> = ["x", "y", "z"].map((name) => channel(name))

const blockOf = (integers: ReadonlyArray<number>, exponent?: number): Block => ({
  count: integers.length,
  channels: 1,
  integers: Int32Array.from(integers),
  exponent,
  times: undefined,
  period: undefined
})
const allTexts = (block: Block, channels: ReadonlyArray<Channel>): ReadonlyArray<string> => {
  const textOf = textsOf(block, channels)
  return Array.from(block.integers, (_, at) => textOf(at))
}

/** A decimal without the choices of its writer: sign, digits without zeros at either end, exponent of the last one. */
const canonical = (text: string): string => {
  const match = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text)
  assert(match !== null, `"${text}" is not a decimal`)
  const [, sign = "", whole = "", places = "", exponent = "0"] = match
  const digits = (whole + places).replace(/^0+/, "")
  const trimmed = digits.replace(/0+$/, "")
  return trimmed === ""
    ? `${sign}0`
    : `${sign}${trimmed}e${Number(exponent) - places.length + digits.length - trimmed.length}`
}

/** Whether the source held float32; the decimals of the others are exact as float64. */
const isSingle = (name: string): boolean => name.startsWith("phone") || name.startsWith("imu")

const pack = (recording: Recording, from: number, to: number): Uint8Array | FrameError => {
  const numbers = recording.numbers.subarray(from * 3, to * 3)
  if (recording.counts) return packCounts(numbers, 3, { predictors: [0, 4, 13] })
  return packFloats(isSingle(recording.name) ? Float32Array.from(numbers) : numbers, 3, { predictors: [0, 4, 13] })
}

describe("the recordings", () => {
  for (const name of recordingNames) {
    it(`${name} comes back text for text and number for number, in frames of 1, 7, 100 and 4096`, () => {
      const recording = readRecording(name)
      const expected = recording.texts.map(canonical)
      for (const size of [1, 7, 100, 4096]) {
        const texts: Array<string> = []
        const numbers: Array<number> = []
        for (let i = 0; i < recording.count; i += size) {
          const block = unwrap(readBlock(unwrap(pack(recording, i, i + size)), 3))
          texts.push(...allTexts(block, xyz))
          numbers.push(...numbersOf(block, xyz))
        }
        assert.deepStrictEqual(texts.map(canonical), expected)
        if (isSingle(name)) assert.deepStrictEqual(numbers.map(Math.fround), Array.from(recording.numbers, Math.fround))
        else assert.deepStrictEqual(numbers, Array.from(recording.numbers))
        // Our own writing: no zeros at the end, no exponent where a decimal scale was found.
        assert.isFalse(texts.some((text) => /\.\d*0$|\.$/.test(text)))
      }
    })
  }
})

const digitsOf = (text: string): string => text.split("e")[0]!.replace(/[-.]/g, "").replace(/^0+|0+$/g, "")

/** Whether no decimal of one digit less, on either side of `v`, reads as `v`. */
const isShortest = (v: number): boolean => {
  const digits = digitsOf(floatText(v)).length
  if (digits < 2) return true
  const [mantissa = "", exponent = ""] = v.toExponential(digits - 2).split("e")
  const near = Number(mantissa.replace(".", ""))
  return [near - 1, near, near + 1].every((k) => Math.fround(Number(`${k}e${Number(exponent) - digits + 2}`)) !== v)
}

describe("floatText()", () => {
  it("reads back as the same float32, for any bits", () => {
    fc.assert(
      fc.property(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), (bits) => {
        const v = new Float32Array(Int32Array.of(bits).buffer)[0]!
        assert.isTrue(Object.is(Math.fround(Number(floatText(v))), v))
      }),
      { numRuns: 20_000 }
    )
  })

  it("is the shortest: no decimal of one digit less reads as the same float32", () => {
    // Powers of two are the hard ones: their neighbours are not equally far.
    for (let e = -149; e < 128; e++) assert.isTrue(isShortest(2 ** e), floatText(2 ** e))
    fc.assert(
      fc.property(fc.float({ min: 0, noNaN: true, noDefaultInfinity: true }), (v) => assert.isTrue(isShortest(v))),
      { numRuns: 20_000 }
    )
  })

  it("writes the special ones, and the others as JavaScript does", () => {
    const cases: ReadonlyArray<readonly [number, string]> = [
      [NaN, "NaN"],
      [Infinity, "Infinity"],
      [-Infinity, "-Infinity"],
      [-0, "-0"],
      [0, "0"],
      [0.1, "0.1"],
      [-9.8, "-9.8"],
      [16_777_216, "16777216"],
      [5.35e-5, "0.0000535"],
      [1e-7, "1e-7"],
      [2 ** -149, "1e-45"],
      [3.4028234663852886e38, "3.4028235e+38"],
      [2 ** 90, "1.2379401e+27"],
      // Halves go to the even digit: 2.44921875, 0.00146484375.
      [-2.44921875, "-2.4492188"],
      [0.275390625, "0.27539062"],
      [0.00146484375, "0.0014648438"],
      [0.0014650822, "0.0014650822"]
    ]
    for (const [v, text] of cases) assert.strictEqual(floatText(Math.fround(v)), text)
  })
})

describe("writtenNumbersOf()", () => {
  it("gives the numbers that the texts say, for every form of block", () => {
    const exponents = fc.oneof(
      fc.constantFrom(undefined, 255),
      fc.integer({ min: 0, max: 149 }),
      fc.integer({ min: 193, max: 201 })
    )
    fc.assert(
      fc.property(fc.array(fc.integer(), { minLength: 1, maxLength: 50 }), exponents, (integers, exponent) => {
        const block = blockOf(integers, exponent)
        const scaled = [channel("x", 0.1, -3)]
        const numbers = writtenNumbersOf(block, scaled)
        allTexts(block, scaled).forEach((text, i) => assert.isTrue(Object.is(numbers[i], Number(text)), text))
      })
    )
  })
})

describe("textsOf() and numbersOf()", () => {
  it("write decimals digit for digit", () => {
    const block = blockOf([57, -30, 2000, 0, 2 ** 31 - 1, -(2 ** 31)], 195)
    assert.deepStrictEqual(allTexts(block, [channel("x")]), ["0.057", "-0.03", "2", "0", "2147483.647", "-2147483.648"])
    assert.deepStrictEqual(Array.from(numbersOf(block, [channel("x")])), [
      0.057,
      -0.03,
      2,
      0,
      2147483.647,
      -2147483.648
    ])
    const small = blockOf([1, -10, 120, 1000], 201)
    assert.deepStrictEqual(allTexts(small, [channel("x")]), ["0.000000001", "-0.00000001", "0.00000012", "0.000001"])
    assert.deepStrictEqual(Array.from(numbersOf(small, [channel("x")])), [1e-9, -1e-8, 1.2e-7, 1e-6])
  })

  it("write every decimal as its own canonical text, and the number that text stands for", () => {
    const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })
    fc.assert(
      fc.property(int32, fc.integer({ min: 1, max: 9 }), (k, places) => {
        const block = blockOf([k], 192 + places)
        const text = textsOf(block, [channel("x")])(0)
        assert.match(text, /^(0|-?(0|[1-9]\d*)(\.\d*[1-9])?)$/)
        assert.strictEqual(canonical(text), canonical(`${k}e-${places}`))
        assert.strictEqual(numbersOf(block, [channel("x")])[0], Number(text))
      }),
      { numRuns: 5000 }
    )
  })

  it("give float32 of both other scales", () => {
    const binary = blockOf([4096, -2047, 1], 13)
    assert.deepStrictEqual(allTexts(binary, [channel("x")]), ["0.5", "-0.24987793", "0.00012207031"])
    assert.deepStrictEqual(Array.from(numbersOf(binary, [channel("x")])), [0.5, -2047 / 8192, 1 / 8192])
    const patterns = unwrap(readBlock(unwrap(packFloats(Float32Array.of(-0, NaN, 1e-7, -Infinity), 1)), 1))
    assert.strictEqual(patterns.exponent, 255)
    assert.deepStrictEqual(allTexts(patterns, [channel("x")]), ["-0", "NaN", "1e-7", "-Infinity"])
    assert.deepStrictEqual(Array.from(numbersOf(patterns, [channel("x")])), [-0, NaN, Math.fround(1e-7), -Infinity])
  })

  it("scale counts by their channel, and leave floats alone", () => {
    const channels = [channel("a", 0.5), channel("b", 1, -100), channel("c")]
    const block = unwrap(readBlock(unwrap(packCounts([1, 2, 3, -4, -5, -6], 3)), 3))
    assert.deepStrictEqual(Array.from(numbersOf(block, channels)), [0.5, -98, 3, -2, -105, -6])
    assert.deepStrictEqual(allTexts(block, channels), ["0.5", "-98", "3", "-2", "-105", "-6"])
    assert.deepStrictEqual(Array.from(numbersOf(block, channels, "counts")), [1, 2, 3, -4, -5, -6])
    assert.strictEqual(textsOf(block, channels, "counts")(4), "-5")
    const floats = unwrap(readBlock(unwrap(packFloats([0.057, 1, 2], 3)), 3))
    assert.deepStrictEqual(allTexts(floats, channels), ["0.057", "1", "2"])
  })

  it("refuse channels of another session and values that are not there", () => {
    const block = unwrap(readBlock(unwrap(packCounts([1, 2, 3], 3)), 3))
    assert.throws(
      () => numbersOf(block, [channel("x")]),
      RangeError,
      "Cannot read values of 3 channels: 1 are described"
    )
    assert.throws(() => textsOf(block, [channel("x")]), RangeError, "Cannot read values of 3 channels: 1 are described")
    assert.throws(() => textsOf(block, xyz)(3), RangeError, "Cannot read value 3: the block has 3")
  })
})
