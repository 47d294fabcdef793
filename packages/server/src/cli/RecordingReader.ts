/**
 * Reads a recording in CSV as it arrives: bytes in, rows out.
 *
 * The first line names the columns. The first column may be the time: `t`, `time` or `timestamp`, with `_s`, `_ms` or
 * `_us` for its unit (seconds unless it says so). All others are channels. Cells may be quoted, lines may end in CRLF,
 * empty lines may stand at the end.
 *
 * Bound: one line, at most {@link lineLengthMax} characters, and the rows of the piece that was just pushed. A longer
 * line, a cell that is not a number and a row of another length are errors that name line and column: nothing is
 * skipped, nothing is guessed.
 */
import { protocolLimits } from "@thrum/protocol"
import { CommandError, usageError } from "./CommandError.ts"

/** One line of the recording. */
export interface Row {
  /** Its line in the file; the header is line 1. */
  readonly line: number
  /** What the time column says, in the column's unit; undefined without one. */
  readonly time: number | undefined
  /** Digits after the decimal point of the time; 0 without a time. */
  readonly timePlaces: number
  /** The cells as they are written, one a channel. */
  readonly texts: ReadonlyArray<string>
  /** The numbers they are: float64, nearest to the text. */
  readonly values: ReadonlyArray<number>
  /** Whether every cell is written as an integer. `-0` is not: an integer cannot hold its sign. */
  readonly isInteger: boolean
}

/** What the first line says. */
export interface Columns {
  /** Names of the channels, in the order of the rows' values. */
  readonly channels: ReadonlyArray<string>
  /** µs of one unit of the time column; undefined without one. */
  readonly timeUnit: number | undefined
}

/** Characters of one line: 16 channels fit many times. */
export const lineLengthMax = 65_536

/** Characters of a channel's name. */
const nameLengthMax = 32

const timePattern = /^(?:t|time|timestamp)(?:_([a-z]+))?$/i
const timeUnits: Readonly<Record<string, number>> = { s: 1e6, ms: 1e3, us: 1 }
const numberPattern = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i
const integerPattern = /^[+-]?\d+$/

export class RecordingReader {
  /** What the header said; undefined until it has arrived. */
  columns: Columns | undefined
  private readonly source: string
  private readonly wanted: ReadonlyArray<string> | undefined
  private readonly decoder = new TextDecoder("utf-8", { fatal: true })
  private rest = ""
  private line = 0
  /** The first of the empty lines just passed: an error if anything follows. */
  private emptyLine: number | undefined
  /** Cells of every line. */
  private width = 0
  /** The column of the time, or -1, and those of the channels. */
  private timeAt = -1
  private channelsAt: ReadonlyArray<number> = []

  /**
   * @param source How errors name the recording: its path, or "standard input".
   * @param channels Which columns to read, in which order. All but the time unless given.
   */
  constructor(source: string, channels?: ReadonlyArray<string>) {
    this.source = source
    this.wanted = channels
  }

  /**
   * Takes the next bytes.
   *
   * @returns The rows that are complete now.
   * @throws {@link CommandError} naming line and column.
   */
  push(bytes: Uint8Array): ReadonlyArray<Row> {
    return this.readLines(this.rest + this.decode(bytes))
  }

  /** Takes the end: the last line needs no line break. A recording without a header is an error. */
  end(): ReadonlyArray<Row> {
    const rows = this.readLines(`${this.rest}${this.decode(undefined)}\n`)
    if (this.columns === undefined) throw new CommandError(`Cannot read ${this.source}: it is empty`)
    return rows
  }

  private decode(bytes: Uint8Array | undefined): string {
    try {
      return bytes === undefined ? this.decoder.decode() : this.decoder.decode(bytes, { stream: true })
    } catch {
      throw new CommandError(`Cannot read ${this.source}: after line ${this.line} it is not UTF-8 text`)
    }
  }

  private readLines(text: string): ReadonlyArray<Row> {
    const rows: Array<Row> = []
    let from = 0
    for (let to = text.indexOf("\n"); to >= 0; from = to + 1, to = text.indexOf("\n", from)) {
      this.line++
      const row = this.readLine(text.slice(from, text[to - 1] === "\r" && to > from ? to - 1 : to))
      if (row !== undefined) rows.push(row)
    }
    this.rest = text.slice(from)
    this.checkLength(this.rest, this.line + 1)
    return rows
  }

  private checkLength(text: string, line: number): void {
    if (text.length <= lineLengthMax) return
    throw new CommandError(`Cannot read line ${line} of ${this.source}: it is longer than ${lineLengthMax} characters`)
  }

  private readLine(text: string): Row | undefined {
    this.checkLength(text, this.line)
    if (text.trim() === "") {
      this.emptyLine ??= this.line
      return undefined
    }
    if (this.emptyLine !== undefined) throw this.error(this.emptyLine, "it is empty")
    const cells = this.cellsOf(text)
    if (this.columns !== undefined) return this.rowOf(cells)
    this.columns = this.readHeader(cells)
    return undefined
  }

  private error(line: number, forbids: string): CommandError {
    return new CommandError(`Cannot read line ${line} of ${this.source}: ${forbids}`)
  }

  private cellsOf(text: string): ReadonlyArray<string> {
    if (!text.includes("\"")) return text.split(",").map((cell) => cell.trim())
    const cells: Array<string> = []
    let at = 0
    do {
      const quoted = /\s*"((?:[^"]|"")*)"\s*(?=,|$)/y
      const plain = /[^",]*(?=,|$)/y
      quoted.lastIndex = plain.lastIndex = at
      const match = quoted.exec(text)
      const cell = match === null ? plain.exec(text)?.[0] : match[1]?.replaceAll("\"\"", "\"")
      if (cell === undefined) throw this.error(this.line, `the quotes of its cell ${cells.length + 1} are not closed`)
      cells.push(cell.trim())
      at = (match === null ? plain.lastIndex : quoted.lastIndex) + 1
    } while (at <= text.length)
    return cells
  }

  private readHeader(cells: ReadonlyArray<string>): Columns {
    const [first = ""] = cells
    if (cells.length === 1 && /[;\t]/.test(first)) {
      throw this.error(
        this.line,
        `its cells are separated by ${first.includes(";") ? "semicolons" : "tabs"}, not by commas`
      )
    }
    if (cells.every((cell) => numberPattern.test(cell))) {
      throw this.error(this.line, "it holds numbers where the names of the columns are expected")
    }
    this.width = cells.length
    const time = timePattern.exec(first)
    const unit = time === null ? undefined : timeUnits[time[1]?.toLowerCase() ?? "s"]
    if (time !== null && unit === undefined) {
      throw this.error(this.line, `the unit of its time "${first}" is not s, ms or us`)
    }
    this.timeAt = time === null ? -1 : 0
    const found = cells.flatMap((_, i) => i === this.timeAt ? [] : [i])
    this.channelsAt = this.wanted === undefined ? found : this.wanted.map((name) => {
      const at = found.find((i) => cells[i] === name)
      if (at !== undefined) return at
      throw usageError(`Cannot read the channel "${name}" of ${this.source}: its columns are ${cells.join(", ")}`)
    })
    const channels = this.channelsAt.map((i) => cells[i] ?? "")
    this.checkNames(channels)
    return { channels, timeUnit: unit }
  }

  private checkNames(names: ReadonlyArray<string>): void {
    const { channelsMax } = protocolLimits
    if (names.length < 1 || names.length > channelsMax.value) {
      throw this.error(this.line, `it names ${names.length} channels, a session has 1 to ${channelsMax.value}`)
    }
    for (const [i, name] of names.entries()) {
      if (name.length < 1 || name.length > nameLengthMax) {
        throw this.error(
          this.line,
          `the name "${name}" has ${name.length} characters, a channel's has 1 to ${nameLengthMax}`
        )
      }
      if (names.indexOf(name) !== i) throw this.error(this.line, `it names the channel "${name}" twice`)
    }
  }

  private rowOf(cells: ReadonlyArray<string>): Row {
    if (cells.length !== this.width) {
      throw this.error(this.line, `it has ${cells.length} cells, the header ${this.width}`)
    }
    const texts: Array<string> = []
    const values: Array<number> = []
    let isInteger = true
    for (const [c, at] of this.channelsAt.entries()) {
      const text = cells[at] ?? ""
      const value = this.numberOf(text, () => `the column "${this.columns?.channels[c]}"`)
      if (isInteger && !(integerPattern.test(text) && !Object.is(value, -0))) isInteger = false
      texts.push(text)
      values.push(value)
    }
    const timeText = this.timeAt < 0 ? undefined : cells[this.timeAt]
    return {
      line: this.line,
      time: timeText === undefined ? undefined : this.numberOf(timeText, () => "its time"),
      timePlaces: timeText === undefined ? 0 : placesOf(timeText),
      texts,
      values,
      isInteger
    }
  }

  private numberOf(text: string, column: () => string): number {
    const value = numberPattern.test(text) ? Number(text) : Number.NaN
    if (Number.isFinite(value)) return value
    throw this.error(this.line, text === "" ? `${column()} is empty` : `${column()} holds "${text}", not a number`)
  }
}

/** Digits after the decimal point once the exponent is worked in. */
const placesOf = (text: string): number => {
  if (integerPattern.test(text)) return 0
  const [mantissa = "", exponent = "0"] = text.toLowerCase().split("e")
  const decimals = (mantissa.split(".")[1] ?? "").replace(/0+$/, "").length
  return Math.max(0, decimals - Number(exponent))
}

/**
 * The rows of a recording, piece by piece as its bytes arrive.
 *
 * @param reader Where the columns stand once the first piece came.
 */
export async function* readRows(
  reader: RecordingReader,
  bytes: AsyncIterable<Uint8Array>
): AsyncGenerator<ReadonlyArray<Row>, void, undefined> {
  for await (const piece of bytes) {
    const rows = reader.push(piece)
    if (rows.length > 0) yield rows
  }
  const rows = reader.end()
  if (rows.length > 0) yield rows
}
