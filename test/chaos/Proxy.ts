/**
 * A TCP proxy on loopback that treats each connection as badly as it is told to. Holds at most {@link heldMax} bytes
 * for each direction of a connection; beyond it the sender waits, as it would for a real network.
 */
import { once } from "node:events"
import { connect, createServer, type Server, type Socket } from "node:net"
import type { Random } from "../simulation/Random.ts"

/**
 * What becomes of a connection. Bytes are counted in both directions together.
 *
 * - `cut`: closed after so many bytes. - `reset`: the same, by RST, with a part of a message on its way.
 * - `half-open`: after so many bytes nothing is passed on any more, one way or both; closed {@link deadMs} later.
 * - `slow`: everything comes `delayMs` later, and now and then, as when segments are lost, all waits for `stallMs`.
 * - `crumbs`: the first 2,000 bytes one by one, then at most 100 at a time.
 */
export type Trouble =
  | { readonly kind: "none" }
  | { readonly kind: "cut" | "reset"; readonly afterBytes: number }
  | { readonly kind: "half-open"; readonly afterBytes: number; readonly ways: "up" | "down" | "both" }
  | { readonly kind: "slow"; readonly delayMs: number; readonly stallMs: number }
  | { readonly kind: "crumbs" }

const heldMax = 1024 * 1024
const deadMs = 10_000
/** How often a chunk on a slow line is one that has to be sent again. */
const stallChance = 0.02

/** A trouble of any kind. */
export const anyTrouble = (random: Random): Trouble => {
  switch (random.int(0, 5)) {
    case 0:
      return { kind: "cut", afterBytes: Math.round(random.skewed(1, 100_000)) }
    case 1:
      // The upgrade is some 250 bytes up and 130 down; a frame some 500.
      return { kind: "reset", afterBytes: random.chance(0.5) ? random.int(1, 400) : random.int(400, 30_000) }
    case 2:
      return {
        kind: "half-open",
        afterBytes: Math.round(random.skewed(1, 50_000)),
        ways: random.pick(["up", "down", "both"])
      }
    case 3:
      return { kind: "slow", delayMs: 300, stallMs: random.int(200, 2000) }
    case 4:
      return { kind: "crumbs" }
    default:
      return { kind: "none" }
  }
}

export class Proxy {
  /** Connections made, by what became of them. */
  readonly counts: Map<Trouble["kind"], number> = new Map()
  /** While true nothing is passed on, on any connection. */
  private isBlack = false
  private readonly server: Server
  private readonly open: Set<Line> = new Set()

  private readonly random: Random

  private constructor(server: Server, random: Random) {
    this.server = server
    this.random = random
  }

  /** @param trouble Asked once for each connection. */
  static async listen(port: number, target: number, trouble: () => Trouble, random: Random): Promise<Proxy> {
    const server = createServer({ noDelay: true })
    const proxy = new Proxy(server, random)
    server.on("connection", (client) => {
      const what = trouble()
      proxy.counts.set(what.kind, (proxy.counts.get(what.kind) ?? 0) + 1)
      const line: Line = new Line(
        client,
        connect({ port: target, host: "127.0.0.1", noDelay: true }),
        what,
        random,
        () => proxy.open.delete(line)
      )
      proxy.open.add(line)
      if (proxy.isBlack) line.hold(true)
    })
    server.listen(port, "127.0.0.1")
    await once(server, "listening")
    return proxy
  }

  /** Stops passing anything on, without a word to either side; or goes on with all that waited. */
  black(isBlack: boolean): void {
    this.isBlack = isBlack
    for (const line of this.open) line.hold(isBlack)
  }

  /** Resets every connection. */
  cutAll(): void {
    for (const line of this.open) line.destroy(true)
  }

  /** Resets any one of the connections. */
  cutAny(): void {
    if (this.open.size > 0) this.random.pick([...this.open]).destroy(true)
  }

  async close(): Promise<void> {
    this.cutAll()
    this.server.close()
    if (this.server.listening) await once(this.server, "close")
  }
}

/** One connection: two sockets and what lies between. */
class Line {
  private readonly sockets: readonly [Socket, Socket]
  private readonly trouble: Trouble
  private readonly random: Random
  private readonly timers: Set<NodeJS.Timeout> = new Set()
  private readonly crumbs: Array<{ chunk: Buffer; readonly size: number; readonly write: (chunk: Buffer) => void }> = []
  private passed = 0
  private isHeld = false
  private readonly onGone: () => void
  private isGone = false

  constructor(client: Socket, server: Socket, trouble: Trouble, random: Random, onGone: () => void) {
    this.sockets = [client, server]
    this.trouble = trouble
    this.random = random
    this.onGone = onGone
    this.pipe(client, server, "up")
    this.pipe(server, client, "down")
  }

  hold(isHeld: boolean): void {
    this.isHeld = isHeld
    for (const socket of this.sockets) {
      if (isHeld) socket.pause()
      else socket.resume()
    }
  }

  destroy(withReset: boolean): void {
    if (this.isGone) return
    this.isGone = true
    for (const timer of this.timers) clearTimeout(timer)
    for (const socket of this.sockets) {
      if (withReset) socket.resetAndDestroy()
      else socket.destroy()
    }
    this.onGone()
  }

  private later(ms: number, then: () => void): void {
    const timer = setTimeout(() => {
      this.timers.delete(timer)
      then()
    }, ms)
    this.timers.add(timer)
  }

  private pipe(from: Socket, to: Socket, way: "up" | "down"): void {
    let held = 0
    /** Of a slow line: what is on its way, in order, and when it arrives. */
    const underway: Array<{ readonly chunk: Buffer; readonly due: number }> = []
    const arrive = (): void => {
      while (underway[0] !== undefined && underway[0].due <= Date.now()) write(underway.shift()!.chunk)
      if (underway[0] !== undefined) this.later(underway[0].due - Date.now(), arrive)
    }
    const release = (bytes: number): void => {
      held -= bytes
      if (held <= heldMax && !this.isHeld) from.resume()
    }
    const write = (chunk: Buffer): void => {
      // What cannot be written yet is held by the socket: bounded with the rest.
      if (!to.destroyed) to.write(chunk, () => release(chunk.length))
    }
    from.on("error", () => {})
    from.on("close", () => {
      // What is on its way still arrives.
      const rest = Math.max(0, (underway.at(-1)?.due ?? 0) - Date.now())
      if (underway.length + this.crumbs.length === 0) to.end(() => this.destroy(false))
      this.later(rest + 500, () => this.destroy(false))
    })
    from.on("data", (chunk: Buffer) => {
      const { trouble } = this
      held += chunk.length
      if (held > heldMax) from.pause()
      const before = this.passed
      this.passed += chunk.length
      switch (trouble.kind) {
        case "none":
          return write(chunk)
        case "cut":
        case "reset":
          if (this.passed < trouble.afterBytes) return write(chunk)
          to.write(chunk.subarray(0, Math.max(0, trouble.afterBytes - before)))
          return this.later(1, () => this.destroy(trouble.kind === "reset"))
        case "half-open":
          if (this.passed < trouble.afterBytes) return write(chunk)
          if (before < trouble.afterBytes) this.later(deadMs, () => this.destroy(false))
          return trouble.ways === "both" || trouble.ways === way ? undefined : write(chunk)
        case "slow": {
          const stall = this.random.chance(stallChance) ? trouble.stallMs : 0
          const due = Math.max(underway.at(-1)?.due ?? 0, Date.now() + trouble.delayMs + stall)
          if (underway.push({ chunk, due }) === 1) this.later(due - Date.now(), arrive)
          return
        }
        case "crumbs":
          return this.crumble(chunk, before, write)
      }
    })
  }

  /** A turn of the event loop after each crumb, so that it leaves alone. */
  private crumble(chunk: Buffer, before: number, write: (chunk: Buffer) => void): void {
    this.crumbs.push({ chunk, size: before < 2000 ? 1 : this.random.int(1, 100), write })
    if (this.crumbs.length === 1) this.nextCrumb()
  }

  private nextCrumb(): void {
    const first = this.crumbs[0]
    if (first === undefined || this.isGone) return
    first.write(first.chunk.subarray(0, first.size))
    first.chunk = first.chunk.subarray(first.size)
    if (first.chunk.length === 0) this.crumbs.shift()
    if (this.crumbs.length > 0) setImmediate(() => this.nextCrumb())
  }
}
