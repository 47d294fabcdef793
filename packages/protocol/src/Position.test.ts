import * as fc from "fast-check"
import { assert, describe, it } from "vitest"
import { comparePositions, epochMax, formatPosition, indexMax, parsePosition, type Position } from "./Position.ts"

const positions: fc.Arbitrary<Position> = fc.record({
  epoch: fc.integer({ min: 0, max: epochMax }),
  index: fc.maxSafeNat()
})

describe("positions", () => {
  it("parsePosition() reads what formatPosition() writes", () => {
    fc.assert(fc.property(positions, (p) => assert.deepStrictEqual(parsePosition(formatPosition(p)), p)))
  })

  it("both ends of both ranges are read, and nothing beyond", () => {
    assert.deepStrictEqual(parsePosition("0:0"), { epoch: 0, index: 0 })
    assert.deepStrictEqual(parsePosition("2147483647:9007199254740991"), { epoch: epochMax, index: indexMax })
    for (const text of ["2147483648:0", "0:9007199254740992", "0:9007199254740993", "0:10000000000000000"]) {
      assert.isUndefined(parsePosition(text), text)
    }
  })

  for (
    const text of [
      "",
      ":",
      "0",
      "0:",
      ":0",
      "12000",
      "0:0:0",
      "00:0",
      "0:00",
      "0:01",
      "+0:0",
      "0:-1",
      "-0:0",
      "0:1e3",
      "0:0x10",
      "0:1.0",
      "0:1_000",
      " 0:0",
      "0:0 ",
      "0:0\n",
      "0:\n0",
      "0 :0",
      "٠:٠",
      "０:０",
      "0：0",
      "0:0\0",
      "NaN:0",
      "start"
    ]
  ) {
    it(`parsePosition() refuses ${JSON.stringify(text)}`, () => assert.isUndefined(parsePosition(text)))
  }

  it("what parsePosition() reads of any text is written the same again", () => {
    const near = fc.stringMatching(/^[ +-]?\d{0,17}:?[ +-]?\d{0,17}\s?$/)
    fc.assert(fc.property(fc.oneof(near, fc.string()), (text) => {
      const p = parsePosition(text)
      if (p !== undefined) assert.strictEqual(formatPosition(p), text)
    }))
  })

  it("comparePositions() puts the epoch first", () => {
    assert.isBelow(comparePositions({ epoch: 0, index: 9 }, { epoch: 1, index: 0 }), 0)
    assert.isAbove(comparePositions({ epoch: 0, index: indexMax }, { epoch: 0, index: indexMax - 1 }), 0)
    fc.assert(fc.property(positions, positions, (a, b) => {
      assert.strictEqual(Math.sign(comparePositions(a, b)), -Math.sign(comparePositions(b, a)) + 0)
      assert.strictEqual(comparePositions(a, a), 0)
    }))
  })
})
