/**
 * The archive against a real PostgreSQL: the suite every archive passes, and what only a database can do wrong.
 */
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { type Append, Archive, type Chunk, type SessionId } from "@thrum/core"
import { Migrations, SqlArchive } from "@thrum/core/sql"
import { archiveSuite, makeFrames, sessionOf } from "@thrum/core/testing"
import { type Position, startPosition } from "@thrum/protocol"
import { Context, Deferred, Effect, Fiber, Layer, Redacted, Schedule } from "effect"
import { SqlClient, Statement } from "effect/sql"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { startEmbeddedPostgres } from "../packages/server/src/sql/EmbeddedPostgres.ts"

/** Where the database of this file is. */
class Database extends Context.Service<Database, { readonly url: Redacted.Redacted }>()("test/Database") {
  static readonly layer = Layer.effect(
    Database,
    Effect.gen(function*() {
      const dataDir = yield* Effect.acquireRelease(
        Effect.promise(() => mkdtemp(join(tmpdir(), "thrum-archive-"))),
        (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
      )
      return yield* startEmbeddedPostgres({ dataDir })
    })
  )
}

/** An archive on connections of its own, as another instance has them. */
const instance = (options: Partial<PgClient.PgPoolConfig> = {}) =>
  SqlArchive.layer.pipe(
    Layer.provideMerge(Migrations.layer),
    Layer.provideMerge(Layer.unwrap(Database.useSync(({ url }) => PgClient.layer({ url, ...options }))))
  )

/** One more instance beside the one under test. Fresh: layers that are alike would be built once for both. */
const another = (options?: Partial<PgClient.PgPoolConfig>) => Layer.build(Layer.fresh(instance(options)))

const OnPostgres = instance().pipe(Layer.provideMerge(Database.layer))

archiveSuite("SqlArchive", OnPostgres)

/** A session with one open epoch. */
const begin = Effect.gen(function*() {
  const archive = yield* Archive
  const session = { ...sessionOf(0), id: crypto.randomUUID() }
  yield* archive.create(session)
  yield* archive.openEpoch(session.id, "boot-0")
  return session.id
})

const appendOf = (sessionId: SessionId, chunks: ReadonlyArray<Chunk>): Append => {
  const [first, last] = [chunks[0]!, chunks.at(-1)!]
  return { sessionId, epoch: 0, expected: first.first, next: last.next, t0: 0, wall: 0, index: first.first, chunks }
}

const readAll = Effect.fnUntraced(function*(id: SessionId) {
  const archive = yield* Archive
  const chunks: Array<Chunk> = []
  let at: Position = startPosition
  while (true) {
    const page = yield* archive.read(id, at, 1e6)
    const last = page.at(-1)
    if (last === undefined) return chunks
    chunks.push(...page)
    at = { epoch: 0, index: last.next }
  }
})

const textOf = ({ first, next, bytes }: Chunk) => `${first}:${next}:${Buffer.from(bytes).toString("base64")}`

const assertChunks = (actual: ReadonlyArray<Chunk>, expected: ReadonlyArray<Chunk>) =>
  assert.deepStrictEqual(actual.map(textOf), expected.map(textOf))

/** `boot_id` → `bootId`, as many clients are set up to do. */
const camel = (name: string) => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase())

layer(OnPostgres, { excludeTestServices: true })("SqlArchive, against the database", (it) => {
  it.effect("bytes that are not the ones that were stored are ChunkCorrupt, and nothing else is", () =>
    Effect.gen(function*() {
      const [archive, sql, id] = [yield* Archive, yield* SqlClient.SqlClient, yield* begin]
      const frames = makeFrames(3)
      yield* archive.append([appendOf(id, frames)])
      yield* sql`
        UPDATE chunks SET bytes = set_byte(bytes, 9, get_byte(bytes, 9) # 1)
        WHERE session_id = ${id}::uuid AND first = 10`
      assertChunks(yield* archive.read(id, startPosition, 0), frames.slice(0, 1))
      assertChunks(yield* archive.read(id, { epoch: 0, index: 20 }, 1e6), frames.slice(2))
      for (const index of [0, 10, 15]) {
        const corrupt = yield* Effect.flip(archive.read(id, { epoch: 0, index }, 1e6))
        assert.deepInclude(corrupt, { _tag: "ChunkCorrupt", sessionId: id, epoch: 0, first: 10 })
      }
    }))

  it.effect("migrations that run three times at once are applied once, and again not at all", () =>
    Effect.gen(function*() {
      const [sql, { url }] = [yield* SqlClient.SqlClient, yield* Database]
      for (let round = 0; round < 3; round++) {
        const name = `fresh_${round}`
        yield* sql`CREATE DATABASE ${sql(name)}`
        const fresh = new URL(Redacted.value(url))
        fresh.pathname = name
        const migrate = Migrations.migrate.pipe(Effect.provide(PgClient.layer({ url: Redacted.make(fresh.href) })))
        const applied = yield* Effect.all([migrate, migrate, migrate], { concurrency: "unbounded" })
        assert.deepStrictEqual(applied.flat(), [[1, "tables"]])
        assert.deepStrictEqual(yield* migrate, [])
      }
    }))

  it.effect("20 writers at once, each tried twice by two instances, store each frame once", () =>
    Effect.gen(function*() {
      const other = Context.get(yield* another(), Archive)
      const archive = yield* Archive
      const write = Effect.gen(function*() {
        const id = yield* begin
        const frames = makeFrames(90)
        for (let at = 0; at < frames.length; at += 3) {
          const append = appendOf(id, frames.slice(at, at + 3))
          const met = yield* Effect.all([archive.append([append]), other.append([append])], { concurrency: 2 })
          assert.deepStrictEqual(met.flat().map(({ durable }) => durable), [append.next, append.next])
        }
        assertChunks(yield* readAll(id), frames)
        assert.deepInclude((yield* archive.session(id)).epochs[0], { durable: 900, samples: 900 })
      })
      yield* Effect.all(Array.from({ length: 20 }, () => write), { concurrency: "unbounded", discard: true })
    }))

  it.effect("instances whose groups share epochs wait for each other and do not deadlock", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      // The plan that meets epochs in the order of the group; others happen to meet them in the order of the table.
      const startupParameters = { enable_hashjoin: "off", enable_mergejoin: "off", enable_seqscan: "off" }
      const archive = Context.get(yield* another({ startupParameters }), Archive)
      const other = Context.get(yield* another({ startupParameters }), Archive)
      const ids = yield* Effect.all(Array.from({ length: 5 }, () => begin))
      const middle = ids.toSorted()[2]!
      const group = ids.toSorted().map((id) => appendOf(id, makeFrames(1)))
      // Both come to the middle one while it is held: had each what is before it in its own order, neither could go on.
      const [held, release] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      yield* Effect.forkChild(
        sql`SELECT 1 FROM epochs WHERE session_id = ${middle}::uuid FOR UPDATE`.pipe(
          Effect.andThen(Deferred.succeed(held, undefined)),
          Effect.andThen(Deferred.await(release)),
          sql.withTransaction
        )
      )
      yield* Deferred.await(held)
      const appending = yield* Effect.forkChild(
        Effect.all([archive.append(group), other.append(group.toReversed())], { concurrency: 2 })
      )
      yield* sql<{ readonly n: bigint }>`
        SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`
        .pipe(
          Effect.flatMap(([row]) => row?.n === 2n ? Effect.void : Effect.fail("not both wait")),
          Effect.retry(Schedule.spaced("5 millis").pipe(Schedule.upTo({ times: 1000 })))
        )
      yield* Deferred.succeed(release, undefined)
      const answers = yield* Fiber.join(appending)
      for (const met of answers.flat()) assert.deepStrictEqual(met, { durable: 10, sealed: false })
      for (const id of ids) assertChunks(yield* readAll(id), makeFrames(1))
    }))

  it.effect("a connection killed at any moment is ArchiveUnavailable; to try again stores each frame once", () =>
    Effect.gen(function*() {
      const pool = yield* another()
      const [archive, killer] = [Context.get(pool, Archive), yield* SqlClient.SqlClient]
      let failures = 0
      const failed: Record<string, number> = {}
      const again = <A, E extends { readonly _tag: string }>(what: string, effect: Effect.Effect<A, E>) =>
        effect.pipe(
          Effect.tapError((error) =>
            Effect.sync(() => {
              assert.strictEqual(error._tag, "ArchiveUnavailable")
              failures++
              failed[what] = (failed[what] ?? 0) + 1
            })
          ),
          Effect.retry(Schedule.spaced("5 millis").pipe(Schedule.upTo({ times: 1000 })))
        )

      const frames = makeFrames(60)
      const write = Effect.gen(function*() {
        const session = { ...sessionOf(0), id: crypto.randomUUID() }
        yield* again("create", archive.create(session))
        for (let at = 0; at < frames.length; at++) {
          yield* again("openEpoch", archive.openEpoch(session.id, "boot-0"))
          const [met] = yield* again("append", archive.append([appendOf(session.id, [frames[at]!])]))
          assert.deepStrictEqual(met, { durable: frames[at]!.next, sealed: false })
        }
        const sealed = yield* again("seal", archive.seal(session.id, 1))
        assert.deepInclude(sealed.epochs[0], { durable: 600, samples: 600 })
        assertChunks(yield* again("read", archive.read(session.id, startPosition, 1e6)), frames)
      })

      const kill = killer`
      SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
      ORDER BY random() LIMIT 2`
      const killing = yield* Effect.forkChild(
        kill.pipe(Effect.andThen(Effect.sleep("7 millis")), Effect.forever({ disableYield: true }))
      )
      yield* Effect.all(Array.from({ length: 6 }, () => write), { concurrency: "unbounded", discard: true })
      yield* Fiber.interrupt(killing)
      assert.isAbove(failures, 10, JSON.stringify(failed))
      assert.containsAllKeys(failed, ["append", "openEpoch"])
    }))

  it.effect("a database that is not there is ArchiveUnavailable", () =>
    Effect.gen(function*() {
      const nowhere = SqlArchive.layer.pipe(
        Layer.provide(PgClient.layer({ host: "127.0.0.1", port: 1, username: "nobody", connectTimeout: "2 seconds" }))
      )
      const archive = Context.get(yield* Layer.build(Layer.fresh(nowhere)), Archive)
      const session = sessionOf(1)
      const tries: ReadonlyArray<Effect.Effect<unknown, { readonly _tag: string; readonly message: string }>> = [
        archive.ready,
        archive.create(session),
        archive.session(session.id),
        archive.openEpoch(session.id, "boot-0"),
        archive.append([appendOf(session.id, makeFrames(3))]),
        archive.seal(session.id, 1),
        archive.read(session.id, startPosition, 1),
        archive.gaps(session.id, 0)
      ]
      for (const attempt of tries) {
        const error = yield* Effect.flip(attempt)
        assert.strictEqual(error._tag, "ArchiveUnavailable")
        assert.match(error.message, /^Cannot (?!.*0000-4000).*: the archive is unavailable \(.+\)$/)
      }
    }))

  it.effect("ready() tells when a commit is not flushed", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* (yield* Archive).ready, { synchronousCommit: "on", durable: true })
      for (const [setting, durable] of [["off", false], ["local", true], ["remote_apply", true]] as const) {
        const other = yield* another({ startupParameters: { synchronous_commit: setting } })
        assert.deepStrictEqual(yield* Context.get(other, Archive).ready, { synchronousCommit: setting, durable })
      }
    }))

  it.effect("a client that renames columns or reshapes JSON makes no difference", () =>
    Effect.gen(function*() {
      const other = yield* another({ transformResultNames: camel, transformJson: true, prepare: false })
      const id = yield* begin
      yield* Effect.gen(function*() {
        const archive = yield* Archive
        yield* archive.append([appendOf(id, makeFrames(2))])
        assertChunks(yield* readAll(id), makeFrames(2))
        assert.deepInclude((yield* archive.seal(id, 1)).epochs[0], { bootId: "boot-0", wall: 0, index: 0 })
      }).pipe(Effect.provideContext(other))
    }))

  it.effect("read() walks along the primary key of a long recording, whatever the planner knows of it", () =>
    Effect.gen(function*() {
      const [archive, sql, id] = [yield* Archive, yield* SqlClient.SqlClient, yield* begin]
      const rows = 100_000
      yield* sql`
      INSERT INTO chunks (session_id, epoch, first, next, size, crc, bytes)
      SELECT ${id}::uuid, i / 50000, i, i + 1, 4, -1237517363, '\\x01020304'
      FROM generate_series(0, ${rows - 1}::int4) AS i`
      // Many short ones, so that on average a session is nothing to be afraid of.
      yield* sql`
      INSERT INTO chunks (session_id, epoch, first, next, size, crc, bytes)
      SELECT gen_random_uuid(), 0, 0, 1, 4, -1237517363, '\\x01020304' FROM generate_series(1, 50000)`
      const plans: Array<string> = []
      // Before each statement of the archive, the same again to have its plan.
      const explained = Effect.provideService(Statement.CurrentTransformer, (statement, sql) => {
        const [text, params] = statement.compile()
        return sql.unsafe<{ readonly "QUERY PLAN": string }>(`EXPLAIN (ANALYZE, BUFFERS) ${text}`, params).pipe(
          Effect.provideService(Statement.CurrentTransformer, undefined),
          Effect.tap((lines) => Effect.sync(() => plans.push(lines.map((line) => line["QUERY PLAN"]).join("\n")))),
          Effect.orDie,
          Effect.as(statement)
        )
      })
      const froms = [[0, 0], [0, 49_000], [0, 77_777], [1, 0], [1, 60_000], [1, 99_999], [2, 0]] as const
      for (const analyzed of [false, true]) {
        if (analyzed) yield* sql`ANALYZE chunks`
        for (const mode of ["force_custom_plan", "force_generic_plan"]) {
          yield* Effect.gen(function*() {
            yield* sql`SELECT set_config('plan_cache_mode', ${mode}, true)`
            for (const [epoch, index] of froms) {
              const page = yield* explained(archive.read(id, { epoch, index }, 1000))
              const left = Math.max(0, rows - Math.max(index, 50_000 * epoch))
              assert.strictEqual(page.length, epoch === 2 ? 0 : Math.min(left, 250), `${epoch}:${index}`)
            }
          }).pipe(sql.withTransaction)
        }
      }
      assert.strictEqual(plans.length, 4 * froms.length)
      for (const plan of plans) {
        assert.match(plan, /Index Scan using chunks_pkey/, plan)
        assert.notMatch(plan, /Sort|Bitmap|Seq Scan on chunks/, plan)
        for (const [, seen] of plan.matchAll(/actual time=\S+ rows=([\d.]+)/g)) {
          assert.isAtMost(Number(seen), 512, plan)
        }
      }
    }))
})
