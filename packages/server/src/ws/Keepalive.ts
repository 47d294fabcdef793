/**
 * Finds peers that are gone without a word: every socket is pinged, and cut when it has answered nothing for two rounds.
 * A healthy peer that has nothing to say is left alone: answering a ping is all it takes.
 */
import { Effect, type Scope } from "effect"
import type { WebSocket } from "ws"

/** Milliseconds between two rounds. */
const everyMs = 30_000

export interface Keepalive {
  /** Watches over a socket until it closes. */
  readonly add: (ws: WebSocket) => void
}

export const makeKeepalive: Effect.Effect<Keepalive, never, Scope.Scope> = Effect.gen(function*() {
  // Rounds since the peer was last heard.
  const silent = new Map<WebSocket, number>()
  yield* Effect.forkScoped(
    Effect.sleep(everyMs).pipe(
      Effect.andThen(Effect.sync(() => {
        for (const [ws, rounds] of silent) {
          if (rounds >= 2) ws.terminate()
          else {
            silent.set(ws, rounds + 1)
            ws.ping()
          }
        }
      })),
      Effect.forever
    )
  )
  return {
    add: (ws) => {
      const heard = (): void => {
        if (silent.has(ws)) silent.set(ws, 0)
      }
      silent.set(ws, 0)
      ws.on("pong", heard).on("ping", heard).on("message", heard).on("close", () => silent.delete(ws))
    }
  }
})
