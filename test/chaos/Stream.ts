/**
 * What a device measures: numbered frames whose every byte follows from the stream, the boot and the index, so that
 * whoever meets one anywhere can say whether it is what was produced there. Nothing is remembered.
 *
 * Blocks are laid out by hand, one channel of plain fields (§9.4, PACK): no encoder stands between the numbers and the
 * bytes that are compared.
 */
import { encodeSamples } from "@thrum/protocol"
import { mixed } from "./Mixed.ts"

export interface Stream {
  readonly seed: number
  /** A frame has 1 to this many samples; at most 4,096. */
  readonly samplesMax: number
  /** Bytes of a sample. */
  readonly width: 1 | 2 | 4
}

/** One samples frame and where it lies. */
export interface Measured {
  readonly index: number
  readonly next: number
  readonly bytes: Uint8Array<ArrayBuffer>
}

/** Hz: what the sessions say. The frames come as fast as their device likes. */
export const rate = 100

/** The index after the frame that begins at `index`. */
const nextOf = ({ seed, samplesMax }: Stream, boot: number, index: number): number =>
  index + 1 + (mixed(seed, boot, index) >>> 0) % samplesMax

/** The frame of `boot` that begins at `index`. Every other boot has no clock. */
export const frameAt = (stream: Stream, boot: number, index: number): Measured => {
  const next = nextOf(stream, boot, index)
  const count = next - index
  const lead = count < 128 ? [0x11, count] : [0x11, 0x80 | (count & 0x7f), count >> 7]
  // W − 1 = 12 in 5 bits, w in 6 bits, base 0 in 13 bits: 3 bytes, so that the fields begin at a byte.
  const bits = (12 << 19) | (8 * stream.width) << 13
  lead.push(bits >> 16, (bits >> 8) & 0xff, bits & 0xff)
  const block = new Uint8Array(lead.length + count * stream.width)
  block.set(lead)
  const noise = new Uint32Array(Math.ceil(count * stream.width / 4))
  let state = mixed(stream.seed + 1, boot, index) | 1
  for (let i = 0; i < noise.length; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    noise[i] = state
  }
  block.set(new Uint8Array(noise.buffer, 0, count * stream.width), lead.length)
  const t0 = boot % 2 === 0 ? Math.round(index * 1e6 / rate) : undefined
  return { index, next, bytes: encodeSamples(index, t0, block) }
}

/** Whether two messages are the same, byte for byte. */
export const isSame = (a: Uint8Array, b: Uint8Array): boolean =>
  Buffer.compare(Buffer.from(a.buffer, a.byteOffset, a.length), Buffer.from(b.buffer, b.byteOffset, b.length)) === 0
