/**
 * One session while somebody publishes or watches it: its recent frames, where it stands, and who watches.
 *
 * The data plane: plain functions, called from socket callbacks, with no fiber, promise or closure per frame or per
 * viewer. The ring holds every frame from {@link Live.kept} on; it is bounded in bytes, and what it forgets is in the
 * archive or, while the queue is full, nowhere until the device resends it.
 */
import { comparePositions, type Gap, type Position } from "@thrum/protocol"
import type { Frame } from "./Frame.ts"
import type { CoreLimitValues } from "./Limits.ts"
import type { Publisher } from "./Publisher.ts"
import { durableOf, type SessionId, type SessionRecord } from "./Session.ts"
import type { EpochStart, Intake } from "./Intake.ts"

/** One who watches. The methods are called in the order of events, must not throw and must not wait. */
export interface Viewer {
  readonly frame: (frame: Frame) => void
  readonly gap: (gap: Gap) => void
  readonly durable: (position: Position) => void
  /** No more events: the session has ended, or what comes next is in the archive and not here. */
  readonly stop: () => void
}

/** Bytes in all rings together, shared by all sessions of a hub. */
export interface RingsBytes {
  bytes: number
}

export class Live {
  readonly id: SessionId
  /** As the archive had it when this was opened; `state` and watermarks live here, not there. */
  readonly record: SessionRecord
  /** After the last frame shown. */
  head: Position
  /** Everything before it is stored for certain. */
  durable: Position
  /** After the last sample, once sealed. */
  ended: Position | undefined
  /** Every frame from this position on that was ever shown is in the ring. */
  kept: Position
  /** Where each epoch begins, for the viewers' epoch frames. */
  readonly epochs: Map<number, EpochStart> = new Map()
  readonly viewers: Set<Viewer> = new Set()
  /** The current epoch's intake, once a device has said hello here. */
  intake: Intake | undefined
  /** Who publishes, now. */
  publisher: Publisher | undefined

  private readonly limits: CoreLimitValues
  private readonly rings: RingsBytes
  // A deque on an array: frames before `oldest` are gone, and cut off when they are half of it.
  private ring: Array<Frame | undefined> = []
  private oldest = 0
  private ringBytes = 0
  private readonly lost: Array<Gap> = []
  private lostBefore = 0
  private readonly waiting: Set<() => void> = new Set()

  constructor(record: SessionRecord, limits: CoreLimitValues, rings: RingsBytes) {
    this.id = record.id
    this.record = record
    this.limits = limits
    this.rings = rings
    this.head = this.durable = this.kept = durableOf(record)
    this.ended = record.state === "ended" ? this.durable : undefined
    for (const { epoch, t0, wall, index } of record.epochs) {
      if (wall !== undefined && index !== undefined) this.epochs.set(epoch, { t0, wall, index })
    }
  }

  /** Shows `frame` to everyone who watches, and remembers it for those who join. */
  publish(frame: Frame): void {
    this.head = { epoch: frame.epoch, index: frame.next }
    this.ring.push(frame)
    this.ringBytes += frame.bytes.length
    this.rings.bytes += frame.bytes.length
    while (this.ringBytes > this.limits.ringBytesMax || this.rings.bytes > this.limits.ringsBytesMax) {
      if (!this.forgetOldest()) break
    }
    for (const viewer of this.viewers) viewer.frame(frame)
  }

  /**
   * Tells the viewers of samples that were shown and will never be stored; those who are set aside, when they are back.
   * Who joins from now on is not shown them.
   */
  tellLost(gap: Gap): void {
    if (this.lost.push(gap) > this.limits.lostMax) {
      this.lost.shift()
      this.lostBefore++
    }
    for (const frame of this.ring.splice(this.oldest)) {
      if (frame === undefined || !isWithin(frame, gap)) this.ring.push(frame)
      else this.giveBack(frame)
    }
    for (const viewer of this.viewers) viewer.gap(gap)
  }

  /** Gaps told lost so far: a number for {@link lostSince}. */
  get lostCount(): number {
    return this.lostBefore + this.lost.length
  }

  /** What was told lost since `count`. The last `CoreLimits.lostMax` are remembered. */
  lostSince(count: number): ReadonlyArray<Gap> {
    return count === this.lostCount ? [] : this.lost.slice(Math.max(0, count - this.lostBefore))
  }

  /** Moves the durable watermark, never back. */
  moveDurable(position: Position): void {
    if (comparePositions(position, this.durable) <= 0) return
    this.durable = position
    this.wake()
  }

  /** The archive has moved on to `position` without us: who watches must go there for what was never shown here. */
  catchUp(position: Position): void {
    this.clear()
    this.head = this.kept = position
    this.moveDurable(position)
    for (const viewer of this.viewers) viewer.stop()
  }

  /** Seals: nothing is published after this, and the archive has all there is. */
  end(position: Position): void {
    this.ended = position
    this.catchUp(position)
    this.wake()
  }

  /** Calls `resume` once, when the durable watermark moves or the session ends. Returns how to take that back. */
  onMove(resume: () => void): () => void {
    this.waiting.add(resume)
    return () => {
      this.waiting.delete(resume)
    }
  }

  /** Whether every frame shown from `position` on is in the ring. */
  covers(position: Position): boolean {
    return comparePositions(position, this.kept) >= 0
  }

  /** The ring's frames that end after `position`, oldest first, until `take` answers false. */
  replay(position: Position, take: (frame: Frame) => boolean): void {
    for (let i = this.oldest; i < this.ring.length; i++) {
      const frame = this.ring[i]!
      const isBefore = frame.epoch < position.epoch || (frame.epoch === position.epoch && frame.next <= position.index)
      if (!isBefore && !take(frame)) return
    }
  }

  /** Gives the ring's bytes back. */
  clear(): void {
    while (this.forgetOldest()) { /* each call forgets one */ }
  }

  private wake(): void {
    // Who wakes may find that it must wait again: that is for the next time.
    const waiting = [...this.waiting]
    this.waiting.clear()
    for (const resume of waiting) resume()
  }

  private giveBack(frame: Frame): void {
    this.ringBytes -= frame.bytes.length
    this.rings.bytes -= frame.bytes.length
  }

  private forgetOldest(): boolean {
    const frame = this.ring[this.oldest]
    if (frame === undefined) return false
    this.ring[this.oldest++] = undefined
    this.giveBack(frame)
    this.kept = { epoch: frame.epoch, index: frame.next }
    if (this.oldest * 2 > this.ring.length) {
      this.ring = this.ring.slice(this.oldest)
      this.oldest = 0
    }
    return true
  }
}

const isWithin = (frame: Frame, { from, to }: Gap): boolean =>
  frame.epoch === from.epoch && frame.index >= from.index && frame.next <= to.index
