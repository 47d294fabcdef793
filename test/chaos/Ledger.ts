/**
 * What one session's device produced, and what it knows became of each frame. Written by the device, read by the
 * checker; bounded by the session's length, gone with its check.
 */
import type { Stream } from "./Stream.ts"
import type { Tally } from "./Tally.ts"

/**
 * `open`: produced, and neither of the others. `acked`: under a durable ack of a connection that was sent it, or was
 * told that it is there. `dropped`: asked for again when the device did not have it any more.
 */
export type Fate = "open" | "acked" | "dropped"

export interface Entry {
  readonly index: number
  readonly next: number
  fate: Fate
}

/** One power-up: its frames by index. */
export class Boot {
  /** Counted by the device, from 0. */
  readonly number: number
  /** As the server numbers it; unknown until a welcome. */
  epoch: number | undefined
  readonly entries: Map<number, Entry> = new Map()
  /** The index after the last sample produced. */
  produced = 0
  /** The index after the last sample that ever left the device. */
  sent = 0
  /** As acked. */
  durable = 0
  private readonly open: Array<Entry> = []
  private settled = 0
  private readonly tally: Tally

  constructor(number: number, tally: Tally) {
    this.number = number
    this.tally = tally
  }

  produce(index: number, next: number): Entry {
    const entry: Entry = { index, next, fate: "open" }
    this.entries.set(index, entry)
    this.open.push(entry)
    this.produced = next
    return entry
  }

  /** A durable ack. */
  ack(durable: number): void {
    this.durable = Math.max(this.durable, durable)
    while (this.settled < this.open.length && this.open[this.settled]!.next <= durable) {
      const entry = this.open[this.settled++]!
      if (entry.fate === "open") this.settle(entry)
    }
  }

  /** The session was ended by the device's own end frame: everything it did not drop is stored. */
  ackAll(): void {
    for (const entry of this.open.slice(this.settled)) if (entry.fate === "open") this.settle(entry)
    this.settled = this.open.length
  }

  /** The server wants frames from `index` on; those that are not `kept` any more are given up. */
  resendFrom(index: number, kept: (entry: Entry) => boolean): void {
    for (let i = this.open.length - 1; i >= this.settled && this.open[i]!.index >= index; i--) {
      const entry = this.open[i]!
      if (entry.fate === "open" && !kept(entry)) entry.fate = "dropped"
    }
  }

  private settle(entry: Entry): void {
    entry.fate = "acked"
    this.tally.counts("samples acked", entry.next - entry.index)
  }
}

export class Ledger {
  readonly id: string
  readonly stream: Stream
  /** Whether every sample the device produced must be in the data, dropped or not. */
  readonly keeps: boolean
  readonly boots: Array<Boot> = []
  private readonly byEpoch: Map<number, Boot> = new Map()

  constructor(id: string, stream: Stream, keeps: boolean) {
    this.id = id
    this.stream = stream
    this.keeps = keeps
  }

  bootOf(epoch: number): Boot | undefined {
    return this.byEpoch.get(epoch)
  }

  /** A welcome named the epoch of a boot. False when it had another, or another boot has it. */
  register(boot: Boot, epoch: number): boolean {
    if (boot.epoch === undefined && !this.byEpoch.has(epoch)) {
      boot.epoch = epoch
      this.byEpoch.set(epoch, boot)
    }
    return boot.epoch === epoch
  }
}
