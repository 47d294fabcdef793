/** The formats there are, and how a recording becomes the bytes of one: a slice at a time. */
import type { FeedEvent } from "@thrum/core"
import { kinds } from "@thrum/protocol"
import { Effect, Stream } from "effect"
import { ByteSink } from "./ByteSink.ts"
import { arrow } from "./formats/Arrow.ts"
import { csv } from "./formats/Csv.ts"
import type { DataError, DataFormat, Opened, Recording } from "./formats/Format.ts"
import { frames } from "./formats/Frames.ts"
import { json } from "./formats/Json.ts"
import { ndjson } from "./formats/Ndjson.ts"
import { parquet } from "./formats/Parquet.ts"
import { wav } from "./formats/Wav.ts"
import { countOf } from "./PickedFrame.ts"

export type { DataError, DataFormat, FormatName, Opened, Recording } from "./formats/Format.ts"

/** The formats there are, the favourite first. */
export const dataFormats: ReadonlyArray<DataFormat> = [json, csv, ndjson, frames, arrow, parquet, wav]

/**
 * The bytes of a recording, by the format that opened it. Fails, and dies when the archive does not hold as many samples
 * as it says: the answer is then cut, never ended as if it were whole. After each slice the event loop has its turn.
 *
 * @param isSent Whether every slice so far has been sent, so that its memory may be written again.
 */
export const dataBytes = (
  opened: Opened,
  recording: Recording,
  isSent: () => boolean
): Stream.Stream<Uint8Array, DataError> =>
  Stream.suspend(() => {
    const sink = new ByteSink(isSent)
    const writer = opened.writer(sink)
    let samples = 0

    const slices = function*(events: ReadonlyArray<FeedEvent>): Generator<Uint8Array> {
      for (const event of events) {
        if (event.kind === kinds.samples) samples += countOf(event)
        for (const _ of writer.event(event)) yield sink.take()
      }
      if (!sink.isEmpty) yield sink.take()
    }

    const tail = Stream.suspend(() => {
      const promised = recording.samples
      if (promised !== undefined && samples !== promised) {
        return Stream.die(new Error(`Cannot end the data: ${samples} samples were read, ${promised} are recorded`))
      }
      return writer.tail(samples).pipe(
        // One slice at a time, or the second would be written over the first.
        Stream.rechunk(1),
        Stream.map(() => sink.take()),
        Stream.tap(() => Effect.yieldNow)
      )
    })

    writer.head()
    return Stream.succeed(sink.take()).pipe(
      Stream.concat(
        Stream.chunks(recording.events).pipe(
          Stream.flatMap((events) => Stream.fromIterable(slices(events), { chunkSize: 1 })),
          Stream.tap(() => Effect.yieldNow)
        )
      ),
      Stream.concat(tail),
      // Columns may have their turn before there is anything to write.
      Stream.filter((slice) => slice.length > 0)
    )
  })
