/**
 * A samples frame that was checked and accepted: the device's bytes, and where they belong.
 *
 * One object per frame, shared by the ring, the write queue and every viewer. Nothing changes it, but for the slots
 * where a door keeps what it made of it once for all its viewers.
 */
import { kinds } from "@thrum/protocol"

export class Frame {
  readonly kind: typeof kinds.samples = kinds.samples
  readonly epoch: number
  /** Index of the first sample. */
  readonly index: number
  /** Index after the last sample. */
  readonly next: number
  /** Device time of the first sample, µs since boot. */
  readonly t0: number | undefined
  /** The frame as the device sent it: a copy of its own, held by nobody else. */
  readonly bytes: Uint8Array
  /** The text a JSON viewer gets, made once by the first door that needs it. */
  text: string | undefined

  constructor(epoch: number, index: number, next: number, t0: number | undefined, bytes: Uint8Array) {
    this.epoch = epoch
    this.index = index
    this.next = next
    this.t0 = t0
    this.bytes = bytes
    this.text = undefined
  }
}
