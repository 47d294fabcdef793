/**
 * What a format of a recording is: how its events become bytes, slice by slice, into a {@link ByteSink}.
 *
 * A format is opened before the answer begins, when it can still be refused, and then written while it is read. Memory
 * is constant whatever the length: a page of events (the feed's), one decoded frame, one slice or one batch of columns.
 */
import type { ArchiveUnavailable, ChunkCorrupt, FeedEvent, SessionRecord } from "@thrum/core"
import { formatPosition, type Gap, type Position, type ValuesAs } from "@thrum/protocol"
import type { Effect, Stream } from "effect"
import type { ByteSink } from "../ByteSink.ts"
import type { Problem } from "../Problem.ts"

/** What goes wrong on the way. */
export type DataError = ArchiveUnavailable | ChunkCorrupt

/** What is to be written. */
export interface Recording {
  readonly record: SessionRecord
  readonly values: ValuesAs
  /** Where it begins. */
  readonly from: Position
  /** Where what is left out behind it goes on, when a limit ends it. */
  readonly next: Position | undefined
  /** Whether this is all there will ever be of what was asked for. */
  readonly complete: boolean
  /** Whether it ends where the session does. */
  readonly reachesEnd: boolean
  /** Samples it holds; undefined while only reading them can tell. */
  readonly samples: number | undefined
  /**
   * Epochs, frames, gaps. Of a frame that is a `PickedFrame` only some samples are asked for: formats of rows write
   * those, `frames` the whole. Can be read more than once.
   */
  readonly events: Stream.Stream<FeedEvent, DataError>
  /** The gaps once more, by themselves. */
  readonly gaps: Stream.Stream<GapPlace, DataError>
}

/** Where samples are missing, and why. */
export type GapPlace = Pick<Gap, "from" | "to" | "reason">

/** Writes one recording into a sink. */
export interface Writer {
  readonly head: () => void
  /** Writes an event. Yields whenever the sink should be emptied and the event loop have its turn. */
  readonly event: (event: FeedEvent) => Iterable<void>
  /** Writes what comes after the last event; `samples` were written. An element whenever the sink should be emptied. */
  readonly tail: (samples: number) => Stream.Stream<void, DataError>
}

/** A recording about to be written. */
export interface Opened {
  /** Bytes there will be, where that is known before. */
  readonly contentLength?: number
  readonly writer: (sink: ByteSink) => Writer
}

/** The name of a format, as `format=` takes it. */
export type FormatName = "json" | "csv" | "ndjson" | "frames" | "arrow" | "parquet" | "wav"

/** A format. */
export interface DataFormat {
  readonly name: FormatName
  readonly mediaType: string
  /** The media type with its parameters. */
  readonly contentType: string
  /** Of a file, without the dot. */
  readonly extension: string
  /** Why a live session cannot be had in it, `the file ends …`; undefined when it can. */
  readonly sealedOnly?: string
  /** Whether content codings make it much smaller. */
  readonly isCompressible: boolean
  /** Makes ready to write, or says what of the recording the format cannot hold. Loads what the format needs. */
  readonly open: (recording: Recording) => Effect.Effect<Opened, DataError | Problem<"format-unfit">>
}

/** What a text says of its end. */
export const endOf = (
  { complete, next }: Recording,
  samples: number
): { readonly [key: string]: boolean | number | string } => ({
  complete,
  samples,
  ...(next === undefined ? {} : { next: formatPosition(next) })
})

/** A gap as JSON. */
export const gapText = ({ from, to, reason }: GapPlace): string =>
  JSON.stringify({ from: formatPosition(from), to: formatPosition(to), reason })
