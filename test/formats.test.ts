/**
 * Every format of the data, read back by a reader that is not ours: Python's standard library, apache-arrow, Parquet of
 * Rust. What comes out is what the file holds, text for text and number for number.
 */
import {
  cutFrames,
  encodeSamples,
  isFrameError,
  kinds,
  packCounts,
  packFloats,
  protocolLimits,
  readBlock,
  readViewerFrame,
  textsOf
} from "@thrum/protocol"
import { RecordBatch, type Table, tableFromIPC, type Vector } from "apache-arrow"
import { spawn } from "node:child_process"
import { text } from "node:stream/consumers"
import { fileURLToPath } from "node:url"
import { readParquet } from "parquet-wasm"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { readRecording, type Recording, recordingNames } from "./Recordings.ts"
import { checkedFetch } from "./support/contract.ts"
import { Device, until } from "./support/Device.ts"
import { framesOf, type SentFrame } from "./support/Frames.ts"
import { startServer, type TestServer } from "./support/Server.ts"

let server: TestServer
beforeAll(async () => {
  server = await startServer()
})
afterAll(() => server.stop())

type Json = Readonly<Record<string, unknown>>

const stored = (device: Device, frames: ReadonlyArray<SentFrame>): Promise<void> =>
  until("durable", () => device.durable === (frames.at(-1)?.next ?? 0))

/** Creates a session, sends frames epoch by epoch and seals it. */
const record = async (description: Json, ...epochs: ReadonlyArray<ReadonlyArray<SentFrame>>): Promise<string> => {
  const response = await checkedFetch(server.url, "/sessions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(description)
  })
  assert.strictEqual(response.status, 201)
  const { session, ingestKey, links } = await response.json()
  for (const [i, frames] of epochs.entries()) {
    const device = await Device.connect(links.ingest, ingestKey, { bootId: i + 1 })
    await device.sendAll(frames)
    if (i < epochs.length - 1) await stored(device, frames)
    else assert.strictEqual((await device.end()).code, 1000)
  }
  return session.id
}

const get = (id: string, file: string, headers: Record<string, string> = {}): Promise<Response> =>
  checkedFetch(server.url, `/sessions/${id}/${file}`, { headers })

const bytesOf = async (id: string, file: string): Promise<Uint8Array<ArrayBuffer>> => {
  const answer = await get(id, file)
  assert.strictEqual(answer.status, 200, file)
  return new Uint8Array(await answer.arrayBuffer())
}

const script = fileURLToPath(new URL("support/read_formats.py", import.meta.url))

/** What Python's standard library reads, as JSON. */
const python = async (format: string, bytes: Uint8Array): Promise<string> => {
  const child = spawn("python3", [script, format], { stdio: ["pipe", "pipe", "pipe"] })
  const [out, said, code] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise<number | null>((resolve, reject) => {
      const missing = "Cannot read back what was written: there is no python3"
      child.once("error", (cause) => reject(new Error(missing, { cause })))
      child.once("close", resolve)
      child.stdin.on("error", () => {}).end(bytes)
    })
  ])
  assert.strictEqual(code, 0, said)
  return out
}

interface ReadRows {
  readonly head: ReadonlyArray<string>
  readonly rows: ReadonlyArray<ReadonlyArray<string | null>>
  readonly gaps: ReadonlyArray<readonly [string, string]>
}

interface ReadWav {
  readonly tag: number
  readonly bits: number
  readonly channels: number
  readonly rate: number
  readonly counts: ReadonlyArray<number>
  readonly session: Json
}

const readRows = async (format: string, bytes: Uint8Array): Promise<ReadRows> => JSON.parse(await python(format, bytes))
const readWav = async (bytes: Uint8Array): Promise<ReadWav> => JSON.parse(await python("wav", bytes))

/** A row as all formats have it, times as µs. */
interface Row {
  readonly epoch: number
  readonly index: number
  readonly device: number | null
  readonly time: number | null
  readonly values: ReadonlyArray<number>
}

const microsOf = (text: string): number => Date.parse(`${text.slice(0, 19)}Z`) * 1000 + Number(text.slice(20, 26))

const rowOfTexts = ([position, device, time, ...values]: ReadonlyArray<string | null>): Row => {
  const [epoch, index] = (position ?? "").split(":").map(Number)
  return {
    epoch: epoch!,
    index: index!,
    device: device === null || device === "" ? null : Number(device),
    time: time === null || time === "" || time === undefined ? null : microsOf(time),
    values: values.map(Number)
  }
}

const cell = (column: Vector | null, i: number): number | null => {
  const value: unknown = column?.get(i)
  return value === null ? null : Number(value)
}

/** Timestamps as they are: the library's own `get` makes milliseconds of them, with fractions. */
const longsOf = (column: Vector | null): ReadonlyArray<number | null> =>
  (column?.data ?? []).flatMap((data) =>
    Array.from(data.values.subarray(0, data.length), (value: bigint, i) => data.getValid(i) ? Number(value) : null)
  )

const rowsOfTable = (table: Table): ReadonlyArray<Row> => {
  const names = table.schema.fields.map(({ name }) => name)
  assert.deepStrictEqual(names.slice(0, 4), ["epoch", "index", "device_time", "time"])
  const channels = names.slice(4).map((name) => Array.from(table.getChild(name)!, Number))
  const [epoch, index] = [table.getChild("epoch"), table.getChild("index")]
  const [device, time] = [longsOf(table.getChild("device_time")), longsOf(table.getChild("time"))]
  return Array.from({ length: table.numRows }, (_, i) => ({
    epoch: cell(epoch, i)!,
    index: cell(index, i)!,
    device: device[i]!,
    time: time[i]!,
    values: channels.map((values) => values[i]!)
  }))
}

const parquetTable = (bytes: Uint8Array): Table => tableFromIPC(readParquet(bytes).intoIPCStream())

/** The texts of the frames' values, by the protocol's own reader. */
const textsOfFrames = (bytes: Uint8Array): { readonly texts: ReadonlyArray<string>; readonly isWhole: boolean } => {
  const cut = cutFrames(bytes, protocolLimits.messageBytesMax.value)
  if (isFrameError(cut)) throw new Error(cut.message)
  assert.lengthOf(cut.rest, 0)
  const frames = cut.frames.map((one) => {
    const frame = readViewerFrame(one)
    if (isFrameError(frame)) throw new Error(frame.message)
    return frame
  })
  const [welcome] = frames
  if (welcome?.kind !== kinds.viewerWelcome) throw new Error("no welcome")
  const { channels } = welcome.session
  const texts = frames.flatMap((frame) => {
    if (frame.kind !== kinds.samples) return []
    const block = readBlock(frame.block, channels.length)
    if (isFrameError(block)) throw new Error(block.message)
    const text = textsOf(block, channels)
    return Array.from(block.integers, (_, at) => text(at))
  })
  return { texts, isWhole: frames.at(-1)?.kind === kinds.ended }
}

/** Trailing zeros and exponents are spelling: `0.0` is `0`, `5.35E-05` is `0.0000535`. */
const digits = (text: string): string => String(Number(text))

const same = (what: string, texts: ReadonlyArray<string>, recording: Recording): void => {
  assert.strictEqual(texts.length, recording.texts.length, what)
  texts.forEach((one, i) => {
    if (digits(one) !== digits(recording.texts[i]!)) {
      assert.fail(`${what}: value ${i} is ${one}, the file has ${recording.texts[i]}`)
    }
  })
}

/** By hand: a comparison that can show every difference of 100,000 rows blocks this process, server and all, for long. */
const sameRows = (what: string, rows: ReadonlyArray<Row>, expected: ReadonlyArray<Row>): void => {
  assert.strictEqual(rows.length, expected.length, what)
  for (const [i, row] of rows.entries()) {
    const { epoch, index, device, time, values } = expected[i]!
    const isSame = row.epoch === epoch && row.index === index && row.device === device && row.time === time &&
      row.values.length === values.length && row.values.every((value, c) => Object.is(value, values[c]))
    if (!isSame) assert.deepStrictEqual(row, expected[i]!, `${what}, row ${i}`)
  }
}

const channelTexts = ({ rows }: ReadRows): ReadonlyArray<string> =>
  rows.flatMap((row) => row.slice(3).map((text) => text ?? "null"))

describe("recordings", () => {
  it.each(recordingNames)("%s: every format read back is the file", async (name) => {
    const recording = readRecording(name)
    const rate = name.startsWith("vib") ? 3134 : 100
    const sensor = `the one of ${name}`
    const id = await record({ rate, sensor, name: "µ \"quoted\", 日本" }, framesOf(recording, 100, rate))

    const csv = await readRows("csv", await bytesOf(id, "data.csv"))
    same("CSV", channelTexts(csv), recording)
    assert.deepStrictEqual(csv.head, [
      "position",
      "device_time (µs)",
      "time",
      ...["x", "y", "z"].map((c) => `${c} (m/s²)`)
    ])
    const expected = csv.rows.map(rowOfTexts)
    for (const [format, file] of [["json", "data.json"], ["ndjson", "data.ndjson"]] as const) {
      const read = await readRows(format, await bytesOf(id, file))
      same(format, channelTexts(read), recording)
      assert.deepStrictEqual(read.head, ["position", "device_time", "time", "x", "y", "z"])
      sameRows(format, read.rows.map(rowOfTexts), expected)
    }
    for (
      const [what, table] of [
        ["Arrow", tableFromIPC(await bytesOf(id, "data.arrow"))],
        ["Parquet", parquetTable(await bytesOf(id, "data.parquet"))]
      ] as const
    ) {
      const rows = rowsOfTable(table)
      assert.deepStrictEqual(rows.flatMap(({ values }) => values), [...recording.numbers], what)
      sameRows(what, rows, expected)
      const session = JSON.parse(table.schema.metadata.get("thrum.session") ?? "null")
      assert.deepInclude(session, { id, rate, sensor, name: "µ \"quoted\", 日本" }, what)
      assert.strictEqual(session.channels[2].unit, "m/s²")
    }
    const frames = textsOfFrames(await bytesOf(id, "data.thrum"))
    same("frames", frames.texts, recording)
    assert.isTrue(frames.isWhole)

    if (recording.counts) {
      const wav = await readWav(await bytesOf(id, "data.wav"))
      assert.deepStrictEqual(wav.counts, [...recording.numbers])
      assert.deepInclude(wav, { rate, channels: 3, tag: 0xfffe })
      assert.deepInclude(wav.session, { id, rate, sensor })
      const counts = tableFromIPC(await bytesOf(id, "data.arrow?values=counts"))
      assert.strictEqual(String(counts.schema.fields[4]?.type), "Int32")
      assert.deepStrictEqual(rowsOfTable(counts).flatMap(({ values }) => values), [...recording.numbers])
      const packed = parquetTable(await bytesOf(id, "data.parquet?values=counts"))
      assert.strictEqual(String(packed.schema.fields[4]?.type), "Int32")
      assert.deepStrictEqual(rowsOfTable(packed).flatMap(({ values }) => values), [...recording.numbers])
    } else assert.strictEqual((await get(id, "data.wav")).status, 409)
  }, 60_000)
})

/** Frames of one channel or more, from an index on. */
const frame = (
  index: number,
  t0: number | undefined,
  block: ReturnType<typeof packCounts>,
  channels = 1
): SentFrame => {
  if (isFrameError(block)) throw new Error(block.message)
  const read = readBlock(block, channels)
  if (isFrameError(read)) throw new Error(read.message)
  return { index, next: index + read.count, bytes: encodeSamples(index, t0, block) }
}

const oneChannel = { rate: 1000, channels: [{ name: "x", unit: "g", scale: 0.5, offset: 1 }] }

/** A sawtooth over more rows than a batch, a page or a row group has. */
const long = (samples: number): ReadonlyArray<SentFrame> =>
  Array.from(
    { length: samples / 4000 },
    (_, i) =>
      frame(i * 4000, i * 4_000_000, packCounts(Int32Array.from({ length: 4000 }, (_, j) => (i * 4000 + j) % 7919), 1))
  )

describe("typed columns", () => {
  it("go on over batches, pages and row groups, and keep gaps, epochs and missing times", async () => {
    const samples = 140_000
    const id = await record(
      oneChannel,
      [...long(samples), frame(samples + 500, undefined, packCounts([1, 2, 3], 1))],
      [frame(7, 2 ** 40, packCounts([-1, -2], 1)), frame(9, undefined, packFloats(Float32Array.of(0.1, Number.NaN), 1))]
    )
    const json = await (await get(id, "data.json")).json()
    const expected = json.rows.map((row: ReadonlyArray<string | null>) => rowOfTexts(row))
    assert.lengthOf(expected, samples + 7)
    for (const values of ["unit", "counts"]) {
      const arrow = tableFromIPC(await bytesOf(id, `data.arrow?values=${values}`))
      const parquet = parquetTable(await bytesOf(id, `data.parquet?values=${values}`))
      assert.isAbove(arrow.batches.length, 10)
      for (const table of [arrow, parquet]) {
        const rows = rowsOfTable(table)
        if (values === "unit") sameRows("unit", rows, expected)
        else assert.deepStrictEqual(rows.slice(-7).flatMap((row) => row.values), [1, 2, 3, -1, -2, 0.1, Number.NaN])
        // One frame of floats, and none is an integer any more.
        assert.strictEqual(String(table.schema.fields[4]?.type), "Float64")
        assert.deepStrictEqual(JSON.parse(table.schema.metadata.get("thrum.gaps") ?? ""), json.gaps)
        assert.strictEqual(table.schema.metadata.get("thrum.gaps.all"), "true")
        assert.strictEqual(table.schema.metadata.get("thrum.values"), values)
        assert.strictEqual(table.schema.metadata.get("thrum.complete"), "true")
        assert.deepStrictEqual(table.schema.fields.slice(0, 4).map(({ type }) => String(type)), [
          "Int32",
          "Int64",
          "Int64",
          "Timestamp<MICROSECOND, UTC>"
        ])
      }
      assert.deepStrictEqual(
        arrow.schema.fields[4]?.metadata,
        new Map([["unit", values === "unit" ? "g" : ""], ["scale", "0.5"], ["offset", "1"]])
      )
    }
  })

  it("may have no rows", async () => {
    const id = await record(oneChannel, [])
    for (
      const table of [tableFromIPC(await bytesOf(id, "data.arrow")), parquetTable(await bytesOf(id, "data.parquet"))]
    ) {
      assert.strictEqual(table.numRows, 0)
      assert.deepStrictEqual(table.schema.fields.map(({ name }) => name), [
        "epoch",
        "index",
        "device_time",
        "time",
        "x"
      ])
    }
  })

  it("of a live session come as Arrow, not as Parquet", async () => {
    const response = await checkedFetch(server.url, "/sessions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(oneChannel)
    })
    const { session, ingestKey, links } = await response.json()
    const device = await Device.connect(links.ingest, ingestKey)
    const frames = [frame(0, 0, packCounts([1, 2, 3], 1))]
    await device.sendAll(frames)
    await stored(device, frames)
    const arrow = tableFromIPC(await bytesOf(session.id, "data.arrow?partial=true"))
    assert.deepStrictEqual(rowsOfTable(arrow).map(({ values }) => values[0]), [1.5, 2, 2.5])
    assert.strictEqual(arrow.schema.metadata.get("thrum.complete"), "false")
    assert.instanceOf(arrow.batches[0], RecordBatch)
    for (const file of ["data.parquet?partial=true", "data.wav?partial=true", "data.arrow"]) {
      const refused = await get(session.id, file)
      assert.deepInclude(await refused.json(), { status: 409, type: "/problems/session-live" })
    }
    await device.close()
  })
})

describe("WAV", () => {
  it.each([
    [1, [-128, 127, 0], 8, 1],
    [1, [-129, 127, 0], 16, 1],
    [2, [32_767, -32_768], 16, 1],
    [3, [1, 2, -3], 8, 0xfffe],
    [1, [32_768, 5], 24, 0xfffe],
    [1, [-8_388_608, 8_388_607, 1], 24, 0xfffe],
    [1, [8_388_608, -1], 32, 0xfffe],
    [2, [2_147_483_647, -2_147_483_648, 0, 1], 32, 0xfffe]
  ])("has as few bits as the counts need: %i channels, %j", async (count, counts, bits, tag) => {
    const channels = Array.from({ length: count }, (_, c) => ({ name: `c${c}`, unit: "V", scale: 0.25 }))
    const id = await record({ rate: 999.6, channels }, [frame(0, 0, packCounts(counts, count), count)])
    const answer = await get(id, "data.wav")
    const bytes = new Uint8Array(await answer.arrayBuffer())
    assert.strictEqual(answer.headers.get("content-length"), String(bytes.length))
    const wav = await readWav(bytes)
    assert.deepInclude(wav, { bits, tag, counts, channels: count, rate: 1000 })
    assert.deepInclude(wav.session, { rate: 999.6 })
  })

  it.each<[string, Json, ReadonlyArray<ReadonlyArray<SentFrame>>, RegExp]>([
    ["a rate that is no whole number", { rate: 85.7 }, [[frame(0, 0, packCounts([1, 2, 3], 3), 3)]], /85.7 Hz/],
    ["a rate below 1 Hz", { rate: 0.4 }, [[]], /0.4 Hz/],
    ["floats", oneChannel, [[frame(0, 0, packFloats([0.5], 1))]], /floats/],
    ["a gap", oneChannel, [[frame(0, 0, packCounts([1], 1)), frame(5, 0, packCounts([1], 1))]], /0:5 does not follow/],
    ["two epochs", oneChannel, [[frame(0, 0, packCounts([1], 1))], [frame(1, 0, packCounts([1], 1))]], /1:1 does not/]
  ])("is refused for %s", async (_, description, epochs, why) => {
    const id = await record(description, ...epochs)
    const answer = await get(id, "data.wav")
    const { status, type, detail } = await answer.json()
    assert.deepStrictEqual([status, type], [409, "/problems/format-unfit"])
    assert.match(detail, why)
  })
})

describe("extensions", () => {
  it("are formats, and others are no paths", async () => {
    const id = await record(oneChannel, [frame(0, 0, packCounts([1, 2, 3], 1))])
    const formats = {
      json: "json",
      csv: "csv",
      ndjson: "ndjson",
      thrum: "frames",
      arrow: "arrow",
      parquet: "parquet",
      wav: "wav"
    }
    for (const [extension, format] of Object.entries(formats)) {
      const [byPath, byQuery] = await Promise.all([
        get(id, `data.${extension}`, { accept: "text/html" }),
        get(id, `data?format=${format}`)
      ])
      for (const name of ["content-type", "etag", "content-disposition", "vary", "accept-ranges"]) {
        assert.strictEqual(byPath.headers.get(name), byQuery.headers.get(name))
      }
      assert.match(byPath.headers.get("content-disposition") ?? "", new RegExp(`\\.${extension}"$`))
      assert.deepStrictEqual(await byPath.arrayBuffer(), await byQuery.arrayBuffer())
    }
    for (const file of ["data.xml", "data.", "data.json.gz", "datajson", "data.CSV"]) {
      const answer = await get(id, file)
      assert.deepInclude(await answer.json(), { status: 404, type: "/problems/route-not-found" }, file)
    }
    assert.strictEqual((await get(id, "data.csv?format=json")).status, 400)
  })
})
