/** One JSON document: pandas reads its `columns` and `rows` as they are. */
import { Effect, Stream } from "effect"
import { timeColumns } from "../DataRows.ts"
import { recordedOf } from "../SessionHandlers.ts"
import { type DataFormat, endOf, gapText } from "./Format.ts"
import { rowWriter } from "./Rows.ts"

export const json: DataFormat = {
  name: "json",
  mediaType: "application/json",
  contentType: "application/json",
  extension: "json",
  isCompressible: true,
  open: (recording) =>
    Effect.succeed({
      writer: (sink) => {
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
              Stream.concat(Stream.make(`],\n${JSON.stringify(endOf(recording, samples)).slice(1)}\n`)),
              Stream.map((piece) => sink.text(piece))
            )
        }
      }
    })
}
