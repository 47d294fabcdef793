/**
 * Stands before and behind every route. Before: what the contract rules out (paths, methods, media types of bodies) is
 * refused, pages of other origins are told what they may do, bodies are bounded ({@link bodyBytesMax} unless the contract
 * says otherwise, 413 above).
 * Behind: whatever failed becomes a problem, and every answer gets the headers all answers have.
 */
import { ByteSize, Cause, Effect, Layer, SchemaIssue, type Types } from "effect"
import { HttpIncomingMessage, HttpRouter, HttpServerError, HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiError } from "effect/http-api"
import { Contract, type ContractPath } from "./Contract.ts"
import { Draining } from "./Ports.ts"
import { type InvalidValue, type Problem, problem, problemResponse, withProblemHeaders } from "./Problem.ts"

/** Bytes of a request's body, where the contract names no other bound. Each is in memory while it is read. */
export const bodyBytesMax = 65_536
/** Values named by one problem; the rest of the request may be as wrong. */
const errorsMax = 32
/** Of those, how many the sentence for people repeats. */
const errorsTold = 4

const everywhere: Readonly<Record<string, string>> = {
  "access-control-allow-origin": "*",
  "access-control-expose-headers":
    "Accept-Ranges, Allow, Content-Disposition, Content-Range, ETag, Link, Location, Retry-After, Thrum-Complete, " +
    "Thrum-Samples, WWW-Authenticate",
  "x-content-type-options": "nosniff"
}

/** Where the contract is (RFC 8631). */
const serviceLink = "</openapi.yml>; rel=\"service-desc\"; type=\"application/yaml\", " +
  "</docs>; rel=\"service-doc\"; type=\"text/html\""

const preflight = (allow: string): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.empty({
    status: 204,
    headers: {
      allow,
      "access-control-allow-methods": allow,
      "access-control-allow-headers": "Authorization, Content-Type, If-None-Match, Last-Event-ID, Thrum-Boot-Id",
      "access-control-max-age": "86400"
    }
  })

const mediaTypeOf = (contentType: string): string => contentType.split(";", 1)[0]!.trim().toLowerCase()

const pathnameOf = ({ url }: HttpServerRequest.HttpServerRequest): string => url.split("?", 1)[0]!

/** The answer to what the contract rules out; undefined when the request may go on. */
const refuse = (
  path: ContractPath | undefined,
  request: HttpServerRequest.HttpServerRequest
): HttpServerResponse.HttpServerResponse | undefined => {
  if (path === undefined) {
    return problemResponse(
      problem("route-not-found", `Cannot find "${pathnameOf(request)}": the contract at /docs has no such path`)
    )
  }
  if (request.method === "OPTIONS") return preflight(path.allow)
  const operation = path.operations.get(request.method)
  if (operation === undefined) {
    const detail = `Cannot ${request.method} ${path.template}: its methods are ${path.allow}`
    return problemResponse(problem("method-not-allowed", detail), { allow: path.allow })
  }
  if (operation.bodyTypes === undefined) return undefined
  const type = mediaTypeOf(request.headers["content-type"] ?? "")
  if (type !== "" && !operation.bodyTypes.includes(type)) {
    const detail = `Cannot read a body of "${type}": it must be ${operation.bodyTypes.join(" or ")}`
    return problemResponse(problem("unsupported-media-type", detail))
  }
  const coding = request.headers["content-encoding"] ?? "identity"
  if (coding !== "identity") {
    const detail = `Cannot read a body with the content coding "${coding}": send it as it is`
    return problemResponse(problem("unsupported-media-type", detail))
  }
  return undefined
}

const issuesOf = SchemaIssue.makeFormatterStandardSchemaV1()

/** Where the values of an invalid request are, for people. */
const places: Readonly<Record<string, string>> = { Payload: "body", Query: "query", Params: "path", Headers: "headers" }

const invalidRequest = (error: HttpApiError.HttpApiSchemaError): Problem<"invalid-request"> => {
  const issues = issuesOf(error.cause.issue).issues
  const errors = issues.slice(0, errorsMax).map((issue): InvalidValue => {
    const keys = (issue.path ?? []).map((part) => String(typeof part === "object" ? part.key : part))
    const detail = issue.message
    if (error.kind !== "Payload") return keys[0] === undefined ? { detail } : { parameter: keys[0], detail }
    const pointer = keys.map((key) =>
      `/${encodeURIComponent(key.toWellFormed().replaceAll("~", "~0").replaceAll("/", "~1"))}`
    )
    return { pointer: `#${pointer.join("")}`, detail }
  })
  const told = errors.slice(0, errorsTold).map(({ parameter, pointer, detail }) => {
    const place = parameter ?? (pointer === "#" ? undefined : pointer)
    return place === undefined ? detail : `${place}: ${detail}`
  })
  const more = issues.length > errorsTold ? [`and ${issues.length - errorsTold} more`] : []
  return problem("invalid-request", `Cannot read the ${places[error.kind]}: ${[...told, ...more].join("; ")}`, {
    errors
  })
}

/** The problem a peer's fault is; undefined when the fault is ours. */
const faultOf = (reason: unknown, bytesMax: number): Problem | undefined => {
  if (HttpApiError.HttpApiSchemaError.is(reason)) {
    // Bodies and headers of our own answers that do not fit their schema are our fault.
    return reason.kind in places ? invalidRequest(reason) : undefined
  }
  if (!HttpServerError.isHttpServerError(reason)) return undefined
  switch (reason.reason._tag) {
    case "RouteNotFound":
      // The path is in the contract: what the router could not read is the id in it.
      return problem("session-not-found", "Cannot find the session: what stands for its id in the path is no UUID")
    case "RequestParseError":
      return reason.reason.reason === "BodyTooLarge" ?
        problem("too-large", `Cannot read the body: it has more than ${bytesMax} bytes`) :
        problem("invalid-request", "Cannot read the body: it is cut short or not what its headers say")
    default:
      return undefined
  }
}

const answerOf = <E>(
  cause: Cause.Cause<E>,
  bytesMax: number
): Effect.Effect<HttpServerResponse.HttpServerResponse, E> => {
  if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause)
  for (const reason of cause.reasons) {
    const value = reason._tag === "Fail" ? reason.error : reason._tag === "Die" ? reason.defect : undefined
    if (HttpServerResponse.isHttpServerResponse(value)) return Effect.succeed(value)
    const fault = faultOf(value, bytesMax)
    if (fault !== undefined) return Effect.succeed(problemResponse(fault))
  }
  const instance = `urn:uuid:${crypto.randomUUID()}`
  const detail = "Cannot answer: the server met a state it did not expect"
  return Effect.logError(`Cannot answer a request (${instance})`, cause).pipe(
    Effect.as(problemResponse(problem("failed", detail, { instance })))
  )
}

/** Guards every route of the router it is built with. */
export const guardLayer: Layer.Layer<never, never, HttpRouter.HttpRouter | Contract> = HttpRouter.middleware(
  Effect.gen(function*() {
    const [contract, isDraining] = [yield* Contract, yield* Draining]
    return (
      route: Effect.Effect<HttpServerResponse.HttpServerResponse, Types.unhandled>
    ): Effect.Effect<HttpServerResponse.HttpServerResponse, Types.unhandled, HttpServerRequest.HttpServerRequest> =>
      Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
        const path = contract.find(pathnameOf(request))
        const refusal = refuse(path, request)
        const bytesMax = path?.operations.get(request.method)?.bodyBytesMax ?? bodyBytesMax
        const answer = refusal === undefined ?
          route.pipe(
            Effect.provideService(HttpIncomingMessage.MaxBodySize, ByteSize.bytes(bytesMax)),
            Effect.catchCause((cause) => answerOf(cause, bytesMax))
          ) :
          Effect.succeed(refusal)
        return Effect.map(answer, (response) => {
          const { link } = response.headers
          const answered = HttpServerResponse.setHeaders(withProblemHeaders(response), {
            ...everywhere,
            link: link === undefined ? serviceLink : `${link}, ${serviceLink}`
          })
          // Behind a request for another protocol, granted or not, the connection serves no more requests.
          const isLast = isDraining() || request.headers["upgrade"] !== undefined
          return isLast ? HttpServerResponse.setHeader(answered, "connection", "close") : answered
        })
      })
  }),
  { global: true }
)
