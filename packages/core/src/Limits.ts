/**
 * Every bound of the core, with its unit, its default and what it costs. One instance holds at most
 * `queueBytesMax + ringsBytesMax` of samples, whatever the devices, the viewers and the database do.
 */
import { Context } from "effect"

/** The bounds of the core. Give other values with `Effect.provideService(CoreLimits, …)` or `Layer.succeed`. */
export interface CoreLimitValues {
  /** Bytes of frames that wait for a commit, all sessions together. At the bound: shown, not queued, rewound later. */
  readonly queueBytesMax: number
  /** Bytes of one commit. */
  readonly groupBytesMax: number
  /** Frames of one commit. */
  readonly groupFramesMax: number
  /** Bytes of one stored chunk. */
  readonly chunkBytesMax: number
  /** Bytes of recent frames kept for joins, per session. At the bound the oldest go; the archive has them. */
  readonly ringBytesMax: number
  /** The same, all sessions together. */
  readonly ringsBytesMax: number
  /** Bytes read from the archive at a time, per reader. */
  readonly pageBytesMax: number
  /** Gaps remembered per epoch to tell a repeat from a late sample. At the bound the device must begin a new epoch. */
  readonly gapsMax: number
  /** Losses remembered per session for viewers that are set aside while they are told, about 100 bytes each. At the bound
   * the oldest go: a viewer that is set aside for that long is not told of them. */
  readonly lostMax: number
  /** Milliseconds between two tellings of the durable watermark to viewers. */
  readonly durableEveryMs: number
  /** Milliseconds a session stays in memory after the last device and viewer left it. */
  readonly idleMs: number
  /** Milliseconds `end` waits for the queue before it gives up and says so. */
  readonly endWaitMs: number
  /** Milliseconds the queue may take to flush when its scope closes. */
  readonly flushWaitMs: number
}

/** The defaults. */
export const coreLimits: CoreLimitValues = {
  queueBytesMax: 64 * 1024 * 1024,
  groupBytesMax: 4 * 1024 * 1024,
  groupFramesMax: 16_384,
  chunkBytesMax: 256 * 1024,
  ringBytesMax: 256 * 1024,
  ringsBytesMax: 64 * 1024 * 1024,
  pageBytesMax: 512 * 1024,
  gapsMax: 10_000,
  lostMax: 1_000,
  durableEveryMs: 100,
  idleMs: 10_000,
  endWaitMs: 10_000,
  flushWaitMs: 5_000
}

/** The bounds in force. A reference: nothing need provide it. */
export const CoreLimits: Context.Reference<CoreLimitValues> = Context.Reference("@thrum/core/Limits", {
  defaultValue: () => coreLimits
})
