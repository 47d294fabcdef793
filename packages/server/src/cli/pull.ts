/**
 * `thrum pull`: downloads the data of a session into a file.
 *
 * The bytes go to `FILE.part` as they arrive, in constant memory, and the file takes its name only when all of it is
 * there: whatever happens before, `FILE` is either complete or not there.
 */
import { getData, type SessionLink, urlOf } from "@thrum/client"
import { cutFrames, isFrameError, kindOf, kinds, protocolLimits } from "@thrum/protocol"
import { createWriteStream, existsSync } from "node:fs"
import { rename, rm } from "node:fs/promises"
import { extname } from "node:path"
import type { Writable } from "node:stream"
import { pipeline } from "node:stream/promises"
import { CommandError, reasonOf, usageError } from "./CommandError.ts"
import { bar, Picture } from "./Terminal.ts"
import { bytesText, secondsText } from "./TerminalPlot.ts"

/** The forms in which the data comes. */
export const formats = ["json", "csv", "ndjson", "frames"] as const
export type Format = (typeof formats)[number]

const formatOf: Readonly<Record<string, Format>> = {
  ".json": "json",
  ".csv": "csv",
  ".ndjson": "ndjson",
  ".jsonl": "ndjson",
  ".thrum": "frames"
}

/** What to download, and where to. */
export interface Pull {
  readonly link: SessionLink
  /** A path; `-` is the standard output. */
  readonly output: string
  /** By the extension of the path unless given. */
  readonly format: Format | undefined
  /** Also from a session that is still live: what is durable by now. */
  readonly partial: boolean
  readonly values: "unit" | "counts" | undefined
  /** Replaces a file that is there. */
  readonly force: boolean
}

/** Runs the command. */
export const pull = async (wish: Pull, signal: AbortSignal): Promise<void> => {
  const { link, output, partial, values } = wish
  const isPipe = output === "-"
  const format = wish.format ?? (isPipe ? "json" : formatOf[extname(output).toLowerCase()])
  if (format === undefined) {
    throw usageError(
      `Cannot tell the format of "${output}": name it .json, .csv, .ndjson or .thrum, or give it with --format`
    )
  }
  if (!isPipe && !wish.force && existsSync(output)) {
    throw new CommandError(`Cannot write ${output}: it is there already, --force replaces it`)
  }
  const answer = await getData(link, {
    format,
    ...(partial ? { partial: "true" } : {}),
    ...(values === undefined ? {} : { values })
  }, signal)

  const download = new Download(answer, format, urlOf(link))
  const part = `${output}.part`
  try {
    await download.into(isPipe ? process.stdout : createWriteStream(part), isPipe, signal)
    if (!isPipe) await rename(part, output)
  } catch (error) {
    if (!isPipe) await rm(part, { force: true })
    throw error
  } finally {
    download.endPicture()
  }
  const standing = download.isComplete ? "" : ", not complete: the session is still live"
  if (!isPipe) {
    process.stdout.write(`${output}  ${bytesText(download.bytes)} in ${secondsText(download.seconds)}${standing}\n`)
  } else if (standing !== "") process.stderr.write(`thrum: ${bytesText(download.bytes)}${standing}\n`)
}

/** The body of one answer on its way. */
class Download {
  bytes = 0
  /** Whether this is all the session will ever have. */
  readonly isComplete: boolean
  private readonly began = performance.now()
  private readonly picture = new Picture(process.stderr)
  private readonly answer: Response
  private readonly source: string
  private readonly total: number | undefined
  private readonly end: DataEnd

  constructor(answer: Response, format: Format, source: string) {
    this.answer = answer
    this.source = source
    const length = answer.headers.get("content-length")
    // What is packed for the way is shorter than what is written.
    this.total = length === null || answer.headers.has("content-encoding") ? undefined : Number(length)
    this.isComplete = answer.headers.get("thrum-complete") !== "false"
    this.end = format === "frames" ? new FramesEnd(this.isComplete) : new TextEnd(format)
  }

  get seconds(): number {
    return (performance.now() - this.began) / 1000
  }

  async into(target: Writable, isPipe: boolean, signal: AbortSignal): Promise<void> {
    try {
      await pipeline(this.pieces(), target, { signal, end: !isPipe })
    } catch (error) {
      signal.throwIfAborted()
      // A reader that has enough, such as `head`, is no failure of the download: main knows what to do.
      if (isPipe && error instanceof Error && "code" in error && error.code === "EPIPE") throw error
      if (error instanceof CommandError) throw error
      throw new CommandError(`Cannot download ${this.source}: ${reasonOf(error)}`, { cause: error })
    }
    if (this.total !== undefined && this.bytes !== this.total) {
      throw new CommandError(`Cannot download ${this.source}: ${this.bytes} bytes came of ${this.total}`)
    }
    if (!this.end.isReached) {
      throw new CommandError(`Cannot download ${this.source}: it was cut after ${this.bytes} bytes, its end is missing`)
    }
  }

  endPicture(): void {
    this.picture.end(false)
  }

  private async *pieces(): AsyncGenerator<Uint8Array> {
    for await (const piece of this.answer.body ?? []) {
      this.bytes += piece.length
      const broken = this.end.pass(piece)
      if (broken !== undefined) throw new CommandError(`Cannot download ${this.source}: ${broken}`)
      yield piece
      if (this.picture.isTerminal && this.picture.isDue) this.picture.draw([this.line])
    }
  }

  private get line(): string {
    const { bytes, seconds, total } = this
    const share = total === undefined ? "" : `${bar(bytes / total, 24)} ${Math.floor(bytes / total * 100)} %  `
    return `${share}${bytesText(bytes)}  ${bytesText(bytes / Math.max(seconds, 0.001))}/s`
  }
}

/** Tells whether the end of the data has come by, from the bytes alone. */
interface DataEnd {
  /** Passes the next bytes; says what is wrong with them. */
  readonly pass: (bytes: Uint8Array) => string | undefined
  readonly isReached: boolean
}

/** Text ends whole: JSON with the brace of its object, NDJSON with a line that says so, CSV with a line break. */
class TextEnd implements DataEnd {
  private static readonly endings: Readonly<Record<"json" | "csv" | "ndjson", RegExp>> = {
    json: /\}\s*$/,
    csv: /\n$/,
    ndjson: /(?:^|\n)\{"end":\{[^\n]*\}\}\n$/
  }
  /** The last bytes, one character each. */
  private tail = ""
  private readonly ending: RegExp

  constructor(format: "json" | "csv" | "ndjson") {
    this.ending = TextEnd.endings[format]
  }

  pass(bytes: Uint8Array): undefined {
    const last = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).subarray(-tailBytes).toString("latin1")
    this.tail = (this.tail + last).slice(-tailBytes)
  }

  get isReached(): boolean {
    return this.ending.test(this.tail)
  }
}

/** Bytes in which the end of a text is looked for. */
const tailBytes = 256

/** Frames end between two of them, and those of a sealed session with `ended`. Holds the beginning of one frame. */
class FramesEnd implements DataEnd {
  private rest: Uint8Array = new Uint8Array(0)
  private last: number | undefined
  private readonly isSealed: boolean

  constructor(isSealed: boolean) {
    this.isSealed = isSealed
  }

  pass(bytes: Uint8Array): string | undefined {
    const run = this.rest.length === 0 ? bytes : Buffer.concat([this.rest, bytes])
    const cut = cutFrames(run, protocolLimits.messageBytesMax.value)
    if (isFrameError(cut)) return cut.message
    const last = cut.frames.at(-1)
    if (last !== undefined) this.last = kindOf(last)
    this.rest = cut.rest.slice()
    return undefined
  }

  get isReached(): boolean {
    return this.rest.length === 0 && (this.isSealed ? this.last === kinds.ended : this.last !== undefined)
  }
}
