/**
 * Samples frames as rows of text: position, device time, time, channels.
 *
 * Holds one decoded frame (at most 4096 samples of 16 channels) and makes its rows as they are asked for. Digits go
 * straight into bytes: no object and no row string per sample.
 */
import type { Frame } from "@thrum/core"
import {
  type Description,
  type Epoch,
  isFrameError,
  readBlock,
  readSamples,
  textsOf,
  type ValuesAs
} from "@thrum/protocol"
import { type ByteSink, utf8 } from "./ByteSink.ts"

/** What a format writes around the cells of a row. All of it UTF-8. */
export interface RowLayout {
  readonly beforePosition: string
  readonly beforeDeviceTime: string
  readonly beforeTime: string
  /** Before each channel's cell. */
  readonly beforeValues: ReadonlyArray<string>
  readonly afterRow: string
  /** Between two rows. */
  readonly betweenRows: string
  /** What stands for a cell that has no value. */
  readonly missing: string
  /** Around times, and around numbers that JSON does not know. */
  readonly quote: string
}

/** Names of the columns before the channels. */
export const timeColumns: ReadonlyArray<string> = ["position", "device_time", "time"]

/** Longest text of a number, with its quotes. */
const valueBytesMax = 32
/** Position (10 + 1 + 16), device time (18), time (27), quotes. */
const placeBytesMax = 80

export class DataRows {
  /** Rows written so far. */
  samples = 0
  private readonly sink: ByteSink
  private readonly description: Description
  private readonly as: ValuesAs
  private readonly layout: { readonly [K in keyof Omit<RowLayout, "beforeValues">]: Uint8Array }
  private readonly beforeValues: ReadonlyArray<Uint8Array>
  private readonly rowBytesMax: number
  private epoch: Epoch | undefined
  private epochText = ""
  // The frame that is being written, and how far it is.
  private frame: Frame | undefined
  private count = 0
  private done = 0
  private textAt: (at: number) => string = () => ""
  private times: Int32Array | undefined
  // `2026-01-01T00:00:00.` of the second that was last written.
  private second = Number.NaN
  private secondText = ""

  constructor(sink: ByteSink, layout: RowLayout, description: Description, as: ValuesAs) {
    this.sink = sink
    this.description = description
    this.as = as
    const { beforeValues, ...pieces } = layout
    this.layout = {
      beforePosition: utf8(pieces.beforePosition),
      beforeDeviceTime: utf8(pieces.beforeDeviceTime),
      beforeTime: utf8(pieces.beforeTime),
      afterRow: utf8(pieces.afterRow),
      betweenRows: utf8(pieces.betweenRows),
      missing: utf8(pieces.missing),
      quote: utf8(pieces.quote)
    }
    this.beforeValues = beforeValues.map(utf8)
    const around = [...Object.values(this.layout), ...this.beforeValues].reduce((sum, piece) => sum + piece.length, 0)
    this.rowBytesMax = placeBytesMax + around + beforeValues.length * valueBytesMax
  }

  /** What follows is of this epoch. */
  begin(epoch: Epoch): void {
    this.epoch = epoch
    this.epochText = `${epoch.epoch}:`
  }

  /** Takes the next frame, once {@link write} is through with the last. */
  open(frame: Frame): void {
    const samples = readSamples(frame.bytes)
    const block = isFrameError(samples) ? samples : readBlock(samples.block, this.description.channels.length)
    // It was checked when it came: what cannot be read now is not what was stored.
    if (isFrameError(block)) {
      throw new Error(`Cannot write the frame at ${frame.epoch}:${frame.index}: ${block.message}`)
    }
    this.frame = frame
    this.count = block.count
    this.done = 0
    this.textAt = textsOf(block, this.description.channels, this.as)
    this.times = block.times
  }

  /** Writes rows of the frame until the sink is full (false: take its bytes and come again) or there is none left. */
  write(): boolean {
    const { frame, epoch, sink } = this
    if (frame === undefined || epoch === undefined) return true
    const { rate, tick } = this.description
    while (this.done < this.count) {
      if (sink.isFull) return false
      const i = this.done++
      const index = frame.index + i
      const device = frame.t0 === undefined ?
        undefined :
        frame.t0 + (this.times === undefined ? Math.round(i * 1e6 / rate) : this.times[i]! * tick)
      const time = device === undefined || epoch.t0 === undefined ?
        epoch.wall + Math.round((index - epoch.index) * 1e6 / rate) :
        epoch.wall + device - epoch.t0
      this.row(index, i, device, time)
    }
    this.frame = undefined
    return true
  }

  private row(index: number, i: number, device: number | undefined, time: number): void {
    const { sink, layout, beforeValues } = this
    sink.reserve(this.rowBytesMax)
    if (this.samples++ > 0) sink.put(layout.betweenRows)
    sink.put(layout.beforePosition)
    sink.ascii(this.epochText)
    sink.integer(index)
    sink.put(layout.beforeDeviceTime)
    if (device === undefined) sink.put(layout.missing)
    else sink.integer(device)
    sink.put(layout.beforeTime)
    this.time(time)
    for (let c = 0, at = i * beforeValues.length; c < beforeValues.length; c++, at++) {
      sink.put(beforeValues[c]!)
      const text = this.textAt(at)
      // Every other number ends in a digit.
      if (text.charCodeAt(text.length - 1) <= 0x39) sink.ascii(text)
      else {
        sink.put(layout.quote)
        sink.ascii(text)
        sink.put(layout.quote)
      }
    }
    sink.put(layout.afterRow)
  }

  /** @param micros Since 1970. Past 2^53 (the year 2255) single µs cannot be told apart any more. */
  private time(micros: number): void {
    const { sink, layout } = this
    if (!Number.isSafeInteger(micros)) {
      sink.put(layout.missing)
      return
    }
    const second = Math.floor(micros / 1e6)
    if (second !== this.second) {
      this.second = second
      this.secondText = new Date(second * 1000).toISOString().slice(0, 20)
    }
    sink.put(layout.quote)
    sink.ascii(this.secondText)
    sink.padded(micros - second * 1e6, 6)
    sink.ascii("Z")
    sink.put(layout.quote)
  }
}
