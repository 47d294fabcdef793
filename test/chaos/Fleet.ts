/**
 * Sessions one after the other, several at once, each from its creation to the check of its data: a device, viewers, an
 * end, and the data held against both. Whatever happens to the server meanwhile is none of the fleet's business.
 */
import { createHash } from "node:crypto"
import type { Random } from "../simulation/Random.ts"
import { checkData } from "./Checker.ts"
import { Device, type DeviceEnd, type Keeps } from "./Device.ts"
import { Ledger } from "./Ledger.ts"
import { type Answer, type NewSession, Rest } from "./Rest.ts"
import type { Stream } from "./Stream.ts"
import type { Tally } from "./Tally.ts"
import { Viewer } from "./Viewer.ts"
import { pause } from "./World.ts"

/** Milliseconds in which whoever is left must come to the end. Far longer than any trouble the scenarios make. */
const catchUpMs = 120_000
/** Samples of a session up to which it is asked for as text too: more would be a test of patience. */
const textSamplesMax = 100_000
/** Sessions whose data is asked for again at the end, by chance among all. */
const recheckedMax = 300

export interface FleetOptions {
  /** Sessions at once. */
  readonly devices: number
  readonly viewers: number
  readonly keeps: ReadonlyArray<Keeps>
  /** Milliseconds between two frames of a device. */
  readonly everyMs: number
  readonly samplesMax: number
  /** Bytes of a sample. */
  readonly widths: ReadonlyArray<Stream["width"]>
  /** Milliseconds a session lasts: anything between the two. */
  readonly lastsMs: readonly [number, number]
  /** How a session is ended: by its device, by REST while it still sends, or by both at once. */
  readonly endedBy: ReadonlyArray<"device" | "rest" | "both">
  /** Where REST is. */
  readonly url: string
  /** Where the WebSockets are: the same, or a proxy before it. */
  readonly socketsUrl: string
  readonly random: Random
  readonly tally: Tally
}

interface Sealed {
  readonly id: string
  readonly digest: string
  readonly etag: string | null
  readonly format: "frames" | "csv"
}

const digestOf = ({ body }: Answer): string => createHash("sha256").update(body).digest("hex")

/** Fails in words when it takes too long. */
const within = async <A>(what: string, ms: number, promise: Promise<A>): Promise<A> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${what}`)), ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

export class Fleet {
  readonly devices: Set<Device> = new Set()
  readonly viewers: Set<Viewer> = new Set()
  private readonly options: FleetOptions
  private readonly rest: Rest
  private readonly tracks: ReadonlyArray<Promise<void>>
  private readonly sealed: Array<Sealed> = []
  private sealedCount = 0
  private isStopping = false
  private wake: () => void = () => {}
  private readonly stopping: Promise<void>

  constructor(options: FleetOptions) {
    this.options = options
    this.rest = new Rest(options.url)
    this.stopping = new Promise((resolve) => {
      this.wake = resolve
    })
    this.tracks = Array.from({ length: options.devices }, (_, track) => this.run(track))
  }

  /** Sockets that were welcomed and are open. */
  get connected(): number {
    return [...this.devices, ...this.viewers].filter((peer) => peer.isConnected).length
  }

  /** Samples under a durable ack, of the sessions under way. */
  get durable(): number {
    return Array.from(this.devices).reduce((sum, device) => sum + device.durable, 0)
  }

  /** Lets every session come to its end, and waits for it. The troubles must be over. */
  async stop(): Promise<void> {
    this.isStopping = true
    this.wake()
    await Promise.all(this.tracks)
  }

  /** The data of sealed sessions, once more: the same to the byte. */
  async recheck(): Promise<void> {
    for (const { id, digest, etag, format } of this.sealed) {
      const answer = await this.rest.data(id, format)
      this.options.tally.counts("sessions read again")
      if (digestOf(answer) !== digest || answer.etag !== etag) {
        this.options.tally.breaks("changed", 1, `the data of session ${id} (${format}) is not what it was`)
      }
    }
  }

  private async run(track: number): Promise<void> {
    for (let n = 0; !this.isStopping; n++) {
      try {
        await this.session(track, n)
      } catch (cause) {
        this.options.tally.breaks(
          "broken",
          1,
          `track ${track}: ${cause instanceof Error ? cause.message : String(cause)}`
        )
        await pause(200)
      }
    }
  }

  private async session(track: number, n: number): Promise<void> {
    const { random, tally, keeps: kinds, viewers, endedBy, samplesMax, widths, everyMs, lastsMs, socketsUrl } =
      this.options
    const session = await this.rest.create()
    const keeps = kinds[(track + n) % kinds.length]!
    const stream: Stream = { seed: random.int(0, 2 ** 31), samplesMax, width: random.pick(widths) }
    const ledger = new Ledger(session.id, stream, keeps !== "nothing")
    const base = (): string => socketsUrl.replace("http", "ws")
    const device = new Device({ session, ledger, keeps, everyMs, base, random, tally })
    const watching = Array.from({ length: viewers }, (_, i) =>
      new Viewer({
        ledger,
        from: i === 0 || random.chance(0.5) ? "start" : "now",
        policy: random.chance(0.8) ? "complete" : "latest",
        base,
        random,
        tally
      }))
    this.devices.add(device)
    for (const viewer of watching) this.viewers.add(viewer)
    try {
      await this.last(device, keeps, random.between(...lastsMs))
      const how = await within(
        `the end of session ${session.id}`,
        catchUpMs,
        this.end(session, device, random.pick(endedBy))
      )
      await within(
        `the viewers of session ${session.id} to see its end`,
        catchUpMs,
        Promise.all(watching.map((viewer) => viewer.ended))
      )
      await this.check(ledger, how, watching)
    } finally {
      device.close()
      this.devices.delete(device)
      for (const viewer of watching) {
        viewer.close()
        this.viewers.delete(viewer)
      }
    }
  }

  /** Lets a session last; a device that keeps nothing loses power now and then. */
  private async last(device: Device, keeps: Keeps, ms: number): Promise<void> {
    const deadline = Date.now() + ms
    while (!this.isStopping && Date.now() < deadline) {
      const power = keeps === "nothing" ? this.options.random.between(0, 8000) : Infinity
      await Promise.race([pause(Math.max(1, Math.min(power, deadline - Date.now()))), this.stopping])
      if (power < Infinity && Date.now() < deadline && !this.isStopping) device.reboot()
    }
  }

  private async end(session: NewSession, device: Device, by: "device" | "rest" | "both"): Promise<DeviceEnd> {
    if (by === "device") {
      device.end()
      return device.ended
    }
    device.expectEnd()
    const ends = [this.rest.end(session)]
    if (by === "both") {
      // Twice is once; and the device's own end comes between.
      ends.push(this.rest.end(session))
      device.end()
    }
    await Promise.all(ends)
    return device.ended
  }

  private async check(ledger: Ledger, how: DeviceEnd, watching: ReadonlyArray<Viewer>): Promise<void> {
    const { tally } = this.options
    const answer = await this.rest.data(ledger.id)
    const stored = checkData(ledger, answer.body, how === "own", tally)
    for (const viewer of watching) viewer.sight.compare(stored)
    // A group that was stored in part would show here: the sums are moved by the statement that adds the frames.
    const standing = await this.rest.standing(ledger.id)
    if (standing.state !== "ended" || standing.samples !== stored.samples || standing.bytes !== stored.bytes) {
      tally.breaks(
        "broken",
        1,
        `session ${ledger.id} says ${standing.state}, ${standing.samples} samples in ${standing.bytes} bytes; ` +
          `its data has ${stored.samples} in ${stored.bytes}`
      )
    }
    tally.counts("sessions checked")
    for (const format of stored.samples > textSamplesMax ? ["frames"] as const : ["frames", "csv"] as const) {
      const again = await this.rest.data(ledger.id, format)
      if (format === "frames" && digestOf(again) !== digestOf(answer)) {
        tally.breaks("changed", 1, `the data of session ${ledger.id} was another the second time`)
      }
      this.remember({ id: ledger.id, digest: digestOf(again), etag: again.etag, format })
    }
  }

  /** Each of all is kept with the same chance. */
  private remember(sealed: Sealed): void {
    const place = this.options.random.int(0, this.sealedCount++)
    if (this.sealed.length < recheckedMax) this.sealed.push(sealed)
    else if (place < recheckedMax) this.sealed[place] = sealed
  }
}
