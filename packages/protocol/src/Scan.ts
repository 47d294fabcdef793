/**
 * Walks over msgpack without decoding it: where a value ends, and whether it is one Thrum accepts.
 *
 * Everything that comes from outside is walked before msgpackr sees it, so a lying length, a deep nest, an extension
 * type or text that is no UTF-8 is refused before anything is allocated. Nesting is bounded by the caller; length by the
 * bytes given.
 */
import { type FrameError, frameError } from "./FrameError.ts"
import { protocolLimits } from "./Limits.ts"

/** Levels a whole frame may have: the array it is, and those of an element after the known ones. */
export const frameDepthMax: number = protocolLimits.extraDepthMax.value + 1

/** The walk found that more bytes are needed. */
export const incomplete: number = -1
/** The walk found something no frame may hold: an extension type, the reserved byte, text not in UTF-8, too deep a nest. */
export const refused: number = -2

/**
 * The offset after the msgpack value that starts at `at`.
 *
 * @param depthMax Arrays and maps that may lie in one another, empty ones too. 0: the value itself may not be one.
 * @returns {@link incomplete} or {@link refused} (both negative) when there is no such value.
 */
export const endOfValue = (bytes: Uint8Array, at: number, depthMax: number): number => {
  // Values still to be read at each open level; the walk is a loop so that depth costs no stack.
  const open = Array.from({ length: depthMax + 1 }, () => 0)
  let depth = 0
  open[0] = 1
  while (depth >= 0) {
    if (open[depth] === 0) {
      depth--
      continue
    }
    open[depth]!--
    if (at >= bytes.length) return incomplete
    const lead = bytes[at++]!
    let size = 0 // bytes of payload that follow
    let isText = false
    let nested = -1 // values that follow, of an array or a map
    if (lead <= 0x7f || lead >= 0xe0 || lead === 0xc0 || lead === 0xc2 || lead === 0xc3) {
      // a fixint, nil or a boolean is whole already
    } else if (lead <= 0x8f) nested = 2 * (lead & 0x0f)
    else if (lead <= 0x9f) nested = lead & 0x0f
    else if (lead <= 0xbf) {
      size = lead & 0x1f
      isText = true
    } else {
      const width = widthOf[lead - 0xc0]!
      if (width < 0) return refused
      if (width >= 16) size = width - 16 // a number: 1, 2, 4 or 8 bytes
      else {
        if (at + width > bytes.length) return incomplete
        const length = readUint(bytes, at, width)
        at += width
        if (lead === 0xdc || lead === 0xdd) nested = length
        else if (lead === 0xde || lead === 0xdf) nested = 2 * length
        else {
          size = length
          isText = lead >= 0xd9
        }
      }
    }
    at += size
    if (at > bytes.length) return incomplete
    if (isText && !isUtf8(bytes, at - size, at)) return refused
    if (nested >= 0) {
      // Each nested value takes a byte at least, so a length that lies is found before it is believed.
      if (nested > bytes.length - at) return incomplete
      if (depth === depthMax) return refused
      open[++depth] = nested
    }
  }
  return at
}

/** Whether the bytes from `at` up to `end` are UTF-8. Not the platform's decoder: it would throw, and make a string. */
const isUtf8 = (bytes: Uint8Array, at: number, end: number): boolean => {
  while (at < end) {
    const lead = bytes[at++]!
    if (lead <= 0x7f) continue
    const more = lead >= 0xc2 && lead <= 0xdf
      ? 1
      : lead >= 0xe0 && lead <= 0xef
      ? 2
      : lead >= 0xf0 && lead <= 0xf4
      ? 3
      : 0
    if (more === 0 || at + more > end) return false
    // The second byte says whether the form is the shortest, and neither a surrogate nor beyond U+10FFFF.
    const second = bytes[at]!
    const least = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80
    const most = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf
    if (second < least || second > most) return false
    for (let i = 1; i < more; i++) if ((bytes[at + i]! & 0xc0) !== 0x80) return false
    at += more
  }
  return true
}

// By lead byte from 0xc0: bytes of the length field that follows; 16 + bytes of a number; -1 refused.
const widthOf = [
  16,
  -1,
  16,
  16, // nil, reserved, false, true
  1,
  2,
  4, // bin
  -1,
  -1,
  -1, // ext
  20,
  24, // float
  17,
  18,
  20,
  24, // uint
  17,
  18,
  20,
  24, // int
  -1,
  -1,
  -1,
  -1,
  -1, // fixext
  1,
  2,
  4, // str
  2,
  4, // array
  2,
  4 // map
]

/** The unsigned integer of `width` bytes at `at`; NaN where there are fewer. */
export const readUint = (bytes: Uint8Array, at: number, width: number): number => {
  let value = 0
  for (let i = 0; i < width; i++) value = value * 256 + bytes[at + i]!
  return value
}

/** An integer read in place, and the offset after it. `next` is negative when there is none. */
export interface IntegerAt {
  value: number
  next: number
}

/**
 * Reads a non-negative integer of any msgpack form (a float that holds one, too: some encoders write large integers
 * so) into `into`. `next` becomes {@link incomplete}, or {@link refused} when it is no integer of 0 … 2^53−1.
 */
export const readInteger = (bytes: Uint8Array, at: number, into: IntegerAt): void => {
  into.next = incomplete
  if (at >= bytes.length) return
  const lead = bytes[at]!
  if (lead <= 0x7f) {
    into.value = lead
    into.next = at + 1
    return
  }
  const width = lead === 0xcc || lead === 0xd0 ?
    1 :
    lead === 0xcd || lead === 0xd1 ?
    2 :
    lead === 0xce || lead === 0xd2 || lead === 0xca ?
    4 :
    lead === 0xcf || lead === 0xd3 || lead === 0xcb ?
    8 :
    0
  if (width === 0) {
    into.next = refused
    return
  }
  if (at + 1 + width > bytes.length) return
  let value: number
  if (lead === 0xca || lead === 0xcb) {
    const view = new DataView(bytes.buffer, bytes.byteOffset + at + 1, width)
    value = width === 4 ? view.getFloat32(0) : view.getFloat64(0)
  } else {
    value = readUint(bytes, at + 1, width)
    if (lead >= 0xd0 && bytes[at + 1]! >= 0x80) value = -1
  }
  if (!Number.isSafeInteger(value) || value < 0) {
    into.next = refused
    return
  }
  // A float may be -0, which no index is.
  into.value = value + 0
  into.next = at + 1 + width
}

/** Cuts concatenated frames apart. */
export interface Cut {
  /** The whole frames, views into what was given. */
  readonly frames: ReadonlyArray<Uint8Array>
  /** What is left: the beginning of a frame that has not arrived whole. */
  readonly rest: Uint8Array
}

/**
 * Cuts a run of concatenated frames (a `.thrum` file, a `POST …/frames` body) where they join.
 *
 * @param bytes Any piece of the run that begins at a frame.
 * @param frameBytesMax No frame may be longer.
 * @returns The whole frames and the rest, or `BadFrame` / `TooLarge`.
 */
export const cutFrames = (bytes: Uint8Array, frameBytesMax: number): Cut | FrameError => {
  const frames: Array<Uint8Array> = []
  let at = 0
  while (at < bytes.length) {
    const end = endOfValue(bytes, at, frameDepthMax)
    if (end === refused) return frameError("BadFrame", `Cannot read the frame at byte ${at}: it is not plain msgpack`)
    if ((end === incomplete ? bytes.length : end) - at > frameBytesMax) {
      return frameError("TooLarge", `Cannot read the frame at byte ${at}: it is longer than ${frameBytesMax} bytes`)
    }
    if (end === incomplete) break
    frames.push(bytes.subarray(at, end))
    at = end
  }
  return { frames, rest: bytes.subarray(at) }
}
