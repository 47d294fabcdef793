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
  type GapReason,
  indexMax,
  isFrameError,
  kinds,
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

  /** `none`; or the queue was full and there is no room yet; or there is and the device was told to resend. */
  private rewind: "none" | "wanted" | "told" = "none"
  /** Bytes of new frames since the device was told to rewind. */
  private bytesSinceTold = 0
  private readonly gaps: Array<IndexGap>
  private readonly live: Live
  private readonly queue: WriteQueueShape
  private readonly limits: CoreLimitValues
  private readonly now: () => number
  private track: Track | undefined

  constructor(
    record: EpochRecord,
    gaps: ReadonlyArray<IndexGap>,
    live: Live,
    queue: WriteQueueShape,
    limits: CoreLimitValues,
    now: () => number
  ) {
    this.epoch = record.epoch
    this.bootId = record.bootId
    this.durable = this.queued = this.shown = record.durable
    this.gaps = [...gaps]
    this.live = live
    this.queue = queue
    this.limits = limits
    this.now = now
  }

  /** Where the device goes on, and what its `received` acks say: rewound, it counts from where it resends. */
  get received(): number {
    return this.rewind === "told" ? this.queued : this.shown
  }

  /** Whether frames were shown that are neither stored nor queued. */
  get isRewinding(): boolean {
    return this.rewind !== "none"
  }

  /** A device that says hello is told `received` as its next: it resends all that was shown and not queued. */
  resume(): number {
    if (this.rewind !== "none") this.tellRewind(false)
    return this.received
  }

  /** Gives up what was shown and never queued, when no device is there to resend it. Viewers are told that it is lost. */
  abandon(): void {
    if (this.rewind !== "none") this.giveUp()
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
    if (index > this.shown) {
      const refusal = this.noteGap({ from: this.shown, to: index })
      if (refusal !== undefined) return refusal
    }
    const frame = new Frame(this.epoch, index, next, t0, message.slice())
    const track = this.track ?? this.begin(frame)
    if (this.rewind === "told") {
      // What was on its way when the rewind left. A device that never resends gives itself away by the window.
      this.bytesSinceTold += frame.bytes.length
      if (this.bytesSinceTold > 2 * protocolLimits.windowBytes.value) this.giveUp()
    }
    if (this.rewind === "none") {
      if (this.queue.offer(track, frame)) this.queued = next
      else this.wantRewind()
    }
    this.shown = next
    this.live.publish(frame)
    this.peer?.onProgress()
    return undefined
  }

  private takeRepeat(index: number, next: number): FrameError | undefined {
    if (this.gaps.some((gap) => index < gap.to && next > gap.from)) {
      return frameError(
        "OutOfOrder",
        `Cannot accept the frame at ${this.epoch}:${index}: the stream has passed over it and is at ${this.received}`
      )
    }
    this.counts.duplicate++
    this.peer?.onProgress()
    return undefined
  }

  /** Shown before and not queued then: goes into the queue, and not to the viewers again. */
  private takeResent(index: number, next: number, t0: number | undefined, message: Uint8Array): FrameError | undefined {
    if (this.rewind !== "told") return undefined
    if (this.track === undefined) return undefined
    if (!this.queue.offer(this.track, new Frame(this.epoch, index, next, t0, message.slice()))) {
      this.wantRewind()
      return undefined
    }
    if (index > this.queued) this.lose({ from: this.queued, to: index })
    this.queued = next
    if (this.queued === this.shown) this.rewind = "none"
    this.bytesSinceTold = 0
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
      onDurable: (next) => {
        this.durable = next
        this.live.moveDurable({ epoch: this.epoch, index: next })
        this.peer?.onProgress()
      },
      onFenced: (met) => {
        if (this.live.intake === this) this.live.intake = undefined
        this.peer?.onFenced(met)
      }
    }
    return this.track
  }

  private wantRewind(): void {
    if (this.rewind === "wanted") return
    this.rewind = "wanted"
    this.queue.onRoom(() => {
      if (this.rewind === "wanted") this.tellRewind(true)
    })
  }

  private tellRewind(aloud: boolean): void {
    this.rewind = "told"
    this.bytesSinceTold = 0
    if (aloud) this.peer?.onRewind(this.queued)
  }

  /** The device goes on as if it had not been told to resend: what it showed and did not resend is lost. */
  private giveUp(): void {
    this.lose({ from: this.queued, to: this.shown })
    this.queued = this.shown
    this.rewind = "none"
  }

  private lose(gap: IndexGap): void {
    this.noteGap(gap)
    this.tellGap(gap, "lost")
  }

  private tellGap(gap: IndexGap, reason: GapReason): void {
    const at = (index: number): { readonly epoch: number; readonly index: number } => ({ epoch: this.epoch, index })
    this.live.tellGap({ kind: kinds.gap, from: at(gap.from), to: at(gap.to), reason })
  }

  private noteGap(gap: IndexGap): FrameError | undefined {
    if (this.gaps.length >= this.limits.gapsMax) {
      return frameError(
        "OutOfOrder",
        `Cannot accept the frame at ${this.epoch}:${gap.to}: the epoch has ${this.gaps.length} gaps, begin a new one`
      )
    }
    this.gaps.push(gap)
    return undefined
  }
}

const lowerFirst = (text: string): string => text.charAt(0).toLowerCase() + text.slice(1)
