/**
 * Samples frames as rows of text: position, device time, time, channels.
 *
 * Holds one decoded frame (at most 4096 samples of 16 channels) and makes its rows as they are asked for. Digits go
 * straight into bytes: no object and no row string per sample.
 */
import type { Frame } from "@thrum/core"
import {
  type Block,
  type Channel,
  type Description,
  type Epoch,
  isFrameError,
  readBlock,
  readSamples,
  textsOf,
  type ValuesAs
} from "@thrum/protocol"
import { type ByteSink, release, utf8 } from "./ByteSink.ts"
import { pickedOf } from "./PickedFrame.ts"
import { deviceTimeOf, wallTimeOf } from "./SampleTime.ts"

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

/** Texts remembered per channel, by the lowest bits of their count: at most 0.2 MB each. */
const knownTexts = 2048
interface KnownTexts {
  readonly counts: Int32Array
  readonly texts: Array<string | undefined>
}

/** Digits after the point of the numbers of a block, when its integers are their digits; undefined when they are not. */
const placesOf = (
  { exponent }: Block,
  channels: ReadonlyArray<Channel>,
  as: ValuesAs
): number | undefined => {
  if (exponent !== undefined) return exponent > 192 && exponent <= 201 ? exponent - 192 : undefined
  return as === "counts" || channels.every(({ scale, offset }) => scale === 1 && offset === 0) ? 0 : undefined
}

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
  private picked: Int32Array | undefined
  private integers: Int32Array = new Int32Array(0)
  /** Digits after the point of every number of the frame: then they are written without a text each. */
  private places: number | undefined
  private textAt: (at: number) => string = () => ""
  /** For counts that are scaled: the last texts of each channel. */
  private readonly known: ReadonlyArray<KnownTexts>
  private isKnown = false
  private times: Int32Array | undefined
  // `2026-01-01T00:00:00.` of the second that was last written.
  private second = Number.NaN
  private secondText: Uint8Array = new Uint8Array(0)

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
    this.known = beforeValues.map(() => ({ counts: new Int32Array(knownTexts), texts: [] }))
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
    this.picked = pickedOf(frame)
    this.count = this.picked?.length ?? block.count
    this.done = 0
    const { channels } = this.description
    release(this.integers)
    this.integers = block.integers
    this.places = placesOf(block, channels, this.as)
    this.isKnown = block.exponent === undefined
    this.textAt = textsOf(block, channels, this.as)
    this.times = block.times
  }

  /** Writes rows of the frame until the sink is full (false: take its bytes and come again) or there is none left. */
  write(): boolean {
    const { frame, epoch, sink } = this
    if (frame === undefined || epoch === undefined) return true
    while (this.done < this.count) {
      if (sink.isFull) return false
      const row = this.done++
      const i = this.picked === undefined ? row : this.picked[row]!
      const index = frame.index + i
      const device = deviceTimeOf(frame, i, this.times, this.description)
      const time = wallTimeOf(index, device, epoch, this.description.rate)
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
      if (this.places !== undefined) {
        sink.decimal(this.integers[at]!, this.places)
        continue
      }
      const text = this.isKnown ? this.knownText(c, at) : this.textAt(at)
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

  /** The text of a count that is scaled. Sensors repeat themselves: looking is quicker than writing a double. */
  private knownText(c: number, at: number): string {
    const { counts, texts } = this.known[c]!
    const count = this.integers[at]!
    const slot = count & (knownTexts - 1)
    const known = texts[slot]
    if (known !== undefined && counts[slot] === count) return known
    const text = this.textAt(at)
    counts[slot] = count
    texts[slot] = text
    return text
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
      this.secondText = utf8(new Date(second * 1000).toISOString().slice(0, 20))
    }
    sink.put(layout.quote)
    sink.put(this.secondText)
    sink.padded(micros - second * 1e6, 6)
    sink.ascii("Z")
    sink.put(layout.quote)
  }
}
