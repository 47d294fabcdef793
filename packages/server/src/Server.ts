/**
 * The wiring: the one place where HTTP, WebSocket, database and core meet.
 *
 * The order in which things close is the reverse of the order below: first the doors are drained (no new frames, the
 * queue flushed, last acks, sockets closed), then the HTTP server, the core, and last the database.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { type Archive, coreLayer, CoreLimits, coreLimits } from "@thrum/core"
import { Effect, Layer } from "effect"
import { HttpRouter, type HttpServer } from "effect/http"
import type { ServeError } from "effect/http/HttpServerError"
import { Draining, httpRoutes, PublicUrl, SocketDoors } from "./http/mod.ts"
import type { Settings } from "./Settings.ts"
import { layerEmbedded, layerUrl } from "./sql/Database.ts"
import type { EmbeddedPostgresError } from "./sql/EmbeddedPostgres.ts"
import { Doors } from "./ws/Doors.ts"
import { makeNodeServer } from "./ws/Upgrade.ts"

/** How long requests that are under way may take to end once the server closes. */
const requestsWait = "1 second"

/** The queue's own last flush: most of its time was spent by the doors before. */
const limits = { ...coreLimits, flushWaitMs: 1000 }

/** The database of the settings, as the archive. */
const archiveLayer = (settings: Settings): Layer.Layer<Archive, EmbeddedPostgresError> =>
  settings.databaseUrl === undefined ? layerEmbedded(settings.dataDir) : layerUrl(settings.databaseUrl)

/**
 * A whole server over any archive: HTTP, the WebSocket doors and the core.
 *
 * @param options `port` 0 takes a free one. `publicUrl` is what links begin with.
 */
export const serverLayerOver = <E>(
  archive: Layer.Layer<Archive, E>,
  options: Pick<Settings, "host" | "port" | "publicUrl">
): Layer.Layer<HttpServer.HttpServer, E | ServeError> => {
  let isDraining = false
  // Built last, hence the first to close.
  const drain = Layer.effectDiscard(
    Effect.gen(function*() {
      const doors = yield* Doors
      yield* Effect.addFinalizer(() =>
        Effect.suspend(() => {
          isDraining = true
          return doors.drain
        })
      )
    })
  )
  const sockets = Layer.effect(SocketDoors, Effect.map(Doors, ({ ingest, live }) => SocketDoors.of({ ingest, live })))
  return drain.pipe(
    Layer.provideMerge(
      HttpRouter.serve(httpRoutes.pipe(Layer.provide(sockets)), { disableLogger: true, disableListenLog: true })
    ),
    Layer.provideMerge(
      NodeHttpServer.layer(makeNodeServer, {
        port: options.port,
        host: options.host,
        gracefulShutdownTimeout: requestsWait
      })
    ),
    Layer.provide(Doors.layer),
    Layer.provide(coreLayer),
    Layer.provide(archive),
    Layer.provide([
      Layer.succeed(CoreLimits, limits),
      Layer.succeed(PublicUrl, options.publicUrl),
      Layer.succeed(Draining, () => isDraining)
    ])
  )
}

/**
 * The server of the settings: on the embedded PostgreSQL, or on the one of `DATABASE_URL`.
 *
 * @example
 * ```ts
 * import { serverLayer } from "@thrum/server"
 * import { Effect, Layer } from "effect"
 *
 * const settings = { port: 8080, host: "127.0.0.1", dataDir: "./data", databaseUrl: undefined, publicUrl: undefined }
 * Effect.runFork(Layer.launch(serverLayer(settings)))
 * ```
 */
export const serverLayer = (
  settings: Settings
): Layer.Layer<HttpServer.HttpServer, EmbeddedPostgresError | ServeError> =>
  serverLayerOver(archiveLayer(settings), settings)
