/** `thrum watch`: a session in the terminal, live or from any position, as a picture, as lines or as JSON. */
import {
  formatPosition,
  kinds,
  numbersOf,
  parsePosition,
  type Position,
  type SessionInfo,
  textsOf
} from "@thrum/protocol"
import { once } from "node:events"
import { usageError } from "./CommandError.ts"
import { type SessionLink, urlOf } from "./Link.ts"
import { getSession, refusalOf } from "./RestClient.ts"
import { Picture } from "./Terminal.ts"
import { bytesText, grouped, shortNumber, TerminalPlot } from "./TerminalPlot.ts"
import { type Shown, type ViewerEvent, viewSession } from "./ViewerConnection.ts"

/** s of the signal that the picture shows. */
const secondsShown = 10
/** Latencies above this are a recording that is played, not a network. */
const latencyMax = 60_000

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
  private epochStart: { readonly t0: number | undefined; readonly wall: number } | undefined
  private clockOffset = 0
  private latency: number | undefined
  private recent: Array<{ readonly at: number; readonly samples: number }> = []
  private status = "connecting"

  constructor(picture: Picture) {
    this.picture = picture
  }

  /** Takes the next event. */
  see(event: ViewerEvent): void {
    switch (event.kind) {
      case kinds.viewerWelcome: {
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
      case kinds.epoch:
        this.epochStart = event
        break
      case kinds.samples:
        this.show(event, this.session)
        break
      case kinds.durable:
        this.durable = event.position
        break
      case kinds.gap:
        this.gaps++
        if (event.from.epoch === event.to.epoch) this.missing += event.to.index - event.from.index
        this.picture.line(`Gap from ${formatPosition(event.from)} to ${formatPosition(event.to)}: ${event.reason}`)
        this.position = event.to
        break
      case kinds.caughtUp:
        this.status = "live"
        break
      case kinds.ended:
        this.durable = event.position
        this.status = "ended"
        break
      case "away":
        this.status = "reconnecting"
        this.picture.line(`The connection was lost, trying again: ${event.why}`)
        return
      case "clock":
        this.clockOffset = event.offset
        return
      default:
        event satisfies never
    }
    // Without a terminal only samples are worth a line.
    const worthIt = this.picture.isTerminal || event.kind === kinds.samples
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

  private show(shown: Shown, session: SessionInfo | undefined): void {
    if (session === undefined) return
    const { block, bytes, position, skip, t0 } = shown
    const count = block.count - skip
    this.samples += count
    this.bytes += bytes
    this.position = { epoch: position.epoch, index: position.index + count }
    const numbers = numbersOf(block, session.channels)
    for (let at = skip * block.channels; at < numbers.length; at++) this.plots[at % block.channels]?.add(numbers[at]!)
    const now = performance.now()
    this.recent.push({ at: now, samples: count })
    while (this.recent.length > 1 && now - (this.recent[0]?.at ?? now) > 2000) this.recent.shift()
    const start = this.epochStart
    if (t0 === undefined || start?.t0 === undefined) return
    const duration = block.times === undefined || block.count === 0 ?
      (block.count - 1) * 1e6 / session.rate :
      (block.times[block.count - 1] ?? 0) * session.tick
    const wall = start.wall + (t0 - start.t0) + duration
    this.latency = (Date.now() * 1000 + this.clockOffset - wall) / 1000
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
export const jsonLines = (event: ViewerEvent, session: SessionInfo | undefined): string => {
  switch (event.kind) {
    case kinds.viewerWelcome:
      return `${JSON.stringify({ type: "welcome", session: event.session, from: formatPosition(event.from) })}\n`
    case kinds.epoch:
      return `${
        JSON.stringify({
          type: "epoch",
          epoch: event.epoch,
          index: event.index,
          t0: event.t0 ?? null,
          wall: event.wall
        })
      }\n`
    case kinds.samples: {
      if (session === undefined) return ""
      const { block, position: { epoch, index }, skip, t0 } = event
      const text = textsOf(block, session.channels)
      let lines = ""
      for (let i = skip; i < block.count; i++) {
        const micros = block.times === undefined ? i * 1e6 / session.rate : (block.times[i] ?? 0) * session.tick
        const time = t0 === undefined ? "" : `,"t":${Math.round(t0 + micros)}`
        const values = Array.from({ length: block.channels }, (_, c) => jsonNumber(text(i * block.channels + c)))
        lines += `{"type":"sample","position":"${epoch}:${index + i - skip}"${time},"values":[${values.join(",")}]}\n`
      }
      return lines
    }
    case kinds.durable:
      return `${JSON.stringify({ type: "durable", position: formatPosition(event.position) })}\n`
    case kinds.gap:
      return `${
        JSON.stringify({
          type: "gap",
          from: formatPosition(event.from),
          to: formatPosition(event.to),
          reason: event.reason
        })
      }\n`
    case kinds.caughtUp:
      return `${JSON.stringify({ type: "caught-up", position: formatPosition(event.position) })}\n`
    case kinds.ended:
      return `${JSON.stringify({ type: "ended", position: formatPosition(event.position) })}\n`
    case "away":
      return `${JSON.stringify({ type: "away", why: event.why })}\n`
    case "clock":
      return ""
  }
}

/** Runs the command: returns when the session has ended. */
export const watch = async ({ from, json, link }: Watch, signal: AbortSignal): Promise<void> => {
  // A server that is not there now is said at once; one that goes away later is waited for.
  await getSession(link, signal)
  const connection = { url: urlOf(link, "live"), from, refusal: () => refusalOf(link), signal }
  if (json) {
    let session: SessionInfo | undefined
    return viewSession({
      ...connection,
      room: () =>
        process.stdout.writableLength < unwrittenBytesMax ? undefined : once(process.stdout, "drain").then(() => {}),
      onEvent: (event) => {
        if (event.kind === kinds.viewerWelcome) session = event.session
        process.stdout.write(jsonLines(event, session))
      }
    })
  }
  const picture = new Picture(process.stdout, 100, 1000)
  const watcher = new Watcher(picture)
  try {
    await viewSession({ ...connection, onEvent: (event) => watcher.see(event) })
  } finally {
    watcher.end()
  }
  const hint = watcher.samples === 0 && from === "now" ? "; --from start shows what is stored" : ""
  process.stdout.write(`ended  ${watcher.totals}${hint}\n`)
}
