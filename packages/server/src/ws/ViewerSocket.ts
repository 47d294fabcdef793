/**
 * The viewer's door: `GET /sessions/{id}/live`. Welcome, then the feed: the device's bytes as they came, or text for
 * `format=json`.
 *
 * A viewer that does not read is full at {@link viewerBytesMax}: the feed sets it aside and nobody waits for it. Frames
 * that meet in one turn of the event loop leave in one write.
 */
import type { Feed, FeedEvent, From, Live, Policy, Sink } from "@thrum/core"
import { infoOf } from "@thrum/core"
import {
  encodeCaughtUp,
  encodeDurable,
  encodeEnded,
  encodeEpoch,
  encodeGap,
  encodeTime,
  encodeViewerWelcome,
  frameError,
  isFrameError,
  kinds,
  readDeviceFrame,
  type SessionInfo
} from "@thrum/protocol"
import { Effect } from "effect"
import type { Socket } from "node:net"
import type { WebSocket } from "ws"
import { jsonOf, welcomeText } from "../EventText.ts"
import { refusalOf, refuse } from "./Refusal.ts"
import type { Upgraded } from "./Upgrade.ts"

/** Bytes a viewer may leave unread before it is set aside. */
const viewerBytesMax = 1024 * 1024
/** Milliseconds a viewer that was set aside has to read before it is refused. */
const drainWaitMs = 60_000
/** And then to read why, before it is cut. */
const closeWaitMs = 1500

/** How a viewer wants to see. */
export interface ViewerWish {
  readonly from: From
  readonly policy: Policy
  readonly format: "frames" | "json"
}

/** Serves one viewer until the session ends or its socket closes. Never fails: what goes wrong is told to the viewer. */
export const serveViewer: (
  feed: Feed["Service"],
  live: Live,
  wish: ViewerWish,
  upgraded: Upgraded
) => Effect.Effect<void> = Effect.fnUntraced(function*(feed, live, wish, { ws, socket }) {
  ws.on("message", (data: Buffer, isBinary: boolean) => {
    const frame = isBinary ? readDeviceFrame(data) : undefined
    if (frame !== undefined && !isFrameError(frame) && frame.kind === kinds.time) {
      if (ws.bufferedAmount < viewerBytesMax) ws.send(encodeTime(frame.device, Date.now() * 1000))
    } else refuse(ws, frameError("ViewerSent", "Cannot accept the message: a viewer only listens"), wish.format)
  })
  ws.resume()

  const info: SessionInfo = { ...infoOf(live.record), state: live.ended === undefined ? "live" : "ended" }
  const from = feed.positionOf(live, wish.from)
  ws.send(
    wish.format === "json" ?
      welcomeText(info, from) :
      encodeViewerWelcome(info, from)
  )

  const closed = Effect.callback<void>((resume) => {
    if (ws.readyState !== ws.OPEN) return resume(Effect.void)
    ws.once("close", () => resume(Effect.void))
  })
  const sink: Sink = {
    send: wish.format === "json" ?
      (event) => write(ws, socket, jsonOf(event, info)) :
      (event) => write(ws, socket, bytesOf(event)),
    drained: drained(ws, socket, wish.format)
  }
  yield* feed.attach(live, from, wish.policy, sink).pipe(
    Effect.andThen(Effect.sync(() => ws.close(1000, "The session has ended"))),
    Effect.catch((error) => Effect.sync(() => refuse(ws, refusalOf(error), wish.format))),
    Effect.andThen(closed),
    Effect.raceFirst(closed)
  )
})

const bytesOf = (event: FeedEvent): Uint8Array => {
  switch (event.kind) {
    case kinds.samples:
      return event.bytes
    case kinds.epoch:
      return encodeEpoch(event)
    case kinds.durable:
      return encodeDurable(event.position)
    case kinds.gap:
      return encodeGap(event)
    case kinds.caughtUp:
      return encodeCaughtUp(event.position)
    case kinds.ended:
      return encodeEnded(event.position)
  }
}

let corked: Array<Socket> = []

/** Sends, in one write with whatever else this turn of the event loop sends to the same viewer. */
const write = (ws: WebSocket, socket: Socket, data: Uint8Array | string): boolean => {
  if (ws.readyState !== ws.OPEN) return true
  if (socket.writableCorked === 0) {
    socket.cork()
    if (corked.push(socket) === 1) setImmediate(uncorkAll)
  }
  ws.send(data)
  return ws.bufferedAmount < viewerBytesMax
}

const uncorkAll = (): void => {
  const sockets = corked
  corked = []
  for (const socket of sockets) socket.uncork()
}

/** Returns when the viewer has read what was sent to it; cuts it off when it does not. */
const drained = (ws: WebSocket, socket: Socket, format: ViewerWish["format"]): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const go = (): void => resume(Effect.void)
    // Corked bytes leave at the end of this turn; only then is there something to drain.
    const turn = setImmediate(() => {
      if (socket.writableLength === 0) go()
      else socket.once("drain", go)
    })
    return Effect.sync(() => {
      clearImmediate(turn)
      socket.off("drain", go)
    })
  }).pipe(Effect.timeoutOrElse({
    duration: drainWaitMs,
    orElse: () =>
      Effect.sync(() => {
        refuse(
          ws,
          frameError("SlowReader", `Cannot go on: ${ws.bufferedAmount} bytes were not read in ${drainWaitMs} ms`),
          format
        )
        // The words wait behind what was not read: a moment for a peer that wakes up now, then the line is cut.
        setTimeout(() => ws.terminate(), closeWaitMs).unref()
      }).pipe(Effect.andThen(Effect.never))
  }))
