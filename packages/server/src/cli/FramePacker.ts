/**
 * Makes samples frames of a recording's rows.
 *
 * A frame holds at most `frameSamples` rows. It ends earlier where the time jumps, where one block cannot hold what
 * comes next exactly, and when {@link FramePacker.flush} says so. Its numbers are the file's: integers go as counts,
 * decimals as the float32 they are the shortest text of, or as decimals. What neither can hold exactly is an error that
 * names line, column and text.
 *
 * Times: t0 counts µs from the recording's first row. Samples that follow each other at the nominal rate, give or take
 * one tick, need no more; others get a time each, in the session's ticks.
 *
 * Bound: the rows of one frame.
 */
import type { DeviceFrame } from "@thrum/client"
import {
  type Channel,
  encodeSamples,
  floatText,
  type FrameError,
  frameError,
  isFrameError,
  packCounts,
  packFloats,
  type PackOptions,
  protocolLimits,
  readBlock,
  textsOf
} from "@thrum/protocol"
import { CommandError } from "./CommandError.ts"
import type { Row } from "./RecordingReader.ts"

export interface PackerSettings {
  readonly channels: ReadonlyArray<string>
  /** Samples of a frame at most. */
  readonly frameSamples: number
  /** Nominal rate in Hz. */
  readonly rate: number
  /** µs of one tick of the times. */
  readonly tick: number
  /** µs of one unit of the time column; undefined without one. */
  readonly timeUnit: number | undefined
  /** The cells are counts that the session scales: others than integers are errors. */
  readonly countsOnly: boolean
  /** Decimals are rounded to float32, instead of refused where that is not exact. */
  readonly isRounding: boolean
}

/** Jumps of more than so many periods end a frame whose times were regular so far. */
const jumpPeriods = 1.5
/** And of more than so many any frame. */
const breakPeriods = 10

export class FramePacker {
  /** Index of the next row. */
  index = 0
  /** Times that have more digits than the tick can hold. */
  roundedTimes = 0
  private readonly settings: PackerSettings
  private readonly period: number
  private readonly timePlacesMax: number
  /** The time of the recording's first row. */
  private origin: number | undefined
  private rows: Array<Row> = []
  /** µs since the first row, one a row of the frame. */
  private micros: Array<number> = []
  private isRegular = true

  constructor(settings: PackerSettings) {
    this.settings = settings
    this.period = 1e6 / settings.rate
    this.timePlacesMax = Math.round(Math.log10((settings.timeUnit ?? 1) / settings.tick))
  }

  /** µs of one tick of the times. */
  get tick(): number {
    return this.settings.tick
  }

  /** Rows that wait for their frame to be full. */
  get pending(): number {
    return this.rows.length
  }

  /**
   * Takes the next row.
   *
   * @returns The frames that are full now: mostly none, sometimes one, more where one block could not hold it all.
   * @throws {@link CommandError} naming line and column of what cannot be sent exactly.
   */
  add(row: Row): ReadonlyArray<DeviceFrame> {
    const micros = this.microsOf(row)
    const frames = micros !== undefined && this.isJump(micros) ? this.flush() : []
    this.rows.push(row)
    this.index++
    if (micros !== undefined) {
      this.micros.push(micros)
      const nominal = this.micros[0]! + (this.rows.length - 1) * this.period
      if (Math.abs(micros - nominal) > this.settings.tick) this.isRegular = false
    }
    return this.rows.length < this.settings.frameSamples ? frames : [...frames, ...this.flush()]
  }

  /** Ends the frame here. */
  flush(): ReadonlyArray<DeviceFrame> {
    const { rows, micros } = this
    const first = this.index - rows.length
    const frames = rows.length === 0 ? [] : this.pack(rows, micros, first, this.isRegular)
    this.rows = []
    this.micros = []
    this.isRegular = true
    return frames
  }

  private microsOf(row: Row): number | undefined {
    const { timeUnit } = this.settings
    if (row.time === undefined || timeUnit === undefined) return undefined
    this.origin ??= row.time
    if (row.timePlaces > this.timePlacesMax) this.roundedTimes++
    const micros = Math.round((row.time - this.origin) * timeUnit)
    if (micros < 0) {
      throw new CommandError(
        `Cannot send line ${row.line}: its time ${row.time} lies before the first row's, ${this.origin}`
      )
    }
    if (!Number.isSafeInteger(micros)) {
      throw new CommandError(
        `Cannot send line ${row.line}: its time ${row.time} is too far from the first row's, ${this.origin}`
      )
    }
    return micros
  }

  private isJump(micros: number): boolean {
    const last = this.micros.at(-1)
    if (last === undefined) return false
    const step = Math.abs(micros - last)
    const allowed = (this.isRegular ? jumpPeriods : breakPeriods) * this.period
    return step > Math.max(allowed, 2 * this.settings.tick)
  }

  private pack(
    rows: ReadonlyArray<Row>,
    micros: ReadonlyArray<number>,
    index: number,
    isRegular: boolean
  ): ReadonlyArray<DeviceFrame> {
    const block = this.blockOf(rows, isRegular ? {} : this.timesOf(micros))
    if (!isFrameError(block)) {
      const bytes = encodeSamples(index, micros[0], block)
      if (bytes.length <= protocolLimits.messageBytesMax.value) return [{ index, next: index + rows.length, bytes }]
    }
    if (rows.length === 1) throw this.refusal(rows[0]!)
    // One form for all values of a block: halves may find one each.
    const half = rows.length >> 1
    return [
      ...this.pack(rows.slice(0, half), micros.slice(0, half), index, isRegular),
      ...this.pack(rows.slice(half), micros.slice(half), index + half, isRegular)
    ]
  }

  private timesOf(micros: ReadonlyArray<number>): PackOptions {
    const { tick } = this.settings
    const from = micros[0]!
    return {
      times: micros.map((time) => Math.round((time - from) / tick)),
      period: Math.max(1, Math.round(this.period / tick))
    }
  }

  private blockOf(rows: ReadonlyArray<Row>, options: PackOptions): Uint8Array | FrameError {
    const { channels, countsOnly } = this.settings
    const values = rows.flatMap((row) => row.values)
    if (rows.every((row) => row.isInteger)) {
      for (const row of rows) this.checkIntegers(row)
      return packCounts(values, channels.length, options)
    }
    const fraction = countsOnly ? rows.find((row) => !row.isInteger) : undefined
    if (fraction !== undefined) throw this.notACount(fraction)
    if (this.settings.isRounding || values.every(isShortestSingle)) {
      return packFloats(Float32Array.from(values), channels.length, options)
    }
    const block = packFloats(values, channels.length, options)
    return isFrameError(block) || keepsTexts(block, values, channels.length) ? block : textLost
  }

  private checkIntegers(row: Row): void {
    const c = row.values.findIndex((value) => (value | 0) !== value)
    if (c >= 0) throw this.error(row, c, "an integer beyond 32 bits")
  }

  private notACount(row: Row): CommandError {
    const c = row.texts.findIndex((text) => !/^[+-]?\d+$/.test(text) || Object.is(Number(text), -0))
    return this.error(row, c, "not an integer, and a scale is for integers alone")
  }

  /** Why a row fits no block even on its own. */
  private refusal(row: Row): CommandError {
    const c = row.values.findIndex((value) =>
      !isShortestSingle(value) && (Math.fround(value) === value || isFrameError(packFloats([value], 1)))
    )
    return c >= 0 ?
      this.error(row, c, `neither the text of a float32 nor a decimal of at most 9 places and 31 bits; ${remedy}`) :
      new CommandError(
        `Cannot send line ${row.line}: no scale holds ${row.texts.join(", ")} together exactly; ${remedy}`
      )
  }

  private error(row: Row, channel: number, forbids: string): CommandError {
    const [name, text] = [this.settings.channels[channel], row.texts[channel]]
    return new CommandError(`Cannot send line ${row.line}: the column "${name}" holds ${text}, ${forbids}`)
  }
}

const remedy = "--float32 takes the nearest float32"

const textLost = frameError(
  "BadBlock",
  "Cannot pack the samples: they would be read as other decimals of the same float32"
)

/** Whether readers get the numbers as they were written. A float32 is written in its shortest form, whatever came in. */
const keepsTexts = (bytes: Uint8Array, values: ReadonlyArray<number>, channels: number): boolean => {
  const block = readBlock(bytes, channels)
  if (isFrameError(block)) return false
  const text = textsOf(block, Array.from({ length: channels }, () => plain))
  return values.every((value, at) => Object.is(Number(text(at)), value))
}
const plain: Channel = { name: "", unit: "", scale: 1, offset: 0 }

/** Whether float32 keeps the number: the shortest text of the nearest float32 reads as it. */
const isShortestSingle = (value: number): boolean => Object.is(Number(floatText(value)), value)
