/**
 * A WAV file of the device's counts: what ears and audio editors read.
 *
 * Only for recordings that a WAV file can hold without a lie: sealed, one epoch without a gap, counts in every frame, a
 * rate that is a whole number of samples a second to a thousandth, at most 4 GiB. The recording is read twice: once for
 * whether it is one and for its largest count, once to be written. Times of the device are not in it.
 */
import type { SessionRecord } from "@thrum/core"
import { kinds } from "@thrum/protocol"
import { Effect, Stream } from "effect"
import { type ByteSink, release, utf8 } from "../ByteSink.ts"
import { pickedOf } from "../PickedFrame.ts"
import { type Problem, problem } from "../Problem.ts"
import { recordedOf } from "../SessionHandlers.ts"
import { blockOf } from "./Columns.ts"
import type { DataFormat, Recording } from "./Format.ts"
import { type Survey, surveyOf } from "./Survey.ts"

/** How far the nearest whole rate may be, in parts of the rate. */
const rateTolerance = 0.001
/** Sizes are 32 bits. */
const bytesMax = 2 ** 32 - 1

const pcm = 1
const extensible = 0xfffe
/** The sub-format that says PCM once more, after the number 1 in 2 bytes. */
const pcmGuidRest = Uint8Array.of(0x00, 0x00, 0x00, 0x00, 0x10, 0x00, 0x80, 0x00, 0x00, 0xaa, 0x00, 0x38, 0x9b, 0x71)

/** Bytes of the smallest PCM that holds the counts. */
const bytesFor = ({ min, max }: Pick<Survey, "min" | "max">): number => {
  for (const bytes of [1, 2, 3]) if (min >= -(2 ** (8 * bytes - 1)) && max < 2 ** (8 * bytes - 1)) return bytes
  return 4
}

const unfit = (why: string): Problem<"format-unfit"> =>
  problem("format-unfit", `Cannot write the recording as WAV: ${why}`)

/** A chunk of RIFF: name, size, content, and a zero where the size is odd. */
const chunk = (name: string, content: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(8 + content.length + content.length % 2)
  bytes.set(utf8(name))
  new DataView(bytes.buffer).setUint32(4, content.length, true)
  bytes.set(content, 8)
  return bytes
}

const joined = (pieces: ReadonlyArray<Uint8Array>): Uint8Array => new Uint8Array(Buffer.concat(pieces))

/** What the samples are, for who knows RIFF, and in full as JSON in the comment. */
const infoOf = (record: SessionRecord): Uint8Array => {
  const { name, sensor } = record.description
  const text = (tag: string, value: string): Uint8Array => chunk(tag, utf8(`${value}\0`))
  return chunk(
    "LIST",
    joined([
      utf8("INFO"),
      ...(name === undefined ? [] : [text("INAM", name)]),
      ...(sensor === undefined ? [] : [text("ISRC", sensor)]),
      text("ICRD", new Date(record.createdAt).toISOString().slice(0, 10)),
      text("ISFT", "Thrum"),
      text("ICMT", JSON.stringify(recordedOf(record)))
    ])
  )
}

/** Everything before the samples. */
const headOf = (record: SessionRecord, rate: number, width: number, dataBytes: number): Uint8Array => {
  const channels = record.description.channels.length
  // Plain PCM says neither which bits of a sample count nor where more than two channels belong.
  const isExtensible = channels > 2 || width > 2
  const format = new DataView(new ArrayBuffer(isExtensible ? 40 : 16))
  format.setUint16(0, isExtensible ? extensible : pcm, true)
  format.setUint16(2, channels, true)
  format.setUint32(4, rate, true)
  format.setUint32(8, rate * channels * width, true)
  format.setUint16(12, channels * width, true)
  format.setUint16(14, 8 * width, true)
  if (isExtensible) {
    format.setUint16(16, 22, true)
    format.setUint16(18, 8 * width, true)
    // No loudspeaker: the channels are axes.
    format.setUint32(20, 0, true)
    format.setUint16(24, pcm, true)
    new Uint8Array(format.buffer).set(pcmGuidRest, 26)
  }
  const chunks = joined([chunk("fmt ", new Uint8Array(format.buffer)), infoOf(record)])
  const head = new DataView(new ArrayBuffer(12 + chunks.length + 8))
  const bytes = new Uint8Array(head.buffer)
  bytes.set(utf8("RIFF"))
  head.setUint32(4, 4 + chunks.length + 8 + dataBytes + dataBytes % 2, true)
  bytes.set(utf8("WAVE"), 8)
  bytes.set(chunks, 12)
  bytes.set(utf8("data"), 12 + chunks.length)
  head.setUint32(16 + chunks.length, dataBytes, true)
  return bytes
}

/** Writes the counts of a frame, sample after sample. Yields whenever the sink is full. */
const writeCounts = function*(
  sink: ByteSink,
  integers: Int32Array,
  from: number,
  to: number,
  width: number
): Generator<void> {
  // 8 bits are the only ones without a sign.
  const zero = width === 1 ? 128 : 0
  for (let at = from; at < to; at++) {
    sink.reserve(width)
    sink.little(integers[at]! + zero, width)
    if (sink.isFull) yield
  }
}

export const wav: DataFormat = {
  name: "wav",
  mediaType: "audio/wav",
  contentType: "audio/wav",
  extension: "wav",
  sealedOnly: "a WAV file says its length at its beginning",
  isCompressible: false,
  open: Effect.fnUntraced(function*(recording: Recording) {
    const { record } = recording
    const { rate, channels } = record.description
    const whole = Math.round(rate)
    if (whole < 1 || Math.abs(whole - rate) > rate * rateTolerance) {
      return yield* Effect.fail(unfit(`its rate of ${rate} Hz is no whole number of samples a second`))
    }
    const survey = yield* surveyOf(recording, ({ isCounts, broken }) => !isCounts || broken !== undefined)
    if (!survey.isCounts) return yield* Effect.fail(unfit("it holds floats, WAV is for counts"))
    if (survey.broken !== undefined) {
      return yield* Effect.fail(unfit(`the sample at ${survey.broken} does not follow the one before it`))
    }
    const width = bytesFor(survey)
    const dataBytes = survey.samples * channels.length * width
    const head = headOf(record, whole, width, dataBytes)
    const contentLength = head.length + dataBytes + dataBytes % 2
    if (contentLength - 8 > bytesMax) {
      return yield* Effect.fail(unfit(`its ${dataBytes} bytes of samples are more than the format's 4 GiB`))
    }
    return {
      contentLength,
      writer: (sink) => ({
        head: () => sink.copy(head),
        event: function*(event): Iterable<void> {
          if (event.kind !== kinds.samples) return
          const { integers, count } = blockOf(event, channels.length)
          // What is picked of a frame is one piece: the survey saw to that.
          const picked = pickedOf(event)
          const first = picked?.[0] ?? 0
          const end = first + (picked?.length ?? count)
          yield* writeCounts(sink, integers, first * channels.length, end * channels.length, width)
          release(integers)
        },
        tail: () => dataBytes % 2 === 0 ? Stream.empty : Stream.sync(() => sink.text("\0"))
      })
    }
  })
}
