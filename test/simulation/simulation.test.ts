/** The short form of `npm run simulate`: as many worlds as a few seconds hold, and that a seed is a whole world. */
import { assert, describe, it } from "vitest"
import { simulate } from "./Simulation.ts"

describe("simulation", () => {
  it("the same seed gives the same trace, another gives another", () => {
    const [first, again, other] = [simulate(1), simulate(1), simulate(2)]
    assert.deepStrictEqual(again, first)
    assert.notStrictEqual(other.hash, first.hash)
  })

  it("no promise breaks in 200 worlds", () => {
    let [kills, samples] = [0, 0]
    for (let seed = 1; seed <= 200; seed++) {
      const outcome = simulate(seed)
      kills += outcome.kills
      samples += outcome.samples
      assert.isUndefined(
        outcome.broken,
        `npm run simulate -- --seed ${seed}: ${outcome.broken}\n${outcome.last.join("\n")}`
      )
    }
    // Worlds in which nothing happens keep every promise.
    assert.isAbove(kills, 200)
    assert.isAbove(samples, 100_000)
    // Some seconds by itself; much longer beside other tests.
  }, 120_000)
})
