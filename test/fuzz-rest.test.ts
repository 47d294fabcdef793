/** A short form of `npm run fuzz:rest`. */
import { assert, it } from "vitest"
import { fuzz } from "./fuzz-rest/Fuzz.ts"

it("answers whatever it is asked as its contract says", async () => {
  const { failure, kinds } = await fuzz(500, 20_260_101)
  assert.isUndefined(failure, failure?.what)
  // Not the same few over and over.
  assert.isAbove(kinds, 40)
}, 60_000)
