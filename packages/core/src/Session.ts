/**
 * A session: one recording of one device, from its creation until it is sealed. Its id is for everybody who watches;
 * its ingest key is for the one who writes.
 */
import type { Description, Position, SessionInfo, SessionState } from "@thrum/protocol"
import { Data } from "effect"
import type { TaggedErrorClass } from "./TaggedError.ts"

/** UUID v4 in lower case. Whoever has it may watch and download. */
export type SessionId = string

/** Whether `text` has the form of a session id. */
export const isSessionId = (text: string): text is SessionId =>
  /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(text)

/** What is kept of an epoch besides its samples. */
export interface EpochRecord {
  readonly epoch: number
  /** As the hello gave it, see `Hello.bootId`. */
  readonly bootId: string
  /** `t0` (device µs) of its first frame; undefined while there is none, or when the device has no clock. */
  readonly t0: number | undefined
  /** The server's clock (µs since 1970) at the first sample of its first frame; undefined while there is none. */
  readonly wall: number | undefined
  /** Index of the first sample of its first frame; undefined while there is none. */
  readonly index: number | undefined
  /** Everything of this epoch before this index is stored for certain. */
  readonly durable: number
  /** Samples stored (gaps do not count). */
  readonly samples: number
  /** Bytes of the stored frames. */
  readonly bytes: number
}

/** What is kept of a session besides its samples. Epochs in ascending order. */
export interface SessionRecord {
  readonly id: SessionId
  readonly description: Description
  /** SHA-256 of the ingest key. */
  readonly keyHash: Uint8Array
  readonly state: SessionState
  /** Milliseconds since 1970. */
  readonly createdAt: number
  readonly endedAt: number | undefined
  readonly epochs: ReadonlyArray<EpochRecord>
}

/** After the last stored sample. `0:0` for an empty session. */
export const durableOf = (record: SessionRecord): Position => {
  const last = record.epochs.at(-1)
  return last === undefined ? { epoch: 0, index: 0 } : { epoch: last.epoch, index: last.durable }
}

/** What everybody may know of a session: what a viewer's welcome holds. */
export const infoOf = (record: SessionRecord): SessionInfo => ({
  id: record.id,
  ...record.description,
  state: record.state,
  createdAt: new Date(record.createdAt).toISOString()
})

const NotFoundBase: TaggedErrorClass<"SessionNotFound", { readonly id: SessionId }> = Data.TaggedError(
  "SessionNotFound"
)
/** No such session is kept here. */
export class SessionNotFound extends NotFoundBase {
  override get message(): string {
    return `Cannot find the session "${this.id}": none is kept under this id`
  }
}

const EndedBase: TaggedErrorClass<"SessionEnded", { readonly id: SessionId }> = Data.TaggedError("SessionEnded")
/** The session is sealed; it takes no more frames. */
export class SessionEnded extends EndedBase {
  override get message(): string {
    return `Cannot publish to the session "${this.id}": it has ended`
  }
}

const KeyRefusedBase: TaggedErrorClass<"KeyRefused", { readonly id: SessionId }> = Data.TaggedError("KeyRefused")
/** The ingest key is not the one of this session. */
export class KeyRefused extends KeyRefusedBase {
  override get message(): string {
    return `Cannot write to the session "${this.id}": the ingest key does not open it`
  }
}

const StaleEpochBase: TaggedErrorClass<"StaleEpoch", { readonly id: SessionId; readonly epoch: number }> = Data
  .TaggedError("StaleEpoch")
/** The boot id belongs to an epoch before the current one: a newer power-up of the device has taken over. */
export class StaleEpoch extends StaleEpochBase {
  override get message(): string {
    return `Cannot publish to the session "${this.id}": the boot id belongs to epoch ${this.epoch}, a newer one has begun`
  }
}
