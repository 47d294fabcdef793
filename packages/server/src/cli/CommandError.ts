/**
 * How a command says that it cannot do what it was asked: one clear line for a person, and an exit code for a script.
 *
 * Everything a user, a file, a network or a server can do wrong ends as one of these. Any other error that leaves a
 * command is a mistake of ours and is shown with its stack.
 */

/** 0: done. 1: could not be done. 2: asked in a wrong way. */
export type ExitCode = 0 | 1 | 2

/** `message` reads "Cannot do this: the state that forbids it", without a full stop. */
export class CommandError extends Error {
  override readonly name = "CommandError"
  readonly exitCode: ExitCode

  constructor(message: string, options?: { readonly exitCode?: ExitCode; readonly cause?: unknown }) {
    super(message, options?.cause === undefined ? undefined : { cause: options.cause })
    this.exitCode = options?.exitCode ?? 1
  }
}

/** The arguments make no sense: exit code 2. */
export const usageError = (message: string): CommandError => new CommandError(message, { exitCode: 2 })

/**
 * What an error of the platform says, in a few words: `connect ECONNREFUSED 127.0.0.1:4000` instead of `fetch failed`.
 */
export const reasonOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  // fetch hides the reason in the cause; a name with several addresses fails with several errors.
  if (error.cause instanceof Error) return reasonOf(error.cause)
  if (error instanceof AggregateError && error.errors.length > 0) return reasonOf(error.errors[0])
  // "ENOENT: no such file or directory, stat 'x.csv'": the path is in our sentence already.
  const [line = ""] = error.message.replace(/^E[A-Z]+: (.*), \w+(?: '.*')?$/s, "$1").split("\n")
  return line === "" ? ("code" in error ? String(error.code) : error.name) : line
}
