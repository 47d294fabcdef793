import { assert, describe, it } from "@effect/vitest"
import type { DeviceFrame } from "@thrum/client"
import { isFrameError, readBlock, readSamples, textsOf } from "@thrum/protocol"
import * as fc from "fast-check"
import { readdirSync, readFileSync } from "node:fs"
import { CommandError } from "./CommandError.ts"
import { FramePacker, type PackerSettings } from "./FramePacker.ts"
import { RecordingReader } from "./RecordingReader.ts"

const recordings = new URL("../../../../test/data/", import.meta.url)

const packText = (csv: string, settings: Partial<PackerSettings> = {}) => {
  const reader = new RecordingReader("walk.csv")
  const rows = [...reader.push(new TextEncoder().encode(csv)), ...reader.end()]
  const { channels, timeUnit } = reader.columns!
  const packer = new FramePacker({
    channels,
    frameSamples: 100,
    rate: 100,
    tick: 1,
    timeUnit,
    countsOnly: false,
    isRounding: false,
    ...settings
  })
  return { channels, rows, packer, frames: [...rows.flatMap((row) => packer.add(row)), ...packer.flush()] }
}

const unpack = ({ bytes }: DeviceFrame, channels: ReadonlyArray<string>) => {
  const samples = readSamples(bytes)
  if (isFrameError(samples)) throw samples
  const block = readBlock(samples.block, channels.length)
  if (isFrameError(block)) throw block
  const text = textsOf(block, channels.map((name) => ({ name, unit: "", scale: 1, offset: 0 })))
  return { samples, block, texts: Array.from({ length: block.integers.length }, (_, at) => text(at)) }
}

const refusalOf = (act: () => unknown): string => {
  try {
    act()
  } catch (error) {
    assert.instanceOf(error, CommandError)
    return error.message
  }
  throw new Error("nothing was refused")
}

describe("FramePacker", () => {
  for (const name of readdirSync(recordings).filter((name) => name.endsWith(".csv"))) {
    it(`the numbers of ${name} come back as they are written`, () => {
      const { channels, frames, rows } = packText(readFileSync(new URL(name, recordings), "utf8"))
      assert.deepStrictEqual(frames.map((frame) => frame.index), [0, ...frames.slice(0, -1).map((frame) => frame.next)])
      const texts = frames.flatMap((frame) => unpack(frame, channels).texts)
      const written = rows.flatMap((row) => row.texts)
      assert.strictEqual(texts.length, written.length)
      const first = texts.findIndex((text, i) => !Object.is(Number(text), Number(written[i])))
      assert.strictEqual(first, -1, `${texts[first]} instead of ${written[first]}`)
    })
  }

  it("any integers and any decimals, mixed, come back as the same numbers (property)", () => {
    const value = fc.oneof(
      fc.integer().map(String),
      fc.integer().map((k) => (k / 1000).toFixed(3)),
      fc.float({ noNaN: true, noDefaultInfinity: true }).map((v) => String(Number(v.toPrecision(9)))),
      fc.constantFrom("-0", "0.0", "1e-7", "3.4028235e38")
    )
    fc.assert(
      fc.property(
        fc.array(value, { minLength: 1, maxLength: 60 }),
        fc.integer({ min: 1, max: 20 }),
        (cells, frameSamples) => {
          // Beside float32 and decimals there may be what no block holds: then it is refused, never changed.
          let packed: ReturnType<typeof packText>
          try {
            packed = packText(["x", ...cells].join("\n"), { frameSamples })
          } catch (error) {
            assert.instanceOf(error, CommandError)
            return
          }
          const texts = packed.frames.flatMap((frame) => unpack(frame, ["x"]).texts)
          assert.deepStrictEqual(texts.map(Number), cells.map(Number))
        }
      )
    )
  })

  it("integers are counts, frame by frame, however the file goes on", () => {
    const { frames } = packText("x\n1\n2\n3\n4.5\n", { frameSamples: 2 })
    assert.deepStrictEqual(frames.map((frame) => unpack(frame, ["x"]).block.exponent === undefined), [true, false])
  })

  it("a block that cannot hold all of a frame exactly is split, not rounded", () => {
    const { frames } = packText("x\n0.123456789\n2000000.123\n", {})
    assert.deepStrictEqual(frames.flatMap((frame) => unpack(frame, ["x"]).texts), ["0.123456789", "2000000.123"])
    assert.deepStrictEqual(frames.map(({ index, next }) => [index, next]), [[0, 1], [1, 2]])
  })

  it("what cannot be sent exactly is refused by line, column and text", () => {
    for (
      const [csv, settings, ...words] of [
        ["x,y\n1,2\n3,2147483648\n", {}, "line 3", "\"y\"", "2147483648", "32 bits"],
        ["x,y\n1.5,2\n3.14159265358979,4\n", {}, "line 3", "\"x\"", "3.14159265358979"],
        ["x\n1.5\n0.10000000149011612\n", {}, "line 3", "0.10000000149011612", "--float32"],
        ["x\n1\n2.5\n", { countsOnly: true }, "line 3", "\"x\"", "2.5", "scale"],
        ["t,x\n5,1\n4,1\n", {}, "line 3", "its time 4", "5"]
      ] as const
    ) {
      const message = refusalOf(() => packText(csv, settings))
      for (const word of words) assert.include(message, word)
    }
  })

  it("rounds to float32 where it is asked to", () => {
    const { frames } = packText("x\n3.14159265358979\n0.10000000149011612\n", { isRounding: true })
    assert.deepStrictEqual(unpack(frames[0]!, ["x"]).texts, ["3.1415927", "0.1"])
  })

  it("regular times give t0 alone; jittery ones a time a sample, in ticks", () => {
    const regular = packText("t_ms,x\n100,1\n110,2\n120,3\n", { tick: 1000 }).frames
    const jittery = packText("t_ms,x\n100,1\n108,2\n121,3\n", { tick: 1000 }).frames
    assert.deepStrictEqual(regular.map((frame) => unpack(frame, ["x"]).samples.t0), [0])
    assert.isUndefined(unpack(regular[0]!, ["x"]).block.times)
    assert.deepStrictEqual(Array.from(unpack(jittery[0]!, ["x"]).block.times!), [0, 8, 21])
    assert.strictEqual(unpack(jittery[0]!, ["x"]).block.period, 10)
  })

  it("a jump in time ends the frame; the index does not jump", () => {
    const { frames } = packText("t,x\n0,1\n0.01,2\n5,3\n5.01,4\n")
    assert.deepStrictEqual(frames.map(({ index, next }) => [index, next]), [[0, 2], [2, 4]])
    assert.deepStrictEqual(frames.map((frame) => unpack(frame, ["x"]).samples.t0), [0, 5_000_000])
  })

  it("times finer than the tick are counted, not hidden", () => {
    assert.strictEqual(packText("t,x\n0.0000001,1\n0.01,2\n0.0200001,3\n").packer.roundedTimes, 2)
    assert.strictEqual(packText("t_ms,x\n0,1\n10.5,2\n", { tick: 1000 }).packer.roundedTimes, 1)
  })

  it("a frame too large for a message is split", () => {
    const channels = Array.from({ length: 16 }, (_, c) => `c${c}`)
    const noise = fc.sample(fc.array(fc.integer(), { minLength: 16, maxLength: 16 }), { numRuns: 2048, seed: 1 })
    const { frames } = packText([channels, ...noise].map((row) => row.join(",")).join("\n"), { frameSamples: 2048 })
    assert.isAbove(frames.length, 1)
    for (const frame of frames) assert.isAtMost(frame.bytes.length, 65_536)
    assert.deepStrictEqual(frames.flatMap((frame) => unpack(frame, channels).texts.map(Number)), noise.flat())
  })
})
