/**
 * The viewer's end of a session: every sample once, in order, across as many connections as it takes.
 *
 * Holds the frames that the consumer has not taken yet, at most about `bufferBytesMax` bytes. A WebSocket cannot be told
 * to wait, so at the bound the connection is closed; once half of it is taken it is opened again: with `complete` where
 * it was, with `latest` at what is newest, and what lies between is told as a gap. A lost connection is opened again
 * where it was, later and later; a close that says not to come back ends it with an error.
 */
import {
  formatPosition,
  kinds,
  type Position,
  readViewerFrame,
  type SessionInfo,
  type ViewerFrame
} from "@thrum/protocol"
import { delayBefore } from "./Backoff.ts"
import { ClockEstimate } from "./ClockEstimate.ts"
import { Connection, heartbeatDefault, type Told } from "./Connection.ts"
import { type Door, doorOf } from "./Link.ts"
import { Batch, Reading, type RecordingEvent } from "./Reading.ts"
import { refusalOf } from "./Rest.ts"
import { ownError, type ThrumError } from "./ThrumError.ts"

/** Bytes of frames that wait for the consumer unless it says otherwise. */
const bufferBytesDefault = 4_194_304
/** ms of events in a row, after which others (a page that draws, a signal) have their turn. */
const turnMax = 16
/** Bytes that an event counts beyond its frame. */
const eventBytes = 100

/** How a session is watched. */
export interface WatchOptions {
  /** Where to begin: `start`; `now`, with what comes next, unless given; or a position. */
  readonly from?: "start" | "now" | Position
  /** Of one that is too slow: `complete` misses nothing, unless given; `latest` skips ahead and is told what it missed. */
  readonly policy?: "complete" | "latest"
  /** Ends it: the iteration throws the signal's reason. */
  readonly signal?: AbortSignal | undefined
  /** Bytes of frames that may wait for the consumer; 4 MiB unless given. */
  readonly bufferBytesMax?: number
  /** ms without a connection after which it is given up; never unless given. */
  readonly patience?: number
  /** ms between two signs of life; 5000 unless given. A connection that is silent for four of them is opened again. */
  readonly heartbeat?: number
}

/** The connection was lost; it goes on where it was as soon as there is another. */
export interface AwayEvent {
  readonly type: "away"
  readonly error: ThrumError
}

/** What a viewer is told. */
export type WatchEvent = RecordingEvent | AwayEvent

/**
 * `connecting` at first; `behind` while what is stored is sent; `live`; `away` while a lost connection is tried again;
 * `paused` while the consumer has too much to take; `ended` when the session is sealed; `failed`; `closed` by the consumer.
 */
export type ViewerState = "connecting" | "behind" | "live" | "away" | "paused" | "ended" | "failed" | "closed"

/** Where a viewer stands. */
export interface ViewerStatus {
  readonly state: ViewerState
  /** Undefined before the first welcome. */
  readonly session: SessionInfo | undefined
  /** After the last sample that came; undefined before the first welcome. */
  readonly position: Position | undefined
  /** Everything before it is stored for certain, as far as the server said. */
  readonly durable: Position | undefined
  /** Bytes of frames that wait for the consumer. */
  readonly bufferedBytes: number
  /** Connections that were lost and opened again. */
  readonly reconnects: number
  /** Times that the consumer had too much to take. */
  readonly pauses: number
  /** ms to the server and back; undefined before it was measured. */
  readonly latency: number | undefined
  /** µs to add to this machine's clock to get the server's; undefined before it was measured. */
  readonly clockOffset: number | undefined
  /** The last thing that went wrong, even when it was mended. */
  readonly lastError: ThrumError | undefined
}

/**
 * Watches a session, until it ends.
 *
 * @param url Any link of the session; `ws(s)://…` of another form is used as it is.
 * @returns To be iterated once. The connection is opened by the first step, and closed when the loop is left. The loop
 *   ends when the session has, and throws a {@link ThrumError} when it is no use to go on.
 * @throws ThrumError `BadLink`.
 * @example
 * ```ts
 * import { watch } from "@thrum/client"
 *
 * for await (const event of watch("http://127.0.0.1:8080/sessions/3f0c2b1a-8d4e-4f6a-9b7c-5d1e2f3a4b5c", { from: "start" })) {
 *   if (event.type === "samples") console.log(event.position, event.values, event.wallTimes)
 *   if (event.type === "gap") console.log(`missing: ${event.reason}`, event.from, event.to)
 * }
 * ```
 */
export const watch = (url: string, options: WatchOptions = {}): Viewer => new Viewer(doorOf(url, "live"), options)

export class Viewer implements AsyncIterable<WatchEvent> {
  private readonly door: Door
  private readonly options: WatchOptions
  private readonly bytesMax: number
  private readonly reading = new Reading("go on watching")
  private readonly clock = new ClockEstimate()
  private state: ViewerState = "connecting"
  private connection: Connection<ViewerFrame> | undefined
  private events: Array<WatchEvent> = []
  private bytes = 0
  /** The consumer, when it has taken everything. */
  private wake: (() => void) | undefined
  private failure: unknown
  private lastError: ThrumError | undefined
  private tries = 0
  private reconnects = 0
  private pauses = 0
  private since = performance.now()
  /** The next connection goes on at what is newest. */
  private skips = false
  private retry: ReturnType<typeof setTimeout> | undefined
  private isStarted = false

  /** Use {@link watch}. */
  constructor(door: Door, options: WatchOptions) {
    this.door = door
    this.options = options
    this.bytesMax = options.bufferBytesMax ?? bufferBytesDefault
  }

  /** Where it stands, now. */
  get status(): ViewerStatus {
    const { bytes, clock, lastError, pauses, reading, reconnects, state } = this
    return {
      state,
      session: reading.session,
      position: reading.next,
      durable: reading.durable,
      bufferedBytes: bytes,
      reconnects,
      pauses,
      latency: clock.latency,
      clockOffset: clock.offset,
      lastError
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<WatchEvent, void, undefined> {
    if (this.isStarted) throw ownError("Closed", "Cannot watch: this viewer was iterated before")
    this.isStarted = true
    const { signal } = this.options
    const abort = (): void => this.stop("closed", signal?.reason)
    signal?.addEventListener("abort", abort)
    if (signal?.aborted === true) abort()
    else this.connect()
    let turn = performance.now()
    try {
      for (;;) {
        if (performance.now() - turn > turnMax) {
          await new Promise((resolve) => setTimeout(resolve, 0))
          turn = performance.now()
        }
        // What was there before the signal is not handed on after it.
        signal?.throwIfAborted()
        const event = this.events.shift()
        if (event === undefined) {
          if (this.isOver) break
          await new Promise<void>((resolve) => {
            this.wake = resolve
          })
          turn = performance.now()
          continue
        }
        this.taken(event)
        if (event.type === "samples") event.open()
        yield event
      }
      if (this.failure !== undefined) throw this.failure
    } finally {
      signal?.removeEventListener("abort", abort)
      this.stop("closed", undefined)
    }
  }

  private get isOver(): boolean {
    return this.state === "ended" || this.state === "failed" || this.state === "closed"
  }

  private connect(): void {
    const { from = "now", heartbeat = heartbeatDefault, policy = "complete" } = this.options
    const position = this.skips ? "now" : this.reading.next ?? from
    const url = new URL(this.door.url)
    url.searchParams.set("from", typeof position === "string" ? position : formatPosition(position))
    url.searchParams.set("policy", policy)
    url.searchParams.set("format", "frames")
    this.connection = new Connection<ViewerFrame>({
      url: url.href,
      doing: "go on watching",
      heartbeat,
      clock: this.clock,
      read: readViewerFrame,
      onOpen: () => {},
      onFrame: (frame, bytes) => this.take(frame, bytes),
      onLost: (why) => this.lose(why)
    })
  }

  private take(frame: Told<ViewerFrame>, bytes: number): void {
    if (frame.kind === kinds.viewerWelcome) this.welcome()
    if (frame.kind === kinds.caughtUp) this.state = "live"
    try {
      const { next } = this.reading
      const event = this.reading.take(frame, bytes)
      if (event !== undefined) this.add(event)
      if (frame.kind === kinds.viewerWelcome && this.skips && next !== undefined) {
        this.skips = false
        const gap = this.reading.pass(next, frame.from, "skipped")
        if (gap !== undefined) this.add(gap)
      }
    } catch (error) {
      return this.stop("failed", error)
    }
    if (this.reading.hasEnded) return this.stop("ended", undefined)
    if (this.bytes > this.bytesMax) this.pause()
  }

  private welcome(): void {
    this.state = "behind"
    this.tries = 0
    this.connection?.welcomed()
  }

  private add(event: WatchEvent): void {
    const last = this.events.at(-1)
    // Only the last of several watermarks, and of several losses, says anything.
    const isNews = event.type !== "durable" && event.type !== "away"
    if (!isNews && event.type === last?.type) this.events[this.events.length - 1] = event
    else {
      this.events.push(event)
      this.bytes += weightOf(event)
    }
    this.wake?.()
    this.wake = undefined
  }

  private taken(event: WatchEvent): void {
    this.bytes -= weightOf(event)
    if (this.state !== "paused" || this.bytes > this.bytesMax / 2) return
    this.state = "connecting"
    this.since = performance.now()
    this.connect()
  }

  /** The consumer has enough for now. */
  private pause(): void {
    this.connection?.close()
    this.connection = undefined
    this.state = "paused"
    this.pauses++
    this.skips = this.options.policy === "latest"
  }

  private lose(why: ThrumError): void {
    const wasWelcome = this.state === "behind" || this.state === "live"
    const { link } = this.door
    this.connection = undefined
    this.lastError = why
    if (why.name === "Ended") {
      return this.stop(
        "failed",
        ownError("NotThrum", "Cannot go on watching: the server closed before it said that the session has ended")
      )
    }
    const now = performance.now()
    const { patience = Infinity } = this.options
    if (wasWelcome) this.since = now
    else if (now - this.since > patience) {
      return this.stop(
        "failed",
        ownError("GivenUp", `Cannot go on watching: the server did not answer for ${patience / 1000} s`, why)
      )
    }
    const delay = delayBefore(why, this.tries++)
    if (delay === undefined) return this.stop("failed", why)
    this.state = "away"
    this.reconnects++
    this.add({ type: "away", error: why })
    this.retry = setTimeout(() => this.connect(), delay)
    if (wasWelcome || why.code !== 1006 || link === undefined) return
    // A browser does not tell why a WebSocket was refused; REST does.
    void refusalOf(link).then((refusal) => {
      if (refusal !== undefined && this.state === "away") this.stop("failed", refusal)
    })
  }

  private stop(state: "ended" | "failed" | "closed", failure: unknown): void {
    if (this.isOver) return
    this.state = state
    this.failure = failure
    clearTimeout(this.retry)
    this.connection?.close()
    this.connection = undefined
    this.wake?.()
    this.wake = undefined
  }
}

const weightOf = (event: WatchEvent): number => eventBytes + (event instanceof Batch ? event.bytes : 0)
