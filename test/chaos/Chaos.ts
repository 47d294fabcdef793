/** A run: named scenarios one after the other, or a mix of all; and the line that says how it went. */
import { Random } from "../simulation/Random.ts"
import { mixed } from "./Mixed.ts"
import { scenarios } from "./Scenarios.ts"
import { Tally } from "./Tally.ts"
import { World } from "./World.ts"

export interface ChaosOptions {
  readonly seconds: number
  readonly seed: number
  /** Each for its part of the time, in this order. None: a mix, by weight and chance. */
  readonly names: ReadonlyArray<string>
  /** Whether to spare the machine: fewer peers. */
  readonly small?: boolean
  readonly print: (line: string) => void
}

/** Milliseconds of one turn in a mix, and between two lines of progress. */
const turnMs = 20_000
const progressMs = 15_000

/** One scenario and the milliseconds it has. */
type Turn = readonly [name: string, ms: number]

const mix = function*(seed: number, leftMs: () => number): Generator<Turn> {
  const random = new Random(seed)
  const bag = [...scenarios].flatMap(([name, { weight }]) => Array.from({ length: weight }, () => name))
  while (leftMs() > 0) {
    const name = random.pick(bag)
    yield [name, Math.max(scenarios.get(name)!.leastMs, Math.min(turnMs, leftMs()))]
  }
}

/** Runs it. @returns Whether every promise held, and the line. The sentences of what broke are printed. */
export const runChaos = async (
  { seconds, seed, names, small = false, print }: ChaosOptions
): Promise<{ readonly isOk: boolean; readonly line: string; readonly tally: Tally }> => {
  const unknown = names.find((name) => !scenarios.has(name))
  if (unknown !== undefined) {
    throw new RangeError(`Cannot run "${unknown}": there are ${[...scenarios.keys()].join(", ")}`)
  }
  const started = performance.now()
  const elapsed = (): number => performance.now() - started
  const tally = new Tally()
  const world = await World.open()
  let under = ""
  const progress = setInterval(() => {
    print(`${Math.round(elapsed() / 1000)} s, ${under}: ${tally.story()}; ${tally.verdict()}`)
  }, progressMs)
  try {
    const turns = names.length === 0 ?
      mix(seed, () => seconds * 1000 - elapsed()) :
      names.map((name): Turn => [name, seconds * 1000 / names.length])
    let number = 0
    for (const [name, ms] of turns) {
      under = name
      await scenarios.get(name)!.run({ world, random: new Random(mixed(seed, number++)), tally, ms, small })
    }
  } catch (cause) {
    tally.breaks("broken", 1, `${under}: ${cause instanceof Error ? cause.stack : String(cause)}`)
  } finally {
    clearInterval(progress)
    await world.close()
  }
  for (const sentence of tally.sentences) print(sentence)
  if (!tally.isOk) print(`the server's last words: ${world.lastWords()}`)
  const took = `${Math.round(elapsed() / 1000)} s (seed ${seed})`
  const line = `chaos: ${tally.isOk ? "ok" : "FAILED"}: ${tally.story()}; ${tally.verdict()} in ${took}`
  return { isOk: tally.isOk, line, tally }
}
