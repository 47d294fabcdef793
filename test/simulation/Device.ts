/**
 * A device: produces frames, sends them inside its window, keeps them as long as it can, and comes back.
 *
 * What it does wrong is what real ones do wrong: forgets, ignores a rewind, reboots, repeats what is stored, sends what
 * it had passed over, leaves a connection half open and starts another.
 */
import { encodeSamples, isFrameError, packCounts } from "@thrum/protocol"
import type { Link } from "./Network.ts"
import type { Random } from "./Random.ts"
import type { DeviceDown, DeviceUp } from "./Server.ts"
import type { Timeline } from "./Timeline.ts"
import type { Trace } from "./Trace.ts"
import { Boot, type Produced, type SessionTruth, type Truth } from "./Truth.ts"

/** What a device keeps of what is not durable: all; the last few frames; nothing (and a rewind means nothing to it). */
export type Keeping = "all" | "little" | "nothing"

export interface DeviceHabits {
  readonly keeping: Keeping
  /** Frames that "little" is. */
  readonly keptMax: number
  /** Bytes it sends beyond the last `received`. */
  readonly window: number
  /** Milliseconds between two frames, at most. */
  readonly everyMax: number
  /** Samples of a frame, at most. */
  readonly countMax: number
  /** Bytes that stand after the block of a frame, for size. */
  readonly padding: number
  /** Frames before `next` that it sends again when it resumes, at most. */
  readonly overlapMax: number
  /** Probability per frame that it sends a stored one again. */
  readonly repeats: number
  /** Probability per frame that it passes over some indexes. */
  readonly skips: number
  /** Probability per frame that it then sends what it passed over. */
  readonly late: number
  /** Probability per frame of a power cut. */
  readonly reboots: number
  /** Ends its session by itself: when all it has sent is durable, or as soon as it has sent all. */
  readonly ends: "never" | "durable" | "sent"
}

interface Surroundings {
  readonly timeline: Timeline
  readonly random: Random
  readonly trace: Trace
  readonly truth: Truth
  /** A connection to some server, or undefined when none is up. */
  readonly connect: (device: Device) => Link<DeviceUp, DeviceDown> | undefined
}

/** Milliseconds a device waits for a sign of life before it tries another connection. */
const patience = 3000

export class Device {
  readonly session: SessionTruth
  readonly habits: DeviceHabits
  boot: Boot
  /** Nothing more will be produced. */
  isDone = false
  /** It was told that its session has ended. */
  hasEnded = false
  private readonly world: Surroundings
  private link: Link<DeviceUp, DeviceDown> | undefined
  private boots = 0
  private nextIndex = 0
  /** Produced and not known to be durable, oldest first; and what it may still repeat or send late. */
  private kept: Array<Produced> = []
  private stored: Array<Produced> = []
  private passedOver: Array<Produced> = []
  private readonly skipped = new Set<Produced>()
  private isWelcome = false
  /** Index of the next frame to send on this connection. */
  private sendAt = 0
  private received = 0
  private sent: Array<Produced> = []
  private heardAt = 0
  private pumping: (() => void) | undefined
  private backoff = 10

  constructor(session: SessionTruth, habits: DeviceHabits, world: Surroundings) {
    this.session = session
    this.habits = habits
    this.world = world
    this.boot = this.nextBoot()
    this.produceLater()
    this.connectLater(0)
    this.watch()
  }

  get name(): string {
    return this.boot.name
  }

  /** Whether all it can still do is done: every frame it has kept is durable. */
  get isSettled(): boolean {
    return this.hasEnded || (this.isDone && (this.habits.keeping === "nothing" || this.kept.length === 0))
  }

  /** Frames that wait for a durable ack. */
  get waiting(): number {
    return this.kept.length
  }

  /** Frames of this power-up that must be stored: those it did not pass over, and has let go of for good. */
  get owed(): ReadonlyArray<Produced> {
    if (this.habits.keeping !== "all") return []
    const kept = new Set([...this.kept, ...this.skipped])
    return [...this.boot.produced.values()].filter((frame) => !kept.has(frame))
  }

  /** The end of its work: sends what it has, and leaves if it keeps nothing. */
  finish(): void {
    this.isDone = true
    if (this.habits.keeping === "nothing") this.leave(0)
    else this.pump()
  }

  private nextBoot(): Boot {
    const boot = new Boot(this.session, `${this.boots++}`)
    this.session.boots.set(boot.bootId, boot)
    return boot
  }

  private produceLater(): void {
    const { random, timeline } = this.world
    timeline.after(random.skewed(0.2, this.habits.everyMax), () => {
      if (this.isDone || this.hasEnded) return
      this.produce()
      this.produceLater()
    })
  }

  private produce(): void {
    const { habits, world: { random } } = this
    if (random.chance(habits.reboots) && (this.isWelcome || this.link === undefined)) this.reboot()
    if (random.chance(habits.skips)) {
      const frame = this.make(random.int(1, habits.countMax))
      this.passedOver.push(frame)
      this.skipped.add(frame)
    }
    const frame = this.make(random.int(1, habits.countMax))
    if (habits.keeping === "nothing") {
      if (this.isWelcome && this.inFlight() < habits.window) this.send(frame)
      return
    }
    this.kept.push(frame)
    if (habits.keeping === "little" && this.kept.length > habits.keptMax) {
      this.kept.shift()
    }
    this.pump()
  }

  private make(count: number): Produced {
    const first = this.nextIndex
    this.nextIndex += count
    const seed = first * 31 + Number(this.boot.bootId) * 7
    const block = packCounts(Array.from({ length: count }, (_, i) => (seed + i * i) % 251), 1, { predictors: [0] })
    if (isFrameError(block)) throw block
    const frame = {
      first,
      next: this.nextIndex,
      bytes: pad(encodeSamples(first, undefined, block), this.habits.padding)
    }
    this.boot.produced.set(first, frame)
    return frame
  }

  private reboot(): void {
    this.say("reboots")
    this.leave(this.world.random.skewed(0, 2000))
    this.boot = this.nextBoot()
    this.kept = []
    this.stored = []
    this.passedOver = []
    this.nextIndex = 0
    this.sendAt = 0
    this.received = 0
    this.connectLater(this.world.random.skewed(1, 500))
  }

  /** Leaves the connection; the server notices later. */
  private leave(noticed: number): void {
    if (this.link !== undefined) this.hasLeft = true
    this.link?.leave(noticed)
    this.link = undefined
    this.isWelcome = false
  }

  private connectLater(delay: number): void {
    const { timeline } = this.world
    const boot = this.boot
    timeline.after(delay, () => {
      if (this.link !== undefined || this.boot !== boot || this.hasEnded) return
      if (this.isDone && this.habits.keeping === "nothing") return
      this.connect()
    })
  }

  private connect(): void {
    const link = this.world.connect(this)
    this.heardAt = this.world.timeline.now
    if (link === undefined) return this.comeBack()
    this.link = link
    this.isCalm = this.isDone
    link.onDown = (message) => {
      if (this.link !== link) return
      this.heardAt = this.world.timeline.now
      this.hear(message)
    }
    link.onServerGone = (close) => {
      if (this.link !== link) return
      this.link = undefined
      this.isWelcome = false
      if (close === undefined) this.hasLeft = true
      this.closed(close?.name, close?.text)
    }
    link.up({ _tag: "Hello", boot: this.boot, next: this.kept[0]?.first ?? this.nextIndex })
  }

  private comeBack(): void {
    this.backoff = Math.min(1000, this.backoff * 2)
    this.connectLater(this.world.random.between(1, this.backoff))
  }

  private closed(name: string | undefined, text: string | undefined): void {
    this.say(`is closed: ${name ?? "cut"}`)
    switch (name) {
      case "Ended":
      case "SessionEnded":
        this.hasEnded = true
        return
      case undefined:
      case "Restarting":
      case "Overloaded":
      case "ArchiveUnavailable":
      case "NotFlushed":
      case "EndMismatch":
        return this.comeBack()
      case "Superseded":
        // By a hello of its own, on a connection it had left: nobody else has its key.
        if (this.hasLeft) return this.comeBack()
        break
      case "OutOfOrder":
        // Who sends what it passed over is refused for it; who has too many gaps must begin anew.
        if (text?.includes("begin a new one")) {
          this.reboot()
          return this.comeBack()
        }
        if (this.sentLate) {
          this.sentLate = false
          return this.comeBack()
        }
    }
    this.world.truth.fail(`${this.name} did no wrong and was closed with ${name}: ${text}`)
  }

  private sentLate = false
  private hasLeft = false
  /** On this connection. */
  private saidEnd = false
  /** This connection was made when nothing went wrong any more. */
  private isCalm = false

  private hear(message: DeviceDown): void {
    switch (message._tag) {
      case "Welcome":
        this.isWelcome = true
        this.saidEnd = false
        this.backoff = 10
        this.resumeAt(message.next)
        return
      case "Ack":
        this.received = message.received
        this.world.truth.acked(this.boot, message.durable, this.kept)
        while (this.kept[0] !== undefined && this.kept[0].next <= message.durable) this.stored.push(this.kept.shift()!)
        return this.pump()
      case "Rewind":
        if (this.habits.keeping === "nothing") return
        this.say(`rewinds to ${message.next}`)
        this.resumeAt(message.next)
    }
  }

  private resumeAt(next: number): void {
    const { habits, world: { random } } = this
    this.received = next
    this.sent = []
    if (habits.keeping === "nothing") return
    let from = this.kept.findIndex((frame) => frame.next > next)
    if (from < 0) from = this.kept.length
    from = Math.max(0, from - random.int(0, habits.overlapMax))
    this.sendAt = this.kept[from]?.first ?? this.nextIndex
    this.pump()
  }

  /** Bytes it has sent beyond `received`, whether it still has the frames or not. */
  private inFlight(): number {
    this.sent = this.sent.filter((frame) => frame.next > this.received)
    return this.sent.reduce((bytes, frame) => bytes + frame.bytes.length, 0)
  }

  /** Sends what may be sent, a frame at a time. */
  private pump(): void {
    const { habits, world: { random, timeline } } = this
    if (this.pumping !== undefined || !this.isWelcome || this.hasEnded) return
    const frame = this.kept.find((frame) => frame.first >= this.sendAt)
    if (frame === undefined) {
      const isTime = habits.ends === "sent" || (habits.ends === "durable" && this.kept.length === 0)
      if (this.isDone && isTime && !this.saidEnd) {
        this.saidEnd = true
        this.say(`ends at ${this.nextIndex}`)
        this.link?.up({ _tag: "End", final: this.nextIndex })
      }
      return
    }
    if (this.inFlight() + frame.bytes.length > habits.window) return
    this.send(frame)
    this.sendAt = frame.next
    if (random.chance(habits.repeats) && this.stored.length > 0) this.send(random.pick(this.stored))
    this.sendPassedOver()
    this.pumping = timeline.after(random.skewed(0, 5), () => {
      this.pumping = undefined
      this.pump()
    })
  }

  private sendPassedOver(): void {
    const late = this.passedOver[0]
    if (late === undefined || late.next > this.sendAt || !this.world.random.chance(this.habits.late)) return
    this.passedOver.shift()
    this.sentLate = true
    this.send(late)
  }

  private send(frame: Produced): void {
    this.sent.push(frame)
    this.link?.up({ _tag: "Samples", frame })
  }

  /** Leaves a connection on which nothing is heard, while there is something to wait for. */
  private watch(): void {
    const { timeline } = this.world
    timeline.after(patience / 4, () => {
      if (this.hasEnded) return
      const waits = !this.isWelcome || this.kept.length > 0 || this.isDone
      if (this.link !== undefined && waits && timeline.now - this.heardAt > patience) {
        this.say("hears nothing, tries another connection")
        if (this.isWelcome && this.isCalm && this.kept.length > 0) {
          this.world.truth.fail(`${this.name} waits for ${this.kept.length} frames to be stored and hears nothing`)
        }
        this.leave(this.world.random.skewed(0, 5000))
        this.comeBack()
      }
      this.watch()
    })
  }

  private say(text: string): void {
    this.world.trace.say(this.world.timeline.now, `${this.name} ${text}`)
  }
}

/** A frame with one more element: bytes that nobody reads. */
const pad = (frame: Uint8Array, padding: number): Uint8Array => {
  if (padding === 0) return frame
  const padded = new Uint8Array(frame.length + 3 + padding)
  padded.set(frame)
  padded[0] = 0x95
  padded[frame.length] = 0xc5
  padded[frame.length + 1] = padding >>> 8
  padded[frame.length + 2] = padding & 0xff
  padded.fill(frame[2]!, frame.length + 3)
  return padded
}
