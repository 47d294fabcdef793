/**
 * An archive at the far end of a bad connection: slow, refusing, away for a while, or done without an answer.
 *
 * The archive itself is core's own in memory; it outlives every process. What a process asks travels there and back, and
 * fails in every way a database can: before anything was done, after it was done, and, for an append, before it is done
 * (the answer is lost first, the commit comes later, when another writer may have moved on).
 */
import { type Append, type Appended, Archive, type ArchiveShape, ArchiveUnavailable } from "@thrum/core"
import { Effect, Exit, Layer } from "effect"
import type { Random } from "./Random.ts"
import type { Process, Timeline } from "./Timeline.ts"
import type { Trace } from "./Trace.ts"
import type { Boot, Truth } from "./Truth.ts"

/** How bad it is, as probabilities per operation. */
export interface ArchiveFaults {
  /** Fails, and nothing was done. */
  readonly refuse: number
  /** Done, and says that it failed. */
  readonly unknown: number
  /** An append says that it failed, and is done later. */
  readonly late: number
  /** Milliseconds one way, at most. */
  readonly delayMax: number
}

export const noFaults: ArchiveFaults = { refuse: 0, unknown: 0, late: 0, delayMax: 2 }

/** Milliseconds after which a late commit comes, at most. */
const lateMax = 1500

export class FaultyArchive {
  /** The archive itself, without faults. */
  readonly inner: ArchiveShape = Effect.runSync(Effect.provide(Archive, Layer.fresh(Archive.layerMemory)))
  faults: ArchiveFaults = noFaults
  /** Nothing is done until this moment. */
  awayUntil = 0
  /** A process appended to an epoch that another writer has moved on, or that is sealed. */
  onFenced: (process: Process, boot: Boot) => void = () => {}
  private readonly timeline: Timeline
  private readonly random: Random
  private readonly trace: Trace
  private readonly truth: Truth

  constructor(timeline: Timeline, random: Random, trace: Trace, truth: Truth) {
    this.timeline = timeline
    this.random = random
    this.trace = trace
    this.truth = truth
  }

  /** The archive as `process` sees it. */
  connect(process: Process): ArchiveShape {
    const { inner } = this
    const ask = <A, E>(doing: string, operation: Effect.Effect<A, E>, canBeLate = false) =>
      this.ask(process, doing, operation, canBeLate)
    return {
      create: (session) => ask("create", inner.create(session)),
      session: (id) => ask("session", inner.session(id)),
      openEpoch: (id, bootId) =>
        ask(
          "openEpoch",
          Effect.tap(inner.openEpoch(id, bootId), ({ epoch }) =>
            Effect.sync(() => this.truth.epochOpened(id, epoch, bootId, process.name)))
        ),
      append: (group) => {
        // What leaves the process cannot be changed by it any more.
        const sent = group.map((append) => ({
          ...append,
          chunks: append.chunks.map((chunk) => ({ ...chunk, bytes: chunk.bytes.slice() }))
        }))
        return ask("append", this.append(process, sent), true)
      },
      seal: (id, endedAt) =>
        ask(
          "seal",
          Effect.tap(inner.seal(id, endedAt), () =>
            Effect.sync(() => {
              this.truth.sealed(id)
              this.trace.say(this.timeline.now, `archive sealed ${this.truth.sessions.get(id)?.name}`)
            }))
        ),
      read: (id, from, bytesMax) => ask("read", inner.read(id, from, bytesMax)),
      gaps: (id, epoch) => ask("gaps", inner.gaps(id, epoch)),
      ready: ask("ready", inner.ready)
    }
  }

  private append(
    process: Process,
    group: ReadonlyArray<Append>
  ): Effect.Effect<ReadonlyArray<Appended>, ArchiveUnavailable> {
    const { truth } = this
    const isMoved = ({ sessionId, epoch, expected }: Append): boolean =>
      truth.sessions.get(sessionId)?.epochs[epoch]?.durable === expected
    return Effect.suspend(() => {
      const before = group.map(isMoved)
      return Effect.tap(this.inner.append(group), (met) =>
        Effect.sync(() => {
          for (const [i, append] of group.entries()) {
            const { durable, sealed } = met[i]!
            const session = truth.sessions.get(append.sessionId)!
            const word = `${session.name} ${append.epoch}:${append.expected}-${append.next}`
            if (durable === append.next && !sealed && before[i]!) {
              this.trace.say(this.timeline.now, `archive took ${word} of ${process.name}`)
              truth.appended(append.sessionId, append, process.name)
            } else {
              this.trace.say(this.timeline.now, `archive left ${word} of ${process.name}: is at ${durable} ${sealed}`)
              const boot = session.epochs[append.epoch]
              // Its own earlier try, or another writer's work that happens to end where this one would.
              const isOurs = durable === append.next && boot?.storedBy.get(process.name)?.covers(durable - 1, durable)
              if (boot !== undefined && isOurs !== true) this.onFenced(process, boot)
            }
          }
        }))
    })
  }

  private ask<A, E>(
    process: Process,
    doing: string,
    operation: Effect.Effect<A, E>,
    canBeLate: boolean
  ): Effect.Effect<A, E | ArchiveUnavailable> {
    return Effect.callback<A, E | ArchiveUnavailable>((resume) => {
      const { faults, random, timeline, trace } = this
      const answer = (exit: Exit.Exit<A, E | ArchiveUnavailable>): void => {
        timeline.after(random.skewed(0.1, faults.delayMax), () => resume(exit), process)
      }
      const fail = (how: string): void => {
        trace.say(timeline.now, `archive failed ${process.name}'s ${doing}, ${how}`)
        answer(Exit.fail(new ArchiveUnavailable({ doing, cause: how })))
      }
      timeline.after(random.skewed(0.1, faults.delayMax), () => {
        const fate = random.next()
        if (timeline.now < this.awayUntil) return fail("away")
        if (fate < faults.refuse) return fail("nothing done")
        if (fate < faults.refuse + faults.unknown) {
          Effect.runSyncExit(operation)
          return fail("but it is done")
        }
        if (canBeLate && fate < faults.refuse + faults.unknown + faults.late) {
          timeline.after(random.skewed(1, lateMax), () => {
            Effect.runSyncExit(operation)
          })
          return fail("it will be done later")
        }
        answer(Effect.runSyncExit(operation))
      })
    })
  }
}
