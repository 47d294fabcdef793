/** `GET /sessions/{id}/data`: which format, whether it may be had, and then all of it as a stream. */
import { Archive, durableOf, Feed } from "@thrum/core"
import { formatPosition, type Position, type ValuesAs } from "@thrum/protocol"
import { Cause, Effect, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import { negotiate } from "./Accept.ts"
import { codingFor, encoded } from "./ContentCoding.ts"
import { dataBytes, type DataFormat, dataFormats, type FormatName } from "./DataFormats.ts"
import { type RangeQuery, rangeWishOf, resolveRange } from "./DataRange.ts"
import { type Problem, problem, problemOf } from "./Problem.ts"
import { rangeTag, recordingOf } from "./RangedRecording.ts"
import { knownForm } from "./SessionHandlers.ts"

/** What is asked for. */
export interface DataWish {
  readonly id: string
  readonly format: DataFormat
  readonly values: ValuesAs
  readonly partial: boolean
  /** Which part of it. */
  readonly range: RangeQuery
  /** The URL of the page that begins at a cursor. */
  readonly pageAt: (cursor: Position) => string
  /** Whether everything written of the answer so far has left this process. */
  readonly isSent: () => boolean
  /** `Accept-Encoding` of the request. */
  readonly acceptEncoding: string | undefined
  /** `If-None-Match` of the request. */
  readonly ifNoneMatch: string | undefined
}

/** Formats that cannot leave samples out: one of whole frames, and one whose samples are all the same time apart. */
const unthinnable: ReadonlySet<string> = new Set(["frames", "wav"])

/** The format of that name, or else the one that `Accept` wants most. */
export const formatFor = (
  name: FormatName | undefined,
  accept: string | undefined
): Effect.Effect<DataFormat, Problem<"not-acceptable">> => {
  const mediaType = name === undefined ? negotiate(accept, dataFormats.map((format) => format.mediaType)) : undefined
  const format = dataFormats.find((format) => format.name === name || format.mediaType === mediaType)
  if (format !== undefined) return Effect.succeed(format)
  const offers = dataFormats.map((offer) => `${offer.mediaType} (format=${offer.name})`)
  return Effect.fail(
    problem("not-acceptable", `Cannot answer in a format that "Accept" allows: there are ${offers.join(", ")}`)
  )
}

/** Whether `If-None-Match` names the tag. The comparison is the weak one: a proxy may have weakened ours. */
export const isNamed = (etag: string, ifNoneMatch: string | undefined): boolean =>
  ifNoneMatch !== undefined &&
  (ifNoneMatch.trim() === "*" || ifNoneMatch.split(",").some((tag) => tag.trim().replace(/^W\//, "") === etag))

const immutable = "public, max-age=31536000, immutable"

/** Answers with the recording, or says why not. What fails later cuts the connection. */
export const getData: (
  wish: DataWish
) => Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  Problem<
    | "invalid-request"
    | "session-not-found"
    | "session-live"
    | "format-unfit"
    | "archive-unavailable"
  >,
  Archive | Feed
> = Effect.fn("DataHandler.getData")(function*(wish: DataWish) {
  const { id, format, values } = wish
  yield* knownForm(id)
  const [archive, feed] = [yield* Archive, yield* Feed]
  const asked = yield* rangeWishOf(wish.range, { name: format.name, isThinnable: !unthinnable.has(format.name) })
  const record = yield* Effect.mapError(archive.session(id), problemOf)
  const isSealed = record.state === "ended"
  if (!isSealed && !wish.partial) {
    return yield* Effect.fail(
      problem(
        "session-live",
        `Cannot give all data of the session "${id}": it is still live. End it with POST /sessions/${id}/end, ` +
          "or ask for what is stored so far with partial=true"
      )
    )
  }
  if (!isSealed && format.sealedOnly !== undefined) {
    const detail = `Cannot give a live session as ${format.name}: ${format.sealedOnly}. End it first`
    return yield* Effect.fail(problem("session-live", detail))
  }

  const range = yield* resolveRange(archive, record, asked).pipe(
    Effect.catchTag("ArchiveUnavailable", (error) => Effect.fail(problemOf(error))),
    // What is stored cannot be read: nobody but us can do something about it.
    Effect.catchTag("ChunkCorrupt", Effect.die)
  )
  const coding = format.isCompressible ? codingFor(wish.acceptEncoding) : undefined
  const part = rangeTag(range, asked.maxPoints)
  const coded = coding === undefined ? "" : `/${coding}`
  const etag = `"${id}/${formatPosition(durableOf(record))}/${format.name}/${values}${part}${coded}"`
  const vary = "Accept, Accept-Encoding"
  const caching: Record<string, string> = isSealed ?
    { etag, "cache-control": immutable, vary } :
    { "cache-control": "no-store", vary }
  if (isSealed && isNamed(etag, wish.ifNoneMatch)) return HttpServerResponse.empty({ status: 304, headers: caching })

  const recording = recordingOf(archive, feed, record, values, range, asked.maxPoints)
  const opened = yield* format.open(recording).pipe(
    Effect.catchTag("ArchiveUnavailable", (error) => Effect.fail(problemOf(error))),
    Effect.catchTag("ChunkCorrupt", Effect.die)
  )
  // A compressor is done with a slice when it asks for the next.
  const plain = dataBytes(opened, recording, coding === undefined ? wish.isSent : () => true)
  const bytes = (coding === undefined ? plain : encoded(coding, plain)).pipe(
    // Nobody hears of a failure after the head has gone but by the cut: the log must.
    Stream.tapCause((cause) =>
      Cause.hasInterruptsOnly(cause) ? Effect.void : Effect.logError("Cannot finish sending data", cause)
    )
  )
  return HttpServerResponse.stream(bytes, {
    contentType: format.contentType,
    ...(opened.contentLength === undefined ? {} : { contentLength: opened.contentLength }),
    headers: {
      ...caching,
      ...(coding === undefined ? {} : { "content-encoding": coding }),
      // What a range of bytes is would have to be counted from the beginning each time.
      "accept-ranges": "none",
      "content-disposition": `attachment; filename="thrum-${id.slice(0, 8)}.${format.extension}"`,
      ...(recording.samples === undefined ? {} : { "thrum-samples": String(recording.samples) }),
      "thrum-complete": String(recording.complete),
      ...(recording.next === undefined ? {} : { link: `<${wish.pageAt(recording.next)}>; rel="next"` })
    }
  })
})
