/**
 * What a recording amounts to, in one pass over what is stored: counts, times, statistics of each channel, measured
 * rate, gaps, and a receipt that a device can compute for itself.
 *
 * In memory: a page of the archive, one decoded frame, a line per epoch. The event loop has its turn after
 * {@link valuesPerTurn} values.
 */
import type { ArchiveUnavailable, ChunkCorrupt, FeedEvent, Frame, SessionRecord } from "@thrum/core"
import {
  type Channel,
  type Epoch,
  isFrameError,
  kinds,
  numbersOf,
  readBlock,
  readSamples,
  startPosition
} from "@thrum/protocol"
import { Effect, Stream } from "effect"
import { createHash, type Hash } from "node:crypto"
import { deviceTimeOf, wallTimeOf } from "./SampleTime.ts"

const valuesPerTurn = 65_536

/** Statistics of one channel, in its unit. What is no finite number is counted, and otherwise left out. */
export interface ChannelSummary {
  readonly name: string
  readonly unit: string
  /** Finite values. */
  readonly count: number
  /** Values that are NaN or infinite. */
  readonly notFinite: number
  readonly min: number | null
  readonly max: number | null
  readonly mean: number | null
  /** Standard deviation of the sample (divided by count − 1). */
  readonly sd: number | null
}

/** One epoch's part of the receipt. */
export interface EpochReceipt {
  readonly epoch: number
  readonly samples: number
  readonly frames: number
  readonly bytes: number
  /** SHA-256 over the stored samples frames of the epoch, in order, as the device sent them. Hexadecimal. */
  readonly sha256: string
}

/** A summary. */
export interface Summary {
  readonly samples: number
  readonly frames: number
  readonly bytes: number
  /** RFC 3339, of the first and the last sample. */
  readonly first: string | null
  readonly last: string | null
  /** Seconds from the first sample to the last. */
  readonly duration: number | null
  readonly rate: {
    /** Hz, as it was announced. */
    readonly nominal: number
    /** Hz, by the device's clock. */
    readonly measured: number | null
  }
  readonly gaps: {
    readonly count: number
    /** Sampling instants that are missing. */
    readonly instants: number
  }
  readonly channels: ReadonlyArray<ChannelSummary>
  readonly receipt: {
    readonly sha256: string
    readonly epochs: ReadonlyArray<EpochReceipt>
  }
}

/** Mean and spread, without the cancellation that sums of squares suffer from. */
export class Moments {
  count = 0
  mean = 0
  /** Sum of squared distances from the mean. */
  squares = 0
  min: number = Number.POSITIVE_INFINITY
  max: number = Number.NEGATIVE_INFINITY
  notFinite = 0

  /** Takes values `first`, `first + step`, …: two passes over them, then one step that joins them to the rest. */
  take(values: Float64Array, first: number, step: number): void {
    let [count, sum] = [0, 0]
    for (let i = first; i < values.length; i += step) {
      const value = values[i]!
      // NaN fails, and so do the infinities.
      if (!(value - value === 0)) continue
      count++
      // Of the shifted values: their sum keeps the digits that a large offset would take.
      sum += value - this.mean
      if (value < this.min) this.min = value
      if (value > this.max) this.max = value
    }
    this.notFinite += Math.ceil((values.length - first) / step) - count
    if (count === 0) return
    const distance = sum / count
    const mean = this.mean + distance
    let squares = 0
    for (let i = first; i < values.length; i += step) {
      const off = values[i]! - mean
      if (off - off === 0) squares += off * off
    }
    const total = this.count + count
    this.squares += squares + distance * distance * (this.count * (count / total))
    this.mean += distance * (count / total)
    this.count = total
  }

  /** Null where there are too few values. */
  get deviation(): number | null {
    return this.count < 2 ? null : Math.sqrt(this.squares / (this.count - 1))
  }
}

/** The slope of a line through points that come one by one; each group has a line of its own, all the same slope. */
export class Slope {
  private count = 0
  private meanX = 0
  private meanY = 0
  private spreadX = 0
  private spreadXY = 0

  /** What follows is of another line. */
  begin(): void {
    this.count = this.meanX = this.meanY = 0
  }

  take(x: number, y: number): void {
    this.count++
    const off = x - this.meanX
    this.meanX += off / this.count
    this.meanY += (y - this.meanY) / this.count
    this.spreadX += off * (x - this.meanX)
    this.spreadXY += off * (y - this.meanY)
  }

  /** Undefined while there are no two different `x` on one line. */
  get value(): number | undefined {
    return this.spreadX > 0 ? this.spreadXY / this.spreadX : undefined
  }
}

/** RFC 3339 with µs; null where the calendar ends, or single µs cannot be told apart. */
const timeText = (micros: number | undefined): string | null => {
  if (micros === undefined || !Number.isSafeInteger(micros)) return null
  const second = Math.floor(micros / 1e6)
  return `${new Date(second * 1000).toISOString().slice(0, 20)}${String(micros - second * 1e6).padStart(6, "0")}Z`
}

/** The number, where JSON has one for it. */
const orNull = (value: number | null): number | null => value !== null && Number.isFinite(value) ? value : null

const channelSummary = ({ name, unit }: Channel, moments: Moments): ChannelSummary => ({
  name,
  unit,
  count: moments.count,
  notFinite: moments.notFinite,
  min: orNull(moments.min),
  max: orNull(moments.max),
  mean: moments.count === 0 ? null : orNull(moments.mean),
  sd: orNull(moments.deviation)
})

/** An epoch's receipt in the making. */
interface OpenReceipt {
  readonly epoch: number
  readonly hash: Hash
  samples: number
  frames: number
  bytes: number
}

class Summing {
  private readonly record: SessionRecord
  private readonly moments: ReadonlyArray<Moments>
  private readonly slope = new Slope()
  private epoch: Epoch | undefined
  private open: OpenReceipt | undefined
  private readonly closed: Array<EpochReceipt> = []
  private readonly whole = createHash("sha256")
  private first: number | undefined
  private last: number | undefined
  private readonly totals = { samples: 0, frames: 0, bytes: 0 }
  private readonly gaps = { count: 0, instants: 0 }

  constructor(record: SessionRecord) {
    this.record = record
    this.moments = record.description.channels.map(() => new Moments())
  }

  *take(events: ReadonlyArray<FeedEvent>): Generator<void> {
    let values = 0
    for (const event of events) {
      if (event.kind === kinds.epoch) {
        this.close()
        this.epoch = event
        this.slope.begin()
        this.open = { epoch: event.epoch, hash: createHash("sha256"), samples: 0, frames: 0, bytes: 0 }
      } else if (event.kind === kinds.gap) {
        this.gaps.count++
        this.gaps.instants += event.to.index - event.from.index
      } else if (event.kind === kinds.samples) {
        this.frame(event)
        values += (event.next - event.index) * this.moments.length
        if (values < valuesPerTurn) continue
        values = 0
        yield
      }
    }
    yield
  }

  result(): Summary {
    this.close()
    const { record, moments, first, last, totals, gaps } = this
    const period = this.slope.value
    return {
      ...totals,
      first: timeText(first),
      last: timeText(last),
      duration: first === undefined || last === undefined ? null : (last - first) / 1e6,
      rate: {
        nominal: record.description.rate,
        // A clock that stands still or runs backwards measures nothing.
        measured: period === undefined || !(period > 0) ? null : orNull(1e6 / period)
      },
      gaps,
      channels: record.description.channels.map((channel, c) => channelSummary(channel, moments[c]!)),
      receipt: { sha256: this.whole.digest("hex"), epochs: this.closed }
    }
  }

  private close(): void {
    if (this.open === undefined) return
    const { hash, ...counts } = this.open
    this.open = undefined
    const digest = hash.digest()
    const number = Buffer.alloc(4)
    number.writeUInt32BE(counts.epoch)
    this.whole.update(number).update(digest)
    this.closed.push({ ...counts, sha256: digest.toString("hex") })
  }

  private frame(frame: Frame): void {
    const { description } = this.record
    const channels = description.channels.length
    const samples = readSamples(frame.bytes)
    const block = isFrameError(samples) ? samples : readBlock(samples.block, channels)
    if (isFrameError(block) || this.epoch === undefined || this.open === undefined) {
      throw new Error(`Cannot sum up the frame at ${frame.epoch}:${frame.index}: it is not what was stored`)
    }
    const numbers = numbersOf(block, description.channels)
    for (let c = 0; c < channels; c++) this.moments[c]!.take(numbers, c, channels)

    const device = deviceTimeOf(frame, 0, block.times, description)
    if (device !== undefined) this.slope.take(frame.index, device)
    this.first ??= wallTimeOf(frame.index, device, this.epoch, description.rate)
    const lastDevice = deviceTimeOf(frame, block.count - 1, block.times, description)
    this.last = wallTimeOf(frame.next - 1, lastDevice, this.epoch, description.rate)

    this.open.hash.update(frame.bytes)
    for (const counts of [this.open, this.totals]) {
      counts.samples += block.count
      counts.frames++
      counts.bytes += frame.bytes.length
    }
  }
}

/** Sums up what is stored, as `stored` gives it from the start. */
export const sumUp = (
  record: SessionRecord,
  stored: (
    record: SessionRecord,
    from: typeof startPosition
  ) => Stream.Stream<FeedEvent, ArchiveUnavailable | ChunkCorrupt>
): Effect.Effect<Summary, ArchiveUnavailable | ChunkCorrupt> =>
  Effect.suspend(() => {
    const summing = new Summing(record)
    return Stream.chunks(stored(record, startPosition)).pipe(
      Stream.flatMap((page) => Stream.fromIterable(summing.take(page), { chunkSize: 1 })),
      Stream.runForEach(() => Effect.yieldNow),
      Effect.map(() => summing.result())
    )
  })
