/**
 * The seam between what is durable and what is live: stored frames from a position on, then live ones, without a hole
 * or a repeat.
 *
 * One idea makes it so: a viewer has a `next` position, and takes only what comes at or after it. While the hub's ring
 * reaches back to `next`, it is served from there, and being put among the live viewers is part of the same synchronous
 * step. While not, it is served from the archive. A viewer that is full leaves the live ones and comes in again by the
 * same way. No fiber runs for a viewer that keeps up.
 */
import {
  type CaughtUp,
  comparePositions,
  type Durable,
  type Ended,
  endOfValue,
  type Epoch,
  frameDepthMax,
  type Gap,
  isFrameError,
  kinds,
  type Position,
  readSamples,
  sampleCount
} from "@thrum/protocol"
import { Context, Effect, Layer, Option, Schedule, Stream } from "effect"
import { Archive, type ArchiveUnavailable, type Chunk, ChunkCorrupt } from "./Archive.ts"
import { Frame } from "./Frame.ts"
import type { EpochStart } from "./Intake.ts"
import { CoreLimits } from "./Limits.ts"
import type { Live, Viewer } from "./Live.ts"
import { durableOf, type SessionId, type SessionRecord } from "./Session.ts"

/** What a viewer gets, in order. */
export type FeedEvent = Frame | Epoch | Durable | Gap | CaughtUp | Ended

/** Where a viewer begins: with what is stored, with what comes next, or at a position. */
export type From = "start" | "now" | Position

/** Behind: `complete` is taken back to the archive and misses nothing; `latest` skips ahead and is told what it missed. */
export type Policy = "complete" | "latest"

/** The viewer's end of a feed. */
export interface Sink {
  /** Takes an event. Synchronous. False: it is full now, offer no more until {@link drained}. */
  readonly send: (event: FeedEvent) => boolean
  /** Returns when there is room again. */
  readonly drained: Effect.Effect<void>
}

/** What a cursor must know about an epoch before it can announce it. */
type Starts = (epoch: number) => EpochStart | undefined

/** Where one reader is, and what it was told: turns frames into events that leave no hole untold and nothing twice. */
class Cursor implements Viewer {
  /** What comes before it is not wanted, or was sent. */
  next: Position
  isFull = false
  /** Called when this reader must be taken out of the live ones: it is full, or there is nothing for it among them. */
  onStop: () => void = () => {}
  /** What it was told of {@link Live.lostCount}. */
  lostCount = 0
  /** After the last frame that was sent. */
  private seen: Position
  private readonly send: (event: FeedEvent) => boolean
  private readonly starts: Starts
  private announced = -1

  constructor(next: Position, starts: Starts, send: (event: FeedEvent) => boolean) {
    this.next = this.seen = next
    this.starts = starts
    this.send = send
  }

  frame(frame: Frame): void {
    const { epoch, index } = this.next
    if (frame.epoch < epoch || (frame.epoch === epoch && frame.next <= index)) return
    if (frame.epoch !== this.announced) this.announce(frame)
    const expected = frame.epoch === epoch ? index : 0
    if (frame.index > expected) {
      this.emit({
        kind: kinds.gap,
        from: { epoch: frame.epoch, index: expected },
        to: { epoch: frame.epoch, index: frame.index },
        reason: "device"
      })
    }
    this.next = this.seen = { epoch: frame.epoch, index: frame.next }
    this.emit(frame)
  }

  /** Samples that were shown are lost. Who has not seen them finds a gap there. */
  gap(gap: Gap): void {
    this.lostCount++
    const to = comparePositions(gap.to, this.seen) < 0 ? gap.to : this.seen
    if (comparePositions(gap.from, to) < 0) this.emit({ ...gap, to })
  }

  durable(position: Position): void {
    this.emit({ kind: kinds.durable, position })
  }

  stop(): void {
    this.onStop()
  }

  /** Passes over everything up to `position` and says so. */
  skipTo(position: Position, reason: Gap["reason"]): void {
    if (comparePositions(position, this.next) <= 0) return
    // Where nothing was skipped, an epoch just ends where it ends: only what lies before `position` in its own is missing.
    const from = reason === "skipped" || position.epoch === this.next.epoch ?
      this.next :
      { epoch: position.epoch, index: 0 }
    this.next = position
    if (comparePositions(from, position) < 0) this.emit({ kind: kinds.gap, from, to: position, reason })
  }

  emit(event: FeedEvent): void {
    if (this.send(event)) return
    this.isFull = true
    this.onStop()
  }

  private announce(frame: Frame): void {
    this.announced = frame.epoch
    const start = this.starts(frame.epoch) ?? { t0: frame.t0, wall: 0, index: frame.index }
    this.emit({ kind: kinds.epoch, epoch: frame.epoch, ...start })
  }
}

export interface FeedShape {
  /**
   * Sends the session to `sink` until it ends (the last event is `ended`) or this is interrupted. While the archive
   * cannot be reached, a viewer that needs it waits; live ones go on.
   */
  readonly attach: (
    live: Live,
    from: From,
    policy: Policy,
    sink: Sink
  ) => Effect.Effect<void, ChunkCorrupt>

  /** Where `from` is, now. */
  readonly positionOf: (live: Live, from: From) => Position

  /**
   * What is stored of a session from a position on, up to where `record` says it is durable: epochs, frames and gaps.
   * Holds one page of the archive at a time, and reads the next when it is asked for.
   */
  readonly stored: (
    record: SessionRecord,
    from: Position
  ) => Stream.Stream<FeedEvent, ArchiveUnavailable | ChunkCorrupt>
}

const Tag: Context.ServiceClass<Feed, "@thrum/core/Feed", FeedShape> = Context.Service<Feed, FeedShape>()(
  "@thrum/core/Feed"
)

/** The seam between archive and hub. */
export class Feed extends Tag {
  static readonly layer: Layer.Layer<Feed, never, Archive> = Layer.effect(
    Feed,
    Effect.gen(function*() {
      const archive = yield* Archive
      const limits = yield* CoreLimits

      /** Sends one page of stored frames. When there is none before the watermark, only a gap is left up to there. */
      const sendPage = Effect.fnUntraced(function*(live: Live, cursor: Cursor, drain: Effect.Effect<void>) {
        const durable = live.durable
        const chunks = yield* archive.read(live.id, cursor.next, limits.pageBytesMax).pipe(
          Effect.retry({ schedule: retries, while: (error) => error._tag === "ArchiveUnavailable" }),
          // The schedule has no end; the type does not know.
          Effect.catchTag("ArchiveUnavailable", Effect.die)
        )
        if (chunks.length === 0) return cursor.skipTo(durable, "device")
        for (const chunk of chunks) {
          for (const frame of yield* framesOf(live.id, chunk)) {
            cursor.frame(frame)
            if (cursor.isFull) yield* drain
          }
        }
      })

      const attach: FeedShape["attach"] = Effect.fnUntraced(function*(live, from, policy, sink) {
        const cursor = new Cursor(positionOf(live, from), (epoch) => live.epochs.get(epoch), sink.send)
        const drain = Effect.suspend(() => sink.drained).pipe(
          Effect.andThen(Effect.sync(() => {
            cursor.isFull = false
          }))
        )
        cursor.lostCount = live.lostCount
        let isTold = false
        while (true) {
          if (cursor.isFull) {
            yield* drain
            if (policy === "latest" && isTold) cursor.skipTo(live.head, "skipped")
          } else if (live.covers(cursor.next)) {
            yield* follow(live, cursor, () => {
              // An ended session has no live part to catch up with.
              if (isTold || live.ended !== undefined) return
              isTold = true
              cursor.emit({ kind: kinds.caughtUp, position: cursor.next })
              cursor.durable(live.durable)
            })
            // The end may lie beyond what was shown here: then the rest is in the archive.
            if (!cursor.isFull && live.ended !== undefined && live.covers(cursor.next)) {
              sink.send({ kind: kinds.ended, position: live.ended })
              return
            }
          } else if (comparePositions(cursor.next, live.durable) < 0) {
            tellLosses(live, cursor)
            if (!cursor.isFull) yield* sendPage(live, cursor, drain)
          } else {
            // Shown, out of the ring, not yet stored: the device will resend it, and then the archive has it.
            yield* moved(live)
          }
        }
      })

      const stored: FeedShape["stored"] = (record, from) => {
        const starts = new Map<number, EpochStart>()
        for (const { epoch, t0, wall, index } of record.epochs) {
          if (wall !== undefined && index !== undefined) starts.set(epoch, { t0, wall, index })
        }
        const end = durableOf(record)
        let events: Array<FeedEvent> = []
        const cursor = new Cursor(from, (epoch) => starts.get(epoch), (event) => events.push(event) > 0)
        return Stream.paginate(from, (next) =>
          Effect.gen(function*() {
            events = []
            if (comparePositions(next, end) >= 0) return [events, Option.none<Position>()] as const
            const chunks = yield* archive.read(record.id, next, limits.pageBytesMax)
            if (chunks.length === 0) cursor.skipTo(end, "device")
            for (const chunk of chunks) {
              // The archive may hold more by now than when the record was read: stop where the record does.
              if (chunk.epoch > end.epoch || (chunk.epoch === end.epoch && chunk.first >= end.index)) {
                return [events, Option.none<Position>()] as const
              }
              for (const frame of yield* framesOf(record.id, chunk)) cursor.frame(frame)
            }
            return [events, Option.some(cursor.next)] as const
          }))
      }

      return Feed.of({ attach, positionOf, stored })
    })
  )
}

const positionOf = (live: Live, from: From): Position =>
  from === "start" ? { epoch: 0, index: 0 } : from === "now" ? live.head : from

/** Tells what was lost while it was not among the live. */
const tellLosses = (live: Live, cursor: Cursor): void => {
  const gaps = live.lostSince(cursor.lostCount)
  cursor.lostCount = live.lostCount - gaps.length
  for (const gap of gaps) {
    if (cursor.isFull) return
    cursor.gap(gap)
  }
}

/** One step among the live: ring, then viewers, all at once. Returns when full, when ended, when interrupted. */
const follow = (live: Live, cursor: Cursor, onCaughtUp: () => void): Effect.Effect<void> =>
  Effect.callback((resume) => {
    // Between the loop's look and this step a fiber may give way, and the ring forget.
    if (!live.covers(cursor.next)) return resume(Effect.void)
    tellLosses(live, cursor)
    if (!cursor.isFull) {
      live.replay(cursor.next, (frame) => {
        cursor.frame(frame)
        return !cursor.isFull
      })
    }
    if (!cursor.isFull) onCaughtUp()
    if (cursor.isFull || live.ended !== undefined) return resume(Effect.void)
    const leave = (): void => {
      live.viewers.delete(cursor)
    }
    cursor.onStop = () => {
      cursor.onStop = () => {}
      leave()
      // Not now: we are in the middle of an event, and whoever resumes would come in again before its end.
      queueMicrotask(() => resume(Effect.void))
    }
    live.viewers.add(cursor)
    return Effect.sync(leave)
  })

const moved = (live: Live): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const forget = live.onMove(() => queueMicrotask(() => resume(Effect.void)))
    return Effect.sync(forget)
  })

const retries = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")])

/** The frames of a stored chunk: views into it. */
const framesOf = (id: SessionId, chunk: Chunk): Effect.Effect<ReadonlyArray<Frame>, ChunkCorrupt> => {
  const frames: Array<Frame> = []
  let [at, index] = [0, chunk.first]
  while (at < chunk.bytes.length) {
    const end = endOfValue(chunk.bytes, at, frameDepthMax)
    const bytes = end < 0 ? chunk.bytes.subarray(at) : chunk.bytes.subarray(at, end)
    const samples = readSamples(bytes)
    const count = isFrameError(samples) ? undefined : sampleCount(samples.block)
    if (end < 0 || isFrameError(samples) || count === undefined || samples.index !== index) {
      return Effect.fail(new ChunkCorrupt({ sessionId: id, epoch: chunk.epoch, first: chunk.first }))
    }
    index += count
    frames.push(new Frame(chunk.epoch, samples.index, index, samples.t0, bytes))
    at = end
  }
  return Effect.succeed(frames)
}
