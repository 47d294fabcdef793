/**
 * Keeps a directory for one process: the first to ask holds it until its scope closes or the process ends, however
 * it ends.
 *
 * The lock is the kernel's, on the file `lock`, so nothing is ever stale: a killed owner has already lost it, its
 * number may be given to another process, and containers that share a volume but not their process numbers see it
 * too. Node has no `flock` of its own; SQLite inside Node takes such locks on every platform. The file stays empty.
 * The file `owner` beside it names who holds the lock, for the error message only.
 */
import { Effect, type Scope } from "effect"
import { readFileSync, rmSync, writeFileSync } from "node:fs"
import { chown } from "node:fs/promises"
import { hostname } from "node:os"
import { join } from "node:path"
import type { DatabaseSync } from "node:sqlite"
import type { DatabaseUser } from "./DatabaseUser.ts"
import { EmbeddedPostgresError, messageOf, onFiles } from "./EmbeddedPostgresError.ts"

const sqliteBusy = 5

/** `node:sqlite` without the notice that Node 22 prints about it: of all it can do, only its file lock is used. */
const openDatabase = (file: string): DatabaseSync => {
  const warning = Object.getOwnPropertyDescriptor(process, "emitWarning")
  process.emitWarning = () => {}
  try {
    const { DatabaseSync } = process.getBuiltinModule("node:sqlite")
    return new DatabaseSync(file)
  } finally {
    if (warning !== undefined) Object.defineProperty(process, "emitWarning", warning)
  }
}

const ownerOf = (file: string): { readonly pid: number; readonly host: string } | undefined => {
  try {
    const [pid, host] = readFileSync(file, "utf8").trim().split(" ")
    return host === undefined || !Number.isInteger(Number(pid)) ? undefined : { pid: Number(pid), host }
  } catch {
    // Not written yet, or removed a moment ago: the error goes without a name.
    return undefined
  }
}

const owned = (dataDir: string, ownerFile: string): EmbeddedPostgresError => {
  const owner = ownerOf(ownerFile)
  if (owner === undefined) {
    return new EmbeddedPostgresError({ dataDir, reason: "Owned", detail: "another process of Thrum owns it" })
  }
  const place = owner.host === hostname() ? "" : ` on host ${JSON.stringify(owner.host)}`
  return new EmbeddedPostgresError({
    dataDir,
    reason: "Owned",
    detail: `process ${owner.pid}${place} owns it; stop that one, or set THRUM_DATA_DIR to another directory`,
    pid: owner.pid
  })
}

/**
 * Holds `directory` (which exists) until the scope closes. Fails at once with `Owned` when it is held, here or in
 * another process.
 *
 * @param user Gets the two files when the process is root, so that it can also be run as that user later.
 */
export const holdDirectory = (
  dataDir: string,
  directory: string,
  user: DatabaseUser | undefined
): Effect.Effect<void, EmbeddedPostgresError, Scope.Scope> => {
  const lockFile = join(directory, "lock")
  const ownerFile = join(directory, "owner")
  // Nothing else in this process may open the lock file: closing it again would drop the process' lock.
  const acquire = Effect.suspend((): Effect.Effect<DatabaseSync, EmbeddedPostgresError> => {
    let database: DatabaseSync | undefined
    try {
      database = openDatabase(lockFile)
      // The journal in memory: otherwise a killed owner leaves a second file behind.
      database.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE")
      writeFileSync(ownerFile, `${process.pid} ${hostname()}\n`, { mode: 0o600 })
      return Effect.succeed(database)
    } catch (cause) {
      database?.close()
      if (cause instanceof Error && "errcode" in cause && cause.errcode === sqliteBusy) {
        return Effect.fail(owned(dataDir, ownerFile))
      }
      const detail = `${JSON.stringify(lockFile)} cannot be locked: ${messageOf(cause)}`
      return Effect.fail(new EmbeddedPostgresError({ dataDir, reason: "FileSystem", detail }))
    }
  })
  const release = (database: DatabaseSync) =>
    Effect.sync(() => {
      rmSync(ownerFile, { force: true })
      database.close()
    })
  const give = user === undefined ? Effect.void : onFiles(dataDir, async () => {
    await chown(lockFile, user.uid, user.gid)
    await chown(ownerFile, user.uid, user.gid)
  })
  return Effect.acquireRelease(acquire, release).pipe(Effect.andThen(give))
}
