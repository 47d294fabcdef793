/**
 * How frames of one epoch come in: checked, put in order, shown, queued. One per epoch that a device publishes here; it
 * outlives the device's connections, so that one that reconnects continues where it was.
 *
 * Three indexes stand for where it is. `durable ≤ queued ≤ shown`: stored for certain; handed to the write queue; shown
 * to viewers. The last two part when the queue is full: frames are then shown and not queued, and once there is room
 * the device is told to rewind to `queued`. What it resends is queued and not shown a second time.
 *
 * Plain functions: `accept` runs in the socket's callback.
 */
import {
  checkBlock,
  fitsIndex,
  type FrameError,
  frameError,
  indexMax,
  isFrameError,
  kinds,
  type Position,
  protocolLimits,
  readSamples
} from "@thrum/protocol"
import type { Appended } from "./Archive.ts"
import { Frame } from "./Frame.ts"
import type { CoreLimitValues } from "./Limits.ts"
import type { Live } from "./Live.ts"
import type { EpochRecord } from "./Session.ts"
import type { Track, WriteQueueShape } from "./WriteQueue.ts"

/** Where and when an epoch begins, see `EpochRecord`. */
export interface EpochStart {
  readonly t0: number | undefined
  readonly wall: number
  readonly index: number
}

/** Indexes that were passed over: `[from, to)`. */
export interface IndexGap {
  readonly from: number
  readonly to: number
}

/** Frames and samples since this intake was opened: received = queued + unqueued + duplicate + rejected. */
export interface IntakeCounts {
  received: number
  duplicate: number
  rejected: number
}

/** What an intake tells whoever publishes. */
export interface IntakePeer {
  /** `received` or `durable` moved. */
  readonly onProgress: () => void
  /** Resend from `next`. */
  readonly onRewind: (next: number) => void
  /** The archive has moved on without this intake; what was not durable must be resent on a new connection. */
  readonly onFenced: (met: Appended) => void
}

export class Intake {
  readonly epoch: number
  readonly bootId: string
  readonly counts: IntakeCounts = { received: 0, duplicate: 0, rejected: 0 }
  /** Everything before it is stored for certain. */
  durable: number
  /** Everything before it is stored or in the write queue. */
  queued: number
  /** Everything before it was shown. */
  shown: number
  /** Who is told. Changes with each connection. */
  peer: IntakePeer | undefined
  /** No frame is accepted any more: the session is being sealed. */
  sealing = false
  /** Another writer has moved the epoch on: nothing more of this intake will be stored. */
  isFenced = false

  /**
   * `none`; or the queue was full and there is no room yet; or there is and the device was told to resend; or it has
   * begun to.
   */
  private rewind: "none" | "wanted" | "told" | "resending"
  /** After the last frame that was not a repeat. Who was told to rewind and has not heard it yet goes on from there. */
  private sent = 0
  /** Bytes of new frames since the device was told to rewind. */
  private bytesSinceTold = 0
  private readonly gaps: Array<IndexGap>
  private readonly live: Live
  private readonly queue: Pick<WriteQueueShape, "offer" | "onRoom">
  private readonly limits: CoreLimitValues
  private readonly now: () => number
  private track: Track | undefined

  /**
   * @param gaps What the epoch leaves out, as the archive has it.
   * @param older The intake whose place this one takes. What that one showed in the same epoch is not shown again.
   */
  constructor(
    record: EpochRecord,
    gaps: ReadonlyArray<IndexGap>,
    older: Intake | undefined,
    live: Live,
    queue: Pick<WriteQueueShape, "offer" | "onRoom">,
    limits: CoreLimitValues,
    now: () => number
  ) {
    this.epoch = record.epoch
    this.bootId = record.bootId
    const before = older?.epoch === record.epoch ? older : undefined
    this.durable = this.queued = record.durable
    this.shown = Math.max(record.durable, before?.shown ?? 0)
    this.rewind = this.queued < this.shown ? "resending" : "none"
    this.gaps = [...gaps, ...before?.gaps.filter((gap) => gap.from >= record.durable) ?? []]
    this.live = live
    this.queue = queue
    this.limits = limits
    this.now = now
  }

  /** Where the device goes on, and what its `received` acks say: rewound, it counts from where it resends. */
  get received(): number {
    return this.rewind === "told" || this.rewind === "resending" ? this.queued : this.shown
  }

  /** Whether frames were shown that are neither stored nor queued. */
  get isRewinding(): boolean {
    return this.queued < this.shown
  }

  /** A device that says hello is told `received` as its next: it resends all that was shown and not queued. */
  resume(): number {
    if (this.rewind !== "none") this.rewind = "resending"
    return this.received
  }

  /** Gives up what was shown and is in `unstored` for good: no device will resend it. Viewers are told that it is lost. */
  abandon(unstored: ReadonlyArray<IndexGap>): void {
    for (const shown of this.missing(this.queued, this.shown)) {
      for (const gap of unstored) {
        const [from, to] = [Math.max(gap.from, shown.from), Math.min(gap.to, shown.to)]
        if (from < to) this.lose([{ from, to }])
      }
    }
  }

  /** Everything before `durable` is stored for certain, whoever has stored it. */
  confirm(durable: number): void {
    if (durable <= this.durable) return
    this.durable = durable
    this.live.moveDurable({ epoch: this.epoch, index: durable })
    this.peer?.onProgress()
  }

  /** Another writer has moved the epoch on, and not with what was queued here. */
  fence(): void {
    this.isFenced = true
    this.queued = this.durable
  }

  /**
   * Takes one samples frame of the device. Synchronous; keeps a copy, never the message.
   *
   * @returns Undefined when it was accepted (or was a duplicate, which is as good); else why not, by code.
   */
  accept(message: Uint8Array): FrameError | undefined {
    this.counts.received++
    const refusal = this.take(message)
    if (refusal !== undefined) this.counts.rejected++
    return refusal
  }

  private take(message: Uint8Array): FrameError | undefined {
    if (this.isFenced) {
      return frameError("Overloaded", `Cannot accept the frame: another writer has moved epoch ${this.epoch} on`)
    }
    if (this.sealing) {
      // Not "has ended": sealing may yet fail. A device that comes back then is told for certain.
      return frameError("Overloaded", `Cannot accept the frame: the session "${this.live.id}" is being sealed`)
    }
    const samples = readSamples(message)
    if (isFrameError(samples)) return samples
    const { index, t0, block } = samples
    const count = checkBlock(block, this.live.record.description.channels.length)
    if (isFrameError(count)) {
      return frameError(count.name, `Cannot accept the frame at ${this.epoch}:${index}: ${lowerFirst(count.message)}`)
    }
    if (!fitsIndex(index, count)) {
      return frameError(
        "BadFrame",
        `Cannot accept the frame at ${this.epoch}:${index}: its last index is over ${indexMax}`
      )
    }
    const next = index + count
    if (index >= this.shown) return this.takeNew(index, next, t0, message)
    if (next <= this.queued) return this.takeRepeat(index, next)
    if (index >= this.queued && next <= this.shown) return this.takeResent(index, next, t0, message)
    return frameError(
      "OutOfOrder",
      `Cannot accept the frame at ${this.epoch}:${index}: it runs to ${next} and the stream is at ${this.received}`
    )
  }

  private takeNew(index: number, next: number, t0: number | undefined, message: Uint8Array): FrameError | undefined {
    // Until the device has heard of the rewind it sends on. One that never resends gives itself away by the window, one
    // that no longer has what it should resend by what it sends instead.
    const givesUp = this.rewind === "resending" ||
      (this.rewind === "told" && this.bytesSinceTold + message.length > 2 * protocolLimits.windowBytes.value)
    const lost = givesUp ? this.missing(this.queued, this.shown) : []
    if (this.gaps.length + lost.length + Number(index > this.shown) > this.limits.gapsMax) return this.refuseGap(index)
    if (givesUp) this.giveUp(lost)
    if (index > this.shown) this.gaps.push({ from: this.shown, to: index })
    const frame = new Frame(this.epoch, index, next, t0, message.slice())
    const track = this.track ?? this.begin(frame)
    if (this.rewind === "told") this.bytesSinceTold += frame.bytes.length
    if (this.rewind === "none") {
      if (this.queue.offer(track, frame)) this.queued = next
      else this.wantRewind()
    }
    this.shown = this.sent = next
    this.live.publish(frame)
    this.peer?.onProgress()
    return undefined
  }

  private takeRepeat(index: number, next: number): FrameError | undefined {
    if (this.isPassedOver(index, next)) return this.refuseLate(index)
    this.counts.duplicate++
    this.peer?.onProgress()
    return undefined
  }

  /** Shown before and not queued then: goes into the queue, and not to the viewers again. */
  private takeResent(index: number, next: number, t0: number | undefined, message: Uint8Array): FrameError | undefined {
    if (this.isPassedOver(index, next)) return this.refuseLate(index)
    // It was on its way when the device was told to rewind, again.
    const isOld = this.rewind !== "resending" && index >= this.sent
    this.sent = next
    if (this.rewind === "wanted" || isOld) return undefined
    this.rewind = "resending"
    const lost = index > this.queued ? this.missing(this.queued, index) : []
    if (this.gaps.length + lost.length > this.limits.gapsMax) return this.refuseGap(index)
    const frame = new Frame(this.epoch, index, next, t0, message.slice())
    if (!this.queue.offer(this.track ?? this.begin(frame), frame)) {
      this.wantRewind()
      return undefined
    }
    this.lose(lost)
    this.queued = next
    if (this.queued === this.shown) this.rewind = "none"
    this.peer?.onProgress()
    return undefined
  }

  private begin(first: Frame): Track {
    const known = this.live.epochs.get(this.epoch)
    // The frame arrives when its last sample is taken; the epoch begins with its first.
    const duration = Math.round((first.next - first.index) * 1e6 / this.live.record.description.rate)
    const start = known ?? { t0: first.t0, wall: this.now() * 1000 - duration, index: first.index }
    if (known === undefined) this.live.epochs.set(this.epoch, start)
    this.track = {
      sessionId: this.live.id,
      epoch: this.epoch,
      start,
      expected: this.durable,
      pending: [],
      outstanding: 0,
      onDurable: (next) => this.confirm(next),
      onFenced: (met) => {
        this.fence()
        // A later epoch has begun: nobody will ask again what became of this one.
        if (this.live.intake !== undefined && this.live.intake.epoch !== this.epoch) {
          this.abandon([{ from: met.durable, to: indexMax }])
        }
        this.peer?.onFenced(met)
      }
    }
    return this.track
  }

  private wantRewind(): void {
    if (this.rewind === "wanted") return
    this.rewind = "wanted"
    this.queue.onRoom(() => {
      if (this.rewind !== "wanted") return
      this.rewind = "told"
      this.bytesSinceTold = 0
      this.peer?.onRewind(this.queued)
    })
  }

  /** The device goes on as if it had not been told to resend: what it showed and did not resend is lost. */
  private giveUp(lost: ReadonlyArray<IndexGap>): void {
    this.lose(lost)
    this.queued = this.shown
    this.rewind = "none"
  }

  private lose(lost: ReadonlyArray<IndexGap>): void {
    const at = (index: number): Position => ({ epoch: this.epoch, index })
    for (const gap of lost) {
      this.gaps.push(gap)
      this.live.tellLost({ kind: kinds.gap, from: at(gap.from), to: at(gap.to), reason: "lost" })
    }
  }

  /** What was shown of `[from, to)`: all but what the device itself had passed over. */
  private missing(from: number, to: number): ReadonlyArray<IndexGap> {
    const missing: Array<IndexGap> = []
    for (const gap of this.gaps.filter((gap) => gap.to > from && gap.from < to).toSorted((a, b) => a.from - b.from)) {
      if (from < gap.from) missing.push({ from, to: gap.from })
      from = gap.to
    }
    if (from < to) missing.push({ from, to })
    return missing
  }

  private isPassedOver(index: number, next: number): boolean {
    return this.gaps.some((gap) => index < gap.to && next > gap.from)
  }

  private refuseLate(index: number): FrameError {
    return frameError(
      "OutOfOrder",
      `Cannot accept the frame at ${this.epoch}:${index}: the stream has passed over it and is at ${this.received}`
    )
  }

  private refuseGap(index: number): FrameError {
    return frameError(
      "OutOfOrder",
      `Cannot accept the frame at ${this.epoch}:${index}: the epoch has ${this.gaps.length} gaps, begin a new one`
    )
  }
}

const lowerFirst = (text: string): string => text.charAt(0).toLowerCase() + text.slice(1)
