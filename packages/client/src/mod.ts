/**
 * Thrum's clients: a device that loses nothing, a viewer that misses nothing. The same code in browsers, Node, Deno and
 * Bun, over the standard `WebSocket`, `fetch` and `crypto`.
 *
 * @module
 */
export { Device, openDevice } from "./Device.ts"
export type { DeviceOptions, DeviceState, DeviceStatus, Dropped } from "./Device.ts"
export type { FrameStore, StoredFrames } from "./FrameStore.ts"
export { IndexedDbStore } from "./IndexedDbStore.ts"
export { isSessionId, parseLink, parseServer, urlOf } from "./Link.ts"
export type { SessionLink } from "./Link.ts"
export type { SamplesArray, Taken } from "./Packer.ts"
export type {
  Batch,
  CaughtUpEvent,
  DurableEvent,
  EndedEvent,
  EpochEvent,
  GapEvent,
  RecordingEvent,
  WelcomeEvent
} from "./Reading.ts"
export { readRecording } from "./Recording.ts"
export type { RecordingSource } from "./Recording.ts"
export { createSession, endSession, getData, getSession } from "./Rest.ts"
export type { Created, Links, NewSession } from "./Rest.ts"
export type { DeviceFrame } from "./Retention.ts"
export { ThrumError } from "./ThrumError.ts"
export type { OwnErrorName } from "./ThrumError.ts"
export { Viewer, watch } from "./Viewer.ts"
export type { AwayEvent, ViewerState, ViewerStatus, WatchEvent, WatchOptions } from "./Viewer.ts"
