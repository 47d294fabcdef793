import * as fc from "fast-check"
import { Packr } from "msgpackr/pack"
import { readFileSync } from "node:fs"
import { assert, describe, it } from "vitest"
import { type CodeName, codes } from "./Codes.ts"
import {
  cutText,
  type DeviceFrame,
  encodeAck,
  encodeCaughtUp,
  encodeDurable,
  encodeEnd,
  encodeEnded,
  encodeEpoch,
  encodeError,
  encodeGap,
  encodeHello,
  encodeRewind,
  encodeSamples,
  encodeTime,
  encodeViewerWelcome,
  encodeWelcome,
  fitsIndex,
  kindOf,
  kinds,
  protocolVersion,
  readDeviceFrame,
  readSamples,
  readServerFrame,
  readViewerFrame,
  sampleCount,
  type Samples
} from "./Frame.ts"
import { FrameError, isFrameError } from "./FrameError.ts"
import { protocolLimits } from "./Limits.ts"
import { epochMax, indexMax, type Position } from "./Position.ts"
import { cutFrames } from "./Scan.ts"
import type { SessionInfo } from "./Session.ts"

/** Bytes written by hand from the msgpack specification, and what they say. Bytes stand in hexadecimal. */
interface Vector {
  readonly title: string
  readonly reader: keyof typeof readers
  readonly hex: string
  readonly frame: { readonly kind: number; readonly [field: string]: unknown }
}

const readers = { device: readDeviceFrame, server: readServerFrame, viewer: readViewerFrame }
const vectors: ReadonlyArray<Vector> = JSON.parse(
  readFileSync(new URL("../../../test/vectors/frames.json", import.meta.url), "utf8")
)

const fromHex = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex.replaceAll(" ", ""), "hex"))
/** Words apart. */
const list = (text: string): ReadonlyArray<string> => text.trim().split(/\s+/)
const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
const textHex = (text: string): string => Buffer.from(text, "utf8").toString("hex")
const utf8Length = (text: string): number => new TextEncoder().encode(text).length
const bytesOf = ({ hex }: Vector): Uint8Array => fromHex(hex)
const vector = (title: string): Vector => vectors.find((one) => one.title === title)!

const isCodeName = (text: string): text is CodeName => text in codes
const codeNames = Object.keys(codes).filter(isCodeName)

/** A read frame as vectors write it: bytes in hexadecimal, nothing undefined. */
const plain = (frame: unknown): unknown =>
  JSON.parse(JSON.stringify(frame, (_, value) => value instanceof Uint8Array ? toHex(value) : value))

const unwrap = <A>(result: A | FrameError): A => {
  if (isFrameError(result)) throw new Error(result.message)
  return result
}

/** An error as a peer gets it; fails for anything else, and for a message that is no sentence of ours. */
const errorOf = (result: unknown, about = ""): FrameError => {
  assert(result instanceof FrameError, `expected an error, got ${JSON.stringify(result)} ${about}`)
  assert.match(result.message, /^Cannot [^:]+: .*[^.]$/su, about)
  return result
}
const nameOf = (result: unknown, about = ""): CodeName => errorOf(result, about).name

/** What each reader makes of any bytes: a frame or a sentence, never an exception. */
const readAll = (bytes: Uint8Array): ReadonlyArray<unknown> =>
  [readDeviceFrame, readServerFrame, readViewerFrame, readSamples].map((read) => {
    const result = read(bytes)
    if (isFrameError(result)) errorOf(result, toHex(bytes.subarray(0, 80)))
    return result
  })

const at = (index: number, epoch = 0): Position => ({ epoch, index })
/** `inner` in `levels` arrays. */
const nest = (levels: number, inner = "00"): string => "91".repeat(levels) + inner
const readSamplesHex = (hex: string): Samples | FrameError => readSamples(fromHex(hex))
const readHello = (hex: string): DeviceFrame | FrameError => readDeviceFrame(fromHex(hex))

interface HelloHex {
  readonly version?: string
  readonly key?: string
  readonly boot?: string
  readonly next?: string
}
const readHelloOf = ({ boot = "05", key = "c0", next = "00", version = "01" }: HelloHex): DeviceFrame | FrameError =>
  readHello(`9501${version}${key}${boot}${next}`)
const bootOf = (boot: string): string | undefined => {
  const frame = unwrap(readHelloOf({ boot }))
  return frame.kind === kinds.hello ? frame.bootId : undefined
}
/** str 16 of these bytes. */
const text16 = (bytes: string): string => `da${(bytes.length / 2).toString(16).padStart(4, "0")}${bytes}`

/** What `read` makes of what `write` wrote that is not as expected, with the value it happened with. */
const differenceOf = <A>(
  values: fc.Arbitrary<A>,
  write: (value: A) => Uint8Array,
  read: (bytes: Uint8Array) => unknown,
  expected: (value: A) => unknown
): string | undefined => {
  const details = fc.check(fc.property(values, (value) => assert.deepStrictEqual(read(write(value)), expected(value))))
  return details.failed ? fc.defaultReportMessage(details) : undefined
}

const index = fc.oneof(
  fc.maxSafeNat(),
  fc.nat(300),
  fc.constantFrom(0, 127, 128, 255, 256, 65_535, 65_536, 2 ** 32 - 1, 2 ** 32, indexMax)
)
const epoch = fc.oneof(fc.nat(300), fc.integer({ min: 0, max: epochMax }))
const window = fc.nat(2 ** 32 - 1)
const position: fc.Arbitrary<Position> = fc.record({ epoch, index })
const wellFormed = fc.string({ unit: "binary", maxLength: 60 })
const anyText = fc.oneof(
  fc.string({ unit: "binary", maxLength: 200 }),
  fc.array(fc.nat(0xffff), { maxLength: 200 }).map((units) => String.fromCharCode(...units)),
  fc.array(fc.constantFrom("a", "é", "€", "😀", "\ud800", "\udc00", "\0"), { maxLength: 200 }).map((parts) =>
    parts.join("")
  )
)
const number = fc.double({ noNaN: true, noDefaultInfinity: true }).map((v) => v + 0)
const channel = fc.record({ name: wellFormed, unit: wellFormed, scale: number, offset: number })
const session: fc.Arbitrary<SessionInfo> = fc.record({
  id: fc.uuid(),
  channels: fc.array(channel, { minLength: 1, maxLength: 16 }),
  rate: number,
  tick: number,
  name: wellFormed,
  sensor: wellFormed,
  gravity: fc.boolean(),
  state: fc.constantFrom("live", "ended"),
  createdAt: fc.constant("2026-01-01T00:00:00.000Z")
}, { requiredKeys: ["id", "channels", "rate", "tick", "state", "createdAt"] })

describe("golden frames", () => {
  for (const one of vectors) {
    it(`reads "${one.title}"`, () => {
      assert.strictEqual(kindOf(bytesOf(one)), one.frame.kind)
      assert.deepStrictEqual(plain(unwrap(readers[one.reader](bytesOf(one)))), one.frame)
    })
  }

  it("writes each of them byte for byte", () => {
    const server = 1_767_225_600_000_000
    const block = fromHex("10017a000120001a400000")
    const { key } = vector("hello").frame
    assert(typeof key === "string")
    const written: Record<string, Uint8Array> = {
      "hello": encodeHello({ key, bootId: fromHex("0123456789abcdef"), next: 0 }),
      "hello without a key": encodeHello({ bootId: 123_456, next: 12_001 }),
      "samples": encodeSamples(12_000, 120_000_000, block),
      "samples without a clock": encodeSamples(0, undefined, block),
      "end": encodeEnd(12_001),
      "time": encodeTime(120_000_000),
      "time answered": encodeTime(120_000_000, server),
      "welcome": encodeWelcome({ epoch: 0, next: 12_001, window: 262_144, server, sure: true }),
      "ack": encodeAck({ received: 12_001, durable: 11_900, window: 262_144 }),
      "rewind": encodeRewind(11_900),
      "error, never": encodeError("KeyRefused", "Cannot write: the ingest key does not open it"),
      "error, later": encodeError("ArchiveUnavailable", "The database cannot be reached.", 1000),
      "viewer's welcome": encodeViewerWelcome({
        createdAt: "2026-01-01T00:00:00.000Z",
        state: "live",
        tick: 1,
        rate: 100,
        channels: [{ offset: 0, scale: 2 ** -9, unit: "m/s²", name: "x" }],
        id: "7f9c2ba4-e88f-4827-a160-4550765c8d16"
      }, at(11_900)),
      "epoch": encodeEpoch({ epoch: 0, t0: 1_000_000, wall: server, index: 0 }),
      "durable": encodeDurable(at(11_900)),
      "gap": encodeGap({ from: at(12_001), to: at(12_800), reason: "device" }),
      "caught-up": encodeCaughtUp(at(12_001)),
      "ended": encodeEnded(at(400, 1))
    }
    assert.deepStrictEqual(
      Object.entries(written).map(([title, bytes]) => ({ title, hex: toHex(bytes) })),
      vectors.map(({ hex, title }) => ({ title, hex }))
    )
  })

  it("there is one of every kind", () => {
    const seen = new Set(vectors.map(({ frame }) => frame.kind))
    assert.deepStrictEqual(Object.values(kinds).filter((kind) => !seen.has(kind)), [])
  })
})

describe("what is written is read back the same", () => {
  it("hello", () => {
    const bytes = fc.uint8Array({ minLength: 1, maxLength: 16 })
    const key = fc.option(fc.string({ maxLength: 128 }), { nil: undefined })
    assert.isUndefined(differenceOf(
      fc.record({ key, bootId: fc.oneof(index, bytes), next: index }),
      encodeHello,
      readDeviceFrame,
      ({ bootId, key, next }) => ({
        kind: kinds.hello,
        version: protocolVersion,
        key,
        bootId: typeof bootId === "number" ? String(bootId) : `x${toHex(bootId)}`,
        next
      })
    ))
  })

  it("samples, in place", () => {
    const block = fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc.constantFrom(255, 256, 257, 65_000).map((length) => new Uint8Array(length).fill(7))
    )
    fc.assert(fc.property(index, fc.option(index, { nil: undefined }), block, (at, t0, packed) => {
      const bytes = encodeSamples(at, t0, packed)
      for (const read of [readSamples, readDeviceFrame, readViewerFrame]) {
        const frame = read(bytes)
        assert.deepStrictEqual(frame, { kind: kinds.samples, index: at, t0, block: packed })
        assert.strictEqual("block" in frame && frame.block.buffer, bytes.buffer)
      }
    }))
  })

  it("samples from the middle of a larger buffer", () => {
    const message = encodeSamples(300, 2 ** 40, Uint8Array.of(1, 2, 3))
    const buffer = new Uint8Array(100).fill(0xff)
    buffer.set(message, 33)
    const frame = unwrap(readSamples(buffer.subarray(33, 33 + message.length)))
    assert.deepStrictEqual([frame.index, frame.t0, [...frame.block]], [300, 2 ** 40, [1, 2, 3]])
  })

  it("end, time, welcome, ack, rewind", () => {
    assert.isUndefined(differenceOf(index, encodeEnd, readDeviceFrame, (at) => ({ kind: kinds.end, index: at })))
    assert.isUndefined(
      differenceOf(index, encodeTime, readDeviceFrame, (device) => ({ kind: kinds.time, device, server: undefined }))
    )
    for (const read of [readServerFrame, readViewerFrame]) {
      assert.isUndefined(differenceOf(
        fc.record({ device: index, server: fc.option(index, { nil: undefined }) }),
        ({ device, server }) => encodeTime(device, server),
        read,
        (time) => ({ kind: kinds.time, ...time })
      ))
    }
    assert.isUndefined(differenceOf(
      fc.record({ epoch, next: index, window, server: index, sure: fc.boolean() }),
      encodeWelcome,
      readServerFrame,
      (welcome) => ({ kind: kinds.welcome, version: protocolVersion, ...welcome })
    ))
    assert.isUndefined(differenceOf(
      fc.record({ received: index, durable: index, window }),
      encodeAck,
      readServerFrame,
      (ack) => ({ kind: kinds.ack, ...ack })
    ))
    assert.isUndefined(differenceOf(index, encodeRewind, readServerFrame, (next) => ({ kind: kinds.rewind, next })))
  })

  it("error, to devices and viewers", () => {
    const name = fc.constantFrom(...codeNames)
    const short = fc.string({ unit: "binary", maxLength: 26 })
    for (const read of [readServerFrame, readViewerFrame]) {
      assert.isUndefined(differenceOf(
        fc.record({ name, text: short, retryAfter: fc.option(fc.nat(), { nil: undefined }) }),
        ({ name, retryAfter, text }) => encodeError(name, text, retryAfter),
        read,
        ({ name, retryAfter, text }) => ({ kind: kinds.error, code: codes[name].code, text, retryAfter })
      ))
    }
  })

  it("welcome, epoch, durable, gap, caught-up, ended", () => {
    assert.isUndefined(differenceOf(
      fc.record({ session, from: position }),
      ({ from, session }) => encodeViewerWelcome(session, from),
      readViewerFrame,
      (welcome) => ({ kind: kinds.viewerWelcome, version: protocolVersion, ...welcome })
    ))
    assert.isUndefined(differenceOf(
      fc.record({ epoch, t0: fc.option(index, { nil: undefined }), wall: index, index }),
      encodeEpoch,
      readViewerFrame,
      (e) => ({ kind: kinds.epoch, ...e })
    ))
    assert.isUndefined(differenceOf(
      fc.record({ from: position, to: position, reason: fc.constantFrom("device", "skipped", "lost") }),
      encodeGap,
      readViewerFrame,
      (gap) => ({ kind: kinds.gap, ...gap })
    ))
    assert.isUndefined(
      differenceOf(position, encodeDurable, readViewerFrame, (at) => ({ kind: kinds.durable, position: at }))
    )
    assert.isUndefined(
      differenceOf(position, encodeCaughtUp, readViewerFrame, (at) => ({ kind: kinds.caughtUp, position: at }))
    )
    assert.isUndefined(
      differenceOf(position, encodeEnded, readViewerFrame, (at) => ({ kind: kinds.ended, position: at }))
    )
  })

  it("frames that were written are not changed by those written later", () => {
    const first = encodeAck({ received: 1, durable: 1, window: 1 })
    const before = toHex(first)
    for (let i = 0; i < 5000; i++) encodeAck({ received: i, durable: i, window: i })
    assert.strictEqual(toHex(first), before)
    assert.strictEqual(first.byteLength, first.buffer.byteLength)
  })
})

describe("a samples frame", () => {
  const block = "c40b10017a000120001a400000"
  const read = readSamplesHex
  const wholes: ReadonlyArray<readonly [hex: string, value: number]> = [
    ["00", 0],
    ["7f", 127],
    ["cc05", 5],
    ["ccff", 255],
    ["cd0005", 5],
    ["cdffff", 65_535],
    ["ce00000005", 5],
    ["ceffffffff", 2 ** 32 - 1],
    ["cf0000000000000005", 5],
    ["cf001fffffffffffff", indexMax],
    ["d005", 5],
    ["d10005", 5],
    ["d200000005", 5],
    ["d30000000000000005", 5],
    ["d3001fffffffffffff", indexMax],
    ["ca40a00000", 5],
    ["cb4014000000000000", 5],
    ["cb433fffffffffffff", indexMax],
    ["ca00000000", 0],
    ["cb8000000000000000", 0]
  ]
  const others = list(`
    ff d0ff d1ffff d2ffffffff d3ffffffffffffffff cf0020000000000000 ca3f000000 cb3fe0000000000000 cb7ff8000000000000
    ca7f800000 c2 c3 a135 c40105 9105 8105c0 c1 d40105
  `)

  it("has its index and t0 in any form of msgpack that holds a whole number", () => {
    for (const [hex, value] of wholes) {
      const bare = unwrap(read(`9402${hex}c0${block}`))
      assert.deepStrictEqual([bare.index, bare.t0], [value, undefined], hex)
      for (const [t0Hex, t0] of wholes) {
        const frame = unwrap(read(`9402${hex}${t0Hex}${block}`))
        assert.deepStrictEqual(
          [frame.index, frame.t0, toHex(frame.block)],
          [value, t0, block.slice(4)],
          `${hex} ${t0Hex}`
        )
      }
    }
  })

  it("is refused with any other index or t0", () => {
    for (const hex of [...others, "c0"]) assert.strictEqual(nameOf(read(`9402${hex}c0${block}`), hex), "BadFrame")
    for (const hex of others) assert.strictEqual(nameOf(read(`940200${hex}${block}`), hex), "BadFrame")
  })

  it("has its block as bin 8, 16 or 32, and as nothing else", () => {
    const bytes = block.slice(4)
    for (const lead of ["c40b", "c5000b", "c60000000b"]) {
      assert.strictEqual(toHex(unwrap(read(`940200c0${lead}${bytes}`)).block), bytes, lead)
    }
    assert.strictEqual(unwrap(read("940200c0c400")).block.length, 0)
    for (const other of ["c0", "00", `ab${textHex("hello world")}`, "9101", "80", `d90b${bytes}`, `c70b01${bytes}`]) {
      assert.strictEqual(nameOf(read(`940200c0${other}`), other), "BadFrame")
    }
  })

  it("may begin as any form of array", () => {
    for (const lead of ["94", "dc0004", "dd00000004"]) {
      assert.strictEqual(kindOf(fromHex(`${lead}0205c0${block}`)), kinds.samples)
      assert.strictEqual(unwrap(read(`${lead}0205c0${block}`)).index, 5, lead)
    }
  })

  it("is refused when it is short of an element, of another kind, or no array", () => {
    for (
      const hex of [
        "",
        "90",
        "91",
        "9102",
        "920200",
        "930200c0",
        `930200c0${block}`,
        `940300c0${block}`,
        `94cc0200c0${block}`,
        `84020001c0${block}`,
        "dc",
        "dc00",
        "dc0004",
        "dc000402",
        "dd",
        "dd000000",
        "dd0000000402",
        `dc00030200c0${block}`,
        `02`,
        "c1",
        "a2"
      ]
    ) {
      assert.strictEqual(nameOf(read(hex), hex), "BadFrame")
    }
  })

  it("may hold more elements, of any plain kind and eight levels deep, which are ignored", () => {
    const extras = [
      "00",
      "c0",
      "ff",
      "c3",
      "cb7ff8000000000000",
      `a3${textHex("abc")}`,
      "c403010203",
      "90",
      "8201c0a16190",
      nest(8),
      nest(7, "90")
    ]
    for (const extra of extras) {
      const frame = unwrap(read(`950205c0${block}${extra}`))
      assert.deepStrictEqual([frame.index, toHex(frame.block)], [5, block.slice(4)], extra)
    }
    const all = unwrap(read(`9f0205c0${block}${extras.join("")}`))
    assert.strictEqual(all.index, 5)
    const many = unwrap(read(`dc03ec0205c0${block}${"c0".repeat(1000)}`))
    assert.strictEqual(toHex(many.block), block.slice(4))
  })

  it("is refused with elements that go nine levels deep, are cut short, no text, reserved or extensions", () => {
    for (
      const extra of [
        nest(9),
        nest(8, "90"),
        nest(8, "80"),
        "",
        "c1",
        "d40100",
        "c70100aa",
        "a161".slice(0, 2),
        "a1ff",
        "ddffffffff"
      ]
    ) {
      assert.strictEqual(nameOf(read(`950205c0${block}${extra}`), extra), "BadFrame")
    }
  })

  it("is refused when anything follows it in the same message", () => {
    for (const more of ["00", "c0", vector("samples").hex]) {
      assert.match(errorOf(read(`940200c0${block}${more}`)).message, /bytes follow it in the same message$/)
    }
  })

  it("is refused when its block says it is longer than the message", () => {
    for (const lead of ["c40c", "c5ffff", "c6ffffffff", "c6", "c600", "c5", "c4"]) {
      assert.strictEqual(nameOf(read(`940200c0${lead}${block.slice(4)}`), lead), "BadFrame")
    }
  })

  it("of the largest size is read, and refused with one byte more", () => {
    const limit = protocolLimits.messageBytesMax.value
    const largest = encodeSamples(0, undefined, new Uint8Array(limit - 7))
    assert.strictEqual(largest.length, limit)
    assert.strictEqual(unwrap(readSamples(largest)).block.length, limit - 7)
    const larger = encodeSamples(0, undefined, new Uint8Array(limit - 6))
    assert.strictEqual(larger.length, limit + 1)
    assert.strictEqual(
      errorOf(readSamples(larger)).message,
      "Cannot read the frame: it has 65537 bytes, the limit is 65536"
    )
    assert.strictEqual(nameOf(readSamples(larger)), "TooLarge")
  })

  it("knows whether it ends in the range of indexes, and how many samples its block says it has", () => {
    assert.isTrue(fitsIndex(indexMax - 4096, 4096))
    assert.isFalse(fitsIndex(indexMax - 4095, 4096))
    assert.strictEqual(sampleCount(fromHex("100100")), 1)
    assert.strictEqual(sampleCount(fromHex("10802000")), 4096)
    for (const hex of ["", "10", "1000", "2001", "1080", "108080", "10808080"]) {
      assert.isUndefined(sampleCount(fromHex(hex)), hex)
    }
  })
})

describe("a hello", () => {
  it("of another version is refused by name, whatever it calls its version", () => {
    assert.strictEqual(errorOf(readHelloOf({ version: "02" })).message, "Cannot read the hello: version 2 is not 1")
    for (
      const version of list(`
        00 c0 a131 9101 80 81a8${textHex("toString")}01 82a8${textHex("toString")}c0a7${textHex("valueOf")}c0
        daea60${"61".repeat(60_000)}
      `)
    ) {
      const error = errorOf(readHelloOf({ version }))
      assert.strictEqual(error.name, "UnsupportedVersion", version.slice(0, 40))
      assert.isAtMost(error.message.length, 200)
    }
    // Its other elements may have another meaning there, so they are not looked at.
    assert.strictEqual(nameOf(readHello("920102")), "UnsupportedVersion")
    assert.strictEqual(nameOf(readHello("9101")), "UnsupportedVersion")
    assert.strictEqual(unwrap(readHelloOf({ version: "cb3ff0000000000000" })).kind, kinds.hello)
  })

  it("has a key that is nil or text of at most 128 bytes", () => {
    for (const key of ["00", "c2", "9100", "80", `c403${textHex("key")}`, `81a161a162`, "cb3fe0000000000000"]) {
      assert.strictEqual(
        errorOf(readHelloOf({ key })).message,
        "Cannot read the hello: its key is neither nil nor a short string",
        key
      )
    }
    const longest = unwrap(readHelloOf({ key: text16("61".repeat(128)) }))
    assert.deepStrictEqual(longest.kind === kinds.hello && longest.key, "a".repeat(128))
    assert.strictEqual(nameOf(readHelloOf({ key: text16("61".repeat(129)) })), "BadFrame")
    assert.isFalse(isFrameError(readHelloOf({ key: text16("c3a9".repeat(64)) })))
    assert.strictEqual(nameOf(readHelloOf({ key: text16("c3a9".repeat(65)) })), "BadFrame")
    assert.strictEqual(nameOf(readHelloOf({ key: "a2fffe" })), "BadFrame")
  })

  it("has a boot id that is a whole number or 1 to 16 bytes", () => {
    for (
      const form of list(`
        05 cc05 cd0005 ce00000005 cf0000000000000005 d005 d30000000000000005 cb4014000000000000
      `)
    ) {
      assert.strictEqual(bootOf(form), "5", form)
    }
    assert.strictEqual(bootOf("cf001fffffffffffff"), "9007199254740991")
    assert.strictEqual(bootOf("c40105"), "x05")
    assert.strictEqual(bootOf("c50001ff"), "xff")
    assert.strictEqual(bootOf(`c410${"0a".repeat(16)}`), `x${"0a".repeat(16)}`)
    for (
      const boot of list(`
        c0 ff c400 c411${"0a".repeat(17)} a135 cb3fe0000000000000 cf0020000000000000 9105 c2
      `)
    ) {
      assert.strictEqual(nameOf(readHelloOf({ boot }), boot), "BadFrame")
    }
  })

  it("keeps its boot id when the message's memory is used again", () => {
    const bytes = fromHex("9501 01 c0 c404 01020304 00")
    const frame = unwrap(readDeviceFrame(bytes))
    bytes.fill(0)
    assert.strictEqual(frame.kind === kinds.hello && frame.bootId, "x01020304")
  })

  it("has a next index", () => {
    for (const next of ["c0", "ff", "a130", "cb3fe0000000000000", "cf0020000000000000"]) {
      assert.strictEqual(nameOf(readHelloOf({ next }), next), "BadFrame")
    }
    assert.strictEqual(nameOf(readHello("940101c005")), "BadFrame")
  })
})

describe("control frames", () => {
  it("may hold more elements, eight levels deep, which are ignored", () => {
    for (const one of vectors.filter(({ frame }) => frame.kind !== kinds.samples)) {
      const [lead, rest] = [Number.parseInt(one.hex.slice(0, 2), 16), one.hex.slice(2)]
      // The second element of a time frame is known: a device's has none yet.
      const known = one.title === "time" ? "c0" : ""
      const more = (known === "" ? 1 : 2) + lead
      for (const extra of ["c0", "a161", "91".repeat(8) + "00", "8101a161"]) {
        const bytes = fromHex(more.toString(16) + rest + known + extra)
        assert.deepStrictEqual(plain(unwrap(readers[one.reader](bytes))), one.frame, `${one.title} ${extra}`)
      }
      for (const extra of ["91".repeat(9) + "00", "91".repeat(8) + "80", "c1", "d40000", "d4725201", "a1ff"]) {
        const bytes = fromHex(more.toString(16) + rest + known + extra)
        assert.strictEqual(nameOf(readers[one.reader](bytes), `${one.title} ${extra}`), "BadFrame")
      }
    }
  })

  it("may begin as any form of array", () => {
    for (const one of vectors) {
      const [count, rest] = [Number.parseInt(one.hex.slice(1, 2), 16), one.hex.slice(2)]
      for (const lead of [`dc${count.toString(16).padStart(4, "0")}`, `dd${count.toString(16).padStart(8, "0")}`]) {
        assert.deepStrictEqual(plain(unwrap(readers[one.reader](fromHex(lead + rest)))), one.frame, one.title)
      }
    }
  })

  it("are refused with every element in turn replaced by what it cannot be", () => {
    const known: Record<string, ReadonlyArray<string>> = {
      end: ["92 03 X"],
      time: ["92 04 X"],
      welcome: [
        "97 10 X 00 00 00 00 c3",
        "97 10 01 X 00 00 00 c3",
        "97 10 01 00 X 00 00 c3",
        "97 10 01 00 00 X 00 c3",
        "97 10 01 00 00 00 X c3"
      ],
      ack: ["94 11 X 00 00", "94 11 00 X 00", "94 11 00 00 X"],
      rewind: ["92 12 X"],
      epoch: ["95 21 X c0 00 00", "95 21 00 c0 X 00", "95 21 00 c0 00 X"],
      durable: ["92 22 X", "92 22 92 X 00", "92 22 92 00 X"],
      gap: ["94 23 X 92 00 00 a4 6c6f7374", "94 23 92 00 00 X a4 6c6f7374", "94 23 92 00 00 92 00 01 X"],
      "caught-up": ["92 24 X", "92 24 92 X 00"],
      ended: ["92 25 X", "92 25 92 00 X"],
      error: ["94 13 X a0 c0", "94 13 cd0fa0 X c0"],
      "viewer's welcome": ["94 20 X 80 92 00 00", "94 20 01 X 92 00 00"]
    }
    const wrong = list(`
      c0 ff c2 cb3fe0000000000000 cf0020000000000000 90 80 9100 c40100 81a16101
    `)
    for (const [name, shapes] of Object.entries(known)) {
      for (const shape of shapes) {
        for (const value of wrong) {
          const bytes = fromHex(shape.replace("X", value))
          for (const read of Object.values(readers)) {
            assert.strictEqual(nameOf(read(bytes), `${name} ${shape} ${value}`), "BadFrame")
          }
        }
      }
    }
  })

  it("are refused when an epoch is beyond its range, or what must be a boolean is none", () => {
    const beyond = "ce80000000"
    for (
      const hex of [
        `97 10 01 ${beyond} 00 00 00 c3`,
        "97 10 01 00 00 00 00 c0",
        "97 10 01 00 00 00 00 01",
        `95 21 ${beyond} c0 00 00`,
        `92 22 92 ${beyond} 00`,
        `94 23 92 ${beyond} 00 92 00 01 a4 6c6f7374`
      ]
    ) {
      for (const read of Object.values(readers)) assert.strictEqual(nameOf(read(fromHex(hex)), hex), "BadFrame")
    }
    assert.isFalse(isFrameError(readViewerFrame(fromHex("92 22 92 ce7fffffff 00"))))
  })

  it("of an unknown or missing kind are refused", () => {
    for (
      const hex of [
        "",
        "90",
        "c0",
        "80",
        "91",
        "9100",
        "9105",
        "917f",
        "92cc0100",
        "91ff",
        "91c0",
        "91a161",
        "9290c0",
        "dc0000",
        "dd00000000",
        "dc000002"
      ]
    ) {
      for (const result of readAll(fromHex(hex))) assert.strictEqual(nameOf(result, hex), "BadFrame")
    }
    // A frame of one direction is no frame of another.
    assert.strictEqual(nameOf(readDeviceFrame(bytesOf(vector("ack")))), "BadFrame")
    assert.strictEqual(nameOf(readServerFrame(bytesOf(vector("hello")))), "BadFrame")
    assert.strictEqual(nameOf(readViewerFrame(bytesOf(vector("welcome")))), "BadFrame")
  })

  it("above the size of a message are refused unread", () => {
    const large = new Uint8Array(protocolLimits.messageBytesMax.value + 1)
    large.set([0x92, kinds.end])
    for (const result of readAll(large)) assert.strictEqual(nameOf(result), "TooLarge")
  })
})

describe("a viewer's welcome", () => {
  const info: SessionInfo = {
    id: "7f9c2ba4-e88f-4827-a160-4550765c8d16",
    channels: [{ name: "x", unit: "g", scale: 0.5, offset: 0 }],
    rate: 100,
    tick: 1,
    state: "live",
    createdAt: "2026-01-01T00:00:00.000Z"
  }
  const packr = new Packr({ useRecords: false })
  const welcomeOf = (session: object) => readViewerFrame(packr.pack([kinds.viewerWelcome, 1, session, [0, 0]]))

  it("leaves out what is undefined", () => {
    const absent: object = { name: undefined, sensor: undefined, gravity: undefined }
    const frame = unwrap(readViewerFrame(encodeViewerWelcome({ ...info, ...absent }, at(0))))
    assert.deepStrictEqual(frame, { kind: kinds.viewerWelcome, version: 1, session: info, from: at(0) })
  })

  it("replaces what is no text in names by U+FFFD", () => {
    const channels = info.channels.map((channel) => ({ ...channel, unit: "\udc00" }))
    const frame = unwrap(readViewerFrame(encodeViewerWelcome({ ...info, name: "a\ud800b", channels }, at(0))))
    assert(frame.kind === kinds.viewerWelcome)
    assert.deepStrictEqual([frame.session.name, frame.session.channels[0]!.unit], ["a\ufffdb", "\ufffd"])
  })

  it("is refused when its session is not whole", () => {
    const [channel] = info.channels
    const broken: ReadonlyArray<object> = [
      ...Object.keys(info).map((key) => ({ ...info, [key]: null })),
      { ...info, channels: [] },
      { ...info, channels: Array.from({ length: 17 }, () => channel) },
      { ...info, channels: [{ ...channel, scale: Number.NaN }] },
      { ...info, channels: [{ ...channel, offset: Infinity }] },
      { ...info, channels: [{ ...channel, name: 1 }] },
      { ...info, rate: Infinity },
      { ...info, state: "asleep" },
      { ...info, name: 5 },
      { ...info, gravity: "yes" }
    ]
    for (const session of broken) assert.strictEqual(nameOf(welcomeOf(session), JSON.stringify(session)), "BadFrame")
  })

  it("takes no key of a map for a prototype", () => {
    const hex = vector("viewer's welcome").hex
    const evil = `a9${textHex("__proto__")}81a8${textHex("polluted")}c3ab${textHex("constructor")}c0`
    const frame = unwrap(readViewerFrame(fromHex(hex.replace("de0006", `de0008${evil}`))))
    assert(frame.kind === kinds.viewerWelcome)
    assert.strictEqual(Object.getPrototypeOf(frame.session), Object.prototype)
    assert.isFalse("polluted" in frame.session)
    assert.isFalse("polluted" in {})
    // A session that has everything only by its prototype has nothing.
    const inherited = `81a9${textHex("__proto__")}${hex.slice(6, hex.indexOf("9200cd2e7c"))}`
    assert.strictEqual(nameOf(readViewerFrame(fromHex(`942001${inherited}9200cd2e7c`))), "BadFrame")
  })
})

describe("frames to a device", () => {
  const max = protocolLimits.controlBytesMax.value

  it("have at most 125 bytes at the largest values", () => {
    const largest = {
      welcome: encodeWelcome({ epoch: epochMax, next: indexMax, window: 2 ** 32 - 1, server: indexMax, sure: true }),
      ack: encodeAck({ received: indexMax, durable: indexMax, window: 2 ** 32 - 1 }),
      rewind: encodeRewind(indexMax),
      time: encodeTime(indexMax, indexMax),
      error: encodeError("Failed", "x".repeat(1000), indexMax)
    }
    assert.deepStrictEqual(
      Object.entries(largest).map(([name, { length }]) => [name, length]),
      [["welcome", 32], ["ack", 25], ["rewind", 11], ["time", 20], ["error", 121]]
    )
    for (const bytes of Object.values(largest)) {
      assert.isAtMost(bytes.length, max)
      unwrap(readServerFrame(bytes))
    }
  })

  it("an error has at most 125 bytes and is read, whatever its text", () => {
    const name = fc.constantFrom(...codeNames)
    fc.assert(
      fc.property(name, anyText, fc.option(fc.maxSafeNat(), { nil: undefined }), (name, text, retryAfter) => {
        const bytes = encodeError(name, text, retryAfter)
        assert.isAtMost(bytes.length, max)
        const frame = unwrap(readServerFrame(bytes))
        assert(frame.kind === kinds.error)
        assert.isTrue(frame.text.isWellFormed())
        const whole = text.toWellFormed()
        if (utf8Length(whole) <= 105) {
          assert.strictEqual(frame.text.replace(/^\ufeff/, ""), whole.replace(/^\ufeff/, ""))
        } else {
          assert.isTrue(frame.text.endsWith("…"))
          assert.isTrue(whole.replace(/^\ufeff/, "").startsWith(frame.text.replace(/^\ufeff/, "").slice(0, -1)))
        }
      }),
      { numRuns: 1000 }
    )
  })

  it("cutText() cuts at a whole character and wastes none", () => {
    assert.strictEqual(cutText("abc", 3), "abc")
    assert.strictEqual(cutText("abcd", 3), "…")
    assert.strictEqual(cutText("ab😀cd", 8), "ab😀cd")
    assert.strictEqual(cutText("ab😀cde", 8), "ab…")
    assert.strictEqual(cutText("ab😀cdefg", 9), "ab😀…")
    assert.strictEqual(cutText("ééé", 5), "é…")
    assert.strictEqual(cutText("\ud800", 3), "\ufffd")
    fc.assert(fc.property(anyText, fc.integer({ min: 3, max: 130 }), (text, room) => {
      const cut = cutText(text, room)
      assert.isAtMost(utf8Length(cut), room)
      assert.isTrue(cut.isWellFormed())
      if (utf8Length(text) > room) assert.isAbove(utf8Length(cut), room - 4)
    }))
  })
})

describe("hostile bytes", () => {
  it("every frame cut at every byte is refused with a sentence", () => {
    for (const one of vectors) {
      const bytes = bytesOf(one)
      for (let length = 0; length < bytes.length; length++) {
        for (const result of readAll(bytes.subarray(0, length))) {
          assert.strictEqual(nameOf(result, one.title), "BadFrame")
        }
      }
    }
  })

  it("lengths that lie are refused", () => {
    const refusals: ReadonlyArray<CodeName> = ["BadFrame", "UnsupportedVersion"]
    const payload = "00".repeat(40)
    for (
      const lie of list(`
        dbffffffff dd10000000 ddffffffff df10000000 dfffffffff dcffff deffff c6ffffffff daffff d9ff bf 9f 8f
      `)
    ) {
      for (
        const hex of [
          lie,
          `91${lie}`,
          `9201${lie}`,
          `950101${lie}c005`,
          `940200${lie}`,
          `942001${lie}`,
          `92229200${lie}`,
          `9420018101${lie}`
        ]
      ) {
        for (const result of readAll(fromHex(hex))) assert.include(refusals, nameOf(result, hex))
        for (const result of readAll(fromHex(hex + payload))) assert.include(refusals, nameOf(result, hex))
      }
    }
  })

  it("maps with keys of every kind never throw", () => {
    for (
      const key of list(`
        00 c0 c3 cb7ff8000000000000 90 9100 80 8101c0 c40101 a9${textHex("__proto__")}
      `)
    ) {
      for (
        const hex of [`950101 81${key}00 05 00`, `9201 81${key}00`, `942001 81${key}00 920000`, `9404 00 81${key}00 00`]
      ) assert.lengthOf(readAll(fromHex(hex)), 4)
    }
  })

  it("any bytes are a frame or a sentence", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => void readAll(bytes)), { numRuns: 5000 })
    const headed = fc.tuple(fc.constantFrom(...Object.values(kinds)), fc.uint8Array({ maxLength: 60 }), fc.nat(15))
    fc.assert(
      fc.property(headed, ([kind, bytes, count]) => void readAll(Uint8Array.of(0x90 + count, kind, ...bytes))),
      { numRuns: 10_000 }
    )
  })

  it("frames with any bytes changed are a frame or a sentence", () => {
    const change = fc.record({ at: fc.nat(400), to: fc.nat(255) })
    fc.assert(
      fc.property(fc.nat(vectors.length - 1), fc.array(change, { minLength: 1, maxLength: 4 }), (which, changes) => {
        const bytes = bytesOf(vectors[which]!)
        for (const { at, to } of changes) bytes[at % bytes.length] = to
        readAll(bytes)
        const cut = cutFrames(bytes, 1024)
        if (isFrameError(cut)) errorOf(cut)
      }),
      { numRuns: 10_000 }
    )
  })

  it("every byte of every frame changed to every value is a frame or a sentence", () => {
    for (const one of vectors) {
      const bytes = bytesOf(one)
      for (let at = 0; at < Math.min(bytes.length, 40); at++) {
        const was = bytes[at]!
        for (let value = 0; value < 256; value++) {
          bytes[at] = value
          assert.lengthOf(readAll(bytes), 4)
        }
        bytes[at] = was
      }
    }
  })

  it("a message leaves nothing behind for the next", () => {
    // The record extension of msgpackr: fixext 1 of type 0x72 defines record 0x40, which the fixint 0x40 then refers to.
    const definitions = [
      `9301d47240 92a161a162 0102`,
      `9304d47240 92a161a162 0102`,
      `92d47240 91a161 01`,
      `9204d5724001 91a161 01`,
      `950101 d47240 91a161 01 c0 05 00`
    ]
    const uses = [["9204 40", { kind: kinds.time, device: 64, server: undefined }], ["9203 40", {
      kind: kinds.end,
      index: 64
    }]] as const
    for (const definition of definitions) {
      for (const result of readAll(fromHex(definition))) assert.strictEqual(nameOf(result, definition), "BadFrame")
      for (const [use, frame] of uses) assert.deepStrictEqual(readDeviceFrame(fromHex(use)), frame, definition)
    }
    // Any message, good or bad, in between: what comes after is read as if it had come alone.
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), fc.nat(vectors.length - 1), (bytes, which) => {
        readAll(Uint8Array.of(0x95, ...bytes))
        const one = vectors[which]!
        assert.deepStrictEqual(plain(readers[one.reader](bytesOf(one))), one.frame)
      }),
      { numRuns: 1000 }
    )
  })
})
