/**
 * What is wrong with bytes that came from outside. Parsers return it instead of throwing: a peer's fault is a
 * value with a code, never an exception.
 */
import { type CodeName, codes } from "./Codes.ts"

/** A peer's fault: the row of the code table, and a sentence that says what was wrong with which numbers. */
export class FrameError {
  readonly _tag = "FrameError"
  readonly name: CodeName
  readonly message: string

  constructor(name: CodeName, message: string) {
    this.name = name
    this.message = message
  }

  /** The WebSocket close code that goes with it. */
  get code(): number {
    return codes[this.name].code
  }
}

/** Makes a {@link FrameError}. `message` reads "Cannot do this: the state that forbids it", without a full stop. */
export const frameError = (name: CodeName, message: string): FrameError => new FrameError(name, message)

/** Tells a {@link FrameError} from a result. */
export const isFrameError = (u: unknown): u is FrameError => u instanceof FrameError
