/**
 * Makes samples frames of a device's samples.
 *
 * A frame holds at most `blockSamples` samples. It ends earlier where the kind of numbers changes, where the time jumps,
 * where one block cannot hold what comes next exactly, and when {@link Packer.flush} says so. Numbers are what was given:
 * integers of typed arrays are counts; a float32 stays itself; a float64 must be a float32 or a decimal that a block can
 * hold, or is refused when it is given.
 *
 * Times: samples that follow each other at the nominal rate, give or take one tick, need no more than the frame's t0;
 * others get a time each.
 *
 * Bound: the samples of one frame.
 */
import {
  encodeSamples,
  type FrameError,
  indexMax,
  isFrameError,
  packCounts,
  packFloats,
  type PackOptions,
  protocolLimits
} from "@thrum/protocol"
import type { DeviceFrame } from "./Retention.ts"
import { ownError, type ThrumError } from "./ThrumError.ts"

/**
 * Samples, one after the other: channel `c` of sample `i` is at `i * channels + c`. Typed arrays of integers hold counts,
 * a `Float32Array` values in the channels' units; what plain numbers and a `Float64Array` hold, the device is told.
 */
export type SamplesArray =
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Float32Array
  | Float64Array
  | ReadonlyArray<number>

/** When samples were taken, by the device's clock: µs since any zero at or before its start, for the whole boot id. */
export interface Taken {
  /** Of the first; the others follow at the nominal rate. */
  readonly time?: number | undefined
  /** Of each. */
  readonly times?: ArrayLike<number> | undefined
}

export interface PackerSettings {
  readonly channels: number
  /** Nominal rate in Hz. */
  readonly rate: number
  /** µs of one tick of the times. */
  readonly tick: number
  /** Samples of a frame at most. */
  readonly blockSamples: number
  /** What plain numbers and float64 hold: counts, or values in the unit. */
  readonly values: "unit" | "counts"
  /** Values in the unit are rounded to float32, instead of refused where a block cannot hold them exactly. */
  readonly float32: boolean
}

type Kind = "counts" | "single" | "double"

/** Jumps of more than so many periods end a frame whose times were regular so far. */
const jumpPeriods = 1.5
/** And of more than so many any frame. */
const breakPeriods = 10
/** Ticks that a time within a block may be away from its start. */
const ticksMax = 2 ** 31 - 1

export class Packer {
  /** Index of the next sample. */
  index: number
  private readonly settings: PackerSettings
  private readonly period: number
  private readonly onFrame: (frame: DeviceFrame) => void
  private readonly values: Float64Array
  /** µs, one a sample of the frame. */
  private readonly micros: Float64Array
  private count = 0
  private kind: Kind = "counts"
  private isTimed = false
  private isRegular = true

  constructor(settings: PackerSettings, index: number, onFrame: (frame: DeviceFrame) => void) {
    this.settings = settings
    this.index = index
    this.onFrame = onFrame
    this.period = 1e6 / settings.rate
    this.values = new Float64Array(settings.blockSamples * settings.channels)
    this.micros = new Float64Array(settings.blockSamples)
  }

  /** Samples that wait for their frame to be full. */
  get pending(): number {
    return this.count
  }

  /**
   * Takes samples, all or none of them.
   *
   * @returns How many.
   * @throws {@link ThrumError} `BadSamples` naming the value that cannot be sent exactly.
   */
  push(samples: SamplesArray, taken: Taken = {}): number {
    const { blockSamples, channels } = this.settings
    const kind = this.kindOf(samples)
    const count = this.check(samples, kind, taken)
    const isTimed = taken.time !== undefined || taken.times !== undefined
    if (kind !== this.kind || isTimed !== this.isTimed) this.flush()
    this.kind = kind
    this.isTimed = isTimed
    for (let i = 0; i < count; i++) {
      if (isTimed) this.addTime(taken.times?.[i] ?? taken.time! + i * this.period)
      for (let c = 0; c < channels; c++) this.values[this.count * channels + c] = samples[i * channels + c]!
      this.index++
      if (++this.count === blockSamples) this.flush()
    }
    return count
  }

  /** Ends the frame here. */
  flush(): void {
    const { count, values } = this
    if (count === 0) return
    this.count = 0
    const isRegular = this.isRegular
    this.isRegular = true
    this.pack(values.subarray(0, count * this.settings.channels), 0, count, isRegular)
  }

  /** `count` instants pass of which there is no sample. */
  skip(count: number): void {
    this.flush()
    this.index += count
  }

  /** What frames of so many more samples take at most, bytes, when nothing but their number ends one. */
  bytesMax(samples: number): number {
    const { blockSamples, channels } = this.settings
    const all = this.count + samples
    return Math.ceil(all / blockSamples) * (64 + 7 * channels) + all * 4 * (channels + 1)
  }

  private kindOf(samples: SamplesArray): Kind {
    const { float32, values } = this.settings
    if (samples instanceof Float32Array) return "single"
    if (!(samples instanceof Float64Array) && !Array.isArray(samples)) return "counts"
    return values === "counts" ? "counts" : float32 ? "single" : "double"
  }

  private check(samples: SamplesArray, kind: Kind, { time, times }: Taken): number {
    const { channels } = this.settings
    const count = samples.length / channels
    if (!Number.isInteger(count)) {
      throw refused(`${samples.length} values are no whole number of samples of ${channels} channels`)
    }
    if (this.index + count > indexMax) throw refused(`their indexes would go beyond ${indexMax}`)
    if (times !== undefined && times.length !== count) {
      throw refused(`${count} samples came with ${times.length} times`)
    }
    for (let i = 0; i < (times?.length ?? 1); i++) {
      const micros = times?.[i] ?? time ?? 0
      if (!(micros >= 0 && micros + count * this.period <= Number.MAX_SAFE_INTEGER)) {
        throw refused(`the time ${micros} is no number of µs since the device's start`)
      }
    }
    for (let i = 0; i < samples.length; i++) {
      const value = samples[i]!
      if (kind === "counts") {
        if ((value | 0) !== value) throw refused(`${value} is not an integer of 32 bits`)
      } else if (kind === "single") {
        if (Number.isFinite(value) && !Number.isFinite(Math.fround(value))) {
          throw refused(`${value} is beyond the range of float32`)
        }
      } else if (!isSingle(value)) {
        const first = i - i % channels
        const block = packFloats(Array.from({ length: channels }, (_, c) => samples[first + c]!), channels)
        if (isFrameError(block)) throw refused(`${lowerFirst(block.message)}; float32 takes the nearest ones`)
        i = first + channels - 1
      }
    }
    return count
  }

  private addTime(at: number): void {
    const { tick } = this.settings
    const micros = Math.round(at)
    if (this.count > 0) {
      const step = Math.abs(micros - this.micros[this.count - 1]!)
      const allowed = (this.isRegular ? jumpPeriods : breakPeriods) * this.period
      const isFar = Math.abs(micros - this.micros[0]!) / tick >= ticksMax
      if (step > Math.max(allowed, 2 * tick) || isFar) this.flush()
    }
    this.micros[this.count] = micros
    const nominal = this.micros[0]! + this.count * this.period
    if (Math.abs(micros - nominal) > tick) this.isRegular = false
  }

  /** Hands on samples `from` … `to` of the frame, in as many frames as it takes. */
  private pack(values: Float64Array, from: number, to: number, isRegular: boolean): void {
    const { channels } = this.settings
    // Where a flush comes from, all of its samples are counted already.
    const index = this.index - values.length / channels + from
    const options: PackOptions = !this.isTimed || isRegular ? {} : this.timesOf(from, to)
    const block = this.blockOf(values.subarray(from * channels, to * channels), options)
    if (!isFrameError(block)) {
      const bytes = encodeSamples(index, this.isTimed ? this.micros[from]! : undefined, block)
      if (bytes.length <= protocolLimits.messageBytesMax.value) {
        return this.onFrame({ index, next: index + to - from, bytes })
      }
    }
    // A sample on its own fits, that was seen when it came.
    if (to - from === 1) throw new Error(isFrameError(block) ? block.message : "one sample is larger than a message")
    // One form for all values of a block: halves may find one each.
    const half = (from + to) >> 1
    this.pack(values, from, half, isRegular)
    this.pack(values, half, to, isRegular)
  }

  private timesOf(from: number, to: number): PackOptions {
    const { tick } = this.settings
    const first = this.micros[from]!
    return {
      times: Array.from({ length: to - from }, (_, i) => Math.round((this.micros[from + i]! - first) / tick)),
      period: Math.min(2 ** 32 - 1, Math.max(1, Math.round(this.period / tick)))
    }
  }

  private blockOf(values: Float64Array, options: PackOptions): Uint8Array | FrameError {
    const { channels } = this.settings
    return this.kind === "counts" ?
      packCounts(Int32Array.from(values), channels, options) :
      packFloats(this.kind === "single" ? Float32Array.from(values) : values, channels, options)
  }
}

const refused = (why: string): ThrumError => ownError("BadSamples", `Cannot take the samples: ${why}`)
const lowerFirst = (text: string): string => text.charAt(0).toLowerCase() + text.slice(1)

/** Whether float32 holds `v` as it is: NaN and both zeros too. */
const isSingle = (v: number): boolean => Object.is(Math.fround(v), v)
