import { kinds, type Position } from "@thrum/protocol"
import { assert, describe, it } from "vitest"
import { Intake } from "./Intake.ts"
import { coreLimits, type CoreLimitValues } from "./Limits.ts"
import { Live } from "./Live.ts"
import type { EpochRecord } from "./Session.ts"
import { makeFrames, sessionOf } from "./testing/mod.ts"
import type { WriteQueueShape } from "./WriteQueue.ts"

const record: EpochRecord = {
  epoch: 0,
  bootId: "1",
  t0: undefined,
  wall: undefined,
  index: undefined,
  durable: 0,
  samples: 0,
  bytes: 0
}

/** An intake on a queue that is full when the test says so, and what it told. */
const begin = (limits: Partial<CoreLimitValues> = {}) => {
  const values = { ...coreLimits, ...limits }
  const live = new Live(
    { ...sessionOf(0), state: "live", endedAt: undefined, epochs: [] },
    values,
    { bytes: 0 }
  )
  const queued: Array<number> = []
  const rewinds: Array<number> = []
  const lost: Array<readonly [number, number]> = []
  const hand = { isFull: false, room: () => {} }
  const queue: Pick<WriteQueueShape, "offer" | "onRoom"> = {
    offer: (_, frame) => !hand.isFull && queued.push(frame.index) > 0,
    onRoom: (resume) => {
      hand.room = resume
    }
  }
  const intake = new Intake(record, [], undefined, live, queue, values, () => 0)
  intake.peer = { onProgress: () => {}, onRewind: (next) => rewinds.push(next), onFenced: () => {} }
  live.viewers.add({
    frame: () => {},
    gap: ({ from, to }) => lost.push([from.index, to.index]),
    durable: () => {},
    stop: () => {}
  })
  /** Sends the frames of ten samples that begin at `indexes`. Answers with the names of refusals. */
  const send = (...indexes: ReadonlyArray<number>): ReadonlyArray<string> =>
    indexes.flatMap((from) => intake.accept(makeFrames(1, { from })[0]!.bytes)?.name ?? [])
  return { hand, intake, live, lost, queued, rewinds, send }
}

describe("Intake", () => {
  it("a second rewind finds frames of the first on their way: they are not taken for what the device has left", () => {
    const { hand, intake, lost, queued, rewinds, send } = begin()
    hand.isFull = true
    send(0, 10, 20, 30, 40)
    hand.isFull = false
    hand.room()
    assert.deepStrictEqual(rewinds, [0])
    send(0)
    hand.isFull = true
    send(10, 20)
    hand.isFull = false
    hand.room()
    assert.deepStrictEqual(rewinds, [0, 10])
    // Sent before the device heard of the second rewind; then what that asks for.
    assert.deepStrictEqual(send(30, 40, 50, 10, 20, 30, 40, 50), [])
    assert.deepStrictEqual([queued, lost], [[0, 10, 20, 30, 40, 50], []])
    assert.isFalse(intake.isRewinding)
  })

  it("a device that reconnects and has nothing of what was shown and not queued: lost at once, then queued again", () => {
    const { hand, intake, lost, queued, send } = begin()
    hand.isFull = true
    send(0, 10)
    hand.isFull = false
    assert.strictEqual(intake.resume(), 0)
    assert.deepStrictEqual(send(20), [])
    assert.deepStrictEqual([queued, lost], [[20], [[0, 20]]])
  })

  it("what the device had passed over by itself is not lost when it resends, and no second gap", () => {
    const { hand, lost, queued, send } = begin({ gapsMax: 1 })
    hand.isFull = true
    send(0, 20)
    hand.isFull = false
    hand.room()
    assert.deepStrictEqual(send(0, 20, 30), [])
    assert.deepStrictEqual([queued, lost], [[0, 20, 30], []])
  })

  it("a late sample is refused while the device is rewound, too", () => {
    const { hand, send } = begin()
    hand.isFull = true
    assert.deepStrictEqual(send(0, 20, 10), ["OutOfOrder"])
    hand.isFull = false
    hand.room()
    assert.deepStrictEqual(send(0, 10), ["OutOfOrder"])
  })

  it("at the bound of gaps a loss is refused, not forgotten: what is late then is no duplicate", () => {
    const { hand, lost, queued, send } = begin({ gapsMax: 1 })
    send(10)
    hand.isFull = true
    send(20, 30)
    hand.isFull = false
    hand.room()
    assert.deepStrictEqual(send(30, 20, 0), ["OutOfOrder", "OutOfOrder"])
    assert.deepStrictEqual([queued, lost], [[10, 20], []])
  })

  it("abandon() tells what was shown and is nowhere, once, and not what the device passed over", () => {
    const { hand, intake, lost, send } = begin()
    hand.isFull = true
    send(0, 20, 30)
    // Another instance has stored 20 to 30.
    intake.abandon([{ from: 0, to: 20 }, { from: 30, to: 100 }])
    assert.deepStrictEqual(lost, [[0, 10], [30, 40]])
  })

  it("an intake that takes the place of a fenced one does not show again, and tells what does not come again", () => {
    const { intake, live, lost, send } = begin()
    send(0, 10, 20)
    intake.fence()
    assert.deepStrictEqual(send(30), ["Overloaded"])
    const shown: Array<number> = []
    live.viewers.add({
      frame: (frame) => shown.push(frame.index),
      gap: () => {},
      durable: () => {},
      stop: () => {}
    })
    const queue: Pick<WriteQueueShape, "offer" | "onRoom"> = { offer: () => true, onRoom: () => {} }
    const next = new Intake({ ...record, durable: 10 }, [], intake, live, queue, coreLimits, () => 0)
    assert.strictEqual(next.resume(), 10)
    for (const frame of makeFrames(2, { from: 20 })) assert.isUndefined(next.accept(frame.bytes))
    assert.deepStrictEqual([shown, lost], [[30], [[10, 20]]])
  })

  it("who joins after a loss is not shown from the ring what was lost", () => {
    const { hand, intake, live, send } = begin()
    send(0)
    hand.isFull = true
    send(10, 20)
    intake.abandon([{ from: 0, to: 100 }])
    const at: Position = { epoch: 0, index: 0 }
    const inRing: Array<number> = []
    live.replay(at, (frame) => inRing.push(frame.index) > 0)
    assert.deepStrictEqual(inRing, [0])
    assert.deepStrictEqual(live.lostSince(0).map((gap) => [gap.kind, gap.from.index, gap.to.index]), [[
      kinds.gap,
      10,
      30
    ]])
  })
})
