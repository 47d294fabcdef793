/**
 * One WebSocket to the server, from its opening to its loss: frames in and out, signs of life, the clock.
 *
 * Bounds: {@link welcomeMax} ms to be welcomed; then a time frame every heartbeat, and the connection counts as dead when
 * nothing was heard for {@link silentBeats} heartbeats after one was asked. It is lost once, with the error that says
 * why; what a socket says after that is not heard.
 */
import {
  encodeTime,
  type ErrorFrame,
  type FrameError,
  isFrameError,
  kinds,
  type ServerFrame,
  subprotocol,
  type Time,
  type ViewerFrame
} from "@thrum/protocol"
import { ClockEstimate } from "./ClockEstimate.ts"
import { closeError, ownError, reasonOf, ThrumError } from "./ThrumError.ts"

/** ms for a connection to open and be welcomed. */
const welcomeMax = 10_000
/** Heartbeats of silence after which a connection counts as dead. */
const silentBeats = 4

/** ms between two time frames, unless the caller says otherwise. */
export const heartbeatDefault = 5000

/** What a connection hands on: errors and answers to time frames it keeps to itself. */
export type Told<F> = Exclude<F, ErrorFrame | Time>

export interface ConnectionOptions<F extends ServerFrame | ViewerFrame> {
  readonly url: string
  /** Begins every error: `go on watching`. */
  readonly doing: string
  readonly heartbeat: number
  readonly clock: ClockEstimate
  readonly read: (bytes: Uint8Array) => F | FrameError
  readonly onOpen: () => void
  readonly onFrame: (frame: Told<F>, bytes: number) => void
  /** Called once, and not after {@link Connection.close}. */
  readonly onLost: (why: ThrumError) => void
}

const isTold = <F extends ServerFrame | ViewerFrame>(frame: F): frame is F & Told<F> =>
  frame.kind !== kinds.error && frame.kind !== kinds.time

export class Connection<F extends ServerFrame | ViewerFrame> {
  private readonly options: ConnectionOptions<F>
  private readonly socket: WebSocket
  private isOver = false
  private refused: ErrorFrame | undefined
  private heard = performance.now()
  /** When the oldest time frame was sent that nothing came after. */
  private asked: number | undefined
  private beaten = 0
  private readonly timer: ReturnType<typeof setTimeout>
  private pulse: ReturnType<typeof setInterval> | undefined

  constructor(options: ConnectionOptions<F>) {
    this.options = options
    const socket = this.socket = openSocket(options.url)
    this.timer = setTimeout(
      () => this.lose(this.lostBecause(`the server did not answer for ${welcomeMax / 1000} s`)),
      welcomeMax
    )
    socket.binaryType = "arraybuffer"
    socket.addEventListener("open", () => {
      if (!this.isOver) options.onOpen()
    })
    socket.addEventListener("message", ({ data }: MessageEvent<unknown>) => {
      if (!this.isOver) this.receive(data)
    })
    socket.addEventListener("close", ({ code }) => {
      this.lose(
        code === 1005 || code === 1006 ?
          this.lostBecause("the connection was cut") :
          closeError(options.doing, code, this.refused)
      )
    })
    // Says nothing that the close after it does not say; unheard it would end a process.
    socket.addEventListener("error", () => {})
  }

  /** The server has welcomed us: from here on it is asked for signs of life. */
  welcomed(): void {
    clearTimeout(this.timer)
    if (this.isOver || this.pulse !== undefined) return
    this.pulse = setInterval(() => this.beat(), this.options.heartbeat)
    this.beaten = performance.now()
    this.beat()
  }

  send(bytes: Uint8Array<ArrayBuffer>): void {
    if (!this.isOver && this.socket.readyState === WebSocket.OPEN) this.socket.send(bytes)
  }

  /** Lets go of it; nothing is heard of it any more. */
  close(): void {
    if (this.isOver) return
    this.isOver = true
    clearTimeout(this.timer)
    clearInterval(this.pulse)
    this.socket.close(1000)
  }

  private receive(data: unknown): void {
    const { clock, doing, onFrame, read } = this.options
    this.heard = performance.now()
    this.asked = undefined
    const bytes = data instanceof ArrayBuffer ? new Uint8Array(data) : undefined
    if (bytes === undefined) return this.lose(notThrum(doing, "the server sent text where thrum.v1 has frames"))
    const frame = read(bytes)
    if (isFrameError(frame)) {
      return this.lose(notThrum(doing, `the server sent what is no frame of thrum.v1: ${frame.message}`))
    }
    if (isTold(frame)) return onFrame(frame, bytes.length)
    if (frame.kind === kinds.error) this.refused = frame
    else if (frame.kind === kinds.time && frame.server !== undefined) clock.take(frame.device, frame.server)
  }

  private beat(): void {
    const now = performance.now()
    const { heartbeat } = this.options
    // A page that slept was deaf, whatever the server sent: it asks again before it believes the silence.
    if (now - this.beaten > 2 * heartbeat) this.asked = undefined
    this.beaten = now
    if (this.asked !== undefined && now - this.asked >= silentBeats * heartbeat) {
      return this.lose(this.lostBecause(`the server was silent for ${Math.round((now - this.heard) / 1000)} s`))
    }
    this.asked ??= now
    this.send(encodeTime(ClockEstimate.now()))
  }

  private lostBecause(why: string): ThrumError {
    return this.refused === undefined ?
      new ThrumError("ConnectionLost", `Cannot ${this.options.doing}: ${why}`, { code: 1006 }) :
      // It had said why before the line was cut.
      closeError(this.options.doing, this.refused.code, this.refused)
  }

  private lose(why: ThrumError): void {
    if (this.isOver) return
    this.close()
    this.options.onLost(why)
  }
}

/** A page of https may open no ws, and some ports nobody may: that is not told by a close. */
const openSocket = (url: string): WebSocket => {
  try {
    return new WebSocket(url, [subprotocol])
  } catch (error) {
    throw ownError("BadLink", `Cannot connect to ${url}: ${reasonOf(error)}`, error)
  }
}

const notThrum = (doing: string, why: string): ThrumError => ownError("NotThrum", `Cannot ${doing}: ${why}`)
