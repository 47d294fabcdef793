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

const first = numberOf("from", values.seed ?? values.from)
const count = values.seed === undefined ? numberOf("seeds", values.seeds ?? "1000") : 1
const started = performance.now()
let [samples, events, kills, virtual] = [0, 0, 0, 0]
for (let seed = first; seed < first + count; seed++) {
  const outcome = simulate(seed, values.seed === undefined ? 60 : 100_000)
  samples += outcome.samples
  events += outcome.events
  kills += outcome.kills
  virtual += outcome.took
  if (outcome.broken !== undefined || values.seed !== undefined) {
    for (const line of outcome.last) print(line)
  }
  if (outcome.broken !== undefined) {
    print(`replay: npm run simulate -- --seed ${seed}`)
    print(
      `simulate: FAILED at seed ${seed}, the ${
        seed - first + 1
      }. of ${count}: ${outcome.broken} (trace ${outcome.hash})`
    )
    process.exit(1)
  }
  if (values.seed !== undefined) print(`trace ${outcome.hash}`)
}
const seconds = (performance.now() - started) / 1000
print(
  `simulate: ok, ${count} ${count === 1 ? "seed" : "seeds"} from ${first} in ${seconds.toFixed(1)} s: ${
    Math.round(virtual / 1000)
  } virtual s, ${events} events, ${kills} kills, ${samples} samples stored, 0 promises broken`
)
