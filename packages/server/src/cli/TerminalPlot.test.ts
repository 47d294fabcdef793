import { assert, describe, it } from "@effect/vitest"
import { bytesText, grouped, shortNumber, TerminalPlot } from "./TerminalPlot.ts"

describe("TerminalPlot", () => {
  it("a rising line rises from the bottom left to the top right", () => {
    const plot = new TerminalPlot(2, 4)
    for (const value of [0, 1, 2, 3]) plot.add(value)
    assert.deepStrictEqual(plot.lines(1), ["⡠⠊"])
    assert.deepStrictEqual(plot.range, [0, 3])
  })

  it("a peak is seen however many samples share its column", () => {
    const plot = new TerminalPlot(1, 200)
    for (let i = 0; i < 200; i++) plot.add(i === 57 ? 9 : 0)
    assert.deepStrictEqual(plot.range, [0, 9])
    assert.deepStrictEqual(plot.lines(1), ["⣇⣀"].map((line) => String.fromCharCode(line.charCodeAt(0) | 0x80)))
  })

  it("the oldest goes when it is full, and the width never changes", () => {
    const plot = new TerminalPlot(10, 20)
    for (let i = 0; i < 500; i++) plot.add(i)
    assert.deepStrictEqual(plot.range, [480, 499])
    assert.deepStrictEqual(plot.lines(3).map((line) => line.length), [10, 10, 10])
  })

  it("nothing, a constant and what is not finite can be drawn too", () => {
    const plot = new TerminalPlot(2, 4)
    assert.deepStrictEqual(plot.lines(1), ["⠀⠀"])
    assert.isUndefined(plot.range)
    for (const value of [Number.NaN, 5, Infinity, 5]) plot.add(value)
    assert.deepStrictEqual(plot.range, [5, 5])
    assert.deepStrictEqual(plot.lines(1), ["⠐⠐"])
  })

  it("numbers for people are short", () => {
    assert.deepStrictEqual([0, -1, 0.5, 12.3456, 123.456, 1e9, 1e-9, Number.NaN].map(shortNumber), [
      "0",
      "-1",
      "0.5000",
      "12.346",
      "123.46",
      "1.0e+9",
      "1.0e-9",
      "NaN"
    ])
    assert.deepStrictEqual([999, 1000, 2_500_000].map(bytesText), ["999 B", "1.0 kB", "2.5 MB"])
    assert.strictEqual(grouped(1_234_567), "1,234,567")
  })
})
