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

  it("pads with zeros", () => {
    const sink = new ByteSink()
    sink.reserve(12)
    sink.padded(0, 6)
    sink.padded(999_999, 6)
    assert.strictEqual(textOf(sink), "000000999999")
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
