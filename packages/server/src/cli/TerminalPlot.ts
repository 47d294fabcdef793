/**
 * Plots a signal with braille dots: each character is two columns of four dots.
 *
 * Holds the smallest and the largest value of each column, so a peak is seen however many samples share its column. When
 * the plot is full, its oldest column goes.
 */

/** The extremes of the samples of one column of dots. */
interface Extremes {
  min: number
  max: number
}

/** Dots of the left and the right column of a character, from top to bottom. */
const dots: readonly [ReadonlyArray<number>, ReadonlyArray<number>] = [[0x01, 0x02, 0x04, 0x40], [
  0x08,
  0x10,
  0x20,
  0x80
]]
const dotsHigh = 4
const blank = 0x2800

export class TerminalPlot {
  /** The last value; undefined before the first. */
  last: number | undefined
  private readonly columns: Array<Extremes> = []
  private readonly columnsMax: number
  private readonly samplesPerColumn: number
  private inColumn = 0

  /**
   * @param width Characters.
   * @param samples How many samples it shows, at least; what is older is forgotten.
   */
  constructor(width: number, samples: number) {
    this.columnsMax = 2 * Math.max(1, width)
    this.samplesPerColumn = Math.max(1, Math.ceil(samples / this.columnsMax))
  }

  /** Takes the next value. What is not finite leaves its column as it is. */
  add(value: number): void {
    this.last = value
    const column = this.columns.at(-1)
    if (column === undefined || this.inColumn === this.samplesPerColumn) {
      this.columns.push(Number.isFinite(value) ? { min: value, max: value } : { min: Infinity, max: -Infinity })
      if (this.columns.length > this.columnsMax) this.columns.shift()
      this.inColumn = 1
      return
    }
    this.inColumn++
    if (!Number.isFinite(value)) return
    column.min = Math.min(column.min, value)
    column.max = Math.max(column.max, value)
  }

  /** Smallest and largest of what is shown; undefined when there is nothing. */
  get range(): readonly [number, number] | undefined {
    const min = this.columns.reduce((least, column) => Math.min(least, column.min), Infinity)
    const max = this.columns.reduce((most, column) => Math.max(most, column.max), -Infinity)
    return min <= max ? [min, max] : undefined
  }

  /**
   * The picture: the newest column is at the right, the smallest value at the bottom, the largest at the top.
   *
   * @param height Lines.
   * @returns So many lines, all as wide as the plot.
   */
  lines(height: number): ReadonlyArray<string> {
    const width = this.columnsMax / 2
    const cells = Array.from({ length: height }, () => new Uint8Array(width))
    const range = this.range
    if (range !== undefined) {
      const [least, most] = range
      const top = height * dotsHigh - 1
      // A constant signal runs through the middle.
      const rowOf = (value: number): number =>
        most === least ? top >> 1 : Math.round((most - value) / (most - least) * top)
      const from = this.columnsMax - this.columns.length
      for (const [i, { max, min }] of this.columns.entries()) {
        if (min > max) continue
        const at = from + i
        for (let row = rowOf(max); row <= rowOf(min); row++) {
          const line = cells[Math.floor(row / dotsHigh)]!
          line[at >> 1]! |= dots[at & 1 ? 1 : 0][row % dotsHigh]!
        }
      }
    }
    return cells.map((line) => String.fromCharCode(...Array.from(line, (dots) => blank + dots)))
  }
}

/** A number in at most eight characters: what a person can follow while it moves. */
export const shortNumber = (value: number): string => {
  if (!Number.isFinite(value)) return String(value)
  const size = Math.abs(value)
  if (size !== 0 && (size >= 1e7 || size < 1e-4)) return value.toExponential(1)
  if (Number.isInteger(value)) return String(value)
  return value.toFixed(size >= 10_000 ? 0 : size >= 100 ? 2 : size >= 10 ? 3 : 4)
}

/** `1234567` → `1,234,567`. */
export const grouped = (n: number): string => String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, ",")

/** Bytes as people read them: `1.2 MB`. */
export const bytesText = (bytes: number): string => {
  const units = ["B", "kB", "MB", "GB", "TB"]
  const power = Math.min(units.length - 1, bytes < 1000 ? 0 : Math.floor(Math.log10(bytes) / 3))
  return `${power === 0 ? Math.round(bytes) : (bytes / 1000 ** power).toFixed(1)} ${units[power]}`
}

/** Seconds as people read them: `4.2 s`, `3 min 5 s`. */
export const secondsText = (seconds: number): string =>
  seconds < 100 ? `${seconds.toFixed(1)} s` : `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`
