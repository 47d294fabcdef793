/** What happened, line by line: a hash of all of it, and the last lines to read. */

export class Trace {
  private readonly kept: Array<string> = []
  private low = 0x811c9dc5
  private high = 0x01000193
  private count = 0
  private readonly linesMax: number

  /** @param linesMax Lines it holds. */
  constructor(linesMax: number) {
    this.linesMax = linesMax
  }

  say(now: number, text: string): void {
    const line = `${now.toFixed(3).padStart(11)} ${text}`
    for (let i = 0; i < line.length; i++) {
      const code = line.charCodeAt(i)
      this.low = Math.imul(this.low ^ code, 0x01000193)
      this.high = Math.imul(this.high ^ code, 0x5bd1e995) ^ (this.high >>> 13)
    }
    this.kept[this.count++ % this.linesMax] = line
  }

  /** Of every line so far: 16 hexadecimal digits. */
  get hash(): string {
    return [this.low, this.high].map((n) => (n >>> 0).toString(16).padStart(8, "0")).join("")
  }

  /** The last lines, oldest first. */
  get last(): ReadonlyArray<string> {
    const from = Math.max(0, this.count - this.linesMax)
    return Array.from({ length: this.count - from }, (_, i) => this.kept[(from + i) % this.linesMax]!)
  }
}
