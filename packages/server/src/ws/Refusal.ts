/** How a peer is told why, before its socket closes: an error frame, then the close with the same code. */
import type {
  ArchiveUnavailable,
  ChunkCorrupt,
  EndMismatch,
  NotFlushed,
  SessionEnded,
  SessionNotFound
} from "@thrum/core"
import type { KeyRefused, StaleEpoch } from "@thrum/core"
import { type CodeName, codes, comeBack, cutText, encodeError, type FrameError, frameError } from "@thrum/protocol"
import type { WebSocket } from "ws"
import { errorText } from "../EventText.ts"

/** Milliseconds after which a peer that may come back later should. */
const retryAfterMs = 1000

/** Sends the error frame (as text for a JSON viewer) and closes. */
export const refuse = (ws: WebSocket, why: FrameError, as: "frames" | "json" = "frames"): void => {
  if (ws.readyState !== ws.OPEN) return
  const retryAfter = comeBack(why.code) === "never" ? undefined : comeBack(why.code) === "now" ? 0 : retryAfterMs
  ws.send(
    as === "json" ?
      errorText(why, retryAfter) :
      encodeError(why.name, why.message, retryAfter)
  )
  ws.close(why.code, cutText(why.message, 123))
}

type CoreError =
  | ArchiveUnavailable
  | ChunkCorrupt
  | EndMismatch
  | KeyRefused
  | NotFlushed
  | SessionEnded
  | SessionNotFound
  | StaleEpoch

const names: Readonly<Record<CoreError["_tag"], CodeName>> = {
  ArchiveUnavailable: "ArchiveUnavailable",
  ChunkCorrupt: "Failed",
  EndMismatch: "EndMismatch",
  KeyRefused: "KeyRefused",
  NotFlushed: "ArchiveUnavailable",
  SessionEnded: "SessionEnded",
  SessionNotFound: "SessionNotFound",
  StaleEpoch: "StaleEpoch"
}

/** The refusal for an error of the core. What is the server's own business is not told to the peer. */
export const refusalOf = (error: CoreError): FrameError => {
  const name = names[error._tag]
  const isOurs = name === "ArchiveUnavailable" || name === "Failed"
  return frameError(name, isOurs ? codes[name].means : error.message)
}
