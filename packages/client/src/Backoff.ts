/**
 * When a connection that was lost is tried again: at once after a server that restarts, later and later after one that
 * does not answer, and never all at the same moment.
 */
import { comeBack } from "@thrum/protocol"
import type { ThrumError } from "./ThrumError.ts"

/** Longest wait between two tries, ms, unless the server asked for a longer one. */
const delayMax = 10_000
/** First wait, ms, after a try that did not get through. */
const delayFirst = 250
/** Within it, ms, peers of a server that restarts come back spread out. */
const spread = 200
/** What a server may ask for at most, ms. */
const retryAfterMax = 300_000

/**
 * How long to wait before the next try.
 *
 * @param why How the connection was lost: 1006 when nobody said it. What no server said (code 0) is for good.
 * @param tries Tries since the connection last worked.
 * @param random 0 … 1, for tests.
 * @returns ms, or undefined when the code says not to come back.
 */
export const delayBefore = (
  why: Pick<ThrumError, "code" | "retryAfter">,
  tries: number,
  random: number = Math.random()
): number | undefined => {
  const when = why.code === 0 ? "never" : comeBack(why.code)
  if (when === "never") return undefined
  if (when === "now" && tries === 0) return random * spread
  const asked = Math.min(why.retryAfter ?? 0, retryAfterMax)
  const grown = Math.min(delayFirst * 2 ** tries, delayMax)
  return asked + grown * (0.5 + random / 2)
}
