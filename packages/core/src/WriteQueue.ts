/**
 * What waits to be stored: frames of all sessions, taken to the archive in groups.
 *
 * Group commit: while one group is being committed the next one gathers, so a lone frame is committed at once and a
 * flood in large groups. Bounded in bytes (`CoreLimits.queueBytesMax`): at the bound `offer` answers false and the
 * frame is not taken. A group that fails is tried again, the same, until the archive takes it; the archive's watermark
 * makes that safe.
 */
import { Cause, Context, Effect, Latch, Layer, Schedule } from "effect"
import { type Append, type Appended, Archive, type Chunk } from "./Archive.ts"
import type { Frame } from "./Frame.ts"
import type { EpochStart } from "./Intake.ts"
import { CoreLimits, type CoreLimitValues } from "./Limits.ts"
import type { SessionId } from "./Session.ts"

/** One epoch's way into the archive. Made by its intake, kept by the queue while frames of it wait. */
export interface Track {
  readonly sessionId: SessionId
  readonly epoch: number
  /** Of the epoch's first frame. */
  readonly start: EpochStart
  /** The durable index the next append expects. */
  expected: number
  /** Frames that wait, in order. */
  pending: Array<Frame>
  /** Frames that wait or are being committed. */
  outstanding: number
  /** Everything before `next` is stored for certain. Called after the commit returned. Must not throw. */
  readonly onDurable: (next: number) => void
  /** The archive did not take the frames: another writer has moved the epoch, or it is sealed. Frames are dropped. */
  readonly onFenced: (met: Appended) => void
}

/** Numbers of the queue since the start. */
export interface QueueCounts {
  readonly bytes: number
  readonly groups: number
  readonly frames: number
  readonly failures: number
  readonly refused: number
  readonly fenced: number
}

export interface WriteQueueShape {
  /** Takes the next frame of a track; false when the queue is at its bound. Synchronous; never waits, never throws. */
  readonly offer: (track: Track, frame: Frame) => boolean
  /** Returns when everything of the session that was taken so far is stored, or was fenced off. */
  readonly flushed: (id: SessionId) => Effect.Effect<void>
  /** Calls `resume` once, when the queue has come down to half its bound. */
  readonly onRoom: (resume: () => void) => void
  readonly counts: () => QueueCounts
}

const Tag: Context.ServiceClass<WriteQueue, "@thrum/core/WriteQueue", WriteQueueShape> = Context.Service<
  WriteQueue,
  WriteQueueShape
>()("@thrum/core/WriteQueue")

/** What waits to be stored. */
export class WriteQueue extends Tag {
  static readonly layer: Layer.Layer<WriteQueue, never, Archive> = Layer.effect(
    WriteQueue,
    Effect.gen(function*() {
      const archive = yield* Archive
      const limits = yield* CoreLimits
      const work = Latch.makeUnsafe(false)
      /** Tracks with pending frames, first come first. */
      const dirty = new Set<Track>()
      /** Tracks with outstanding frames, by session. */
      const outstanding = new Map<SessionId, Set<Track>>()
      const flushing = new Set<{ readonly id: SessionId | undefined; readonly resume: () => void }>()
      let waitingForRoom: Array<() => void> = []
      let closing = false
      const counts = { bytes: 0, groups: 0, frames: 0, failures: 0, refused: 0, fenced: 0 }

      const isFlushed = (id: SessionId | undefined): boolean =>
        id === undefined ? outstanding.size === 0 : !outstanding.has(id)

      const flushed = (id: SessionId | undefined): Effect.Effect<void> =>
        Effect.callback((resume) => {
          if (isFlushed(id)) return resume(Effect.void)
          const waiter = { id, resume: () => resume(Effect.void) }
          flushing.add(waiter)
          return Effect.sync(() => flushing.delete(waiter))
        })

      const settle = (track: Track, frames: ReadonlyArray<Frame>): void => {
        for (const frame of frames) counts.bytes -= frame.bytes.length
        track.outstanding -= frames.length
        if (track.outstanding > 0) return
        const tracks = outstanding.get(track.sessionId)
        tracks?.delete(track)
        if (tracks?.size === 0) outstanding.delete(track.sessionId)
      }

      const commit = Effect.fnUntraced(function*() {
        const group = takeGroup(dirty, limits)
        const met = yield* archive.append(group.map((part) => part.append)).pipe(
          Effect.tapError((error) =>
            Effect.suspend(() => {
              counts.failures++
              // Once per group and then rarely: an outage of an hour must not write a log of an hour.
              return counts.failures % 64 === 1 ? Effect.logWarning(error.message) : Effect.void
            })
          ),
          Effect.retry(retries)
        )
        counts.groups++
        group.forEach(({ append, track, frames }, i) => {
          const found = met[i]!
          settle(track, frames)
          if (found.durable === append.next) {
            counts.frames += frames.length
            track.expected = append.next
            track.onDurable(append.next)
          } else {
            counts.fenced += frames.length + track.pending.length
            settle(track, track.pending)
            track.pending = []
            dirty.delete(track)
            track.onFenced(found)
          }
        })
        if (counts.bytes <= limits.queueBytesMax / 2 && waitingForRoom.length > 0) {
          const resumed = waitingForRoom
          waitingForRoom = []
          for (const resume of resumed) resume()
        }
        for (const waiter of flushing) {
          if (isFlushed(waiter.id)) {
            flushing.delete(waiter)
            waiter.resume()
          }
        }
      })

      yield* Effect.gen(function*() {
        while (true) {
          if (dirty.size === 0) {
            work.closeUnsafe()
            yield* work.await
          } else yield* commit()
        }
      }).pipe(
        Effect.tapCause((cause) =>
          Cause.hasInterruptsOnly(cause) ? Effect.void : Effect.logError("Writer died", cause)
        ),
        Effect.forkScoped
      )
      // Added after the fork, hence run before the fiber is interrupted.
      yield* Effect.addFinalizer(() =>
        Effect.suspend(() => {
          closing = true
          return flushed(undefined)
        }).pipe(
          Effect.timeoutOrElse({
            duration: limits.flushWaitMs,
            orElse: () =>
              Effect.logError(`Cannot flush the write queue: ${counts.bytes} bytes wait after ${limits.flushWaitMs} ms`)
          })
        )
      )

      return WriteQueue.of({
        offer: (track, frame) => {
          if (closing || counts.bytes + frame.bytes.length > limits.queueBytesMax) {
            counts.refused++
            return false
          }
          counts.bytes += frame.bytes.length
          track.pending.push(frame)
          if (track.outstanding++ === 0) {
            const tracks = outstanding.get(track.sessionId)
            if (tracks === undefined) outstanding.set(track.sessionId, new Set([track]))
            else tracks.add(track)
          }
          dirty.add(track)
          work.openUnsafe()
          return true
        },
        flushed,
        onRoom: (resume) => {
          waitingForRoom.push(resume)
        },
        counts: () => ({ ...counts })
      })
    })
  )
}

const retries = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")])

interface GroupPart {
  readonly append: Append
  readonly track: Track
  readonly frames: ReadonlyArray<Frame>
}

/** Takes what waits, first come first, up to the bounds of one commit. At least one frame. */
const takeGroup = (dirty: Set<Track>, limits: CoreLimitValues): ReadonlyArray<GroupPart> => {
  const group: Array<GroupPart> = []
  let [bytes, frames] = [0, 0]
  for (const track of dirty) {
    let taken = 0
    while (taken < track.pending.length && bytes < limits.groupBytesMax && frames < limits.groupFramesMax) {
      bytes += track.pending[taken]!.bytes.length
      frames++
      taken++
    }
    if (taken === 0) break
    const took = taken === track.pending.length ? track.pending : track.pending.slice(0, taken)
    track.pending = taken === track.pending.length ? [] : track.pending.slice(taken)
    if (track.pending.length === 0) dirty.delete(track)
    group.push({
      track,
      frames: took,
      append: {
        sessionId: track.sessionId,
        epoch: track.epoch,
        expected: track.expected,
        next: took.at(-1)!.next,
        ...track.start,
        chunks: chunksOf(took, limits.chunkBytesMax)
      }
    })
  }
  return group
}

/** Consecutive frames put together; a gap or the bound begins a new chunk. */
const chunksOf = (frames: ReadonlyArray<Frame>, bytesMax: number): ReadonlyArray<Chunk> => {
  const chunks: Array<Chunk> = []
  let from = 0
  while (from < frames.length) {
    let to = from
    let size = 0
    do size += frames[to++]!.bytes.length
    while (
      to < frames.length && frames[to]!.index === frames[to - 1]!.next && size + frames[to]!.bytes.length <= bytesMax
    )
    const bytes = new Uint8Array(size)
    for (let i = from, at = 0; i < to; i++) {
      bytes.set(frames[i]!.bytes, at)
      at += frames[i]!.bytes.length
    }
    chunks.push({ epoch: frames[from]!.epoch, first: frames[from]!.index, next: frames[to - 1]!.next, bytes })
    from = to
  }
  return chunks
}
