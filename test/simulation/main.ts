/**
 * `npm run simulate -- --seeds N [--from S]` runs N worlds, `--seed S` one and prints its trace. Stops at the first
 * that breaks a promise, prints what replays it, and exits with 1 then. The last line says the result.
 */
import { parseArgs } from "node:util"
import { simulate } from "./Simulation.ts"

const { values } = parseArgs({
  options: { seeds: { type: "string" }, seed: { type: "string" }, from: { type: "string", default: "1" } }
})
const numberOf = (name: string, text: string): number => {
  const n = Number(text)
  if (!Number.isSafeInteger(n)) throw new RangeError(`Cannot simulate: --${name} "${text}" is not an integer`)
  return n
}
const print = (text: string): void => {
  process.stdout.write(`${text}\n`)
}

const isOne = values.seed !== undefined
const first = numberOf("from", values.seed ?? values.from)
const count = isOne ? 1 : numberOf("seeds", values.seeds ?? "1000")

/** Runs the worlds and answers with the line that says the result. */
const run = (): string => {
  const started = performance.now()
  let [samples, events, kills, virtual] = [0, 0, 0, 0]
  for (let seed = first; seed < first + count; seed++) {
    const outcome = simulate(seed, isOne ? 100_000 : 60)
    samples += outcome.samples
    events += outcome.events
    kills += outcome.kills
    virtual += outcome.took
    const isBroken = outcome.broken !== undefined
    if (isBroken || isOne) print([...outcome.last, `trace ${outcome.hash}`].join("\n"))
    if (!isBroken) continue
    process.exitCode = 1
    print(`replay: npm run simulate -- --seed ${seed}`)
    return `simulate: FAILED at seed ${seed} (${seed - first + 1} of ${count}): ${outcome.broken}`
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  return `simulate: ok, ${count} ${count === 1 ? "seed" : "seeds"} from ${first} in ${seconds} s: ${
    Math.round(virtual / 1000)
  } virtual s, ${events} events, ${kills} kills, ${samples} samples stored, 0 promises broken`
}

print(run())
