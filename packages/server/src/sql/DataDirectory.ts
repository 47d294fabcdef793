/**
 * Where Thrum keeps its data when nobody says otherwise, and that the database can get there.
 */
import { chmod, stat } from "node:fs/promises"
import { homedir } from "node:os"
import { isAbsolute, join, resolve } from "node:path"

/** What the answer depends on; {@link dataDirectoryOf} reads it from the process unless it is given. */
export interface DataDirectorySource {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly home: string
  /** Undefined where users have no numbers (Windows). */
  readonly uid: number | undefined
}

const fromProcess = (): DataDirectorySource => ({ env: process.env, home: homedir(), uid: process.getuid?.() })

/**
 * Thrum's data directory, absolute: `THRUM_DATA_DIR`; else `/var/lib/thrum` as root; else `$XDG_DATA_HOME/thrum`, or
 * `~/.local/share/thrum`.
 *
 * Empty variables count as unset, and so does a relative `XDG_DATA_HOME`.
 *
 * @see https://specifications.freedesktop.org/basedir-spec/latest/
 */
export const dataDirectoryOf = (source: DataDirectorySource = fromProcess()): string => {
  const { env, home, uid } = source
  const chosen = env["THRUM_DATA_DIR"] ?? ""
  if (chosen !== "") return resolve(chosen)
  if (uid === 0) return "/var/lib/thrum"
  const xdg = env["XDG_DATA_HOME"] ?? ""
  return join(isAbsolute(xdg) ? xdg : join(home, ".local", "share"), "thrum")
}

/** The embedded database's own directory inside Thrum's. Named by the major version: another one cannot read it. */
export const embeddedPostgresDirectory = (dataDirectory: string): string => join(dataDirectory, "postgres-18")

/**
 * Lets others through a data directory that exists and that this process, as root, owns: `mktemp -d` and a strict umask
 * make it mode 700, and PostgreSQL runs as somebody else. Nobody can list it then, and what lies in it has modes of its
 * own. What lies above it is not ours to open.
 */
export const letThrough = async (dataDirectory: string): Promise<void> => {
  const found = process.getuid?.() === 0 ? await stat(dataDirectory).catch(() => undefined) : undefined
  if (found?.isDirectory() === true && found.uid === 0 && (found.mode & 0o001) === 0) {
    await chmod(dataDirectory, (found.mode & 0o777) | 0o001)
  }
}
