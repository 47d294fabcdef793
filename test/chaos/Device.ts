/**
 * A device by docs/PROTOCOL.md, Appendix A, on the standard WebSocket: it produces at its pace whatever happens, keeps
 * as much as it is made to, resends what it is asked for, and writes into its ledger what became of each frame.
 */
import { encodeEnd, encodeHello, isFrameError, kinds, readServerFrame, type ServerFrame } from "@thrum/protocol"
import type { Random } from "../simulation/Random.ts"
import { Boot, type Ledger } from "./Ledger.ts"
import { Line } from "./Line.ts"
import type { NewSession } from "./Rest.ts"
import { frameAt, type Measured } from "./Stream.ts"
import type { Tally } from "./Tally.ts"

/** What a device keeps of what is not durable: `everything`; what is not older than 30 s; `nothing` once it is sent. */
export type Keeps = "everything" | "30 s" | "nothing"

const keptMs = 30_000

export interface DeviceOptions {
  readonly session: NewSession
  readonly ledger: Ledger
  readonly keeps: Keeps
  /** Milliseconds between two frames. */
  readonly everyMs: number
  /** `ws://host:port` */
  readonly base: () => string
  readonly random: Random
  readonly tally: Tally
}

/** How a session ended for its device: by its own end frame, or by others. */
export type DeviceEnd = "own" | "others"

interface Kept extends Measured {
  readonly at: number
}

export class Device {
  readonly ended: Promise<DeviceEnd>
  private readonly options: DeviceOptions
  private readonly line: Line
  private readonly beat: NodeJS.Timeout
  private onEnded!: (how: DeviceEnd) => void
  private boot: Boot
  private bootId: Uint8Array
  private kept: Array<Kept> = []
  // Of the connection:
  private isWelcome = false
  /** In `kept`: the next to send. */
  private cursor = 0
  /** The index the server expects next, once all that was sent has come. */
  private streamAt = 0
  private window = 0
  private received = 0
  private flying: Array<{ readonly next: number; readonly size: number }> = []
  private flyingBytes = 0
  /** `asked`: the device will end the session when all is sent. `sent`: it has said so, on this connection or another. */
  private ending: "no" | "asked" | "sent" = "no"
  private isEndSentHere = false
  /** Whether others may end the session too. */
  private isRaced = false

  constructor(options: DeviceOptions) {
    this.options = options
    this.ended = new Promise((resolve) => {
      this.onEnded = resolve
    })
    this.boot = new Boot(0, options.tally)
    options.ledger.boots.push(this.boot)
    this.bootId = this.newBootId()
    this.line = new Line({
      url: () => `${options.base()}/sessions/${options.session.id}/ingest`,
      onOpen: () => this.hello(),
      onMessage: (message) => this.hear(message),
      onClose: (code, reason) => this.closed(code, reason)
    }, options.random)
    this.line.open()
    this.beat = setInterval(() => this.produce(), options.everyMs)
  }

  /** Whether it has a welcome and may send. */
  get isConnected(): boolean {
    return this.isWelcome
  }

  /** The index after the last sample produced since it was last switched on. */
  get produced(): number {
    return this.boot.produced
  }

  /** The index before which all is durable, as it was told. */
  get durable(): number {
    return this.boot.durable
  }

  /** Loses power: what it kept is gone, it starts at 0 with a new boot id. */
  reboot(): void {
    if (this.ending !== "no") return
    this.boot = new Boot(this.boot.number + 1, this.options.tally)
    this.options.ledger.boots.push(this.boot)
    this.bootId = this.newBootId()
    this.kept = []
    this.isWelcome = false
    this.line.abandon()
  }

  /** Measures no more, sends what is left, then ends the session. */
  end(): void {
    clearInterval(this.beat)
    this.ending = "asked"
    this.pump()
  }

  /** Others are about to end the session. It goes on producing until it is told. */
  expectEnd(): void {
    this.isRaced = true
  }

  close(): void {
    clearInterval(this.beat)
    this.line.close()
  }

  private newBootId(): Uint8Array {
    return Uint8Array.from({ length: 8 }, () => this.options.random.int(0, 255))
  }

  private wrong(sentence: string): void {
    this.options.tally.breaks("broken", 1, `device of session ${this.options.session.id}: ${sentence}`)
  }

  private produce(): void {
    const frame = frameAt(this.options.ledger.stream, this.boot.number, this.boot.produced)
    const entry = this.boot.produce(frame.index, frame.next)
    this.options.tally.counts("samples produced", frame.next - frame.index)
    if (this.options.keeps === "nothing") {
      if (this.isWelcome && this.line.isOpen && this.flyingBytes + frame.bytes.length <= this.window) {
        this.sendFrame(frame)
      } else entry.fate = "dropped"
      return
    }
    const at = Date.now()
    this.kept.push({ ...frame, at })
    if (this.options.keeps === "30 s") {
      while (this.kept[0] !== undefined && this.kept[0].at < at - keptMs) this.forgetOldest()
    }
    this.pump()
  }

  /** Of what was not sent it is certain that it will never be. */
  private forgetOldest(): void {
    const oldest = this.kept.shift()
    if (oldest === undefined) return
    if (this.cursor > 0) this.cursor--
    else this.boot.entries.get(oldest.index)!.fate = "dropped"
  }

  private sendFrame(frame: Measured): void {
    this.line.send(frame.bytes)
    this.flying.push({ next: frame.next, size: frame.bytes.length })
    this.flyingBytes += frame.bytes.length
    this.streamAt = frame.next
    this.boot.sent = Math.max(this.boot.sent, frame.next)
  }

  private pump(): void {
    if (!this.isWelcome || !this.line.isOpen) return
    while (this.cursor < this.kept.length) {
      const frame = this.kept[this.cursor]!
      if (this.flyingBytes + frame.bytes.length > this.window) return
      this.cursor++
      this.sendFrame(frame)
    }
    if (this.ending !== "no" && !this.isEndSentHere) {
      this.ending = "sent"
      this.isEndSentHere = true
      this.line.send(encodeEnd(this.streamAt))
    }
  }

  private hello(): void {
    this.isWelcome = false
    const { session: { ingestKey: key } } = this.options
    const next = this.kept[0]?.index ?? this.boot.produced
    this.line.send(encodeHello({ key, bootId: this.bootId, next }))
  }

  private hear(message: Uint8Array<ArrayBuffer>): void {
    const frame = readServerFrame(message)
    if (isFrameError(frame)) return this.wrong(frame.message)
    this.take(frame)
    this.pump()
  }

  private take(frame: ServerFrame): void {
    const { boot } = this
    switch (frame.kind) {
      case kinds.welcome:
        if (!this.options.ledger.register(boot, frame.epoch)) {
          return this.wrong(`boot ${boot.number} was in epoch ${boot.epoch} and is welcomed in ${frame.epoch}`)
        }
        if (!frame.sure) this.wrong("the server says that its commits are not sure")
        if (frame.next < boot.durable) {
          this.options.tally.breaks(
            "lost",
            boot.durable - frame.next,
            `device of session ${this.options.session.id}: ${boot.durable} was durable, it is welcomed at ${frame.next}`
          )
        }
        this.isWelcome = true
        this.isEndSentHere = false
        this.window = frame.window
        this.options.tally.counts("welcomes")
        return this.resendFrom(frame.next)
      case kinds.ack:
        if (frame.durable > frame.received || frame.received > boot.sent) {
          this.wrong(`it sent up to ${boot.sent}, received is ${frame.received}, durable is ${frame.durable}`)
        }
        if (frame.durable < boot.durable) this.wrong(`durable went from ${boot.durable} to ${frame.durable}`)
        boot.ack(frame.durable)
        this.window = frame.window
        this.received = frame.received
        while (this.flying[0] !== undefined && this.flying[0].next <= this.received) {
          this.flyingBytes -= this.flying.shift()!.size
        }
        while (this.kept[0] !== undefined && this.kept[0].next <= frame.durable) {
          this.kept.shift()
          this.cursor = Math.max(0, this.cursor - 1)
        }
        return
      case kinds.rewind:
        this.options.tally.counts("rewinds")
        return this.resendFrom(frame.next)
      default:
        return
    }
  }

  private resendFrom(index: number): void {
    if (index > this.boot.sent) this.wrong(`it sent up to ${this.boot.sent}, the server wants ${index} next`)
    const oldest = this.kept[0]?.index ?? Infinity
    // A device that keeps nothing has sent, and no longer has, whatever the server does not have.
    this.boot.resendFrom(index, (entry) => entry.index >= oldest)
    const at = this.kept.findIndex((frame) => frame.next > index)
    this.cursor = at < 0 ? this.kept.length : at
    const first = this.kept[this.cursor]
    if (first !== undefined && first.index < index) {
      this.wrong(`the server wants ${index} next, inside the frame at ${first.index}`)
    }
    this.received = this.streamAt = index
    this.flying = []
    this.flyingBytes = 0
  }

  private closed(code: number, reason: string): boolean {
    this.isWelcome = false
    if (code === 1000 && this.ending === "sent") return this.over("own")
    if (code === 4005) {
      // The answer to its end frame may have been lost with the connection.
      if (this.ending === "sent" && !this.isRaced) return this.over("own")
      if (this.isRaced) return this.over("others")
    }
    // An end and a rewind have crossed; or it crossed the end of others, and the next hello tells.
    if (code === 4013 && this.ending === "sent") return true
    // A hello of a connection that was given up came after ours: it was our own.
    if (code === 4010 && this.line.abandoned > 0) {
      this.options.tally.counts("overtaken by an own old hello")
      return true
    }
    if (code >= 4000 && code < 4100 || code === 1000 || code === 1009) {
      this.wrong(`it did nothing wrong and was closed with ${code} "${reason}"`)
      this.over("others")
    }
    return false
  }

  private over(how: DeviceEnd): false {
    if (how === "own") this.boot.ackAll()
    this.close()
    this.onEnded(how)
    return false
  }
}
