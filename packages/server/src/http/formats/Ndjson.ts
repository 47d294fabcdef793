/** A JSON object a line: session, rows and gaps as they come, and an end without which it is not whole. */
import { Effect, Stream } from "effect"
import { recordedOf } from "../SessionHandlers.ts"
import { type DataFormat, endOf, gapText } from "./Format.ts"
import { rowWriter } from "./Rows.ts"

export const ndjson: DataFormat = {
  name: "ndjson",
  mediaType: "application/x-ndjson",
  contentType: "application/x-ndjson",
  extension: "ndjson",
  isCompressible: true,
  open: (recording) =>
    Effect.succeed({
      writer: (sink) => {
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
          tail: (samples) => Stream.sync(() => sink.text(`{"end":${JSON.stringify(endOf(recording, samples))}}\n`))
        }
      }
    })
}
