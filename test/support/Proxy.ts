/** A network between a client and a server, on loopback: it can be cut, fall silent, be slow, and crumble what it carries. */
import { once } from "node:events"
import { connect, createServer, type Server, type Socket } from "node:net"

export interface Proxy {
  /** `http://127.0.0.1:<port>`, in place of the server's. */
  readonly url: string
  /** Where new connections go: a server that was started again has another address. */
  target: string
  /** ms that every byte is on its way. */
  delay: number
  /** Bytes that travel together at most. */
  pieceBytes: number
  /** Nothing is carried any more, and nobody is told. New connections are taken, and fall silent too. */
  isSilent: boolean
  /** Bytes towards the server after which all connections are reset. */
  resetAfter: number
  /** Connections so far. */
  readonly connections: number
  /** Ends all connections, as a router does that loses its power. */
  readonly cut: () => void
  readonly close: () => Promise<void>
}

class Network implements Proxy {
  target: string
  delay = 0
  pieceBytes = Infinity
  isSilent = false
  resetAfter = Infinity
  connections = 0
  private readonly server: Server
  private readonly sockets = new Set<Socket>()

  constructor(target: string) {
    this.target = target
    this.server = createServer({ noDelay: true }, (near) => this.join(near)).listen(0, "127.0.0.1")
  }

  async listening(): Promise<this> {
    await once(this.server, "listening")
    return this
  }

  get url(): string {
    const address = this.server.address()
    if (address === null || typeof address === "string") throw new Error("the proxy does not listen")
    return `http://127.0.0.1:${address.port}`
  }

  readonly cut = (): void => {
    for (const socket of this.sockets) socket.resetAndDestroy()
  }

  readonly close = async (): Promise<void> => {
    this.cut()
    this.server.close()
    await once(this.server, "close")
  }

  private join(near: Socket): void {
    this.connections++
    const far = connect({ host: "127.0.0.1", port: Number(new URL(this.target).port), noDelay: true })
    for (const [from, to] of [[near, far], [far, near]] as const) {
      this.sockets.add(from)
      from.on("data", (data: Buffer) => this.carry(data, to, to === far))
      from.on("error", () => {})
      from.on("close", () => {
        this.sockets.delete(from)
        // What is still on its way arrives before the end does.
        if (!this.isSilent) setTimeout(() => to.destroy(), this.delay)
      })
    }
  }

  private carry(data: Buffer, to: Socket, isUp: boolean): void {
    if (this.isSilent) return
    if (isUp && (this.resetAfter -= data.length) < 0) {
      this.resetAfter = Infinity
      // A part of it arrives: the middle of a frame.
      to.write(data.subarray(0, data.length >> 1))
      setImmediate(this.cut)
      return
    }
    const { delay, pieceBytes } = this
    const pass = (): void => {
      if (to.destroyed) return
      if (pieceBytes >= data.length) return void to.write(data)
      for (let at = 0; at < data.length; at += pieceBytes) to.write(data.subarray(at, at + pieceBytes))
    }
    // Timers of one length fire in the order they were made: bytes do not overtake each other.
    if (delay === 0) pass()
    else setTimeout(pass, delay)
  }
}

/** Starts a network in front of `target` (`http://127.0.0.1:<port>`). */
export const startProxy = (target: string): Promise<Proxy> => new Network(target).listening()
