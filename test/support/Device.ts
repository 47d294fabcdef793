/** A device over a real socket, as plain as it can be: what a test drives by hand. */
import {
  encodeEnd,
  encodeHello,
  type ErrorFrame,
  isFrameError,
  kinds,
  readServerFrame,
  type ServerFrame,
  subprotocol,
  type Welcome
} from "@thrum/protocol"

/** What a close was. */
export interface Closed {
  readonly code: number
  readonly reason: string
}

/** Waits until `condition` holds; fails after `timeoutMs`, saying what it waited for. */
export const until = async (what: string, condition: () => boolean, timeoutMs = 15_000): Promise<void> => {
  const deadline = Date.now() + timeoutMs
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs} ms for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

export class Device {
  readonly frames: Array<ServerFrame> = []
  received = 0
  durable = 0
  closed: Closed | undefined
  readonly ws: WebSocket
  private epochIndexes = 0

  constructor(url: string, protocols: string | Array<string> = subprotocol) {
    this.ws = new WebSocket(url, protocols)
    this.ws.binaryType = "arraybuffer"
    this.ws.addEventListener("message", (event: MessageEvent<ArrayBuffer>) => {
      const frame = readServerFrame(new Uint8Array(event.data))
      if (isFrameError(frame)) throw new Error(frame.message)
      this.frames.push(frame)
      if (frame.kind === kinds.ack) {
        this.received = frame.received
        this.durable = frame.durable
      }
    })
    this.ws.addEventListener("close", (event) => {
      this.closed = { code: event.code, reason: event.reason }
    })
  }

  /** Opens, says hello and waits for the welcome (or for the close that came instead). */
  static async connect(
    ingest: string,
    key: string | undefined,
    options: { readonly bootId?: number | Uint8Array; readonly next?: number } = {}
  ): Promise<Device> {
    const device = new Device(ingest)
    await device.opened()
    device.send(encodeHello({ key, bootId: options.bootId ?? 1, next: options.next ?? 0 }))
    await until("a welcome", () => device.welcome !== undefined || device.closed !== undefined)
    return device
  }

  async opened(): Promise<void> {
    await until("an open socket", () => this.ws.readyState !== WebSocket.CONNECTING)
  }

  get welcome(): Welcome | undefined {
    return this.frames.find((frame) => frame.kind === kinds.welcome)
  }

  get error(): ErrorFrame | undefined {
    return this.frames.find((frame) => frame.kind === kinds.error)
  }

  send(bytes: Uint8Array<ArrayBuffer> | string): void {
    this.ws.send(bytes)
  }

  /** Sends samples frames, never more than the window ahead of what was received. */
  async sendAll(
    frames: ReadonlyArray<{ readonly next: number; readonly bytes: Uint8Array<ArrayBuffer> }>
  ): Promise<void> {
    const window = this.welcome?.window ?? 0
    const flying: Array<{ readonly next: number; readonly size: number }> = []
    let inFlight = 0
    for (const frame of frames) {
      const land = (): void => {
        while (flying[0] !== undefined && flying[0].next <= this.received) inFlight -= flying.shift()!.size
      }
      land()
      if (inFlight + frame.bytes.length > window) {
        await until("an ack", () => {
          land()
          return inFlight + frame.bytes.length <= window || this.closed !== undefined
        })
      }
      if (this.closed !== undefined) throw new Error(`closed: ${this.closed.code} ${this.closed.reason}`)
      inFlight += frame.bytes.length
      flying.push({ next: frame.next, size: frame.bytes.length })
      this.send(frame.bytes)
      this.epochIndexes = frame.next
    }
  }

  /** Seals by the device's own end frame, and waits for the close. */
  async end(index: number = this.epochIndexes): Promise<Closed> {
    this.send(encodeEnd(index))
    await until("the end", () => this.closed !== undefined)
    return this.closed!
  }

  async close(): Promise<void> {
    this.ws.close()
    await until("the close", () => this.closed !== undefined)
  }
}
