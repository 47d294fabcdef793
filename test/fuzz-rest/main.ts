/**
 * `npm run fuzz:rest -- --calls N [--seed S]`: N calls made from the contract, every answer held against it. Stops at the
 * first that is not as it says, and exits with 1 then. The last line says the result.
 */
import { parseArgs } from "node:util"
import { fuzz } from "./Fuzz.ts"

const { values } = parseArgs({
  options: { calls: { type: "string", default: "20000" }, seed: { type: "string", default: "1" } }
})
const numberOf = (name: string, text: string): number => {
  const n = Number(text)
  if (!Number.isSafeInteger(n)) throw new RangeError(`Cannot fuzz: --${name} "${text}" is not an integer`)
  return n
}
const [calls, seed] = [numberOf("calls", values.calls), numberOf("seed", values.seed)]
const started = performance.now()
const { calls: made, failure, kinds, statuses } = await fuzz(calls, seed)
const seconds = ((performance.now() - started) / 1000).toFixed(1)
const counts = Array.from(statuses, ([status, count]) => `${status}: ${count}`).toSorted().join(", ")
if (failure === undefined) {
  process.stdout.write(
    `fuzz:rest: ok, ${made} calls, seed ${seed}, in ${seconds} s: 0 answers outside the contract, 0 failures; ` +
      `${kinds} kinds of answers (${counts})\n`
  )
} else {
  process.stdout.write(`${failure.what}\nreplay: npm run fuzz:rest -- --calls ${failure.call + 1} --seed ${seed}\n`)
  process.stdout.write(`fuzz:rest: FAILED at call ${failure.call} of ${calls}, seed ${seed}, after ${seconds} s\n`)
  process.exitCode = 1
}
