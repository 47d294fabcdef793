/** `GET /sessions/{id}/data`: which format, whether it may be had, and then all of it as a stream. */
import { Archive, durableOf, Feed, type SessionRecord } from "@thrum/core"
import { formatPosition, kinds, startPosition, type ValuesAs } from "@thrum/protocol"
import { Cause, Effect, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import { negotiate } from "./Accept.ts"
import { dataBytes, type DataFormat, dataFormats, type FormatName, type Recording, samplesOf } from "./DataFormats.ts"
import { type Problem, problem, problemOf } from "./Problem.ts"
import { knownForm } from "./SessionHandlers.ts"

/** What is asked for. */
export interface DataWish {
  readonly id: string
  readonly format: FormatName | undefined
  readonly values: ValuesAs
  readonly partial: boolean
  /** `Accept` of the request. */
  readonly accept: string | undefined
  /** `If-None-Match` of the request. */
  readonly ifNoneMatch: string | undefined
}

const chooseFormat = (wish: DataWish): DataFormat | undefined => {
  const mediaType = wish.format === undefined ?
    negotiate(wish.accept, dataFormats.map((format) => format.mediaType)) :
    undefined
  return dataFormats.find((format) => format.name === wish.format || format.mediaType === mediaType)
}

/** Whether `If-None-Match` names the tag. The comparison is the weak one: a proxy may have weakened ours. */
const isNamed = (etag: string, ifNoneMatch: string | undefined): boolean =>
  ifNoneMatch !== undefined &&
  (ifNoneMatch.trim() === "*" || ifNoneMatch.split(",").some((tag) => tag.trim().replace(/^W\//, "") === etag))

const immutable = "public, max-age=31536000, immutable"

/** The gaps of a recording, epoch by epoch: no more than one epoch's are in memory. */
const gapsOf = (archive: Archive["Service"], record: SessionRecord): Recording["gaps"] =>
  Stream.fromIterable(record.epochs).pipe(
    Stream.filter(({ samples, durable }) => samples < durable),
    Stream.flatMap(({ epoch, durable }) =>
      Stream.fromIterableEffect(archive.gaps(record.id, epoch)).pipe(
        // Since the record was read the device may have gone on.
        Stream.filter(({ to }) => to <= durable),
        Stream.map(({ from, to }) => ({
          kind: kinds.gap,
          from: { epoch, index: from },
          to: { epoch, index: to },
          reason: "device" as const
        }))
      )
    )
  )

/** Answers with the recording, or says why not. What fails later cuts the connection. */
export const getData: (
  wish: DataWish
) => Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  Problem<"session-not-found" | "not-acceptable" | "session-live" | "archive-unavailable">,
  Archive | Feed
> = Effect.fn("DataHandler.getData")(function*(wish: DataWish) {
  const { id, values } = wish
  yield* knownForm(id)
  const [archive, feed] = [yield* Archive, yield* Feed]
  const format = chooseFormat(wish)
  if (format === undefined) {
    const offers = dataFormats.map((offer) => `${offer.mediaType} (format=${offer.name})`)
    return yield* Effect.fail(
      problem("not-acceptable", `Cannot answer in a format that "Accept" allows: there are ${offers.join(", ")}`)
    )
  }

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

  const etag = `"${id}/${formatPosition(durableOf(record))}/${format.name}/${values}"`
  const caching: Record<string, string> = isSealed ?
    { etag, "cache-control": immutable, vary: "Accept" } :
    { "cache-control": "no-store", vary: "Accept" }
  if (isSealed && isNamed(etag, wish.ifNoneMatch)) return HttpServerResponse.empty({ status: 304, headers: caching })

  const recording = { record, values, events: feed.stored(record, startPosition), gaps: gapsOf(archive, record) }
  const bytes = dataBytes(format, recording).pipe(
    // Nobody hears of a failure after the head has gone but by the cut: the log must.
    Stream.tapCause((cause) =>
      Cause.hasInterruptsOnly(cause) ? Effect.void : Effect.logError("Cannot finish sending data", cause)
    )
  )
  return HttpServerResponse.stream(bytes, {
    contentType: format.contentType,
    headers: {
      ...caching,
      "content-disposition": `attachment; filename="thrum-${id.slice(0, 8)}.${format.extension}"`,
      "thrum-samples": String(samplesOf(record)),
      "thrum-complete": String(isSealed)
    }
  })
})
