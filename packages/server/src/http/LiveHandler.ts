/**
 * `GET /sessions/{id}/live` without a WebSocket: the feed as server-sent events or as NDJSON, the same texts.
 *
 * A reader that leaves `unreadBytesMax` unread is set aside by the feed, and cut off when it does not read on in
 * `drainWaitMs`. What is made of a frame is made once for all its readers, and what meets in one turn of the event
 * loop leaves in one write; no fiber runs per event. A reader that goes away is detached at once.
 */
import { Feed, type FeedEvent, Frame, type From, Hub, infoOf, type Policy } from "@thrum/core"
import { comparePositions, formatPosition, frameError, kinds, type Position, type SessionInfo } from "@thrum/protocol"
import { Context, Effect, Exit, Scope } from "effect"
import { HttpServerResponse } from "effect/http"
import { Readable } from "node:stream"
import { errorText, jsonOf, welcomeText } from "../EventText.ts"
import { negotiate } from "./Accept.ts"
import { Draining } from "./Ports.ts"
import { type Problem, problem, problemOf } from "./Problem.ts"
import { knownForm } from "./SessionHandlers.ts"

/** The bounds of an answer that goes on. */
export interface LiveStreamLimitValues {
  /** Bytes a reader may leave unread before it is set aside. */
  readonly unreadBytesMax: number
  /** Milliseconds a reader that was set aside has to read. */
  readonly drainWaitMs: number
  /** Milliseconds of silence after which a sign of life is sent. */
  readonly silenceMs: number
  /** Milliseconds between two looks for such silence, and for the end of the server. */
  readonly lookEveryMs: number
}

/** The bounds in force. A reference: nothing need provide it. */
export const LiveStreamLimits: Context.Reference<LiveStreamLimitValues> = Context.Reference(
  "@thrum/server/http/LiveStreamLimits",
  { defaultValue: () => ({ unreadBytesMax: 1024 * 1024, drainWaitMs: 60_000, silenceMs: 15_000, lookEveryMs: 200 }) }
)

/** Milliseconds after which a browser comes back. */
const retryMs = 1000

/** How a reader wants to see. */
export interface StreamWish {
  readonly id: string
  readonly from: From
  readonly policy: Policy
  /** `Accept` of the request. */
  readonly accept: string | undefined
  /** `Last-Event-ID` of the request: it has everything before this position. */
  readonly lastEventId: Position | undefined
  /** Whether only the head of the answer is asked for. */
  readonly isHead: boolean
}

/** How events are written. */
interface Dialect {
  readonly mediaType: string
  readonly contentType: string
  /** Before everything. */
  readonly preamble: string
  /** One event: its type, its JSON, and the position after it where it has one. */
  readonly write: (type: string, json: string, after: Position | undefined) => string
  /** A sign of life. */
  readonly heartbeat: string
  /** What was made of frames, for the readers still to come to them. */
  readonly frames: WeakMap<Frame, Uint8Array>
}

const serverSent: Dialect = {
  mediaType: "text/event-stream",
  contentType: "text/event-stream; charset=utf-8",
  preamble: `retry: ${retryMs}\n\n`,
  write: (type, json, after) =>
    `${after === undefined ? "" : `id: ${formatPosition(after)}\n`}event: ${type}\ndata: ${json}\n\n`,
  heartbeat: ":\n\n",
  frames: new WeakMap()
}

const ndjson: Dialect = {
  mediaType: "application/x-ndjson",
  contentType: "application/x-ndjson",
  preamble: "",
  write: (_type, json) => `${json}\n`,
  heartbeat: "{\"type\":\"heartbeat\"}\n",
  frames: new WeakMap()
}

const dialects = [serverSent, ndjson]

const types: Readonly<Record<FeedEvent["kind"], string>> = {
  [kinds.samples]: "samples",
  [kinds.epoch]: "epoch",
  [kinds.durable]: "durable",
  [kinds.gap]: "gap",
  [kinds.caughtUp]: "caught-up",
  [kinds.ended]: "ended"
}

/** Where a reader that has had the event goes on; undefined when it stays where it was. */
const after = (event: FeedEvent): Position | undefined => {
  switch (event.kind) {
    case kinds.samples:
      return { epoch: event.epoch, index: event.next }
    case kinds.gap:
      // What is told lost lies behind the reader.
      return event.reason === "lost" ? undefined : event.to
    case kinds.ended:
      return event.position
    default:
      return undefined
  }
}

const bytesOf = (dialect: Dialect, event: FeedEvent, session: SessionInfo): Uint8Array => {
  if (!(event instanceof Frame)) {
    return Buffer.from(dialect.write(types[event.kind], jsonOf(event, session), after(event)))
  }
  const known = dialect.frames.get(event)
  if (known !== undefined) return known
  const made = Buffer.from(dialect.write("samples", jsonOf(event, session), after(event)))
  dialect.frames.set(event, made)
  return made
}

/** The body of one answer. */
class EventStream extends Readable {
  /** When something was last written, ms. */
  lastWrite: number = Date.now()
  private pending: Array<Uint8Array> = []
  private pendingBytes = 0
  private isEnding = false
  private readonly unreadBytesMax: number

  constructor(unreadBytesMax: number) {
    super({ highWaterMark: unreadBytesMax, read: () => {} })
    this.unreadBytesMax = unreadBytesMax
    // Whoever pipes it hears of errors; here nobody need.
    this.on("error", () => {})
  }

  /** Bytes that were not read yet. */
  get unread(): number {
    return this.pendingBytes + this.readableLength
  }

  /** Writes, in one piece with whatever else this turn of the event loop writes. False: enough for now. */
  send(bytes: Uint8Array): boolean {
    if (this.destroyed || this.isEnding) return true
    this.pending.push(bytes)
    this.pendingBytes += bytes.length
    if (this.pending.length === 1 && waiting.push(this) === 1) setImmediate(flushAll)
    return this.unread < this.unreadBytesMax
  }

  /** Writes what there is, and ends. */
  finish(): void {
    if (this.isEnding || this.destroyed) return
    this.flush()
    this.isEnding = true
    this.push(null)
  }

  flush(): void {
    if (this.pending.length === 0 || this.destroyed || this.isEnding) return
    const bytes = this.pending.length === 1 ? this.pending[0]! : Buffer.concat(this.pending, this.pendingBytes)
    this.pending = []
    this.pendingBytes = 0
    this.lastWrite = Date.now()
    this.push(bytes)
  }
}

let waiting: Array<EventStream> = []

const flushAll = (): void => {
  const streams = waiting
  waiting = []
  for (const stream of streams) stream.flush()
}

/** Returns when the reader has read what was sent to it; cuts it off when it does not. */
const drained = (stream: EventStream, drainWaitMs: number): Effect.Effect<void> =>
  Effect.sleep("10 millis").pipe(
    Effect.repeat({ until: () => Effect.sync(() => stream.unread === 0) }),
    Effect.timeoutOrElse({
      duration: drainWaitMs,
      orElse: () =>
        Effect.sync(() => stream.destroy(new Error(`${stream.unread} bytes were not read in ${drainWaitMs} ms`))).pipe(
          Effect.andThen(Effect.never)
        )
    }),
    Effect.asVoid
  )

/** Answers with the feed. */
export type StreamLive = (
  wish: StreamWish
) => Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  Problem<"session-not-found" | "not-acceptable" | "archive-unavailable">
>

/** Makes the handler. When the instance shuts down, the answers under way are ended. */
export const makeStreamLive: Effect.Effect<StreamLive, never, Hub | Feed | Scope.Scope> = Effect.gen(function*() {
  const [hub, feed, limits] = [yield* Hub, yield* Feed, yield* LiveStreamLimits]
  const isDraining = yield* Draining
  const open = new Set<{ readonly stream: EventStream; readonly dialect: Dialect }>()
  yield* Effect.forkScoped(
    Effect.sleep(limits.lookEveryMs).pipe(
      Effect.andThen(Effect.sync(() => {
        const before = Date.now() - limits.silenceMs
        for (const { stream, dialect } of open) {
          // Ended, not cut: whoever watches comes back, to another instance.
          if (isDraining()) stream.finish()
          else if (stream.lastWrite <= before && stream.unread === 0) stream.send(Buffer.from(dialect.heartbeat))
        }
      })),
      Effect.forever
    )
  )

  /** Follows the session in the background until it ends or the reader leaves. */
  const begin = Effect.fnUntraced(function*(wish: StreamWish, dialect: Dialect) {
    const scope = yield* Scope.make()
    const live = yield* hub.open(wish.id).pipe(
      Scope.provide(scope),
      Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
    )
    const { lastEventId } = wish
    if (live.ended !== undefined && lastEventId !== undefined && comparePositions(lastEventId, live.ended) >= 0) {
      yield* Scope.close(scope, Exit.void)
      return undefined
    }
    const stream = new EventStream(limits.unreadBytesMax)
    const entry = { stream, dialect }
    open.add(entry)
    stream.once("close", () => {
      open.delete(entry)
      Effect.runFork(Scope.close(scope, Exit.void))
    })
    const session: SessionInfo = { ...infoOf(live.record), state: live.ended === undefined ? "live" : "ended" }
    const from = feed.positionOf(live, lastEventId ?? wish.from)
    stream.send(Buffer.from(dialect.preamble + dialect.write("welcome", welcomeText(session, from), from)))
    yield* feed.attach(live, from, wish.policy, {
      send: (event) => stream.send(bytesOf(dialect, event, session)),
      drained: drained(stream, limits.drainWaitMs)
    }).pipe(
      Effect.catch(() =>
        // What of the archive's cannot be read is not the reader's business.
        Effect.sync(() => {
          const why = frameError("Failed", "Cannot go on: the server failed in a way it did not expect")
          stream.send(Buffer.from(dialect.write("problem", errorText(why, retryMs), undefined)))
        })
      ),
      Effect.andThen(Effect.sync(() => stream.finish())),
      Effect.forkIn(scope)
    )
    return stream
  }, Effect.uninterruptible)

  return Effect.fn("LiveHandler.stream")(function*(wish: StreamWish) {
    yield* knownForm(wish.id)
    const mediaType = negotiate(wish.accept, dialects.map((one) => one.mediaType))
    const dialect = dialects.find((one) => one.mediaType === mediaType)
    if (dialect === undefined) {
      const offers = dialects.map((one) => one.mediaType).join(" and ")
      const detail = `Cannot answer in a format that "Accept" allows: over plain HTTP there are ${offers}, ` +
        "and there is a WebSocket (sub-protocol thrum.v1)"
      return yield* Effect.fail(problem("not-acceptable", detail))
    }
    const head = {
      contentType: dialect.contentType,
      // Proxies that keep an answer until it is whole would keep this one for ever.
      headers: { "cache-control": "no-store", vary: "Accept", "x-accel-buffering": "no" }
    }
    const toProblem = Effect.mapError(problemOf<"SessionNotFound" | "ArchiveUnavailable">)
    if (wish.isHead) {
      yield* Effect.scoped(hub.open(wish.id)).pipe(toProblem)
      return HttpServerResponse.raw(undefined, head)
    }
    const stream = yield* begin(wish, dialect).pipe(toProblem)
    // The one answer that keeps a browser from coming back.
    return stream === undefined ?
      HttpServerResponse.empty({ status: 204, headers: head.headers }) :
      HttpServerResponse.raw(stream, head)
  })
})
