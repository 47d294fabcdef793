import * as fc from "fast-check"
import { readFileSync } from "node:fs"
import { assert, describe, it } from "vitest"
import { FrameError, isFrameError } from "./FrameError.ts"
import { cutFrames, endOfValue, frameDepthMax, incomplete, type IntegerAt, readInteger, refused } from "./Scan.ts"

const vectors: ReadonlyArray<{ readonly title: string; readonly hex: string }> = JSON.parse(
  readFileSync(new URL("../../../test/vectors/frames.json", import.meta.url), "utf8")
)
const fromHex = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex.replaceAll(" ", ""), "hex"))
/** Words apart. */
const list = (text: string): ReadonlyArray<string> => text.trim().split(/\s+/)
const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
const frames = vectors.map(({ hex }) => fromHex(hex))

const end = (hex: string, depthMax = 8): number => endOfValue(fromHex(hex), 0, depthMax)

const payload = (bytes: number): string => "61".repeat(bytes)
const text = (hex: string): number => end(`d9${(hex.length / 2).toString(16).padStart(2, "0")}${hex}`)

const read = (hex: string): IntegerAt => {
  const into: IntegerAt = { value: -7, next: 0 }
  readInteger(fromHex(hex), 0, into)
  return into
}

const errorOf = (bytes: Uint8Array, frameBytesMax: number): FrameError => {
  const cut = cutFrames(bytes, frameBytesMax)
  assert(cut instanceof FrameError)
  return cut
}

/** `value` in `levels` arrays. */
const nest = (levels: number, value: string): string => "91".repeat(levels) + value

describe("endOfValue()", () => {
  it("knows the length of every form", () => {
    const forms: ReadonlyArray<string> = list(`
      00 7f e0 ff c0 c2 c3 cc80 cd0100 ce00010000 cf0000000100000000 d0ff d1ff00 d2ffff0000 d3ffffffff00000000
      ca3f800000 cb3ff0000000000000 a0 bf${payload(31)} d920${payload(32)} da0100${payload(256)}
      db00000001${payload(1)} c400 c403${payload(3)} c50003${payload(3)} c600000003${payload(3)} 90 9101 dc0000
      dc000201a161 dd00000001c0 80 81a16101 de0001a16101 df00000001a16191c0
    `)
    for (const form of forms) {
      assert.strictEqual(end(form), form.length / 2, form)
      assert.strictEqual(end(`${form}c0`), form.length / 2, `${form} and one more`)
      for (let cut = 0; cut < form.length / 2; cut++) assert.strictEqual(end(form.slice(0, 2 * cut)), incomplete, form)
    }
  })

  it("refuses the reserved byte and every extension type", () => {
    for (const lead of [0xc1, 0xc7, 0xc8, 0xc9, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8]) {
      const bytes = new Uint8Array(40)
      bytes[0] = lead
      assert.strictEqual(endOfValue(bytes, 0, 8), refused, lead.toString(16))
    }
  })

  it("counts every array and map as a level, empty ones too", () => {
    for (const leaf of ["c0", "90", "80", "9100", "81a16190", "dc0000", "df00000000"]) {
      const levels = { c0: 0, "90": 1, "80": 1, "9100": 1, "81a16190": 2, dc0000: 1, df00000000: 1 }[leaf]!
      assert.isAbove(end(nest(8 - levels, leaf), 8), 0, leaf)
      assert.strictEqual(end(nest(9 - levels, leaf), 8), refused, leaf)
    }
    assert.strictEqual(end("90", 0), refused)
    assert.strictEqual(end("00", 0), 1)
  })

  it("does not believe a length that the bytes cannot hold", () => {
    for (
      const lie of ["dbffffffff", "c6ffffffff", "ddffffffff", "dfffffffff", "dcffff00", "deffff0000", "dd80000000c0"]
    ) {
      assert.strictEqual(end(lie), incomplete, lie)
    }
  })

  it("goes as wide and as deep as a message without a stack of its own", () => {
    assert.strictEqual(endOfValue(new Uint8Array(65_536).fill(0x91), 0, frameDepthMax), refused)
    const wide = new Uint8Array(65_536)
    wide.set([0xdc, 0xff, 0xfd])
    assert.strictEqual(endOfValue(wide, 0, frameDepthMax), 65_536)
  })

  it("takes text for text only when it is UTF-8", () => {
    for (
      const good of [
        "",
        "7f",
        "c280",
        "dfbf",
        "e0a080",
        "ed9fbf",
        "ee8080",
        "efbfbf",
        "f0908080",
        "f48fbfbf",
        "61c3a961"
      ]
    ) {
      assert.strictEqual(text(good), 2 + good.length / 2, good)
    }
    for (
      const bad of list(`
        80 bf c0 c080 c1bf c2 c261 e0a0 e09f80 e0a061 eda080 edbfbf f08f8080 f0908061 f4908080 f5808080 f8888080 ff fe
        61c3 f09080
      `)
    ) {
      assert.strictEqual(text(bad), refused, bad)
    }
    // As good as the platform's own, on anything.
    const strict = new TextDecoder("utf-8", { fatal: true })
    const pieces = fc.constantFrom<ReadonlyArray<number>>([0x61], [0xc3, 0xa9], [0xe2, 0x82, 0xac], [
      0xf0,
      0x9f,
      0x98,
      0x80
    ])
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 12 }),
      fc.array(fc.oneof(pieces, fc.tuple(fc.nat(255))), { maxLength: 6 }).map((parts) => Uint8Array.from(parts.flat()))
    )
    fc.assert(
      fc.property(bytes, (content) => {
        let isText = true
        try {
          strict.decode(content)
        } catch {
          isText = false
        }
        const value = Uint8Array.of(0xd9, content.length, ...content)
        assert.strictEqual(endOfValue(value, 0, 8), isText ? value.length : refused, toHex(content))
      }),
      { numRuns: 2000 }
    )
  })

  it("never throws and never goes beyond the bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), fc.nat(10), (bytes, depth) => {
        const found = endOfValue(bytes, 0, depth)
        assert.isTrue(found === incomplete || found === refused || (found > 0 && found <= bytes.length))
      }),
      { numRuns: 3000 }
    )
  })
})

describe("readInteger()", () => {
  it("reads every form", () => {
    for (
      const [hex, value] of [
        ["00", 0],
        ["7f", 127],
        ["cc00", 0],
        ["ccff", 255],
        ["cdffff", 65_535],
        ["ceffffffff", 4_294_967_295],
        ["cf001fffffffffffff", Number.MAX_SAFE_INTEGER],
        ["d07f", 127],
        ["d17fff", 32_767],
        ["d27fffffff", 2_147_483_647],
        ["d3001fffffffffffff", Number.MAX_SAFE_INTEGER],
        ["ca40a00000", 5],
        ["cb40c7700000000000", 12_000],
        ["ca80000000", 0],
        ["cb433fffffffffffff", Number.MAX_SAFE_INTEGER]
      ] as const
    ) {
      assert.deepStrictEqual(read(hex), { value, next: hex.length / 2 }, hex)
      for (let cut = 0; cut < hex.length; cut += 2) assert.strictEqual(read(hex.slice(0, cut)).next, incomplete, hex)
    }
  })

  it("refuses what is no whole number from 0 to 2^53-1", () => {
    for (
      const hex of list(`
        ff e0 d0ff d1ffff d2ffffffff d3ffffffffffffffff d38000000000000000 cf0020000000000000 cfffffffffffffffff
        cf0020000000000001 d30020000000000001 ca3f000000 ca7fc00000 ca7f800000 cabf800000 cb7ff0000000000000
        cb3fe0000000000000 cb4340000000000000 c0 c2 a131 90 80 c40101 d40101 c1
      `)
    ) {
      assert.strictEqual(read(hex).next, refused, hex)
    }
  })
})

describe("cutFrames()", () => {
  const run = Buffer.concat(frames)
  const hexes = frames.map(toHex)

  it("cuts a run at every split into the frames it was made of", () => {
    for (let split = 0; split <= run.length; split++) {
      const first = cutFrames(run.subarray(0, split), 1024)
      assert(!isFrameError(first))
      const second = cutFrames(Buffer.concat([first.rest, run.subarray(split)]), 1024)
      assert(!isFrameError(second))
      assert.strictEqual(second.rest.length, 0)
      assert.deepStrictEqual([...first.frames, ...second.frames].map(toHex), hexes, `split at ${split}`)
    }
  })

  it("cuts a run that comes in any pieces", () => {
    fc.assert(fc.property(fc.array(fc.nat(run.length), { maxLength: 20 }), (cuts) => {
      const found: Array<string> = []
      let rest: Uint8Array = new Uint8Array()
      const at = [0, ...cuts.toSorted((a, b) => a - b), run.length]
      for (let i = 1; i < at.length; i++) {
        const cut = cutFrames(Buffer.concat([rest, run.subarray(at[i - 1], at[i])]), 1024)
        assert(!isFrameError(cut))
        found.push(...cut.frames.map(toHex))
        rest = cut.rest
      }
      assert.deepStrictEqual(found, hexes)
    }))
  })

  it("gives views, not copies", () => {
    const cut = cutFrames(run, 1024)
    assert(!isFrameError(cut))
    for (const frame of cut.frames) assert.strictEqual(frame.buffer, run.buffer)
    assert.deepStrictEqual(cutFrames(new Uint8Array(), 10), { frames: [], rest: new Uint8Array() })
  })

  it("waits for a frame of the largest size, and not for one byte more", () => {
    const frame = fromHex(`92 22 c4 05 ${"00".repeat(5)}`)
    const largest = cutFrames(frame, frame.length)
    assert(!isFrameError(largest))
    assert.strictEqual(largest.frames.length, 1)
    assert.strictEqual(errorOf(frame, frame.length - 1).name, "TooLarge")
    // Not whole yet, and too long already.
    assert.strictEqual(errorOf(frame.subarray(0, 8), 7).name, "TooLarge")
    assert.isFalse(isFrameError(cutFrames(frame.subarray(0, 7), 7)))
    // A lie about the length waits for no more than the bound.
    assert.isFalse(isFrameError(cutFrames(fromHex("92 02 c6 ffffffff 00"), 64)))
    assert.strictEqual(
      errorOf(new Uint8Array(Buffer.concat([fromHex("92 02 c6 ffffffff"), new Uint8Array(58)])), 64).name,
      "TooLarge"
    )
  })

  it("names the byte at which a frame cannot be read", () => {
    assert.strictEqual(
      errorOf(Buffer.concat([frames[0]!, fromHex("91 c1")]), 1024).message,
      `Cannot read the frame at byte ${frames[0]!.length}: it is not plain msgpack`
    )
    assert.strictEqual(
      errorOf(Buffer.concat([frames[0]!, frames[1]!]), frames[0]!.length - 1).message,
      `Cannot read the frame at byte 0: it is longer than ${frames[0]!.length - 1} bytes`
    )
  })
})
