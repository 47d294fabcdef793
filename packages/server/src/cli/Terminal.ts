/**
 * What a command shows while it works: lines that stay, and a picture that is drawn over itself on a terminal.
 *
 * On anything but a terminal nothing is drawn: a line now and then takes the picture's place, so that logs stay readable.
 * Writing goes straight to the stream; the kernel's buffer is the only one.
 */
import type { WriteStream } from "node:tty"

/** Lines of a live picture, redrawn in place. */
export class Picture {
  readonly isTerminal: boolean
  private readonly stream: NodeJS.WriteStream & Partial<Pick<WriteStream, "columns" | "rows">>
  private height = 0
  private drawnAt = -Infinity
  private readonly everyMs: number

  /**
   * @param everyMs Least time between two drawings on a terminal.
   * @param quietMs And between two lines elsewhere.
   */
  constructor(stream: NodeJS.WriteStream, everyMs: number = 100, quietMs: number = 5000) {
    this.stream = stream
    this.isTerminal = stream.isTTY && process.env["TERM"] !== "dumb"
    this.everyMs = this.isTerminal ? everyMs : quietMs
  }

  /** Characters of a line. */
  get columns(): number {
    return Math.max(20, this.stream.columns ?? 80)
  }

  get rows(): number {
    return Math.max(4, this.stream.rows ?? 24)
  }

  /** Whether it is time to draw again. */
  get isDue(): boolean {
    return performance.now() - this.drawnAt >= this.everyMs
  }

  /** Draws over what was drawn before; elsewhere than on a terminal, writes the lines. */
  draw(lines: ReadonlyArray<string>): void {
    this.drawnAt = performance.now()
    if (!this.isTerminal) {
      this.stream.write(lines.map((line) => `${line}\n`).join(""))
      return
    }
    const shown = lines.slice(0, this.rows - 1).map((line) => `${cut(line, this.columns - 1)}\x1b[K\n`)
    this.stream.write(`${this.home()}\x1b[?25l${shown.join("")}\x1b[J`)
    this.height = shown.length
  }

  /** Writes a line that stays, above the picture. */
  line(text: string): void {
    this.stream.write(`${this.erase()}${text}\n`)
  }

  /** Ends the picture: it stays where it is, or goes. */
  end(keep: boolean): void {
    this.stream.write(keep ? this.show() : this.erase())
    this.height = 0
  }

  private home(): string {
    return this.height > 0 ? `\x1b[${this.height}A\r` : ""
  }

  private show(): string {
    return this.isTerminal && this.height > 0 ? "\x1b[?25h" : ""
  }

  private erase(): string {
    const text = this.height > 0 ? `${this.home()}\x1b[J${this.show()}` : ""
    this.height = 0
    return text
  }
}

/** A line cut to so many characters, without counting colours. */
const cut = (line: string, width: number): string => {
  const characters = Array.from(line)
  return characters.length <= width ? line : characters.slice(0, width).join("")
}

/** `[#########-----------]`, for a share of 0 … 1. */
export const bar = (share: number, width: number): string => {
  const full = Math.round(Math.max(0, Math.min(1, share)) * width)
  return `[${"█".repeat(full)}${"░".repeat(width - full)}]`
}
