/**
 * Every reason for which Thrum refuses a frame or closes a socket: one table, read by both doors, by the
 * clients and by `docs/PROTOCOL.md`.
 *
 * 4000–4099: do not come back unchanged. 4100–4199: come back later. 1001 and 1012: come back now.
 */

/** Whose doing a close is. */
export type Fault = "device" | "viewer" | "server" | "nobody"

/** One row: the WebSocket close code, its name, whose fault it is and what the peer should do. */
export interface CodeEntry {
  readonly code: number
  readonly fault: Fault
  /** What it means, one sentence. */
  readonly means: string
  /** What the peer should do about it, one sentence. */
  readonly remedy: string
}

const entry = (code: number, fault: Fault, means: string, remedy: string): CodeEntry => ({ code, fault, means, remedy })

/** The name of a row of {@link codes}. */
export type CodeName =
  | "Ended"
  | "GoingAway"
  | "Restarting"
  | "BadFrame"
  | "UnsupportedVersion"
  | "WindowExceeded"
  | "KeyRefused"
  | "SessionNotFound"
  | "SessionEnded"
  | "BadBlock"
  | "TooLarge"
  | "OutOfOrder"
  | "Conflict"
  | "Superseded"
  | "HelloExpected"
  | "StaleEpoch"
  | "EndMismatch"
  | "ViewerSent"
  | "Overloaded"
  | "ArchiveUnavailable"
  | "Idle"
  | "SlowReader"
  | "Failed"

/** All close codes by name. The numbers never change their meaning. */
export const codes: Readonly<Record<CodeName, CodeEntry>> = {
  Ended: entry(1000, "nobody", "The session has ended and everything was sent.", "Nothing."),
  GoingAway: entry(1001, "server", "The server is going away.", "Come back now."),
  Restarting: entry(1012, "server", "The server restarts.", "Come back now."),
  BadFrame: entry(4000, "device", "A message is not a frame of thrum.v1.", "Correct the sender."),
  UnsupportedVersion: entry(4001, "device", "The hello speaks another version.", "Speak version 1."),
  WindowExceeded: entry(4002, "device", "More bytes than the window await an ack.", "Wait for acks."),
  KeyRefused: entry(
    4003,
    "device",
    "The ingest key does not open this session.",
    "Use the key that came with the session."
  ),
  SessionNotFound: entry(4004, "device", "No such session is kept here.", "Create a session."),
  SessionEnded: entry(4005, "device", "The session is sealed and takes no more frames.", "Create a session."),
  BadBlock: entry(4006, "device", "The block of a frame cannot be read.", "Correct the encoder."),
  TooLarge: entry(4007, "device", "A message or its block is larger than the limit.", "Send smaller frames."),
  OutOfOrder: entry(
    4008,
    "device",
    "A frame overlaps what is stored, or fills a gap that is already told.",
    "Send each index once, upwards."
  ),
  Conflict: entry(
    4009,
    "device",
    "Other bytes are already kept under this index.",
    "Begin a new epoch with a new boot id."
  ),
  Superseded: entry(4010, "nobody", "A newer connection publishes this session.", "Do not come back with this one."),
  HelloExpected: entry(4011, "device", "A frame came before the hello, or a second hello.", "Send one hello, first."),
  StaleEpoch: entry(
    4012,
    "device",
    "The boot id belongs to an epoch before the current one.",
    "Choose a new boot id at power-up."
  ),
  EndMismatch: entry(
    4013,
    "device",
    "The final index is not where the stream is.",
    "End at the next index, or use POST /sessions/{id}/end."
  ),
  ViewerSent: entry(4014, "viewer", "A viewer sent a message it must not send.", "Only listen."),
  Overloaded: entry(4100, "server", "A limit of this server is reached.", "Come back after the delay."),
  ArchiveUnavailable: entry(4101, "server", "The database cannot be reached.", "Come back after the delay."),
  Idle: entry(4102, "device", "Nothing was heard for too long.", "Come back when there is something to send."),
  SlowReader: entry(
    4103,
    "viewer",
    "The peer does not read what it is sent.",
    "Come back; resume from the last position."
  ),
  Failed: entry(4104, "server", "The server failed in a way it did not expect.", "Come back after the delay.")
}

/**
 * Whether a peer that was closed with `code` may try again, and when. Codes without a row mean a lost connection, but
 * for 1009: RFC 6455's "message too big" meets the same message again.
 *
 * @example
 * ```ts
 * import { comeBack } from "@thrum/protocol"
 * comeBack(1012) // "now"
 * comeBack(4003) // "never"
 * ```
 */
export const comeBack = (code: number): "never" | "now" | "later" =>
  code === 1000 || code === 1009 || (code >= 4000 && code < 4100)
    ? "never"
    : code >= 4100 && code < 4200
    ? "later"
    : "now"
