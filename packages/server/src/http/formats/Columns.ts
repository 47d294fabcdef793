/**
 * Samples as typed columns, for the binary formats: epoch, index, device time, time, channels.
 *
 * Holds as many rows as it was made for, 28 bytes each and 8 (4 for counts) per channel, and is filled again when they
 * were written. Whole numbers of 64 bits are put together of two halves: a BigInt per value would be garbage.
 */
import type { Frame } from "@thrum/core"
import {
  type Block,
  type Description,
  type Epoch,
  isFrameError,
  kinds,
  readBlock,
  readSamples,
  type ValuesAs,
  writtenNumbersOf
} from "@thrum/protocol"
import { release } from "../ByteSink.ts"
import { countOf, pickedOf } from "../PickedFrame.ts"
import { deviceTimeOf, wallTimeOf } from "../SampleTime.ts"
import type { Writer } from "./Format.ts"

/** The block of a frame that the archive gave. */
export const blockOf = (frame: Frame, channels: number): Block => {
  const samples = readSamples(frame.bytes)
  const block = isFrameError(samples) ? samples : readBlock(samples.block, channels)
  // It was checked when it came: what cannot be read now is not what was stored.
  if (isFrameError(block)) {
    throw new Error(`Cannot write the frame at ${frame.epoch}:${frame.index}: ${block.message}`)
  }
  return block
}

/** Whole numbers of 64 bits, or nothing. */
export class LongColumn {
  readonly values: BigInt64Array<ArrayBuffer>
  /** 1 where there is a value. */
  readonly present: Uint8Array<ArrayBuffer>
  /** Rows without a value since the column was emptied. */
  missing = 0
  /** Smallest and largest since then; infinities while there is none. */
  min: number = Number.POSITIVE_INFINITY
  max: number = Number.NEGATIVE_INFINITY
  private readonly halves: Int32Array<ArrayBuffer>

  constructor(rows: number) {
    this.values = new BigInt64Array(rows)
    this.halves = new Int32Array(this.values.buffer)
    this.present = new Uint8Array(rows)
  }

  /** @param value A whole number below 2^63 in magnitude; undefined for none. */
  set(row: number, value: number | undefined): void {
    this.present[row] = value === undefined ? 0 : 1
    const whole = value ?? 0
    if (value === undefined) this.missing++
    else {
      if (whole < this.min) this.min = whole
      if (whole > this.max) this.max = whole
    }
    // Little-endian, as every format wants it and every machine that runs this has it. The lower half is what an
    // Int32Array keeps of any number.
    this.halves[2 * row] = whole
    this.halves[2 * row + 1] = Math.floor(whole / 4_294_967_296)
  }

  /** Forgets what was set. */
  empty(): void {
    this.missing = 0
    this.min = Number.POSITIVE_INFINITY
    this.max = Number.NEGATIVE_INFINITY
  }
}

/** Numbers of a channel. */
export type Numbers = Float64Array<ArrayBuffer> | Int32Array<ArrayBuffer>

/** Rows taken before the event loop has its turn: about a millisecond of work. */
const rowsPerTurn = 4096

/** Takes events into columns. `flush` writes and empties them when they are full. */
export const columnWriter = (columns: Columns, flush: () => Iterable<void>): Writer["event"] => {
  let taken = 0
  return function*(event): Iterable<void> {
    if (event.kind === kinds.epoch) return columns.begin(event)
    if (event.kind !== kinds.samples) return
    columns.open(event)
    while (!columns.fill()) yield* flush()
    taken += countOf(event)
    if (taken < rowsPerTurn) return
    taken = 0
    yield
  }
}

/** Names of the columns before the channels. */
export const placeColumns = ["epoch", "index", "device_time", "time"] as const

export class Columns {
  readonly epoch: Int32Array<ArrayBuffer>
  readonly index: LongColumn
  /** µs since the device's boot. */
  readonly deviceTime: LongColumn
  /** µs since 1970. */
  readonly time: LongColumn
  readonly channels: ReadonlyArray<Numbers>
  /** Rows filled. */
  rows = 0
  readonly rowsMax: number
  private readonly description: Description
  private readonly as: ValuesAs
  private start: Epoch | undefined
  // The frame that is being taken, and how far it is.
  private frame: Frame | undefined
  private picked: Int32Array | undefined
  private times: Int32Array | undefined
  private numbers: Float64Array | Int32Array = new Int32Array(0)
  private count = 0
  private done = 0

  /** @param integers Whether the channels are counts in every frame: then they are 32-bit integers. */
  constructor(rowsMax: number, description: Description, as: ValuesAs, integers: boolean) {
    this.rowsMax = rowsMax
    this.description = description
    this.as = as
    this.epoch = new Int32Array(rowsMax)
    this.index = new LongColumn(rowsMax)
    this.deviceTime = new LongColumn(rowsMax)
    this.time = new LongColumn(rowsMax)
    this.channels = description.channels.map(() => integers ? new Int32Array(rowsMax) : new Float64Array(rowsMax))
  }

  get isFull(): boolean {
    return this.rows === this.rowsMax
  }

  /** Makes room again: what was filled is written. */
  empty(): void {
    this.rows = 0
    for (const column of [this.index, this.deviceTime, this.time]) column.empty()
  }

  /** What follows is of this epoch. */
  begin(epoch: Epoch): void {
    this.start = epoch
  }

  /** Takes the next frame, once {@link fill} is through with the last. */
  open(frame: Frame): void {
    const { channels } = this.description
    const block = blockOf(frame, channels.length)
    this.frame = frame
    this.picked = pickedOf(frame)
    this.count = this.picked?.length ?? block.count
    this.done = 0
    this.times = block.times
    if (block.exponent === undefined && this.as === "counts") this.numbers = block.integers
    else {
      this.numbers = writtenNumbersOf(block, channels, this.as)
      release(block.integers)
    }
  }

  /** Fills rows until they are full (false: write and empty them, and come again) or the frame is done. */
  fill(): boolean {
    const { frame, start, picked, description, channels, numbers } = this
    if (frame === undefined || start === undefined) return true
    while (this.done < this.count) {
      if (this.rows === this.rowsMax) return false
      const row = this.rows++
      const nth = this.done++
      const i = picked === undefined ? nth : picked[nth]!
      const index = frame.index + i
      const device = deviceTimeOf(frame, i, this.times, description)
      const time = wallTimeOf(index, device, start, description.rate)
      this.epoch[row] = frame.epoch
      this.index.set(row, index)
      this.deviceTime.set(row, device)
      // Past 2^53 (the year 2255) single µs cannot be told apart any more.
      this.time.set(row, Number.isSafeInteger(time) ? time : undefined)
      for (let c = 0, at = i * channels.length; c < channels.length; c++, at++) channels[c]![row] = numbers[at]!
    }
    this.frame = undefined
    release(numbers)
    return true
  }
}
