/** How a command that is written with promises runs under Effect, and is stopped. */
import { Effect } from "effect"
import { CommandError } from "./CommandError.ts"

/** ms that a command has to let go of what it holds, once it is stopped. */
const stopMax = 2000

/**
 * Runs `command`. To interrupt aborts its signal and waits, within a bound, until it has cleaned up. What it throws is
 * its error when it is a {@link CommandError}, a defect otherwise.
 */
export const fromPromise = <A>(command: (signal: AbortSignal) => Promise<A>): Effect.Effect<A, CommandError> =>
  Effect.callback<A, CommandError>((resume) => {
    const stop = new AbortController()
    const running = command(stop.signal).then(
      (value) => resume(Effect.succeed(value)),
      (error: unknown) => resume(error instanceof CommandError ? Effect.fail(error) : Effect.die(error))
    )
    return Effect.suspend(() => {
      stop.abort()
      return Effect.promise(() => running).pipe(Effect.timeoutOption(stopMax))
    })
  })
