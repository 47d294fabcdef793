/**
 * Every bound of the wire, with its unit, its value and what it costs. Nothing a peer sends is read past these.
 */

/** One bound. */
export interface Limit {
  readonly value: number
  readonly unit: string
  readonly about: string
}

const limit = (value: number, unit: string, about: string): Limit => ({ value, unit, about })

/** The name of a bound. */
export type ProtocolLimit =
  | "messageBytesMax"
  | "controlBytesMax"
  | "samplesPerFrameMax"
  | "channelsMax"
  | "bootIdBytesMax"
  | "keyBytesMax"
  | "extraDepthMax"
  | "windowBytes"

/** The bounds of the protocol, by name. */
export const protocolLimits: Readonly<Record<ProtocolLimit, Limit>> = {
  messageBytesMax: limit(65_536, "bytes", "One WebSocket message, one frame. Held once while it is checked."),
  controlBytesMax: limit(125, "bytes", "One frame from the server to a device."),
  samplesPerFrameMax: limit(4096, "samples", "Samples of all channels in one frame: 256 KiB decoded at 16 channels."),
  channelsMax: limit(16, "channels", "Channels of a session."),
  bootIdBytesMax: limit(16, "bytes", "A boot id."),
  keyBytesMax: limit(128, "bytes", "An ingest key in a hello."),
  extraDepthMax: limit(8, "levels", "Nesting of ignored elements after the known ones of a frame."),
  windowBytes: limit(262_144, "bytes", "Samples frames a device may send beyond the last `received` ack.")
}
