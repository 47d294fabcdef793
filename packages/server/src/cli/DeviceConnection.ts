/**
 * The device's end of a session: keeps every frame until it is stored for certain, and sends it as often as that takes.
 *
 * Holds the frames that are not durable yet, at most {@link bufferBytesMax} bytes; when they fill it, {@link
 * DeviceConnection.put} refuses and the caller waits for {@link DeviceConnection.room}. Never more than the server's
 * window is on its way. A lost connection is opened again, later and later, and goes on where the server says; a close
 * that says not to come back, and {@link patience} without progress, end it with an error.
 */
import {
  codes,
  encodeEnd,
  encodeHello,
  encodeTime,
  type ErrorFrame,
  isFrameError,
  kinds,
  readServerFrame,
  type ServerFrame,
  subprotocol
} from "@thrum/protocol"
import { delayBefore } from "./Backoff.ts"
import { CommandError } from "./CommandError.ts"
import type { PackedFrame } from "./FramePacker.ts"

/** Frames that are not durable yet, bytes. */
const bufferBytesMax = 8_388_608
/** ms without any progress, while there is something to send, after which it is given up. */
const patience = 120_000
/** ms for a connection to open and be welcomed. */
const welcomeMax = 10_000
/** ms between two time frames: they tell a dead connection from a quiet one. */
const beat = 5000
/** ms of silence after which a connection counts as dead. */
const silenceMax = 20_000

export interface DeviceOptions {
  /** `ws(s)://host/sessions/ID/ingest`. */
  readonly url: string
  readonly key: string
  /** New at every start of the device: 8 random bytes. */
  readonly bootId: Uint8Array
  /** Told about each connection that was lost, one sentence. */
  readonly onAway?: (why: string) => void
  /** Asked when a connection could not be opened: why there is no use in trying again, or undefined. */
  readonly refusal?: () => Promise<CommandError | undefined>
}

/** A caller that waits for something to be true. */
interface Waiter {
  readonly isTrue: () => boolean
  readonly resolve: () => void
  readonly reject: (error: CommandError) => void
}

export class DeviceConnection {
  /** Everything before it is stored for certain. */
  durable = 0
  /** Everything before it arrived. */
  received = 0
  /** Index after the last frame that was put. */
  next = 0
  /** Bytes of the frames that were put. */
  bytes = 0
  /** Frames that were sent more than once. */
  resent = 0
  /** Connections after the first. */
  reconnects = 0
  /** ms from a time frame to its answer, the last one. */
  roundTrip: number | undefined
  /** The server has sealed the session after our end. Whether all of it is durable, `durable` says. */
  isSealed = false

  private readonly options: DeviceOptions
  private readonly started = performance.now()
  /** Not durable yet, in order. */
  private frames: Array<PackedFrame> = []
  private buffered = 0
  /** In `frames`: the next to send, and the first not received. */
  private cursor = 0
  private unreceived = 0
  /** Index after the last frame that was ever sent. */
  private sent = 0
  private inFlight = 0
  private window = 0

  private socket: WebSocket | undefined
  private isWelcome = false
  private refused: ErrorFrame | undefined
  private tries = 0
  private heard = 0
  private progressed = performance.now()
  private endWanted = false
  private endSent = false
  private timer: ReturnType<typeof setTimeout> | undefined
  private readonly pulse: ReturnType<typeof setInterval>
  private failure: CommandError | undefined
  private isClosed = false
  private waiters: Array<Waiter> = []
  private readonly guarded = new Set<(error: CommandError) => void>()

  constructor(options: DeviceOptions) {
    this.options = options
    this.pulse = setInterval(() => this.checkLife(), beat)
    this.connect()
  }

  /**
   * Takes a frame; its index must be where the last one ended.
   *
   * @returns False when the buffer is full: nothing was taken, wait for {@link room}.
   */
  put(frame: PackedFrame): boolean {
    if (this.failure !== undefined) throw this.failure
    if (this.buffered >= bufferBytesMax) return false
    if (this.frames.length === 0) this.progressed = performance.now()
    this.frames.push(frame)
    this.buffered += frame.bytes.length
    this.bytes += frame.bytes.length
    this.next = frame.next
    this.pump()
    return true
  }

  /** Returns when {@link put} takes a frame again. Rejects when the connection is given up. */
  room(): Promise<void> {
    return this.wait(() => this.buffered < bufferBytesMax)
  }

  /** Returns when everything that was put is durable. */
  settled(): Promise<void> {
    return this.wait(() => this.frames.length === 0)
  }

  /** Seals the session after everything that was put is durable. Returns when the server has done so. */
  end(): Promise<void> {
    this.endWanted = true
    this.progressed = performance.now()
    this.pump()
    return this.wait(() => this.isSealed)
  }

  /** The same promise, but rejects as soon as the connection is given up. */
  during<A>(value: Promise<A>): Promise<A> {
    // Not a race with one long promise: that would keep every value for as long as the connection lives.
    return new Promise((resolve, reject) => {
      if (this.failure !== undefined) return reject(this.failure)
      this.guarded.add(reject)
      value.finally(() => this.guarded.delete(reject)).then(resolve, reject)
    })
  }

  /** Lets go of the connection, whatever is still on its way. */
  close(): void {
    this.stop(new CommandError("Cannot go on streaming: it was stopped"))
  }

  private wait(isTrue: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      this.waiters.push({ isTrue, resolve, reject })
      this.tell()
    })
  }

  private tell(): void {
    const waiting = this.waiters
    this.waiters = []
    for (const waiter of waiting) {
      if (waiter.isTrue()) waiter.resolve()
      else if (this.failure !== undefined) waiter.reject(this.failure)
      else this.waiters.push(waiter)
    }
  }

  private connect(): void {
    const socket = new WebSocket(this.options.url, [subprotocol])
    socket.binaryType = "arraybuffer"
    this.socket = socket
    this.isWelcome = false
    this.refused = undefined
    this.heard = performance.now()
    // A socket that was given up still speaks; only the current one is listened to.
    const isCurrent = (): boolean => this.socket === socket
    this.timer = setTimeout(() => {
      if (isCurrent()) this.lose(1006, `the server did not answer for ${welcomeMax / 1000} s`)
    }, welcomeMax)
    socket.addEventListener("open", () => {
      if (isCurrent()) this.hello(socket)
    })
    socket.addEventListener("message", ({ data }: MessageEvent<unknown>) => {
      if (isCurrent()) this.receive(data)
    })
    socket.addEventListener("close", ({ code }) => {
      if (isCurrent()) this.lose(code, code === 1006 ? "the connection was cut" : `the server closed with ${code}`)
    })
    // Says nothing that the close after it does not say; unheard it would end the process.
    socket.addEventListener("error", () => {})
  }

  private hello(socket: WebSocket): void {
    const { bootId, key } = this.options
    socket.send(encodeHello({ key, bootId, next: this.frames[0]?.index ?? this.next }))
  }

  private receive(data: unknown): void {
    this.heard = performance.now()
    const frame = data instanceof ArrayBuffer ? readServerFrame(new Uint8Array(data)) : undefined
    if (frame === undefined) return this.fail("the server sent text where thrum.v1 has frames")
    if (isFrameError(frame)) return this.fail(`the server sent what is no frame of thrum.v1: ${frame.message}`)
    this.take(frame)
    this.tell()
  }

  private take(frame: ServerFrame): void {
    switch (frame.kind) {
      case kinds.welcome:
        clearTimeout(this.timer)
        this.isWelcome = true
        this.window = frame.window
        this.goTo(frame.next)
        break
      case kinds.ack:
        this.window = frame.window
        this.acknowledge(frame.received, frame.durable)
        break
      case kinds.rewind:
        this.goTo(frame.next)
        break
      case kinds.error:
        this.refused = frame
        break
      case kinds.time:
        this.roundTrip = (performance.now() - this.started) - frame.device / 1000
        break
      default:
        frame satisfies never
    }
    this.pump()
  }

  /** The server wants to go on from `next`: what comes before it arrived, what comes after is sent again. */
  private goTo(next: number): void {
    const at = next === this.next ? this.frames.length : this.frames.findIndex((frame) => frame.index === next)
    if (at < 0) {
      const kept = this.frames[0]?.index ?? this.next
      return this.fail(`the server wants to go on from index ${next}, kept are frames from ${kept} to ${this.next}`)
    }
    this.cursor = this.unreceived = at
    this.inFlight = 0
    this.received = next
    this.endSent = false
  }

  private acknowledge(received: number, durable: number): void {
    while ((this.frames[this.unreceived]?.next ?? Infinity) <= received && this.unreceived < this.cursor) {
      this.inFlight -= this.frames[this.unreceived++]!.bytes.length
      this.progress()
    }
    this.received = received
    let freed = 0
    while ((this.frames[freed]?.next ?? Infinity) <= durable) this.buffered -= this.frames[freed++]!.bytes.length
    if (freed > 0) {
      // Stored for certain, whatever `received` says: it cannot be on its way any more.
      for (let i = this.unreceived; i < Math.min(freed, this.cursor); i++) this.inFlight -= this.frames[i]!.bytes.length
      this.frames = this.frames.slice(freed)
      this.cursor = Math.max(0, this.cursor - freed)
      this.unreceived = Math.max(0, this.unreceived - freed)
      this.progress()
    }
    this.durable = Math.max(this.durable, durable)
  }

  /** The server takes what it is sent: tries and patience begin anew. */
  private progress(): void {
    this.tries = 0
    this.progressed = performance.now()
  }

  /** Sends what the window has room for. */
  private pump(): void {
    const { socket } = this
    if (!this.isWelcome || socket?.readyState !== WebSocket.OPEN) return
    for (let frame = this.frames[this.cursor]; frame !== undefined; frame = this.frames[this.cursor]) {
      if (this.inFlight > 0 && this.inFlight + frame.bytes.length > this.window) return
      socket.send(frame.bytes)
      this.inFlight += frame.bytes.length
      this.cursor++
      if (frame.index < this.sent) this.resent++
      this.sent = Math.max(this.sent, frame.next)
    }
    if (this.endWanted && !this.endSent) {
      socket.send(encodeEnd(this.next))
      this.endSent = true
    }
  }

  private checkLife(): void {
    const now = performance.now()
    const waits = this.frames.length > 0 || this.endWanted
    if (waits && now - this.progressed > patience) {
      return this.fail(`the server took nothing for ${patience / 1000} s`)
    }
    if (!this.isWelcome || this.socket?.readyState !== WebSocket.OPEN) return
    if (now - this.heard > silenceMax) return this.lose(1006, `the server was silent for ${silenceMax / 1000} s`)
    this.socket.send(encodeTime(Math.round((now - this.started) * 1000)))
  }

  /** The connection is gone: for good, or to be opened again. */
  private lose(code: number, why: string): void {
    const [socket, refused, wasWelcome, endSent] = [this.socket, this.refused, this.isWelcome, this.endSent]
    clearTimeout(this.timer)
    this.socket = undefined
    this.isWelcome = false
    socket?.close()
    // Sealed by our own end, whose answer a cut connection may have kept from us.
    if (endSent && (code === codes.Ended.code || code === codes.SessionEnded.code)) {
      this.isSealed = true
      this.tell()
      return this.stop(undefined)
    }
    const delay = delayBefore(code, this.tries++, refused?.retryAfter)
    if (delay === undefined) return this.fail(sentenceOf(code, refused))
    this.reconnects++
    this.options.onAway?.(refused === undefined ? why : sentenceOf(code, refused))
    const reconnect = (): void => {
      if (!this.isClosed) this.timer = setTimeout(() => this.connect(), delay)
    }
    const { refusal } = this.options
    if (wasWelcome || refusal === undefined) return reconnect()
    refusal().then((error) => error === undefined ? reconnect() : this.stop(error), reconnect)
  }

  private fail(why: string): void {
    this.stop(new CommandError(`Cannot go on streaming: ${why}`))
  }

  private stop(failure: CommandError | undefined): void {
    if (this.isClosed) return
    this.isClosed = true
    this.failure = failure
    if (failure !== undefined) { for (const reject of this.guarded) reject(failure) }
    clearTimeout(this.timer)
    clearInterval(this.pulse)
    const { socket } = this
    this.socket = undefined
    socket?.close(1000)
    this.tell()
  }
}

/** What a close means, in the server's words where it said any. */
export const sentenceOf = (code: number, refused: ErrorFrame | undefined): string => {
  const entry = Object.values(codes).find((entry) => entry.code === code)
  const means = entry === undefined ? `the server closed with ${code}` : entry.means.replace(/\.$/, "")
  const sentence = means.charAt(0).toLowerCase() + means.slice(1)
  return refused === undefined ? `${sentence} (${code})` : `${sentence} (${code}: ${refused.text})`
}
