/**
 * The device's door: `GET /sessions/{id}/ingest`. Hello, welcome, samples, acks, end, time.
 *
 * After the welcome everything a device sends is handled in the socket's callback: no fiber, promise or log line per
 * frame. Acks are paced here: at most every 100 ms while frames come, at once when all that was received is durable or
 * half the window is used.
 */
import type { Publisher, PublisherPeer, Sessions } from "@thrum/core"
import {
  encodeAck,
  encodeRewind,
  encodeTime,
  encodeWelcome,
  type FrameError,
  frameError,
  type Hello,
  isFrameError,
  kindOf,
  kinds,
  protocolLimits,
  readDeviceFrame
} from "@thrum/protocol"
import { Deferred, Effect, type Scope } from "effect"
import type { WebSocket } from "ws"
import { refusalOf, refuse } from "./Refusal.ts"
import type { Upgraded } from "./Upgrade.ts"

/** Milliseconds between two acks while frames come. */
const ackEveryMs = 100
/** Milliseconds a device has to say hello. */
const helloWaitMs = 10_000
/** Bytes of acks a device may leave unread. */
const unreadBytesMax = 65_536

/** How a device's connection came to its end, as far as it is for us to act on. */
type Outcome = { readonly _tag: "Closed" } | { readonly _tag: "End"; readonly final: number }

/** What the shutdown needs of an open door. */
export interface OpenPublisher {
  /** Takes no more frames. */
  readonly stop: () => void
  /** Sends the last ack and closes with 1012. */
  readonly finish: () => void
}

/** Serves one device until its socket closes. Never fails: what goes wrong is told to the device. */
export const servePublisher: (
  sessions: Sessions["Service"],
  open: Set<OpenPublisher>,
  id: string,
  bearer: string | undefined,
  isSure: () => boolean,
  upgraded: Upgraded
) => Effect.Effect<void, never, Scope.Scope> = Effect.fnUntraced(function*(sessions, open, id, bearer, isSure, { ws }) {
  const outcome = Deferred.makeUnsafe<Outcome>()
  ws.once("close", () => Deferred.doneUnsafe(outcome, Effect.succeed({ _tag: "Closed" })))

  const hello = yield* firstMessage(ws)
  if (hello === undefined) return
  if (isFrameError(hello)) return refuse(ws, hello)

  const acks = new AckPacer(ws, isSure)
  const { bootId, next } = hello
  const published = yield* sessions.publish(id, { key: hello.key ?? bearer, bootId, next }, acks.peer).pipe(
    Effect.result
  )
  if (published._tag === "Failure") return refuse(ws, refusalOf(published.failure))
  const publisher = published.success
  acks.start(publisher)
  const door: OpenPublisher = {
    stop: () => acks.stop(),
    finish: () => {
      acks.send()
      ws.close(1012, "The server restarts")
    }
  }
  open.add(door)
  yield* Effect.addFinalizer(() => Effect.sync(() => open.delete(door)))

  let isEnding = false
  ws.on("message", (data: Buffer, isBinary: boolean) => {
    if (acks.isStopped) return
    const refusal = isBinary ? take(data) : textRefusal
    if (refusal === undefined) return
    acks.stop()
    acks.send()
    refuse(ws, refusal)
  })
  const take = (data: Buffer): FrameError | undefined => {
    if (kindOf(data) === kinds.samples) {
      // An end may cross a rewind: what was asked for is taken while the end waits for it. Else there is nothing to come.
      if (isEnding && !publisher.intake.isRewinding) return undefined
      acks.count(data.length)
      return publisher.accept(data)
    }
    const frame = readDeviceFrame(data)
    if (isFrameError(frame)) return frame
    switch (frame.kind) {
      case kinds.time:
        return sendOrRefuse(ws, encodeTime(frame.device, Date.now() * 1000))
      case kinds.end:
        isEnding = true
        Deferred.doneUnsafe(outcome, Effect.succeed({ _tag: "End", final: frame.index }))
        return undefined
      default:
        return frameError("HelloExpected", "Cannot accept a second hello: the connection has its epoch")
    }
  }
  ws.resume()

  const how = yield* Deferred.await(outcome)
  if (how._tag === "Closed") return
  const ended = yield* sessions.end(id, { publisher, final: how.final }).pipe(Effect.result)
  acks.stop()
  if (ended._tag === "Failure") return refuse(ws, refusalOf(ended.failure))
  acks.send()
  ws.close(1000, "The session has ended")
})

const textRefusal = frameError("BadFrame", "Cannot read the message: it is text, frames are binary")

/** The hello; what is wrong with it; undefined when the device left first. */
const firstMessage = (ws: WebSocket): Effect.Effect<Hello | FrameError | undefined> =>
  Effect.callback<Hello | FrameError | undefined>((resume) => {
    const onClose = (): void => resume(Effect.succeed(undefined))
    ws.once("close", onClose)
    ws.once("message", (data: Buffer, isBinary: boolean) => {
      // What follows waits in the socket until the welcome is sent.
      ws.pause()
      ws.off("close", onClose)
      const frame = isBinary ? readDeviceFrame(data) : textRefusal
      resume(Effect.succeed(
        isFrameError(frame) || frame.kind === kinds.hello ?
          frame :
          frameError("HelloExpected", "Cannot accept the frame: no hello came before it")
      ))
    })
    ws.resume()
  }).pipe(Effect.timeoutOrElse({
    duration: helloWaitMs,
    orElse: () => Effect.succeed(frameError("HelloExpected", `Cannot wait longer: no hello came in ${helloWaitMs} ms`))
  }))

const sendOrRefuse = (ws: WebSocket, bytes: Uint8Array): FrameError | undefined => {
  if (ws.bufferedAmount > unreadBytesMax) {
    return frameError("SlowReader", `Cannot go on: ${ws.bufferedAmount} bytes of acks are not read`)
  }
  ws.send(bytes)
  return undefined
}

/** When acks leave: see the top of this file. */
class AckPacer {
  isStopped = false
  readonly peer: PublisherPeer
  private readonly ws: WebSocket
  private readonly isSure: () => boolean
  private publisher: Publisher | undefined
  private timer: ReturnType<typeof setTimeout> | undefined
  private bytesSinceAck = 0
  private sentReceived = -1
  private sentDurable = -1

  constructor(ws: WebSocket, isSure: () => boolean) {
    this.ws = ws
    this.isSure = isSure
    this.peer = {
      onProgress: () => this.progress(),
      onRewind: (next) => {
        // The ack first: it says what is durable; then the rewind counts `received` from `next`.
        this.send()
        ws.send(encodeRewind(next))
      },
      onClose: (why) => {
        this.stop()
        this.send()
        refuse(ws, why)
      }
    }
    ws.once("close", () => clearTimeout(this.timer))
  }

  /** Sends the welcome; acks follow. */
  start(publisher: Publisher): void {
    this.publisher = publisher
    this.ws.send(encodeWelcome({
      epoch: publisher.epoch,
      next: publisher.next,
      window: protocolLimits.windowBytes.value,
      server: Date.now() * 1000,
      sure: this.isSure()
    }))
    // What is durable already, the device need not keep.
    this.sentReceived = publisher.next
    this.progress()
  }

  /** Bytes of a samples frame that counts against the window. */
  count(bytes: number): void {
    this.bytesSinceAck += bytes
  }

  /** No frame is taken any more. */
  stop(): void {
    this.isStopped = true
  }

  /** Sends where the device stands, if it moved. */
  send(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    const publisher = this.publisher
    if (publisher === undefined || this.ws.readyState !== this.ws.OPEN) return
    const { received, durable } = publisher
    if (received === this.sentReceived && durable === this.sentDurable && this.bytesSinceAck === 0) return
    this.sentReceived = received
    this.sentDurable = durable
    this.bytesSinceAck = 0
    const refusal = sendOrRefuse(
      this.ws,
      encodeAck({ received, durable, window: protocolLimits.windowBytes.value })
    )
    if (refusal !== undefined) refuse(this.ws, refusal)
  }

  private progress(): void {
    const publisher = this.publisher
    if (publisher === undefined) return
    if (
      (publisher.durable === publisher.received && publisher.durable !== this.sentDurable) ||
      this.bytesSinceAck >= protocolLimits.windowBytes.value / 2
    ) this.send()
    else this.timer ??= setTimeout(() => this.send(), ackEveryMs)
  }
}
