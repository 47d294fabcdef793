/**
 * The frames of `thrum.v1`: one WebSocket message, one msgpack array `[kind, …]`, positional. Elements after the known
 * ones are ignored.
 *
 * Control frames go through msgpackr, after a walk that bounds depth and length. The samples frame is read in place,
 * because every byte of every device passes here.
 *
 * @see docs/PROTOCOL.md
 */
import { Packr } from "msgpackr/pack"
import { Unpackr } from "msgpackr/unpack"
import { type CodeName, codes } from "./Codes.ts"
import { type FrameError, frameError, isFrameError } from "./FrameError.ts"
import { protocolLimits } from "./Limits.ts"
import { epochMax, indexMax, type Position } from "./Position.ts"
import { endOfValue, frameDepthMax, incomplete, type IntegerAt, readInteger, readUint } from "./Scan.ts"
import type { Channel, SessionInfo } from "./Session.ts"

/** The version every hello and welcome names. */
export const protocolVersion = 1

/** The WebSocket sub-protocol. */
export const subprotocol = "thrum.v1"

/** First element of every frame. */
export const kinds = {
  hello: 1,
  samples: 2,
  end: 3,
  time: 4,
  welcome: 16,
  ack: 17,
  rewind: 18,
  error: 19,
  viewerWelcome: 32,
  epoch: 33,
  durable: 34,
  gap: 35,
  caughtUp: 36,
  ended: 37
} as const

/** Device: opens its stream. `bootId` is new at every power-up: an unsigned integer or 1 to 16 bytes. */
export interface Hello {
  readonly kind: typeof kinds.hello
  readonly version: number
  /** Undefined (nil on the wire) when the key came as `Authorization: Bearer`. */
  readonly key: string | undefined
  readonly bootId: string
  /** The index of the next sample the device has. */
  readonly next: number
}

/** Device: one to 4,096 samples. */
export interface Samples {
  readonly kind: typeof kinds.samples
  /** Index of the first sample within the epoch. */
  readonly index: number
  /** Device time of the first sample in µs since its boot, when the device has a clock. */
  readonly t0: number | undefined
  /** The packed samples: a view into the message, not a copy. */
  readonly block: Uint8Array
}

/** Device: seal the session at this index, after everything before it is durable. */
export interface End {
  readonly kind: typeof kinds.end
  readonly index: number
}

/** Both: device time in µs; the answer repeats it and adds the server's time in µs since 1970. */
export interface Time {
  readonly kind: typeof kinds.time
  readonly device: number
  readonly server: number | undefined
}

/** Server to device: the epoch it is in and the index to send from. */
export interface Welcome {
  readonly kind: typeof kinds.welcome
  readonly version: number
  readonly epoch: number
  readonly next: number
  /** Bytes of samples frames the device may send beyond the last `received`. */
  readonly window: number
  /** Server time in µs since 1970. */
  readonly server: number
  /** Whether what is under a durable ack survives a crash of the database: its commits are synchronous. */
  readonly sure: boolean
}

/** Server to device: everything before `received` arrived, everything before `durable` is stored for certain. */
export interface Ack {
  readonly kind: typeof kinds.ack
  readonly received: number
  readonly durable: number
  readonly window: number
}

/** Server to device: resend from `next`. */
export interface Rewind {
  readonly kind: typeof kinds.rewind
  readonly next: number
}

/** Server to either: why the socket closes next. `retryAfter` in ms, undefined when it is no use to come back. */
export interface ErrorFrame {
  readonly kind: typeof kinds.error
  readonly code: number
  readonly text: string
  readonly retryAfter: number | undefined
}

/** Server to viewer: what it sees, and the position it sees it from. */
export interface ViewerWelcome {
  readonly kind: typeof kinds.viewerWelcome
  readonly version: number
  readonly session: SessionInfo
  readonly from: Position
}

/** Server to viewer: comes before the first frame of an epoch. */
export interface Epoch {
  readonly kind: typeof kinds.epoch
  readonly epoch: number
  /** `t0` of the epoch's first frame, device µs. */
  readonly t0: number | undefined
  /** The server's clock, µs since 1970, at the first sample of the epoch's first frame. */
  readonly wall: number
  /** Index of the first sample of the epoch's first frame. */
  readonly index: number
}

/** Server to viewer: everything before `position` is stored for certain. */
export interface Durable {
  readonly kind: typeof kinds.durable
  readonly position: Position
}

/** Why samples are missing: the device lost them; the viewer was too slow; they were shown and never stored. */
export type GapReason = "device" | "skipped" | "lost"

/** Server to viewer: the samples of `from` up to, not including, `to` are not coming. Both lie in one epoch, but for `skipped`. */
export interface Gap {
  readonly kind: typeof kinds.gap
  readonly from: Position
  readonly to: Position
  readonly reason: GapReason
}

/** Server to viewer: what comes now is live. */
export interface CaughtUp {
  readonly kind: typeof kinds.caughtUp
  readonly position: Position
}

/** Server to viewer: the session is sealed; `position` is after its last sample. */
export interface Ended {
  readonly kind: typeof kinds.ended
  readonly position: Position
}

/** What a device sends. */
export type DeviceFrame = Hello | Samples | End | Time
/** What a device gets. */
export type ServerFrame = Welcome | Ack | Rewind | ErrorFrame | Time
/** What a viewer gets, and (but for errors and answers to time frames) what a `.thrum` file holds. */
export type ViewerFrame = ViewerWelcome | Epoch | Samples | Durable | Gap | CaughtUp | Ended | ErrorFrame | Time

// No records: their definitions would outlive the message that brought them. No native reader either: frames are small.
const packr = new Packr({ useRecords: false })
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true, int64AsType: "number" })

// Above 32 bits msgpackr writes a number as float 64 and a bigint as an integer. Boards want the integer.
const integer = (n: number): number | bigint => n > 0xffff_ffff ? BigInt(n) : n
const integerOrNil = (n: number | undefined): number | bigint | null => n === undefined ? null : integer(n)
const pair = (p: Position): [number, number | bigint] => [p.epoch, integer(p.index)]
// msgpackr hands out views of a shared buffer; what we keep or send later must be our own.
const pack = (elements: ReadonlyArray<unknown>): Uint8Array<ArrayBuffer> => new Uint8Array(packr.pack(elements))

/** A boot id as it is kept: an integer in decimal, bytes in hexadecimal after `x`. */
const bootIdOf = (u: unknown): string | undefined =>
  typeof u === "number" && Number.isSafeInteger(u) && u >= 0 ?
    String(u) :
    u instanceof Uint8Array && u.length >= 1 && u.length <= protocolLimits.bootIdBytesMax.value ?
    `x${Array.from(u, (b) => b.toString(16).padStart(2, "0")).join("")}` :
    undefined

/**
 * Bytes of a hello.
 *
 * @param bootId An unsigned integer up to 2^53−1, or 1 to 16 bytes.
 */
export const encodeHello = (
  hello: { readonly key?: string | undefined; readonly bootId: number | Uint8Array; readonly next: number }
): Uint8Array<ArrayBuffer> =>
  pack([
    kinds.hello,
    protocolVersion,
    hello.key ?? null,
    typeof hello.bootId === "number" ? integer(hello.bootId) : hello.bootId,
    integer(hello.next)
  ])

/**
 * Bytes of a samples frame around a packed block.
 *
 * @param index Index of the first sample within the epoch.
 * @param t0 Device time of the first sample in µs since boot, or undefined.
 * @example
 * ```ts
 * import { encodeSamples, isFrameError, packCounts } from "@thrum/protocol"
 * const block = packCounts([1, -2, 16384], 3)
 * if (!isFrameError(block)) encodeSamples(0, undefined, block) // 94 02 00 c0 c4 0b …
 * ```
 */
export const encodeSamples = (index: number, t0: number | undefined, block: Uint8Array): Uint8Array<ArrayBuffer> => {
  const length = block.length
  const blockLead = length < 256 ? 2 : length < 65_536 ? 3 : 5
  const bytes = new Uint8Array(
    2 + sizeOfInteger(index) + (t0 === undefined ? 1 : sizeOfInteger(t0)) + blockLead + length
  )
  bytes[0] = 0x94
  bytes[1] = kinds.samples
  let at = writeInteger(bytes, 2, index)
  if (t0 === undefined) bytes[at++] = 0xc0
  else at = writeInteger(bytes, at, t0)
  bytes[at] = blockLead === 2 ? 0xc4 : blockLead === 3 ? 0xc5 : 0xc6
  for (let i = blockLead - 1, rest = length; i > 0; i--, rest = Math.floor(rest / 256)) bytes[at + i] = rest & 0xff
  bytes.set(block, at + blockLead)
  return bytes
}

const sizeOfInteger = (n: number): number => n < 0x80 ? 1 : n < 0x100 ? 2 : n < 0x1_0000 ? 3 : n <= 0xffff_ffff ? 5 : 9

const writeInteger = (bytes: Uint8Array, at: number, n: number): number => {
  const size = sizeOfInteger(n)
  if (size === 1) bytes[at] = n
  else {
    bytes[at] = size === 2 ? 0xcc : size === 3 ? 0xcd : size === 5 ? 0xce : 0xcf
    for (let i = size - 1, rest = n; i > 0; i--, rest = Math.floor(rest / 256)) bytes[at + i] = rest % 256
  }
  return at + size
}

/** Bytes of the device's end frame. */
export const encodeEnd = (index: number): Uint8Array<ArrayBuffer> => pack([kinds.end, integer(index)])

/** Bytes of a time frame; the server's answer carries `server`. */
export const encodeTime = (device: number, server?: number): Uint8Array<ArrayBuffer> =>
  pack(server === undefined ? [kinds.time, integer(device)] : [kinds.time, integer(device), integer(server)])

/** Bytes of the server's welcome to a device. */
export const encodeWelcome = (w: Omit<Welcome, "kind" | "version">): Uint8Array<ArrayBuffer> =>
  pack([kinds.welcome, protocolVersion, w.epoch, integer(w.next), w.window, integer(w.server), w.sure])

/** Bytes of an ack. */
export const encodeAck = (ack: Omit<Ack, "kind">): Uint8Array<ArrayBuffer> =>
  pack([kinds.ack, integer(ack.received), integer(ack.durable), ack.window])

/** Bytes of a rewind. */
export const encodeRewind = (next: number): Uint8Array<ArrayBuffer> => pack([kinds.rewind, integer(next)])

/** Bytes of an error frame, at most 125: `text` is cut at a whole character where it is too long, and ends in `…` then. */
export const encodeError = (name: CodeName, text: string, retryAfter?: number): Uint8Array<ArrayBuffer> =>
  pack([kinds.error, codes[name].code, cutText(text, 105), retryAfter === undefined ? null : Math.ceil(retryAfter)])

/**
 * `text` in at most `bytesMax` bytes of UTF-8, cut at a whole character and ended by `…` where it was longer. Halves of
 * characters (lone surrogates) become U+FFFD, because UTF-8 has none.
 */
export const cutText = (text: string, bytesMax: number): string => {
  const whole = text.toWellFormed()
  if (whole.length * 3 <= bytesMax || utf8Length(whole) <= bytesMax) return whole
  let kept = ""
  let room = bytesMax - 3
  for (const character of whole) {
    room -= utf8Length(character)
    if (room < 0) break
    kept += character
  }
  return `${kept}…`
}
const encoder = new TextEncoder()
const utf8Length = (text: string): number => encoder.encode(text).length

/** Bytes of the welcome to a viewer. */
export const encodeViewerWelcome = (session: SessionInfo, from: Position): Uint8Array<ArrayBuffer> =>
  pack([kinds.viewerWelcome, protocolVersion, sessionOf(session), pair(from)])

/** What is known of a session and nothing else, in one order; undefined would be an extension type in msgpack. */
const sessionOf = (
  { channels, createdAt, gravity, id, name, rate, sensor, state, tick }: SessionInfo
): SessionInfo => ({
  id,
  channels: channels.map(({ name, offset, scale, unit }) => ({
    name: name.toWellFormed(),
    unit: unit.toWellFormed(),
    scale,
    offset
  })),
  rate,
  tick,
  ...(name === undefined ? {} : { name: name.toWellFormed() }),
  ...(sensor === undefined ? {} : { sensor: sensor.toWellFormed() }),
  ...(gravity === undefined ? {} : { gravity }),
  state,
  createdAt
})

/** Bytes of an epoch frame. */
export const encodeEpoch = (e: Omit<Epoch, "kind">): Uint8Array<ArrayBuffer> =>
  pack([kinds.epoch, e.epoch, integerOrNil(e.t0), integer(e.wall), integer(e.index)])

/** Bytes of a durable frame. */
export const encodeDurable = (position: Position): Uint8Array<ArrayBuffer> => pack([kinds.durable, pair(position)])

/** Bytes of a gap frame. */
export const encodeGap = (gap: Omit<Gap, "kind">): Uint8Array<ArrayBuffer> =>
  pack([kinds.gap, pair(gap.from), pair(gap.to), gap.reason])

/** Bytes of a caught-up frame. */
export const encodeCaughtUp = (position: Position): Uint8Array<ArrayBuffer> => pack([kinds.caughtUp, pair(position)])

/** Bytes of an ended frame. */
export const encodeEnded = (position: Position): Uint8Array<ArrayBuffer> => pack([kinds.ended, pair(position)])

const scratch: IntegerAt = { value: 0, next: 0 }
const badFrame = (doing: string, why: string): FrameError => frameError("BadFrame", `Cannot read ${doing}: ${why}`)

/** Where the first element of an array begins; -1 when the bytes do not begin as an array that has one. */
const firstElement = (bytes: Uint8Array): number => {
  const lead = bytes[0] ?? 0
  return lead >= 0x91 && lead <= 0x9f ? 1 : lead === 0xdc ? 3 : lead === 0xdd ? 5 : -1
}

/** The kind of a message, or undefined when it does not begin as a frame: an array whose first element is a fixint. */
export const kindOf = (bytes: Uint8Array): number | undefined => {
  const kind = bytes[firstElement(bytes)]
  return kind !== undefined && kind <= 0x7f ? kind : undefined
}

/**
 * Reads a samples frame in place. The block is not looked into: `checkBlock` or `readBlock` does that.
 *
 * @param bytes Exactly one message.
 * @returns Views into `bytes`; `BadFrame` or `TooLarge` naming the element that was wrong.
 */
export const readSamples = (bytes: Uint8Array): Samples | FrameError => {
  if (bytes.length > protocolLimits.messageBytesMax.value) {
    return frameError(
      "TooLarge",
      `Cannot read the frame: it has ${bytes.length} bytes, the limit is ${protocolLimits.messageBytesMax.value}`
    )
  }
  const kindAt = firstElement(bytes)
  const elements = kindAt === 1 ? bytes[0]! - 0x90 : readUint(bytes, 1, kindAt - 1)
  if (bytes[kindAt] !== kinds.samples || elements < 4) {
    return badFrame("the samples frame", "it is not an array of kind 2 with index, t0 and block")
  }
  readInteger(bytes, kindAt + 1, scratch)
  if (scratch.next < 0) return badFrame("the samples frame", `its index is ${broken(scratch.next)}`)
  const index = scratch.value
  let at = scratch.next
  let t0: number | undefined
  if (bytes[at] === 0xc0) at++
  else {
    readInteger(bytes, at, scratch)
    if (scratch.next < 0) return badFrame("the samples frame", `its t0 is neither nil nor a whole number of µs`)
    t0 = scratch.value
    at = scratch.next
  }
  const form = bytes[at]
  const width = form === 0xc4 ? 1 : form === 0xc5 ? 2 : form === 0xc6 ? 4 : 0
  if (width === 0) return badFrame("the samples frame", "its block is not a bin")
  let length = 0
  for (let i = 1; i <= width; i++) length = length * 256 + (bytes[at + i] ?? 0)
  at += 1 + width
  let end = at + length
  if (end > bytes.length) {
    return badFrame("the samples frame", `its block ends at byte ${end}, the message at ${bytes.length}`)
  }
  for (let i = 4; i < elements; i++) {
    end = endOfValue(bytes, end, protocolLimits.extraDepthMax.value)
    if (end < 0) return badFrame("the samples frame", `its element ${i} is ${broken(end)}`)
  }
  if (end !== bytes.length) {
    return badFrame("the samples frame", `${bytes.length - end} bytes follow it in the same message`)
  }
  return { kind: kinds.samples, index, t0, block: bytes.subarray(at, at + length) }
}

const broken = (next: number): string => next === incomplete ? "cut short" : "not of the form it must have"

/** One control message as an array of elements, proven to be one plain msgpack array and nothing after it. */
const readElements = (bytes: Uint8Array): ReadonlyArray<unknown> | FrameError => {
  const { messageBytesMax } = protocolLimits
  if (bytes.length > messageBytesMax.value) {
    return frameError(
      "TooLarge",
      `Cannot read the frame: it has ${bytes.length} bytes, the limit is ${messageBytesMax.value}`
    )
  }
  if (kindOf(bytes) === undefined) return badFrame("the message", "it is not a msgpack array that begins with a kind")
  const end = endOfValue(bytes, 0, frameDepthMax)
  if (end < 0) return badFrame("the frame", `it is ${broken(end)}`)
  if (end !== bytes.length) return badFrame("the frame", `${bytes.length - end} bytes follow it in the same message`)
  try {
    return unpackr.unpack(bytes)
  } catch (cause) {
    // The walk has proven the form; what is left to refuse is a map whose keys are arrays and the like.
    return badFrame("the frame", cause instanceof Error ? cause.message : String(cause))
  }
}

const isIndex = (u: unknown): u is number => typeof u === "number" && Number.isSafeInteger(u) && u >= 0
const isEpoch = (u: unknown): u is number => isIndex(u) && u <= epochMax
const isPair = (u: unknown): u is [number, number] => Array.isArray(u) && isEpoch(u[0]) && isIndex(u[1])
const optional = (u: unknown): u is number | null | undefined => u === null || u === undefined || isIndex(u)
const positionOf = (u: [number, number]): Position => ({ epoch: u[0], index: u[1] })
const unknownKind = (kind: unknown): FrameError => badFrame("the frame", `${String(kind)} is not a kind known here`)

/**
 * Reads one message of a device.
 *
 * @returns The frame; `BadFrame`, `TooLarge` or `UnsupportedVersion` with what was wrong.
 */
export const readDeviceFrame = (bytes: Uint8Array): DeviceFrame | FrameError => {
  if (kindOf(bytes) === kinds.samples) return readSamples(bytes)
  const e = readElements(bytes)
  if (isFrameError(e)) return e
  switch (e[0]) {
    case kinds.hello: {
      if (e[1] !== protocolVersion) {
        // Only a number is named: anything else may be as long as the message, or have no text at all.
        const version = typeof e[1] === "number" ? `version ${e[1]}` : "what it calls its version"
        return frameError("UnsupportedVersion", `Cannot read the hello: ${version} is not ${protocolVersion}`)
      }
      const key: unknown = e[2]
      if (!(key === null || (typeof key === "string" && utf8Length(key) <= protocolLimits.keyBytesMax.value))) {
        return badFrame("the hello", "its key is neither nil nor a short string")
      }
      const bootId = bootIdOf(e[3])
      if (bootId === undefined) {
        return badFrame("the hello", "its boot id is neither an unsigned integer nor 1 to 16 bytes")
      }
      const next: unknown = e[4]
      if (!isIndex(next)) return badFrame("the hello", "its next index is not a whole number")
      return { kind: kinds.hello, version: protocolVersion, key: key ?? undefined, bootId, next }
    }
    case kinds.end:
      return isIndex(e[1])
        ? { kind: kinds.end, index: e[1] }
        : badFrame("the end frame", "its index is not a whole number")
    case kinds.time:
      return isIndex(e[1]) ?
        { kind: kinds.time, device: e[1], server: undefined } :
        badFrame("the time frame", "its time is not a whole number of µs")
    default:
      return unknownKind(e[0])
  }
}

/** Reads one message of the server to a device. */
export const readServerFrame = (bytes: Uint8Array): ServerFrame | FrameError => {
  const e = readElements(bytes)
  if (isFrameError(e)) return e
  const [kind, a, b, c, d, f, g] = e
  switch (kind) {
    case kinds.welcome:
      return isIndex(a) && isEpoch(b) && isIndex(c) && isIndex(d) && isIndex(f) && typeof g === "boolean" ?
        { kind, version: a, epoch: b, next: c, window: d, server: f, sure: g } :
        badFrame("the welcome", "its elements are not five whole numbers and a boolean")
    case kinds.ack:
      return isIndex(a) && isIndex(b) && isIndex(c) ?
        { kind, received: a, durable: b, window: c } :
        badFrame("the ack", "its elements are not whole numbers")
    case kinds.rewind:
      return isIndex(a) ? { kind, next: a } : badFrame("the rewind", "its index is not a whole number")
    case kinds.time:
      return readTime(a, b)
    case kinds.error:
      return readError(a, b, c)
    default:
      return unknownKind(kind)
  }
}

const readTime = (device: unknown, server: unknown): Time | FrameError =>
  isIndex(device) && optional(server) ?
    { kind: kinds.time, device, server: server ?? undefined } :
    badFrame("the time frame", "its times are not whole numbers of µs")

const readError = (code: unknown, text: unknown, retryAfter: unknown): ErrorFrame | FrameError =>
  isIndex(code) && typeof text === "string" && optional(retryAfter) ?
    { kind: kinds.error, code, text, retryAfter: retryAfter ?? undefined } :
    badFrame("the error frame", "it is not code, text and a wait")

const gapReasons: ReadonlySet<unknown> = new Set<GapReason>(["device", "skipped", "lost"])
const isGapReason = (u: unknown): u is GapReason => gapReasons.has(u)

/**
 * Reads one message of the server to a viewer, or one frame of a `.thrum` file.
 *
 * @example
 * ```ts
 * import { encodeDurable, readViewerFrame } from "@thrum/protocol"
 * readViewerFrame(encodeDurable({ epoch: 0, index: 100 })) // { kind: 34, position: { epoch: 0, index: 100 } }
 * ```
 */
export const readViewerFrame = (bytes: Uint8Array): ViewerFrame | FrameError => {
  if (kindOf(bytes) === kinds.samples) return readSamples(bytes)
  const e = readElements(bytes)
  if (isFrameError(e)) return e
  const [kind, a, b, c, d] = e
  switch (kind) {
    case kinds.viewerWelcome:
      return isIndex(a) && isSessionInfo(b) && isPair(c) ?
        { kind, version: a, session: b, from: positionOf(c) } :
        badFrame("the welcome", "it is not version, session and position")
    case kinds.epoch:
      return isEpoch(a) && optional(b) && isIndex(c) && isIndex(d) ?
        { kind, epoch: a, t0: b ?? undefined, wall: c, index: d } :
        badFrame("the epoch frame", "it is not epoch, t0, wall clock and index")
    case kinds.durable:
    case kinds.caughtUp:
    case kinds.ended:
      return isPair(a)
        ? { kind, position: positionOf(a) }
        : badFrame("the frame", "its position is not epoch and index")
    case kinds.gap:
      return isPair(a) && isPair(b) && isGapReason(c) ?
        { kind, from: positionOf(a), to: positionOf(b), reason: c } :
        badFrame("the gap frame", "it is not two positions and a reason")
    case kinds.time:
      return readTime(a, b)
    case kinds.error:
      return readError(a, b, c)
    default:
      return unknownKind(kind)
  }
}

type Unproven<A> = { readonly [K in keyof A]?: unknown }
const isText = (u: unknown): boolean => typeof u === "string"
const isTextOrNone = (u: unknown): boolean => u === undefined || isText(u)

const isChannel = (u: unknown): u is Channel => {
  if (typeof u !== "object" || u === null) return false
  const { name, offset, scale, unit }: Unproven<Channel> = u
  return isText(name) && isText(unit) && Number.isFinite(scale) && Number.isFinite(offset)
}

const isSessionInfo = (u: unknown): u is SessionInfo => {
  if (typeof u !== "object" || u === null) return false
  const { channels, createdAt, gravity, id, name, rate, sensor, state, tick }: Unproven<SessionInfo> = u
  return isText(id) && isText(createdAt) && (state === "live" || state === "ended") &&
    Number.isFinite(rate) && Number.isFinite(tick) && isTextOrNone(name) && isTextOrNone(sensor) &&
    (gravity === undefined || typeof gravity === "boolean") && Array.isArray(channels) &&
    channels.length >= 1 && channels.length <= protocolLimits.channelsMax.value && channels.every(isChannel)
}

/** Whether a frame of `count` samples from `index` on ends within the range of indexes. */
export const fitsIndex = (index: number, count: number): boolean => index + count <= indexMax

/**
 * How many samples a block says it holds, from its header alone.
 *
 * @returns undefined when `block` has no header of layout version 1 with a count of at least 1.
 */
export const sampleCount = (block: Uint8Array): number | undefined => {
  if (block[0] === undefined || block[0] >> 4 !== 1) return undefined
  let count = 0
  for (let i = 0; i < 3; i++) {
    const byte = block[1 + i]
    if (byte === undefined) return undefined
    count |= (byte & 0x7f) << (7 * i)
    if (byte < 0x80) return count > 0 ? count : undefined
  }
  return undefined
}
