/** A recording cut into the frames a device would send. */
import { encodeSamples, isFrameError, packCounts, packFloats } from "@thrum/protocol"
import type { Recording } from "../Recordings.ts"

/** One samples frame and where it lies. */
export interface SentFrame {
  readonly index: number
  readonly next: number
  readonly bytes: Uint8Array<ArrayBuffer>
}

/** Frames of `size` samples; `t0` counts from 0 at `rate` Hz. */
export const framesOf = (recording: Recording, size: number, rate: number): ReadonlyArray<SentFrame> => {
  const frames: Array<SentFrame> = []
  for (let index = 0; index < recording.count; index += size) {
    const next = Math.min(index + size, recording.count)
    const values = recording.numbers.subarray(index * 3, next * 3)
    const block = recording.counts ?
      packCounts(values, 3) :
      recording.ticks === undefined ?
      packFloats(values, 3) :
      packFloats(Float32Array.from(values), 3)
    if (isFrameError(block)) throw new Error(block.message)
    frames.push({ index, next, bytes: encodeSamples(index, Math.round(index * 1e6 / rate), block) })
  }
  return frames
}
