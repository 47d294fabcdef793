/**
 * A WebSocket that comes back: what devices and viewers have in common. It asks the server for its time each second, and
 * gives up a connection on which nothing came for {@link silentMs}: a line may be dead without a word.
 */
import { comeBack, encodeTime, subprotocol } from "@thrum/protocol"
import type { Random } from "../simulation/Random.ts"

/** Milliseconds. */
const askEveryMs = 1000
const silentMs = 4000
/** Between two tries: doubles from the first to the last, the half of it by chance. */
const backoffFirstMs = 30
const backoffLastMs = 1000

/** How a peer hears of its line. Nothing is heard of a connection that was given up. */
export interface Ends {
  /** The WebSocket to open, asked anew each time. */
  readonly url: () => string
  readonly onOpen: () => void
  readonly onMessage: (message: Uint8Array<ArrayBuffer>) => void
  /** @returns Whether to come back though the code says never. */
  readonly onClose: (code: number, reason: string) => boolean
}

export class Line {
  /** Connections given up while the server may not know. */
  abandoned = 0
  private readonly ends: Ends
  private readonly random: Random
  private ws: WebSocket | undefined
  private heardAt = 0
  private isHeard = false
  private tries = 0
  private retry: NodeJS.Timeout | undefined
  private watch: NodeJS.Timeout | undefined
  private isOver = false

  constructor(ends: Ends, random: Random) {
    this.ends = ends
    this.random = random
  }

  get isOpen(): boolean {
    return this.ws?.readyState === WebSocket.OPEN
  }

  open(): void {
    const ws = new WebSocket(this.ends.url(), subprotocol)
    ws.binaryType = "arraybuffer"
    this.ws = ws
    this.heardAt = Date.now()
    this.isHeard = false
    ws.addEventListener("open", () => {
      if (this.ws === ws) this.ends.onOpen()
    })
    ws.addEventListener("message", (event: MessageEvent<ArrayBuffer>) => {
      if (this.ws !== ws) return
      this.heardAt = Date.now()
      this.isHeard = true
      this.tries = 0
      this.ends.onMessage(new Uint8Array(event.data))
    })
    ws.addEventListener("close", (event) => {
      if (this.ws === ws) this.closed(event.code, event.reason)
    })
    this.watch ??= setInterval(() => this.look(), askEveryMs)
  }

  send(bytes: Uint8Array<ArrayBuffer>): void {
    this.ws?.send(bytes)
  }

  /** Lets go of the connection as if it had died, and comes back. */
  abandon(): void {
    const ws = this.ws
    if (ws === undefined) return
    this.ws = undefined
    this.abandoned++
    ws.close()
    this.later()
  }

  /** For good. */
  close(): void {
    this.isOver = true
    clearTimeout(this.retry)
    clearInterval(this.watch)
    const ws = this.ws
    this.ws = undefined
    ws?.close()
  }

  private closed(code: number, reason: string): void {
    this.ws = undefined
    const anyway = this.ends.onClose(code, reason)
    if (!this.isOver && (anyway || comeBack(code) !== "never")) this.later()
  }

  private later(): void {
    if (this.isOver) return
    const most = Math.min(backoffFirstMs * 2 ** this.tries++, backoffLastMs)
    this.retry = setTimeout(() => this.open(), most * this.random.between(0.5, 1))
  }

  private look(): void {
    if (this.ws === undefined) return
    if (Date.now() - this.heardAt > silentMs) this.abandon()
    else if (this.isOpen && this.isHeard) this.send(encodeTime(Date.now() * 1000))
  }
}
