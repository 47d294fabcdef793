/**
 * The tables of the archive in PostgreSQL, and how they come to be.
 *
 * Several instances may start at once: one applies what is missing in one transaction, the others wait for it and find
 * nothing left to do. What was applied is kept in `thrum_migrations`, so that Thrum fits into a database that has
 * migrations of its own. A record here is never changed once it was released; a change is a new record.
 */
import { Effect, Layer } from "effect"
import { Migrator, SqlClient, SqlError } from "effect/sql"

const tables = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient

  // `json`, not `jsonb`: the text comes back as it was given, digit for digit, key for key, with any character.
  yield* sql`
    CREATE TABLE sessions (
      id uuid PRIMARY KEY,
      description json NOT NULL,
      key_hash bytea NOT NULL,
      state text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'ended')),
      created_at timestamptz NOT NULL,
      ended_at timestamptz,
      CHECK ((state = 'ended') = (ended_at IS NOT NULL))
    )`

  // A row is rewritten with every group that holds its epoch. No column that moves is in an index and half of each page
  // is left free, so the new version goes beside the old one and touches no index (a HOT update).
  yield* sql`
    CREATE TABLE epochs (
      session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
      epoch int4 NOT NULL,
      boot_id text NOT NULL,
      t0 int8,
      wall int8,
      first_index int8,
      durable int8 NOT NULL DEFAULT 0,
      samples int8 NOT NULL DEFAULT 0,
      bytes int8 NOT NULL DEFAULT 0,
      sealed bool NOT NULL DEFAULT false,
      PRIMARY KEY (session_id, epoch),
      UNIQUE (boot_id, session_id)
    ) WITH (fillfactor = 50)`

  // One index, the one that reads. No foreign key: it would look up and lock the epoch once for each chunk, and the
  // statement that adds a chunk has moved that very row already. So who deletes an epoch deletes its chunks with it.
  yield* sql`
    CREATE TABLE chunks (
      session_id uuid NOT NULL,
      epoch int4 NOT NULL,
      size int4 NOT NULL,
      first int8 NOT NULL,
      next int8 NOT NULL,
      crc int4 NOT NULL,
      bytes bytea NOT NULL,
      PRIMARY KEY (session_id, epoch, first)
    )`
  // Blocks are packed: to compress them again costs time and saves nothing.
  yield* sql`ALTER TABLE chunks ALTER COLUMN bytes SET STORAGE EXTERNAL`
})

/** Brings the tables up to date. Answers which migrations it applied: none when another instance was first. */
export const migrate: Effect.Effect<
  ReadonlyArray<readonly [id: number, name: string]>,
  Migrator.MigrationError | SqlError.SqlError,
  SqlClient.SqlClient
> = Migrator.make({})({
  loader: Migrator.fromRecord({ "0001_tables": tables }),
  table: "thrum_migrations"
}).pipe(
  // A connection that dies in a transaction cannot roll back either, which the client reports as a defect.
  Effect.catchDefect((defect) => SqlError.isSqlError(defect) ? Effect.fail(defect) : Effect.die(defect))
)

/** Brings the tables up to date before anything that is built on it. */
export const layer: Layer.Layer<never, Migrator.MigrationError | SqlError.SqlError, SqlClient.SqlClient> = Layer
  .effectDiscard(migrate)
