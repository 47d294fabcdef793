/**
 * What a device keeps: every frame until it is stored for certain, and where the server is in them. No socket, no timer.
 *
 * Bound: `bytesMax` of frames. {@link Retention.add} drops the oldest ones to stay within it, and says which; or, for a
 * caller that wants to lose nothing, leaves it to ask {@link Retention.hasRoom} first. A dropped frame's index is not
 * used again: the server sees it missing as a jump, and tells everyone the gap.
 *
 * Frames that are on their way are counted on their own (`flying`), because the window is the server's count of bytes,
 * whatever is dropped here meanwhile.
 */
import { ownError, type ThrumError } from "./ThrumError.ts"

/** A samples frame, whole, and the indexes it holds: `[index, next)`. */
export interface DeviceFrame {
  readonly index: number
  readonly next: number
  readonly bytes: Uint8Array<ArrayBuffer>
}

/** Bytes on their way to the server, up to an index. */
interface Flight {
  readonly next: number
  readonly bytes: number
}

export class Retention {
  /** Everything before it is stored for certain, as the server said. */
  durable = 0
  /** Everything before it arrived. */
  received = 0
  /** Index after the last frame that was added. */
  next = 0
  /** Of the frames that are kept. */
  bytes = 0
  samples = 0
  /** Samples that were dropped before they were known to be stored. */
  dropped = 0
  /** Frames that were sent more than once. */
  resent = 0
  readonly bytesMax: number
  private readonly dropsOldest: boolean
  /** Not durable yet, in order. */
  private frames: Array<DeviceFrame> = []
  /** In `frames`: the next to send. */
  private cursor = 0
  /** Frames up to here may be sent. */
  private ready = 0
  private flying: Array<Flight> = []
  private inFlight = 0
  private window = 0
  /** Index after the last frame that was ever sent. */
  private sent = 0
  private isWelcome = false

  constructor(bytesMax: number, dropsOldest: boolean) {
    this.bytesMax = bytesMax
    this.dropsOldest = dropsOldest
  }

  /** Goes on where an earlier run was: before the first frame is added. */
  restore(durable: number, next: number): void {
    this.durable = this.received = durable
    this.next = this.ready = next
  }

  hasRoom(bytes: number): boolean {
    return this.bytes + bytes <= this.bytesMax
  }

  /** Index of the oldest frame that is kept; {@link next} when there is none. */
  get first(): number {
    return this.frames[0]?.index ?? this.next
  }

  /** Whether all there is was sent on this connection. */
  get isSent(): boolean {
    return this.isWelcome && this.cursor === this.frames.length
  }

  /**
   * Keeps a frame, at or after {@link next}. It may be sent once {@link release} has passed it.
   *
   * @returns The frames that had to go for it, oldest first.
   */
  add(frame: DeviceFrame): ReadonlyArray<DeviceFrame> {
    let gone = 0
    let bytes = this.bytes + frame.bytes.length
    while (this.dropsOldest && bytes > this.bytesMax && gone < this.frames.length) {
      bytes -= this.frames[gone++]!.bytes.length
    }
    const dropped = this.shift(gone)
    for (const { index, next } of dropped) this.dropped += next - index
    this.frames.push(frame)
    this.bytes += frame.bytes.length
    this.samples += frame.next - frame.index
    this.next = frame.next
    return dropped
  }

  /** Frames before `next` may be sent. */
  release(next: number): void {
    this.ready = Math.max(this.ready, next)
  }

  /** The next frame to send, as far as the window allows. It counts as sent. */
  take(): DeviceFrame | undefined {
    const frame = this.frames[this.cursor]
    if (!this.isWelcome || frame === undefined || frame.next > this.ready) return undefined
    if (this.inFlight > 0 && this.inFlight + frame.bytes.length > this.window) return undefined
    this.cursor++
    this.flying.push({ next: frame.next, bytes: frame.bytes.length })
    this.inFlight += frame.bytes.length
    if (frame.index < this.sent) this.resent++
    this.sent = Math.max(this.sent, frame.next)
    return frame
  }

  /** The connection is gone: nothing may be sent before the next welcome. */
  disconnect(): void {
    this.isWelcome = false
  }

  /** The server goes on from `next`. */
  welcome(next: number, window: number): ThrumError | undefined {
    this.window = window
    this.isWelcome = true
    return this.goTo(next)
  }

  /** The server wants everything from `next` on once more. */
  rewind(next: number): ThrumError | undefined {
    return this.goTo(next)
  }

  /** @returns What is wrong with the ack. Whether frames were freed, {@link first} says. */
  ack(received: number, durable: number, window: number): ThrumError | undefined {
    if (durable < this.durable) return this.forgotten(durable)
    if (Math.max(received, durable) > this.next) return this.ahead(Math.max(received, durable))
    this.window = window
    this.received = received
    this.durable = durable
    // What is durable has arrived, whatever `received` says: after a rewind it stands back.
    this.land(Math.max(received, durable))
    let freed = 0
    while ((this.frames[freed]?.next ?? Infinity) <= durable) freed++
    this.shift(freed)
    return undefined
  }

  private goTo(next: number): ThrumError | undefined {
    if (next < this.durable) return this.forgotten(next)
    if (next > this.next) return this.ahead(next)
    // Frames that are gone are passed over: the next one's index tells of the gap.
    const found = this.frames.findIndex((frame) => frame.next > next)
    const at = found < 0 ? this.frames.length : found
    const frame = this.frames[at]
    if (frame !== undefined && frame.index < next) {
      return ownError(
        "Contradiction",
        `Cannot go on: the server wants to go on from index ${next}, within the frame of ${frame.index} to ${frame.next}`
      )
    }
    this.cursor = at
    this.received = next
    this.flying = []
    this.inFlight = 0
    return undefined
  }

  private land(index: number): void {
    let landed = 0
    for (let flight = this.flying[0]; flight !== undefined && flight.next <= index; flight = this.flying[landed]) {
      this.inFlight -= flight.bytes
      landed++
    }
    if (landed > 0) this.flying = this.flying.slice(landed)
  }

  /** Takes the oldest frames out. */
  private shift(count: number): ReadonlyArray<DeviceFrame> {
    if (count === 0) return []
    const gone = this.frames.slice(0, count)
    this.frames = this.frames.slice(count)
    this.cursor = Math.max(0, this.cursor - count)
    for (const { bytes, index, next } of gone) {
      this.bytes -= bytes.length
      this.samples -= next - index
    }
    return gone
  }

  private forgotten(index: number): ThrumError {
    return ownError(
      "Contradiction",
      `Cannot go on: the server is at index ${index} and had said that everything before ${this.durable} is stored`
    )
  }

  private ahead(index: number): ThrumError {
    return ownError(
      "Contradiction",
      `Cannot go on: the server is at index ${index} of this boot id, and only ${this.next} samples are known here`
    )
  }
}
