/**
 * An Apache Parquet file: row groups as they come, and the footer without which it is none.
 *
 * Holds one row group as columns, at most {@link groupBytesMax} bytes and {@link groupRowsMax} rows, and of the groups
 * before it what the footer says of them: about 1 KB per column and group. A group is written page by page, the event
 * loop having its turn after each. The library is loaded by the first who asks for the format.
 */
import { Effect, Stream } from "effect"
import type { ByteWriter, ParquetWriter, SchemaElement } from "hyparquet-writer"
import { constants, zstdCompressSync } from "node:zlib"
import { Columns, columnWriter, LongColumn, type Numbers, placeColumns } from "./Columns.ts"
import type { DataFormat, Recording } from "./Format.ts"
import { metadataOf, surveyOf } from "./Survey.ts"

const groupRowsMax = 131_072
const groupBytesMax = 8 * 1024 * 1024
/** Rows of a page: about a millisecond of work. */
const pageRows = 8192

const load = () => Promise.all([import("hyparquet-writer"), import("hyparquet-writer/src/datapage.js")])
type Library = Awaited<ReturnType<typeof load>>
type Column = Parameters<Library[1]["writeDataPageV2"]>[0]["column"]
type Encoding = Parameters<Library[1]["writeDataPageV2"]>[0]["encoding"]
type Chunk = ParquetWriter["row_groups"][number]["columns"][number]

const codec = "ZSTD"
const compressors = {
  ZSTD: (bytes: Uint8Array): Uint8Array => {
    const packed = zstdCompressSync(bytes, { params: { [constants.ZSTD_c_compressionLevel]: 1 } })
    // The library has no use for the plain page any more, whose memory is twice its size.
    if (bytes.buffer instanceof ArrayBuffer) bytes.buffer.transfer(0)
    return packed
  }
}

const root: SchemaElement = { name: "thrum", num_children: 0 }

const schemaOf = ({ record }: Recording, integers: boolean): ReadonlyArray<SchemaElement> => {
  const [epoch, index, deviceTime, time] = placeColumns
  return [
    { name: epoch, type: "INT32", repetition_type: "REQUIRED" },
    { name: index, type: "INT64", repetition_type: "REQUIRED" },
    { name: deviceTime, type: "INT64", repetition_type: "OPTIONAL" },
    {
      name: time,
      type: "INT64",
      repetition_type: "OPTIONAL",
      converted_type: "TIMESTAMP_MICROS",
      logical_type: { type: "TIMESTAMP", isAdjustedToUTC: true, unit: "MICROS" }
    },
    ...record.description.channels.map(({ name }): SchemaElement => ({
      name,
      type: integers ? "INT32" : "DOUBLE",
      repetition_type: "REQUIRED"
    }))
  ]
}

/** Differences of neighbours for whole numbers; the bytes of doubles side by side: both pack well. */
const encodingOf = (values: LongColumn | Numbers): Encoding =>
  values instanceof Float64Array ? "BYTE_STREAM_SPLIT" : "DELTA_BINARY_PACKED"

const statisticsOf = ({ min, max, missing }: LongColumn) => ({
  null_count: BigInt(missing),
  ...(min <= max ? { min_value: BigInt(min), max_value: BigInt(max) } : {})
})

/** Level of every value of a page in which none is missing. */
const allPresent: Array<number> = Array.from({ length: pageRows }, () => 1)

/** The rows from `from` up to `to` of a column, and for one that may miss values which of them are there. */
const pageOf = (values: LongColumn | Numbers, isOptional: boolean, from: number, to: number) => {
  if (!(values instanceof LongColumn)) {
    return { values: values.subarray(from, to), definitionLevels: [], repetitionLevels: [], maxDefinitionLevel: 0 }
  }
  const longs = values.values.subarray(from, to)
  if (!isOptional) return { values: longs, definitionLevels: [], repetitionLevels: [], maxDefinitionLevel: 0 }
  if (values.missing === 0) {
    const definitionLevels = to - from === pageRows ? allPresent : allPresent.slice(0, to - from)
    return { values: longs, definitionLevels, repetitionLevels: [], maxDefinitionLevel: 1 }
  }
  const definitionLevels = Array.from(values.present.subarray(from, to))
  return {
    values: Array.from(longs, (value, i) => definitionLevels[i] === 1 ? value : null),
    definitionLevels,
    repetitionLevels: [],
    maxDefinitionLevel: 1
  }
}

/** Writes the filled columns as a row group. Yields after each page. */
const writeGroup = function*(
  [, { writeDataPageV2 }]: Library,
  file: ParquetWriter,
  bytes: ByteWriter,
  schema: ReadonlyArray<SchemaElement>,
  columns: Columns
): Generator<void> {
  const groupStart = bytes.offset
  const chunks: Array<Chunk> = []
  let groupSize = 0
  const all = [columns.epoch, columns.index, columns.deviceTime, columns.time, ...columns.channels]
  for (const [i, values] of all.entries()) {
    const element = schema[i]!
    const encoding = encodingOf(values)
    const column: Column = {
      columnName: element.name,
      element,
      schemaPath: [root, element],
      codec,
      compressors,
      stats: false,
      pageSize: 0,
      columnIndex: false,
      offsetIndex: false
    }
    const start = bytes.offset
    let size = 0
    // A page at least, of no rows: readers refuse the empty list that this library makes of no row group.
    for (let from = 0; from === 0 || from < columns.rows; from += pageRows) {
      const to = Math.min(from + pageRows, columns.rows)
      const pageData = pageOf(values, element.repetition_type === "OPTIONAL", from, to)
      size += writeDataPageV2({ writer: bytes, column, encoding, pageData })
      yield
    }
    groupSize += size
    chunks.push({
      file_offset: BigInt(start),
      meta_data: {
        type: element.type!,
        encodings: [encoding],
        path_in_schema: [element.name],
        codec,
        num_values: BigInt(columns.rows),
        total_uncompressed_size: BigInt(size),
        total_compressed_size: BigInt(bytes.offset - start),
        data_page_offset: BigInt(start),
        ...(values instanceof LongColumn ? { statistics: statisticsOf(values) } : {})
      }
    })
  }
  file.num_rows += BigInt(columns.rows)
  file.row_groups.push({
    columns: chunks,
    total_byte_size: BigInt(groupSize),
    num_rows: BigInt(columns.rows),
    total_compressed_size: BigInt(bytes.offset - groupStart)
  })
  columns.empty()
}

export const parquet: DataFormat = {
  name: "parquet",
  mediaType: "application/vnd.apache.parquet",
  contentType: "application/vnd.apache.parquet",
  extension: "parquet",
  sealedOnly: "a Parquet file is of a recording that nothing is added to",
  // Its pages are packed already.
  isCompressible: false,
  open: Effect.fnUntraced(function*(recording: Recording) {
    const library = yield* Effect.promise(load)
    const integers = recording.values === "counts" &&
      (yield* surveyOf(recording, ({ isCounts }) => !isCounts)).isCounts
    const metadata = yield* metadataOf(recording)
    return {
      writer: (sink) => {
        const { description } = recording.record
        const schema = schemaOf(recording, integers)
        const rowBytes = 28 + description.channels.length * (integers ? 4 : 8)
        const rowsMax = Math.min(groupRowsMax, Math.floor(groupBytesMax / rowBytes))
        const columns = new Columns(rowsMax, description, recording.values, integers)
        const bytes = new library[0].ByteWriter()
        const file = new library[0].ParquetWriter({
          writer: bytes,
          schema: [{ ...root, num_children: schema.length }, ...schema],
          codec,
          compressors,
          kvMetadata: Array.from(metadata, ([key, value]) => ({ key, value })),
          createdBy: "thrum"
        })
        /** Moves what was written on into the sink. */
        const move = (): void => {
          sink.copy(bytes.getBytes())
          bytes.index = 0
        }
        const flush = function*(): Generator<void> {
          for (const _ of writeGroup(library, file, bytes, schema, columns)) {
            move()
            yield
          }
        }
        return {
          head: move,
          event: columnWriter(columns, flush),
          tail: () =>
            Stream.suspend(() =>
              Stream.fromIterable(columns.rows === 0 && file.row_groups.length > 0 ? [] : flush(), { chunkSize: 1 })
            ).pipe(
              Stream.concat(Stream.sync(() => {
                void file.finish()
                move()
              }))
            )
        }
      }
    }
  })
}
