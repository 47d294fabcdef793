/** The short form of `npm run chaos`: a few troubles of each kind. */
import { assert, it } from "vitest"
import { runChaos } from "./Chaos.ts"
import { scenarios } from "./Scenarios.ts"

it("kills, outages, bad networks and racing ends: every promise holds", async () => {
  const said: Array<string> = []
  const { isOk, line, tally } = await runChaos({
    seconds: 6,
    seed: 1,
    names: [...scenarios.keys()],
    small: true,
    print: (text) => said.push(text)
  })
  assert.isTrue(isOk, [...said, line].join("\n"))
  for (const what of ["kills of the server", "kills of PostgreSQL", "outages of PostgreSQL", "SIGTERMs"]) {
    assert.isAbove(tally.got(what), 0, what)
  }
  for (const what of ["samples acked", "samples shown", "samples stored", "sessions checked", "sessions read again"]) {
    assert.isAbove(tally.got(what), 10, what)
  }
}, 180_000)
