/**
 * The viewer's end of a session: every frame once, in order, across as many connections as it takes.
 *
 * Holds one frame at a time. A lost connection is opened again at the position after the last sample that was shown; a
 * close that says not to come back, and {@link patience} without a connection, end it with an error.
 */
import {
  type Block,
  type CaughtUp,
  codes,
  type Durable,
  encodeTime,
  type Ended,
  type Epoch,
  type ErrorFrame,
  formatPosition,
  type Gap,
  isFrameError,
  kindOf,
  kinds,
  type Position,
  readBlock,
  readServerFrame,
  readViewerFrame,
  type Samples,
  subprotocol,
  type ViewerFrame,
  type ViewerWelcome
} from "@thrum/protocol"
import { delayBefore } from "./Backoff.ts"
import { CommandError } from "./CommandError.ts"
import { sentenceOf } from "./DeviceConnection.ts"

/** ms without a connection after which it is given up. */
const patience = 120_000
/** ms for a connection to open and be welcomed. */
const welcomeMax = 10_000
/** ms between two time frames: they tell a dead connection from a quiet session, and how the clocks differ. */
const beat = 5000
/** ms of silence after which a connection counts as dead. */
const silenceMax = 20_000

/** Samples that are shown for the first time. */
export interface Shown {
  readonly kind: typeof kinds.samples
  /** Where sample {@link skip} is. */
  readonly position: Position
  /** Of the block: these first samples came before, or before the position that was asked for. */
  readonly skip: number
  readonly block: Block
  /** Device µs of the block's first sample. */
  readonly t0: number | undefined
  /** Bytes of the frame. */
  readonly bytes: number
}

/** What the server's clock shows, compared with ours. */
export interface Clock {
  readonly kind: "clock"
  /** µs to add to ours, since 1970, to get the server's. */
  readonly offset: number
}

/** The connection was lost and will be opened again. */
export interface Away {
  readonly kind: "away"
  readonly why: string
}

export type ViewerEvent = ViewerWelcome | Epoch | Shown | Durable | Gap | CaughtUp | Ended | Away | Clock

export interface ViewerOptions {
  /** `ws(s)://host/sessions/ID/live`. */
  readonly url: string
  readonly from: "start" | "now" | Position
  readonly onEvent: (event: ViewerEvent) => void
  /**
   * Asked after each event: returns a promise when no more can be taken until it resolves. A WebSocket cannot be paused,
   * so the connection is closed meanwhile and goes on where it was.
   */
  readonly room?: () => Promise<void> | undefined
  /** Asked when a connection could not be opened: why there is no use in trying again, or undefined. */
  readonly refusal?: () => Promise<CommandError | undefined>
  readonly signal?: AbortSignal
}

class ViewerConnection {
  /** Settles when the session has ended, or when it is no use to go on. */
  readonly done: Promise<void>
  private readonly resolve: () => void
  private readonly reject: (error: unknown) => void
  private readonly options: ViewerOptions
  private next: Position | undefined
  private channels = 0
  private epoch = 0
  private announced: number | undefined
  private socket: WebSocket | undefined
  private isWelcome = false
  private hasEnded = false
  private refused: ErrorFrame | undefined
  private tries = 0
  private since = performance.now()
  private timer: ReturnType<typeof setTimeout> | undefined
  private heard = performance.now()
  private readonly pulse: ReturnType<typeof setInterval>
  private isClosed = false

  constructor(options: ViewerOptions) {
    const { promise, reject, resolve } = Promise.withResolvers<void>()
    this.done = promise
    this.resolve = resolve
    this.reject = reject
    this.options = options
    this.pulse = setInterval(() => this.checkLife(), beat)
    options.signal?.addEventListener("abort", () => this.stop(options.signal?.reason))
    if (options.signal?.aborted === true) this.stop(options.signal.reason)
    else this.connect()
  }

  private connect(): void {
    const { from, url } = this.options
    const position = this.next ?? from
    const query = typeof position === "string" ? position : formatPosition(position)
    const socket = new WebSocket(`${url}?from=${query}&format=frames`, [subprotocol])
    socket.binaryType = "arraybuffer"
    this.socket = socket
    this.isWelcome = false
    this.refused = undefined
    this.heard = performance.now()
    const isCurrent = (): boolean => this.socket === socket
    this.timer = setTimeout(() => {
      if (isCurrent()) this.lose(1006, `the server did not answer for ${welcomeMax / 1000} s`)
    }, welcomeMax)
    socket.addEventListener("message", ({ data }: MessageEvent<unknown>) => {
      if (isCurrent()) this.receive(data)
    })
    socket.addEventListener("close", ({ code }) => {
      if (isCurrent()) this.lose(code, code === 1006 ? "the connection was cut" : `the server closed with ${code}`)
    })
    // Says nothing that the close after it does not say; unheard it would end the process.
    socket.addEventListener("error", () => {})
  }

  private receive(data: unknown): void {
    this.heard = performance.now()
    const bytes = data instanceof ArrayBuffer ? new Uint8Array(data) : undefined
    if (bytes === undefined) return this.fail("the server sent text where thrum.v1 has frames")
    if (kindOf(bytes) === kinds.time) return this.compareClocks(bytes)
    const frame = readViewerFrame(bytes)
    if (isFrameError(frame)) return this.fail(`the server sent what is no frame of thrum.v1: ${frame.message}`)
    try {
      this.take(frame, bytes.length)
      const room = this.hasEnded ? undefined : this.options.room?.()
      if (room !== undefined) this.pause(room)
    } catch (error) {
      // Of the caller's own making, such as an output that is closed.
      this.stop(error)
    }
  }

  private pause(room: Promise<void>): void {
    const { socket } = this
    this.socket = undefined
    socket?.close(1000)
    room.then(() => {
      if (!this.isClosed) this.connect()
    }, (error: unknown) => this.stop(error))
  }

  private compareClocks(bytes: Uint8Array): void {
    const frame = readServerFrame(bytes)
    if (isFrameError(frame) || frame.kind !== kinds.time || frame.server === undefined) return
    const now = Date.now() * 1000
    this.options.onEvent({ kind: "clock", offset: frame.server - (frame.device + now) / 2 })
  }

  private checkLife(): void {
    if (!this.isWelcome || this.socket?.readyState !== WebSocket.OPEN) return
    if (performance.now() - this.heard > silenceMax) {
      return this.lose(1006, `the server was silent for ${silenceMax / 1000} s`)
    }
    this.socket.send(encodeTime(Date.now() * 1000))
  }

  private take(frame: ViewerFrame, bytes: number): void {
    const { onEvent } = this.options
    switch (frame.kind) {
      case kinds.viewerWelcome: {
        clearTimeout(this.timer)
        this.isWelcome = true
        this.tries = 0
        this.checkLife()
        this.channels = frame.session.channels.length
        this.epoch = frame.from.epoch
        const isFirst = this.next === undefined
        this.next ??= frame.from
        return isFirst ? onEvent(frame) : undefined
      }
      case kinds.epoch:
        this.epoch = frame.epoch
        if (frame.epoch > (this.next?.epoch ?? 0)) this.next = { epoch: frame.epoch, index: 0 }
        // Each connection begins with the epoch it is in.
        if (frame.epoch === this.announced) return
        this.announced = frame.epoch
        return onEvent(frame)
      case kinds.samples:
        return this.show(frame, bytes)
      case kinds.gap:
        this.next = frame.to
        return onEvent(frame)
      case kinds.ended:
        this.hasEnded = true
        return onEvent(frame)
      case kinds.durable:
      case kinds.caughtUp:
        return onEvent(frame)
      case kinds.error:
        this.refused = frame
        return undefined
      default:
        frame satisfies never
    }
  }

  private show(frame: Samples, bytes: number): void {
    const { index, t0 } = frame
    const block = readBlock(frame.block, this.channels)
    if (isFrameError(block)) return this.fail(`the server sent a frame that cannot be read: ${block.message}`)
    const skip = this.next?.epoch === this.epoch ? Math.max(0, this.next.index - index) : 0
    if (skip >= block.count) return
    this.next = { epoch: this.epoch, index: index + block.count }
    this.options.onEvent({
      kind: kinds.samples,
      position: { epoch: this.epoch, index: index + skip },
      skip,
      block,
      t0,
      bytes
    })
  }

  private lose(code: number, why: string): void {
    const [socket, refused, wasWelcome] = [this.socket, this.refused, this.isWelcome]
    clearTimeout(this.timer)
    this.socket = undefined
    this.isWelcome = false
    socket?.close()
    if (this.hasEnded) return this.stop(undefined)
    if (code === codes.Ended.code) return this.fail("the server closed before it said that the session has ended")
    const now = performance.now()
    if (wasWelcome) this.since = now
    else if (now - this.since > patience) return this.fail(`the server did not answer for ${patience / 1000} s`)
    const delay = delayBefore(code, this.tries++, refused?.retryAfter)
    if (delay === undefined) return this.fail(sentenceOf(code, refused))
    this.options.onEvent({ kind: "away", why: refused === undefined ? why : sentenceOf(code, refused) })
    const reconnect = (): void => {
      if (!this.isClosed) this.timer = setTimeout(() => this.connect(), delay)
    }
    const { refusal } = this.options
    if (wasWelcome || refusal === undefined) return reconnect()
    refusal().then((error) => error === undefined ? reconnect() : this.stop(error), reconnect)
  }

  private fail(why: string): void {
    this.stop(new CommandError(`Cannot go on watching: ${why}`))
  }

  private stop(failure: unknown): void {
    if (this.isClosed) return
    this.isClosed = true
    clearTimeout(this.timer)
    clearInterval(this.pulse)
    const { socket } = this
    this.socket = undefined
    socket?.close(1000)
    if (failure === undefined) this.resolve()
    else this.reject(failure)
  }
}

/**
 * Watches a session until it has ended.
 *
 * @throws {@link CommandError} when it is no use to go on; what `onEvent` throws; the signal's reason.
 */
export const viewSession = (options: ViewerOptions): Promise<void> => new ViewerConnection(options).done
