/**
 * The two WebSocket doors and their shutdown.
 *
 * The HTTP side hands over a request that asks for an upgrade; the answer comes when the socket has closed.
 */
import { Archive, Feed, Hub, type SessionNotFound, Sessions, WriteQueue } from "@thrum/core"
import type { ArchiveUnavailable } from "@thrum/core"
import { codes } from "@thrum/protocol"
import { Context, Effect, Layer, type Scope } from "effect"
import type { HttpServerRequest } from "effect/http"
import type { WebSocket } from "ws"
import { makeKeepalive } from "./Keepalive.ts"
import { type OpenPublisher, servePublisher } from "./PublisherSocket.ts"
import { upgrade } from "./Upgrade.ts"
import { serveViewer, type ViewerWish } from "./ViewerSocket.ts"

/** Milliseconds the queue has to be flushed, and peers to close, at shutdown. Together under the 8 s we have. */
const flushWaitMs = 4000
const closeWaitMs = 1500

/** Milliseconds between two looks at whether the archive's commits are sure. */
const readinessEveryMs = 30_000

/** Whether commits survive a crash of the database, as the archive last said. Until it has said so, they do not. */
const watchReadiness: Effect.Effect<() => boolean, never, Archive | Scope.Scope> = Effect.gen(function*() {
  const archive = yield* Archive
  let isSure = false
  const look = archive.ready.pipe(
    Effect.map(({ durable }) => {
      isSure = durable
    }),
    Effect.ignore
  )
  yield* look.pipe(Effect.timeoutOption(1000))
  yield* Effect.forkScoped(Effect.sleep(readinessEveryMs).pipe(Effect.andThen(look), Effect.forever))
  return () => isSure
})

type Request = HttpServerRequest.HttpServerRequest

export interface DoorsShape {
  /** Serves a device until its socket closes. */
  readonly ingest: (
    id: string,
    bearer: string | undefined,
    request: Request
  ) => Effect.Effect<void, SessionNotFound | ArchiveUnavailable>
  /** Serves a viewer until its socket closes. */
  readonly live: (
    id: string,
    wish: ViewerWish,
    request: Request
  ) => Effect.Effect<void, SessionNotFound | ArchiveUnavailable>
  /** Stops taking frames, flushes the queue, sends the last acks and closes every socket with 1012. */
  readonly drain: Effect.Effect<void>
  /** Sockets open now. */
  readonly counts: () => { readonly publishers: number; readonly viewers: number }
}

const Tag: Context.ServiceClass<Doors, "@thrum/server/Doors", DoorsShape> = Context.Service<Doors, DoorsShape>()(
  "@thrum/server/Doors"
)

/** The WebSocket doors. */
export class Doors extends Tag {
  static readonly layer: Layer.Layer<Doors, never, Archive | Sessions | Hub | Feed | WriteQueue> = Layer.effect(
    Doors,
    Effect.gen(function*() {
      const [sessions, hub, feed, queue] = [yield* Sessions, yield* Hub, yield* Feed, yield* WriteQueue]
      const keepalive = yield* makeKeepalive
      const isSure = yield* watchReadiness
      const publishers = new Set<OpenPublisher>()
      const sockets = new Map<WebSocket, "publisher" | "viewer">()
      let draining = false

      const enter = Effect.fnUntraced(function*(request: Request, role: "publisher" | "viewer") {
        const upgraded = yield* upgrade(request)
        const { ws } = upgraded
        sockets.set(ws, role)
        ws.once("close", () => sockets.delete(ws))
        keepalive.add(ws)
        if (draining) ws.close(1012, codes.Restarting.means)
        return upgraded
      })

      const drain = Effect.gen(function*() {
        draining = true
        for (const publisher of publishers) publisher.stop()
        yield* Effect.forEach(
          Array.from(hub.lives(), (live) => live.id),
          (id) => queue.flushed(id),
          { concurrency: "unbounded", discard: true }
        ).pipe(Effect.timeoutOption(flushWaitMs))
        for (const publisher of publishers) publisher.finish()
        for (const ws of sockets.keys()) ws.close(1012, codes.Restarting.means)
        const closed = Effect.sync(() => sockets.size === 0)
        yield* Effect.sleep("10 millis").pipe(
          Effect.repeat({ until: () => closed }),
          Effect.timeoutOption(closeWaitMs)
        )
        for (const ws of sockets.keys()) ws.terminate()
      })

      return Doors.of({
        ingest: Effect.fnUntraced(function*(id, bearer, request) {
          // Found before the upgrade: a wrong link is answered by HTTP, which everybody can read.
          yield* hub.open(id)
          const upgraded = yield* enter(request, "publisher")
          yield* servePublisher(sessions, publishers, id, bearer, isSure, upgraded)
        }, Effect.scoped),
        live: Effect.fnUntraced(function*(id, wish, request) {
          const live = yield* hub.open(id)
          const upgraded = yield* enter(request, "viewer")
          yield* serveViewer(feed, live, wish, upgraded)
        }, Effect.scoped),
        drain,
        counts: () => {
          let viewers = 0
          for (const role of sockets.values()) if (role === "viewer") viewers++
          return { publishers: sockets.size - viewers, viewers }
        }
      })
    })
  )
}
