/**
 * Plays a recording into a session: reads rows, packs frames, and hands each to the connection when its last sample is
 * due.
 *
 * Bound: one piece of the file, the first {@link headRows} rows (they tell rate, tick and kind of numbers), one frame,
 * and the device's own buffer. When that is full, the recording waits.
 */
import {
  createSession,
  type Device,
  type DeviceFrame,
  getSession,
  openDevice,
  type SessionLink,
  urlOf
} from "@thrum/client"
import { type Channel, protocolLimits } from "@thrum/protocol"
import { createReadStream } from "node:fs"
import { stat } from "node:fs/promises"
import { setTimeout as sleep } from "node:timers/promises"
import { CommandError, reasonOf, usageError } from "./CommandError.ts"
import { FramePacker } from "./FramePacker.ts"
import { parseLink, parseServer } from "./Link.ts"
import { type Columns, readRows, RecordingReader, type Row } from "./RecordingReader.ts"

/** Rows that are looked at before a session is created. */
const headRows = 256
/** ms that rows from a pipe wait for more, before the session is created and before a frame that is not full is sent. */
const waitMax = 1000
/** ms without any progress, while there is something to send, after which it is given up. */
const patience = 120_000
/** Hz, where neither the caller nor the times say it. */
const rateAssumed = 100

/** What to play, and where. */
export interface Play {
  /** A path; `-` is the standard input. */
  readonly file: string
  /** The server's address. */
  readonly to: string
  /** Hz. What the time column says, else {@link rateAssumed}, unless given. */
  readonly rate?: number | undefined
  /** So many times faster than it was recorded; `max`: as fast as it can be sent. 1 for a file, `max` for a pipe. */
  readonly speed?: number | "max" | undefined
  /** Samples of a frame at most; 100 unless given. A frame never lasts longer than a second. */
  readonly frame?: number | undefined
  /** Columns to send; all unless given. */
  readonly channels?: ReadonlyArray<string> | undefined
  /** Of all channels; `count` for integers and `m/s²` for decimals unless given. */
  readonly unit?: string | undefined
  /** Unit per count; the cells must be integers then. */
  readonly scale?: number | undefined
  /** Rounds decimals to float32 instead of refusing those it cannot hold exactly. */
  readonly float32?: boolean | undefined
  readonly name?: string | undefined
  readonly sensor?: string | undefined
  /** Goes on with this session (an id or a link) instead of a new one. Needs `key`. */
  readonly session?: string | undefined
  readonly key?: string | undefined
  /** Leaves the session open after the last sample. */
  readonly keepOpen?: boolean | undefined
}

/** Links to give to others. */
export interface SharedLinks {
  readonly self: string
  readonly data: string
}

/** Where a recording goes. Known before its first frame is sent. */
export interface Started {
  readonly link: SessionLink
  readonly shared: SharedLinks
  readonly key: string
  readonly channels: ReadonlyArray<string>
  readonly unit: string
  readonly rate: number
}

/** How far it is. */
export interface Progress {
  /** 0 … 1; undefined where the end is not known. */
  readonly share: number | undefined
  readonly samples: number
  readonly durable: number
  /** Bytes of all frames so far. */
  readonly bytes: number
  /** s since the first frame. */
  readonly seconds: number
  /** ms to the server and back; undefined before it was measured. */
  readonly roundTrip: number | undefined
}

/** Who is told. */
export interface Listener {
  readonly onStart: (started: Started) => void
  /** A sentence about something the user did not ask for: an assumed rate, a lost connection. */
  readonly onNotice: (text: string) => void
  readonly onProgress: (progress: Progress) => void
}

/** What the first rows tell. */
interface Plan {
  readonly rate: number
  readonly tick: number
  readonly isInteger: boolean
}

/** Plays to the end. Returns when everything is durable and, unless it is kept open, the session is sealed. */
export const playRecording = async (play: Play, listener: Listener, signal: AbortSignal): Promise<Progress> => {
  checkPlay(play)
  const player = new Player(play, listener, signal)
  try {
    return await player.run()
  } catch (error) {
    signal.throwIfAborted()
    throw error
  } finally {
    player.close()
  }
}

const checkPositive = (name: string, value: number | undefined): void => {
  if (value !== undefined && !(value > 0 && Number.isFinite(value))) {
    throw usageError(`Cannot use --${name} ${value}: it must be above 0`)
  }
}

const checkPlay = (play: Play): void => {
  checkPositive("rate", play.rate)
  if (play.speed !== "max") checkPositive("speed", play.speed)
  if (play.scale !== undefined && (play.scale === 0 || !Number.isFinite(play.scale))) {
    throw usageError(`Cannot use --scale ${play.scale}: it must be a number other than 0`)
  }
  const { samplesPerFrameMax } = protocolLimits
  if (play.frame !== undefined && !(play.frame >= 1 && play.frame <= samplesPerFrameMax.value)) {
    throw usageError(`Cannot use --frame ${play.frame}: a frame holds 1 to ${samplesPerFrameMax.value} samples`)
  }
  parseServer(play.to)
  if (play.session === undefined) {
    if (play.key !== undefined) throw usageError("Cannot use --key: it belongs to a session, which --session names")
    return
  }
  if (play.key === undefined) throw usageError("Cannot use --session: its ingest key is missing, give it with --key")
  for (const name of ["unit", "scale", "name", "sensor"] as const) {
    if (play[name] !== undefined) {
      throw usageError(`Cannot use --${name}: the session of --session is described already`)
    }
  }
}

class Player {
  private readonly play: Play
  private readonly listener: Listener
  private readonly signal: AbortSignal
  private readonly isPipe: boolean
  private readonly reader: RecordingReader
  private bytesRead = 0
  private rowsRead = 0
  private fileBytes: number | undefined
  private rate = rateAssumed
  private packer: FramePacker | undefined
  private device: Device | undefined
  private started = 0

  constructor(play: Play, listener: Listener, signal: AbortSignal) {
    this.play = play
    this.listener = listener
    this.signal = signal
    this.isPipe = play.file === "-"
    this.reader = new RecordingReader(this.isPipe ? "standard input" : play.file, play.channels)
  }

  async run(): Promise<Progress> {
    const pieces = readRows(this.reader, this.bytes())
    const head = await this.readHead(pieces)
    await this.start(head.rows)
    for (const row of head.rows) await this.add(row)

    for (let next = head.next; next !== undefined;) {
      const piece = await this.orLate(next)
      if (piece === "late") {
        await this.send(this.packer?.flush() ?? [])
        continue
      }
      if (piece.done === true) break
      for (const row of piece.value) await this.add(row)
      next = pieces.next()
    }
    await this.send(this.packer?.flush() ?? [])
    return this.finish()
  }

  close(): void {
    void this.device?.close()
  }

  private async *bytes(): AsyncGenerator<Uint8Array> {
    const { file } = this.play
    try {
      if (!this.isPipe) {
        const about = await stat(file)
        if (about.isFile()) this.fileBytes = about.size
      }
      const stream = this.isPipe ? process.stdin : createReadStream(file, { signal: this.signal })
      for await (const piece of stream as AsyncIterable<Buffer>) {
        this.bytesRead += piece.length
        yield piece
      }
    } catch (error) {
      this.signal.throwIfAborted()
      throw new CommandError(`Cannot read ${this.isPipe ? "standard input" : file}: ${reasonOf(error)}`, {
        cause: error
      })
    }
  }

  /** Enough rows to tell what is coming; fewer when they end, or when a pipe makes us wait. */
  private async readHead(pieces: Pieces): Promise<Head> {
    const rows: Array<Row> = []
    const began = performance.now()
    let next = pieces.next()
    for (;;) {
      const patience = this.isPipe && rows.length > 0 ? waitMax - (performance.now() - began) : undefined
      const piece = patience === undefined ? await next : await orLate(next, patience)
      if (piece === "late") return { rows, next }
      if (piece.done === true) {
        if (rows.length > 0) return { rows, next: undefined }
        throw new CommandError(`Cannot stream ${this.isPipe ? "standard input" : this.play.file}: it has no rows`)
      }
      for (const row of piece.value) rows.push(row)
      next = pieces.next()
      if (rows.length >= headRows) return { rows, next }
    }
  }

  private async start(head: ReadonlyArray<Row>): Promise<void> {
    const columns = this.reader.columns
    if (columns === undefined) throw new Error("rows came before their header")
    const plan = this.planOf(head, columns)
    this.rate = plan.rate
    const session = await this.sessionOf(plan, columns)
    this.packer = new FramePacker({
      channels: columns.channels,
      frameSamples: Math.max(1, Math.min(this.play.frame ?? 100, Math.floor(plan.rate))),
      rate: plan.rate,
      tick: session.tick,
      timeUnit: columns.timeUnit,
      countsOnly: session.countsOnly,
      isRounding: this.play.float32 ?? false
    })
    const { key, link, shared } = session
    this.listener.onStart({ link, shared, key, channels: columns.channels, unit: session.unit, rate: plan.rate })
    let losses = 0
    this.device = await openDevice({
      url: urlOf(link),
      key,
      channels: columns.channels.length,
      rate: plan.rate,
      full: "wait",
      patience,
      onStatus: ({ lastError, reconnects }) => {
        if (reconnects === losses) return
        losses = reconnects
        this.listener.onNotice(`The connection was lost, trying again: ${lastError?.message}`)
      }
    })
    this.signal.addEventListener("abort", () => this.close())
    this.signal.throwIfAborted()
    this.started = performance.now()
  }

  private planOf(head: ReadonlyArray<Row>, { timeUnit }: Columns): Plan {
    const tick = timeUnit === 1000 && head.every((row) => row.timePlaces === 0) ? 1000 : 1
    const isInteger = head.every((row) => row.isInteger)
    if (this.play.rate !== undefined) return { rate: this.play.rate, tick, isInteger }
    const measured = timeUnit === undefined ? undefined : rateOf(head, timeUnit)
    if (measured === undefined) {
      const why = timeUnit === undefined ? "there is no time column" : "the times do not rise"
      this.listener.onNotice(`The rate is taken to be ${rateAssumed} Hz, ${why}; give it with --rate`)
    }
    return { rate: measured ?? rateAssumed, tick, isInteger }
  }

  private async sessionOf(plan: Plan, columns: Columns): Promise<Target> {
    const { key, name, scale, sensor, session, to } = this.play
    if (session !== undefined && key !== undefined) return this.targetOf(parseSession(session, to), key, plan, columns)
    const unit = this.play.unit ?? (plan.isInteger && scale === undefined ? "count" : "m/s²")
    const channels: ReadonlyArray<Channel> = columns.channels.map((name) => ({
      name,
      unit,
      scale: scale ?? 1,
      offset: 0
    }))
    const created = await createSession(parseServer(to), {
      channels,
      rate: plan.rate,
      tick: plan.tick,
      ...(name === undefined ? {} : { name }),
      ...(sensor === undefined ? {} : { sensor })
    }, this.signal)
    const link = parseLink(created.url)
    return { link, shared: created.links, key: created.key, unit, tick: plan.tick, countsOnly: scale !== undefined }
  }

  /** A session that is there already: the recording must be what it describes. */
  private async targetOf(link: SessionLink, key: string, plan: Plan, columns: Columns): Promise<Target> {
    const { channels, rate, tick } = await getSession(link, this.signal)
    const described = Array.isArray(channels) ? channels.filter(isChannel) : []
    if (described.length !== columns.channels.length) {
      throw new CommandError(
        `Cannot stream to the session ${link.id}: it has ${described.length} channels, the recording ${columns.channels.length}`
      )
    }
    if (typeof rate === "number" && Math.abs(rate / plan.rate - 1) > 0.05) {
      this.listener.onNotice(`The session says ${rate} Hz, the recording has ${plan.rate} Hz`)
    }
    return {
      link,
      shared: { self: urlOf(link), data: urlOf(link, "data") },
      key,
      unit: described[0]?.unit ?? "",
      tick: typeof tick === "number" ? tick : 1,
      countsOnly: described.some(({ offset, scale }) => scale !== 1 || offset !== 0)
    }
  }

  private async add(row: Row): Promise<void> {
    this.rowsRead++
    const frames = this.packer?.add(row) ?? []
    if (frames.length > 0) await this.send(frames)
  }

  private async send(frames: ReadonlyArray<DeviceFrame>): Promise<void> {
    const { device } = this
    if (device === undefined) return
    for (const frame of frames) {
      await this.due(frame, device)
      while (!device.put(frame)) await device.room()
      this.listener.onProgress(this.progress)
    }
  }

  /** Waits for the moment at which the device would have taken the frame's last sample. */
  private async due(frame: DeviceFrame, device: Device): Promise<void> {
    const speed = this.play.speed ?? (this.isPipe ? "max" : 1)
    if (speed === "max") return
    const at = this.started + frame.next / (this.rate * speed) * 1000
    while (performance.now() < at) {
      // In steps: what becomes durable meanwhile is shown.
      const step = Math.min(at - performance.now(), 100)
      await during(device, sleep(Math.max(0, step), undefined, { signal: this.signal }))
      this.listener.onProgress(this.progress)
    }
  }

  /** The next piece, or `late` when a frame has waited long enough for it. */
  private orLate(next: Promise<Piece>): Promise<Piece | "late"> {
    const { device, packer } = this
    const piece = !this.isPipe || packer?.pending === 0 ? next : orLate(next, waitMax)
    return device === undefined ? piece : during<Piece | "late">(device, piece)
  }

  private async finish(): Promise<Progress> {
    const { device, packer } = this
    if (device === undefined || packer === undefined) throw new Error("finished before it began")
    if (packer.roundedTimes > 0) {
      this.listener.onNotice(`${packer.roundedTimes} times were rounded to ${packer.tick} µs, the session's tick`)
    }
    const shown = setInterval(() => this.listener.onProgress(this.progress), 100)
    try {
      await device.whenDurable()
      if (this.play.keepOpen !== true) await device.end()
    } finally {
      clearInterval(shown)
    }
    return { ...this.progress, share: 1 }
  }

  private get progress(): Progress {
    const { bytesRead, fileBytes, rowsRead } = this
    const status = this.device?.status
    const samples = status?.next ?? 0
    // Rows are of about the same length; the piece that was read last is not sent yet.
    const rows = fileBytes === undefined || bytesRead === 0 ? undefined : rowsRead * fileBytes / bytesRead
    return {
      share: rows === undefined || rows === 0 ? undefined : Math.min(1, samples / rows),
      samples,
      durable: status?.durable ?? 0,
      bytes: status?.bytes ?? 0,
      seconds: (performance.now() - this.started) / 1000,
      roundTrip: status?.latency
    }
  }
}

type Pieces = AsyncGenerator<ReadonlyArray<Row>, void, undefined>
type Piece = IteratorResult<ReadonlyArray<Row>, void>

interface Head {
  readonly rows: ReadonlyArray<Row>
  /** The piece after them, if there is one. */
  readonly next: Promise<Piece> | undefined
}

/** The session that is streamed to. */
interface Target {
  readonly link: SessionLink
  readonly shared: SharedLinks
  readonly key: string
  readonly unit: string
  readonly tick: number
  readonly countsOnly: boolean
}

const isChannel = (u: unknown): u is Channel =>
  typeof u === "object" && u !== null && "unit" in u && "scale" in u && "offset" in u

/** `--session` may be a link of its own, or an id on the server of `--to`. */
const parseSession = (session: string, to: string): SessionLink =>
  session.includes("/") ? parseLink(session) : parseLink(session, to)

/** The same promise, but rejects as soon as the device is given up. */
const during = <A>({ signal }: Device, value: Promise<A>): Promise<A> =>
  // Not a race with one long promise: that would keep every value for as long as the device lives.
  new Promise((resolve, reject) => {
    const fail = (): void => reject(signal.reason)
    if (signal.aborted) return fail()
    signal.addEventListener("abort", fail)
    value.finally(() => signal.removeEventListener("abort", fail)).then(resolve, reject)
  })

const orLate = async <A>(value: Promise<A>, ms: number): Promise<A | "late"> => {
  const timer = new AbortController()
  try {
    return await Promise.race([
      value,
      sleep(Math.max(0, ms), "late" as const, { signal: timer.signal })
    ])
  } finally {
    timer.abort()
  }
}

/** Hz, from the median step of the times; undefined when they do not rise. */
const rateOf = (rows: ReadonlyArray<Row>, timeUnit: number): number | undefined => {
  const steps = rows.slice(1).map((row, i) => ((row.time ?? 0) - (rows[i]?.time ?? 0)) * timeUnit).toSorted((a, b) =>
    a - b
  )
  const median = steps[steps.length >> 1]
  return median === undefined || median <= 0 ? undefined : Number((1e6 / median).toPrecision(6))
}
