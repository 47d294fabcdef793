/**
 * Events as JSON, one text each: what a WebSocket with `format=json` gets, and a reader of server-sent events or NDJSON.
 * A frame's text is made once and shared by all.
 */
import type { FeedEvent, Frame } from "@thrum/core"
import {
  formatPosition,
  type FrameError,
  isFrameError,
  kinds,
  type Position,
  protocolVersion,
  readBlock,
  readSamples,
  type SessionInfo,
  textsOf
} from "@thrum/protocol"

/** The text that comes before all events. */
export const welcomeText = (session: SessionInfo, from: Position): string =>
  JSON.stringify({ type: "welcome", version: protocolVersion, session, from: formatPosition(from) })

/** The text of a refusal, the last thing there is. `retryAfter` in ms; undefined: do not come back. */
export const errorText = (why: FrameError, retryAfter: number | undefined): string =>
  JSON.stringify({ type: "error", code: why.code, name: why.name, text: why.message, retryAfter })

/** The text of one event. Samples: `rows` holds one array per sample, in the session's units, digits as measured. */
export const jsonOf = (event: FeedEvent, session: SessionInfo): string => {
  switch (event.kind) {
    case kinds.samples:
      return event.text ??= textOfFrame(event, session)
    case kinds.epoch:
      return JSON.stringify({
        type: "epoch",
        epoch: event.epoch,
        index: event.index,
        t0: event.t0 ?? null,
        wall: event.wall
      })
    case kinds.durable:
      return JSON.stringify({ type: "durable", position: formatPosition(event.position) })
    case kinds.gap:
      return JSON.stringify({
        type: "gap",
        from: formatPosition(event.from),
        to: formatPosition(event.to),
        reason: event.reason
      })
    case kinds.caughtUp:
      return JSON.stringify({ type: "caught-up", position: formatPosition(event.position) })
    case kinds.ended:
      return JSON.stringify({ type: "ended", position: formatPosition(event.position) })
  }
}

const textOfFrame = (frame: Frame, session: SessionInfo): string => {
  const samples = readSamples(frame.bytes)
  const channels = session.channels.length
  const block = isFrameError(samples) ? samples : readBlock(samples.block, channels)
  // Checked when it came: a frame that cannot be read now is our own bug.
  if (isFrameError(block)) throw new Error(block.message)
  const text = textsOf(block, session.channels)
  let rows = ""
  for (let i = 0, at = 0; i < block.count; i++) {
    let row = jsonNumber(text(at++))
    for (let c = 1; c < channels; c++) row += `,${jsonNumber(text(at++))}`
    rows += i === 0 ? `[${row}]` : `,[${row}]`
  }
  const times = block.times === undefined ? "" : `,"times":[${block.times.join(",")}]`
  const position = formatPosition({ epoch: frame.epoch, index: frame.index })
  return `{"type":"samples","position":"${position}","t0":${frame.t0 ?? "null"}${times},"rows":[${rows}]}`
}

/** JSON has no NaN and no infinity: they travel as strings. */
const jsonNumber = (text: string): string => text === "NaN" || text.endsWith("Infinity") ? `"${text}"` : text
