/**
 * What one viewer saw of a session, over all its connections, held against §7.3 as it comes and against the data at
 * the end. Bounded by the session's length.
 */
import { comparePositions, formatPosition, type Gap, kinds, type Position, type ViewerFrame } from "@thrum/protocol"
import type { Stored } from "./Checker.ts"
import type { Ledger } from "./Ledger.ts"
import { frameAt, isSame } from "./Stream.ts"
import type { Tally } from "./Tally.ts"

interface Shown {
  readonly epoch: number
  readonly index: number
  readonly next: number
  /** Told to be durable, on the connection that showed it. */
  promised: boolean
}

const start: Position = { epoch: 0, index: 0 }

export class Sight {
  /** Where to come back; undefined while it is "now". */
  next: Position | undefined
  /** The position of the ended frame. */
  ended: Position | undefined
  /** When the last samples frame came, and its position after. */
  shownAt = 0
  private readonly ledger: Ledger
  private readonly tally: Tally
  private begin: Position | undefined
  private readonly seen: Map<string, Shown> = new Map()
  private readonly gaps: Array<Gap> = []
  // Of the connection:
  private epoch: number | undefined
  private durable: Position = start
  private unpromised: Array<Shown> = []

  constructor(ledger: Ledger, from: "start" | "now", tally: Tally) {
    this.ledger = ledger
    this.tally = tally
    this.next = from === "start" ? start : undefined
  }

  /** A connection begins. */
  connect(): void {
    this.epoch = undefined
    this.durable = start
    this.unpromised = []
  }

  take(frame: ViewerFrame, message: Uint8Array): void {
    switch (frame.kind) {
      case kinds.viewerWelcome:
        if (this.next !== undefined && comparePositions(this.next, frame.from) !== 0) {
          this.breaks("holes", `asked for ${formatPosition(this.next)}, welcomed at ${formatPosition(frame.from)}`)
        }
        this.begin ??= frame.from
        this.next = frame.from
        return
      case kinds.epoch:
        this.epoch = frame.epoch
        if (frame.epoch > this.at.epoch) this.next = { epoch: frame.epoch, index: 0 }
        return
      case kinds.samples:
        return this.takeSamples(frame.index, message)
      case kinds.gap:
        return this.takeGap(frame)
      case kinds.durable:
        return this.takeDurable(frame.position)
      case kinds.ended:
        this.ended = frame.position
        return
      default:
        return
    }
  }

  /** After the end: everything stored was seen or told to be skipped, and nothing was told that is not so. */
  compare(stored: Stored): void {
    const begin = this.begin
    if (this.ended === undefined || begin === undefined) return
    if (comparePositions(this.ended, stored.end) !== 0) {
      this.breaks("broken", `was told the end ${formatPosition(this.ended)}, it is ${formatPosition(stored.end)}`)
    }
    for (const { epoch, index, next } of stored.frames) {
      if (comparePositions({ epoch, index }, begin) < 0) continue
      const told = this.gaps.filter((gap) => covers(gap, epoch, index, next))
      const wrong = told.find((gap) => gap.reason !== "skipped")
      if (wrong !== undefined) {
        this.breaks("broken", `was told that ${epoch}:${index} is not coming (${wrong.reason}), and it is stored`)
      } else if (told.length === 0 && !this.seen.has(`${epoch}:${index}`)) {
        this.breaks("holes", `${epoch}:${index} is stored, and was neither shown nor told to be missing`)
      }
    }
    for (const { epoch, index, next, promised } of this.seen.values()) {
      if (!promised || stored.has(epoch, index)) continue
      if (this.gaps.some((gap) => gap.reason === "lost" && covers(gap, epoch, index, next))) continue
      this.tally.breaks("lost", next - index, `${this.name}: ${epoch}:${index} was shown and told durable, not stored`)
    }
  }

  private get at(): Position {
    return this.next ?? start
  }

  private get name(): string {
    return `viewer of session ${this.ledger.id}`
  }

  private breaks(what: "holes" | "broken" | "foreign", sentence: string): void {
    this.tally.breaks(what, 1, `${this.name}: ${sentence}`)
  }

  private takeSamples(index: number, message: Uint8Array): void {
    if (this.epoch === undefined) return this.breaks("broken", "samples came before their epoch")
    const boot = this.ledger.bootOf(this.epoch)
    const entry = boot?.entries.get(index)
    if (boot === undefined || entry === undefined) {
      return this.breaks("foreign", `${this.epoch}:${index} was shown and never produced`)
    }
    if (!isSame(message, frameAt(this.ledger.stream, boot.number, index).bytes)) {
      return this.breaks("foreign", `${this.epoch}:${index} was shown with other bytes than were produced`)
    }
    const { next } = entry
    const at = this.at
    const order = comparePositions({ epoch: this.epoch, index }, at)
    if (order < 0) {
      return this.tally.breaks(
        "repeats",
        next - index,
        `${this.name}: ${this.epoch}:${index} came at ${formatPosition(at)}`
      )
    }
    if (order > 0) this.breaks("holes", `${this.epoch}:${index} came at ${formatPosition(at)}, and no gap was told`)
    this.next = { epoch: this.epoch, index: next }
    const shown = { epoch: this.epoch, index, next, promised: false }
    this.seen.set(`${this.epoch}:${index}`, shown)
    this.unpromised.push(shown)
    this.shownAt = Date.now()
    this.tally.counts("samples shown", next - index)
  }

  private takeGap(gap: Gap): void {
    const at = this.at
    this.gaps.push(gap)
    if (gap.reason === "lost") {
      if (comparePositions(gap.to, at) > 0) {
        this.breaks("broken", `lost up to ${formatPosition(gap.to)} was told at ${formatPosition(at)}`)
      }
      return
    }
    const isHere = comparePositions(gap.from, at) === 0 || (gap.from.epoch > at.epoch && gap.from.index === 0)
    if (!isHere || comparePositions(gap.to, gap.from) <= 0) {
      this.breaks(
        "holes",
        `a gap of ${formatPosition(gap.from)} to ${formatPosition(gap.to)} came at ${formatPosition(at)}`
      )
    }
    this.next = gap.to
  }

  private takeDurable(position: Position): void {
    if (comparePositions(position, this.durable) < 0) {
      this.breaks("broken", `durable went from ${formatPosition(this.durable)} to ${formatPosition(position)}`)
    }
    this.durable = position
    this.unpromised = this.unpromised.filter((shown) => {
      shown.promised = comparePositions({ epoch: shown.epoch, index: shown.next }, position) <= 0
      return !shown.promised
    })
  }
}

const covers = ({ from, to }: Gap, epoch: number, index: number, next: number): boolean =>
  comparePositions(from, { epoch, index }) <= 0 && comparePositions({ epoch, index: next }, to) <= 0
