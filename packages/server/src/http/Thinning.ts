/**
 * Fewer rows for plots, without losing a peak: of every bucket of samples, those that are the lowest or the highest of a
 * channel.
 *
 * One pass. In memory: the frames that hold the candidates of one bucket (two for each channel), and the gaps and epochs
 * met in it, at most {@link heldMax}; one more, and the bucket is closed early.
 */
import type { FeedEvent, Frame } from "@thrum/core"
import { type Description, isFrameError, kinds, numbersOf, readBlock, readSamples } from "@thrum/protocol"
import { Effect, Stream } from "effect"
import { PickedFrame } from "./PickedFrame.ts"

/** Gaps and epochs kept until their bucket is full. */
const heldMax = 10_000
/** Values looked at before the event loop has its turn. */
const valuesPerTurn = 65_536

/** One sample, and the place of its frame in the order of events. */
interface Candidate {
  readonly order: number
  readonly frame: Frame
  readonly sample: number
}

class Thinning {
  private readonly channels: number
  private readonly description: Description
  private readonly samples: number
  private readonly buckets: number
  private bucket = 0
  /** Samples the bucket has still to get. */
  private left = 0
  private first: Candidate | undefined
  private readonly lowest: Array<Candidate | undefined>
  private readonly highest: Array<Candidate | undefined>
  private readonly low: Float64Array
  private readonly high: Float64Array
  private held: Array<{ readonly order: number; readonly event: FeedEvent }> = []
  private order = 0

  constructor(description: Description, samples: number, maxPoints: number) {
    this.channels = description.channels.length
    this.description = description
    this.samples = samples
    this.buckets = Math.floor(maxPoints / (2 * this.channels))
    this.lowest = Array.from({ length: this.channels })
    this.highest = Array.from({ length: this.channels })
    this.low = new Float64Array(this.channels)
    this.high = new Float64Array(this.channels)
    this.begin()
  }

  /** Goes through events; each time something was yielded the event loop may have its turn. */
  *take(events: ReadonlyArray<FeedEvent>): Generator<ReadonlyArray<FeedEvent>> {
    let values = 0
    for (const event of events) {
      this.order++
      if (event.kind !== kinds.samples) {
        this.held.push({ order: this.order, event })
        if (this.held.length > heldMax) yield this.flush()
        continue
      }
      yield* this.frame(event)
      values += (event.next - event.index) * this.channels
      if (values < valuesPerTurn) continue
      values = 0
      yield []
    }
  }

  /** What is left at the end. */
  flush(): ReadonlyArray<FeedEvent> {
    const frames = new Map<number, { readonly frame: Frame; readonly samples: Set<number> }>()
    for (const candidate of this.candidates()) {
      const known = frames.get(candidate.order)
      if (known === undefined) {
        frames.set(candidate.order, { frame: candidate.frame, samples: new Set([candidate.sample]) })
      } else known.samples.add(candidate.sample)
    }
    const picked = Array.from(frames, ([order, { frame, samples }]) => ({
      order,
      event: new PickedFrame(frame, Int32Array.from(samples).toSorted())
    }))
    const events = [...this.held, ...picked].toSorted((a, b) => a.order - b.order).map(({ event }) => event)
    this.held = []
    this.forget()
    return events
  }

  private candidates(): ReadonlyArray<Candidate> {
    const some = [...this.lowest, ...this.highest].flatMap((candidate) => candidate ?? [])
    // Nothing but NaN: the bucket is not to look like a gap.
    return some.length === 0 && this.first !== undefined ? [this.first] : some
  }

  /** The first buckets hold one sample more where the number does not divide. */
  private begin(): void {
    this.left = Math.floor(this.samples / this.buckets) + (this.bucket < this.samples % this.buckets ? 1 : 0)
    this.bucket++
  }

  private forget(): void {
    this.first = undefined
    this.lowest.fill(undefined)
    this.highest.fill(undefined)
  }

  private *frame(frame: Frame): Generator<ReadonlyArray<FeedEvent>> {
    const samples = readSamples(frame.bytes)
    const block = isFrameError(samples) ? samples : readBlock(samples.block, this.channels)
    if (isFrameError(block)) {
      throw new Error(`Cannot thin the frame at ${frame.epoch}:${frame.index}: ${block.message}`)
    }
    const numbers = numbersOf(block, this.description.channels)
    const [begin, end] = frame instanceof PickedFrame ?
      // A cut frame: its samples follow one another.
      [frame.picked[0]!, frame.picked.at(-1)! + 1] :
      [0, block.count]
    for (let at = begin; at < end;) {
      const stop = Math.min(end, at + this.left)
      this.look(frame, numbers, at, stop)
      this.left -= stop - at
      at = stop
      if (this.left > 0) continue
      yield this.flush()
      this.begin()
    }
  }

  private look(frame: Frame, numbers: Float64Array, begin: number, end: number): void {
    const { channels, order } = this
    this.first ??= { order, frame, sample: begin }
    for (let c = 0; c < channels; c++) {
      let [low, high] = [
        this.lowest[c] === undefined ? Number.POSITIVE_INFINITY : this.low[c]!,
        this.highest[c] === undefined ? Number.NEGATIVE_INFINITY : this.high[c]!
      ]
      let [lowAt, highAt] = [-1, -1]
      for (let i = begin, at = begin * channels + c; i < end; i++, at += channels) {
        const value = numbers[at]!
        // NaN is neither. An infinity can be both.
        if (value < low || (value === low && lowAt < 0 && this.lowest[c] === undefined)) {
          low = value
          lowAt = i
        }
        if (value > high || (value === high && highAt < 0 && this.highest[c] === undefined)) {
          high = value
          highAt = i
        }
      }
      if (lowAt >= 0) {
        this.low[c] = low
        this.lowest[c] = { order, frame, sample: lowAt }
      }
      if (highAt >= 0) {
        this.high[c] = high
        this.highest[c] = { order, frame, sample: highAt }
      }
    }
  }
}

/**
 * Thins events that hold `samples` samples (whole frames, or cut ones) to at most `maxPoints` of them.
 *
 * The samples are numbered in order and dealt out to `floor(maxPoints / (2 × channels))` buckets of equal size, the
 * first ones with one more where it does not come out even. Of each bucket stay, for every channel, the first of its
 * lowest and the first of its highest values; NaN is neither. Gaps and epochs all stay.
 */
export const thin = <E>(
  events: Stream.Stream<FeedEvent, E>,
  description: Description,
  samples: number,
  maxPoints: number
): Stream.Stream<FeedEvent, E> =>
  Stream.suspend(() => {
    const thinning = new Thinning(description, samples, maxPoints)
    return Stream.chunks(events).pipe(
      Stream.flatMap((page) => Stream.fromIterable(thinning.take(page), { chunkSize: 1 })),
      Stream.tap(() => Effect.yieldNow),
      Stream.concat(Stream.sync(() => thinning.flush())),
      Stream.flattenIterable
    )
  })
