/**
 * Where Thrum keeps its data when nobody says otherwise. Holds nothing and creates nothing: names only.
 */
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
