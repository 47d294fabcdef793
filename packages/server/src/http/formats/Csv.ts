/**
 * CSV as spreadsheets and data frames read it: units in the header, an empty row where samples are missing.
 *
 * It has no end of its own: a line for that would be a row to whoever reads it. The answer's headers say how many
 * samples there are, and the connection is cut when they do not all come.
 */
import { formatPosition } from "@thrum/protocol"
import { Effect, Stream } from "effect"
import type { DataFormat } from "./Format.ts"
import { rowWriter } from "./Rows.ts"

/** A field of CSV, quoted where RFC 4180 wants it. */
const csvField = (text: string): string => /[",\r\n]/.test(text) ? `"${text.replaceAll("\"", "\"\"")}"` : text

export const csv: DataFormat = {
  name: "csv",
  mediaType: "text/csv",
  contentType: "text/csv; charset=utf-8; header=present",
  extension: "csv",
  isCompressible: true,
  open: (recording) =>
    Effect.succeed({
      writer: (sink) => {
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
    })
}
