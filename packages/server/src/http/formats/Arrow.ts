/**
 * An Apache Arrow IPC stream: a schema, record batches of up to {@link rowsMax} rows, and the mark that ends it.
 *
 * Holds one batch, once as columns and once as bytes (1.3 MB each with 16 channels). The library is loaded by the first
 * who asks for the format.
 */
import type * as Arrow from "apache-arrow"
import { Effect, Stream } from "effect"
import { release } from "../ByteSink.ts"
import { Columns, columnWriter, type LongColumn, placeColumns } from "./Columns.ts"
import type { DataFormat, Recording } from "./Format.ts"
import { metadataOf, surveyOf } from "./Survey.ts"

/** Rows of a batch: a few milliseconds of work. */
const rowsMax = 8192

/** Bytes of the mark that ends a stream. */
const endBytes = 8

type Library = typeof Arrow

const typesOf = (arrow: Library) => ({
  epoch: new arrow.Int32(),
  index: new arrow.Int64(),
  time: new arrow.TimestampMicrosecond("UTC"),
  counts: new arrow.Int32(),
  values: new arrow.Float64()
})

const fieldsOf = (
  arrow: Library,
  { record, values }: Recording,
  integers: boolean
): ReadonlyArray<Arrow.Field> => {
  const types = typesOf(arrow)
  const [epoch, index, deviceTime, time] = placeColumns
  return [
    new arrow.Field(epoch, types.epoch, false),
    new arrow.Field(index, types.index, false),
    new arrow.Field(deviceTime, types.index, true, new Map([["unit", "µs"]])),
    new arrow.Field(time, types.time, true),
    ...record.description.channels.map(({ name, unit, scale, offset }) => {
      const metadata = new Map([
        ["unit", values === "counts" ? "" : unit],
        ["scale", String(scale)],
        ["offset", String(offset)]
      ])
      return new arrow.Field(name, integers ? types.counts : types.values, false, metadata)
    })
  ]
}

/** A bit per row, as Arrow wants it: undefined when no row is without a value. */
const validityOf = ({ missing, present }: LongColumn, rows: number): Uint8Array | undefined => {
  if (missing === 0) return undefined
  const bits = new Uint8Array(Math.ceil(rows / 8))
  for (let row = 0; row < rows; row++) if (present[row] === 1) bits[row >> 3]! |= 1 << (row & 7)
  return bits
}

const batchOf = (arrow: Library, schema: Arrow.Schema, columns: Columns): Arrow.RecordBatch => {
  const { rows: length, epoch, index, deviceTime, time, channels } = columns
  const types = typesOf(arrow)
  const long = <T extends Arrow.Int64 | Arrow.TimestampMicrosecond>(type: T, column: LongColumn) => ({
    type,
    length,
    data: column.values.subarray(0, length),
    nullCount: column.missing,
    nullBitmap: validityOf(column, length)
  })
  const children = [
    arrow.makeData({ type: types.epoch, length, data: epoch.subarray(0, length) }),
    arrow.makeData(long(types.index, index)),
    arrow.makeData(long(types.index, deviceTime)),
    arrow.makeData(long(types.time, time)),
    ...channels.map((numbers) =>
      numbers instanceof Int32Array ?
        arrow.makeData({ type: types.counts, length, data: numbers.subarray(0, length) }) :
        arrow.makeData({ type: types.values, length, data: numbers.subarray(0, length) })
    )
  ]
  return new arrow.RecordBatch(
    schema,
    arrow.makeData({ type: new arrow.Struct(schema.fields), length, nullCount: 0, children })
  )
}

export const arrow: DataFormat = {
  name: "arrow",
  mediaType: "application/vnd.apache.arrow.stream",
  contentType: "application/vnd.apache.arrow.stream",
  extension: "arrow",
  isCompressible: true,
  open: Effect.fnUntraced(function*(recording: Recording) {
    const library = yield* Effect.promise(() => import("apache-arrow"))
    const integers = recording.values === "counts" &&
      (yield* surveyOf(recording, ({ isCounts }) => !isCounts)).isCounts
    const fields = fieldsOf(library, recording, integers)
    const schema = new library.Schema([...fields], new Map(yield* metadataOf(recording)))
    // A stream of its own for each batch, of which all but the batch is cut off: no writer remembers what it wrote.
    // A batch does not repeat the metadata, so these streams need none.
    const bare = new library.Schema(fields.map(({ name, type, nullable }) => new library.Field(name, type, nullable)))
    const before = library.tableToIPC(new library.Table(bare), "stream").length - endBytes

    return {
      writer: (sink) => {
        const columns = new Columns(rowsMax, recording.record.description, recording.values, integers)
        const flush = (): void => {
          if (columns.rows === 0) return
          const bytes = library.tableToIPC(new library.Table(bare, [batchOf(library, bare, columns)]), "stream")
          sink.copy(bytes.subarray(before, -endBytes))
          release(bytes)
          columns.empty()
        }
        let end: Uint8Array = new Uint8Array(0)
        return {
          head: () => {
            const empty = library.tableToIPC(new library.Table(schema), "stream")
            sink.copy(empty.subarray(0, -endBytes))
            end = empty.subarray(-endBytes)
          },
          event: columnWriter(columns, function*() {
            flush()
            yield
          }),
          tail: () =>
            Stream.sync(() => {
              flush()
              sink.copy(end)
            })
        }
      }
    }
  })
}
