import { assert, describe, it } from "vitest"
import { codes, comeBack } from "./Codes.ts"
import { frameError, isFrameError } from "./FrameError.ts"

const entries = Object.entries(codes)

describe("the code table", () => {
  it("gives each code once", () => {
    assert.strictEqual(new Set(entries.map(([, { code }]) => code)).size, entries.length)
  })

  it("holds only codes a WebSocket may close with, in their ranges", () => {
    for (const [name, { code }] of entries) {
      assert.isTrue([1000, 1001, 1012].includes(code) || (code >= 4000 && code < 4200), `${name} is ${code}`)
    }
  })

  it("says what each means and what to do, in a sentence that fits a close frame", () => {
    for (const [name, { means, remedy }] of entries) {
      for (const text of [means, remedy]) {
        assert.match(text, /^[A-Z].*\.$/, name)
        assert.isAtMost(new TextEncoder().encode(text).length, 123, name)
      }
    }
  })

  it("the fault of a code that says never is not the server's, and of one that says now it is", () => {
    for (const [name, { code, fault }] of entries) {
      const again = comeBack(code)
      assert.isTrue(again === "later" || (again === "now") === (fault === "server"), name)
    }
  })

  it("comeBack() knows the ends of each range, and takes an unknown or broken close for a lost connection", () => {
    assert.deepStrictEqual([1000, 1009, 4000, 4099, 4100, 4199].map(comeBack), [
      "never",
      "never",
      "never",
      "never",
      "later",
      "later"
    ])
    for (const code of [1001, 1005, 1006, 1011, 1012, 3999, 4200]) assert.strictEqual(comeBack(code), "now")
  })
})

describe("frameError()", () => {
  it("knows its code, and is told from results", () => {
    const error = frameError("WindowExceeded", "Cannot accept the frame: 300000 bytes await an ack")
    assert.strictEqual(error.code, 4002)
    assert.isTrue(isFrameError(error))
    for (const other of [undefined, null, {}, { _tag: "FrameError" }, new Error("no")]) {
      assert.isFalse(isFrameError(other))
    }
  })
})
