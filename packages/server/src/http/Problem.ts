/**
 * Every error of the REST side, as RFC 9457 problems: one table of their names, and what core's errors are among them.
 *
 * `type` is a path like `/problems/session-not-found`; it never changes its meaning. What a failure of our own was stays
 * in the log.
 */
import { HttpServerResponse } from "effect/http"

/** The status of each problem, by name. */
export interface ProblemStatuses {
  readonly "invalid-request": 400
  readonly "key-missing": 401
  readonly "key-refused": 403
  readonly "session-not-found": 404
  readonly "route-not-found": 404
  readonly "method-not-allowed": 405
  readonly "not-acceptable": 406
  readonly "session-live": 409
  readonly "session-ended": 409
  readonly "epoch-stale": 409
  readonly superseded: 409
  readonly "frames-missing": 409
  readonly "end-mismatch": 409
  readonly "format-unfit": 409
  readonly "too-large": 413
  readonly "unsupported-media-type": 415
  readonly "frame-refused": 422
  readonly "upgrade-required": 426
  readonly failed: 500
  readonly "not-flushed": 503
  readonly overloaded: 503
  readonly "archive-unavailable": 503
  readonly draining: 503
}

/** The last segment of a problem's `type`. */
export type ProblemName = keyof ProblemStatuses

/** A value of the request that does not fit the contract. */
export interface InvalidValue {
  /** Where in the body: a JSON Pointer as URI fragment. */
  readonly pointer?: string
  /** Which query parameter or header. */
  readonly parameter?: string
  readonly detail: string
}

/** How far a device's epoch has come. Indexes of the epoch. */
export interface Ack {
  readonly epoch: number
  /** Everything before it arrived. */
  readonly received: number
  /** Everything before it is stored for certain. */
  readonly durable: number
  /** Where to go on. */
  readonly next: number
  /** Bytes of samples frames that may be sent beyond `received`. */
  readonly window: number
}

/** The body of one kind of error. */
export interface ProblemBody<N extends ProblemName> {
  readonly type: `/problems/${N}`
  readonly title: string
  readonly status: ProblemStatuses[N]
  readonly detail: string
  readonly instance?: string
  readonly errors?: ReadonlyArray<InvalidValue>
  /** Of a problem with frames: those that were taken before it. */
  readonly ack?: Ack
}

/** The body of an error: one of these kinds. */
export type Problem<N extends ProblemName = ProblemName> = { readonly [K in N]: ProblemBody<K> }[N]

/** Seconds after which a 503 is worth another try. */
const retryAfter = "2"

/** Status and title of each problem. */
export const problems: {
  readonly [N in ProblemName]: { readonly status: ProblemStatuses[N]; readonly title: string }
} = {
  "invalid-request": { status: 400, title: "The request does not fit the contract" },
  "key-missing": { status: 401, title: "An ingest key is needed" },
  "key-refused": { status: 403, title: "The ingest key is not the one of this session" },
  "session-not-found": { status: 404, title: "No such session is kept here" },
  "route-not-found": { status: 404, title: "No such path" },
  "method-not-allowed": { status: 405, title: "The path does not have this method" },
  "not-acceptable": { status: 406, title: "No acceptable format" },
  "session-live": { status: 409, title: "The session is still live" },
  "session-ended": { status: 409, title: "The session has ended" },
  "epoch-stale": { status: 409, title: "A newer power-up of the device has taken over" },
  superseded: { status: 409, title: "A newer connection publishes the session" },
  "frames-missing": { status: 409, title: "Frames before these have not arrived" },
  "end-mismatch": { status: 409, title: "The stream does not end there" },
  "format-unfit": { status: 409, title: "The format cannot hold the recording" },
  "too-large": { status: 413, title: "The body is too large" },
  "unsupported-media-type": { status: 415, title: "The body is of another media type" },
  "frame-refused": { status: 422, title: "A frame cannot be taken" },
  "upgrade-required": { status: 426, title: "This is a WebSocket" },
  failed: { status: 500, title: "The server failed" },
  "not-flushed": { status: 503, title: "Not everything received is stored yet" },
  overloaded: { status: 503, title: "A limit of this instance is reached" },
  "archive-unavailable": { status: 503, title: "The archive cannot be reached" },
  draining: { status: 503, title: "The instance is shutting down" }
}

/** What belongs to a status besides its body. */
const headersByStatus: Readonly<Record<number, Readonly<Record<string, string>>>> = {
  401: { "www-authenticate": "Bearer" },
  426: { upgrade: "websocket", connection: "upgrade" },
  503: { "retry-after": retryAfter }
}

/** The media type of problems. */
export const problemMediaType = "application/problem+json"

/** A problem. `detail` reads "Cannot do this: the state that forbids it". */
export const problem = <N extends ProblemName>(
  name: N,
  detail: string,
  more: { readonly instance?: string; readonly errors?: ReadonlyArray<InvalidValue>; readonly ack?: Ack } = {}
): ProblemBody<N> => ({ type: `/problems/${name}`, ...problems[name], detail, ...more })

/** Which problem each of core's errors is. */
interface CoreProblems {
  readonly SessionNotFound: ProblemBody<"session-not-found">
  readonly KeyRefused: ProblemBody<"key-refused">
  readonly SessionEnded: ProblemBody<"session-ended">
  readonly StaleEpoch: ProblemBody<"epoch-stale">
  readonly EndMismatch: ProblemBody<"end-mismatch">
  readonly NotFlushed: ProblemBody<"not-flushed">
  readonly ArchiveUnavailable: ProblemBody<"archive-unavailable">
}
const coreProblems: { readonly [T in keyof CoreProblems]: (message: string) => CoreProblems[T] } = {
  SessionNotFound: (message) => problem("session-not-found", message),
  KeyRefused: (message) => problem("key-refused", message),
  SessionEnded: (message) => problem("session-ended", message),
  StaleEpoch: (message) => problem("epoch-stale", message),
  EndMismatch: (message) => problem("end-mismatch", message),
  NotFlushed: (message) => problem("not-flushed", message),
  // That it failed is for everybody, how it failed is not.
  ArchiveUnavailable: () => problem("archive-unavailable", "Cannot reach the archive: try again")
}

/** What core's error is to a client. */
export const problemOf = <T extends keyof CoreProblems>(
  error: { readonly _tag: T; readonly message: string }
): CoreProblems[T] => coreProblems[error._tag](error.message)

/** Adds what belongs to the status of a problem. */
export const withProblemHeaders = (
  response: HttpServerResponse.HttpServerResponse
): HttpServerResponse.HttpServerResponse => {
  const headers = headersByStatus[response.status]
  return headers === undefined ? response : HttpServerResponse.setHeaders(response, headers)
}

/** A problem as an answer. */
export const problemResponse = (
  of: Problem,
  headers: Readonly<Record<string, string>> = {}
): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.jsonUnsafe(of, { status: of.status, contentType: problemMediaType, headers })
