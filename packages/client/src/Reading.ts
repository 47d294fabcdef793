/**
 * What a viewer's stream means: frames become events, each sample once, in order, and nothing missing without a word.
 * The same for a live stream, over as many connections as it takes, and for a recording.
 *
 * Holds one position: what comes before it is not wanted, or was handed on.
 */
import {
  type Block,
  comparePositions,
  formatPosition,
  type GapReason,
  isFrameError,
  kinds,
  numbersOf,
  type Position,
  readBlock,
  sampleCount,
  type Samples,
  type SessionInfo,
  textsOf,
  type ViewerFrame
} from "@thrum/protocol"
import { ownError, type ThrumError } from "./ThrumError.ts"

/** What is measured, and where what follows begins. Once, first. */
export interface WelcomeEvent {
  readonly type: "welcome"
  readonly session: SessionInfo
  readonly from: Position
}

/** A power-up of the device: the samples that follow are of it. */
export interface EpochEvent {
  readonly type: "epoch"
  readonly epoch: number
  /** Index of the epoch's first sample. */
  readonly index: number
  /** Its device time, µs; undefined when the device has no clock. */
  readonly t0: number | undefined
  /** Its time by the server's clock, µs since 1970. */
  readonly wall: number
}

/**
 * Samples that are not coming. `device`: never stored. `skipped`: this viewer was too slow and asked for the latest; they
 * can be had by another request. `lost`: they were shown and will never be stored; they lie before the position, and
 * whoever kept them has what nobody else has.
 */
export interface GapEvent {
  readonly type: "gap"
  readonly from: Position
  readonly to: Position
  readonly reason: GapReason
}

/** Everything before `position` is stored for certain. */
export interface DurableEvent {
  readonly type: "durable"
  readonly position: Position
}

/** What comes now is live. Again after each time that a connection was lost. */
export interface CaughtUpEvent {
  readonly type: "caught-up"
  readonly position: Position
}

/** The session is sealed; `position` is after its last sample. Last. */
export interface EndedEvent {
  readonly type: "ended"
  readonly position: Position
}

/** What a recording holds, and what a viewer is told of it. */
export type RecordingEvent = WelcomeEvent | EpochEvent | Batch | GapEvent | DurableEvent | CaughtUpEvent | EndedEvent

/** When samples of an epoch were taken. */
interface Start {
  readonly index: number
  readonly t0: number | undefined
  readonly wall: number
}

/** Samples that follow each other, for the first time: those of one frame, or what is new of them. */
export class Batch {
  readonly type = "samples"
  /** Of the first. */
  readonly position: Position
  readonly count: number
  readonly session: SessionInfo
  /** Bytes of the frame. */
  readonly bytes: number
  private readonly frame: Samples
  private readonly skip: number
  private readonly start: Start
  private block: Block | undefined

  /** Made by `watch` and `readRecording`. */
  constructor(
    session: SessionInfo,
    frame: Samples,
    count: number,
    place: { readonly epoch: number; readonly skip: number; readonly start: Start; readonly bytes: number }
  ) {
    this.session = session
    this.frame = frame
    this.skip = place.skip
    this.start = place.start
    this.bytes = place.bytes
    this.position = { epoch: place.epoch, index: frame.index + place.skip }
    this.count = count - place.skip
  }

  /** Values of a sample. */
  get channels(): number {
    return this.session.channels.length
  }

  /** After the last sample. */
  get next(): Position {
    return { epoch: this.position.epoch, index: this.position.index + this.count }
  }

  /** Numbers in the channels' units, sample after sample: channel `c` of sample `i` is at `i * channels + c`. */
  get values(): Float64Array {
    return numbersOf(this.open(), this.session.channels).subarray(this.skip * this.channels)
  }

  /** The device's counts, arranged as {@link values}; undefined when it sent floats. */
  get counts(): Int32Array | undefined {
    const { exponent, integers } = this.open()
    return exponent === undefined ? integers.subarray(this.skip * this.channels) : undefined
  }

  /** The values as they were measured, digit for digit: a function of their place in {@link values}. */
  get texts(): (at: number) => string {
    const text = textsOf(this.open(), this.session.channels)
    return (at) => text(at + this.skip * this.channels)
  }

  /** Device time of each sample, µs since the device's boot; undefined when it has no clock. */
  get deviceTimes(): Float64Array | undefined {
    const { t0 } = this.frame
    return t0 === undefined ? undefined : this.ticks((micros) => t0 + micros)
  }

  /** Time of each sample by the server's clock, µs since 1970: an estimate, see docs/PROTOCOL.md, section 5.10. */
  get wallTimes(): Float64Array {
    const { frame, session: { rate }, start } = this
    const first = frame.t0 !== undefined && start.t0 !== undefined ?
      frame.t0 - start.t0 :
      (frame.index - start.index) * 1e6 / rate
    return this.ticks((micros) => start.wall + first + micros)
  }

  /**
   * Unpacks the samples; every other member does so by itself.
   *
   * @throws ThrumError `NotThrum` when their block cannot be read.
   */
  open(): Block {
    if (this.block !== undefined) return this.block
    const block = readBlock(this.frame.block, this.channels)
    if (isFrameError(block)) throw ownError("NotThrum", `Cannot read the samples: ${block.message}`)
    return this.block = block
  }

  private ticks(at: (micros: number) => number): Float64Array {
    const { session: { rate, tick }, skip } = this
    const { times } = this.open()
    return Float64Array.from(
      { length: this.count },
      (_, i) => at(times === undefined ? (skip + i) * 1e6 / rate : (times[skip + i] ?? 0) * tick)
    )
  }
}

export class Reading {
  /** What comes before it is not wanted, or was handed on. */
  next: Position | undefined
  session: SessionInfo | undefined
  durable: Position | undefined
  hasEnded = false
  private readonly doing: string
  private epoch = 0
  private start: Start | undefined
  private announced: number | undefined

  constructor(doing: string) {
    this.doing = doing
  }

  /**
   * Takes the next frame of the stream; a welcome begins a connection, the first or another.
   *
   * @returns What it means; undefined when it is nothing new.
   * @throws ThrumError `NotThrum` when the stream breaks its promises.
   */
  take(frame: ViewerFrame, bytes: number): RecordingEvent | undefined {
    switch (frame.kind) {
      case kinds.viewerWelcome: {
        this.epoch = frame.from.epoch
        this.start = undefined
        const isFirst = this.session === undefined
        this.session = frame.session
        this.next ??= frame.from
        return isFirst ? { type: "welcome", session: frame.session, from: frame.from } : undefined
      }
      case kinds.epoch: {
        const { epoch, index, t0, wall } = frame
        this.epoch = epoch
        this.start = { index, t0, wall }
        if (epoch > this.expected.epoch) this.next = { epoch, index: 0 }
        // Each connection begins with the epoch it is in.
        if (epoch === this.announced) return undefined
        this.announced = epoch
        return { type: "epoch", epoch, index, t0, wall }
      }
      case kinds.samples:
        return this.show(frame, bytes)
      case kinds.gap:
        return this.pass(frame.from, frame.to, frame.reason)
      case kinds.durable:
        this.durable = frame.position
        return { type: "durable", position: frame.position }
      case kinds.caughtUp:
        return { type: "caught-up", position: frame.position }
      case kinds.ended:
        this.hasEnded = true
        this.durable = frame.position
        return { type: "ended", position: frame.position }
      case kinds.error:
      case kinds.time:
        return undefined
    }
  }

  /** `[from, to)` is not coming. */
  pass(from: Position, to: Position, reason: GapReason): GapEvent | undefined {
    // What is lost was shown before: it lies behind us, and we do not go back.
    if (reason === "lost") return { type: "gap", from, to, reason }
    const next = this.expected
    if (comparePositions(to, next) <= 0) return undefined
    this.next = to
    return { type: "gap", from: comparePositions(from, next) < 0 ? next : from, to, reason }
  }

  private get expected(): Position {
    if (this.next === undefined) throw this.broken("a frame came before the welcome")
    return this.next
  }

  private show(frame: Samples, bytes: number): Batch | undefined {
    const { session } = this
    const { epoch, index } = this.expected
    const count = sampleCount(frame.block)
    if (session === undefined || count === undefined) throw this.broken("a frame has no samples")
    if (this.start === undefined) throw this.broken("samples came before their epoch")
    if (this.epoch < epoch) return undefined
    const skip = index - frame.index
    if (skip >= count) return undefined
    if (skip < 0) {
      const [came, wanted] = [formatPosition({ epoch: this.epoch, index: frame.index }), formatPosition(this.expected)]
      throw this.broken(`samples came at ${came} and were expected at ${wanted}, without a gap`)
    }
    this.next = { epoch, index: frame.index + count }
    return new Batch(session, frame, count, { epoch, skip, start: this.start, bytes })
  }

  private broken(why: string): ThrumError {
    return ownError("NotThrum", `Cannot ${this.doing}: ${why}`)
  }
}
