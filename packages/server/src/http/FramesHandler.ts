/**
 * `POST /sessions/{id}/frames`: the device's door for those without a WebSocket. One request is one short connection:
 * hello (in the headers), frames (the body), ack (the answer).
 *
 * The body is in memory once, at most the contract's bound. A request waits for the commit at most
 * {@link waitMsMax}.
 */
import {
  type ArchiveUnavailable,
  type EndMismatch,
  type KeyRefused,
  type NotFlushed,
  type Publisher,
  type PublisherPeer,
  type SessionEnded,
  type SessionNotFound,
  Sessions,
  type StaleEpoch
} from "@thrum/core"
import {
  endOfValue,
  frameDepthMax,
  type FrameError,
  frameError,
  isFrameError,
  kindOf,
  kinds,
  protocolLimits,
  readDeviceFrame,
  readSamples
} from "@thrum/protocol"
import { Effect } from "effect"
import { Draining } from "./Ports.ts"
import { type Ack, type Problem, problem, problemOf } from "./Problem.ts"
import { knownForm } from "./SessionHandlers.ts"

/** Milliseconds a request waits for its frames to be stored, unless it says otherwise, and at most. */
const waitMsDefault = 2000
export const waitMsMax = 10_000

/** What a device sends. */
export interface FramesWish {
  readonly id: string
  readonly key: string
  readonly bootId: string
  /** Index of the oldest sample the device still has; undefined: it has all that is not durable. */
  readonly next: number | undefined
  readonly waitMs: number | undefined
  readonly body: Uint8Array
}

type FramesProblem = Problem<
  | "session-not-found"
  | "key-refused"
  | "session-ended"
  | "epoch-stale"
  | "superseded"
  | "frames-missing"
  | "end-mismatch"
  | "frame-refused"
  | "not-flushed"
  | "overloaded"
  | "archive-unavailable"
  | "draining"
>

/** The frame that begins at a byte, or what is wrong with it. */
const frameAt = (body: Uint8Array, at: number): Uint8Array | FrameError => {
  const end = endOfValue(body, at, frameDepthMax)
  const bytesMax = protocolLimits.messageBytesMax.value
  if ((end < 0 ? 0 : end - at) > bytesMax) {
    return frameError("TooLarge", `Cannot read the frame at byte ${at}: it is longer than ${bytesMax} bytes`)
  }
  if (end < 0) return frameError("BadFrame", `Cannot read the frame at byte ${at}: it is cut short or no plain msgpack`)
  return body.subarray(at, end)
}

/** The index of the first samples frame, when the body begins with one. */
const firstIndexOf = (body: Uint8Array): number | undefined => {
  const frame = body.length === 0 ? undefined : frameAt(body, 0)
  if (frame === undefined || isFrameError(frame) || kindOf(frame) !== kinds.samples) return undefined
  const samples = readSamples(frame)
  return isFrameError(samples) ? undefined : samples.index
}

const ackOf = (publisher: Publisher): Ack => {
  const { epoch, received, durable, intake } = publisher
  return {
    epoch,
    received,
    durable,
    // What was shown while the write queue was full must come again.
    next: intake.isRewinding ? intake.queued : received,
    window: protocolLimits.windowBytes.value
  }
}

/** Why the frame with this number was not taken. Those before it were. */
const refusalOf = (why: FrameError, number: number, ack: Ack): FramesProblem => {
  const more = { ack, errors: [{ pointer: `#/${number}`, detail: why.message }] }
  const detail = `Cannot take frame ${number} of the body (${why.name}): ${why.message}`
  switch (why.name) {
    case "SessionEnded":
      return problem("session-ended", why.message, { ack })
    case "Superseded":
      return problem("superseded", why.message, { ack })
    case "Overloaded":
    case "GoingAway":
      return problem("overloaded", detail, more)
    default:
      return problem("frame-refused", detail, more)
  }
}

/** Gives the frames of a body to a publisher, in order. */
const acceptAll = (
  publisher: Publisher,
  body: Uint8Array
): { readonly final: number | undefined } | { readonly why: FrameError; readonly number: number } => {
  let final: number | undefined
  for (let at = 0, number = 0; at < body.length; number++) {
    const bytes = frameAt(body, at)
    if (isFrameError(bytes)) return { why: bytes, number }
    if (final !== undefined) {
      return {
        why: frameError("BadFrame", "Cannot take a frame behind the end frame: the session is to be sealed"),
        number
      }
    }
    if (kindOf(bytes) === kinds.samples) {
      const why = publisher.accept(bytes)
      if (why !== undefined) return { why, number }
    } else {
      const frame = readDeviceFrame(bytes)
      if (isFrameError(frame)) return { why: frame, number }
      if (frame.kind !== kinds.end) {
        const why = frameError("BadFrame", `Cannot take a frame of kind ${frame.kind} here: only samples, and an end`)
        return { why, number }
      }
      final = frame.index
    }
    at += bytes.length
  }
  return { final }
}

/** Tells whoever waits of every change. */
class Bell implements PublisherPeer {
  private ring: () => void = () => {}
  isClosed = false
  readonly onProgress = (): void => this.ring()
  readonly onRewind = (): void => this.ring()
  readonly onClose = (): void => {
    this.isClosed = true
    this.ring()
  }

  /** Returns when `condition` holds. */
  until(condition: () => boolean): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      if (condition()) return resume(Effect.void)
      this.ring = () => {
        // Not now: we are in the middle of whatever rang.
        if (condition()) queueMicrotask(() => resume(Effect.void))
      }
      return Effect.sync(() => {
        this.ring = () => {}
      })
    })
  }
}

const coreProblemOf = (
  error: SessionNotFound | SessionEnded | StaleEpoch | KeyRefused | NotFlushed | EndMismatch | ArchiveUnavailable
): FramesProblem => problemOf(error)

/** Takes the frames, waits for them to be stored, and says how far it has come. */
export const postFrames: (wish: FramesWish) => Effect.Effect<Ack, FramesProblem, Sessions> = Effect.fn(
  "FramesHandler.postFrames"
)(function*({ id, key, bootId, next, waitMs = waitMsDefault, body }: FramesWish) {
  yield* knownForm(id)
  const [sessions, isDraining] = [yield* Sessions, yield* Draining]
  if (isDraining()) {
    return yield* Effect.fail(problem("draining", "Cannot take frames: the instance is shutting down"))
  }
  const first = firstIndexOf(body)
  const bell = new Bell()
  return yield* Effect.scoped(Effect.gen(function*() {
    const publisher = yield* Effect.mapError(
      sessions.publish(id, { key, bootId, next: next ?? first }, bell),
      coreProblemOf
    )
    // A WebSocket's welcome would have told the device where to begin. Here it has guessed: a frame from beyond would
    // make a gap of what it still has.
    if (first !== undefined && first > publisher.next && (next === undefined || next <= publisher.next)) {
      const detail =
        `Cannot take frames from ${first} on: ${publisher.next} comes next. Send from there, or say with ` +
        "next what is the oldest sample there still is"
      return yield* Effect.fail(problem("frames-missing", detail, { ack: ackOf(publisher) }))
    }
    const taken = acceptAll(publisher, body)
    if ("why" in taken) return yield* Effect.fail(refusalOf(taken.why, taken.number, ackOf(publisher)))
    if (taken.final !== undefined) {
      yield* Effect.mapError(sessions.end(id, { publisher, final: taken.final }), coreProblemOf)
      return ackOf(publisher)
    }
    const { intake } = publisher
    yield* bell.until(() => publisher.durable >= publisher.received || intake.isRewinding || bell.isClosed).pipe(
      Effect.timeoutOption(waitMs)
    )
    return ackOf(publisher)
  }))
})
