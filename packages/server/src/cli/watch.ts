/** `thrum watch`: a session in the terminal, live or from any position, as a picture, as lines or as JSON. */
import { type Batch, getSession, type SessionLink, urlOf, watch as watchSession, type WatchEvent } from "@thrum/client"
import { formatPosition, parsePosition, type Position, type SessionInfo } from "@thrum/protocol"
import { once } from "node:events"
import { usageError } from "./CommandError.ts"
import { Picture } from "./Terminal.ts"
import { bytesText, grouped, shortNumber, TerminalPlot } from "./TerminalPlot.ts"

/** s of the signal that the picture shows. */
const secondsShown = 10
/** Latencies above this are a recording that is played, not a network. */
const latencyMax = 60_000

/** ms without a connection after which it is given up. */
const patience = 120_000
/** Bytes of JSON that may wait for a slow reader; then the session waits too. */
const unwrittenBytesMax = 4_194_304

/** What to watch. */
export interface Watch {
  readonly link: SessionLink
  readonly from: "start" | "now" | Position
  /** One JSON text a line instead of a picture. */
  readonly json: boolean
}

/** Reads `--from`. */
export const parseFrom = (text: string): "start" | "now" | Position => {
  const from = text === "start" || text === "now" ? text : parsePosition(text)
  if (from !== undefined) return from
  throw usageError(`Cannot use --from "${text}": it is neither start, now nor a position like 0:12000`)
}

/** Keeps what a watcher has seen, and shows it. */
export class Watcher {
  /** Samples that were shown. */
  samples = 0
  /** Samples that gaps passed over. */
  missing = 0
  gaps = 0
  /** After the last sample. */
  position: Position | undefined
  durable: Position | undefined
  session: SessionInfo | undefined
  private bytes = 0
  private plots: ReadonlyArray<TerminalPlot> = []
  private readonly picture: Picture
  private readonly began = performance.now()
  private latency: number | undefined
  private recent: Array<{ readonly at: number; readonly samples: number }> = []
  private status = "connecting"

  constructor(picture: Picture) {
    this.picture = picture
  }

  /**
   * Takes the next event.
   *
   * @param clockOffset µs to add to our clock to get the server's, as far as it is known.
   */
  see(event: WatchEvent, clockOffset = 0): void {
    switch (event.type) {
      case "welcome": {
        this.session = event.session
        this.position = event.from
        const { channels, name, rate, state } = event.session
        this.plots = channels.map(() =>
          new TerminalPlot(Math.max(10, this.picture.columns - 2), Math.ceil(rate * secondsShown))
        )
        this.status = state
        this.picture.line(
          `Watching ${name ?? event.session.id} from ${formatPosition(event.from)}: ` +
            `${channels.map((c) => `${c.name} in ${c.unit}`).join(", ")}, ${rate} Hz`
        )
        break
      }
      case "epoch":
        break
      case "samples":
        this.show(event, clockOffset)
        break
      case "durable":
        this.durable = event.position
        break
      case "gap":
        this.gaps++
        if (event.from.epoch === event.to.epoch) this.missing += event.to.index - event.from.index
        this.picture.line(`Gap from ${formatPosition(event.from)} to ${formatPosition(event.to)}: ${event.reason}`)
        // What is lost was shown before: it lies behind us.
        if (event.reason !== "lost") this.position = event.to
        break
      case "caught-up":
        this.status = "live"
        break
      case "ended":
        this.durable = event.position
        this.status = "ended"
        break
      case "away":
        this.status = "reconnecting"
        this.picture.line(`The connection was lost, trying again: ${event.error.message}`)
        return
      default:
        event satisfies never
    }
    // Without a terminal only samples are worth a line.
    const worthIt = this.picture.isTerminal || event.type === "samples"
    if (worthIt && this.picture.isDue) this.draw()
  }

  /** The last picture stays. */
  end(): void {
    if (this.picture.isTerminal && this.session !== undefined) this.draw()
    this.picture.end(true)
  }

  /** What was seen, in one line. */
  get totals(): string {
    const gaps = this.gaps === 0 ? "no gaps" : `${this.gaps} gaps (${grouped(this.missing)} samples missing)`
    const perSample = this.samples === 0 ? "" : `, ${(this.bytes / this.samples).toFixed(2)} B/sample`
    return `${grouped(this.samples)} samples, ${gaps}${perSample} (${bytesText(this.bytes)})`
  }

  private show(batch: Batch, clockOffset: number): void {
    const { bytes, channels, count, next, values } = batch
    this.samples += count
    this.bytes += bytes
    this.position = next
    for (let at = 0; at < values.length; at++) this.plots[at % channels]?.add(values[at]!)
    const now = performance.now()
    this.recent.push({ at: now, samples: count })
    while (this.recent.length > 1 && now - (this.recent[0]?.at ?? now) > 2000) this.recent.shift()
    // Without a clock of the device its samples count as taken one after the other, at the nominal rate.
    if (batch.deviceTimes === undefined) return
    const wall = batch.wallTimes.at(-1) ?? 0
    this.latency = ((performance.timeOrigin + now) * 1000 + clockOffset - wall) / 1000
  }

  private get rate(): number {
    const [first] = this.recent
    const seconds = first === undefined ? 0 : (performance.now() - first.at) / 1000
    // The first frame opens the interval, it does not lie in it.
    const samples = this.recent.reduce((sum, { samples }, i) => i === 0 ? 0 : sum + samples, 0)
    return seconds > 0 ? samples / seconds : 0
  }

  private get statusLine(): string {
    const { durable, latency, position, rate, samples, status } = this
    const seconds = Math.max(1, Math.round((performance.now() - this.began) / 1000))
    const shown = [
      status.padEnd(7),
      `at ${position === undefined ? "–" : formatPosition(position)}`,
      `durable ${durable === undefined ? "–" : formatPosition(durable)}`,
      `${grouped(samples)} samples in ${seconds} s`,
      `${grouped(rate)}/s`
    ]
    if (status === "live" && latency !== undefined && latency >= 0 && latency < latencyMax) {
      shown.push(`${latency.toFixed(0)} ms behind`)
    }
    if (this.gaps > 0) shown.push(`${this.gaps} gaps`)
    return shown.join("  ")
  }

  private draw(): void {
    const channels = this.session?.channels ?? []
    if (!this.picture.isTerminal) {
      const values = channels.map(({ name, unit }, c) =>
        `${name} ${shortNumber(this.plots[c]?.last ?? Number.NaN)} ${unit}`
      )
      return this.picture.draw([`${this.statusLine}  ${values.join("  ")}`])
    }
    // Three lines a channel where they fit, else one; one more each for its numbers.
    const high = channels.length * 4 + 1 < this.picture.rows ? 3 : 1
    const lines = channels.flatMap(({ name, unit }, c) => {
      const plot = this.plots[c]
      if (plot === undefined) return []
      const [min, max] = plot.range ?? [Number.NaN, Number.NaN]
      return [
        `${name}  ${shortNumber(plot.last ?? Number.NaN).padStart(8)} ${unit}   ${shortNumber(min)} … ${
          shortNumber(max)
        }`,
        ...plot.lines(high)
      ]
    })
    this.picture.draw([...lines, this.statusLine])
  }
}

/** JSON has no NaN and no infinity: they travel as strings. */
const jsonNumber = (text: string): string => text === "NaN" || text.endsWith("Infinity") ? JSON.stringify(text) : text

/** The lines of one event: one a sample, its values digit for digit; one for anything else. */
export const jsonLines = (event: WatchEvent): string => {
  switch (event.type) {
    case "welcome":
      return `${JSON.stringify({ type: "welcome", session: event.session, from: formatPosition(event.from) })}\n`
    case "epoch":
      return `${
        JSON.stringify({
          type: "epoch",
          epoch: event.epoch,
          index: event.index,
          t0: event.t0 ?? null,
          wall: event.wall
        })
      }\n`
    case "samples": {
      const { channels, count, deviceTimes, position: { epoch, index }, texts } = event
      let lines = ""
      for (let i = 0; i < count; i++) {
        const time = deviceTimes === undefined ? "" : `,"t":${Math.round(deviceTimes[i]!)}`
        const values = Array.from({ length: channels }, (_, c) => jsonNumber(texts(i * channels + c)))
        lines += `{"type":"sample","position":"${epoch}:${index + i}"${time},"values":[${values.join(",")}]}\n`
      }
      return lines
    }
    case "durable":
      return `${JSON.stringify({ type: "durable", position: formatPosition(event.position) })}\n`
    case "gap":
      return `${
        JSON.stringify({
          type: "gap",
          from: formatPosition(event.from),
          to: formatPosition(event.to),
          reason: event.reason
        })
      }\n`
    case "caught-up":
      return `${JSON.stringify({ type: "caught-up", position: formatPosition(event.position) })}\n`
    case "ended":
      return `${JSON.stringify({ type: "ended", position: formatPosition(event.position) })}\n`
    case "away":
      return `${JSON.stringify({ type: "away", why: event.error.message })}\n`
  }
}

/** Runs the command: returns when the session has ended. */
export const watch = async ({ from, json, link }: Watch, signal: AbortSignal): Promise<void> => {
  // A server that is not there now is said at once; one that goes away later is waited for.
  await getSession(link, signal)
  const viewer = watchSession(urlOf(link), { from, patience, signal })
  if (json) {
    for await (const event of viewer) {
      process.stdout.write(jsonLines(event))
      if (process.stdout.writableLength >= unwrittenBytesMax) await once(process.stdout, "drain", { signal })
    }
    return
  }
  const picture = new Picture(process.stdout, 100, 1000)
  const watcher = new Watcher(picture)
  try {
    for await (const event of viewer) watcher.see(event, viewer.status.clockOffset)
  } finally {
    watcher.end()
  }
  const hint = watcher.samples === 0 && from === "now" ? "; --from start shows what is stored" : ""
  process.stdout.write(`ended  ${watcher.totals}${hint}\n`)
}
