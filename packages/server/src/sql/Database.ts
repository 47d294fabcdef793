/**
 * The database behind the archive: the one that `DATABASE_URL` names, or the embedded one. Migrated before the server
 * takes its first request; where it cannot be reached yet, the server starts without it and says so in readiness.
 */
import type { Archive } from "@thrum/core"
import { Migrations, SqlArchive } from "@thrum/core/sql"
import { PgClient } from "@effect/sql-pg"
import { Effect, Fiber, Layer, type Redacted, Schedule } from "effect"
import { embeddedPostgresDirectory, letThrough } from "./DataDirectory.ts"
import { type EmbeddedPostgresError, startEmbeddedPostgres } from "./EmbeddedPostgres.ts"

/** Connections of one instance: one writes, the rest serve reads. */
const connectionsMax = 10
/** How long a start waits for the database before it goes on without. */
const firstTriesMs = 5000

/** Migrates; while the database is away, tries again in the background for as long as the layer lives. */
const migrated = Layer.effectDiscard(
  Effect.gen(function*() {
    const again = Migrations.migrate.pipe(
      Effect.tapError((error) => Effect.logWarning(`Cannot migrate the database yet: ${error.message}`)),
      Effect.retry(Schedule.min([Schedule.exponential("200 millis"), Schedule.spaced("5 seconds")])),
      Effect.tapCause((cause) => Effect.logError("Cannot migrate the database", cause)),
      Effect.ignore
    )
    const migrating = yield* Effect.forkScoped(again)
    yield* Effect.raceFirst(Fiber.await(migrating), Effect.sleep(firstTriesMs))
  })
)

/** The archive on a PostgreSQL server. */
export const layerUrl = (url: Redacted.Redacted): Layer.Layer<Archive> =>
  SqlArchive.layer.pipe(
    Layer.provideMerge(migrated),
    Layer.provideMerge(
      PgClient.layer({ url, maxConnections: connectionsMax, applicationName: "thrum", connectTimeout: "5 seconds" })
    ),
    Layer.orDie
  )

/** The archive on the embedded PostgreSQL, which stops when the layer closes. */
export const layerEmbedded = (dataDir: string): Layer.Layer<Archive, EmbeddedPostgresError> =>
  Layer.unwrap(
    Effect.promise(() => letThrough(dataDir)).pipe(
      Effect.andThen(startEmbeddedPostgres({ dataDir: embeddedPostgresDirectory(dataDir) })),
      Effect.map(({ url }) => layerUrl(url))
    )
  )
