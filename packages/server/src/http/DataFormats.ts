/**
 * The formats of a recording: how its events become bytes.
 *
 * Memory is constant whatever the length: a page of events (the feed's), one decoded frame, one slice of bytes. After
 * each slice the event loop has its turn.
 */
import {
  type ArchiveUnavailable,
  type ChunkCorrupt,
  durableOf,
  type FeedEvent,
  infoOf,
  type SessionRecord
} from "@thrum/core"
import {
  encodeEnded,
  encodeEpoch,
  encodeGap,
  encodeViewerWelcome,
  formatPosition,
  type Gap,
  kinds,
  startPosition,
  type ValuesAs
} from "@thrum/protocol"
import { Effect, Stream } from "effect"
import { ByteSink } from "./ByteSink.ts"
import { DataRows, type RowLayout, timeColumns } from "./DataRows.ts"
import { recordedOf } from "./SessionHandlers.ts"

/** What goes wrong on the way. */
export type DataError = ArchiveUnavailable | ChunkCorrupt

/** What is to be written. */
export interface Recording {
  readonly record: SessionRecord
  readonly values: ValuesAs
  /** Everything stored up to where `record` says: epochs, frames, gaps. */
  readonly events: Stream.Stream<FeedEvent, DataError>
  /** The gaps once more, by themselves. */
  readonly gaps: Stream.Stream<Pick<Gap, "from" | "to" | "reason">, DataError>
}

/** Writes one recording into a sink. */
interface Writer {
  readonly head: () => void
  /** Writes an event. Yields whenever the sink is full. */
  readonly event: (event: FeedEvent) => Iterable<void>
  /** What comes after the last event; `samples` were written. */
  readonly tail: (samples: number) => Stream.Stream<string | Uint8Array, DataError>
}

/** The name of a format, as `format=` takes it. */
export type FormatName = "json" | "csv" | "ndjson" | "frames"

/** A format. */
export interface DataFormat {
  readonly name: FormatName
  readonly mediaType: string
  /** The media type with its parameters. */
  readonly contentType: string
  /** Of a file, without the dot. */
  readonly extension: string
  readonly writer: (recording: Recording, sink: ByteSink) => Writer
}

const isComplete = (record: SessionRecord): boolean => record.state === "ended"

/** Samples stored up to where the record says. */
export const samplesOf = (record: SessionRecord): number => record.epochs.reduce((sum, epoch) => sum + epoch.samples, 0)

const gapText = ({ from, to, reason }: Pick<Gap, "from" | "to" | "reason">): string =>
  JSON.stringify({ from: formatPosition(from), to: formatPosition(to), reason })

const nothing: ReadonlyArray<void> = []

/** A format of rows: its layout, and what a gap is in the midst of them. */
const rowWriter = (
  { record, values }: Recording,
  sink: ByteSink,
  layout: RowLayout,
  gapRow: (gap: Gap) => string
): Writer["event"] => {
  const rows = new DataRows(sink, layout, record.description, values)
  return function*(event): Iterable<void> {
    switch (event.kind) {
      case kinds.epoch:
        return rows.begin(event)
      case kinds.gap:
        return sink.text(gapRow(event))
      case kinds.samples:
        rows.open(event)
        while (!rows.write()) yield
    }
  }
}

const json: DataFormat = {
  name: "json",
  mediaType: "application/json",
  contentType: "application/json",
  extension: "json",
  writer: (recording, sink) => {
    const { record, gaps } = recording
    const { channels } = record.description
    const columns = [...timeColumns, ...channels.map(({ name }) => name)]
    return {
      head: () =>
        sink.text(`{"session":${JSON.stringify(recordedOf(record))},"columns":${JSON.stringify(columns)},"rows":[`),
      // A row a line: a text that is cut somewhere, or searched with grep, still shows what it is.
      event: rowWriter(recording, sink, {
        beforePosition: "\n[\"",
        beforeDeviceTime: "\",",
        beforeTime: ",",
        beforeValues: channels.map(() => ","),
        afterRow: "]",
        betweenRows: ",",
        missing: "null",
        quote: "\""
      }, () => ""),
      // Kept aside until now they would take memory: they are read again instead.
      tail: (samples) =>
        Stream.make("],\n\"gaps\":[").pipe(
          Stream.concat(Stream.map(
            Stream.zipWithIndex(gaps),
            ([gap, i]) => `${i === 0 ? "" : ","}\n${gapText(gap)}`
          )),
          Stream.concat(Stream.make(`],\n"samples":${samples},"complete":${isComplete(record)}}\n`))
        )
    }
  }
}

const ndjson: DataFormat = {
  name: "ndjson",
  mediaType: "application/x-ndjson",
  contentType: "application/x-ndjson",
  extension: "ndjson",
  writer: (recording, sink) => {
    const { record } = recording
    return {
      head: () => sink.text(`{"session":${JSON.stringify(recordedOf(record))}}\n`),
      event: rowWriter(recording, sink, {
        beforePosition: "{\"position\":\"",
        beforeDeviceTime: "\",\"device_time\":",
        beforeTime: ",\"time\":",
        beforeValues: record.description.channels.map(({ name }) => `,${JSON.stringify(name)}:`),
        afterRow: "}\n",
        betweenRows: "",
        missing: "null",
        quote: "\""
      }, (gap) => `{"gap":${gapText(gap)}}\n`),
      tail: (samples) => Stream.make(`{"end":{"complete":${isComplete(record)},"samples":${samples}}}\n`)
    }
  }
}

/** A field of CSV, quoted where RFC 4180 wants it. */
const csvField = (text: string): string => /[",\r\n]/.test(text) ? `"${text.replaceAll("\"", "\"\"")}"` : text

const csv: DataFormat = {
  name: "csv",
  mediaType: "text/csv",
  contentType: "text/csv; charset=utf-8; header=present",
  extension: "csv",
  writer: (recording, sink) => {
    const { record, values } = recording
    const { channels } = record.description
    const heads = channels.map(({ name, unit }) => values === "counts" || unit === "" ? name : `${name} (${unit})`)
    return {
      head: () => sink.text(`${["position", "device_time (µs)", "time", ...heads].map(csvField).join(",")}\n`),
      event: rowWriter(recording, sink, {
        beforePosition: "",
        beforeDeviceTime: ",",
        beforeTime: ",",
        beforeValues: channels.map(() => ","),
        afterRow: "\n",
        betweenRows: "",
        missing: "",
        quote: ""
      }, ({ from, to }) => `${formatPosition(from)}/${formatPosition(to)},,${",".repeat(channels.length)}\n`),
      tail: () => Stream.empty
    }
  }
}

const frames: DataFormat = {
  name: "frames",
  mediaType: "application/vnd.thrum.frames",
  contentType: "application/vnd.thrum.frames",
  extension: "thrum",
  writer: ({ record }, sink) => {
    const put = (bytes: Uint8Array): void => {
      sink.reserve(bytes.length)
      sink.put(bytes)
    }
    return {
      head: () => put(encodeViewerWelcome(infoOf(record), startPosition)),
      event: (event) => {
        switch (event.kind) {
          case kinds.epoch:
            put(encodeEpoch(event))
            break
          case kinds.gap:
            put(encodeGap(event))
            break
          case kinds.samples:
            put(event.bytes)
        }
        return sink.isFull ? [undefined] : nothing
      },
      tail: () => isComplete(record) ? Stream.make(encodeEnded(durableOf(record))) : Stream.empty
    }
  }
}

/** The formats there are, the favourite first. */
export const dataFormats: ReadonlyArray<DataFormat> = [json, csv, ndjson, frames]

/**
 * The bytes of a recording. Fails, and dies when the archive does not hold as many samples as it says: the answer is
 * then cut, never ended as if it were whole.
 */
export const dataBytes = (format: DataFormat, recording: Recording): Stream.Stream<Uint8Array, DataError> =>
  Stream.suspend(() => {
    const sink = new ByteSink()
    const writer = format.writer(recording, sink)
    let samples = 0

    const slices = function*(events: ReadonlyArray<FeedEvent>): Generator<Uint8Array> {
      for (const event of events) {
        if (event.kind === kinds.samples) samples += event.next - event.index
        for (const _ of writer.event(event)) yield sink.take()
      }
      if (!sink.isEmpty) yield sink.take()
    }

    const tail = Stream.suspend(() => {
      const promised = samplesOf(recording.record)
      if (samples !== promised) {
        return Stream.die(new Error(`Cannot end the data: ${samples} samples were read, ${promised} are recorded`))
      }
      return Stream.map(writer.tail(samples), (piece) => {
        if (typeof piece !== "string") return piece
        sink.text(piece)
        return sink.take()
      })
    })

    writer.head()
    return Stream.succeed(sink.take()).pipe(
      Stream.concat(
        Stream.chunks(recording.events).pipe(
          Stream.flatMap((events) => Stream.fromIterable(slices(events), { chunkSize: 1 })),
          Stream.tap(() => Effect.yieldNow)
        )
      ),
      Stream.concat(tail)
    )
  })
