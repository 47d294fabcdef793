/**
 * The ways in which real numbers can stand as integers in a block, exactly.
 *
 * Bound: three forms of one frame's values, 256 KiB each. Numbers that no form holds are a `BadBlock` naming one of them.
 */
import {
  binaryExponentMax,
  bitsExponent,
  decimalExponent,
  decimalPlacesMax,
  patternOrder,
  powersOfTen
} from "./BlockLayout.ts"
import { type FrameError, frameError } from "./FrameError.ts"

/** Integers that stand for the values of a block: counts, or floats of some scale. */
export interface Form {
  /** The E byte; undefined for counts. */
  readonly exponent: number | undefined
  readonly integers: Int32Array
}

/** The integers of floats are smaller than this, either side of 0. */
const integersEnd = 2 ** 31

/** The integer nearest to `v`; of two, the even one, as all who write the shortest decimal of a float do. */
export const roundEven = (v: number): number => {
  const up = Math.round(v)
  return up - v === 0.5 && up % 2 !== 0 ? up - 1 : up
}

/** Whether `v` is exactly `k / 10^places`, as float32 (`single`) or as float64. */
const isDecimalOf = (v: number, places: number, single: boolean): boolean => {
  const power = powersOfTen[places]!
  const quotient = roundEven(v * power) / power
  // Rounding a quotient of these sizes to float64 first never changes its float32: it is farther than 2^-46 of itself
  // from the middle of two neighbours.
  return (single ? Math.fround(quotient) : quotient) === v
}

/**
 * Fewest places with which `v` is a decimal whose integer fits 32 bits; -1 if there are none. Looks around `near`
 * first, because what needs few places does so with more of them too, and neighbours mostly need the same.
 */
const placesOf = (v: number, near: number, single: boolean): number => {
  const size = Math.abs(v)
  // Negative zero has no integer, and neither has what is not finite.
  if (!(size * 10 < integersEnd) || Object.is(v, -0)) return -1
  let places = near
  while (size * powersOfTen[places]! >= integersEnd) places--
  if (isDecimalOf(v, places, single)) {
    while (places > 1 && isDecimalOf(v, places - 1, single)) places--
    return places
  }
  for (places++; places <= decimalPlacesMax && size * powersOfTen[places]! < integersEnd; places++) {
    if (isDecimalOf(v, places, single)) return places
  }
  return -1
}

/**
 * All values as k / 10^d with the smallest d. Each k is that of the value's own fewest places, grown: so a float32
 * stays the shortest decimal that reads as it, whatever its neighbours need.
 */
const decimalForm = (values: ArrayLike<number>, single: boolean): Form | undefined => {
  const own = new Uint8Array(values.length)
  let [places, most] = [1, 1]
  for (let i = 0; i < values.length; i++) {
    places = placesOf(values[i]!, places, single)
    if (places < 0) return undefined
    own[i] = places
    if (places > most) most = places
  }
  const integers = new Int32Array(values.length)
  for (let i = 0; i < values.length; i++) {
    const k = roundEven(values[i]! * powersOfTen[own[i]!]!) * powersOfTen[most - own[i]!]!
    if (Math.abs(k) >= integersEnd) return undefined
    integers[i] = k
  }
  return { exponent: decimalExponent + most, integers }
}

/** All values as k · 2^−E with the smallest E. */
const binaryForm = (values: Float32Array, patterns: Int32Array): Form | undefined => {
  let exponent = 0
  let largest = 0
  for (let i = 0; i < values.length; i++) {
    const pattern = patterns[i]!
    if (pattern === 0) continue
    const field = (pattern >>> 23) & 0xff
    const mantissa = (pattern & 0x7fffff) | (field === 0 ? 0 : 0x800000)
    // -0 is the only one left without a mantissa.
    if (field === 0xff || mantissa === 0) return undefined
    const zeros = 31 - Math.clz32(mantissa & -mantissa)
    exponent = Math.max(exponent, 150 - Math.max(1, field) - zeros)
    largest = Math.max(largest, Math.abs(values[i]!))
  }
  const power = 2 ** exponent
  if (exponent > binaryExponentMax || largest * power >= integersEnd) return undefined
  const integers = new Int32Array(values.length)
  for (let i = 0; i < values.length; i++) integers[i] = values[i]! * power
  return { exponent, integers }
}

/** The bit patterns, mapped so that the order of the integers is the order of the floats. */
const patternForm = (patterns: Int32Array): Form => ({ exponent: bitsExponent, integers: patterns.map(patternOrder) })

/** Whether float32 holds `v` as it is: NaN and both zeros too. */
const isSingle = (v: number): boolean => Object.is(Math.fround(v), v)

/** Why float64 values fit no form. */
const refuseFloats = (values: ArrayLike<number>): FrameError => {
  const all = Array.from(values)
  const neither = all.find((v) => !isSingle(v) && placesOf(v, 1, false) < 0)
  if (neither !== undefined) {
    return frameError(
      "BadBlock",
      `Cannot pack ${neither}: it is neither a float32 nor a decimal of at most ${decimalPlacesMax} places and 2^31`
    )
  }
  const double = all.find((v) => !isSingle(v))
  return frameError(
    "BadBlock",
    `Cannot pack ${double} beside the others: it is no float32, and not all are decimals of the same places within 2^31`
  )
}

/**
 * All forms of `values`: binary scale, decimal scale, bit patterns, as far as they hold them.
 *
 * A `Float32Array` has decimals when its values are the float32 of decimals. For other arrays each form is the very
 * float64, so a reader never gets another number than was sent.
 */
export const floatForms = (
  values: Float32Array | Float64Array | ReadonlyArray<number>
): ReadonlyArray<Form> | FrameError => {
  const single = values instanceof Float32Array
  const decimal = decimalForm(values, single)
  const singles = single ? values : Float32Array.from(values)
  if (!single && !singles.every((v, i) => Object.is(v, values[i]))) {
    return decimal === undefined ? refuseFloats(values) : [decimal]
  }
  // The bits are read as integers: a NaN that passes as a number may lose its payload.
  const patterns = new Int32Array(singles.buffer, singles.byteOffset, singles.length)
  return [binaryForm(singles, patterns), decimal, patternForm(patterns)].filter((form) => form !== undefined)
}
