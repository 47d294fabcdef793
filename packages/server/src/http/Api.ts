/**
 * The REST side as an `HttpApi`: what each operation takes and answers, by schema, and the layer that handles it.
 *
 * It restates `docs/API_CONTRACT.yml` in a form that checks requests and types; a test holds the two equal. What
 * handlers do is in the files they come from.
 */
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import { type Archive, type Feed, type From, type Hub, type Sessions, type WriteQueue } from "@thrum/core"
import { formatPosition, indexMax, parsePosition, type Position as PositionAt } from "@thrum/protocol"
import { Context, Effect, type FileSystem, Layer, type Path, Redacted, Schema } from "effect"
import { type Etag, type HttpPlatform, type HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import {
  HttpApi,
  HttpApiBuilder,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpApiMiddleware,
  HttpApiSchema,
  HttpApiSecurity,
  OpenApi
} from "effect/http-api"
import { ServerResponse } from "node:http"
import { Contract } from "./Contract.ts"
import { type DataFormat, dataFormats } from "./DataFormats.ts"
import { formatFor, getData } from "./DataHandler.ts"
import { makeDocs } from "./Docs.ts"
import { postFrames, waitMsMax } from "./FramesHandler.ts"
import { metricsText, ready } from "./Health.ts"
import { baseOf, linksOf } from "./Links.ts"
import { makeStreamLive } from "./LiveHandler.ts"
import { PublicUrl, SocketDoors } from "./Ports.ts"
import { type Problem, problem, problemMediaType, type ProblemName, problemOf, problems } from "./Problem.ts"
import { createSession, endSession, getSession, knownForm, type LinksOf } from "./SessionHandlers.ts"
import { makeGetSummary } from "./SummaryHandler.ts"

// ---- Values

/** Whole characters, none of them a control character: `min` to `max` of them. */
const text = (min: number, max: number) =>
  Schema.String.check(
    Schema.isPattern(new RegExp(`^[^\\p{Cc}\\p{Cs}]{${min},${max}}$`, "u"), {
      message: `must be ${min} to ${max} characters, none of them a control character`
    })
  )

const ChannelName = Schema.String.check(
  Schema.isPattern(/^(?!(position|epoch|index|device_time|time)$)[^\p{Cc}\p{Cs}]{1,32}$/u, {
    message: "must be 1 to 32 characters, none of them a control character, and not the name of another column"
  })
)

const NewChannel = Schema.Struct({
  name: ChannelName,
  unit: Schema.optionalKey(text(0, 16)),
  scale: Schema.optionalKey(
    Schema.Finite.check(
      Schema.makeFilter((n: number) => n !== 0 || "must not be 0", { toJsonSchema: () => ({ not: { enum: [0] } }) })
    )
  ),
  offset: Schema.optionalKey(Schema.Finite)
})

const areNamesUnique = (channels: ReadonlyArray<{ readonly name: string }>) => {
  const seen = new Set<string>()
  return channels.flatMap(({ name }, i) => {
    if (!seen.has(name)) {
      seen.add(name)
      return []
    }
    return [{ path: [i, "name"], issue: `must be unique: "${name}" is the name of a channel before it` }]
  })
}

const NewSession = Schema.Struct({
  rate: Schema.Finite.check(Schema.isBetween({ minimum: 0.0001, maximum: 1_000_000 })),
  channels: Schema.optionalKey(
    Schema.Array(NewChannel).check(
      Schema.isMinLength(1),
      Schema.isMaxLength(16),
      Schema.makeFilter(areNamesUnique, { toJsonSchema: () => ({}) })
    )
  ),
  tick: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 }))),
  name: Schema.optionalKey(text(1, 128)),
  sensor: Schema.optionalKey(text(1, 128)),
  gravity: Schema.optionalKey(Schema.Boolean)
})

const positionPattern = /^(0|[1-9]\d{0,9}):(0|[1-9]\d{0,15})$/u
const Position = Schema.String.check(Schema.isPattern(positionPattern))
const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
const DateTime = Schema.String.annotate({ format: "date-time" })

const recordedFields = {
  id: Schema.String.check(
    Schema.isPattern(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/u)
  ),
  state: Schema.Literals(["live", "ended"]),
  createdAt: DateTime,
  endedAt: Schema.optionalKey(DateTime),
  channels: Schema.Array(
    Schema.Struct({ name: Schema.String, unit: Schema.String, scale: Schema.Finite, offset: Schema.Finite })
  ),
  rate: Schema.Finite,
  tick: Schema.Int,
  name: Schema.optionalKey(Schema.String),
  sensor: Schema.optionalKey(Schema.String),
  gravity: Schema.optionalKey(Schema.Boolean)
}

const Links = Schema.Struct({
  self: Schema.String,
  data: Schema.String,
  live: Schema.String,
  ingest: Schema.String,
  end: Schema.String
})

const Session = Schema.Struct({
  ...recordedFields,
  received: Position,
  durable: Position,
  samples: Count,
  bytes: Count,
  publishing: Schema.Boolean,
  viewers: Count,
  links: Links
})

const CreatedSession = Schema.Struct({
  session: Session,
  ingestKey: Schema.String.check(Schema.isPattern(/^[A-Za-z0-9_-]{43}$/u)),
  links: Links
})

const Data = Schema.Struct({
  session: Schema.Struct(recordedFields),
  columns: Schema.Array(Schema.String),
  rows: Schema.Array(Schema.Array(Schema.Union([Schema.Finite, Schema.String, Schema.Null]))),
  gaps: Schema.Array(Schema.Struct({ from: Position, to: Position, reason: Schema.Literals(["device"]) })),
  samples: Count,
  complete: Schema.Boolean,
  next: Schema.optionalKey(Position)
})

const Nullable = Schema.Union([Schema.Finite, Schema.Null])
const Sha256 = Schema.String.check(Schema.isPattern(/^[0-9a-f]{64}$/u))

const Summary = Schema.Struct({
  session: Schema.Struct(recordedFields),
  complete: Schema.Boolean,
  durable: Position,
  samples: Count,
  frames: Count,
  bytes: Count,
  first: Schema.Union([DateTime, Schema.Null]),
  last: Schema.Union([DateTime, Schema.Null]),
  duration: Nullable,
  rate: Schema.Struct({ nominal: Schema.Finite, measured: Nullable }),
  gaps: Schema.Struct({ count: Count, instants: Count }),
  channels: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      unit: Schema.String,
      count: Count,
      notFinite: Count,
      min: Nullable,
      max: Nullable,
      mean: Nullable,
      sd: Nullable
    })
  ),
  receipt: Schema.Struct({
    sha256: Sha256,
    epochs: Schema.Array(
      Schema.Struct({ epoch: Count, samples: Count, frames: Count, bytes: Count, sha256: Sha256 })
    )
  })
})

const ackFields = { epoch: Count, received: Count, durable: Count, next: Count, window: Count }
const Ack = Schema.Struct(ackFields)

const Readiness = Schema.Struct({
  database: Schema.Literals(["reachable"]),
  synchronousCommit: Schema.String,
  durable: Schema.Boolean
})

const textOf = (contentType: string) => Schema.String.pipe(HttpApiSchema.asText({ contentType }))

// ---- Problems

/** The answer of an operation that fails with one of these problems, all of one status. */
const failure = <const N extends ProblemName>(...names: readonly [N, ...ReadonlyArray<N>]) =>
  Schema.Struct({
    type: Schema.Literals(names.map((name): Problem<N>["type"] => `/problems/${name}`)),
    title: Schema.String,
    status: Schema.Literal(problems[names[0]].status),
    detail: Schema.String,
    instance: Schema.optionalKey(Schema.String),
    errors: Schema.optionalKey(
      Schema.Array(
        Schema.Struct({
          pointer: Schema.optionalKey(Schema.String),
          parameter: Schema.optionalKey(Schema.String),
          detail: Schema.String
        })
      ).check(Schema.isMaxLength(32))
    ),
    ack: Schema.optionalKey(Schema.Struct(ackFields))
  }).pipe(
    HttpApiSchema.status(problems[names[0]].status),
    HttpApiSchema.asJson({ contentType: problemMediaType })
  )

const invalidRequest = failure("invalid-request")
const sessionNotFound = failure("session-not-found")
const notAcceptable = failure("not-acceptable")
const keyRefused = failure("key-refused")
const upgradeRequired = failure("upgrade-required")
const archiveUnavailable = failure("archive-unavailable")
const failed = failure("failed")

// ---- Operations

/** The ingest key that came with a request. */
class IngestKey extends Context.Service<IngestKey, string>()("@thrum/server/http/IngestKey") {}

class KeyNeeded extends HttpApiMiddleware.Service<KeyNeeded, { provides: IngestKey }>()(
  "@thrum/server/http/KeyNeeded",
  { error: failure("key-missing"), security: { ingestKey: HttpApiSecurity.bearer } }
) {}

const params = { id: Schema.String }

const SessionsGroup = HttpApiGroup.make("sessions", { topLevel: true }).add(
  HttpApiEndpoint.post("createSession", "/sessions", {
    payload: NewSession,
    success: CreatedSession.pipe(HttpApiSchema.status(201)),
    error: [invalidRequest, failure("too-large"), failure("unsupported-media-type"), failed, archiveUnavailable]
  }),
  HttpApiEndpoint.get("getSession", "/sessions/:id", {
    params,
    success: Session,
    error: [sessionNotFound, failed, archiveUnavailable]
  }),
  HttpApiEndpoint.post("endSession", "/sessions/:id/end", {
    params,
    success: Session,
    error: [keyRefused, sessionNotFound, failed, failure("not-flushed", "archive-unavailable")]
  }).middleware(KeyNeeded)
)

const PositionText = Schema.String.check(
  Schema.isPattern(positionPattern, { message: "must be a position like \"0:12000\"" })
)

const BoundText = Schema.String.check(
  Schema.isPattern(
    /^((0|[1-9]\d{0,9}):(0|[1-9]\d{0,15})|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+\- ]\d\d:\d\d))$/u,
    { message: "must be a position like \"0:12000\" or an instant like \"2026-01-01T00:00:00Z\"" }
  )
)

/** A whole number in a query. */
const wholeFrom = (minimum: 0 | 1) =>
  Schema.String.check(
    Schema.isPattern(minimum === 0 ? /^(0|[1-9]\d{0,15})$/u : /^[1-9]\d{0,15}$/u, {
      message: `must be a whole number from ${minimum} on`
    })
  )

/** What of the data is asked for, whatever its format. */
const dataQuery = {
  from: Schema.optionalKey(BoundText),
  to: Schema.optionalKey(BoundText),
  last: Schema.optionalKey(
    Schema.String.check(
      Schema.isPattern(/^\d{1,9}(\.\d{1,6})?(ms|s|m|h)$/u, {
        message: "must be a length of time like \"10s\" (ms, s, m, h)"
      })
    )
  ),
  limit: Schema.optionalKey(wholeFrom(1)),
  cursor: Schema.optionalKey(PositionText),
  maxPoints: Schema.optionalKey(wholeFrom(1)),
  values: Schema.optionalKey(Schema.Literals(["unit", "counts"])),
  partial: Schema.optionalKey(Schema.Literals(["true", "false"]))
}

const binary = (contentType: string) => Schema.Uint8Array.pipe(HttpApiSchema.asUint8Array({ contentType }))

const dataAnswers = {
  success: [
    Data,
    textOf("text/csv"),
    textOf("application/x-ndjson"),
    binary("application/vnd.thrum.frames"),
    binary("application/vnd.apache.arrow.stream"),
    binary("application/vnd.apache.parquet"),
    binary("audio/wav"),
    HttpApiSchema.Empty(304)
  ],
  error: [invalidRequest, sessionNotFound, failure("session-live", "format-unfit"), failed, archiveUnavailable]
} as const

const DataGroup = HttpApiGroup.make("data", { topLevel: true }).add(
  HttpApiEndpoint.get("getData", "/sessions/:id/data", {
    params,
    query: {
      format: Schema.optionalKey(Schema.Literals(["json", "csv", "ndjson", "frames", "arrow", "parquet", "wav"])),
      ...dataQuery
    },
    success: dataAnswers.success,
    error: [...dataAnswers.error, notAcceptable]
  }),
  HttpApiEndpoint.get("getDataFile", "/sessions/:id/data.:extension", {
    params: {
      ...params,
      extension: Schema.Literals(["json", "csv", "ndjson", "thrum", "arrow", "parquet", "wav"])
    },
    query: dataQuery,
    ...dataAnswers
  }),
  HttpApiEndpoint.get("getSummary", "/sessions/:id/summary", {
    params,
    success: [Summary, HttpApiSchema.Empty(304)],
    error: [sessionNotFound, failed, archiveUnavailable]
  })
)

const liveFrom = Schema.String.check(
  Schema.isPattern(/^(start|now|(0|[1-9]\d{0,9}):(0|[1-9]\d{0,15}))$/u, {
    message: "must be \"start\", \"now\" or a position like \"0:12000\""
  }),
  Schema.makeFilter(
    (text: string) => !text.includes(":") || parsePosition(text) !== undefined || "must be a position in range",
    { toJsonSchema: () => ({}) }
  )
)

const SocketsGroup = HttpApiGroup.make("sockets", { topLevel: true }).add(
  HttpApiEndpoint.post("postFrames", "/sessions/:id/frames", {
    params,
    headers: {
      "thrum-boot-id": Schema.String.check(
        Schema.isPattern(/^(0|[1-9]\d{0,15}|x([0-9a-f]{2}){1,16})$/u, {
          message: "must be a whole number or \"x\" and 1 to 16 bytes in hexadecimal"
        }),
        Schema.makeFilter((text: string) => text.startsWith("x") || Number(text) <= indexMax || "must be below 2^53", {
          toJsonSchema: () => ({})
        })
      )
    },
    query: {
      next: Schema.optionalKey(wholeFrom(0)),
      wait: Schema.optionalKey(
        wholeFrom(0).check(
          Schema.makeFilter((text: string) => Number(text) <= waitMsMax || `must be at most ${waitMsMax} ms`, {
            toJsonSchema: () => ({})
          })
        )
      )
    },
    payload: binary("application/vnd.thrum.frames"),
    success: Ack,
    error: [
      invalidRequest,
      keyRefused,
      sessionNotFound,
      failure("session-ended", "epoch-stale", "superseded", "frames-missing", "end-mismatch"),
      failure("too-large"),
      failure("unsupported-media-type"),
      failure("frame-refused"),
      failed,
      failure("not-flushed", "overloaded", "archive-unavailable", "draining")
    ]
  }).middleware(KeyNeeded),
  HttpApiEndpoint.get("ingest", "/sessions/:id/ingest", {
    params,
    success: HttpApiSchema.Empty(101),
    error: [sessionNotFound, upgradeRequired, failed, archiveUnavailable]
  }),
  HttpApiEndpoint.get("live", "/sessions/:id/live", {
    params,
    query: {
      from: Schema.optionalKey(liveFrom),
      format: Schema.optionalKey(Schema.Literals(["frames", "json"])),
      policy: Schema.optionalKey(Schema.Literals(["complete", "latest"]))
    },
    headers: {
      "last-event-id": Schema.optionalKey(
        PositionText.check(
          Schema.makeFilter((text: string) => parsePosition(text) !== undefined || "must be a position in range", {
            toJsonSchema: () => ({})
          })
        )
      )
    },
    success: [
      HttpApiSchema.Empty(101),
      textOf("text/event-stream"),
      textOf("application/x-ndjson"),
      HttpApiSchema.Empty(204)
    ],
    error: [invalidRequest, sessionNotFound, notAcceptable, failed, archiveUnavailable]
  })
)

const ServiceGroup = HttpApiGroup.make("service", { topLevel: true }).add(
  HttpApiEndpoint.get("health", "/healthz", { success: Schema.Struct({ status: Schema.Literals(["alive"]) }) }),
  HttpApiEndpoint.get("ready", "/readyz", {
    success: Readiness,
    error: [failed, failure("archive-unavailable", "draining")]
  }),
  HttpApiEndpoint.get("metrics", "/metrics", { success: textOf("text/plain"), error: failed }),
  HttpApiEndpoint.get("contractYaml", "/openapi.yml", { success: textOf("application/yaml") }),
  HttpApiEndpoint.get("contractJson", "/openapi.json", { success: Schema.Record(Schema.String, Schema.Unknown) }),
  HttpApiEndpoint.get("docs", "/docs", { success: textOf("text/html"), error: failed }),
  HttpApiEndpoint.get("root", "/", { success: HttpApiSchema.Empty(303) })
)

const Api = HttpApi.make("thrum")
  .add(SessionsGroup, DataGroup, SocketsGroup, ServiceGroup)
  // A misspelt property or parameter is told, not dropped. Headers are another matter: proxies add theirs.
  .annotate(HttpApi.PayloadParseOptions, { onExcessProperty: "error", errors: "all" })
  .annotate(HttpApi.QueryParseOptions, { onExcessProperty: "error", errors: "all" })

/** What the server declares to do, as OpenAPI 3.1, to be compared with the contract. */
export const declared: () => OpenApi.OpenAPISpec = () => OpenApi.fromApi(Api)

// ---- Handlers

type Request = HttpServerRequest.HttpServerRequest

const makeLinks: Effect.Effect<(request: Request) => LinksOf> = Effect.map(
  PublicUrl,
  (publicUrl) => (request) => (id) => linksOf(baseOf(publicUrl, request), id)
)

const noStore = { "cache-control": "no-store" }

const sessionsLayer = HttpApiBuilder.group(Api, "sessions", (handlers) =>
  Effect.gen(function*() {
    const links = yield* makeLinks
    const services = yield* Effect.context<Sessions>()
    return handlers.handleAll({
      createSession: ({ payload, request }) =>
        createSession(payload, links(request)).pipe(
          Effect.map((created) =>
            HttpServerResponse.jsonUnsafe(created, {
              status: 201,
              headers: { location: created.links.self, ...noStore }
            })
          ),
          Effect.provideContext(services)
        ),
      getSession: ({ params, request }) =>
        getSession(params.id, links(request)).pipe(
          Effect.map((session) => HttpServerResponse.jsonUnsafe(session, { headers: noStore })),
          Effect.provideContext(services)
        ),
      endSession: ({ params, request }) =>
        IngestKey.use((key) => endSession(params.id, key, links(request))).pipe(
          Effect.map((session) => HttpServerResponse.jsonUnsafe(session, { headers: noStore })),
          Effect.provideContext(services)
        )
    })
  }))

const keyLayer = Layer.succeed(
  KeyNeeded,
  KeyNeeded.of({
    ingestKey: (httpEffect, { credential }) => {
      const key = Redacted.value(credential)
      return key === "" ?
        Effect.fail(
          problem("key-missing", "Cannot write to the session: no ingest key came as \"Authorization: Bearer …\"")
        ) :
        Effect.provideService(httpEffect, IngestKey, key)
    }
  })
)

/** The page of the same answer that begins at a cursor. */
const pageUrl = (publicUrl: string | undefined, request: Request, cursor: PositionAt): string => {
  const [path = "", query = ""] = request.url.split("?", 2)
  const parameters = new URLSearchParams(query)
  for (const name of ["from", "last", "cursor"]) parameters.delete(name)
  parameters.set("cursor", formatPosition(cursor))
  return `${baseOf(publicUrl, request)}${path}?${parameters.toString()}`
}

/** Tells whether Node has nothing of the answer in its buffers any more. Where it is not Node that answers, never. */
const isSentOf = (request: Request): () => boolean => {
  const response = NodeHttpServerRequest.toServerResponse(request)
  return response instanceof ServerResponse ? () => response.writableLength === 0 : () => false
}

const dataLayer = HttpApiBuilder.group(Api, "data", (handlers) =>
  Effect.gen(function*() {
    const services = yield* Effect.context<Archive | Feed>()
    type Query = { readonly [K in keyof typeof dataQuery]?: Schema.Schema.Type<typeof dataQuery[K]> }
    const getSummary = yield* makeGetSummary
    const publicUrl = yield* PublicUrl
    const answer = (id: string, format: DataFormat, query: Query, request: Request) => {
      const { headers } = request
      return getData({
        id,
        format,
        values: query.values ?? "unit",
        partial: query.partial === "true",
        range: query,
        pageAt: (cursor) => pageUrl(publicUrl, request, cursor),
        isSent: isSentOf(request),
        acceptEncoding: headers["accept-encoding"],
        ifNoneMatch: headers["if-none-match"]
      }).pipe(Effect.provideContext(services))
    }
    return handlers.handleAll({
      getData: ({ params, query, request }) =>
        formatFor(query.format, request.headers["accept"]).pipe(
          Effect.flatMap((format) => answer(params.id, format, query, request))
        ),
      getDataFile: ({ params, query, request }) =>
        answer(params.id, dataFormats.find(({ extension }) => extension === params.extension)!, query, request),
      getSummary: ({ params, request }) => getSummary({ id: params.id, ifNoneMatch: request.headers["if-none-match"] })
    })
  }))

const number = (text: string | undefined): number | undefined => text === undefined ? undefined : Number(text)

const asksForSocket = ({ headers }: Request): boolean =>
  headers["upgrade"]?.toLowerCase() === "websocket" && /(?:^|,)\s*upgrade\s*(?:,|$)/i.test(headers["connection"] ?? "")

const bearerOf = ({ headers }: Request): string | undefined =>
  /^Bearer +([^\s]+)\s*$/i.exec(headers["authorization"] ?? "")?.[1]

const fromOf = (from: string): From => from === "start" || from === "now" ? from : parsePosition(from) ?? "now"

const socketsLayer = HttpApiBuilder.group(Api, "sockets", (handlers) =>
  Effect.gen(function*() {
    const doors = yield* SocketDoors
    const services = yield* Effect.context<Sessions>()
    const streamLive = yield* makeStreamLive
    const enter = Effect.fnUntraced(function*(id: string, door: ReturnType<typeof doors.ingest>) {
      yield* knownForm(id)
      yield* Effect.mapError(door, problemOf)
      // By now the socket has closed: nobody reads this.
      return HttpServerResponse.empty()
    })
    const plain = Effect.fail(
      problem("upgrade-required", "Cannot answer by plain HTTP: ask for a WebSocket (sub-protocol thrum.v1)")
    )
    return handlers.handleAll({
      postFrames: ({ params, query, headers, payload }) =>
        IngestKey.use((key) =>
          postFrames({
            id: params.id,
            key,
            bootId: headers["thrum-boot-id"],
            next: number(query.next),
            waitMs: number(query.wait),
            body: payload
          })
        ).pipe(
          Effect.map((ack) => HttpServerResponse.jsonUnsafe(ack, { headers: noStore })),
          Effect.provideContext(services)
        ),
      ingest: ({ params, request }) =>
        asksForSocket(request) ?
          enter(params.id, doors.ingest(params.id, bearerOf(request), request)) :
          plain,
      live: ({ params, query, headers, request }) => {
        const from = fromOf(query.from ?? "now")
        const policy = query.policy ?? "complete"
        if (asksForSocket(request)) {
          const { format = "frames" } = query
          return enter(params.id, doors.live(params.id, { from, format, policy }, request))
        }
        if (query.format !== undefined) {
          const detail = "is for WebSockets: over plain HTTP the header Accept says how events are written"
          return Effect.fail(
            problem("invalid-request", `Cannot read the query: format: ${detail}`, {
              errors: [{ parameter: "format", detail }]
            })
          )
        }
        const last = headers["last-event-id"]
        return streamLive({
          id: params.id,
          from,
          policy,
          accept: request.headers["accept"],
          lastEventId: last === undefined ? undefined : parsePosition(last),
          isHead: request.method === "HEAD"
        })
      }
    })
  }))

const serviceLayer = HttpApiBuilder.group(Api, "service", (handlers) =>
  Effect.gen(function*() {
    const contract = yield* Contract
    const docs = yield* makeDocs
    const services = yield* Effect.context<Archive | Hub | WriteQueue>()
    return handlers.handleAll({
      health: () => Effect.succeed({ status: "alive" as const }),
      ready: () => Effect.provideContext(ready, services),
      metrics: () =>
        metricsText.pipe(
          Effect.map((text) =>
            HttpServerResponse.text(text, { contentType: "text/plain; version=0.0.4; charset=utf-8" })
          ),
          Effect.provideContext(services)
        ),
      contractYaml: () =>
        Effect.succeed(HttpServerResponse.uint8Array(contract.yaml, { contentType: "application/yaml" })),
      contractJson: () => Effect.succeed(HttpServerResponse.text(contract.json, { contentType: "application/json" })),
      docs: () => docs,
      root: () => Effect.succeed(HttpServerResponse.redirect("/docs", { status: 303 }))
    })
  }))

/** All operations, as routes. */
export const apiLayer: Layer.Layer<
  never,
  never,
  | Sessions
  | Archive
  | Feed
  | Hub
  | WriteQueue
  | SocketDoors
  | Contract
  | HttpRouter.HttpRouter
  | HttpPlatform.HttpPlatform
  | Etag.Generator
  | FileSystem.FileSystem
  | Path.Path
> = HttpApiBuilder.layer(Api).pipe(
  Layer.provide([sessionsLayer, dataLayer, socketsLayer, serviceLayer]),
  Layer.provide(keyLayer)
)
