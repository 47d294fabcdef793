/**
 * `npm run chaos -- --seconds N --seed S [--scenario name[,name]]`: kills, stops and cuts a real server and its real PostgreSQL
 * under load, and checks that every promise holds. The last line says the result; the exit is 1 when a promise broke.
 *
 * The seed decides what is done and when; how the processes meet it is up to the machine.
 */
import { parseArgs } from "node:util"
import { runChaos } from "./Chaos.ts"
import { scenarios } from "./Scenarios.ts"

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    seed: { type: "string", default: String(Math.floor(Math.random() * 1e6)) },
    scenario: { type: "string" }
  }
})
const numberOf = (name: string, text: string): number => {
  const n = Number(text)
  if (!Number.isSafeInteger(n) || n < 0) throw new RangeError(`Cannot run: --${name} "${text}" is not a whole number`)
  return n
}
const print = (text: string): void => {
  process.stdout.write(`${text}\n`)
}

// An exit, unlike a signal, ends the processes that were started.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1))

const seconds = numberOf("seconds", values.seconds)
const seed = numberOf("seed", values.seed)
const names = values.scenario?.split(",") ?? []
print(`chaos: ${values.scenario ?? `a mix of ${[...scenarios.keys()].join(", ")}`} for ${seconds} s, seed ${seed}`)
const { isOk, line } = await runChaos({ seconds, seed, names, print })
if (!isOk) {
  const which = names.length === 0 ? "" : ` --scenario ${values.scenario}`
  print(`replay: npm run chaos -- --seconds ${seconds} --seed ${seed}${which}`)
}
print(line)
process.exit(isOk ? 0 : 1)
