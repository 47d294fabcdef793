/**
 * One instance: a whole core on the archive, and doors that do what the WebSocket doors do, over a simulated network.
 *
 * It ends in two ways. Killed: everything it has in memory is gone between two events. Drained: it takes no more frames,
 * flushes its queue, sends the last acks and closes.
 */
import {
  Archive,
  coreLayer,
  CoreLimits,
  type CoreLimitValues,
  Feed,
  type FeedEvent,
  type From,
  Hub,
  type Intake,
  type Live,
  type Policy,
  type Publisher,
  Sessions,
  WriteQueue
} from "@thrum/core"
import type { FrameError, Position } from "@thrum/protocol"
import { Cause, Context, Deferred, Effect, Exit, Layer, Logger, Scope } from "effect"
import type { FaultyArchive } from "./FaultyArchive.ts"
import type { Link } from "./Network.ts"
import type { Random } from "./Random.ts"
import type { Process, Timeline } from "./Timeline.ts"
import type { Trace } from "./Trace.ts"
import type { Boot, Produced, Truth } from "./Truth.ts"

/** What a device sends. */
export type DeviceUp =
  | { readonly _tag: "Hello"; readonly boot: Boot; readonly next: number }
  | { readonly _tag: "Samples"; readonly frame: Produced }
  | { readonly _tag: "End"; readonly final: number }

/** What a device gets. */
export type DeviceDown =
  | { readonly _tag: "Welcome"; readonly epoch: number; readonly next: number }
  | { readonly _tag: "Ack"; readonly received: number; readonly durable: number }
  | { readonly _tag: "Rewind"; readonly next: number }

/** What a viewer sends: its wish, once. */
export interface ViewerUp {
  readonly session: string
  readonly from: From
  readonly policy: Policy
  /** Events it leaves unread before it is full. */
  readonly unreadMax: number
  /** Milliseconds it takes for one event, at most. */
  readonly paceMax: number
}

/** What a viewer gets. */
export type ViewerDown =
  | { readonly _tag: "Welcome"; readonly from: Position; readonly by: string }
  | { readonly _tag: "Event"; readonly event: FeedEvent }

/** The key of every session. */
export const ingestKey = "the key"

/** Milliseconds between two acks, at most. */
const ackEveryMs = 100

type Core = Sessions | Hub | Feed | WriteQueue

interface Surroundings {
  readonly timeline: Timeline
  readonly random: Random
  readonly trace: Trace
  readonly truth: Truth
  readonly archive: FaultyArchive
  readonly limits: CoreLimitValues
}

/** Frames an intake has accepted, as the doors counted them. */
interface Counted {
  received: number
  rejected: number
}

export class Server {
  readonly process: Process
  /** Frames that were accepted for each boot, while its session was open here and until another writer took over. */
  private readonly accepted = new Map<Boot, { readonly live: Live; readonly frames: Set<Produced> }>()
  /** Hellos that came for each session. */
  private readonly hellos = new Map<string, number>()
  private readonly fencedBoots = new Set<Boot>()
  private readonly world: Surroundings
  private readonly scope: Scope.Closeable = Effect.runSync(Scope.make())
  private core: Context.Context<Core> | undefined
  private draining = false
  private readonly doors = new Set<{ readonly stop: () => void; readonly finish: () => void }>()
  private readonly spied = new WeakSet<Live>()
  private readonly counted = new Map<Intake, Counted>()
  /** Told lost here, by boot. */
  private readonly lost = new Map<Boot, Array<{ readonly from: number; readonly to: number }>>()

  constructor(process: Process, world: Surroundings) {
    this.process = process
    this.world = world
    const archive = Layer.succeed(Archive, world.archive.connect(process))
    this.fork(
      Layer.buildWithScope(coreLayer.pipe(Layer.provide(archive)), this.scope).pipe(
        Effect.tap((core) =>
          Effect.sync(() => {
            this.core = core
            this.say("is up")
          })
        )
      )
    )
  }

  get isUp(): boolean {
    return this.process.isAlive && this.core !== undefined && !this.draining
  }

  /** Everything in memory is gone. */
  kill(): void {
    this.process.isAlive = false
    this.say("is killed")
  }

  /** Stops as on SIGTERM. `onDown` is called when it is gone. */
  drain(onDown: () => void): void {
    if (this.core === undefined) {
      this.kill()
      return onDown()
    }
    this.draining = true
    this.say("drains")
    const [hub, queue] = [Context.get(this.core, Hub), Context.get(this.core, WriteQueue)]
    for (const door of this.doors) door.stop()
    this.fork(
      Effect.forEach(Array.from(hub.lives(), (live) => live.id), (id) => queue.flushed(id), {
        concurrency: "unbounded",
        discard: true
      }).pipe(
        Effect.timeoutOption(4000),
        Effect.andThen(Effect.sync(() => {
          for (const door of this.doors) door.finish()
        })),
        Effect.andThen(Effect.sleep(50)),
        Effect.andThen(Scope.close(this.scope, Exit.void)),
        Effect.andThen(Effect.sync(() => {
          this.process.isAlive = false
          this.say("is down")
          onDown()
        }))
      )
    )
  }

  /** Serves a device. */
  ingest(link: Link<DeviceUp, DeviceDown>, id: string, name: string): void {
    const gone = Deferred.makeUnsafe<{ readonly _tag: "Gone" } | { readonly _tag: "End"; readonly final: number }>()
    link.onClientGone = () => Deferred.doneUnsafe(gone, Effect.succeed({ _tag: "Gone" }))
    link.onUp = (hello) => {
      if (hello._tag !== "Hello") return
      this.fork(this.publish(link, id, name, hello, gone))
    }
  }

  private readonly publish = Effect.fnUntraced(function*(
    this: Server,
    link: Link<DeviceUp, DeviceDown>,
    id: string,
    name: string,
    { boot, next }: { readonly boot: Boot; readonly next: number },
    gone: Deferred.Deferred<{ readonly _tag: "Gone" } | { readonly _tag: "End"; readonly final: number }>
  ) {
    if (this.core === undefined || this.draining) return link.close({ name: "Restarting", text: "" })
    const { timeline, truth } = this.world
    const order = this.hellos.set(id, (this.hellos.get(id) ?? 0) + 1).get(id)!
    const sessions = Context.get(this.core, Sessions)
    const close = (why: FrameError): void => {
      this.say(`closes ${name}: ${why.name} ${why.message}`)
      link.close({ name: why.name, text: why.message })
    }

    let publisher: Publisher | undefined
    let stopped = false
    let timer: (() => void) | undefined
    let [sentReceived, sentDurable] = [-1, -1]
    const send = (): void => {
      timer?.()
      timer = undefined
      if (publisher === undefined || !link.isOpenToServer) return
      const { received, durable } = publisher
      truth.claimed(boot, received, durable)
      if (received === sentReceived && durable === sentDurable) return
      ;[sentReceived, sentDurable] = [received, durable]
      this.say(`acks ${name} ${received} ${durable}`)
      link.down({ _tag: "Ack", received, durable })
    }
    const progress = (): void => {
      if (publisher === undefined) return
      truth.claimed(boot, publisher.received, publisher.durable)
      if (publisher.durable === publisher.received && publisher.durable !== sentDurable) send()
      else timer ??= timeline.after(ackEveryMs, send, this.process)
    }

    const published = yield* sessions.publish(id, { key: ingestKey, bootId: boot.bootId, next }, {
      onProgress: progress,
      onRewind: (next) => {
        send()
        this.say(`rewinds ${name} to ${next}`)
        link.down({ _tag: "Rewind", next })
      },
      onClose: (why) => {
        stopped = true
        if (why.name === "Superseded" && this.hellos.get(id) === order) {
          truth.fail(`${name} was superseded by an older hello`)
        }
        send()
        close(why)
      }
    }).pipe(Effect.result)
    if (published._tag === "Failure") {
      this.say(`refuses ${name}: ${published.failure._tag}`)
      return link.close({ name: published.failure._tag, text: published.failure.message })
    }
    // A newer connection had come before it was served.
    if (stopped) return
    publisher = published.success
    const { intake, live } = publisher
    this.spy(live)
    // An intake of its own begins where the archive is.
    if (!this.counted.has(intake)) this.fencedBoots.delete(boot)
    this.countedOf(intake)
    if (publisher.epoch !== boot.epoch) truth.fail(`${name} is welcomed to epoch ${publisher.epoch}, has ${boot.epoch}`)
    truth.claimed(boot, publisher.received, publisher.durable)
    // As PROTOCOL says: what a rewind asked for may come after the end. Frames that are not accepted then are ignored.
    let hasEnded = false
    link.onUp = (message) => {
      if (stopped || message._tag === "Hello") return
      if (message._tag === "End") {
        hasEnded = true
        Deferred.doneUnsafe(gone, Effect.succeed({ _tag: "End", final: message.final }))
        return
      }
      const refusal = this.accept(published.success, boot, message.frame, intake)
      if (refusal === undefined || hasEnded) return
      stopped = true
      send()
      close(refusal)
    }
    this.say(`welcomes ${name} to ${publisher.epoch}:${publisher.next}`)
    link.down({ _tag: "Welcome", epoch: publisher.epoch, next: publisher.next })
    sentReceived = publisher.next
    progress()

    const door = {
      stop: () => {
        stopped = true
      },
      finish: () => {
        send()
        link.close({ name: "Restarting", text: "" })
      }
    }
    this.doors.add(door)
    yield* Effect.addFinalizer(() => Effect.sync(() => this.doors.delete(door)))
    if (this.draining) door.stop()

    const how = yield* Deferred.await(gone)
    if (how._tag === "Gone") return
    const ended = yield* sessions.end(id, { publisher, final: how.final }).pipe(Effect.result)
    if (ended._tag === "Failure") {
      this.say(`cannot end for ${name}: ${ended.failure._tag}`)
      return link.close({ name: ended.failure._tag, text: ended.failure.message })
    }
    this.ended(id, ended.success.samples)
    send()
    link.close({ name: "Ended", text: "" })
  }, Effect.scoped)

  private accept(publisher: Publisher, boot: Boot, frame: Produced, intake: Intake): FrameError | undefined {
    const { truth } = this.world
    const counted = this.countedOf(intake)
    // A copy: the socket's buffer is used again.
    const message = frame.bytes.slice()
    const before = intake.counts.received
    const refusal = publisher.accept(message)
    message.fill(0)
    counted.received += intake.counts.received - before
    if (refusal !== undefined) {
      if (intake.counts.received > before) counted.rejected++
      this.say(`refuses ${boot.name} ${frame.first}-${frame.next}: ${refusal.name}`)
      return refusal
    }
    if (intake.counts.received !== counted.received || intake.counts.rejected !== counted.rejected) {
      truth.fail(
        `${boot.name}: ${counted.received} frames came and ${counted.rejected} were refused, counted are ${intake.counts.received} and ${intake.counts.rejected}`
      )
    }
    this.say(`accepts ${boot.name} ${frame.first}-${frame.next}: ${intake.shown} ${intake.queued} ${intake.durable}`)
    truth.accepted(boot, frame, publisher.durable)
    if (this.fencedBoots.has(boot)) return undefined
    const known = this.accepted.get(boot)
    const accepted = known?.live === publisher.live ? known : { live: publisher.live, frames: new Set<Produced>() }
    accepted.frames.add(frame)
    this.accepted.set(boot, accepted)
    return undefined
  }

  private countedOf(intake: Intake): Counted {
    const known = this.counted.get(intake)
    if (known !== undefined) return known
    const counted = { received: 0, rejected: 0 }
    this.counted.set(intake, counted)
    return counted
  }

  /** Another writer has moved the epoch on: what was accepted here since may never be stored. */
  fenced(boot: Boot): void {
    this.accepted.delete(boot)
    this.fencedBoots.add(boot)
    boot.isDisputed = true
  }

  /** Serves a viewer. */
  watch(link: Link<ViewerUp, ViewerDown>, name: string): void {
    const gone = Deferred.makeUnsafe<void>()
    link.onClientGone = () => Deferred.doneUnsafe(gone, Effect.void)
    link.onUp = (wish) => {
      this.fork(this.show(link, name, wish, gone))
    }
  }

  private readonly show = Effect.fnUntraced(function*(
    this: Server,
    link: Link<ViewerUp, ViewerDown>,
    name: string,
    wish: ViewerUp,
    gone: Deferred.Deferred<void>
  ) {
    if (this.core === undefined || this.draining) return link.close({ name: "Restarting", text: "" })
    const { random, timeline, truth } = this.world
    const [hub, feed] = [Context.get(this.core, Hub), Context.get(this.core, Feed)]
    const opened = yield* hub.open(wish.session).pipe(Effect.result)
    if (opened._tag === "Failure") return link.close({ name: opened.failure._tag, text: opened.failure.message })
    const live = opened.success
    this.spy(live)
    const from = feed.positionOf(live, wish.from)
    link.down({ _tag: "Welcome", from, by: this.process.name })

    // What the viewer has not read yet; it reads one event after the other.
    let unread = 0
    let readAt = 0
    let isFull = false
    let waiting: (() => void) | undefined
    const sink = {
      send: (event: FeedEvent) => {
        if (isFull && unread > wish.unreadMax + 4) truth.fail(`${name} was offered ${unread} events while it was full`)
        unread++
        link.down({ _tag: "Event", event })
        readAt = Math.max(readAt, timeline.now) + random.skewed(0, wish.paceMax)
        timeline.at(readAt, () => {
          if (--unread > 0 || waiting === undefined) return
          const go = waiting
          waiting = undefined
          isFull = false
          go()
        }, this.process)
        isFull = unread >= wish.unreadMax
        return !isFull
      },
      drained: Effect.callback<void>((resume) => {
        if (unread === 0) {
          isFull = false
          return resume(Effect.void)
        }
        waiting = () => resume(Effect.void)
        return Effect.sync(() => {
          waiting = undefined
        })
      })
    }
    const door = { stop: () => {}, finish: () => link.close({ name: "Restarting", text: "" }) }
    this.doors.add(door)
    yield* Effect.addFinalizer(() => Effect.sync(() => this.doors.delete(door)))
    yield* feed.attach(live, from, wish.policy, sink).pipe(
      Effect.matchEffect({
        onFailure: (error) => Effect.sync(() => truth.fail(`${name}: ${error.message}`)),
        onSuccess: () => Effect.sync(() => link.close({ name: "Ended", text: "" }))
      }),
      Effect.raceFirst(Deferred.await(gone))
    )
  }, Effect.scoped)

  /** Ends a session by its key. `answer` gets the error's name, or undefined when it has ended. */
  end(id: string, answer: (error: string | undefined) => void): void {
    if (this.core === undefined || this.draining) return answer("Restarting")
    const sessions = Context.get(this.core, Sessions)
    this.fork(
      sessions.end(id, { key: ingestKey }).pipe(
        Effect.result,
        Effect.andThen((ended) =>
          Effect.sync(() => {
            if (ended._tag === "Failure") return answer(ended.failure._tag)
            this.ended(id, ended.success.samples)
            answer(undefined)
          })
        )
      )
    )
  }

  /** `end` has answered: what was accepted here is in it, or was told lost. */
  private ended(id: string, samples: number): void {
    const { truth } = this.world
    this.say(`ended ${truth.sessions.get(id)?.name}: ${samples} samples`)
    truth.endAnswered(id, samples)
    const live = this.core === undefined ? undefined : Context.get(this.core, Hub).peek(id)
    for (const [boot, { frames, live: shownBy }] of this.accepted) {
      // What was let go with nobody there to tell it to, was told to nobody.
      if (shownBy !== live) continue
      // Another process has gone on with it: what became of this is between it and the archive.
      if ([...boot.openedBy].at(-1) !== this.process.name) continue
      const lost = this.lost.get(boot) ?? []
      for (const { first, next } of frames) {
        if (boot.stored.covers(first, next) || lost.some((gap) => gap.from <= first && gap.to >= next)) continue
        truth.fail(
          `${boot.name}: ${first}-${next} was accepted by ${this.process.name} before the end, is not in it and was not told lost`
        )
      }
    }
  }

  /** Bounds that hold after every event. */
  checkBounds(): void {
    if (this.core === undefined || !this.process.isAlive) return
    const { limits, truth } = this.world
    const [hub, queue] = [Context.get(this.core, Hub), Context.get(this.core, WriteQueue)]
    const { bytes } = queue.counts()
    if (bytes > limits.queueBytesMax || bytes < 0) truth.fail(`the queue of ${this.process.name} holds ${bytes} bytes`)
    const rings = hub.ringsBytes()
    if (rings > limits.ringsBytesMax) truth.fail(`the rings of ${this.process.name} hold ${rings} bytes`)
    let total = 0
    for (const live of hub.lives()) {
      let ring = 0
      live.replay({ epoch: 0, index: 0 }, (frame) => {
        ring += frame.bytes.length
        return true
      })
      if (ring > limits.ringBytesMax) truth.fail(`a ring of ${this.process.name} holds ${ring} bytes`)
      total += ring
    }
    if (total !== rings) truth.fail(`the rings of ${this.process.name} hold ${total} bytes and count ${rings}`)
  }

  /** Once all is over: what was taken was given back. */
  checkEmpty(): void {
    if (this.core === undefined || !this.process.isAlive) return
    const { bytes } = Context.get(this.core, WriteQueue).counts()
    if (bytes !== 0) this.world.truth.fail(`the queue of ${this.process.name} still holds ${bytes} bytes`)
  }

  private spy(live: Live): void {
    const { truth } = this.world
    if (this.spied.has(live)) return
    this.spied.add(live)
    const session = truth.sessions.get(live.id)!
    live.viewers.add({
      frame: () => {},
      gap: (gap) => {
        this.say(`tells ${session.name} ${gap.from.epoch}:${gap.from.index}-${gap.to.index} ${gap.reason}`)
        truth.lostTold(live.id, gap, this.process.name)
        const boot = session.epochs[gap.from.epoch]
        if (boot === undefined) return
        const lost = this.lost.get(boot) ?? []
        lost.push({ from: gap.from.index, to: gap.to.index })
        this.lost.set(boot, lost)
      },
      durable: () => {},
      stop: () => {}
    })
  }

  private fork<A, E>(effect: Effect.Effect<A, E>): void {
    const { limits, truth } = this.world
    const logger = Logger.make(({ logLevel, message }) => {
      const text = Array.isArray(message) ? message.map(String).join(" ") : String(message)
      this.say(`logs ${logLevel}: ${text}`)
      if (logLevel === "Error" && !text.startsWith("Cannot flush")) truth.fail(`${this.process.name} logs: ${text}`)
    })
    const context = this.process.context.pipe(
      Context.add(CoreLimits, limits),
      Context.add(Logger.CurrentLoggers, new Set([logger]))
    )
    const fiber = Effect.runForkWith(context)(effect)
    fiber.addObserver((exit) => {
      if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return
      truth.fail(`${this.process.name} failed: ${Cause.pretty(exit.cause)}`)
    })
  }

  private say(text: string): void {
    this.world.trace.say(this.world.timeline.now, `${this.process.name} ${text}`)
  }
}
