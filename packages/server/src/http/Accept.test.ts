import { assert, describe, it } from "vitest"
import { negotiate } from "./Accept.ts"

const offers = ["application/json", "text/csv", "application/x-ndjson"]

describe("negotiate()", () => {
  it.each<[string | undefined, string | undefined]>([
    [undefined, "application/json"],
    ["", "application/json"],
    ["*/*", "application/json"],
    ["text/csv", "text/csv"],
    ["TEXT/CSV; header=present", "text/csv"],
    ["text/*", "text/csv"],
    ["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/json"],
    ["application/json;q=0.4, text/csv;q=0.9", "text/csv"],
    ["application/json;q=0.9, text/csv;q=0.900", "application/json"],
    // The closest range decides, wherever it stands and whatever the others say.
    ["*/*, application/json;q=0", "text/csv"],
    ["application/*;q=0.2, application/json;q=0.1, text/csv;q=0.15", "application/x-ndjson"],
    ["application/x-ndjson;q=0.001", "application/x-ndjson"],
    ["text/html", undefined],
    ["*/*;q=0", undefined],
    ["application/json;q=0", undefined],
    // What cannot be read asks for nothing.
    ["json", undefined],
    ["*/csv", undefined],
    ["text/csv;q=2", undefined],
    [", ,text/csv,", "text/csv"]
  ])("answers %j with %j", (accept, mediaType) => {
    assert.strictEqual(negotiate(accept, offers), mediaType)
  })

  it("takes time in proportion to a hostile header, not to its square", () => {
    const began = performance.now()
    assert.isUndefined(negotiate(`${"a/b;".repeat(4000)}q=`.repeat(4), offers))
    assert.isBelow(performance.now() - began, 200)
  })
})
