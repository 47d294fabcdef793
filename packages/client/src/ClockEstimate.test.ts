import { assert, describe, it } from "vitest"
import { ClockEstimate } from "./ClockEstimate.ts"

describe("ClockEstimate", () => {
  it("believes the answer with the shortest way, of the last eight", () => {
    const clock = new ClockEstimate()
    assert.deepStrictEqual([clock.offset, clock.latency], [undefined, undefined])
    clock.take(1000, 501_200, 1400)
    assert.deepStrictEqual([clock.offset, clock.latency], [500_000, 0.4])
    // A long way, most of it one way: a worse answer.
    clock.take(2000, 511_900, 12_000)
    assert.deepStrictEqual([clock.offset, clock.latency], [500_000, 10])
    for (let i = 0; i < 8; i++) clock.take(20_000, 820_500, 21_000)
    assert.deepStrictEqual([clock.offset, clock.latency], [800_000, 1])
  })

  it("is wrong by no more than half of the way", () => {
    for (const there of [0, 100, 900, 1000]) {
      const clock = new ClockEstimate()
      clock.take(5000, 5000 + there + 77_000, 6000)
      assert.isAtMost(Math.abs((clock.offset ?? 0) - 77_000), 500)
    }
  })

  it("an answer from before the question is none", () => {
    const clock = new ClockEstimate()
    clock.take(5000, 0, 4000)
    assert.isUndefined(clock.offset)
  })

  it("our clock is whole µs since 1970", () => {
    const now = ClockEstimate.now()
    assert.isTrue(Number.isSafeInteger(now))
    assert.isBelow(Math.abs(now / 1000 - Date.now()), 10_000)
  })
})
