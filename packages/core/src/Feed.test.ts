import { assert, it } from "@effect/vitest"
import { formatPosition, kinds, type Position } from "@thrum/protocol"
import { Effect, Fiber, Latch, Layer, Scheduler, type Scope, Stream } from "effect"
import * as fc from "fast-check"
import { describe } from "vitest"
import {
  Archive,
  coreLayer,
  CoreLimits,
  coreLimits,
  type CoreLimitValues,
  Feed,
  type FeedEvent,
  Hub,
  Sessions,
  type Sink,
  WriteQueue
} from "./mod.ts"
import { makeFrames, makeTroubledArchive, sessionOf, type Trouble } from "./testing/mod.ts"

type Core = Archive | Feed | Hub | Sessions | WriteQueue | Scope.Scope

const withCore = <A>(
  test: (trouble: Trouble) => Effect.Effect<A, unknown, Core>,
  limits: Partial<CoreLimitValues> = {}
): Effect.Effect<A, unknown> => {
  const { layer, trouble } = makeTroubledArchive()
  return Effect.scoped(test(trouble)).pipe(
    Effect.provide(coreLayer.pipe(Layer.provideMerge(layer))),
    Effect.provideService(CoreLimits, { ...coreLimits, idleMs: 10, durableEveryMs: 5, ...limits })
  )
}

const begin = Effect.gen(function*() {
  const sessions = yield* Sessions
  const { standing, ingestKey } = yield* sessions.create(sessionOf(0).description)
  const id = standing.record.id
  const connect = (bootId: string) =>
    sessions.publish(id, { key: ingestKey, bootId }, { onProgress() {}, onRewind() {}, onClose() {} })
  const live = yield* (yield* Hub).open(id)
  return { sessions, id, ingestKey, connect, live, feed: yield* Feed }
})

/** Events as short words: `0:0+10` is a frame. The durable watermark comes when it comes: left out. */
const wordsOf = (events: ReadonlyArray<FeedEvent>): ReadonlyArray<string> =>
  events.flatMap((event) => {
    switch (event.kind) {
      case kinds.samples:
        return [`${event.epoch}:${event.index}+${event.next - event.index}`]
      case kinds.epoch:
        return [`epoch ${event.epoch}`]
      case kinds.gap:
        return [`gap ${formatPosition(event.from)}-${formatPosition(event.to)} ${event.reason}`]
      case kinds.caughtUp:
        return [`caught-up ${formatPosition(event.position)}`]
      case kinds.ended:
        return [`ended ${formatPosition(event.position)}`]
      case kinds.durable:
        return []
    }
  })

const collect = (): { readonly events: Array<FeedEvent>; readonly sink: Sink } => {
  const events: Array<FeedEvent> = []
  return { events, sink: { send: (event) => events.push(event) > 0, drained: Effect.void } }
}

/** Full after each `every` events, until the event loop has turned `turns` times. */
const slowly = (every: number, turns: number): { readonly events: Array<FeedEvent>; readonly sink: Sink } => {
  const events: Array<FeedEvent> = []
  const drained = Effect.forEach(Array.from({ length: turns }), () => Effect.sleep(0), { discard: true })
  return { events, sink: { send: (event) => events.push(event) % every !== 0, drained } }
}

const settle = Effect.sleep(20)

describe("Feed", () => {
  it.live("attach() gives what is stored, then what is live, and ends with the session", () =>
    withCore(() =>
      Effect.gen(function*() {
        const { sessions, id, ingestKey, connect, live, feed } = yield* begin
        const publisher = yield* connect("1")
        const frames = makeFrames(6)
        for (const frame of frames.slice(0, 3)) publisher.accept(frame.bytes)
        yield* settle
        const { events, sink } = collect()
        const fiber = yield* Effect.forkChild(feed.attach(live, "start", "complete", sink), { startImmediately: true })
        yield* settle
        for (const frame of frames.slice(3)) publisher.accept(frame.bytes)
        yield* sessions.end(id, { key: ingestKey })
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(wordsOf(events), [
          "epoch 0",
          "0:0+10",
          "0:10+10",
          "0:20+10",
          "caught-up 0:30",
          "0:30+10",
          "0:40+10",
          "0:50+10",
          "ended 0:60"
        ])
        const bytes = events.flatMap((event) => event.kind === kinds.samples ? [event.bytes] : [])
        assert.deepStrictEqual(bytes, frames.map((frame) => frame.bytes))
      })
    ))

  it.live("attach() from now begins with the next frame; from a position with the frame that holds it", () =>
    withCore(() =>
      Effect.gen(function*() {
        const { connect, live, feed } = yield* begin
        const publisher = yield* connect("1")
        const frames = makeFrames(4)
        for (const frame of frames.slice(0, 3)) publisher.accept(frame.bytes)
        const [now, middle, future] = [collect(), collect(), collect()]
        yield* Effect.forkScoped(feed.attach(live, "now", "complete", now.sink), { startImmediately: true })
        const at: Position = { epoch: 0, index: 15 }
        yield* Effect.forkScoped(feed.attach(live, at, "complete", middle.sink), { startImmediately: true })
        const later: Position = { epoch: 0, index: 35 }
        yield* Effect.forkScoped(feed.attach(live, later, "complete", future.sink), { startImmediately: true })
        publisher.accept(frames[3]!.bytes)
        assert.deepStrictEqual(wordsOf(now.events), ["caught-up 0:30", "epoch 0", "0:30+10"])
        assert.deepStrictEqual(wordsOf(middle.events), ["epoch 0", "0:10+10", "0:20+10", "caught-up 0:30", "0:30+10"])
        assert.deepStrictEqual(wordsOf(future.events).at(-1), "0:30+10")
      })
    ))

  it.live("gaps and epochs are told, live and from the archive alike", () =>
    withCore(() =>
      Effect.gen(function*() {
        const { sessions, id, ingestKey, connect, live, feed } = yield* begin
        const early = collect()
        const watching = yield* Effect.forkChild(feed.attach(live, "start", "complete", early.sink), {
          startImmediately: true
        })
        const first = yield* connect("1")
        const frames = makeFrames(5, { from: 10 })
        for (const frame of [frames[0]!, frames[1]!, frames[4]!]) first.accept(frame.bytes)
        const second = yield* connect("2")
        for (const frame of makeFrames(2, { epoch: 1 })) second.accept(frame.bytes)
        yield* sessions.end(id, { key: ingestKey })
        yield* Fiber.join(watching)
        const expected = [
          "epoch 0",
          "gap 0:0-0:10 device",
          "0:10+10",
          "0:20+10",
          "gap 0:30-0:50 device",
          "0:50+10",
          "epoch 1",
          "1:0+10",
          "1:10+10",
          "ended 1:20"
        ]
        assert.deepStrictEqual(wordsOf(early.events).filter((word) => !word.startsWith("caught-up")), expected)
        const late = collect()
        yield* feed.attach(live, "start", "complete", late.sink)
        assert.deepStrictEqual(wordsOf(late.events), expected)
        const { record } = yield* sessions.standing(id)
        const replayed = yield* Stream.runCollect(feed.stored(record, { epoch: 0, index: 0 }))
        assert.deepStrictEqual(wordsOf(replayed), expected.slice(0, -1))
      })
    ))

  it.live("a complete viewer that falls behind is taken back to the archive and misses nothing", () =>
    withCore(() =>
      Effect.gen(function*() {
        const { sessions, id, ingestKey, connect, live, feed } = yield* begin
        const publisher = yield* connect("1")
        const latch = Latch.makeUnsafe(false)
        const events: Array<FeedEvent> = []
        const sink: Sink = { send: (event) => events.push(event) < 5 || latch.isOpen(), drained: latch.await }
        const fiber = yield* Effect.forkChild(feed.attach(live, "start", "complete", sink), { startImmediately: true })
        const frames = makeFrames(100)
        for (const frame of frames) publisher.accept(frame.bytes)
        yield* settle
        assert.isBelow(events.length, 8)
        yield* latch.open
        yield* sessions.end(id, { key: ingestKey })
        yield* Fiber.join(fiber)
        const indexes = events.flatMap((event) => event.kind === kinds.samples ? [event.index] : [])
        assert.deepStrictEqual(indexes, frames.map((frame) => frame.first))
      }), { ringBytesMax: 500 }))

  it.live("a latest viewer that falls behind skips ahead and is told what it missed", () =>
    withCore(() =>
      Effect.gen(function*() {
        const { connect, live, feed } = yield* begin
        const publisher = yield* connect("1")
        const latch = Latch.makeUnsafe(false)
        const events: Array<FeedEvent> = []
        const sink: Sink = { send: (event) => events.push(event) < 5 || latch.isOpen(), drained: latch.await }
        yield* Effect.forkScoped(feed.attach(live, "now", "latest", sink), { startImmediately: true })
        const frames = makeFrames(21)
        for (const frame of frames.slice(0, 20)) publisher.accept(frame.bytes)
        yield* latch.open
        yield* settle
        publisher.accept(frames[20]!.bytes)
        const words = wordsOf(events)
        const gap = words.find((word) => word.startsWith("gap"))
        assert.match(gap ?? "", /^gap 0:\d+-0:200 skipped$/)
        assert.strictEqual(words.at(-1), "0:200+10")
        const last = words[words.indexOf(gap!) - 1]!
        const [index = "", count = ""] = last.slice(2).split("+")
        assert.isTrue(gap!.startsWith(`gap 0:${Number(index) + Number(count)}-`), `${last} then ${gap}`)
      })
    ))

  it.live("while the archive cannot be read or written, live goes on; who needs it waits and then gets all", () =>
    withCore((trouble) =>
      Effect.gen(function*() {
        const { connect, live, feed } = yield* begin
        const publisher = yield* connect("1")
        const [present, late] = [collect(), collect()]
        yield* Effect.forkScoped(feed.attach(live, "start", "complete", present.sink), { startImmediately: true })
        trouble.hold()
        trouble.failReads(true)
        const frames = makeFrames(50)
        for (const frame of frames) publisher.accept(frame.bytes)
        assert.strictEqual(wordsOf(present.events).filter((word) => word.includes("+")).length, 50)
        // The ring has forgotten the beginning and the archive does not have it yet.
        yield* Effect.forkScoped(feed.attach(live, "start", "complete", late.sink), { startImmediately: true })
        yield* settle
        assert.deepStrictEqual(wordsOf(late.events), [])
        trouble.release()
        yield* settle
        trouble.failReads(false)
        const done = Effect.sync(() => wordsOf(late.events).filter((word) => word.includes("+")).length === 50)
        yield* Effect.sleep(5).pipe(Effect.repeat({ until: () => done }), Effect.timeout(5000))
        assert.deepStrictEqual(
          wordsOf(late.events).filter((word) => !word.startsWith("caught")),
          wordsOf(present.events).filter((word) => !word.startsWith("caught"))
        )
      }), { ringBytesMax: 500 }))

  it.live("viewers are told the durable watermark, up to the last one", () =>
    withCore(() =>
      Effect.gen(function*() {
        const { connect, live, feed } = yield* begin
        const publisher = yield* connect("1")
        const { events, sink } = collect()
        yield* Effect.forkScoped(feed.attach(live, "now", "complete", sink), { startImmediately: true })
        for (const frame of makeFrames(7)) publisher.accept(frame.bytes)
        yield* settle
        const told = events.flatMap((event) => event.kind === kinds.durable ? [event.position] : [])
        assert.deepStrictEqual(told.at(-1), { epoch: 0, index: 70 })
      })
    ))

  it.live("what another instance has stored meanwhile comes from the archive: no gap, and the end last", () =>
    withCore(() =>
      Effect.gen(function*() {
        const { sessions, id, ingestKey, connect, live, feed } = yield* begin
        const archive = yield* Archive
        const { events, sink } = collect()
        const watching = yield* Effect.forkScoped(feed.attach(live, "start", "complete", sink), {
          startImmediately: true
        })
        const storeElsewhere = (frames: ReturnType<typeof makeFrames>) =>
          Effect.gen(function*() {
            const hello = { key: ingestKey, bootId: "1" }
            const publisher = yield* (yield* Sessions).publish(id, hello, {
              onProgress() {},
              onRewind() {},
              onClose() {}
            })
            for (const frame of frames) publisher.accept(frame.bytes)
          }).pipe(
            Effect.scoped,
            // When this core closes, its queue is flushed.
            Effect.provide(coreLayer.pipe(Layer.provide(Layer.succeed(Archive, archive)), Layer.fresh))
          )
        yield* storeElsewhere(makeFrames(3))
        const publisher = yield* connect("1")
        assert.strictEqual(publisher.next, 30)
        publisher.accept(makeFrames(1, { from: 30 })[0]!.bytes)
        yield* settle
        yield* storeElsewhere(makeFrames(2, { from: 40 }))
        yield* sessions.end(id, { key: ingestKey })
        yield* Fiber.join(watching)
        assert.deepStrictEqual(wordsOf(events).filter((word) => !word.startsWith("caught-up")), [
          "epoch 0",
          "0:0+10",
          "0:10+10",
          "0:20+10",
          "0:30+10",
          "0:40+10",
          "0:50+10",
          "ended 0:60"
        ])
      })
    ))

  it.live("a loss is told to a viewer that was set aside meanwhile; one who comes after the end finds just the end", () =>
    withCore((trouble) =>
      Effect.gen(function*() {
        const { sessions, id, ingestKey, connect, live, feed } = yield* begin
        const latch = Latch.makeUnsafe(false)
        const events: Array<FeedEvent> = []
        const sink: Sink = {
          send: (event) =>
            events.push(event) > 0 && (latch.isOpen() || event.kind !== kinds.samples || event.next < 400),
          drained: latch.await
        }
        const watching = yield* Effect.forkScoped(feed.attach(live, "start", "complete", sink), {
          startImmediately: true
        })
        trouble.hold()
        const queued = yield* Effect.scoped(Effect.gen(function*() {
          const publisher = yield* connect("1")
          for (const frame of makeFrames(40)) publisher.accept(frame.bytes)
          return publisher.intake.queued
        }))
        trouble.release()
        yield* sessions.end(id, { key: ingestKey })
        yield* latch.open
        yield* Fiber.join(watching)
        assert.deepStrictEqual(wordsOf(events).slice(-2), [`gap 0:${queued}-0:400 lost`, `ended 0:${queued}`])
        const late = collect()
        yield* feed.attach(live, { epoch: 0, index: queued }, "complete", late.sink)
        assert.deepStrictEqual(wordsOf(late.events), [`ended 0:${queued}`])
      }), { queueBytesMax: 1500, ringBytesMax: 0 }))

  // Frames come in bursts with pauses, gaps and reboots; viewers join at any instant, from anywhere, as fast or slow as
  // they like; the ring is small, so joins cross the seam at any place.
  it.live("joins at any instant, from any position, have no hole and no repeat", () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(
          fc.array(
            fc.oneof(
              {
                weight: 6,
                arbitrary: fc.record({ do: fc.constant("frames" as const), n: fc.integer({ min: 1, max: 6 }) })
              },
              {
                weight: 2,
                arbitrary: fc.record({ do: fc.constant("pause" as const), n: fc.integer({ min: 0, max: 3 }) })
              },
              {
                weight: 1,
                arbitrary: fc.record({ do: fc.constant("gap" as const), n: fc.integer({ min: 1, max: 30 }) })
              },
              { weight: 1, arbitrary: fc.record({ do: fc.constant("reboot" as const), n: fc.constant(0) }) },
              {
                weight: 4,
                arbitrary: fc.record({
                  do: fc.constant("join" as const),
                  n: fc.integer({ min: 0, max: 200 }),
                  from: fc.constantFrom("start" as const, "now" as const, "position" as const),
                  every: fc.integer({ min: 1, max: 9 }),
                  turns: fc.integer({ min: 0, max: 3 })
                })
              }
            ),
            { minLength: 5, maxLength: 40 }
          ),
          fc.integer({ min: 1, max: 2000 }),
          fc.integer({ min: 1, max: 1500 }),
          // A fiber may give way anywhere that is not one synchronous step.
          fc.constantFrom(3, 2048),
          async (script, ringBytesMax, pageBytesMax, opsBeforeYield) => {
            await Effect.runPromise(
              withCore(() =>
                Effect.gen(function*() {
                  const { sessions, id, ingestKey, connect, live, feed } = yield* begin
                  let [epoch, index] = [0, 0]
                  let publisher = yield* connect("0")
                  const sent: Array<{ readonly at: Position; readonly next: number; readonly word: string }> = []
                  const joins: Array<
                    { readonly from: Position; readonly events: Array<FeedEvent>; fiber: Fiber.Fiber<void, unknown> }
                  > = []
                  for (const step of script) {
                    if (step.do === "frames") {
                      for (const frame of makeFrames(step.n, { epoch, from: index })) {
                        assert.isUndefined(publisher.accept(frame.bytes))
                        sent.push({
                          at: { epoch, index: frame.first },
                          next: frame.next,
                          word: `${epoch}:${frame.first}+10`
                        })
                        index = frame.next
                      }
                    } else if (step.do === "pause") yield* Effect.sleep(step.n)
                    else if (step.do === "gap") index += step.n
                    else if (step.do === "reboot") {
                      publisher = yield* connect(String(++epoch))
                      index = 0
                    } else {
                      const { events, sink } = slowly(step.every, step.turns)
                      const from = step.from === "position" ? { epoch: 0, index: step.n } : step.from
                      const at = feed.positionOf(live, from)
                      const fiber = yield* Effect.forkChild(feed.attach(live, from, "complete", sink), {
                        startImmediately: step.n % 2 === 0
                      })
                      // Where "now" is, is decided when the feed starts.
                      joins.push({
                        from: step.from === "now" && step.n % 2 === 1 ? { epoch: -1, index: 0 } : at,
                        events,
                        fiber
                      })
                    }
                  }
                  yield* sessions.end(id, { key: ingestKey })
                  for (const { from, events, fiber } of joins) {
                    yield* Fiber.join(fiber)
                    const got = wordsOf(events)
                    const frames = got.filter((word) => word.includes("+"))
                    const wanted = sent.filter(({ at, next }) =>
                      at.epoch > from.epoch || (at.epoch === from.epoch && next > from.index)
                    ).map(({ word }) => word)
                    // A feed that began at an unknown "now": whatever it got must be the end of what was sent.
                    assert.deepStrictEqual(
                      frames,
                      from.epoch < 0 ? wanted.slice(wanted.length - frames.length) : wanted
                    )
                    assert.strictEqual(got.at(-1)?.startsWith("ended"), true)
                    checkGaps(events)
                  }
                }), { ringBytesMax, pageBytesMax, chunkBytesMax: 400 }).pipe(
                  Effect.provideService(Scheduler.MaxOpsBeforeYield, opsBeforeYield)
                )
            )
          }
        ),
        { numRuns: 100 }
      )
    ))
})

/** Every jump of the index is told by a gap of just that size, and nothing else is. */
const checkGaps = (events: ReadonlyArray<FeedEvent>): void => {
  let expected: Position | undefined
  for (const event of events) {
    if (event.kind === kinds.gap) {
      if (expected !== undefined && event.from.epoch === expected.epoch) assert.deepStrictEqual(event.from, expected)
      expected = event.to
    } else if (event.kind === kinds.samples) {
      if (expected !== undefined && expected.epoch === event.epoch) assert.strictEqual(event.index, expected.index)
      else if (expected !== undefined) assert.strictEqual(event.index, 0)
      expected = { epoch: event.epoch, index: event.next }
    }
  }
}
