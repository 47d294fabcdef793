/**
 * `thrum.h` against TypeScript: the same bytes out of both encoders, the same values out of both decoders, the same
 * answer to every broken message; and its ring against a list and against a server with faults. Compiled with the
 * sanitizers; the C program checks each block and each buffer's end by itself, see `test/thrum_test.c`.
 *
 * `THRUM_C_FRAMES=200000 THRUM_C_SEEDS=1000 npx vitest run devices/c` is the long form.
 */
import {
  comeBack,
  encodeEnd,
  encodeHello,
  encodeSamples,
  encodeTime,
  isFrameError,
  kinds,
  packCounts,
  packFloats,
  type PackOptions,
  readBlock,
  readServerFrame
} from "@thrum/protocol"
import { readFileSync } from "node:fs"
import { assert, beforeAll, describe, it } from "vitest"
import { measuredSizes, readRecording } from "../../test/Recordings.ts"
import { compile, compiler, has, isLeftOut, run, sanitizers, strict } from "./test/Compiled.ts"

const framesToTry = Number(process.env["THRUM_C_FRAMES"] ?? 4000)
const seedsToTry = Number(process.env["THRUM_C_SEEDS"] ?? 8)

interface BlockVector {
  readonly title: string
  readonly channels: number
  readonly kind: "counts" | "float32"
  readonly input: ReadonlyArray<number | string>
  readonly times?: ReadonlyArray<number>
  readonly period?: number
  readonly hex: string
}
interface FrameVector {
  readonly title: string
  readonly reader: "device" | "server" | "viewer"
  readonly hex: string
}
const vectorsOf = (name: string): string =>
  readFileSync(new URL(`../../test/vectors/${name}.json`, import.meta.url), "utf8")
const blockVectors: ReadonlyArray<BlockVector> = JSON.parse(vectorsOf("block"))
const frameVectors: ReadonlyArray<FrameVector> = JSON.parse(vectorsOf("frames"))

const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
const fromHex = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"))

let full = ""
let cheap = ""

beforeAll(() => {
  if (isLeftOut) return
  full = compile("test/thrum_test.c", "thrum-test", [...strict, ...sanitizers])
  cheap = compile("test/thrum_test.c", "thrum-test-cheap", [...strict, ...sanitizers, "-DTHRUM_PREDICTORS_CHEAP"])
}, 120_000)

/** Asks a program all questions at once. */
const ask = (program: string, questions: ReadonlyArray<string>): ReadonlyArray<string> => {
  const { status, stdout, stderr } = run(program, [], { input: `${questions.join("\n")}\n` })
  if (status !== 0) assert.fail(`status ${status}: ${stderr.slice(0, 4000)}`)
  const answers = stdout.trimEnd().split("\n")
  assert.strictEqual(answers.length, questions.length)
  return answers
}

interface Expected {
  readonly question: string
  readonly answer: string
}

/** The first question that has another answer, and both; undefined when there is none. */
const differenceOf = (program: string, expected: ReadonlyArray<Expected>): string | undefined => {
  const answers = ask(program, expected.map(({ question }) => question))
  const at = expected.findIndex(({ answer }, i) => answers[i] !== answer)
  const other = expected[at]
  return other && `${other.question.slice(0, 3000)}\nTypeScript: ${other.answer}\nC:          ${answers[at]}`
}

type Type = "i16" | "i32" | "f32"

/** The samples of one frame. `values` are counts, or the bits of float32. */
interface Input {
  readonly type: Type
  readonly channels: number
  readonly values: Int32Array
  readonly times?: Int32Array
  readonly period?: number
}

const typeOf = (values: Int32Array): Type => values.every((v) => v << 16 >> 16 === v) ? "i16" : "i32"
const bitsOf = (floats: Float32Array): Int32Array => new Int32Array(floats.buffer, floats.byteOffset, floats.length)

const argumentsOf = ({ channels, period, times, type, values }: Input): string =>
  [
    type,
    channels,
    values.length / channels,
    times === undefined ? 0 : 1,
    period ?? 0,
    ...(times ?? []),
    ...values
  ].join(" ")

const packed = ({ channels, period, times, type, values }: Input, predictors?: ReadonlyArray<number>): Uint8Array => {
  const options: PackOptions = {
    ...(times !== undefined && { times }),
    ...(period !== undefined && { period }),
    ...(predictors !== undefined && { predictors })
  }
  const block = type === "f32" ?
    packFloats(new Float32Array(values.buffer, values.byteOffset, values.length), channels, options) :
    packCounts(values, channels, options)
  if (isFrameError(block)) throw new Error(block.message)
  return block
}

const cheapPredictors = [0, 4, 13]

/** Where the encoders make other bytes, with all predictors and with three. */
const packingDifference = (inputs: ReadonlyArray<Input>): string | undefined => {
  const expectedOf = (predictors?: ReadonlyArray<number>): ReadonlyArray<Expected> =>
    inputs.map((input) => ({
      question: `block ${argumentsOf(input)}`,
      answer: toHex(packed(input, predictors))
    }))
  return differenceOf(full, expectedOf()) ?? differenceOf(cheap, expectedOf(cheapPredictors))
}

/** What the C decoder says to a block, made by the TypeScript one. */
const unpackedText = (block: Uint8Array, channels: number): string => {
  const result = readBlock(block, channels)
  if (isFrameError(result)) return `error ${result.name === "TooLarge" ? -6 : -4}`
  const { count, exponent, integers, period, times } = result
  return [count, exponent ?? -1, period ?? "-", ...(times ?? []), ...integers].join(" ")
}

const inputOf = ({ channels, input, kind, period, times }: BlockVector): Input => ({
  channels,
  ...(kind === "counts" ?
    { values: Int32Array.from(input, Number), type: typeOf(Int32Array.from(input, Number)) } :
    { values: bitsOf(Float32Array.from(input, Number)), type: "f32" as const }),
  ...(times !== undefined && { times: Int32Array.from(times) }),
  ...(period !== undefined && { period })
})

describe.skipIf(isLeftOut)("golden vectors", () => {
  it("blocks: packed and read as the vectors say", () => {
    assert.isUndefined(differenceOf(
      full,
      blockVectors.flatMap((vector) => [
        { question: `block ${argumentsOf(inputOf(vector))}`, answer: vector.hex },
        {
          question: `unpack ${vector.channels} ${vector.hex}`,
          answer: unpackedText(fromHex(vector.hex), vector.channels)
        }
      ])
    ))
  })

  it("frames to the server: made as the vectors say", () => {
    const block = `i16 3 1 0 0 1 -2 16384`
    const questions: Readonly<Record<string, string>> = {
      hello: "hello AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8 0123456789abcdef 0",
      "hello without a key": "hello - #123456 12001",
      samples: `samples 12000 120000000 ${block}`,
      "samples without a clock": `samples 0 - ${block}`,
      end: "end 12001",
      time: "time 120000000"
    }
    const vectors = frameVectors.filter(({ reader }) => reader === "device")
    assert.sameMembers(vectors.map(({ title }) => title), Object.keys(questions))
    assert.isUndefined(
      differenceOf(full, vectors.map(({ hex, title }) => ({ question: questions[title]!, answer: hex })))
    )
  })

  it("frames of the server: read as TypeScript reads them", () => {
    const vectors = frameVectors.filter(({ reader }) => reader === "server")
    assert.isAtLeast(vectors.length, 6)
    assert.isUndefined(
      differenceOf(full, vectors.map(({ hex }) => ({ question: `read ${hex}`, answer: readText(fromHex(hex)) })))
    )
  })
})

/** Numbers at the edges of their forms. */
const edges = [
  0,
  1,
  127,
  128,
  255,
  256,
  65_535,
  65_536,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 1,
  2 ** 32,
  2 ** 33 + 5,
  2 ** 53 - 2,
  2 ** 53 - 1
]

describe.skipIf(isLeftOut)("frames to the server", () => {
  const one: Input = { type: "i16", channels: 3, values: Int32Array.of(1, -2, 16384) }

  it("have the bytes of TypeScript at every size of a number", () => {
    const boots = [Uint8Array.of(7), Uint8Array.from({ length: 16 }, (_, i) => i * 16)]
    assert.isUndefined(differenceOf(
      full,
      edges.flatMap((n) => [
        { question: `end ${n}`, answer: toHex(encodeEnd(n)) },
        { question: `time ${n}`, answer: toHex(encodeTime(n)) },
        { question: `hello - #${n} ${n}`, answer: toHex(encodeHello({ bootId: n, next: n })) },
        ...boots.map((bootId) => ({
          question: `hello ${"k".repeat(Math.min(n + 1, 128))} ${toHex(bootId)} ${n}`,
          answer: toHex(encodeHello({ key: "k".repeat(Math.min(n + 1, 128)), bootId, next: n }))
        })),
        ...(n === 2 ** 53 - 1 ? [] : [undefined, n].map((t0) => ({
          question: `samples ${n} ${t0 ?? "-"} ${argumentsOf(one)}`,
          answer: toHex(encodeSamples(n, t0, packed(one)))
        })))
      ])
    ))
  })

  it("have the bytes of TypeScript around blocks of every size", () => {
    const noise = makeNoise(1)
    const inputs = [1, 60, 62, 63, 64, 65, 500, 4096].map((count): Input => ({
      type: "i32",
      channels: 1,
      values: Int32Array.from({ length: count }, noise)
    }))
    assert.isUndefined(differenceOf(
      full,
      inputs.map((input) => ({
        question: `samples 70000 5000000000 ${argumentsOf(input)}`,
        answer: toHex(encodeSamples(70_000, 5_000_000_000, packed(input)))
      }))
    ))
  })

  it("are refused by number when nothing can say them", () => {
    const wide: Input = { type: "i32", channels: 16, values: Int32Array.from({ length: 16 * 1100 }, makeNoise(2)) }
    assert.isUndefined(differenceOf(full, [
      { question: "end 9007199254740992", answer: "error -2" },
      { question: "time 9007199254740992", answer: "error -2" },
      { question: "hello - #9007199254740992 0", answer: "error -2" },
      { question: "hello - 0102 9007199254740992", answer: "error -2" },
      { question: `hello - ${"00".repeat(17)} 0`, answer: "error -2" },
      { question: "hello -  0", answer: "error -2" },
      { question: `hello ${"k".repeat(129)} 00 0`, answer: "error -2" },
      { question: `samples ${2 ** 53 - 1} - ${argumentsOf(one)}`, answer: "error -2" },
      { question: `samples 0 9007199254740992 ${argumentsOf(one)}`, answer: "error -2" },
      { question: "block i16 3 0 0 0", answer: "error -2" },
      { question: `block i16 1 4097 0 0 ${"1 ".repeat(4096)}1`, answer: "error -2" },
      { question: "block i16 0 1 0 0", answer: "error -2" },
      { question: `block i16 17 1 0 0 ${"1 ".repeat(16)}1`, answer: "error -2" },
      { question: `samples 0 - ${argumentsOf(wide)}`, answer: "error -6" },
      { question: "unpack 0 10017a", answer: "error -2" },
      { question: "unpack 17 10017a", answer: "error -2" }
    ]))
  })
})

/** Deterministic 32-bit noise. */
const makeNoise = (seed: number): () => number => {
  let state = seed | 0
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) | 0
    let z = Math.imul(state ^ (state >>> 16), 0x21f0aaad)
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
    return z ^ (z >>> 15)
  }
}

/** Frames of every kind a sensor, a fault or an enemy could make. */
const makeInputs = (seed: number, wanted: number): ReadonlyArray<Input> => {
  const noise = makeNoise(seed)
  const below = (end: number): number => (noise() >>> 0) % end
  const unit = (): number => (noise() >>> 0) / 2 ** 32
  const pick = <A>(all: ReadonlyArray<A>): A => all[below(all.length)]!

  const counts = (count: number, channels: number): Int32Array => {
    const values = new Int32Array(count * channels)
    const kind = below(9)
    const drop = below(33)
    const shift = below(32)
    const low = noise() & ((1 << shift) - 1)
    const scale = 2 ** (30 * unit())
    for (let c = 0; c < channels; c++) {
      let [y, slope] = [noise() >> below(32), 0]
      const period = 2 + 40 * unit()
      for (let i = 0; i < count; i++) {
        const random = drop === 32 ? 0 : noise() >> drop
        slope = (slope + (noise() >> Math.min(31, drop + 1))) | 0
        y = (y + (kind === 1 ? random : slope)) | 0
        const wave = Math.round(scale * Math.sin(i / period))
        values[i * channels + c] = [
          random,
          y,
          y,
          wave + (random >> 20),
          below(40) === 0 ? noise() : random >> 8,
          pick([0x7fffffff, -0x80000000, 0, -1, 1]),
          (random << shift) | low,
          noise() << shift,
          below(30) < 29 ? 0 : random
        ][kind]!
      }
    }
    return values
  }

  const floats = (count: number, channels: number): Int32Array => {
    const kind = below(8)
    const places = 1 + below(9)
    const binary = below(40)
    const size = 10 ** below(10)
    const values = Float32Array.from({ length: count * channels }, () => {
      const k = Math.round((unit() - 0.5) * size)
      switch (kind) {
        case 0:
          return k / 10 ** places
        case 1:
          return k * 2 ** -binary
        case 2:
          return (unit() - 0.5) * size
        case 3:
          // Decimals of different lengths, and some that are none.
          return below(50) === 0 ? unit() : k / 10 ** below(places + 1)
        case 4:
          return pick([NaN, Infinity, -Infinity, -0, 0, 1.5, 2 ** -149, 3.4028235e38, k])
        case 5:
          return k * 2 ** (below(100) - 60)
        case 6:
          return 2 ** -below(12) * (below(3) - 1)
        default:
          return 0
      }
    })
    const bits = bitsOf(values)
    if (kind === 7) bits.forEach((_, i) => (bits[i] = noise()))
    // One unit of the last place beside a decimal is a decimal no more.
    if (below(6) === 0) bits[below(bits.length)]! += below(3) - 1
    return bits
  }

  return Array.from({ length: wanted }, (): Input => {
    const channels = below(3) > 0 ? 3 : 1 + below(16)
    const count = below(200) === 0 ? 1 + below(1500) : below(10) === 0 ? 1 + below(3) : 1 + below(70)
    const isFloat = below(3) === 0
    const values = isFloat ? floats(count, channels) : counts(count, channels)
    const type = isFloat ? "f32" : below(4) === 0 ? "i32" : typeOf(values)
    if (below(5) > 0) return { type, channels, values }
    const period = pick([0, 1, 10, 10_000, noise() >>> 0])
    const jitter = pick([0, 1, 3, 1000, 2 ** 31])
    const times = Int32Array.from({ length: count }, (_, i) => (Math.imul(i, period) + Math.floor(unit() * jitter)) | 0)
    return { type, channels, values, times, period }
  })
}

/** The period that is taken when none is said. */
const periodOf = (times: Int32Array): number => {
  const block = packCounts(times, 1, { times })
  if (isFrameError(block)) throw new Error(block.message)
  const read = readBlock(block, 1)
  return isFrameError(read) ? -1 : read.period ?? -1
}

describe.skipIf(isLeftOut)("blocks", () => {
  it(`have the bytes of TypeScript: ${framesToTry} random frames`, () => {
    for (let from = 0, seed = 1; from < framesToTry; from += 4000, seed++) {
      const inputs = makeInputs(seed, Math.min(4000, framesToTry - from))
      assert.isUndefined(packingDifference(inputs))
    }
  }, 3_600_000)

  it(`made by C give TypeScript the values back: ${framesToTry} random frames`, () => {
    for (let from = 0, seed = 50_001; from < framesToTry; from += 4000, seed++) {
      const inputs = makeInputs(seed, Math.min(4000, framesToTry - from))
      const answers = ask(full, inputs.map((input) => `block ${argumentsOf(input)}`))
      inputs.forEach(({ channels, period, times, type, values }, i) => {
        const block = readBlock(fromHex(answers[i]!), channels)
        if (isFrameError(block)) return assert.fail(`${block.message}: ${answers[i]}`)
        const { exponent, integers } = block
        const numberOf = (k: number): number => exponent! > 192 ? k / 10 ** (exponent! - 192) : k * 2 ** -exponent!
        const got = type !== "f32" ?
          integers :
          exponent === 255 ?
          integers.map((k) => k ^ ((k >> 31) & 0x7fffffff)) :
          bitsOf(Float32Array.from(integers, numberOf))
        assert.deepStrictEqual(got, values)
        assert.deepStrictEqual(block.times, times)
        assert.strictEqual(block.period, period)
      })
    }
  }, 3_600_000)

  it(`made by TypeScript give C the values back, with any predictors: ${framesToTry} random frames`, () => {
    for (let from = 0, seed = 100_001; from < framesToTry; from += 4000, seed++) {
      const inputs = makeInputs(seed, Math.min(4000, framesToTry - from))
      assert.isUndefined(differenceOf(
        full,
        inputs.map((input, i) => {
          const block = packed(input, [i % 15])
          return { question: `unpack ${input.channels} ${toHex(block)}`, answer: unpackedText(block, input.channels) }
        })
      ))
    }
  }, 3_600_000)

  it("that are damaged are refused or read alike", () => {
    const noise = makeNoise(7)
    const small = makeInputs(8, 60).filter(({ values }) => values.length < 60)
    const blocks = [
      ...blockVectors.map(({ channels, hex }) => ({ channels, bytes: fromHex(hex) })),
      ...small.map((input) => ({ channels: input.channels, bytes: packed(input) }))
    ]
    for (const { bytes, channels } of blocks) {
      const damaged = [
        ...Array.from({ length: Math.min(bytes.length, 60) }, (_, length) => bytes.subarray(0, length)),
        ...Array.from({ length: 400 }, () => {
          const copy = Uint8Array.from(bytes)
          for (let n = (noise() >>> 0) % 3; n >= 0; n--) {
            // Mostly in the first bytes, where what follows is decided.
            const at = (noise() >>> 0) % ((noise() & 1) === 0 ? Math.min(8, copy.length) : copy.length)
            copy[at] = (noise() & 1) === 0 ? noise() & 0xff : copy[at]! ^ (1 << (noise() & 7))
          }
          return (noise() & 7) === 0 ? Uint8Array.of(...copy, noise() & 0xff) : copy
        })
      ].filter(({ length }) => length > 0)
      assert.isUndefined(differenceOf(
        full,
        damaged.map((block) => ({
          question: `unpack ${channels} ${toHex(block)}`,
          answer: unpackedText(block, channels)
        }))
      ))
    }
  }, 300_000)

  it("take the same period when none is said", () => {
    const noise = makeNoise(9)
    const times = Array.from({ length: 300 }, (_, n) => {
      let at = noise() >> (noise() & 31)
      return Int32Array.from({ length: 1 + n % 60 }, () => (at += [0, 10, 11, noise()][noise() & 3]!))
    })
    assert.isUndefined(differenceOf(
      full,
      times.map((times) => ({
        question: `period ${times.length} ${times.join(" ")}`,
        answer: String(periodOf(times))
      }))
    ))
  })
})

describe.skipIf(isLeftOut)("recordings", () => {
  it.each(measuredSizes)(
    "$name: the bytes of TypeScript in frames of 1, 7, 25, 100 and 250",
    ({ recording, toCount }) => {
      const { count, numbers, ticks } = readRecording(recording)
      const values = toCount === undefined ?
        bitsOf(Float32Array.from(numbers)) :
        Int32Array.from(numbers, toCount)
      const type = toCount === undefined ? "f32" : typeOf(values)
      const inputs: Array<Input> = []
      for (const size of [1, 7, 25, 100, 250]) {
        for (let index = 0; index < count; index += size) {
          const next = Math.min(index + size, count)
          const input: Input = { type, channels: 3, values: values.slice(index * 3, next * 3) }
          const timed = ticks !== undefined && size >= 100 && { times: ticksFrom(ticks, index, next), period: 20_000 }
          inputs.push(timed === false ? input : { ...input, ...timed })
        }
      }
      assert.isUndefined(packingDifference(inputs))
    },
    300_000
  )

  it.each(["phone_bmi160_walk_a", "seismic_openeew_b", "imu_xio_float"])("%s: as float32 too", (name) => {
    const { count, numbers } = readRecording(name)
    const values = bitsOf(Float32Array.from(numbers))
    const inputs: Array<Input> = []
    for (const size of [1, 25, 100]) {
      for (let index = 0; index < count; index += size) {
        inputs.push({ type: "f32", channels: 3, values: values.slice(index * 3, Math.min(index + size, count) * 3) })
      }
    }
    assert.isUndefined(packingDifference(inputs))
  }, 300_000)
})

const ticksFrom = (ticks: Float64Array, from: number, to: number): Int32Array =>
  Int32Array.from(ticks.subarray(from, to), (tick) => tick - ticks[from]!)

/** C keeps some numbers in 32 bits, bounded. */
const narrow = (n: number): number => Math.min(n, 2 ** 32 - 2)

/** What the C reader says to a message, made by the TypeScript one. */
const readText = (bytes: Uint8Array): string => {
  const frame = readServerFrame(bytes)
  if (isFrameError(frame)) return "error -3"
  switch (frame.kind) {
    case kinds.welcome:
      return [
        frame.kind,
        narrow(frame.version),
        frame.epoch,
        frame.next,
        narrow(frame.window),
        frame.server,
        frame.sure
      ].join(" ")
    case kinds.ack:
      return [frame.kind, frame.received, frame.durable, narrow(frame.window)].join(" ")
    case kinds.rewind:
      return `${frame.kind} ${frame.next}`
    case kinds.time:
      return `${frame.kind} ${frame.device} ${frame.server ?? "-"}`
    case kinds.error: {
      const retryAfter = frame.retryAfter === undefined ? "-" : narrow(frame.retryAfter)
      return `${frame.kind} ${narrow(frame.code)} ${retryAfter} ${Buffer.from(frame.text).toString("hex")}`
    }
    default:
      return frame satisfies never
  }
}

describe.skipIf(isLeftOut)("frames of the server", () => {
  const seeds = [
    ...frameVectors.filter(({ reader }) => reader === "server").map(({ hex }) => hex),
    // Numbers of every form: fixint, uint, int, float 32 and 64; a float that is no integer; elements to be ignored.
    "9611cc0bcd000bce0000000b0102",
    "94cf11",
    "9411cf000000000000000bd00bd1000b",
    "9411d20000000bd3000000000000000bca41300000",
    "9411cb4026000000000000ca4b000001cb433fffffffffffff",
    "9411cb4026800000000000ca0000000080",
    "9411cb80000000000000000001",
    "dc0004110b0a09",
    "dd00000004110b0a09",
    "9711010203930192a161c40201ffd9026869",
    "9811010203c0c3ca3f80000091919191919191919100",
    "991001000507cb4030000000000000c292c08101c3",
    "9204cf001fffffffffffff",
    "9204cf0020000000000000",
    "9504 00c0a3e282acc6000000017f",
    "9613cd0fa1da0003c3a921cd03e890a3616263",
    "9413cd0fa1db00000004f09f9982c0"
  ].map((hex) => hex.replaceAll(" ", ""))

  it("are read or refused as TypeScript does: every byte changed, every end cut off", () => {
    const expected: Array<{ readonly question: string; readonly answer: string }> = []
    const add = (bytes: Uint8Array): void => {
      if (bytes.length > 0) expected.push({ question: `read ${toHex(bytes)}`, answer: readText(bytes) })
    }
    for (const hex of seeds) {
      const bytes = fromHex(hex)
      add(bytes)
      for (let length = 0; length < bytes.length; length++) add(bytes.slice(0, length))
      for (const more of [0, 0xc0, 0xc1, 0xff]) add(Uint8Array.of(...bytes, more))
      for (let at = 0; at < bytes.length; at++) {
        for (let byte = 0; byte < 256; byte++) add(bytes.with(at, byte))
      }
    }
    const accepted = expected.filter(({ answer }) => !answer.startsWith("error")).length
    assert.isAtLeast(accepted, 1000)
    assert.isUndefined(differenceOf(full, expected))
  }, 300_000)

  it("say when to come back as the table of codes does", () => {
    const answers = { now: 1, later: 2, never: 3 }
    const codes = [0, 1001, 1006, 1011, 1012, ...Array.from({ length: 220 }, (_, i) => 3990 + i)]
    assert.isUndefined(differenceOf(full, [
      ...codes.map((code) => ({ question: `close ${code} 0`, answer: String(answers[comeBack(code)]) })),
      { question: "close 1000 0", answer: "0" },
      { question: "close 1009 0", answer: "3" },
      // The end was heard, or has to be said again.
      { question: "close 4005 1", answer: "0" },
      { question: "close 4013 1", answer: "1" },
      { question: "close 4003 1", answer: "3" }
    ]))
  })
})

describe.skipIf(isLeftOut)("the ring", () => {
  const seeds = Array.from({ length: seedsToTry }, (_, i) => i + 1)

  it(`holds what a list would hold: ${seedsToTry} seeds`, () => {
    const said = ask(full, seeds.map((seed) => `model ${seed} 10000`))
    said.forEach((answer) => assert.match(answer, /^ok /))
    assert.isTrue(said.some((answer) => !answer.includes(" 0 dropped")))
  }, 600_000)

  it(`brings every sample through cuts, crashes and rewinds, or counts it as dropped: ${seedsToTry} seeds`, () => {
    const said = ask(full, seeds.map((seed) => `stream ${seed} 1000`))
    said.forEach((answer) => assert.match(answer, /^ok /))
    assert.isTrue(said.some((answer) => / [1-9]\d* cuts, .* [1-9]\d* rewinds, [1-9].* 0 samples dropped/.test(answer)))
  }, 600_000)
})

/** A WebSocket frame as a server sends it. */
const frame = (opcode: number, payload: Uint8Array, isLast = true): Uint8Array =>
  Uint8Array.of((isLast ? 0x80 : 0) | opcode, payload.length, ...payload)

/** Bytes of a response's head. */
const sizeOf = (lines: ReadonlyArray<string>): number => lines.join("\r\n").length + 4

describe.skipIf(isLeftOut)("the WebSocket", () => {
  const noise = makeNoise(11)
  const below = (end: number): number => (noise() >>> 0) % end
  const some = (length: number): Uint8Array => Uint8Array.from({ length }, noise)

  it("hears messages in pieces, with pings between the pieces", () => {
    assert.isUndefined(differenceOf(
      full,
      Array.from({ length: 300 }, () => {
        const [bytes, answer]: [Array<number>, string] = [[], "fed"]
        let said = answer
        for (let i = below(20); i >= 0; i--) {
          const message = some(below(126))
          const cuts = Array.from({ length: below(4) }, () => below(message.length + 1)).toSorted((a, b) => a - b)
          ;[...cuts, message.length].forEach((end, n) => {
            bytes.push(...frame(n === 0 ? 2 : 0, message.subarray(n === 0 ? 0 : cuts[n - 1]!, end), n === cuts.length))
            if (n === cuts.length || below(3) > 0) return
            const ping = some(below(126))
            bytes.push(...frame(9, ping))
            said += ` ping:${toHex(ping)}`
          })
          said += ` message:${toHex(message)}`
        }
        if (below(2) === 0) {
          bytes.push(...frame(8, Uint8Array.of(15, 163, 65)))
          said += " close:4003"
        }
        return { question: `feed ${toHex(Uint8Array.from(bytes))}`, answer: said }
      })
    ))
  })

  it("refuses what no Thrum server sends, and stays within its buffers whatever comes", () => {
    const zeros = "00".repeat(125)
    assert.isUndefined(differenceOf(full, [
      { question: "feed 8801", answer: "fed" },
      { question: "feed 880100", answer: "fed bad" },
      { question: "feed 8800", answer: "fed close:1005" },
      { question: "feed 8101", answer: "fed bad" },
      { question: "feed c200", answer: "fed bad" },
      { question: "feed 8000", answer: "fed bad" },
      { question: "feed 827e", answer: "fed bad" },
      { question: "feed 8281", answer: "fed bad" },
      { question: "feed 0900", answer: "fed bad" },
      { question: "feed 8b00", answer: "fed bad" },
      { question: `feed 027d${zeros}8000`, answer: `fed message:${zeros}` },
      { question: `feed 027d${zeros}8001`, answer: "fed bad" },
      { question: "feed 02008200", answer: "fed bad" }
    ]))
    const answers = ask(
      full,
      Array.from({ length: 5000 }, () => {
        const bytes = some(1 + below(400))
        // Most bytes are refused at once: begin with what is not.
        for (let at = 0; at < bytes.length; at += 2 + bytes[at + 1]!) {
          bytes[at] = [0x82, 0x02, 0x00, 0x80, 0x89, 0x8a][below(6)]!
          bytes[at + 1] = below(126)
        }
        return `feed ${toHex(bytes)}`
      })
    )
    answers.forEach((answer) => assert.match(answer, /^fed/))
  })

  it("takes the answer to its own request, and no other", () => {
    // The example of RFC 6455.
    const nonce = toHex(Buffer.from("the sample nonce"))
    const accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    const lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", `sec-websocket-accept:  ${accept} `]
    const thrum = "Sec-WebSocket-Protocol: thrum.v1"
    const asked = (lines: ReadonlyArray<string>): string =>
      `accept ${nonce} ${Buffer.from(`${lines.join("\r\n")}\r\n\r\nbytes after`).toString("hex")}`
    const other = [...lines.slice(0, 2), `Sec-WebSocket-Accept: ${accept}=`, thrum]
    const all = [...lines, `X-Long: ${"x".repeat(3000)}`, thrum]
    assert.isUndefined(differenceOf(full, [
      { question: asked(all), answer: `1 after ${sizeOf(all)}` },
      { question: asked(lines), answer: `-1 after ${sizeOf(lines)}` },
      { question: asked([lines[0]!, thrum]), answer: `-1 after ${sizeOf([lines[0]!, thrum])}` },
      { question: asked(other), answer: `-1 after ${sizeOf(other)}` },
      { question: asked(["HTTP/1.1 404 Not Found", "a: b"]), answer: "-404 after 32" },
      { question: asked(["HTTP/1.1 x"]), answer: "-1 after 12" },
      {
        question: asked([...lines, ...Array.from({ length: 200 }, () => "x: yyyyyyyyyyyyyyyyyyyyy")]),
        answer: "-1 after 4097"
      },
      { question: `accept ${nonce} 4854`, answer: "0 after 2" }
    ]))
  })
})

describe.skipIf(isLeftOut)("thrum.h", () => {
  it("compiles without a warning by every compiler that is here, as C99 and as C++", () => {
    const asC = [...strict, "-Wconversion", "-Wshadow", "-fsyntax-only", "-Itest"]
    for (const name of ["gcc", "clang"].filter(has)) {
      for (
        const flags of [[], ["-DTHRUM_PREDICTORS_CHEAP"], ["-DTHRUM_DECODER"], [
          "-DTHRUM_API=static",
          "-Wno-unused-function"
        ]]
      ) {
        const { status, stderr } = run(name, [...asC, ...flags, "-x", "c", "-DTHRUM_IMPLEMENTATION", "thrum.h"])
        assert.strictEqual(status, 0, `${name} ${flags.join(" ")}: ${stderr}`)
      }
    }
    for (const name of ["g++", "clang++"].filter(has)) {
      const flags = ["-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-DTHRUM_DECODER"]
      const { status, stderr } = run(name, [...flags, "-x", "c++", "-DTHRUM_IMPLEMENTATION", "thrum.h"])
      assert.strictEqual(status, 0, `${name}: ${stderr}`)
    }
    assert.isDefined(compiler)
  }, 120_000)

  it.skipIf(!has("arm-none-eabi-gcc"))("fits a Cortex-M0", () => {
    const { status, stdout, stderr } = run("sh", ["size.sh"])
    assert.strictEqual(status, 0, stderr)
    process.stdout.write(stdout)
    const bytesOf = (name: string): number => Number(new RegExp(`^${name} +(\\d+)`, "m").exec(stdout)?.[1])
    assert.isBelow(bytesOf("encoder, three predictors"), 4096)
    assert.isBelow(bytesOf("all of it"), 12_288)
  }, 120_000)
})
