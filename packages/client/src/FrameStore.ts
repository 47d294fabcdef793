/**
 * Where a device may keep its frames beyond its own life, so that a reload or a power cut loses nothing that was pushed
 * and not yet durable.
 *
 * A device with a store sends a frame only after the store has kept it: otherwise it could forget an index that the
 * server has, and use it again for other samples. A store holds one session's frames, for one device at a time; its
 * size is bounded by the device (`bufferBytesMax`).
 */
import type { DeviceFrame } from "./Retention.ts"

/** What a store gives back. */
export interface StoredFrames {
  /** Which session they are of. */
  readonly session: string
  readonly bootId: Uint8Array<ArrayBuffer>
  /** Everything before it was stored for certain by the server. */
  readonly durable: number
  /** Frames before it were freed: durable, or dropped. */
  readonly freed: number
  /** The others, in order. */
  readonly frames: ReadonlyArray<DeviceFrame>
}

/**
 * A store. Calls come one after the other, without waiting for each other; they take effect in their order, and what
 * cannot be done rejects.
 */
export interface FrameStore {
  /** What is kept; undefined when nothing was begun. Called first, once. */
  readonly load: () => Promise<StoredFrames | undefined>
  /** Forgets everything, and begins a boot id. */
  readonly begin: (session: string, bootId: Uint8Array) => Promise<void>
  /** Keeps a frame. Resolves when it would survive. */
  readonly append: (frame: DeviceFrame) => Promise<void>
  /** Frames before `before` are not needed any more; everything before `durable` is stored for certain. */
  readonly free: (before: number, durable: number) => Promise<void>
  /** Forgets everything. */
  readonly clear: () => Promise<void>
  /** Lets go of what it holds open. What was asked before is done first. */
  readonly close: () => Promise<void>
}
