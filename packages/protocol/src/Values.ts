/**
 * What the integers of a block mean: numbers, and their text.
 *
 * Bound: a block's own (4096 samples of 16 channels). Numbers are 8 bytes each; texts are made one at a time, when
 * asked for, so a whole recording never exists as strings.
 *
 * Floats are already in their channel's unit, so scale and offset are for counts alone.
 */
import type { Block } from "./Block.ts"
import { bitsExponent, decimalExponent, decimalPlacesMax, patternOrder, powersOfTen } from "./BlockLayout.ts"
import { roundEven } from "./FloatForms.ts"
import type { Channel } from "./Session.ts"

/** `unit`: counts become `count × scale + offset`. `counts`: they stay the integers they are. Floats do not care. */
export type ValuesAs = "unit" | "counts"

/** Below this, JavaScript writes numbers with an exponent. */
const plainMin = 1e-6
/** Above this, float32 has no room for every integer, and its shortest decimal may round tens and hundreds. */
const integersMax = 2 ** 24
/** Decimal digits that tell every float32 from its neighbours. */
const digitsMax = 9

/** The decimal of fewest places, up to 9, that gives the float32 `single` when read as one; undefined without one. */
const fewPlacesOf = (single: number): number | undefined => {
  if (Math.abs(single) >= integersMax) return undefined
  // Most have few places. The product is exact (24 and 21 bits), so k is the nearest and the first is the shortest.
  for (let places = 0; places <= decimalPlacesMax; places++) {
    const power = powersOfTen[places]!
    const decimal = roundEven(single * power) / power
    if (Math.fround(decimal) === single) return decimal
  }
  return undefined
}

/**
 * The shortest decimal that gives `v` when read as float32.
 *
 * @param v A float32, as `Math.fround` gives it. Other numbers get the text of the float32 nearest to them.
 * @returns As JavaScript writes numbers (`0.1`, `1e-7`, `3.4028235e+38`); `NaN`, `Infinity`, `-Infinity` and `-0` too.
 * @example
 * ```ts
 * import { floatText } from "@thrum/protocol"
 * floatText(Math.fround(0.1)) // "0.1", where String() says "0.10000000149011612"
 * ```
 */
export const floatText = (v: number): string => {
  const single = Math.fround(v)
  if (single === 0) return Object.is(single, -0) ? "-0" : "0"
  if (!Number.isFinite(single)) return String(single)
  const decimal = fewPlacesOf(single)
  if (decimal !== undefined) return String(decimal)
  const sign = single < 0 ? "-" : ""
  const size = Math.abs(single)
  for (let digits = 1; digits < digitsMax; digits++) {
    const [mantissa = "", exponent = ""] = size.toExponential(digits - 1).split("e")
    const last = Number(exponent) - digits + 1
    const near = Number(mantissa.replace(".", ""))
    // JavaScript rounds halves up; the even one is wanted, and one digit more shows whether it is a half.
    const longer = size.toExponential(digits)
    const half = longer.includes("5e") && Number(longer) === size
    const even = half && near % 2 !== 0 ? near - 1 : near
    // Below a power of two its neighbour is half as far as above, so the second nearest may read as it.
    for (const integer of [even, even + 1]) {
      const decimal = Number(`${integer}e${last}`)
      if (Math.fround(decimal) === size) return sign + String(decimal)
    }
  }
  return String(Number(single.toPrecision(digitsMax)))
}

/** The number that {@link floatText} writes. */
const floatNumber = (v: number): number => {
  const single = Math.fround(v)
  if (single === 0 || !Number.isFinite(single)) return single
  return fewPlacesOf(single) ?? Number(floatText(single))
}

/** The text of `k / 10^places`, digit for digit: no exponent, no zeros at the end. */
const decimalText = (k: number, places: number): string => {
  const quotient = k / powersOfTen[places]!
  if (k === 0 || Math.abs(quotient) >= plainMin) return String(quotient)
  const digits = String(Math.abs(k)).padStart(places, "0").replace(/0+$/, "")
  return `${k < 0 ? "-" : ""}0.${digits}`
}

/** Its description must have been read with the block: another number of channels is a mistake of the caller. */
const forBlock = (block: Block, channels: ReadonlyArray<Channel>): ReadonlyArray<Channel> => {
  if (channels.length === block.channels) return channels
  throw new RangeError(`Cannot read values of ${block.channels} channels: ${channels.length} are described`)
}

/** The float32 whose mapped bits are `k`. */
const bits = new DataView(new ArrayBuffer(4))
const patternNumber = (k: number): number => {
  bits.setInt32(0, patternOrder(k))
  return bits.getFloat32(0)
}

const isDecimal = (exponent: number): boolean => exponent > decimalExponent && exponent < bitsExponent

/**
 * The values of a block as numbers.
 *
 * @param channels Of the session, one for each of the block's.
 * @returns Sample after sample, like the block's integers. Floats: the decimal `k / 10^d` as float64 where the block
 *   says decimals, else the float32, exactly. Counts: see {@link ValuesAs}, `unit` unless given.
 * @throws RangeError when the block has another number of channels.
 */
export const numbersOf = (block: Block, channels: ReadonlyArray<Channel>, as: ValuesAs = "unit"): Float64Array => {
  const { exponent, integers } = block
  const described = forBlock(block, channels)
  const numbers = new Float64Array(integers.length)
  if (exponent === undefined) {
    if (as === "counts") numbers.set(integers)
    else {
      for (const [c, { offset, scale }] of described.entries()) {
        for (let i = c; i < integers.length; i += described.length) numbers[i] = integers[i]! * scale + offset
      }
    }
  } else if (exponent === bitsExponent) {
    for (let i = 0; i < integers.length; i++) numbers[i] = patternNumber(integers[i]!)
  } else if (isDecimal(exponent)) {
    const power = powersOfTen[exponent - decimalExponent]!
    for (let i = 0; i < integers.length; i++) numbers[i] = integers[i]! / power
  } else {
    const unit = 2 ** -exponent
    for (let i = 0; i < integers.length; i++) numbers[i] = Math.fround(integers[i]! * unit)
  }
  return numbers
}

/**
 * The values of a block as the numbers that their texts say ({@link textsOf}): as {@link numbersOf}, but for float32,
 * which become the shortest decimal that tells them from their neighbours. So 0.1 sent as float32 is 0.1, in whatever
 * format it comes out.
 *
 * @param channels Of the session, one for each of the block's.
 * @throws RangeError when the block has another number of channels.
 */
export const writtenNumbersOf = (
  block: Block,
  channels: ReadonlyArray<Channel>,
  as: ValuesAs = "unit"
): Float64Array => {
  const numbers = numbersOf(block, channels, as)
  if (block.exponent === undefined || isDecimal(block.exponent)) return numbers
  for (let i = 0; i < numbers.length; i++) numbers[i] = floatNumber(numbers[i]!)
  return numbers
}

/**
 * The values of a block as text, each when asked for: channel `c` of sample `i` is value number `i * channels + c`.
 *
 * Decimals come back as they were written, without zeros at their end; float32 as {@link floatText}; counts as
 * integers, or scaled as JavaScript writes the number.
 *
 * @param channels Of the session, one for each of the block's.
 * @throws RangeError when the block has another number of channels, and for a value number outside the block.
 */
export const textsOf = (
  block: Block,
  channels: ReadonlyArray<Channel>,
  as: ValuesAs = "unit"
): (at: number) => string => {
  const { exponent, integers } = block
  const described = forBlock(block, channels)
  const integer = (at: number): number => {
    const k = integers[at]
    if (k === undefined) throw new RangeError(`Cannot read value ${at}: the block has ${integers.length}`)
    return k
  }
  if (exponent === undefined) {
    if (as === "counts") return (at) => String(integer(at))
    return (at) => {
      const { offset, scale } = described[at % described.length]!
      return String(integer(at) * scale + offset)
    }
  }
  if (exponent === bitsExponent) return (at) => floatText(patternNumber(integer(at)))
  if (isDecimal(exponent)) return (at) => decimalText(integer(at), exponent - decimalExponent)
  const unit = 2 ** -exponent
  return (at) => floatText(integer(at) * unit)
}
