/**
 * How integers and floats become a packed block.
 *
 * Bound: what one frame may hold ({@link protocolLimits} `samplesPerFrameMax`, `channelsMax`); more is a `TooLarge`, and
 * anything the layout cannot say exactly is a `BadBlock`. With three channels a block is at most 18 bytes larger than its
 * values and times at 32 bits each, 1 more with floats and 11 more with times: where prediction does not pay, plain
 * fields are written. The arrays it works in are made once and hold one channel of one frame, 48 KiB.
 *
 * The layout leaves the encoder free. These are the choices of this one; they give the golden vectors byte for byte and
 * the measured sizes, and two encoders that follow them make the same bytes.
 *
 * - Shift: the low bits equal in all samples of each channel; if nothing varies at all, the zeros all samples end in.
 * - Each channel, in order: the predictor of the fewest bits (base in its own width, residuals, parameters); the first
 *   among equals. Kind M's base is the mean, rounded to nearest, halves away from 0.
 * - Each segment, in order: the Rice parameter of the fewest bits among the one from the mean, its two neighbours and
 *   the one before; the smallest among equals, the one before only if better. −1 and the one before if all are 0.
 * - Plain fields when that form has fewer bytes.
 * - Floats: the smallest block of binary scale, decimal scale and bit patterns; the first of these among equals.
 */
import {
  blockVersion,
  escapeLength,
  floatFlag,
  meanPredictors,
  packFlag,
  predictorA,
  predictorB,
  riceMax,
  segmentLength,
  shiftFlag,
  timeFlag
} from "./BlockLayout.ts"
import { floatForms, type Form } from "./FloatForms.ts"
import { type FrameError, frameError, isFrameError } from "./FrameError.ts"
import { protocolLimits } from "./Limits.ts"

/** What goes into a block besides the values. */
export interface PackOptions {
  /** Ticks since the block's start, one a sample: integers of 32 bits. */
  readonly times?: ArrayLike<number>
  /** Nominal ticks between two samples, unsigned 32-bit. The most frequent difference of `times` unless given. */
  readonly period?: number
  /** Predictors to try, 0 … 14. All unless given; `[0, 4, 13]` packs about three times as fast, a little larger. */
  readonly predictors?: ReadonlyArray<number>
}

const countMax = protocolLimits.samplesPerFrameMax.value
const channelsMax = protocolLimits.channelsMax.value
const segmentsMax = Math.max(1, Math.floor(countMax / segmentLength))
const allPredictors: ReadonlyArray<number> = Array.from(predictorA.keys())

const refuse = (forbids: string): FrameError => frameError("BadBlock", `Cannot pack the samples: ${forbids}`)

/** Bits of an unsigned 32-bit value. */
const widthOf = (u: number): number => 32 - Math.clz32(u)
/** Zigzag: small magnitudes of both signs become small unsigned values. */
const zigzag = (v: number): number => (v << 1) ^ (v >> 31)

/** Values of the channel being planned, without its low bits. */
const column = new Int32Array(countMax)
/** The two sequences whose recurrence the predictors are, after two zeros: distances to the mean, and differences. */
const centred = new Int32Array(countMax + 2)
const differences = new Int32Array(countMax + 2)
/** Zigzag residuals of one segment. */
const segmentCodes = new Int32Array(2 * segmentLength)

/** What is written of one channel: by prediction, or as plain fields. */
interface ChannelPlan {
  readonly predictor: number
  readonly base: number
  /** Rice parameters, one a segment. */
  readonly parameters: Int8Array
  /** Bits of predictor, residuals and parameters, without the base. */
  readonly bits: number
  /** Smallest value, and the width of what the others are above it. */
  readonly fieldBase: number
  readonly fieldWidth: number
}

/** No Rice parameter came yet. */
const none = -2

/** Bits that say `k` after `reference`. */
const parameterBits = (k: number, reference: number): number =>
  reference === none ? 5 : k === reference ? 1 : Math.abs(k - reference) + 2

/** Bits of `count` codes of {@link segmentCodes} with parameter `k`; `or` is all of them together. */
const riceBits = (count: number, or: number, k: number): number => {
  if (k < 0) return or === 0 ? 0 : Infinity
  let bits = count * (k + 1)
  if (or >>> k < escapeLength) {
    for (let i = 0; i < count; i++) bits += segmentCodes[i]! >>> k
    return bits
  }
  for (let i = 0; i < count; i++) {
    const q = segmentCodes[i]! >>> k
    bits += q < escapeLength ? q : escapeLength + 32 - 1 - k
  }
  return bits
}

/** Rice parameters of the predictor being tried. */
const trial = new Int8Array(segmentsMax)

/**
 * Bits of the residuals of a predictor and their parameters, which it leaves in {@link trial}. `z` holds `count` values
 * after two zeros. Stops and returns more than `limit` as soon as it is certain to be more.
 */
const planResiduals = (z: Int32Array, count: number, predictor: number, first: number, limit: number): number => {
  const a = predictorA[predictor]!
  const b = predictorB[predictor]!
  const last = Math.max(1, Math.floor(count / segmentLength)) - 1
  let bits = 0
  let reference = first
  let z2 = 0
  let z1 = 0
  let from = 2
  for (let segment = 0; segment <= last; segment++) {
    const size = segment === last ? count + 2 - from : segmentLength
    let or = 0
    let sum = 0
    for (let i = 0; i < size; i++) {
      const z0 = z[from + i]!
      const e = (z0 - ((Math.imul(a, z1) + Math.imul(b, z2) + 32) >> 6)) | 0
      const u = (e << 1) ^ (e >> 31)
      segmentCodes[i] = u
      or |= u
      sum += u >>> 0
      z2 = z1
      z1 = z0
    }
    from += size

    let best: number
    let cost: number
    if (or === 0) {
      best = -1
      cost = parameterBits(-1, reference)
    } else {
      best = 0
      cost = Infinity
      const mean = Math.floor(sum / size)
      const middle = mean === 0 ? 0 : 31 - Math.clz32(mean)
      const lowest = Math.max(0, middle - 1)
      const highest = Math.min(riceMax, middle + 1)
      for (let k = lowest; k <= highest; k++) {
        const c = riceBits(size, or, k) + parameterBits(k, reference)
        if (c < cost) {
          cost = c
          best = k
        }
      }
    }
    if (reference !== none && reference !== best && reference >= 0) {
      const c = riceBits(size, or, reference) + 1
      if (c < cost) {
        cost = c
        best = reference
      }
    }
    trial[segment] = best
    reference = best
    bits += cost
    if (bits > limit) return bits
  }
  return bits
}

/** Plans the channel in {@link column}. `reference` is the first Rice parameter of the channel before. */
const planChannel = (count: number, predictors: ReadonlyArray<number>, reference: number): ChannelPlan => {
  const start = column[0]!
  let sum = start
  let [smallest, largest] = [start, start]
  for (let i = 1; i < count; i++) {
    const y = column[i]!
    differences[i + 1] = y - column[i - 1]!
    sum += y
    if (y < smallest) smallest = y
    if (y > largest) largest = y
  }
  const mean = sum < 0 ? -Math.round(-sum / count) : Math.round(sum / count)
  for (let i = 0; i < count; i++) centred[i + 2] = column[i]! - mean

  let predictor = -1
  let base = 0
  let least = Infinity
  let bits = 0
  let parameters = new Int8Array(0)
  for (const candidate of predictors) {
    const differs = candidate >= meanPredictors
    const residuals = differs ? count - 1 : count
    const baseBits = widthOf(zigzag(differs ? start : mean))
    const limit = least - baseBits
    const residualBits = residuals === 0
      ? 0
      : planResiduals(differs ? differences : centred, residuals, candidate, reference, limit)
    if (residualBits >= limit) continue
    least = residualBits + baseBits
    predictor = candidate
    base = differs ? start : mean
    bits = 4 + residualBits
    parameters = trial.slice(0, residuals === 0 ? 0 : Math.max(1, Math.floor(residuals / segmentLength)))
  }
  return { base, predictor, parameters, bits, fieldBase: smallest, fieldWidth: widthOf(largest - smallest) }
}

/** A whole block, before it is written. */
interface Plan {
  readonly form: Form
  readonly shift: number
  readonly packed: boolean
  readonly channels: ReadonlyArray<ChannelPlan>
  readonly times: ChannelPlan | undefined
  /** Of the bit string. */
  readonly bytes: number
}

/** What all forms of a block have in common. */
interface Shape {
  readonly count: number
  readonly channels: number
  readonly times: ArrayLike<number> | undefined
  readonly period: number
  readonly predictors: ReadonlyArray<number>
}

/** The number of low bits that need not be sent, see the rule at the head of this file. */
const shiftOf = (integers: Int32Array, channels: number): number => {
  let varies = 0
  let set = 0
  for (let c = 0; c < channels; c++) {
    const first = integers[c]!
    set |= first
    for (let i = c; i < integers.length; i += channels) varies |= integers[i]! ^ first
  }
  const bits = varies === 0 ? set : varies
  return bits === 0 ? 0 : 31 - Math.clz32(bits & -bits)
}

const lowOf = (v: number, shift: number): number => v & ((1 << shift) - 1)

/** Puts channel `c` of the samples into {@link column}. */
const takeColumn = (integers: Int32Array, channels: number, c: number, shift: number): void => {
  for (let i = 0, at = c; at < integers.length; i++, at += channels) column[i] = integers[at]! >> shift
}

/** Puts what the times are off their period into {@link column}. */
const takeTimes = (times: ArrayLike<number>, period: number): void => {
  for (let i = 0; i < times.length; i++) column[i] = times[i]! - Math.imul(i, period)
}

/** Plans a block; undefined as soon as its bits are certain to take `limit` bytes or more. */
const planBlock = (form: Form, shape: Shape, limit: number): Plan | undefined => {
  const { integers } = form
  const { channels: width, count, predictors } = shape
  const shift = shiftOf(integers, width)
  let head = 5
  if (shift > 0) {
    head += 5 + width
    for (let c = 0; c < width; c++) if (lowOf(integers[c]!, shift) !== 0) head += shift
  }

  const channels: Array<ChannelPlan> = []
  let reference = none
  let [predicted, packed] = [head, head]
  let [baseWidth, fieldBaseWidth] = [1, 1]
  for (let c = 0; c < width; c++) {
    takeColumn(integers, width, c, shift)
    const channel = planChannel(count, predictors, reference)
    reference = channel.parameters[0] ?? reference
    baseWidth = Math.max(baseWidth, widthOf(zigzag(channel.base)))
    fieldBaseWidth = Math.max(fieldBaseWidth, widthOf(zigzag(channel.fieldBase)))
    predicted += channel.bits
    packed += 6 + count * channel.fieldWidth
    channels.push(channel)
    if (Math.min(predicted, packed) / 8 >= limit) return undefined
  }
  predicted += width * baseWidth
  packed += width * fieldBaseWidth

  let times: ChannelPlan | undefined
  if (shape.times !== undefined) {
    takeTimes(shape.times, shape.period)
    times = planChannel(count, predictors, none)
    predicted += 5 + times.bits + Math.max(1, widthOf(zigzag(times.base)))
    packed += 5 + 6 + count * times.fieldWidth + Math.max(1, widthOf(zigzag(times.fieldBase)))
  }

  // Whole bytes, because the bits that fill the last one cost nothing either way.
  const [predictedBytes, packedBytes] = [Math.ceil(predicted / 8), Math.ceil(packed / 8)]
  const bytes = Math.min(predictedBytes, packedBytes)
  return bytes < limit ? { form, shift, packed: packedBytes < predictedBytes, channels, times, bytes } : undefined
}

/** Puts bits behind a header, most significant first. */
class BitWriter {
  readonly #view: DataView
  #at: number
  #pending = 0
  #filled = 0

  constructor(bytes: Uint8Array, from: number) {
    this.#view = new DataView(bytes.buffer)
    this.#at = from
  }

  /** `value` has no bits above `width`, 0 … 32. */
  put(value: number, width: number): void {
    const free = 32 - this.#filled
    if (width < free) {
      // No width at all may be a shift by 32, which is a shift by 0: the value is 0 then.
      this.#pending |= value << (free - width)
      this.#filled += width
      return
    }
    const rest = width - free
    this.#view.setInt32(this.#at, this.#pending | (value >>> rest))
    this.#at += 4
    this.#pending = rest === 0 ? 0 : value << (32 - rest)
    this.#filled = rest
  }

  end(): void {
    for (; this.#filled > 0; this.#filled -= 8) {
      this.#view.setUint8(this.#at++, this.#pending >>> 24)
      this.#pending <<= 8
    }
  }
}

const writeParameter = (writer: BitWriter, k: number, reference: number): void => {
  if (reference === none) return writer.put(k + 1, 5)
  const change = k - reference
  const ones = Math.abs(change)
  writer.put(((1 << ones) - 1) | 0, ones)
  writer.put(0, 1)
  if (change !== 0) writer.put(change < 0 ? 1 : 0, 1)
}

/** Writes the channel in {@link column}; its base takes `width` bits. */
const writeChannel = (
  writer: BitWriter,
  channel: ChannelPlan,
  packed: boolean,
  width: number,
  count: number,
  first: number
): void => {
  if (packed) {
    writer.put(channel.fieldWidth, 6)
    writer.put(zigzag(channel.fieldBase), width)
    for (let i = 0; i < count; i++) writer.put((column[i]! - channel.fieldBase) | 0, channel.fieldWidth)
    return
  }
  const { base, parameters, predictor } = channel
  writer.put(predictor, 4)
  writer.put(zigzag(base), width)
  const differs = predictor >= meanPredictors
  const a = predictorA[predictor]!
  const b = predictorB[predictor]!
  let [z1, z2] = [0, 0]
  let before = base
  let reference = first
  let i = differs ? 1 : 0
  for (let segment = 0; segment < parameters.length; segment++) {
    const k = parameters[segment]!
    writeParameter(writer, k, reference)
    reference = k
    const stop = segment === parameters.length - 1 ? count : i + segmentLength
    for (; i < stop; i++) {
      const y = column[i]!
      const z = (y - before) | 0
      if (differs) before = y
      const u = zigzag((z - ((Math.imul(a, z1) + Math.imul(b, z2) + 32) >> 6)) | 0)
      z2 = z1
      z1 = z
      if (k < 0) continue
      const q = u >>> k
      if (q >= escapeLength) {
        writer.put(0xffffff, escapeLength)
        writer.put(u, 32)
      } else {
        writer.put((1 << (q + 1)) - 2, q + 1)
        writer.put(u & ((1 << k) - 1), k)
      }
    }
  }
}

const leb128 = (bytes: Array<number>, value: number): void => {
  let rest = value
  for (; rest > 0x7f; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80)
  bytes.push(rest)
}

const headerOf = (plan: Plan, shape: Shape): Array<number> => {
  const lead = blockVersion |
    (plan.shift > 0 ? shiftFlag : 0) |
    (plan.times === undefined ? 0 : timeFlag) |
    (plan.form.exponent === undefined ? 0 : floatFlag) |
    (plan.packed ? packFlag : 0)
  const header = [lead]
  leb128(header, shape.count)
  if (plan.times !== undefined) leb128(header, shape.period)
  if (plan.form.exponent !== undefined) header.push(plan.form.exponent)
  return header
}

const writeBlock = (plan: Plan, shape: Shape): Uint8Array => {
  const { form: { integers }, packed, shift } = plan
  const { channels, count } = shape
  const header = headerOf(plan, shape)
  const bytes = new Uint8Array(header.length + plan.bytes)
  bytes.set(header)
  const writer = new BitWriter(bytes, header.length)
  const widthOfBase = (channel: ChannelPlan): number =>
    Math.max(1, widthOf(zigzag(packed ? channel.fieldBase : channel.base)))

  const width = Math.max(...plan.channels.map(widthOfBase))
  writer.put(width - 1, 5)
  if (shift > 0) {
    writer.put(shift, 5)
    for (let c = 0; c < channels; c++) {
      const low = lowOf(integers[c]!, shift)
      writer.put(low === 0 ? 0 : 1, 1)
      if (low !== 0) writer.put(low, shift)
    }
  }
  let reference = none
  for (const [c, channel] of plan.channels.entries()) {
    takeColumn(integers, channels, c, shift)
    writeChannel(writer, channel, packed, width, count, reference)
    reference = channel.parameters[0] ?? reference
  }
  if (plan.times !== undefined && shape.times !== undefined) {
    takeTimes(shape.times, shape.period)
    const timeWidth = widthOfBase(plan.times)
    writer.put(timeWidth - 1, 5)
    writeChannel(writer, plan.times, packed, timeWidth, count, none)
  }
  writer.end()
  return bytes
}

/** Packs the form that becomes the smallest block, the first of equals. */
const packSmallest = (forms: ReadonlyArray<Form>, shape: Shape): Uint8Array | FrameError => {
  let best: Plan | undefined
  for (const form of forms) best = planBlock(form, shape, best?.bytes ?? Infinity) ?? best
  return best === undefined ? refuse("they have no form") : writeBlock(best, shape)
}

/** The difference of neighbours that occurs most, the first of those; 0 when there is one time only. */
const usualPeriod = (times: ArrayLike<number>): number => {
  const seen = new Map<number, number>()
  let [period, most] = [0, 0]
  for (let i = 1; i < times.length; i++) {
    const difference = (times[i]! - times[i - 1]!) >>> 0
    seen.set(difference, (seen.get(difference) ?? 0) + 1)
  }
  for (const [difference, times] of seen) if (times > most) [period, most] = [difference, times]
  return period
}

const shapeOf = (length: number, channels: number, options: PackOptions): Shape | FrameError => {
  if (!Number.isInteger(channels) || channels < 1 || channels > channelsMax) {
    return refuse(`${channels} is no number of channels from 1 to ${channelsMax}`)
  }
  const count = length / channels
  if (!Number.isInteger(count)) return refuse(`${length} values are not whole samples of ${channels} channels`)
  if (count === 0) return refuse("there are none")
  if (count > countMax) {
    return frameError("TooLarge", `Cannot pack ${count} samples: a frame holds at most ${countMax}`)
  }
  const { period, predictors = allPredictors, times } = options
  if (predictors.length === 0 || !predictors.every((p) => allPredictors.includes(p))) {
    return refuse(`[${predictors.join(", ")}] are not predictors from 0 to ${allPredictors.length - 1}`)
  }
  if (times === undefined) {
    if (period !== undefined) return refuse(`a period of ${period} ticks says nothing without times`)
    return { count, channels, times, period: 0, predictors }
  }
  if (times.length !== count) return refuse(`${times.length} times do not fit ${count} samples`)
  for (let i = 0; i < count; i++) {
    if ((times[i]! | 0) !== times[i]) return refuse(`the time ${times[i]} is not an integer of 32 bits`)
  }
  if (period !== undefined && (period >>> 0) !== period) {
    return refuse(`the period ${period} is not an unsigned integer of 32 bits`)
  }
  return { count, channels, times, period: period ?? usualPeriod(times), predictors }
}

/**
 * Packs counts, losslessly.
 *
 * @param values Integers of 32 bits, sample after sample: channel `c` of sample `i` is at `i * channels + c`.
 * @param channels 1 … 16.
 * @returns A block of its own memory. `TooLarge` above 4096 samples; `BadBlock` when a value, a time or the period is
 *   not an integer in its range, when the lengths do not fit, and when there is no sample.
 * @see docs/PROTOCOL.md, "The block".
 * @example
 * ```ts
 * import { packCounts } from "@thrum/protocol"
 * packCounts([1, 2, 3, 2, 3, 4], 3, { times: [0, 10] }) // two samples of three channels
 * ```
 */
export const packCounts = (
  values: ArrayLike<number>,
  channels: number,
  options: PackOptions = {}
): Uint8Array | FrameError => {
  const shape = shapeOf(values.length, channels, options)
  if (isFrameError(shape)) return shape
  if (values instanceof Int32Array) return packSmallest([{ exponent: undefined, integers: values }], shape)
  const integers = new Int32Array(values.length)
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!
    if ((value | 0) !== value) return refuse(`${value} is not an integer of 32 bits`)
    integers[i] = value
  }
  return packSmallest([{ exponent: undefined, integers }], shape)
}

/**
 * Packs real numbers, losslessly: as integers with the scale that is hidden in them, or as the bits of float32.
 *
 * @param values Sample after sample, as in {@link packCounts}. A `Float32Array` always fits, NaN and its payload
 *   included; where its values are the float32 of decimals, readers may take the decimals. Other numbers must all be
 *   float32 already (as `Math.fround` gives them), or all decimals `k / 10^d` of one d in 1 … 9 with |k| below 2^31:
 *   readers get exactly these numbers back.
 * @param channels 1 … 16.
 * @returns The smallest of the forms that hold the values; errors as in {@link packCounts}, and `BadBlock` naming the
 *   number that fits no form.
 * @see docs/PROTOCOL.md, "The block".
 */
export const packFloats = (
  values: Float32Array | Float64Array | ReadonlyArray<number>,
  channels: number,
  options: PackOptions = {}
): Uint8Array | FrameError => {
  const shape = shapeOf(values.length, channels, options)
  if (isFrameError(shape)) return shape
  const forms = floatForms(values)
  return isFrameError(forms) ? forms : packSmallest(forms, shape)
}
