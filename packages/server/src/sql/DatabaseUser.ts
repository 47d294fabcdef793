/**
 * Whom the database runs as. PostgreSQL refuses to run as root, so a Thrum that is root starts it as somebody else,
 * and that somebody must be able to reach the directories it needs.
 */
import { chown, lchown, readdir, readFile, realpath, stat } from "node:fs/promises"
import { dirname, join } from "node:path"
import { codeOf } from "./EmbeddedPostgresError.ts"

/** An unprivileged user of this machine. It has no supplementary groups: Node drops them when it starts a process. */
export interface DatabaseUser {
  readonly name: string
  readonly uid: number
  readonly gid: number
}

/** The line of `/etc/passwd` that `matches`. Read as a file because a small container image may lack every tool. */
const findUser = (passwd: string, matches: (name: string, uid: number) => boolean): DatabaseUser | undefined => {
  for (const line of passwd.split("\n")) {
    const [name, , uid, gid] = line.split(":")
    if (name === undefined || uid === undefined || gid === undefined) continue
    // Some systems write the number of `nobody` as -2, which is its unsigned value.
    const user: DatabaseUser = { name, uid: Number(uid) >>> 0, gid: Number(gid) >>> 0 }
    if (user.uid !== 0 && matches(user.name, user.uid)) return user
  }
  return undefined
}

/**
 * Who runs the database when this process is root; undefined when it is not, and on Windows: then the process itself.
 *
 * The owner of the first of `directories` that somebody else than root owns, so that what one user began goes on as
 * that user; else `postgres`, else `nobody`.
 */
export const databaseUserOf = async (directories: ReadonlyArray<string>): Promise<DatabaseUser | undefined> => {
  if (process.getuid?.() !== 0) return undefined
  const passwd = await readFile("/etc/passwd", "utf8").catch(() => "")
  for (const directory of directories) {
    const found = await stat(directory).catch(() => undefined)
    if (found === undefined || found.uid === 0) continue
    const known = findUser(passwd, (_, uid) => uid === found.uid)
    return { name: known?.name ?? String(found.uid), uid: found.uid, gid: found.gid }
  }
  return findUser(passwd, (name) => name === "postgres")
    ?? findUser(passwd, (name) => name === "nobody")
    ?? { name: "nobody", uid: 65_534, gid: 65_534 }
}

/**
 * The first directory (or program) on the way to `path`, itself included, that `user` may not enter (run), or
 * undefined when the way is free. What does not exist yet is not on the way.
 *
 * Reads the mode bits; an access control list that allows more is not seen.
 */
export const firstClosed = async (path: string, user: DatabaseUser): Promise<string | undefined> => {
  let real: string | undefined
  for (let at = path; real === undefined; at = dirname(at)) {
    real = await realpath(at).catch((cause: unknown) => {
      if (codeOf(cause) === "ENOENT") return undefined
      throw cause
    })
  }
  const way = [real]
  for (let at = real; dirname(at) !== at; at = dirname(at)) way.unshift(dirname(at))
  for (const at of way) {
    const { mode, uid, gid } = await stat(at)
    const bit = uid === user.uid ? 0o100 : gid === user.gid ? 0o010 : 0o001
    if ((mode & bit) === 0) return at
  }
  return undefined
}

/** Gives `path` and all below it to `user`; symbolic links themselves, never what they point at. */
export const giveTree = async (path: string, user: DatabaseUser): Promise<void> => {
  await chown(path, user.uid, user.gid)
  for (const entry of await readdir(path, { withFileTypes: true, recursive: true })) {
    await lchown(join(entry.parentPath, entry.name), user.uid, user.gid)
  }
}
