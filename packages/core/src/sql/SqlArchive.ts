/**
 * The archive in PostgreSQL: what {@link Archive} promises, kept by one statement per group.
 *
 * Bounds: a group is one statement, as large as the caller makes it; a read holds at most {@link readRowsMax} chunks
 * and the bytes it was asked for. Nothing is cached and nothing is retried here: whatever the database answers but
 * success is `ArchiveUnavailable`, and to try the same again is safe.
 *
 * What it rests on: PostgreSQL shows a commit to others only after its log is flushed. So whoever sees a watermark may
 * acknowledge it, whether this connection moved it or one whose answer was lost.
 */
import type { Description } from "@thrum/protocol"
import { Effect, Layer } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import { crc32 } from "node:zlib"
import {
  type Append,
  type Appended,
  Archive,
  type ArchiveShape,
  ArchiveUnavailable,
  type Chunk,
  ChunkCorrupt
} from "../Archive.ts"
import {
  type EpochRecord,
  SessionEnded,
  type SessionId,
  SessionNotFound,
  type SessionRecord,
  StaleEpoch
} from "../Session.ts"

/** Chunks of one read, whatever their size. */
const readRowsMax = 512

/** Stands for "no t0" among the parameters: an array of nothing but nulls would have no type. */
const noTime = -1n

interface SessionRow {
  readonly description: Description
  readonly key_hash: Uint8Array
  readonly state: SessionRecord["state"]
  readonly created_at: Date
  readonly ended_at: Date | null
}

interface EpochRow {
  readonly epoch: number
  readonly boot_id: string
  readonly t0: bigint | null
  readonly wall: bigint | null
  readonly first_index: bigint | null
  readonly durable: bigint
  readonly samples: bigint
  readonly bytes: bigint
}

/** What an outer join gives for a session without an epoch. */
interface NoEpochRow {
  readonly epoch: null
}

/** An epoch as an append met it, and once more when the append moved it. */
interface MetRow {
  /** Which append of the group, counted from 1. */
  readonly place: bigint
  readonly durable: bigint
  readonly sealed: boolean
  readonly moved: boolean
}

interface ChunkRow {
  readonly epoch: number
  readonly first: bigint
  readonly next: bigint
  readonly crc: number
  readonly bytes: Uint8Array
}

const numberOf = (value: bigint | null): number | undefined => value === null ? undefined : Number(value)

const epochOf = (row: EpochRow): EpochRecord => ({
  epoch: row.epoch,
  bootId: row.boot_id,
  t0: numberOf(row.t0),
  wall: numberOf(row.wall),
  index: numberOf(row.first_index),
  durable: Number(row.durable),
  samples: Number(row.samples),
  bytes: Number(row.bytes)
})

const recordOf = (id: SessionId, row: SessionRow, epochs: ReadonlyArray<EpochRow>): SessionRecord => ({
  id,
  description: row.description,
  keyHash: row.key_hash,
  state: row.state,
  createdAt: row.created_at.getTime(),
  endedAt: row.ended_at?.getTime(),
  epochs: epochs.map(epochOf)
})

/** CRC-32, as the signed integer its column holds. */
const checksumOf = (bytes: Uint8Array): number => crc32(bytes) | 0

const chunksOf = (id: SessionId, rows: ReadonlyArray<ChunkRow>): Effect.Effect<ReadonlyArray<Chunk>, ChunkCorrupt> => {
  const chunks: Array<Chunk> = []
  for (const { epoch, first, next, crc, bytes } of rows) {
    const chunk = { epoch, first: Number(first), next: Number(next), bytes }
    if (checksumOf(bytes) !== crc) return Effect.fail(new ChunkCorrupt({ sessionId: id, epoch, first: chunk.first }))
    chunks.push(chunk)
  }
  return Effect.succeed(chunks)
}

/** Whatever the database refuses; and a connection lost in a transaction, whose failed rollback comes as a defect. */
const unavailable =
  (doing: string) => <A, E extends { readonly _tag: string }>(effect: Effect.Effect<A, E | SqlError.SqlError>) =>
    effect.pipe(
      Effect.catchDefect((defect) => SqlError.isSqlError(defect) ? Effect.fail(defect) : Effect.die(defect)),
      Effect.catchTag("SqlError", (cause) => Effect.fail(new ArchiveUnavailable({ doing, cause })))
    )

interface AppendColumns {
  readonly sessionIds: Array<SessionId>
  readonly epochs: Array<number>
  readonly expected: Array<bigint>
  readonly next: Array<bigint>
  readonly t0s: Array<bigint>
  readonly walls: Array<bigint>
  readonly indexes: Array<bigint>
  readonly samples: Array<bigint>
  readonly sizes: Array<bigint>
}

interface ChunkColumns {
  /** Which append of the group it is of, counted from 1. */
  readonly places: Array<bigint>
  readonly firsts: Array<bigint>
  readonly nexts: Array<bigint>
  readonly crcs: Array<number>
  readonly bytes: Array<Uint8Array>
}

/** The columns of one group as the statement takes them: numbers as bigint, so that their type is always int8. */
const columnsOf = (group: ReadonlyArray<Append>) => {
  const appends: AppendColumns = {
    sessionIds: [],
    epochs: [],
    expected: [],
    next: [],
    t0s: [],
    walls: [],
    indexes: [],
    samples: [],
    sizes: []
  }
  const chunks: ChunkColumns = {
    places: [],
    firsts: [],
    nexts: [],
    crcs: [],
    bytes: []
  }
  for (const [place, append] of group.entries()) {
    let samples = 0
    let size = 0
    for (const chunk of append.chunks) {
      samples += chunk.next - chunk.first
      size += chunk.bytes.length
      chunks.places.push(BigInt(place + 1))
      chunks.firsts.push(BigInt(chunk.first))
      chunks.nexts.push(BigInt(chunk.next))
      chunks.crcs.push(checksumOf(chunk.bytes))
      chunks.bytes.push(chunk.bytes)
    }
    appends.sessionIds.push(append.sessionId)
    appends.epochs.push(append.epoch)
    appends.expected.push(BigInt(append.expected))
    appends.next.push(BigInt(append.next))
    appends.t0s.push(append.t0 === undefined ? noTime : BigInt(append.t0))
    appends.walls.push(BigInt(append.wall))
    appends.indexes.push(BigInt(append.index))
    appends.samples.push(BigInt(samples))
    appends.sizes.push(BigInt(size))
  }
  return { appends, chunks }
}

const make = (sql: SqlClient.SqlClient): ArchiveShape => {
  /** One statement, so one moment: state and epochs fit together. */
  const find = Effect.fnUntraced(function*(id: SessionId) {
    const rows = yield* sql<SessionRow & (EpochRow | NoEpochRow)>`
      SELECT s.description, s.key_hash, s.state, s.created_at, s.ended_at,
        e.epoch, e.boot_id, e.t0, e.wall, e.first_index, e.durable, e.samples, e.bytes
      FROM sessions s LEFT JOIN epochs e ON e.session_id = s.id
      WHERE s.id = ${id}::uuid ORDER BY e.epoch`.withoutTransform
    return rows[0] === undefined ? undefined : recordOf(id, rows[0], rows.filter((row) => row.epoch !== null))
  })

  return {
    create: ({ id, description, keyHash, createdAt }) =>
      Effect.gen(function*() {
        const added = yield* sql`
          INSERT INTO sessions (id, description, key_hash, created_at)
          VALUES (${id}::uuid, ${JSON.stringify(description)}::json, ${keyHash}, ${new Date(createdAt)})
          ON CONFLICT (id) DO NOTHING RETURNING id`.withoutTransform
        // An earlier try may have been committed without an answer; its key proves that it was ours.
        const kept = added.length === 1 ? added : yield* sql`
          SELECT id FROM sessions WHERE id = ${id}::uuid AND key_hash = ${keyHash}`.withoutTransform
        if (kept.length === 0) {
          return yield* Effect.die(new Error("Cannot create the session: another one is kept under its id"))
        }
      }).pipe(unavailable("create the session"), Effect.withSpan("SqlArchive.create")),

    session: (id) =>
      find(id).pipe(
        Effect.flatMap((record) => record === undefined ? new SessionNotFound({ id }) : Effect.succeed(record)),
        unavailable("look up the session"),
        Effect.withSpan("SqlArchive.session")
      ),

    openEpoch: (id, bootId) =>
      Effect.gen(function*() {
        // The lock keeps other openings and the sealing out until this one is committed.
        const [session] = yield* sql<Pick<SessionRow, "state">>`
          SELECT state FROM sessions WHERE id = ${id}::uuid FOR UPDATE`.withoutTransform
        if (session === undefined) return new SessionNotFound({ id })
        if (session.state === "ended") return new SessionEnded({ id })

        const epochs = yield* sql<EpochRow>`
          SELECT epoch, boot_id, t0, wall, first_index, durable, samples, bytes FROM epochs
          WHERE session_id = ${id}::uuid AND (boot_id = ${bootId}::text OR epoch = (
            SELECT max(epoch) FROM epochs WHERE session_id = ${id}::uuid
          )) ORDER BY epoch DESC`.withoutTransform
        const [current] = epochs
        const known = epochs.find((row) => row.boot_id === bootId)
        if (known !== undefined && known !== current) return new StaleEpoch({ id, epoch: known.epoch })
        if (known !== undefined) return epochOf(known)

        const [opened] = yield* sql<EpochRow>`
          INSERT INTO epochs (session_id, epoch, boot_id)
          VALUES (${id}::uuid, ${current === undefined ? 0 : current.epoch + 1}::int4, ${bootId}::text)
          RETURNING epoch, boot_id, t0, wall, first_index, durable, samples, bytes`.withoutTransform
        return epochOf(opened!)
      }).pipe(
        sql.withTransaction,
        // Refusals come out of the transaction as values, so that it ends with a commit and not with a rollback.
        Effect.flatMap((met) => "_tag" in met ? Effect.fail(met) : Effect.succeed(met)),
        unavailable("open an epoch"),
        Effect.withSpan("SqlArchive.openEpoch")
      ),

    append: (group) =>
      Effect.gen(function*() {
        if (group.length === 0) return []
        const { appends: a, chunks: c } = columnsOf(group)
        // `met` locks the epochs in one order whatever the plan, so that groups which share some wait for each other
        // instead of deadlocking. What it gives of a row is what it found once it had the lock, which may be newer than
        // what the rest of the statement sees: all is decided by it, and answered from it.
        const found = yield* sql<MetRow>`
          WITH met AS (
            SELECT a.*, e.durable, e.sealed
            FROM unnest(${a.sessionIds}::uuid[], ${a.epochs}::int4[], ${a.expected}::int8[], ${a.next}::int8[],
              ${a.t0s}::int8[], ${a.walls}::int8[], ${a.indexes}::int8[], ${a.samples}::int8[], ${a.sizes}::int8[]
            ) WITH ORDINALITY AS a(session_id, epoch, expected, next, t0, wall, first_index, samples, bytes, place)
            JOIN epochs e USING (session_id, epoch)
            ORDER BY session_id, epoch FOR UPDATE OF e
          ), moved AS (
            UPDATE epochs e SET
              durable = m.next,
              samples = e.samples + m.samples,
              bytes = e.bytes + m.bytes,
              t0 = CASE WHEN e.wall IS NULL AND m.samples > 0 THEN nullif(m.t0, ${noTime}::int8) ELSE e.t0 END,
              wall = CASE WHEN e.wall IS NULL AND m.samples > 0 THEN m.wall ELSE e.wall END,
              first_index = CASE WHEN e.wall IS NULL AND m.samples > 0 THEN m.first_index ELSE e.first_index END
            FROM met m
            WHERE e.session_id = m.session_id AND e.epoch = m.epoch AND m.durable = m.expected AND NOT m.sealed
            RETURNING m.place, e.session_id, e.epoch, e.durable
          ), added AS (
            INSERT INTO chunks (session_id, epoch, first, next, size, crc, bytes)
            SELECT m.session_id, m.epoch, c.first, c.next, octet_length(c.bytes), c.crc, c.bytes
            FROM unnest(${c.places}::int8[], ${c.firsts}::int8[], ${c.nexts}::int8[], ${c.crcs}::int4[],
              ${c.bytes}::bytea[]) AS c(place, first, next, crc, bytes) JOIN moved m USING (place)
          )
          -- Not a join: the planner takes both for a row or two, and would go through one for each row of the other.
          SELECT place, durable, sealed, false AS moved FROM met
          UNION ALL SELECT place, durable, false, true FROM moved`.withoutTransform

        // What is not kept (any more) takes nothing, for good; the others of the group are not to suffer for it.
        const answers: Array<Appended> = group.map(() => ({ durable: 0, sealed: true }))
        // What was moved has the last word.
        for (const row of [...found.filter((row) => !row.moved), ...found.filter((row) => row.moved)]) {
          answers[Number(row.place) - 1] = { durable: Number(row.durable), sealed: row.sealed }
        }
        return answers
      }).pipe(unavailable(`append ${group.reduce((sum, append) => sum + append.chunks.length, 0)} chunks`)),

    seal: (id, endedAt) =>
      Effect.gen(function*() {
        // First the session, which keeps epochs from being opened; then its epochs, which waits for appends that are
        // under way and turns away those that come after. In the order in which appends lock them.
        yield* sql`
          UPDATE sessions SET state = 'ended', ended_at = ${new Date(endedAt)}
          WHERE id = ${id}::uuid AND state = 'live'`.withoutTransform
        yield* sql`
          WITH locked AS (
            SELECT session_id, epoch FROM epochs WHERE session_id = ${id}::uuid AND NOT sealed ORDER BY epoch FOR UPDATE
          )
          UPDATE epochs e SET sealed = true FROM locked l
          WHERE e.session_id = l.session_id AND e.epoch = l.epoch`.withoutTransform
        return yield* find(id)
      }).pipe(
        sql.withTransaction,
        Effect.flatMap((record) => record === undefined ? new SessionNotFound({ id }) : Effect.succeed(record)),
        unavailable("seal the session"),
        Effect.withSpan("SqlArchive.seal")
      ),

    read: (id, { epoch, index }, bytesMax) =>
      // Walks along the primary key and stops at the limit. The limit is a query so that the planner does not know it:
      // it then plans for the first rows of many, and never to sort a whole session that it takes for a short one.
      sql<ChunkRow>`
        WITH begin AS MATERIALIZED (
          SELECT coalesce((
            SELECT first FROM (
              SELECT first, next FROM chunks
              WHERE session_id = ${id}::uuid AND epoch = ${epoch}::int4 AND first <= ${index}::int8
              ORDER BY first DESC LIMIT 1
            ) AS before WHERE next > ${index}::int8
          ), ${index}::int8) AS first
        )
        SELECT epoch, first, next, crc, bytes FROM (
          SELECT epoch, first, next, crc, bytes, row_number() OVER page AS place, sum(size) OVER page AS total
          FROM (
            SELECT epoch, first, next, crc, bytes, size FROM chunks
            WHERE session_id = ${id}::uuid AND (epoch, first) >= (${epoch}::int4, (SELECT first FROM begin))
            ORDER BY epoch, first LIMIT (SELECT ${readRowsMax}::int4)
          ) AS ahead
          WINDOW page AS (ORDER BY epoch, first ROWS UNBOUNDED PRECEDING)
        ) AS counted
        WHERE place = 1 OR total <= ${bytesMax}::int8
        ORDER BY epoch, first`.withoutTransform.pipe(
        Effect.flatMap((rows) => chunksOf(id, rows)),
        unavailable("read chunks"),
        Effect.withSpan("SqlArchive.read")
      ),

    gaps: (id, epoch) =>
      sql<{ readonly from: bigint; readonly to: bigint }>`
        SELECT "from", "to" FROM (
          SELECT coalesce(lag(next) OVER (ORDER BY first), 0) AS "from", first AS "to"
          FROM chunks WHERE session_id = ${id}::uuid AND epoch = ${epoch}::int4
          UNION ALL
          SELECT coalesce((
            SELECT next FROM chunks WHERE session_id = ${id}::uuid AND epoch = ${epoch}::int4
            ORDER BY first DESC LIMIT 1
          ), 0), durable
          FROM epochs WHERE session_id = ${id}::uuid AND epoch = ${epoch}::int4
        ) AS spaces WHERE "from" < "to" ORDER BY "from"`.withoutTransform.pipe(
        Effect.map((rows) => rows.map(({ from, to }) => ({ from: Number(from), to: Number(to) }))),
        unavailable("look for gaps"),
        Effect.withSpan("SqlArchive.gaps")
      ),

    ready: sql<{ readonly synchronous_commit: string; readonly fsync: string }>`
      SELECT current_setting('synchronous_commit') AS synchronous_commit, current_setting('fsync') AS fsync`
      .withoutTransform.pipe(
        Effect.map(([row]) => ({
          synchronousCommit: row!.synchronous_commit,
          durable: row!.synchronous_commit !== "off" && row!.fsync === "on"
        })),
        unavailable("ask for its settings"),
        Effect.withSpan("SqlArchive.ready")
      )
  }
}

/** The archive on the `SqlClient` it is given, whose tables {@link Migrations} made. */
export const SqlArchive: { readonly layer: Layer.Layer<Archive, never, SqlClient.SqlClient> } = {
  layer: Layer.effect(Archive, Effect.map(SqlClient.SqlClient, make))
}
