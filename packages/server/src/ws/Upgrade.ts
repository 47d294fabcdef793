/**
 * Takes a connection over from HTTP: from here on it is a bare `ws` socket, driven by plain callbacks.
 *
 * No compression (the blocks are packed already) and a bound on each message. What the bound refuses gets the code of
 * RFC 6455 (1009); what is under it and over the protocol's own limit gets an error frame that says so.
 */
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import { protocolLimits, subprotocol } from "@thrum/protocol"
import { Effect, type Scope } from "effect"
import type { HttpServerRequest } from "effect/http"
import { createServer, IncomingMessage, type Server } from "node:http"
import type { Socket } from "node:net"
import { type WebSocket, WebSocketServer } from "ws"

// The bytes that came behind the request head: Effect's request does not carry them.
const heads = new WeakMap<IncomingMessage, Buffer>()

/** A Node server whose upgrade requests {@link upgrade} can take over. */
export const makeNodeServer = (): Server =>
  createServer().on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
    heads.set(request, head)
    // A peer that resets in the middle of the handshake must not throw: nobody else listens yet.
    socket.on("error", () => {})
  })

const server = new WebSocketServer({
  noServer: true,
  perMessageDeflate: false,
  maxPayload: 2 * protocolLimits.messageBytesMax.value,
  handleProtocols: (offered) => offered.has(subprotocol) ? subprotocol : false
})

/** A socket taken over, and the TCP socket under it. */
export interface Upgraded {
  readonly ws: WebSocket
  readonly socket: Socket
}

/** Milliseconds a peer has to answer a close before its connection is cut. */
const closeWaitMs = 1500

/**
 * Answers the handshake. The socket is paused (no message is lost before someone listens) and is cut when the scope
 * closes, after a moment for its close to be answered.
 */
export const upgrade = (request: HttpServerRequest.HttpServerRequest): Effect.Effect<Upgraded, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Upgraded>((resume) => {
      const message = NodeHttpServerRequest.toIncomingMessage(request)
      // Ours is an HTTP/1.1 server: it makes no other kind of request.
      if (!(message instanceof IncomingMessage)) return resume(Effect.die(new Error("not an HTTP/1.1 request")))
      const socket = message.socket
      socket.setNoDelay(true)
      server.handleUpgrade(message, socket, heads.get(message) ?? Buffer.alloc(0), (ws) => {
        // Errors of one peer (a broken frame, a reset) end that peer; `close` follows and is what we act on.
        ws.on("error", () => {})
        ws.pause()
        resume(Effect.succeed({ ws, socket }))
      })
      // A handshake that `ws` refuses is answered by it and never calls back: end with the connection.
      socket.once("close", () => resume(Effect.interrupt))
    }),
    ({ ws }) =>
      Effect.callback<void>((resume) => {
        if (ws.readyState === ws.CLOSED) return resume(Effect.void)
        ws.resume()
        ws.close()
        const timer = setTimeout(() => ws.terminate(), closeWaitMs)
        ws.once("close", () => {
          clearTimeout(timer)
          resume(Effect.void)
        })
      })
  )
