/**
 * `thrum demo`: everything once, on this machine. A server on the embedded database, a real recording streamed to it
 * twenty times as fast as it was made, watched live, and read back to the last digit.
 */
import { getData, urlOf, watch } from "@thrum/client"
import { Effect, Option } from "effect"
import type { Scope } from "effect/Scope"
import { createReadStream, existsSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { type CommandError, CommandError as Failure } from "./CommandError.ts"
import { playRecording, type Progress, type Started } from "./Player.ts"
import { readRows, RecordingReader } from "./RecordingReader.ts"
import { fromPromise } from "./Running.ts"
import { settingsOf, startServer } from "./serve.ts"
import { Picture } from "./Terminal.ts"
import { grouped, secondsText } from "./TerminalPlot.ts"
import { Watcher } from "./watch.ts"

const recording = fileURLToPath(new URL("../../../../examples/data/phone_walk.csv", import.meta.url))
/** Times faster than it was recorded. */
const speed = 20
/** Lines of the data that are shown. */
const linesShown = 4

const say = (text: string): Effect.Effect<void> => Effect.sync(() => void process.stdout.write(`${text}\n`))

/** Streams the recording and watches it at the same time. Returns when both have seen the end. */
const playAndWatch = async (address: string, signal: AbortSignal): Promise<readonly [Started, Progress, Watcher]> => {
  const picture = new Picture(process.stdout, 100, 1000)
  const watcher = new Watcher(picture)
  const { promise: start, resolve: onStart } = Promise.withResolvers<Started>()
  const play = playRecording({ file: recording, to: address, speed, name: "A walk with a phone", sensor: "BMI160" }, {
    onStart,
    onNotice: (text) => picture.line(text),
    onProgress: () => {}
  }, signal)
  const view = start.then(async (started) => {
    picture.line(`It can be watched from anywhere else with: thrum watch ${started.shared.self}`)
    const viewer = watch(urlOf(started.link), { from: "start", signal })
    for await (const event of viewer) watcher.see(event, viewer.status.clockOffset)
  })
  try {
    // A recording that cannot be streamed never starts: `play` says why, and nobody waits for `view` then.
    const [progress] = await Promise.all([play, Promise.race([view, play.then(() => view)])])
    return [await start, progress, watcher]
  } finally {
    watcher.end()
  }
}

/** Every value of the recording, in order. */
const valuesOfFile = async (): Promise<ReadonlyArray<ReadonlyArray<number>>> => {
  const rows: Array<ReadonlyArray<number>> = []
  const reader = new RecordingReader(recording)
  for await (const piece of readRows(reader, createReadStream(recording) as AsyncIterable<Buffer>)) {
    for (const row of piece) rows.push(row.values)
  }
  return rows
}

interface Data {
  readonly columns: ReadonlyArray<string>
  readonly rows: ReadonlyArray<ReadonlyArray<unknown>>
}

const isData = (u: unknown): u is Data =>
  typeof u === "object" && u !== null && "columns" in u && Array.isArray(u.columns) && "rows" in u &&
  Array.isArray(u.rows) && u.rows.every(Array.isArray)

/** Every value of the session, read back as JSON. */
const valuesOfSession = async ({ channels, link }: Started, signal: AbortSignal): Promise<ReadonlyArray<unknown>> => {
  const answer = await getData(link, { format: "json" }, signal)
  const data: unknown = await answer.json()
  if (!isData(data)) throw new Failure(`Cannot read ${answer.url}: it is not the data of a session`)
  const { columns, rows } = data
  const at = channels.map((name) => columns.indexOf(name))
  return rows.map((row) => at.map((i) => row[i]))
}

/** @returns How many values were compared. */
const compare = async (started: Started, signal: AbortSignal): Promise<number> => {
  const [file, session] = [await valuesOfFile(), await valuesOfSession(started, signal)]
  if (session.length !== file.length) {
    throw new Failure(
      `Cannot find the recording in what was stored: it has ${file.length} rows, the data ${session.length}`
    )
  }
  for (const [i, row] of file.entries()) {
    if (JSON.stringify(row) !== JSON.stringify(session[i])) {
      throw new Failure(`Cannot find row ${i} of the recording in what was stored: ${row.join(", ")}`)
    }
  }
  return file.length * started.channels.length
}

const firstLines = async ({ link }: Started, signal: AbortSignal): Promise<string> => {
  const text = await (await getData(link, { format: "csv" }, signal)).text()
  return text.split("\n", linesShown).map((line) => `  ${line}`).join("\n")
}

/**
 * Runs the command.
 *
 * @param once Ends after the last line; otherwise goes on serving when there is a person to look.
 * @param onServing Called when all is done and only the server goes on: to stop it then is no failure.
 */
export const demo: (
  options: { readonly once: boolean; readonly onServing: () => void }
) => Effect.Effect<void, CommandError, Scope> = Effect.fnUntraced(function*({ once, onServing }) {
  if (!existsSync(recording)) return yield* Effect.fail(new Failure(`Cannot find the recording ${recording}`))
  const none = Option.none()
  const port = process.env["PORT"] === undefined ? Option.some(0) : none
  const settings = yield* settingsOf({ port, host: none, dataDir: none, databaseUrl: none })
  const database = settings.databaseUrl === undefined
    ? `a PostgreSQL of its own in ${settings.dataDir}`
    : "DATABASE_URL"
  yield* say(`Starting Thrum on ${database} …`)
  const address = yield* startServer(settings)
  yield* say(`Thrum serves at ${address}. A phone that walks is streamed to it, ${speed} times as fast as it did:`)

  const [started, total, watcher] = yield* fromPromise((signal) => playAndWatch(address, signal))
  yield* say(
    `Streamed ${grouped(total.samples)} samples in ${secondsText(total.seconds)}, ` +
      `${(total.bytes / total.samples).toFixed(2)} bytes each; watched ${watcher.totals}.`
  )
  yield* say(`Sealed. The data, complete and for ever the same:\n\n  ${started.shared.data}\n`)
  yield* say(yield* fromPromise((signal) => firstLines(started, signal)))
  const compared = yield* fromPromise((signal) => compare(started, signal))
  yield* say(`  …\n\nAll ${grouped(compared)} values equal the file's, digit for digit.`)

  if (once || !process.stdout.isTTY) return
  yield* say(`\nStill serving at ${address}; Ctrl-C ends it.`)
  onServing()
  return yield* Effect.never
})
