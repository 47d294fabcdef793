/**
 * The device's end of a session: takes samples, packs them, and sends each as often as it takes until it is stored for
 * certain.
 *
 * Holds what is not durable yet, at most `bufferBytesMax` bytes of frames, and one frame's samples that are not packed
 * yet. At the bound it drops the oldest frames and says which (`full: "drop-oldest"`), or takes no more until there is
 * room (`full: "wait"`). Never more than the server's window is on its way. A lost connection is opened again, later and
 * later, and goes on where the server says; a close that says not to come back ends it with an error.
 */
import {
  type Channel,
  encodeEnd,
  encodeHello,
  kinds,
  parsePosition,
  protocolLimits,
  readServerFrame,
  type ServerFrame
} from "@thrum/protocol"
import { delayBefore } from "./Backoff.ts"
import { ClockEstimate } from "./ClockEstimate.ts"
import { Connection, heartbeatDefault, type Told } from "./Connection.ts"
import type { FrameStore, StoredFrames } from "./FrameStore.ts"
import { type Door, doorOf } from "./Link.ts"
import { Packer, type SamplesArray, type Taken } from "./Packer.ts"
import { getSession, refusalOf } from "./Rest.ts"
import { type DeviceFrame, Retention } from "./Retention.ts"
import { ownError, reasonOf, ThrumError } from "./ThrumError.ts"
import { Waiters } from "./Waiters.ts"

/** Bytes of frames that are kept unless the caller says otherwise. */
const bufferBytesDefault = 8_388_608
/** Samples of a frame unless the caller says otherwise, and never more than a second of them. */
const blockSamplesDefault = 100
/** ms that samples wait for their frame to be full. */
const blockMs = 1000
/** ms between two times that a store is told what it need not keep. */
const freeEvery = 1000
/** ms between two looks whether it has taken too long. */
const lookEvery = 1000

/** How a device is opened. What `createSession` answers can be given as it is. */
export interface DeviceOptions {
  /** Any link of the session; `ws(s)://…` of another form is used as it is. */
  readonly url: string
  /** The ingest key. */
  readonly key: string
  /** Of the session: how many, or what they are. */
  readonly channels: number | ReadonlyArray<Channel>
  /** Nominal sample rate of the session, Hz. */
  readonly rate: number
  /** µs of one tick of the session's times; 1 unless given. */
  readonly tick?: number
  /** Samples of a frame at most; 100, or what a second has, unless given. A frame that is not full leaves after 1 s. */
  readonly blockSamples?: number
  /** What plain numbers and `Float64Array`s hold: values in the channels' units, unless given, or counts. */
  readonly values?: "unit" | "counts"
  /** Rounds values in the unit to float32, instead of refusing those that cannot be sent exactly. */
  readonly float32?: boolean
  /** Bytes of frames that are kept until they are durable, from 65,536; 8 MiB unless given. */
  readonly bufferBytesMax?: number
  /** At that bound: the oldest frames are dropped, unless given; or nothing more is taken. */
  readonly full?: "drop-oldest" | "wait"
  /** New at every power-up: 1 to 16 bytes. Random unless given; with a store, what it holds comes first. */
  readonly bootId?: Uint8Array
  /** Keeps frames beyond this device's life. */
  readonly store?: FrameStore
  /** ms without progress, while there is something to send, after which it is given up; never unless given. */
  readonly patience?: number
  /** ms between two signs of life; 5000 unless given. A connection that is silent for four of them is opened again. */
  readonly heartbeat?: number
  /** Told after something has changed: once for all that changes in one turn of the event loop. */
  readonly onStatus?: (status: DeviceStatus) => void
  /** Told what was dropped at the bound. */
  readonly onDrop?: (dropped: Dropped) => void
}

/**
 * `connecting` at first; `connected` while frames can be sent; `away` while a lost connection is tried again; `ended`
 * when the session is sealed with everything in it; `failed` when it is no use to go on; `closed` by the caller.
 */
export type DeviceState = "connecting" | "connected" | "away" | "ended" | "failed" | "closed"

/** Where a device stands. Indexes are of its epoch. */
export interface DeviceStatus {
  readonly state: DeviceState
  /** Undefined before the first welcome. */
  readonly epoch: number | undefined
  /** Index after the last sample that was pushed. */
  readonly next: number
  /** Everything before it arrived. */
  readonly received: number
  /** Everything before it is stored for certain, but for what was dropped. */
  readonly durable: number
  /** Whether that survives a crash of the database; undefined before the first welcome. */
  readonly isSure: boolean | undefined
  /** Frames that are kept, and their samples with those that wait for a frame. */
  readonly bufferedBytes: number
  readonly bufferedSamples: number
  /** Samples that were dropped at the bound before they were known to be stored. */
  readonly dropped: number
  /** Frames that were sent more than once. */
  readonly resent: number
  /** Connections that were lost and opened again. */
  readonly reconnects: number
  /** Bytes of all frames that were made. */
  readonly bytes: number
  /** ms to the server and back; undefined before it was measured. */
  readonly latency: number | undefined
  /** µs to add to this machine's clock to get the server's; undefined before it was measured. */
  readonly clockOffset: number | undefined
  /** Whether frames are kept in a store. */
  readonly isKept: boolean
  /** Whether it goes on with what a store had. */
  readonly isResumed: boolean
  /** The last thing that went wrong, even when it was mended. */
  readonly lastError: ThrumError | undefined
}

/** Samples that are not kept any more: viewers and readers see a gap in their place, unless they had arrived. */
export interface Dropped {
  readonly from: number
  readonly to: number
  /** Of `[from, to)`, the samples that there were. */
  readonly samples: number
}

const badOption = (why: string): ThrumError => ownError("BadOption", `Cannot open the device: ${why}`)

const check = (options: DeviceOptions): void => {
  const { blockSamples, bootId, bufferBytesMax, channels, key, rate, tick = 1 } = options
  const count = typeof channels === "number" ? channels : channels.length
  const { bootIdBytesMax, channelsMax, keyBytesMax, messageBytesMax, samplesPerFrameMax } = protocolLimits
  if (!(Number.isInteger(count) && count >= 1 && count <= channelsMax.value)) {
    throw badOption(`${count} is no number of channels from 1 to ${channelsMax.value}`)
  }
  if (!(rate > 0 && Number.isFinite(rate))) throw badOption(`the rate ${rate} is not above 0`)
  if (!(Number.isInteger(tick) && tick > 0)) throw badOption(`the tick ${tick} is no whole number of µs above 0`)
  if (blockSamples !== undefined && !(blockSamples >= 1 && blockSamples <= samplesPerFrameMax.value)) {
    throw badOption(`a frame holds 1 to ${samplesPerFrameMax.value} samples, not ${blockSamples}`)
  }
  if (bufferBytesMax !== undefined && !(bufferBytesMax >= messageBytesMax.value)) {
    throw badOption(`a buffer of ${bufferBytesMax} bytes may not hold one frame of ${messageBytesMax.value}`)
  }
  if (bootId !== undefined && !(bootId.length >= 1 && bootId.length <= bootIdBytesMax.value)) {
    throw badOption(`a boot id has 1 to ${bootIdBytesMax.value} bytes, not ${bootId.length}`)
  }
  if (new TextEncoder().encode(key).length > keyBytesMax.value) {
    throw badOption(`the key is longer than ${keyBytesMax.value} bytes`)
  }
}

/**
 * Opens a device: what it is given from here on gets to the server, and is kept until it is stored there for certain.
 *
 * @returns At once; with a store, when that was read. The connection is made meanwhile, `status` tells how it goes.
 * @throws ThrumError `BadOption`; `BadLink`; `StoreFailed` when the store cannot be read or is another session's.
 * @example
 * ```ts
 * import { createSession, openDevice } from "@thrum/client"
 *
 * const session = await createSession("http://127.0.0.1:8080", {
 *   rate: 100,
 *   channels: ["x", "y", "z"].map((name) => ({ name, unit: "m/s²", scale: 0.0023936, offset: 0 }))
 * })
 * const device = await openDevice({ ...session, onDrop: ({ samples }) => console.warn(`${samples} samples dropped`) })
 * device.push(Int16Array.of(12, -3, 4096, 13, -2, 4097)) // two samples: counts of x, y, z
 * await device.end() // returns when all of it is stored, and the session is sealed
 * ```
 */
export const openDevice = async (options: DeviceOptions): Promise<Device> => {
  check(options)
  const door = doorOf(options.url, "ingest")
  const session = door.link?.id ?? door.url
  const { bootId = crypto.getRandomValues(new Uint8Array(8)), store } = options
  let stored: StoredFrames | undefined
  if (store !== undefined) {
    stored = await store.load()
    if (stored !== undefined && stored.session !== session) {
      throw ownError("StoreFailed", `Cannot use the store: it holds frames of the session "${stored.session}"`)
    }
    if (stored === undefined) await store.begin(session, bootId)
  }
  return new Device(options, door, stored?.bootId ?? bootId, stored)
}

export class Device {
  /** Aborts when the device is given up or closed; its reason is the {@link ThrumError}. */
  readonly signal: AbortSignal
  private readonly options: DeviceOptions
  private readonly door: Door
  private readonly bootId: Uint8Array
  private readonly over = new AbortController()
  private readonly retention: Retention
  private readonly packer: Packer
  private readonly clock = new ClockEstimate()
  private readonly waiters = new Waiters()
  private readonly isResumed: boolean

  private state: DeviceState = "connecting"
  private epoch: number | undefined
  private isSure: boolean | undefined
  private connection: Connection<ServerFrame> | undefined
  private tries = 0
  private reconnects = 0
  private bytes = 0
  private progressed = performance.now()
  private failure: ThrumError | undefined
  private lastError: ThrumError | undefined
  private endWanted = false
  private endSent = false
  /** A rewind came after the end had been sent: the server may not take that end. */
  private endCrossed = false
  private retry: ReturnType<typeof setTimeout> | undefined
  private blockTimer: ReturnType<typeof setTimeout> | undefined
  private readonly look: ReturnType<typeof setInterval> | undefined
  private willTell = false

  private store: FrameStore | undefined
  private freeTimer: ReturnType<typeof setTimeout> | undefined
  private freed = 0
  /** Bytes that were not taken. */
  private wanted = 0

  /** Use {@link openDevice}. */
  constructor(options: DeviceOptions, door: Door, bootId: Uint8Array, stored: StoredFrames | undefined) {
    const { blockSamples, channels, float32 = false, patience, rate, tick = 1, values = "unit" } = options
    this.options = options
    this.door = door
    this.bootId = bootId
    this.signal = this.over.signal
    this.retention = new Retention(options.bufferBytesMax ?? bufferBytesDefault, options.full !== "wait")
    this.store = options.store
    this.isResumed = stored !== undefined
    if (stored !== undefined) this.restore(stored)
    this.packer = new Packer(
      {
        channels: typeof channels === "number" ? channels : channels.length,
        rate,
        tick,
        values,
        float32,
        blockSamples: blockSamples ?? Math.max(1, Math.min(blockSamplesDefault, Math.floor(rate)))
      },
      this.retention.next,
      (frame) => this.keep(frame)
    )
    this.look = patience === undefined ? undefined : setInterval(() => this.checkPatience(patience), lookEvery)
    this.connect()
  }

  /**
   * Takes samples.
   *
   * @param samples One or more, see {@link SamplesArray}.
   * @param taken When, by the device's clock; without it the server's arrival times are all there is.
   * @returns False when it is full and was told to wait: nothing was taken, {@link room} tells when. Else true.
   * @throws ThrumError `BadSamples`, and nothing was taken; `Closed`, or what the device has failed with.
   */
  push(samples: SamplesArray, taken?: Taken): boolean {
    this.checkOpen()
    const { packer, retention } = this
    if (this.options.full === "wait") {
      const bytes = packer.bytesMax(samples.length)
      if (bytes > retention.bytesMax) {
        throw ownError("BadSamples", `Cannot take ${samples.length} values at once: they may not fit the buffer`)
      }
      if (!retention.hasRoom(bytes)) return this.refuse(bytes)
    }
    packer.push(samples, taken)
    if (packer.pending === 0) this.stopBlockTimer()
    else this.blockTimer ??= setTimeout(() => this.flush(), blockMs)
    return true
  }

  /**
   * Takes a samples frame that was packed elsewhere (`encodeSamples` of `@thrum/protocol`). Its index must be where the
   * last one ended, or after it: the indexes between are a gap.
   *
   * @returns As of {@link push}.
   */
  put(frame: DeviceFrame): boolean {
    this.checkOpen()
    if (frame.bytes.length > protocolLimits.messageBytesMax.value) {
      throw ownError("BadSamples", `Cannot take a frame of ${frame.bytes.length} bytes: a message is smaller`)
    }
    this.flush()
    if (frame.index < this.packer.index || frame.next <= frame.index) {
      throw ownError(
        "BadSamples",
        `Cannot take the frame of ${frame.index} to ${frame.next}: the next index is ${this.packer.index}`
      )
    }
    const { length } = frame.bytes
    if (this.options.full === "wait" && !this.retention.hasRoom(length)) return this.refuse(length)
    this.packer.index = frame.next
    this.keep(frame)
    return true
  }

  /** `count` sampling instants passed of which there is no sample: everyone will see the gap. */
  skip(count: number): void {
    this.checkOpen()
    if (!(Number.isSafeInteger(count) && count >= 0)) throw badOption(`${count} is no number of samples to skip`)
    this.packer.skip(count)
  }

  /** Sends what waits for its frame to be full. */
  flush(): void {
    this.stopBlockTimer()
    this.packer.flush()
  }

  /**
   * Returns when there is room for what {@link push} or {@link put} did not take.
   *
   * @throws ThrumError when the device is given up or closed before.
   */
  room(): Promise<void> {
    return this.waiters.until(() => this.retention.hasRoom(this.wanted), this.failure)
  }

  /**
   * Returns when everything that was pushed by now is stored for certain, but for what was dropped.
   *
   * @throws ThrumError when the device is given up or closed before.
   */
  whenDurable(): Promise<void> {
    this.flush()
    const { next } = this.retention
    return this.waiters.until(() => this.retention.durable >= next, this.failure)
  }

  /**
   * Seals the session behind everything that was pushed. No more samples are taken.
   *
   * @returns When the server has done so, and all of it is stored for certain.
   * @throws ThrumError when the device is given up or closed before.
   */
  end(): Promise<void> {
    if (this.failure === undefined && !this.endWanted) {
      this.flush()
      this.endWanted = true
      this.progressed = performance.now()
      this.pump()
    }
    return this.waiters.until(() => this.state === "ended", this.failure)
  }

  /**
   * Lets go of the connection. The session stays open. What is not durable is gone, or in the store.
   *
   * @returns When the store has been closed; at once without one.
   */
  async close(): Promise<void> {
    if (this.failure === undefined && this.state !== "ended") {
      this.flush()
      this.stop("closed", ownError("Closed", "Cannot go on streaming: it was closed"))
    }
    const { store } = this.options
    if (store === undefined) return
    clearTimeout(this.freeTimer)
    if (this.store !== undefined && this.state !== "ended") this.freeNow()
    await store.close()
  }

  /** Where it stands, now. */
  get status(): DeviceStatus {
    const { bytes, clock, epoch, isResumed, isSure, lastError, packer, reconnects, retention, state, store } = this
    return {
      state,
      epoch,
      next: packer.index,
      received: retention.received,
      durable: retention.durable,
      isSure,
      bufferedBytes: retention.bytes,
      bufferedSamples: retention.samples + packer.pending,
      dropped: retention.dropped,
      resent: retention.resent,
      reconnects,
      bytes,
      latency: clock.latency,
      clockOffset: clock.offset,
      isKept: store !== undefined,
      isResumed,
      lastError
    }
  }

  private checkOpen(): void {
    if (this.failure !== undefined) throw this.failure
    if (this.endWanted) throw ownError("Closed", "Cannot take samples: the session is being ended")
  }

  private refuse(bytes: number): false {
    this.wanted = bytes
    return false
  }

  private stopBlockTimer(): void {
    clearTimeout(this.blockTimer)
    this.blockTimer = undefined
  }

  private restore({ durable, frames, freed }: StoredFrames): void {
    const next = Math.max(freed, frames.at(-1)?.next ?? 0)
    this.retention.restore(durable, next)
    this.freed = freed
    for (const frame of frames) this.hold(frame)
    this.retention.release(next)
  }

  /** A frame that was made: kept, and sent as soon as it may be. */
  private keep(frame: DeviceFrame): void {
    // Nothing waited for an answer before: patience begins now.
    if (this.retention.samples === 0) this.progressed = performance.now()
    this.bytes += frame.bytes.length
    this.hold(frame)
    if (this.store === undefined) this.retention.release(frame.next)
    else {
      this.store.append(frame).then(() => {
        this.retention.release(frame.next)
        this.pump()
      }, (error: unknown) => this.giveUpStore(error))
    }
    this.pump()
  }

  private hold(frame: DeviceFrame): void {
    const gone = this.retention.add(frame)
    const [first, last] = [gone[0], gone.at(-1)]
    if (first === undefined || last === undefined) return
    const samples = gone.reduce((sum, { index, next }) => sum + next - index, 0)
    this.freeSoon()
    this.tell()
    this.options.onDrop?.({ from: first.index, to: last.next, samples })
  }

  private freeSoon(): void {
    if (this.store === undefined || this.retention.first <= this.freed) return
    this.freeTimer ??= setTimeout(() => this.freeNow(), freeEvery)
  }

  private freeNow(): void {
    this.freeTimer = undefined
    const { first } = this.retention
    if (this.store === undefined || first <= this.freed) return
    this.freed = first
    this.store.free(first, this.retention.durable).catch((error: unknown) => this.giveUpStore(error))
  }

  /** The store is broken: frames go on without it. What it holds must not be taken up again, so it is emptied. */
  private giveUpStore(error: unknown): void {
    const { store } = this
    if (store === undefined) return
    this.store = undefined
    this.lastError = storeError(error)
    store.clear().catch((error: unknown) => {
      this.lastError = storeError(error)
    })
    this.retention.release(Infinity)
    this.pump()
    this.tell()
  }

  private connect(): void {
    const connection: Connection<ServerFrame> = new Connection<ServerFrame>({
      url: this.door.url,
      doing: "go on streaming",
      heartbeat: this.options.heartbeat ?? heartbeatDefault,
      clock: this.clock,
      read: readServerFrame,
      onOpen: () =>
        connection.send(encodeHello({ key: this.options.key, bootId: this.bootId, next: this.retention.first })),
      onFrame: (frame) => this.take(frame),
      onLost: (why) => this.lose(why)
    })
    this.connection = connection
  }

  private take(frame: Told<ServerFrame>): void {
    const { retention } = this
    let fault: ThrumError | undefined
    switch (frame.kind) {
      case kinds.welcome:
        this.epoch = frame.epoch
        this.isSure = frame.sure
        this.endSent = this.endCrossed = false
        this.state = "connected"
        fault = retention.welcome(frame.next, frame.window)
        this.connection?.welcomed()
        break
      case kinds.ack: {
        const { durable, received } = retention
        fault = retention.ack(frame.received, frame.durable, frame.window)
        if (retention.received > received || retention.durable > durable) this.progress()
        this.freeSoon()
        break
      }
      case kinds.rewind:
        this.endCrossed ||= this.endSent
        this.endSent = false
        fault = retention.rewind(frame.next)
        break
      default:
        frame satisfies never
    }
    if (fault !== undefined) return this.stop("failed", fault)
    this.pump()
    this.tell()
  }

  /** The server takes what it is sent: tries and patience begin anew. */
  private progress(): void {
    this.tries = 0
    this.progressed = performance.now()
  }

  /** Sends what the window has room for, then the end. */
  private pump(): void {
    const { connection, retention } = this
    if (connection === undefined) return
    for (let frame = retention.take(); frame !== undefined; frame = retention.take()) connection.send(frame.bytes)
    if (this.endWanted && !this.endSent && retention.isSent) {
      connection.send(encodeEnd(retention.next))
      this.endSent = true
    }
  }

  private checkPatience(patience: number): void {
    const waits = this.retention.samples > 0 || this.endWanted
    if (!waits || performance.now() - this.progressed <= patience) return
    const why = `Cannot go on streaming: the server took nothing for ${patience / 1000} s`
    this.stop("failed", ownError("GivenUp", why, this.lastError))
  }

  /** The connection is gone: for good, or to be opened again. */
  private lose(why: ThrumError): void {
    const wasWelcome = this.state === "connected"
    this.connection = undefined
    if (why.name === "SessionEnded") this.flush()
    this.retention.disconnect()
    if (why.name === "Ended" && this.endSent) return this.seal(why)
    this.lastError = why
    if (why.name === "SessionEnded") return void this.confirmSeal(why)
    const delay = why.name === "EndMismatch" && this.endCrossed ?
      delayBefore({ code: 1006, retryAfter: undefined }, this.tries++) :
      delayBefore(why, this.tries++)
    if (delay === undefined) return this.stop("failed", why)
    this.comeBack(delay)
    const { link } = this.door
    if (wasWelcome || why.code !== 1006 || link === undefined) return
    // A browser does not tell why a WebSocket was refused; REST does.
    void refusalOf(link).then((refusal) => {
      if (refusal !== undefined && this.state === "away") this.stop("failed", refusal)
    })
  }

  private comeBack(delay: number): void {
    this.state = "away"
    this.reconnects++
    clearTimeout(this.retry)
    this.retry = setTimeout(() => this.connect(), delay)
    this.tell()
  }

  /** Sealed: all is well if all of ours is in it. */
  private seal(why: ThrumError): void {
    const { durable, next } = this.retention
    if (durable >= next) return this.stop("ended", undefined)
    const sentence = `Cannot send all up to index ${next}: the session is sealed, with what was before ${durable}`
    this.stop("failed", new ThrumError(why.name, sentence, { code: why.code, cause: why }))
  }

  /** Sealed by our own end, whose answer a cut connection may have kept from us; or by others, before it was all there. */
  private async confirmSeal(why: ThrumError): Promise<void> {
    const { link } = this.door
    const { durable, next } = this.retention
    if (link === undefined && this.endSent) return this.stop("ended", undefined)
    if (durable >= next || link === undefined) return this.seal(why)
    this.state = "away"
    try {
      const stored = parsePosition(String((await getSession(link))["durable"]))
      if (this.state !== "away") return
      // Before the first welcome of this run nothing tells the epoch.
      const isOurs = stored !== undefined && stored.epoch === (this.epoch ?? stored.epoch)
      if (isOurs && stored.index === next) this.retention.ack(next, next, 0)
      this.seal(why)
    } catch (error) {
      if (this.state !== "away") return
      if (error instanceof ThrumError) this.lastError = error
      this.comeBack(delayBefore({ code: 1006, retryAfter: undefined }, ++this.tries) ?? 0)
    }
  }

  private stop(state: "ended" | "failed" | "closed", failure: ThrumError | undefined): void {
    if (this.failure !== undefined || this.state === "ended") return
    this.state = state
    this.failure = failure ?? ownError("Closed", "Cannot go on streaming: the session is ended")
    if (failure !== undefined) this.lastError = failure
    clearTimeout(this.retry)
    clearInterval(this.look)
    this.stopBlockTimer()
    this.connection?.close()
    this.connection = undefined
    if (state === "ended") this.forget()
    else this.over.abort(this.failure)
    this.waiters.tell(this.failure)
    this.tell()
  }

  /** All of it is stored for certain: nothing is left to be taken up. */
  private forget(): void {
    clearTimeout(this.freeTimer)
    this.store?.clear().catch((error: unknown) => {
      this.lastError = storeError(error)
    })
  }

  private tell(): void {
    this.waiters.tell(this.failure)
    if (this.willTell || this.options.onStatus === undefined) return
    this.willTell = true
    queueMicrotask(() => {
      this.willTell = false
      this.options.onStatus?.(this.status)
    })
  }
}

const storeError = (error: unknown): ThrumError =>
  ownError("StoreFailed", `Cannot keep frames in the store: ${reasonOf(error)}`, error)
