/**
 * `GET /sessions/{id}/summary`. Those of sealed sessions never change: the {@link keptMax} last asked for are kept, a few
 * KB each. At most {@link atOnce} are summed up at a time; others wait.
 */
import { Archive, durableOf, Feed, type SessionRecord } from "@thrum/core"
import { formatPosition } from "@thrum/protocol"
import { Effect, Semaphore } from "effect"
import { HttpServerResponse } from "effect/http"
import { isNamed } from "./DataHandler.ts"
import { type Problem, problemOf } from "./Problem.ts"
import { knownForm, recordedOf } from "./SessionHandlers.ts"
import { type Summary, sumUp } from "./Summary.ts"

/** Summaries kept. */
const keptMax = 256
/** Recordings summed up at a time: each is as much work as its length. */
const atOnce = 2

const immutable = "public, max-age=31536000, immutable"

/** What is asked for. */
export interface SummaryWish {
  readonly id: string
  /** `If-None-Match` of the request. */
  readonly ifNoneMatch: string | undefined
}

/** Answers with a summary. */
export type GetSummary = (
  wish: SummaryWish
) => Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  Problem<"session-not-found" | "archive-unavailable">
>

/** Makes the handler. */
export const makeGetSummary: Effect.Effect<GetSummary, never, Archive | Feed> = Effect.gen(function*() {
  const [archive, feed] = [yield* Archive, yield* Feed]
  const kept = new Map<string, Summary>()
  const permits = yield* Semaphore.make(atOnce)

  const remember = (id: string, summary: Summary): Summary => {
    kept.delete(id)
    kept.set(id, summary)
    const oldest = kept.keys().next().value
    if (kept.size > keptMax && oldest !== undefined) kept.delete(oldest)
    return summary
  }

  const summaryOf = (record: SessionRecord) =>
    permits.withPermit(Effect.suspend(() => {
      // Only now: whoever was before us may have asked for the same.
      const known = kept.get(record.id)
      if (known !== undefined) return Effect.succeed(remember(record.id, known))
      return sumUp(record, feed.stored).pipe(
        Effect.map((summary) => record.state === "ended" ? remember(record.id, summary) : summary)
      )
    }))

  return Effect.fn("SummaryHandler.getSummary")(function*({ id, ifNoneMatch }: SummaryWish) {
    yield* knownForm(id)
    const record = yield* Effect.mapError(archive.session(id), problemOf)
    const isSealed = record.state === "ended"
    const etag = `"${id}/${formatPosition(durableOf(record))}/summary"`
    const headers: Record<string, string> = isSealed ?
      { etag, "cache-control": immutable } :
      { "cache-control": "no-store" }
    if (isSealed && isNamed(etag, ifNoneMatch)) return HttpServerResponse.empty({ status: 304, headers })
    const summary = yield* summaryOf(record).pipe(
      Effect.catchTag("ArchiveUnavailable", (error) => Effect.fail(problemOf(error))),
      Effect.catchTag("ChunkCorrupt", Effect.die)
    )
    return HttpServerResponse.jsonUnsafe(
      { session: recordedOf(record), complete: isSealed, durable: formatPosition(durableOf(record)), ...summary },
      { headers }
    )
  })
})
