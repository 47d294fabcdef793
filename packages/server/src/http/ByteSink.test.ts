import * as fc from "fast-check"
import { assert, describe, it } from "vitest"
import { ByteSink, sliceBytes } from "./ByteSink.ts"

const textOf = (sink: ByteSink): string => new TextDecoder().decode(sink.take())

describe("ByteSink", () => {
  it("writes whole numbers as JavaScript does", () => {
    const numbers = [
      0,
      -0,
      9,
      10,
      99,
      100,
      999_999,
      1_000_000,
      2 ** 31,
      2 ** 53 - 1,
      2 ** 53,
      1e16 + 2,
      -1,
      1 - 2 ** 53
    ]
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.maxSafeInteger(), fc.integer(), fc.constantFrom(...numbers))), (written) => {
        const sink = new ByteSink()
        for (const n of written) {
          sink.reserve(32)
          sink.integer(n)
          sink.ascii(" ")
        }
        assert.strictEqual(textOf(sink), written.map((n) => `${n} `).join(""))
      })
    )
  })

  it("writes decimals of 32 bits digit for digit", () => {
    const integers = fc.oneof(fc.integer(), fc.integer({ min: -2000, max: 2000 }), fc.constantFrom(0, -(2 ** 31), 100))
    fc.assert(
      fc.property(integers, fc.integer({ min: 0, max: 9 }), (k, places) => {
        const sink = new ByteSink()
        sink.reserve(32)
        sink.decimal(k, places)
        const text = textOf(sink)
        assert.strictEqual(Number(text), k / 10 ** places)
        assert.match(text, /^(0|-?(0|[1-9]\d*)(\.\d*[1-9])?)$/)
      })
    )
  })

  it("writes the lowest bytes, little-endian", () => {
    const sink = new ByteSink()
    sink.reserve(10)
    sink.little(-2, 1)
    sink.little(0x0102, 2)
    sink.little(-3, 3)
    sink.little(-(2 ** 31), 4)
    assert.deepStrictEqual([...sink.take()], [0xfe, 2, 1, 0xfd, 0xff, 0xff, 0, 0, 0, 0x80])
  })

  it("pads with zeros", () => {
    const sink = new ByteSink()
    sink.reserve(12)
    sink.padded(0, 6)
    sink.padded(999_999, 6)
    assert.strictEqual(textOf(sink), "000000999999")
  })

  it("writes over a slice only when it is sent", () => {
    let isSent = false
    const sink = new ByteSink(() => isSent)
    sink.text("first")
    const first = sink.take()
    sink.text("other")
    assert.strictEqual(new TextDecoder().decode(first), "first")
    const second = sink.take()
    isSent = true
    sink.text("third")
    assert.strictEqual(sink.take().buffer, second.buffer)
    assert.strictEqual(new TextDecoder().decode(first), "first")
  })

  it("gives each slice away, however large what was written", () => {
    const sink = new ByteSink()
    const large = "m/s² ".repeat(sliceBytes)
    sink.text(large)
    assert.isTrue(sink.isFull)
    const slice = sink.take()
    assert.isTrue(sink.isEmpty)
    sink.text("next")
    assert.strictEqual(new TextDecoder().decode(slice), large)
    assert.strictEqual(textOf(sink), "next")
  })
})
