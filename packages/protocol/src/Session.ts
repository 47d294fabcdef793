/**
 * What is measured: the description of a session, as the device gives it and every viewer gets it.
 */

/** One measured quantity. A sample's value is `count × scale + offset` in `unit`; floats are already in `unit`. */
export interface Channel {
  /** Unique within the session, 1 to 32 characters. */
  readonly name: string
  /** As people write it: `m/s²`, `g`, `count`. Up to 16 characters. */
  readonly unit: string
  /** Unit per count. Not 0. */
  readonly scale: number
  /** Value of count 0, in the unit. */
  readonly offset: number
}

/** The description of what is measured. Fixed for the life of a session. */
export interface Description {
  /** 1 to 16, in the order of the block. */
  readonly channels: ReadonlyArray<Channel>
  /** Nominal sample rate in Hz, above 0. */
  readonly rate: number
  /** Microseconds per tick of the times inside a block. 1 unless said otherwise. */
  readonly tick: number
  readonly name?: string
  /** The sensor, as its maker calls it. */
  readonly sensor?: string
  /** Whether the acceleration contains gravity. */
  readonly gravity?: boolean
}

/** `live` until sealed, `ended` for ever after. */
export type SessionState = "live" | "ended"

/** What a viewer is told about a session in its welcome. */
export interface SessionInfo extends Description {
  readonly id: string
  readonly state: SessionState
  /** RFC 3339, UTC. */
  readonly createdAt: string
}
