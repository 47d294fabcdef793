/** How a command that is written with promises runs under Effect, and is stopped. */
import { Effect } from "effect"
import { CommandError } from "./CommandError.ts"

/** ms that a command has to let go of what it holds, once it is stopped. */
const stopMax = 2000

/** What went wrong, for a person; what is none of that was a mistake of ours. */
const failureOf = async (error: unknown): Promise<Effect.Effect<never, CommandError>> => {
  if (error instanceof CommandError) return Effect.fail(error)
  // Not before there is something to compare: `--help` waits for none of it.
  const { ThrumError } = await import("@thrum/client")
  return error instanceof ThrumError ?
    Effect.fail(new CommandError(error.message, { cause: error })) :
    Effect.die(error)
}

/**
 * Runs `command`. To interrupt aborts its signal and waits, within a bound, until it has cleaned up. What it throws is
 * its error when it is a {@link CommandError} or an error of the client, a defect otherwise.
 */
export const fromPromise = <A>(command: (signal: AbortSignal) => Promise<A>): Effect.Effect<A, CommandError> =>
  Effect.callback<A, CommandError>((resume) => {
    const stop = new AbortController()
    const running = command(stop.signal).then(
      (value) => resume(Effect.succeed(value)),
      async (error: unknown) => resume(await failureOf(error))
    )
    return Effect.suspend(() => {
      stop.abort()
      return Effect.promise(() => running).pipe(Effect.timeoutOption(stopMax))
    })
  })
