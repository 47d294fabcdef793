/**
 * A connection between a client and a server: messages in order, each after a delay, until it is cut.
 *
 * Both ends learn of a cut in their own time; until then they talk to nobody. What was on its way to the server when the
 * client left still arrives, as long as the server has not noticed.
 */
import type { Random } from "./Random.ts"
import type { Process, Timeline } from "./Timeline.ts"

/** Why a connection ended, as its client sees it: a close with a name, or nothing heard. */
export type Close = { readonly name: string; readonly text: string } | undefined

export interface Network {
  /** Milliseconds one way, at most. */
  delayMax: number
}

export class Link<Up, Down> {
  onUp: (message: Up) => void = () => {}
  onDown: (message: Down) => void = () => {}
  /** The server learns that the client is gone. */
  onClientGone: () => void = () => {}
  /** The client learns that the server is gone, or has closed. */
  onServerGone: (close: Close) => void = () => {}
  private readonly timeline: Timeline
  private readonly random: Random
  private readonly network: Network
  readonly server: Process
  private upAt = 0
  private downAt = 0
  private clientLeft = false
  private serverLeft = false
  private isCut = false

  constructor(timeline: Timeline, random: Random, network: Network, server: Process) {
    this.timeline = timeline
    this.random = random
    this.network = network
    this.server = server
  }

  get isOpen(): boolean {
    return !this.clientLeft && !this.serverLeft && !this.isCut
  }

  get isOpenToServer(): boolean {
    return !this.serverLeft
  }

  up(message: Up): void {
    if (this.clientLeft || this.isCut) return
    this.upAt = this.arrival(this.upAt)
    this.timeline.at(this.upAt, () => {
      if (!this.serverLeft) this.onUp(message)
    }, this.server)
  }

  down(message: Down): void {
    if (this.serverLeft || this.isCut) return
    this.downAt = this.arrival(this.downAt)
    this.timeline.at(this.downAt, () => {
      if (!this.clientLeft) this.onDown(message)
    })
  }

  /** The client is gone, now. The server notices after `delay` at the earliest. */
  leave(delay: number): void {
    if (this.clientLeft) return
    this.clientLeft = true
    this.timeline.at(Math.max(this.timeline.now + delay, this.upAt), () => this.dropServer(), this.server)
  }

  /** The server closes: what it sent before arrives first. It is done with the client when that has answered. */
  close(close: Close): void {
    if (this.serverLeft) return
    this.serverLeft = true
    this.downAt = this.arrival(this.downAt)
    const told = this.isCut ? this.timeline.now + this.random.between(10, 5000) : this.downAt
    this.timeline.at(told, () => this.dropClient(this.isCut ? undefined : close))
    this.timeline.at(told + this.random.skewed(0.05, this.network.delayMax), () => this.onClientGone(), this.server)
  }

  /** Nothing passes any more; each end notices in its own time. What was on its way is lost. */
  cut(clientDelay: number, serverDelay: number): void {
    if (this.isCut) return
    this.isCut = true
    this.timeline.after(clientDelay, () => this.dropClient(undefined))
    this.timeline.after(serverDelay, () => this.dropServer(), this.server)
  }

  private dropClient(close: Close): void {
    if (this.clientLeft) return
    this.clientLeft = true
    this.onServerGone(close)
  }

  private dropServer(): void {
    if (this.serverLeft) return
    this.serverLeft = true
    this.onClientGone()
  }

  private arrival(before: number): number {
    const { network, random, timeline } = this
    return Math.max(before, timeline.now + random.skewed(0.05, network.delayMax))
  }
}
