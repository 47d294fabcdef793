/** A range of a recording, thinned where that is asked for, as the formats take it. */
import { type Archive, durableOf, type Feed, type SessionRecord } from "@thrum/core"
import { comparePositions, formatPosition, type ValuesAs } from "@thrum/protocol"
import { Stream } from "effect"
import { type DataRange, eventsIn, gapsIn } from "./DataRange.ts"
import type { Recording } from "./formats/Format.ts"
import { thin } from "./Thinning.ts"

/**
 * Puts a range together with what is stored of it.
 *
 * @param maxPoints Rows, at most; undefined for all. A range that holds no more than that is not thinned.
 */
export const recordingOf = (
  archive: Archive["Service"],
  feed: Feed["Service"],
  record: SessionRecord,
  values: ValuesAs,
  range: DataRange,
  maxPoints: number | undefined
): Recording => {
  const isThinned = maxPoints !== undefined && range.samples > maxPoints
  return {
    record,
    values,
    from: range.from,
    next: range.next,
    complete: record.state === "ended" && range.next === undefined,
    reachesEnd: comparePositions(range.to, durableOf(record)) === 0,
    samples: isThinned ? undefined : range.samples,
    // A stream of the feed has one reader: who reads twice gets two.
    events: Stream.suspend(() => {
      const events = eventsIn(feed, record, range)
      return isThinned ? thin(events, record.description, range.samples, maxPoints) : events
    }),
    gaps: gapsIn(archive, record, range)
  }
}

/** What tells the answers for different ranges of one recording apart: part of their ETag. Empty for everything. */
export const rangeTag = ({ from, to, next, isWhole }: DataRange, maxPoints: number | undefined): string => {
  const part = isWhole ? "" : `/${formatPosition(from)}-${formatPosition(to)}${next === undefined ? "" : "+"}`
  return maxPoints === undefined ? part : `${part}/max${maxPoints}`
}
