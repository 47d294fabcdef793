import { codes } from "@thrum/protocol"
import { assert, describe, it } from "vitest"
import { delayBefore } from "./Backoff.ts"

const after = (code: number, tries: number, random: number, retryAfter?: number) =>
  delayBefore({ code, retryAfter }, tries, random)

describe("Backoff", () => {
  it("never comes back from what will not change", () => {
    for (const code of [0, 1000, 1009, codes.KeyRefused.code, codes.Superseded.code, 4099]) {
      assert.isUndefined(after(code, 0, 0.5))
    }
  })

  it("comes back at once from a restart and a cut, spread out", () => {
    for (const code of [1001, 1006, 1012]) {
      assert.deepStrictEqual([after(code, 0, 0), after(code, 0, 1)], [0, 200])
    }
  })

  it("waits longer with each try, up to ten seconds, and half of it is random", () => {
    assert.deepStrictEqual([1, 2, 3, 4, 5, 6, 20].map((tries) => after(1006, tries, 1)), [
      500,
      1000,
      2000,
      4000,
      8000,
      10_000,
      10_000
    ])
    assert.strictEqual(after(1006, 3, 0), 1000)
  })

  it("waits at least what the server asks, within five minutes", () => {
    assert.strictEqual(after(4100, 0, 0, 2000), 2125)
    assert.strictEqual(after(4104, 0, 1, 1e9), 300_250)
  })
})
