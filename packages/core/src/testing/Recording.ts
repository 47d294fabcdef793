/**
 * Sessions and frames to test with: small, and the same in every run.
 *
 * Everything follows from its numbers. Sample `i` of an epoch has the same counts whichever frame carries it, so a
 * test can tell a lost, doubled or moved sample by its value.
 */
import { type Description, encodeSamples, isFrameError, packCounts } from "@thrum/protocol"
import type { Chunk } from "../Archive.ts"
import type { SessionId } from "../Session.ts"

/** What `Archive.create` takes. */
export interface MadeSession {
  readonly id: SessionId
  readonly description: Description
  readonly keyHash: Uint8Array
  readonly createdAt: number
}

/**
 * The `n`-th session, 0 … 2^31−1: three channels at 100 Hz, µs ticks, made `n` ms after the start of 2026.
 */
export const sessionOf = (n: number): MadeSession => ({
  id: `00000000-0000-4000-8000-${n.toString(16).padStart(12, "0")}`,
  description: {
    channels: ["x", "y", "z"].map((name) => ({ name, unit: "m/s²", scale: 0.0037718, offset: 0 })),
    rate: 100,
    tick: 1
  },
  keyHash: Uint8Array.from({ length: 32 }, (_, i) => hash(n, i, 0)),
  createdAt: Date.UTC(2026, 0, 1) + n
})

/** A samples frame on the wire and where it belongs. It is also a chunk of one frame. */
export interface MadeFrame extends Chunk {
  /** Device time of its first sample at 100 Hz, in µs. */
  readonly t0: number
}

/** Channels of {@link sessionOf}. */
const channels = 3

/** Count of channel `c` (0 … 2) of sample `index`: a slow wave and a little noise, between −1100 and 1100. */
export const countOf = (epoch: number, index: number, c: number): number =>
  Math.round(1000 * Math.sin((index % 6283) / 100 + c + epoch)) + hash(epoch, index, c) % 100

/**
 * `n` consecutive frames of `count` samples each, the first of which has the index `from`.
 *
 * @example
 * ```ts
 * import { makeFrames } from "@thrum/core/testing"
 * makeFrames(3, { from: 100, count: 20 }).map((frame) => frame.first) // [100, 120, 140]
 * ```
 */
export const makeFrames = (
  n: number,
  options: { readonly epoch?: number; readonly from?: number; readonly count?: number } = {}
): ReadonlyArray<MadeFrame> => {
  const { epoch = 0, from = 0, count = 10 } = options
  return Array.from({ length: n }, (_, i) => {
    const first = from + i * count
    const counts = Int32Array.from(
      { length: count * channels },
      (_, at) => countOf(epoch, first + Math.floor(at / channels), at % channels)
    )
    const block = packCounts(counts, channels)
    if (isFrameError(block)) throw block
    const t0 = first * 10_000
    return { epoch, first, next: first + count, t0, bytes: encodeSamples(first, t0, block) }
  })
}

/** Puts consecutive frames into one chunk, as the writer does. At least one. */
export const chunkOf = (frames: ReadonlyArray<Chunk>): Chunk => {
  const [first, last] = [frames[0], frames.at(-1)]
  if (first === undefined || last === undefined) throw new RangeError("Cannot make a chunk: there is no frame")
  const bytes = new Uint8Array(frames.reduce((size, frame) => size + frame.bytes.length, 0))
  let at = 0
  for (const frame of frames) {
    bytes.set(frame.bytes, at)
    at += frame.bytes.length
  }
  return { epoch: first.epoch, first: first.first, next: last.next, bytes }
}

/** A number of 0 … 255 that looks like chance and follows from three others (FNV-1a). */
const hash = (a: number, b: number, c: number): number => {
  let h = 0x811c9dc5
  for (const n of [a, b % 0x1_0000, Math.floor(b / 0x1_0000), c]) h = Math.imul(h ^ n, 0x01000193)
  return (h ^ (h >>> 15)) & 0xff
}
