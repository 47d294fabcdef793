/**
 * The packed block of a samples frame, version 1: its types, and how bytes become integers.
 *
 * Bound: {@link protocolLimits} `samplesPerFrameMax` samples of at most `channelsMax` channels, 256 KiB of integers and
 * 16 KiB of times. What declares more is `TooLarge` before anything is allocated; any other bytes that are not a block
 * are `BadBlock`. Nothing here throws, whatever the bytes are.
 *
 * Reading is on the way of every frame, so it works on typed arrays and local numbers: the bits are copied once to a
 * buffer with zeros behind them, and then read without asking for the end at every value.
 */
import {
  binaryExponentMax,
  bitsExponent,
  blockVersion,
  decimalExponent,
  decimalPlacesMax,
  escapeLength,
  floatFlag,
  meanPredictors,
  packFlag,
  predictorA,
  predictorB,
  reservedPredictor,
  riceMax,
  segmentLength,
  shiftFlag,
  timeFlag
} from "./BlockLayout.ts"
import { type FrameError, frameError, isFrameError } from "./FrameError.ts"
import { protocolLimits } from "./Limits.ts"

/** The samples of one frame, unpacked. */
export interface Block {
  /** Samples, 1 … 4096. */
  readonly count: number
  /** Channels of each sample, 1 … 16. */
  readonly channels: number
  /** Sample after sample: channel `c` of sample `i` is at `i * channels + c`. */
  readonly integers: Int32Array
  /**
   * The E byte of a FLOAT block; undefined when the integers are counts. 0 … 149: the numbers are `k · 2^−E`.
   * 193 … 201: `k / 10^(E−192)`. 255: float32 with the bits `k ^ ((k >> 31) & 0x7fffffff)`.
   */
  readonly exponent: number | undefined
  /** Ticks since the block's start, one a sample, 32-bit two's complement; undefined without TIME. */
  readonly times: Int32Array | undefined
  /** Nominal ticks between two samples, unsigned 32-bit; with `times` only. */
  readonly period: number | undefined
}

const countMax = protocolLimits.samplesPerFrameMax.value
const channelsMax = protocolLimits.channelsMax.value

/** The longest a residual can be: an escape, and its share of a segment's parameter. */
const residualBitsMax = escapeLength + 32 + 2
/** Zeros behind the bits: more than one segment (39 residuals, its parameter) can read past the end. */
const paddingBytes = 320

/** Bits of blocks as large as a message are read here; a larger one gets a buffer of its own. */
const scratch = new DataView(new ArrayBuffer(protocolLimits.messageBytesMax.value + paddingBytes))
/** Residuals of the channel that is being read. */
const residuals = new Int32Array(countMax)

const bad = (forbids: string): FrameError => frameError("BadBlock", `Cannot read the block: ${forbids}`)

/** The byte-aligned fields. */
interface Header {
  readonly flags: number
  readonly count: number
  readonly period: number | undefined
  readonly exponent: number | undefined
  /** Where the bit string begins, in bytes. */
  readonly bits: number
}

const readHeader = (bytes: Uint8Array, channels: number): Header | FrameError => {
  if (!Number.isInteger(channels) || channels < 1 || channels > channelsMax) {
    return bad(`${channels} is no number of channels from 1 to ${channelsMax}`)
  }
  const lead = bytes[0]
  if (lead === undefined) return bad("it is empty")
  if ((lead & 0xf0) !== blockVersion) return bad(`its layout has version ${lead >> 4}, only 1 is known`)

  // LEB128 is bounded by its length, not by being the shortest form: a writer with fixed-width fields does no harm.
  let at = 1
  let count = 0
  for (let shift = 0;; shift += 7) {
    const byte = bytes[at++]
    if (byte === undefined) return bad("it ends in the number of samples")
    count |= (byte & 0x7f) << shift
    if (byte < 0x80) break
    if (shift === 14) return bad("its number of samples is longer than 3 bytes")
  }
  if (count === 0) return bad("it holds no sample")
  if (count > countMax) {
    return frameError("TooLarge", `Cannot read the block: it holds ${count} samples, a frame at most ${countMax}`)
  }

  let period: number | undefined
  if ((lead & timeFlag) !== 0) {
    let ticks = 0
    for (let shift = 0;; shift += 7) {
      const byte = bytes[at++]
      if (byte === undefined) return bad("it ends in the period")
      if (shift === 28 && byte > 0x0f) return bad("its period is longer than 5 bytes or 32 bits")
      ticks |= (byte & 0x7f) << shift
      if (byte < 0x80) break
    }
    period = ticks >>> 0
  }

  let exponent: number | undefined
  if ((lead & floatFlag) !== 0) {
    exponent = bytes[at++]
    if (exponent === undefined) return bad("it ends before the scale of its floats")
    const decimal = exponent > decimalExponent && exponent <= decimalExponent + decimalPlacesMax
    if (exponent > binaryExponentMax && !decimal && exponent !== bitsExponent) {
      return bad(`the scale ${exponent} of its floats is reserved`)
    }
  }
  return { flags: lead & 0x0f, count, period, exponent, bits: at }
}

/** What went wrong while reading bits. 0 is nothing. */
const endsEarly = 1
const predictorReserved = 2
const parameterOutside = 3
const widthOutside = 4

const faults = [
  "",
  "its bits end early",
  `predictor ${reservedPredictor} is reserved`,
  `a Rice parameter is outside -1 … ${riceMax}`,
  "a field is wider than 32 bits"
]

/** No Rice parameter came yet. */
const none = -2

/**
 * Reads one bit string. `fault` says what was wrong; the reader stays within the padding of its buffer whatever the
 * bits are, because it looks for the end before and after each segment and each plain field.
 */
class BitReader {
  readonly #view: DataView
  readonly #end: number
  #at = 0
  /** The Rice parameter the next change refers to. */
  #reference = none
  fault = 0

  constructor(view: DataView, bits: number) {
    this.#view = view
    this.#end = bits
  }

  /** Bits not read yet; negative when more were read than there are. */
  get left(): number {
    return this.#end - this.#at
  }

  /** 32 bits from bit `at` on. */
  #peek(at: number): number {
    const byte = at >>> 3
    const used = at & 7
    return (this.#view.getInt32(byte) << used) | (this.#view.getUint8(byte + 4) >>> (8 - used))
  }

  /** The next `width` bits (0 … 32) as 32-bit two's complement. */
  take(width: number): number {
    if (this.left < width) this.fault = endsEarly
    if (this.fault !== 0 || width === 0) return 0
    const value = this.#peek(this.#at) >>> (32 - width)
    this.#at += width
    return value | 0
  }

  /** The next `width` bits, zigzag: a base value. */
  takeSigned(width: number): number {
    const value = this.take(width)
    return (value >>> 1) ^ -(value & 1)
  }

  /** The time channel's first Rice parameter refers to nothing. */
  forgetReference(): void {
    this.#reference = none
  }

  /** Passes a channel with PACK; with `fields`, `count` integers from `from` on, `step` apart, get their values. */
  takeFields(width: number, base: number, count: number, fields: Int32Array | undefined, from: number, step: number) {
    if (this.left < width * count) this.fault = endsEarly
    if (this.fault !== 0) return
    let at = this.#at
    this.#at += width * count
    if (fields === undefined) return
    for (let i = 0, to = from; i < count; i++, to += step) {
      // A shift by 32 is a shift by 0, so no bits are a case of their own.
      fields[to] = width === 0 ? base : base + (this.#peek(at) >>> (32 - width))
      at += width
    }
  }

  /** Reads `count` residuals of a channel into {@link residuals}. */
  takeResiduals(count: number): void {
    if (count === 0 || this.fault !== 0) return
    const view = this.#view
    const last = Math.max(1, Math.floor(count / segmentLength)) - 1
    let k = this.#reference
    let i = 0
    for (let segment = 0; segment <= last; segment++) {
      if (this.left < 1) {
        this.fault = endsEarly
        return
      }
      k = this.#takeParameter(k)
      if (this.fault !== 0) return
      if (segment === 0) this.#reference = k

      const stop = segment === last ? count : i + segmentLength
      if (k < 0) {
        residuals.fill(0, i, stop)
        i = stop
        continue
      }
      let at = this.#at
      for (; i < stop; i++) {
        // At least 25 of these bits are real, enough for nearly all codes.
        const word = view.getInt32(at >>> 3) << (at & 7)
        const q = Math.clz32(~word)
        let u: number
        if (q + k < escapeLength) {
          u = (q << k) | ((word << (q + 1)) >>> 1 >>> (31 - k))
          at += q + 1 + k
        } else if (q < escapeLength) {
          at += q + 1
          u = (q << k) | (this.#peek(at) >>> 1 >>> (31 - k))
          at += k
        } else {
          u = this.#peek(at + escapeLength)
          at += escapeLength + 32
        }
        residuals[i] = (u >>> 1) ^ -(u & 1)
      }
      this.#at = at
      if (this.left < 0) {
        this.fault = endsEarly
        return
      }
    }
  }

  #takeParameter(reference: number): number {
    if (reference === none) return this.take(5) - 1
    const ones = Math.clz32(~this.#peek(this.#at))
    if (ones > riceMax + 1) {
      this.fault = parameterOutside
      return 0
    }
    this.#at += ones + 1
    const k = ones === 0 ? reference : this.take(1) === 1 ? reference - ones : reference + ones
    if (this.left < 0) this.fault = endsEarly
    else if (k < -1 || k > riceMax) this.fault = parameterOutside
    return k
  }
}

/** A reader of the bits of `bytes` from byte `from` on, with zeros behind them. */
const readerOf = (bytes: Uint8Array, from: number): BitReader => {
  const length = bytes.length - from
  const view = length + paddingBytes <= scratch.byteLength
    ? scratch
    : new DataView(new ArrayBuffer(length + paddingBytes))
  const padded = new Uint8Array(view.buffer)
  padded.set(from === 0 ? bytes : bytes.subarray(from))
  padded.fill(0, length, length + paddingBytes)
  return new BitReader(view, length * 8)
}

/** Reads a channel whose base values have `width` bits; with `out`, its values go there from `from` on, `step` apart. */
const readChannel = (
  reader: BitReader,
  header: Header,
  width: number,
  out: Int32Array | undefined,
  from: number,
  step: number
): void => {
  const { count } = header
  if ((header.flags & packFlag) !== 0) {
    const fieldWidth = reader.take(6)
    if (fieldWidth > 32) reader.fault = widthOutside
    reader.takeFields(fieldWidth, reader.takeSigned(width), count, out, from, step)
    return
  }
  const predictor = reader.take(4)
  if (predictor === reservedPredictor) reader.fault = predictorReserved
  const base = reader.takeSigned(width)
  const differs = predictor >= meanPredictors
  reader.takeResiduals(differs ? count - 1 : count)
  if (out === undefined || reader.fault !== 0) return

  // Both kinds are one recurrence on z: the distance to the base (M) or to the sample before (D).
  const a = predictorA[predictor]!
  const b = predictorB[predictor]!
  let z1 = 0
  let z2 = 0
  let to = from
  if (differs) {
    let y = base
    out[to] = y
    for (let i = 0; i < count - 1; i++) {
      to += step
      const z = (residuals[i]! + ((Math.imul(a, z1) + Math.imul(b, z2) + 32) >> 6)) | 0
      y = (y + z) | 0
      out[to] = y
      z2 = z1
      z1 = z
    }
  } else {
    for (let i = 0; i < count; i++, to += step) {
      const z = (residuals[i]! + ((Math.imul(a, z1) + Math.imul(b, z2) + 32) >> 6)) | 0
      out[to] = base + z
      z2 = z1
      z1 = z
    }
  }
}

/** Reads the bit string; the values are kept where there is an array for them. */
const readBits = (
  bytes: Uint8Array,
  channels: number,
  header: Header,
  integers: Int32Array | undefined,
  times: Int32Array | undefined
): FrameError | undefined => {
  const { count, flags, period } = header
  // Longer than any block of so many samples: it could not be read to its end, so it is not copied either.
  if ((bytes.length - header.bits) * 8 > (channels + 1) * (count + 2) * residualBitsMax) {
    return bad(`${bytes.length} bytes are more than ${count} samples can fill`)
  }
  const reader = readerOf(bytes, header.bits)

  const width = reader.take(5) + 1
  const shift = (flags & shiftFlag) === 0 ? 0 : reader.take(5)
  const lows = new Int32Array(channels)
  if ((flags & shiftFlag) !== 0) {
    for (let c = 0; c < channels; c++) lows[c] = reader.take(1) === 1 ? reader.take(shift) : 0
  }
  for (let c = 0; c < channels; c++) {
    readChannel(reader, header, width, integers, c, channels)
    if (shift === 0 || integers === undefined) continue
    const low = lows[c]!
    for (let i = c; i < integers.length; i += channels) integers[i] = (integers[i]! << shift) | low
  }
  if (period !== undefined) {
    reader.forgetReference()
    readChannel(reader, header, reader.take(5) + 1, times, 0, 1)
    if (times !== undefined) { for (let i = 0; i < count; i++) times[i] = times[i]! + Math.imul(i, period) }
  }

  if (reader.fault !== 0) return bad(faults[reader.fault]!)
  if (reader.left >= 8) return bad(`${reader.left} bits are left behind its last channel`)
  return undefined
}

/**
 * Unpacks a block.
 *
 * @param bytes The whole block and nothing else.
 * @param channels Channels of the session, 1 … 16: the block does not say it.
 * @returns The samples, a copy that is safe to keep. `TooLarge` above 4096 samples. `BadBlock`, naming what was wrong,
 *   for another version, a reserved value, bits that end early, and 8 or more bits left unread. Lengths in LEB128 may be
 *   longer than needed, up to 3 bytes (samples) and 5 bytes (period). A block has no checksum: a damaged one may be
 *   read as other numbers.
 * @see docs/PROTOCOL.md, "The block".
 * @example
 * ```ts
 * import { isFrameError, packCounts, readBlock } from "@thrum/protocol"
 * const bytes = packCounts([1, -2, 16384], 3)
 * if (!isFrameError(bytes)) readBlock(bytes, 3) // { count: 1, channels: 3, integers: Int32Array [1, -2, 16384], … }
 * ```
 */
export const readBlock = (bytes: Uint8Array, channels: number): Block | FrameError => {
  const header = readHeader(bytes, channels)
  if (isFrameError(header)) return header
  const { count, exponent, period } = header
  const integers = new Int32Array(count * channels)
  const times = period === undefined ? undefined : new Int32Array(count)
  const error = readBits(bytes, channels, header, integers, times)
  return error ?? { count, channels, integers, exponent, times, period }
}

/**
 * Proves that {@link readBlock} would read a block, without making its values.
 *
 * @returns The number of samples, or exactly the error of {@link readBlock}.
 */
export const checkBlock = (bytes: Uint8Array, channels: number): number | FrameError => {
  const header = readHeader(bytes, channels)
  if (isFrameError(header)) return header
  return readBits(bytes, channels, header, undefined, undefined) ?? header.count
}
