/**
 * The life of a session: created, published to, ended. Control plane; what happens per frame is in `Intake.ts`.
 */
import { type Description, frameError, indexMax, type Position } from "@thrum/protocol"
import { Clock, Context, Data, Effect, Exit, Layer, Scope, Semaphore } from "effect"
import { Archive, ArchiveUnavailable } from "./Archive.ts"
import { Hub } from "./Hub.ts"
import { hashIngestKey, isIngestKey, makeIngestKey } from "./IngestKey.ts"
import { Intake } from "./Intake.ts"
import { CoreLimits } from "./Limits.ts"
import type { Live } from "./Live.ts"
import { Publisher, type PublisherPeer } from "./Publisher.ts"
import {
  durableOf,
  KeyRefused,
  SessionEnded,
  type SessionId,
  type SessionNotFound,
  type SessionRecord,
  type StaleEpoch
} from "./Session.ts"
import type { TaggedErrorClass } from "./TaggedError.ts"
import { WriteQueue } from "./WriteQueue.ts"

/** A session with where it stands now. */
export interface SessionStanding {
  readonly record: SessionRecord
  /** After the last sample that arrived here or is stored. */
  readonly received: Position
  /** Everything before it is stored for certain. */
  readonly durable: Position
  /** Samples stored. */
  readonly samples: number
  /** Bytes stored. */
  readonly bytes: number
  /** Whether a device publishes here, now. */
  readonly isPublishing: boolean
  /** Who watches here, now. */
  readonly viewers: number
}

const NotFlushedBase: TaggedErrorClass<"NotFlushed", { readonly id: SessionId; readonly waitedMs: number }> = Data
  .TaggedError("NotFlushed")
/** The session cannot be sealed yet: frames that were received are not stored. Try again. */
export class NotFlushed extends NotFlushedBase {
  override get message(): string {
    return `Cannot end the session "${this.id}": frames it received are not stored after ${this.waitedMs} ms`
  }
}

const EndMismatchBase: TaggedErrorClass<
  "EndMismatch",
  { readonly id: SessionId; readonly epoch: number; readonly final: number; readonly received: number }
> = Data.TaggedError("EndMismatch")
/** The device names a final index that is not where its stream is. */
export class EndMismatch extends EndMismatchBase {
  override get message(): string {
    return `Cannot end at ${this.epoch}:${this.final}: the stream is at ${this.epoch}:${this.received}`
  }
}

/** What a device says when it connects. */
export interface PublishHello {
  readonly key: string | undefined
  readonly bootId: string
  /** The index of the first sample it can send, when known. */
  readonly next?: number | undefined
}

export interface SessionsShape {
  /** Makes a session. The ingest key is in the answer and nowhere else. */
  readonly create: (
    description: Description
  ) => Effect.Effect<{ readonly standing: SessionStanding; readonly ingestKey: string }, ArchiveUnavailable>

  readonly standing: (id: SessionId) => Effect.Effect<SessionStanding, SessionNotFound | ArchiveUnavailable>

  /** Checks the key of a session. Without one (undefined) it is refused like a wrong one. */
  readonly authorize: (
    id: SessionId,
    key: string | undefined
  ) => Effect.Effect<SessionRecord, SessionNotFound | KeyRefused | ArchiveUnavailable>

  /**
   * Connects a device until the scope closes. A device of the same boot id goes on in its epoch, another begins a new
   * one. An older connection of the session is closed with `Superseded`.
   */
  readonly publish: (
    id: SessionId,
    hello: PublishHello,
    peer: PublisherPeer
  ) => Effect.Effect<
    Publisher,
    SessionNotFound | SessionEnded | StaleEpoch | KeyRefused | ArchiveUnavailable,
    Scope.Scope
  >

  /**
   * Seals the session for good: no frame is accepted from here on, and the answer comes when everything received is
   * stored. Twice is the same as once. `final`, when given, must be where the stream of `publisher` is.
   */
  readonly end: (
    id: SessionId,
    by: { readonly key: string | undefined } | { readonly publisher: Publisher; readonly final: number }
  ) => Effect.Effect<SessionStanding, SessionNotFound | KeyRefused | NotFlushed | EndMismatch | ArchiveUnavailable>
}

const Tag: Context.ServiceClass<Sessions, "@thrum/core/Sessions", SessionsShape> = Context.Service<
  Sessions,
  SessionsShape
>()("@thrum/core/Sessions")

/** The life of sessions. */
export class Sessions extends Tag {
  static readonly layer: Layer.Layer<Sessions, never, Archive | Hub | WriteQueue> = Layer.effect(
    Sessions,
    Effect.gen(function*() {
      const [archive, hub, queue] = [yield* Archive, yield* Hub, yield* WriteQueue]
      const [limits, clock] = [yield* CoreLimits, yield* Clock.Clock]
      const layerScope = yield* Effect.scope
      const now = (): number => clock.currentTimeMillisUnsafe()
      // Hellos and ends of one session come one after the other.
      const gates = new WeakMap<Live, Semaphore.Semaphore>()
      const gate = (live: Live): Semaphore.Semaphore => {
        const known = gates.get(live)
        if (known !== undefined) return known
        const made = Semaphore.makeUnsafe(1)
        gates.set(live, made)
        return made
      }

      // A hello whose look-up took long must not take the place of one that came after it and was quicker.
      let hellos = 0
      const newest = new WeakMap<Live, number>()

      const gapsOf = ({ id, epochs }: SessionRecord, epoch: number) =>
        epochs[epoch]?.samples === epochs[epoch]?.durable ? Effect.succeed([]) : archive.gaps(id, epoch)

      /** What an epoch that is over leaves out, but for what waits in the queue. */
      const unstored = (record: SessionRecord, epoch: number) =>
        Effect.map(gapsOf(record, epoch), (gaps) => [
          ...gaps,
          { from: record.epochs[epoch]?.durable ?? 0, to: indexMax }
        ])

      const intakeOf = Effect.fnUntraced(function*(live: Live, { bootId, next }: PublishHello) {
        if (live.ended !== undefined) return yield* new SessionEnded({ id: live.id })
        const known = live.intake?.bootId === bootId ? live.intake : undefined
        // While the archive is away a device goes on here, unless it lacks what comes next here: another instance may
        // have stored that, and it would be taken for a gap.
        const canGoOn = known !== undefined && next !== undefined && next <= known.queued
        const record = yield* archive.openEpoch(live.id, bootId).pipe(
          Effect.catchTag("ArchiveUnavailable", (error) => canGoOn ? Effect.undefined : Effect.fail(error))
        )
        if (known?.isFenced === false && (record === undefined || record.durable <= known.queued)) {
          known.confirm(record?.durable ?? 0)
          return known
        }
        if (record === undefined) return yield* new ArchiveUnavailable({ doing: "open the epoch", cause: "fenced" })
        // The older intake takes no more frames while we ask what became of those it took.
        live.publisher?.supersede()
        known?.fence()
        const older = live.intake
        const stored = yield* archive.session(live.id)
        // What it has queued will be fenced, too, where the archive is past it.
        if (older !== undefined && (stored.epochs[older.epoch]?.durable ?? 0) > older.queued) older.fence()
        const gaps = yield* gapsOf(stored, record.epoch)
        older?.abandon(older.epoch === record.epoch ? gaps : yield* unstored(stored, older.epoch))
        const intake = new Intake(stored.epochs[record.epoch] ?? record, gaps, older, live, queue, limits, now)
        live.intake = intake
        // Another instance, or a commit whose answer was lost, may have stored what was never shown here.
        if (isAhead(stored, live.head)) live.catchUp(durableOf(stored))
        return intake
      })

      /** Keeps the session in memory, after its device has gone, until what it received is stored. */
      const holdUntilFlushed = Effect.fnUntraced(function*(id: SessionId) {
        const scope = yield* Scope.fork(layerScope)
        yield* hub.open(id).pipe(
          Scope.provide(scope),
          Effect.andThen(queue.flushed(id)),
          Effect.ignore,
          Effect.ensuring(Scope.close(scope, Exit.void)),
          Effect.forkIn(layerScope)
        )
      })

      const publish: SessionsShape["publish"] = Effect.fn("Sessions.publish")(function*(id, hello, peer) {
        const order = ++hellos
        const live = yield* hub.open(id)
        yield* refuseUnlessKey(live.record, hello.key)
        return yield* gate(live).withPermit(Effect.gen(function*() {
          const isOvertaken = order < (newest.get(live) ?? 0)
          const intake = isOvertaken && live.intake !== undefined ? live.intake : yield* intakeOf(live, hello)
          if (!isOvertaken) newest.set(live, order)
          return yield* Effect.acquireRelease(
            Effect.sync(() => new Publisher(live, intake, peer, isOvertaken)),
            (publisher) => Effect.andThen(Effect.sync(() => publisher.leave()), holdUntilFlushed(id))
          )
        }))
      })

      const standingOf = (record: SessionRecord): SessionStanding => {
        const live = hub.peek(record.id)
        const durable = durableOf(record)
        return {
          record,
          received: live?.head ?? durable,
          durable,
          samples: record.epochs.reduce((sum, epoch) => sum + epoch.samples, 0),
          bytes: record.epochs.reduce((sum, epoch) => sum + epoch.bytes, 0),
          isPublishing: live?.publisher !== undefined,
          viewers: live?.viewers.size ?? 0
        }
      }

      const notFlushed = ({ id }: Live) => ({
        duration: limits.endWaitMs,
        orElse: () => Effect.fail(new NotFlushed({ id, waitedMs: limits.endWaitMs }))
      })

      /** What was shown while the queue was full comes again, if there is a device to send it. */
      const resent = (live: Live, intake: Intake): Effect.Effect<void, NotFlushed> => {
        const isResending = Effect.sync(() => intake.isRewinding && live.publisher !== undefined)
        return Effect.sleep("20 millis").pipe(
          Effect.repeat({ while: () => isResending }),
          Effect.when(isResending),
          Effect.timeoutOrElse(notFlushed(live)),
          Effect.asVoid
        )
      }

      const seal = Effect.fnUntraced(function*(live: Live) {
        const { intake } = live
        if (intake !== undefined) intake.sealing = true
        const unseal = Effect.sync(() => {
          if (intake !== undefined) intake.sealing = false
        })
        const record = yield* queue.flushed(live.id).pipe(
          Effect.timeoutOrElse(notFlushed(live)),
          Effect.andThen(archive.seal(live.id, now())),
          Effect.onError(() => unseal)
        )
        // Not before: had it failed, the device might have come back with what it was not told to resend yet.
        if (intake?.isRewinding === true) intake.abandon(yield* unstored(record, intake.epoch))
        live.end(durableOf(record))
        live.intake = undefined
        return record
      })

      const end: SessionsShape["end"] = Effect.fn("Sessions.end")(function*(id, by) {
        return yield* Effect.scoped(Effect.gen(function*() {
          const live = yield* hub.open(id)
          if ("key" in by) yield* refuseUnlessKey(live.record, by.key)
          return yield* gate(live).withPermit(Effect.gen(function*() {
            if (live.ended !== undefined) return standingOf(yield* archive.session(id))
            if (live.intake !== undefined) yield* resent(live, live.intake)
            // Only now: an end and a rewind may cross.
            if ("final" in by && by.final !== by.publisher.received) {
              const { epoch, received } = by.publisher
              return yield* new EndMismatch({ id, epoch, final: by.final, received })
            }
            const record = yield* seal(live)
            const publisher = live.publisher
            if (publisher !== undefined && !("publisher" in by && by.publisher === publisher)) {
              publisher.close(frameError("SessionEnded", `Cannot accept more frames: the session "${id}" has ended`))
            }
            return standingOf(record)
          }))
        }))
      })

      return Sessions.of({
        create: Effect.fn("Sessions.create")(function*(description) {
          const ingestKey = makeIngestKey()
          const record: SessionRecord = {
            id: crypto.randomUUID(),
            description,
            keyHash: hashIngestKey(ingestKey),
            state: "live",
            createdAt: now(),
            endedAt: undefined,
            epochs: []
          }
          yield* archive.create(record)
          return { standing: standingOf(record), ingestKey }
        }),
        standing: (id) => Effect.map(archive.session(id), standingOf),
        authorize: (id, key) => Effect.tap(archive.session(id), (record) => refuseUnlessKey(record, key)),
        publish,
        end
      })
    })
  )
}

/** Whether samples are stored that come after `head`, in its epoch or a later one. */
const isAhead = (record: SessionRecord, head: Position): boolean =>
  record.epochs.some(({ epoch, durable }) =>
    epoch === head.epoch ? durable > head.index : epoch > head.epoch && durable > 0
  )

const refuseUnlessKey = (
  record: SessionRecord,
  key: string | undefined
): Effect.Effect<void, KeyRefused> =>
  key !== undefined && isIngestKey(key, record.keyHash) ? Effect.void : Effect.fail(new KeyRefused({ id: record.id }))
