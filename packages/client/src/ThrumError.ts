/**
 * The one error of the client: what went wrong, as a code for programs, a name and a sentence for people.
 *
 * Everything a network, a server, a disk or a caller can do wrong ends as one of these. Any other error that leaves the
 * client is a mistake of ours.
 */
import { codes, type ErrorFrame } from "@thrum/protocol"

/** Names of what goes wrong without a server's word; `code` is 0 then. */
export type OwnErrorName =
  /** What should be a link to a session or the address of a server is none. */
  | "BadLink"
  /** An option makes no sense. */
  | "BadOption"
  /** Samples that cannot be sent exactly as they are. */
  | "BadSamples"
  /** It was closed, or is being ended, and takes no more. */
  | "Closed"
  /** The server has less than it said was stored for certain, or more than was ever sent. */
  | "Contradiction"
  /** The connection was lost. */
  | "ConnectionLost"
  /** What answers there is not Thrum. */
  | "NotThrum"
  /** Samples of a recording's end are missing. */
  | "CutShort"
  /** The store could not keep or give back frames. */
  | "StoreFailed"
  /** It was tried for as long as the caller allows. */
  | "GivenUp"
  /** The server could not be asked. */
  | "Unreachable"

/** Why the client cannot go on, or why it is away for a while. */
export class ThrumError extends Error {
  /**
   * A close code of docs/PROTOCOL.md, section 11 (1000 and above); the status of an HTTP answer (400 to 599); 0 for
   * what no server said.
   */
  readonly code: number
  /** The name of the code (`KeyRefused`, `SessionEnded`, …), or an {@link OwnErrorName}. */
  override readonly name: string
  /** ms that the server asks to wait before it is tried again. */
  readonly retryAfter: number | undefined

  constructor(
    name: string,
    message: string,
    about: { readonly code?: number; readonly retryAfter?: number | undefined; readonly cause?: unknown } = {}
  ) {
    super(message, about.cause === undefined ? undefined : { cause: about.cause })
    this.name = name
    this.code = about.code ?? 0
    this.retryAfter = about.retryAfter
  }
}

/** For names of our own, checked. */
export const ownError = (name: OwnErrorName, message: string, cause?: unknown): ThrumError =>
  new ThrumError(name, message, { cause })

/**
 * The error of a close, in the server's words where it said any.
 *
 * @param doing Begins the sentence: `go on streaming`.
 */
export const closeError = (doing: string, code: number, refused: ErrorFrame | undefined): ThrumError => {
  const [name, entry] = Object.entries(codes).find(([, entry]) => entry.code === code) ?? ["ConnectionLost", undefined]
  const means = entry === undefined ? "the connection was lost" : entry.means.replace(/\.$/, "")
  const sentence = means.charAt(0).toLowerCase() + means.slice(1)
  return new ThrumError(
    name,
    `Cannot ${doing}: ${sentence} (${refused === undefined ? code : `${code}: ${refused.text}`})`,
    { code, retryAfter: refused?.retryAfter }
  )
}

/** What an error of the platform says, in a few words: `connect ECONNREFUSED 127.0.0.1:4000` instead of `fetch failed`. */
export const reasonOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  // fetch hides the reason in the cause; a name with several addresses fails with several errors.
  if (error.cause instanceof Error) return reasonOf(error.cause)
  if (error instanceof AggregateError && error.errors.length > 0) return reasonOf(error.errors[0])
  return error.message === "" ? error.name : error.message
}
