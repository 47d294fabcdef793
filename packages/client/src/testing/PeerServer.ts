/** A server of thrum.v1 that keeps what a device sent it and does what a test says. */
import {
  encodeAck,
  encodeTime,
  encodeWelcome,
  isFrameError,
  kinds,
  readDeviceFrame,
  readSamples,
  sampleCount
} from "@thrum/protocol"
import { once } from "node:events"
import type { AddressInfo } from "node:net"
import { type WebSocket as Peer, WebSocketServer } from "ws"

export const portOf = (server: { readonly address: () => AddressInfo | string | null }): number => {
  const address = server.address()
  if (address === null || typeof address === "string") throw new Error("the server does not listen")
  return address.port
}

/** Waits until it is true; fails after 5 s. */
export const until = async (isTrue: () => boolean): Promise<void> => {
  for (let i = 0; i < 1000; i++) {
    if (isTrue()) return
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  throw new Error("it did not become true in 5 s")
}

export interface Got {
  readonly connection: number
  readonly index: number
  readonly next: number
  readonly bytes: Uint8Array
}

export class PeerServer {
  /** Every samples frame in the order it came. */
  readonly got: Array<Got> = []
  readonly hellos: Array<{ readonly key: string | undefined; readonly bootId: string; readonly next: number }> = []
  readonly ends: Array<number> = []
  connections = 0
  window: number = 1 << 18
  /** Where the stream is. */
  next = 0
  peer: Peer | undefined
  onSamples: (index: number, next: number) => void = () => {}
  onHello: (connection: number, peer: Peer) => void = () => this.welcome()
  onEnd: (index: number) => void = () => {}
  answersTime = true
  private readonly server: WebSocketServer

  private constructor() {
    this.server = new WebSocketServer({ port: 0, host: "127.0.0.1" })
    this.server.on("connection", (peer) => {
      const connection = ++this.connections
      this.peer = peer
      peer.on("message", (data: Buffer) => this.take(connection, peer, data))
    })
  }

  static async start(): Promise<PeerServer> {
    const server = new PeerServer()
    await once(server.server, "listening")
    return server
  }

  get url(): string {
    return `ws://127.0.0.1:${portOf(this.server)}/ingest`
  }

  welcome(epoch = 0): void {
    this.peer?.send(encodeWelcome({ epoch, next: this.next, window: this.window, server: 0, sure: true }))
  }

  ack(received: number, durable: number): void {
    this.peer?.send(encodeAck({ received, durable, window: this.window }))
  }

  close(): void {
    for (const peer of this.server.clients) peer.terminate()
    this.server.close()
  }

  private take(connection: number, peer: Peer, data: Buffer): void {
    // What a connection still held when it was cut is lost with it.
    if (peer.readyState !== peer.OPEN) return
    const frame = readDeviceFrame(data)
    if (isFrameError(frame)) throw frame
    if (frame.kind === kinds.hello) {
      this.hellos.push(frame)
      this.onHello(connection, peer)
    } else if (frame.kind === kinds.samples) {
      const samples = readSamples(data)
      if (isFrameError(samples)) throw samples
      const next = frame.index + (sampleCount(samples.block) ?? 0)
      this.got.push({ connection, index: frame.index, next, bytes: data })
      this.next = next
      this.onSamples(frame.index, next)
    } else if (frame.kind === kinds.end) {
      this.ends.push(frame.index)
      this.onEnd(frame.index)
    } else if (this.answersTime) peer.send(encodeTime(frame.device, Date.now() * 1000))
  }
}
