/** Values made from the contract's schemas: those that fit, and those that do not. */
import { type Arbitrary, sample, stringMatching } from "fast-check"
import type { Random } from "../simulation/Random.ts"

export type Json = Readonly<Record<string, unknown>>
export const isObject = (u: unknown): u is Json => typeof u === "object" && u !== null && !Array.isArray(u)
export const parts = (u: unknown): Json => isObject(u) ? u : {}
export const listOf = (u: unknown): ReadonlyArray<unknown> => Array.isArray(u) ? u : []

const odd = [
  "",
  " ",
  "0",
  "-1",
  "1e999",
  "NaN",
  "null",
  "true",
  "[]",
  "{}",
  "ä",
  "🜁",
  "\u0000",
  "\ud800",
  "%00",
  "..",
  "../..",
  "0:0",
  "0:-1",
  "9999999999:9999999999999999",
  "2026-01-01T00:00:00Z",
  "x".repeat(300),
  "'; DROP TABLE sessions; --",
  "<script>",
  "__proto__",
  "constructor",
  "toString"
]

/** A text nobody expects. */
export const oddText = (random: Random): string => random.pick(odd)

/** A value of any JSON kind, not deep. */
export const oddValue = (random: Random): unknown =>
  random.pick([
    () => null,
    () => true,
    () => random.int(-5, 5),
    () => random.between(-1e9, 1e9),
    () => 1e300,
    () => oddText(random),
    () => [],
    () => [null, [[[]]]],
    () => ({}),
    () => ({ [oddText(random)]: oddText(random) })
  ])()

const arbitraries = new Map<string, Arbitrary<string>>()

/** A text of a pattern. */
const matching = (pattern: string, random: Random): string => {
  // Look-ahead and Unicode classes the library does not know: any letters of that number will do.
  const plain = pattern.replace(/\(\?![^)]*\)\$\)/, "").replace(/\[\^\\p\{Cc\}\\p\{Cs\}\]/, "[a-zA-Z0-9 µ°²/_-]")
  const arbitrary = arbitraries.get(plain) ?? stringMatching(new RegExp(plain, "u"))
  arbitraries.set(plain, arbitrary)
  return sample(arbitrary, { seed: random.int(0, 2 ** 30), numRuns: 1 })[0]!
}

/** A value that fits a schema, as far as the contract's schemas go. */
export const valueOf = (schema: Json, random: Random): unknown => {
  const alternatives = listOf(schema["anyOf"] ?? schema["oneOf"])
  if (alternatives.length > 0) return valueOf(parts(random.pick(alternatives)), random)
  const choices = listOf(schema["enum"])
  if (choices.length > 0) return random.pick(choices)
  switch (schema["type"]) {
    case "boolean":
      return random.chance(0.5)
    case "integer":
    case "number": {
      const minimum = Number(schema["minimum"] ?? -1000)
      const maximum = Number(schema["maximum"] ?? Math.max(minimum, 1e6))
      const value = random.chance(0.2) ? random.pick([minimum, maximum]) : random.skewed(minimum, maximum)
      return schema["type"] === "integer" ? Math.round(value) : value === 0 ? 1 : value
    }
    case "array": {
      const [least, most] = [Number(schema["minItems"] ?? 0), Number(schema["maxItems"] ?? 4)]
      return Array.from(
        { length: random.int(least, Math.min(most, least + 4)) },
        () => valueOf(parts(schema["items"]), random)
      )
    }
    case "object": {
      const required = new Set(listOf(schema["required"]))
      return Object.fromEntries(
        Object.entries(parts(schema["properties"])).flatMap(([name, property]) =>
          required.has(name) || random.chance(0.4) ? [[name, valueOf(parts(property), random)]] : []
        )
      )
    }
    default:
      return typeof schema["pattern"] === "string" ? matching(schema["pattern"], random) : oddText(random)
  }
}

/** A value with something changed in it, at any depth. It may fit all the same. */
export const mutated = (value: unknown, random: Random): unknown => {
  if (Array.isArray(value) && value.length > 0 && random.chance(0.7)) {
    const i = random.int(0, value.length - 1)
    return value.map((one: unknown, at) => at === i ? mutated(one, random) : one)
  }
  if (!isObject(value)) return oddValue(random)
  const keys = Object.keys(value)
  const key = keys.length === 0 ? "x" : random.pick(keys)
  const { [key]: one, ...rest } = value
  return random.pick<() => unknown>([
    () => rest,
    () => ({ ...value, [key]: mutated(one, random) }),
    () => ({ ...value, [oddText(random)]: oddValue(random) }),
    () => oddValue(random)
  ])()
}
