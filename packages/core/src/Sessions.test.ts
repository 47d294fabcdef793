import { assert, it } from "@effect/vitest"
import { type FrameError, isFrameError } from "@thrum/protocol"
import { Effect, Exit, Fiber, Latch, Layer, Scope } from "effect"
import { describe } from "vitest"
import {
  Archive,
  coreLayer,
  CoreLimits,
  coreLimits,
  type CoreLimitValues,
  Hub,
  type Publisher,
  type PublisherPeer,
  type SessionId,
  Sessions,
  WriteQueue
} from "./mod.ts"
import { makeFrames, makeTroubledArchive, sessionOf, type Trouble } from "./testing/mod.ts"

/** What a device's door was told. */
interface Told {
  readonly rewinds: Array<number>
  readonly closes: Array<FrameError>
  readonly peer: PublisherPeer
}

const listen = (): Told => {
  const told = { rewinds: [] as Array<number>, closes: [] as Array<FrameError> }
  return {
    ...told,
    peer: {
      onProgress: () => {},
      onRewind: (next) => told.rewinds.push(next),
      onClose: (why) => told.closes.push(why)
    }
  }
}

const { description } = sessionOf(0)

/** Runs a test on a core of its own, on the real clock. */
const withCore = (
  test: (trouble: Trouble) => Effect.Effect<void, unknown, Archive | Hub | Sessions | WriteQueue | Scope.Scope>,
  limits: Partial<CoreLimitValues> = {}
): Effect.Effect<void, unknown> => {
  const { layer, trouble } = makeTroubledArchive()
  return Effect.scoped(test(trouble)).pipe(
    Effect.provide(coreLayer.pipe(Layer.provideMerge(layer))),
    Effect.provideService(CoreLimits, { ...coreLimits, idleMs: 10, ...limits })
  )
}

const begin = Effect.gen(function*() {
  const sessions = yield* Sessions
  const { standing, ingestKey } = yield* sessions.create(description)
  const id = standing.record.id
  const connect = (bootId: string, told: Told = listen()) => sessions.publish(id, { key: ingestKey, bootId }, told.peer)
  return { sessions, id, ingestKey, connect }
})

const stored = Effect.fnUntraced(function*(id: SessionId) {
  const archive = yield* Archive
  const chunks = yield* archive.read(id, { epoch: 0, index: 0 }, 1 << 24)
  return chunks.map(({ epoch, first, next }) => [epoch, first, next])
})

/** Runs an effect on another core on the same archive. */
const elsewhere = <A, E>(effect: Effect.Effect<A, E, Hub | Sessions | WriteQueue | Scope.Scope>) =>
  Effect.flatMap(Archive, (archive) =>
    Effect.scoped(effect).pipe(
      Effect.provide(coreLayer.pipe(Layer.provide(Layer.succeed(Archive, archive)), Layer.fresh))
    ))

const until = (condition: () => boolean): Effect.Effect<void> =>
  Effect.sleep(2).pipe(Effect.repeat({ until: () => Effect.sync(condition) }), Effect.timeout(5000), Effect.orDie)

const acceptAll = (publisher: Publisher, frames: ReturnType<typeof makeFrames>): void => {
  for (const frame of frames) assert.isUndefined(publisher.accept(frame.bytes))
}

describe("Sessions", () => {
  it.live("publish() stores what was accepted and moves durable after the commit, not before", () =>
    withCore((trouble) =>
      Effect.gen(function*() {
        const { connect, id } = yield* begin
        const publisher = yield* connect("1")
        trouble.hold()
        acceptAll(publisher, makeFrames(5))
        yield* Effect.sleep(20)
        assert.deepStrictEqual([publisher.received, publisher.durable], [50, 0])
        trouble.release()
        yield* until(() => publisher.durable === 50)
        assert.deepStrictEqual(yield* stored(id), [[0, 0, 50]])
      })
    ))

  it.live("publish() refuses a wrong key, no key and an unknown session", () =>
    withCore(() =>
      Effect.gen(function*() {
        const { sessions, id } = yield* begin
        const { peer } = listen()
        for (const key of ["wrong", undefined]) {
          const refused = yield* Effect.flip(sessions.publish(id, { key, bootId: "1" }, peer))
          assert.strictEqual(refused._tag, "KeyRefused")
        }
        const missing = yield* Effect.flip(sessions.publish(sessionOf(99).id, { key: "k", bootId: "1" }, peer))
        assert.strictEqual(missing._tag, "SessionNotFound")
      })
    ))

  it.live("a failed commit is tried again until it is done, and stores once even when it had been done", () =>
    withCore((trouble) =>
      Effect.gen(function*() {
        const { connect, id } = yield* begin
        const publisher = yield* connect("1")
        trouble.fail(2, true)
        acceptAll(publisher, makeFrames(3))
        yield* until(() => publisher.durable === 30)
        const total = (yield* stored(id)).reduce((sum, [, first, next]) => sum + next! - first!, 0)
        assert.strictEqual(total, 30)
      })
    ))

  it.live("accept() takes a repeat for a duplicate, a jump for a gap, and refuses what fills one or overlaps", () =>
    withCore(() =>
      Effect.gen(function*() {
        const { connect, id } = yield* begin
        const publisher = yield* connect("1")
        const frames = makeFrames(6)
        acceptAll(publisher, [frames[0]!, frames[1]!, frames[4]!, frames[0]!, frames[1]!])
        assert.strictEqual(publisher.intake.counts.duplicate, 2)
        for (const late of [frames[2]!, frames[3]!, ...makeFrames(1, { from: 45 }), ...makeFrames(1, { from: 15 })]) {
          const refusal = publisher.accept(late.bytes)
          assert.strictEqual(isFrameError(refusal) && refusal.name, "OutOfOrder", `at ${late.first}`)
        }
        yield* until(() => publisher.durable === 50)
        assert.strictEqual(publisher.received, 50)
        const chunks = yield* stored(id)
        assert.deepStrictEqual([chunks[0]![1], chunks.at(-1)], [0, [0, 40, 50]])
        const { counts } = publisher.intake
        assert.deepStrictEqual(counts, { received: 9, duplicate: 2, rejected: 4 })
      })
    ))

  it.live("a gap is remembered across a restart: what would fill it is refused, never acked", () =>
    withCore((trouble) =>
      Effect.gen(function*() {
        const { connect, id, ingestKey } = yield* begin
        const publisher = yield* connect("1")
        const frames = makeFrames(4)
        acceptAll(publisher, [frames[0]!, frames[2]!])
        yield* until(() => publisher.durable === 30)
        // Another instance on the same archive.
        const archive = yield* Archive
        yield* Effect.gen(function*() {
          const again = yield* (yield* Sessions).publish(id, { key: ingestKey, bootId: "1" }, listen().peer)
          assert.deepStrictEqual([again.epoch, again.next], [0, 30])
          assert.isUndefined(again.accept(frames[0]!.bytes))
          const refusal = again.accept(frames[1]!.bytes)
          assert.strictEqual(isFrameError(refusal) && refusal.name, "OutOfOrder")
        }).pipe(Effect.provide(coreLayer.pipe(Layer.provide(Layer.succeed(Archive, archive)), Layer.fresh)))
        assert.strictEqual(trouble.groups.length > 0, true)
      })
    ))

  it.live("accept() refuses frames that are no frames, and says what was wrong", () =>
    withCore(() =>
      Effect.gen(function*() {
        const { connect } = yield* begin
        const publisher = yield* connect("1")
        const [frame] = makeFrames(1)
        const cut = frame!.bytes.subarray(0, frame!.bytes.length - 3)
        const spoilt = frame!.bytes.slice()
        spoilt[spoilt.indexOf(0xc4) + 2] = 0xff // the lead byte of the block
        const refusals = [cut, spoilt, new Uint8Array([1, 2, 3]), new Uint8Array()].map((bytes) =>
          publisher.accept(bytes)
        )
        for (const refusal of refusals) assert.isTrue(isFrameError(refusal))
        assert.strictEqual(publisher.received, 0)
      })
    ))

  it.live("the same boot id goes on where it was; a new one begins the next epoch; an older one is stale", () =>
    withCore(() =>
      Effect.gen(function*() {
        const { connect, id } = yield* begin
        const scope = yield* Scope.make()
        const first = yield* connect("1").pipe(Scope.provide(scope))
        acceptAll(first, makeFrames(2))
        yield* Scope.close(scope, Exit.void)
        const again = yield* connect("1")
        assert.deepStrictEqual([again.epoch, again.next], [0, 20])
        const reborn = yield* connect("2")
        assert.deepStrictEqual([reborn.epoch, reborn.next], [1, 0])
        acceptAll(reborn, makeFrames(2, { epoch: 1 }))
        yield* until(() => reborn.durable === 20)
        assert.strictEqual((yield* Effect.flip(connect("1")))._tag, "StaleEpoch")
        assert.strictEqual((yield* stored(id)).at(-1)?.[0], 1)
      })
    ))

  it.live("the newest connection wins and the older one is told why", () =>
    withCore(() =>
      Effect.gen(function*() {
        const { connect } = yield* begin
        const told = listen()
        const older = yield* connect("1", told)
        const newer = yield* connect("1")
        assert.deepStrictEqual(told.closes.map((why) => why.name), ["Superseded"])
        const [frame] = makeFrames(1)
        assert.strictEqual(older.accept(frame!.bytes)?.name, "Superseded")
        assert.isUndefined(newer.accept(frame!.bytes))
      })
    ))

  it.live("a full queue: live goes on, durable stands, the device is rewound, nothing is shown or stored twice", () =>
    withCore((trouble) =>
      Effect.gen(function*() {
        const { connect, id } = yield* begin
        const told = listen()
        const publisher = yield* connect("1", told)
        const shown: Array<number> = []
        publisher.live.viewers.add({
          frame: (frame) => shown.push(frame.index),
          gap: () => assert.fail("nothing is missing"),
          durable: () => {},
          stop: () => {}
        })
        const frames = makeFrames(40)
        trouble.hold()
        acceptAll(publisher, frames)
        assert.deepStrictEqual(shown, frames.map((frame) => frame.first))
        assert.isTrue(publisher.intake.isRewinding)
        assert.strictEqual(publisher.durable, 0)
        trouble.release()
        yield* until(() => told.rewinds.length > 0)
        const next = told.rewinds[0]!
        assert.strictEqual(publisher.received, next)
        // What was on its way when the rewind left, and then what was asked for.
        acceptAll(publisher, makeFrames(2, { from: 400 }))
        for (const frame of [...frames, ...makeFrames(2, { from: 400 })].filter((frame) => frame.first >= next)) {
          assert.isUndefined(publisher.accept(frame.bytes))
          yield* Effect.sleep(1)
        }
        yield* until(() => publisher.durable === 420)
        assert.isFalse(publisher.intake.isRewinding)
        assert.strictEqual(shown.length, 42)
        let at = 0
        for (const [, first, after] of yield* stored(id)) {
          assert.strictEqual(first, at)
          at = after!
        }
        assert.strictEqual(at, 420)
      }), { queueBytesMax: 1500 }))

  it.live("a device that never resends after a rewind: what it left out is told as lost, the rest is stored", () =>
    withCore((trouble) =>
      Effect.gen(function*() {
        const { connect, id } = yield* begin
        const told = listen()
        const publisher = yield* connect("1", told)
        const lost: Array<readonly [number, number]> = []
        publisher.live.viewers.add({
          frame: () => {},
          gap: (gap) => lost.push([gap.from.index, gap.to.index]),
          durable: () => {},
          stop: () => {}
        })
        trouble.hold()
        acceptAll(publisher, makeFrames(40, { count: 1000 }))
        trouble.release()
        yield* until(() => told.rewinds.length > 0)
        const next = told.rewinds[0]!
        // Over two windows of new frames, and not one of the old.
        for (const frame of makeFrames(250, { from: 40_000, count: 1000 })) {
          assert.isUndefined(publisher.accept(frame.bytes))
          yield* Effect.sleep(1)
        }
        assert.deepStrictEqual(lost[0], [next, lost[0]![1]])
        assert.strictEqual(lost.length, 1)
        assert.isFalse(publisher.intake.isRewinding)
        yield* until(() => publisher.durable === publisher.received)
        const holes = (yield* stored(id)).filter(([, first], i, all) => i > 0 && first !== all[i - 1]![2])
        assert.deepStrictEqual(holes.map(([, first]) => first), [lost[0]![1]])
      }), { queueBytesMax: 20_000 }))

  it.live("end() answers when everything is stored, and nothing is accepted after", () =>
    withCore((trouble) =>
      Effect.gen(function*() {
        const { sessions, id, ingestKey, connect } = yield* begin
        const told = listen()
        const publisher = yield* connect("1", told)
        trouble.hold()
        acceptAll(publisher, makeFrames(5))
        const ending = yield* Effect.forkChild(sessions.end(id, { key: ingestKey }), { startImmediately: true })
        yield* Effect.sleep(20)
        assert.isTrue(isFrameError(publisher.accept(makeFrames(1, { from: 50 })[0]!.bytes)))
        trouble.release()
        const ended = yield* Fiber.join(ending)
        assert.strictEqual(ended.record.state, "ended")
        assert.deepStrictEqual([ended.samples, ended.durable], [50, { epoch: 0, index: 50 }])
        assert.deepStrictEqual(told.closes.map((why) => why.name), ["SessionEnded"])
        assert.strictEqual((yield* Effect.flip(connect("1")))._tag, "SessionEnded")
        const again = yield* sessions.end(id, { key: ingestKey })
        assert.strictEqual(again.record.endedAt, ended.record.endedAt)
        assert.strictEqual((yield* Effect.flip(sessions.end(id, { key: "wrong" })))._tag, "KeyRefused")
      })
    ))

  it.live("end() that cannot flush says so, and the session goes on", () =>
    withCore((trouble) =>
      Effect.gen(function*() {
        const { sessions, id, ingestKey, connect } = yield* begin
        const publisher = yield* connect("1")
        trouble.hold()
        acceptAll(publisher, makeFrames(1))
        const error = yield* Effect.flip(sessions.end(id, { key: ingestKey }))
        assert.strictEqual(error._tag, "NotFlushed")
        acceptAll(publisher, makeFrames(1, { from: 10 }))
        trouble.release()
        assert.strictEqual((yield* sessions.end(id, { key: ingestKey })).samples, 20)
      }), { endWaitMs: 30 }))

  it.live("the device's own end must name the index it is at", () =>
    withCore(() =>
      Effect.gen(function*() {
        const { sessions, id, connect } = yield* begin
        const publisher = yield* connect("1")
        acceptAll(publisher, makeFrames(2))
        const error = yield* Effect.flip(sessions.end(id, { publisher, final: 19 }))
        assert.strictEqual(error._tag, "EndMismatch")
        assert.strictEqual((yield* sessions.end(id, { publisher, final: 20 })).samples, 20)
      })
    ))

  it.live("what was accepted before the core closes is stored when it has closed", () =>
    Effect.gen(function*() {
      const { layer } = makeTroubledArchive()
      yield* Effect.gen(function*() {
        const archive = yield* Archive
        const scope = yield* Scope.make()
        const core = yield* Layer.buildWithScope(
          coreLayer.pipe(Layer.provide(Layer.succeed(Archive, archive))),
          scope
        )
        const { id, connect } = yield* begin.pipe(Effect.provide(core))
        const publisher = yield* connect("1").pipe(Scope.provide(scope))
        acceptAll(publisher, makeFrames(100))
        yield* Scope.close(scope, Exit.void)
        const { epochs } = yield* archive.session(id)
        assert.strictEqual(epochs[0]?.durable, 1000)
      }).pipe(Effect.provide(layer))
    }))

  it.live("a device that was on another instance meanwhile goes on where that one left off", () =>
    withCore(() =>
      Effect.gen(function*() {
        const { connect, id, ingestKey } = yield* begin
        const here = yield* connect("1")
        acceptAll(here, makeFrames(3))
        yield* until(() => here.durable === 30)
        yield* elsewhere(Effect.gen(function*() {
          const there = yield* (yield* Sessions).publish(id, { key: ingestKey, bootId: "1" }, listen().peer)
          acceptAll(there, makeFrames(3, { from: 30 }))
          yield* until(() => there.durable === 60)
        }))
        const again = yield* connect("1")
        assert.strictEqual(again.next, 60)
        acceptAll(again, makeFrames(1, { from: 60 }))
        yield* until(() => again.durable === 70)
        assert.deepStrictEqual(again.live.head, { epoch: 0, index: 70 })
      })
    ))

  it.live("while the archive is away, a device that has all that comes next goes on here, another must wait", () =>
    withCore((trouble) =>
      Effect.gen(function*() {
        const { sessions, connect, id, ingestKey } = yield* begin
        acceptAll(yield* connect("1"), makeFrames(3))
        trouble.failOpening(true)
        const hello = (next: number) => sessions.publish(id, { key: ingestKey, bootId: "1", next }, listen().peer)
        assert.strictEqual((yield* hello(30)).next, 30)
        assert.strictEqual((yield* Effect.flip(hello(31)))._tag, "ArchiveUnavailable")
      })
    ))

  it.live("a hello whose look-up took long does not take the place of one that came after it", () =>
    Effect.gen(function*() {
      const { layer } = makeTroubledArchive()
      yield* Effect.gen(function*() {
        const archive = yield* Archive
        const latch = Latch.makeUnsafe(false)
        let lookUps = 0
        // The first look-up waits, others do not.
        const session: typeof archive.session = (id) =>
          lookUps++ === 0 ? Effect.andThen(latch.await, archive.session(id)) : archive.session(id)
        const core = coreLayer.pipe(Layer.provide(Layer.succeed(Archive, { ...archive, session })))
        yield* Effect.gen(function*() {
          const { connect } = yield* begin
          const [toldFirst, toldSecond] = [listen(), listen()]
          const first = yield* Effect.forkScoped(connect("1", toldFirst), { startImmediately: true })
          const second = yield* connect("1", toldSecond)
          yield* latch.open
          yield* Fiber.join(first)
          assert.deepStrictEqual(toldFirst.closes.map((why) => why.name), ["Superseded"])
          assert.deepStrictEqual(toldSecond.closes, [])
          acceptAll(second, makeFrames(1))
        }).pipe(Effect.provide(core))
      }).pipe(Effect.provide(layer), Effect.scoped)
    }))

  it.live("end() that fails gives nothing up: a device that comes back resends what was not queued", () =>
    withCore((trouble) =>
      Effect.gen(function*() {
        const { sessions, id, ingestKey, connect } = yield* begin
        const frames = makeFrames(40)
        trouble.hold()
        yield* Effect.scoped(Effect.gen(function*() {
          acceptAll(yield* connect("1"), frames)
        }))
        assert.strictEqual((yield* Effect.flip(sessions.end(id, { key: ingestKey })))._tag, "NotFlushed")
        trouble.release()
        const again = yield* connect("1")
        assert.isBelow(again.next, 400)
        for (const frame of frames.filter((frame) => frame.first >= again.next)) {
          assert.isUndefined(again.accept(frame.bytes))
          yield* Effect.sleep(1)
        }
        assert.strictEqual((yield* sessions.end(id, { key: ingestKey })).samples, 400)
      }), { queueBytesMax: 1500, endWaitMs: 100 }))

  it.live("an end and a rewind may cross: what was asked for comes again, then the session ends", () =>
    withCore((trouble) =>
      Effect.gen(function*() {
        const { sessions, id, connect } = yield* begin
        const told = listen()
        const publisher = yield* connect("1", told)
        const frames = makeFrames(40)
        trouble.hold()
        acceptAll(publisher, frames)
        trouble.release()
        yield* until(() => told.rewinds.length > 0)
        const ending = yield* Effect.forkScoped(sessions.end(id, { publisher, final: 400 }), { startImmediately: true })
        while (publisher.intake.isRewinding) {
          for (const frame of frames.filter((frame) => frame.first >= told.rewinds.at(-1)!)) {
            assert.isUndefined(publisher.accept(frame.bytes))
          }
          yield* Effect.sleep(2)
        }
        assert.strictEqual((yield* Fiber.join(ending)).samples, 400)
      }), { queueBytesMax: 1500 }))

  it.live("a reboot while the device was to resend: what only viewers have is told lost", () =>
    withCore((trouble) =>
      Effect.gen(function*() {
        const { connect } = yield* begin
        const publisher = yield* connect("1")
        const lost: Array<readonly [number, number]> = []
        publisher.live.viewers.add({
          frame: () => {},
          gap: (gap) => lost.push([gap.from.index, gap.to.index]),
          durable: () => {},
          stop: () => {}
        })
        trouble.hold()
        acceptAll(publisher, makeFrames(40))
        const { queued } = publisher.intake
        trouble.release()
        yield* connect("2")
        assert.deepStrictEqual(lost, [[queued, 400]])
      }), { queueBytesMax: 1500 }))
})
