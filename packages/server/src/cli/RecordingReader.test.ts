import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { CommandError } from "./CommandError.ts"
import { lineLengthMax, RecordingReader, type Row } from "./RecordingReader.ts"

const encoder = new TextEncoder()

const readAll = (text: string | Uint8Array, pieceBytes = Infinity, channels?: ReadonlyArray<string>) => {
  const bytes = typeof text === "string" ? encoder.encode(text) : text
  const reader = new RecordingReader("walk.csv", channels)
  const rows: Array<Row> = []
  for (let at = 0; at < bytes.length; at += pieceBytes) rows.push(...reader.push(bytes.subarray(at, at + pieceBytes)))
  rows.push(...reader.end())
  return { columns: reader.columns, rows }
}

const refusalOf = (text: string | Uint8Array, channels?: ReadonlyArray<string>): string => {
  try {
    readAll(text, Infinity, channels)
  } catch (error) {
    assert.instanceOf(error, CommandError)
    return error.message
  }
  throw new Error("nothing was refused")
}

describe("RecordingReader", () => {
  it("reads rows with their lines, texts and numbers; the time column is told apart by its name", () => {
    const { columns, rows } = readAll("t_ms,x,y\r\n0,1,-2.50\r\n20.5,+3,4\r\n\r\n\n")
    assert.deepStrictEqual(columns, { channels: ["x", "y"], timeUnit: 1000 })
    assert.deepStrictEqual(rows, [
      { line: 2, time: 0, timePlaces: 0, texts: ["1", "-2.50"], values: [1, -2.5], isInteger: false },
      { line: 3, time: 20.5, timePlaces: 1, texts: ["+3", "4"], values: [3, 4], isInteger: true }
    ])
  })

  it("the time is in seconds unless its name says otherwise, and only the first column can be it", () => {
    for (
      const [name, unit] of [["t", 1e6], ["T_S", 1e6], ["time", 1e6], ["timestamp", 1e6], ["time_us", 1], [
        "timestamp_ms",
        1e3
      ]] as const
    ) assert.strictEqual(readAll(`${name},x\n1,2\n`).columns?.timeUnit, unit)
    assert.deepStrictEqual(readAll("x,t\n1,2\n").columns, { channels: ["x", "t"], timeUnit: undefined })
    assert.include(refusalOf("t_ns,x\n1,2\n"), "\"t_ns\"")
  })

  it("reads quoted cells, a byte order mark, and a last line without a break", () => {
    const { columns, rows } = readAll("\ufeff\"a \"\"b\"\", c\", y \n\"1\", 2.5\n\"-3\",4")
    assert.deepStrictEqual(columns?.channels, ["a \"b\", c", "y"])
    assert.deepStrictEqual(rows.map((row) => row.values), [[1, 2.5], [-3, 4]])
  })

  it("reads the columns that were asked for, in that order, whatever is in the others", () => {
    const { columns, rows } = readAll("t,label,x,y\n0,walk,1,2\n", Infinity, ["y", "x"])
    assert.deepStrictEqual(columns, { channels: ["y", "x"], timeUnit: 1e6 })
    assert.deepStrictEqual(rows[0]?.values, [2, 1])
    assert.include(refusalOf("t,x\n0,1\n", ["z"]), "\"z\"")
  })

  it("an integer is what is written as one: -0 and 1.0 are not", () => {
    const { rows } = readAll("x\n5\n-0\n1.0\n1e3\n99999999999\n")
    assert.deepStrictEqual(rows.map((row) => row.isInteger), [true, false, false, false, true])
  })

  it("what cannot be read is refused by line and column", () => {
    for (
      const [text, ...words] of [
        ["x,y\n1,2\n3\n", "line 3", "1 cells", "2"],
        ["x,y\n1,2\n3,4,5\n", "line 3", "3 cells"],
        ["x,y\n1,\n", "line 2", "\"y\"", "empty"],
        ["x,y\n1,2x\n", "line 2", "\"y\"", "\"2x\""],
        ["x\nNaN\n", "line 2", "\"NaN\""],
        ["x\n1e999\n", "line 2", "\"1e999\""],
        ["x\n0x10\n", "line 2", "\"0x10\""],
        ["t,x\nlater,1\n", "line 2", "its time", "\"later\""],
        ["x\n1\n\n2\n", "line 3", "empty"],
        ["x,x\n1,2\n", "line 1", "\"x\" twice"],
        ["x,\n1,2\n", "line 1", "0 characters"],
        ["1,2\n3,4\n", "line 1", "names"],
        ["t\n1\n", "line 1", "0 channels"],
        [`${Array.from({ length: 17 }, (_, i) => `c${i}`).join(",")}\n`, "line 1", "17 channels"],
        ["x;y\n1;2\n", "line 1", "semicolons"],
        ["x,\"y\n1,2\n", "line 1", "quotes"],
        ["x\n\"1\" 2\n", "line 2", "quotes"],
        ["", "empty"],
        [`x\n${"1".repeat(lineLengthMax + 1)}`, "line 2", `${lineLengthMax}`],
        [Uint8Array.of(0x78, 0x0a, 0xff, 0xfe), "UTF-8"]
      ] as const
    ) {
      const message = refusalOf(text)
      for (const word of [...words, "walk.csv"]) assert.include(message, word)
    }
  })

  it("rows are the same however the bytes arrive (property)", () => {
    const cell = fc.oneof(
      fc.integer().map(String),
      fc.double({ noNaN: true, noDefaultInfinity: true }).map(String),
      fc.integer({ min: -999_999, max: 999_999 }).map((n) => (n / 1000).toFixed(3))
    )
    fc.assert(fc.property(
      fc.array(fc.tuple(cell, cell, cell), { minLength: 1, maxLength: 30 }),
      fc.constantFrom("\n", "\r\n"),
      fc.boolean(),
      fc.integer({ min: 1, max: 40 }),
      (table, lineBreak, quoted, pieceBytes) => {
        const written = table.map((row) => row.map((text) => quoted ? `"${text}"` : text).join(","))
        const { rows } = readAll(["µ,y,z", ...written].join(lineBreak), pieceBytes)
        assert.deepStrictEqual(rows.map((row) => row.texts), table)
        assert.deepStrictEqual(rows.map((row) => row.values), table.map((row) => row.map(Number)))
        assert.deepStrictEqual(rows.map((row) => row.line), table.map((_, i) => i + 2))
      }
    ))
  })
})
