/**
 * Why the embedded PostgreSQL did not start. Every failure of its modules is this one error, in one line.
 */
import { type Cause, Data, Effect } from "effect"

/** What is known about the failure. */
export interface EmbeddedPostgresFailure {
  /** The embedded database's directory, as it was asked for. */
  readonly dataDir: string
  /**
   * `NoPackage`: npm installed no binaries for this machine. `Owned`: another Thrum has the directory. `OtherVersion`:
   * the directory is another PostgreSQL's. `NotReachable`: the user the database runs as cannot enter it.
   * `FileSystem`, `CreateFailed`, `StartFailed`: the step that failed.
   */
  readonly reason:
    | "NoPackage"
    | "Owned"
    | "OtherVersion"
    | "NotReachable"
    | "FileSystem"
    | "CreateFailed"
    | "StartFailed"
  /** The state that forbids it, with what to do where there is something to do. One line. */
  readonly detail: string
  /** The owner's process id, for `Owned` when it is known. */
  readonly pid?: number
}

const Base: new(
  failure: EmbeddedPostgresFailure
) => Cause.YieldableError & { readonly _tag: "EmbeddedPostgresError" } & EmbeddedPostgresFailure = Data.TaggedError(
  "EmbeddedPostgresError"
)

/** The embedded PostgreSQL did not start; nothing of it is running. */
export class EmbeddedPostgresError extends Base {
  override get message(): string {
    return `Cannot start the embedded PostgreSQL in ${JSON.stringify(this.dataDir)}: ${this.detail}`
  }
}

/**
 * Runs a step on the file system. What the system refuses becomes the error, in the system's own words (path
 * included); anything else that is thrown is a bug of ours, and a defect.
 */
export const onFiles = <A>(dataDir: string, step: () => Promise<A>): Effect.Effect<A, EmbeddedPostgresError> =>
  Effect.promise(step).pipe(
    Effect.catchDefect((cause) =>
      codeOf(cause) === undefined
        ? Effect.die(cause)
        : Effect.fail(new EmbeddedPostgresError({ dataDir, reason: "FileSystem", detail: messageOf(cause) }))
    )
  )

/** The message of whatever was thrown. */
export const messageOf = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)

/** The code of a system error (`"ENOENT"`), or undefined. */
export const codeOf = (cause: unknown): string | undefined =>
  cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : undefined
