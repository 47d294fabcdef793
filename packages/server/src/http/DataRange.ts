/**
 * Which part of a recording is asked for: by position, by time, the last of it, so many samples from a cursor on.
 *
 * Whatever was asked for becomes two positions and an exact number of samples before the first byte is sent. That costs
 * the gaps of an epoch at a time (core's `gapsMax` of them, no samples), and for a time some 50 reads of one chunk at
 * most. Then the events of the recording are cut to it, one page in memory.
 */
import {
  type Archive,
  type ArchiveUnavailable,
  type ChunkCorrupt,
  durableOf,
  type EpochRecord,
  type Feed,
  type FeedEvent,
  type Frame,
  type SessionRecord
} from "@thrum/core"
import {
  comparePositions,
  cutFrames,
  formatPosition,
  type Gap,
  isFrameError,
  kinds,
  parsePosition,
  type Position,
  protocolLimits,
  readBlock,
  readSamples,
  startPosition
} from "@thrum/protocol"
import { Effect, Stream } from "effect"
import { PickedFrame } from "./PickedFrame.ts"
import { type InvalidValue, type Problem, problem } from "./Problem.ts"
import { deviceTimeOf, wallTimeOf } from "./SampleTime.ts"

/** What goes wrong while it is found out. */
type ReadError = ArchiveUnavailable | ChunkCorrupt

type ArchiveService = Archive["Service"]

/** A place in a recording: a position, or a time in µs since 1970. */
export type Bound = Position | { readonly micros: number }

/** The range as it is asked for. Nothing set: everything. */
export interface RangeWish {
  readonly from?: Bound
  readonly to?: Bound
  /** Microseconds before the last sample. */
  readonly last?: number
  /** Samples, at most. */
  readonly limit?: number
  /** Where the page before ended. */
  readonly cursor?: Position
  /** Rows, at most. */
  readonly maxPoints?: number
}

/** The parameters of a range, as the query has them. */
export interface RangeQuery {
  readonly from?: string
  readonly to?: string
  readonly last?: string
  readonly limit?: string
  readonly cursor?: string
  readonly maxPoints?: string
}

/** The names of {@link RangeQuery}. */
export const rangeParameters: ReadonlyArray<keyof RangeQuery> = ["from", "to", "last", "limit", "cursor", "maxPoints"]

/** A range of a recording, found. */
export interface DataRange {
  readonly from: Position
  /** After the last position. */
  readonly to: Position
  /** Samples stored between the two. */
  readonly samples: number
  /** Where the next page begins: only when a limit left samples out. */
  readonly next: Position | undefined
  /** Whether it is everything that is stored. */
  readonly isWhole: boolean
}

// ---- From texts

/** An instant of RFC 3339. In a query `+` may have become a blank. */
export const instantPattern: RegExp = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+\- ]\d\d:\d\d)$/
/** A length of time. */
export const durationPattern: RegExp = /^(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h)$/

const unitMicros: Readonly<Record<string, number>> = { ms: 1e3, s: 1e6, m: 60e6, h: 3600e6 }

/** µs since 1970; undefined when the calendar has no such instant. A fraction of a µs counts as a whole one. */
export const microsOf = (text: string): number | undefined => {
  const match = instantPattern.exec(text)
  if (match === null) return undefined
  const [, fraction = "", offset = "Z"] = match
  const local = text.slice(0, 19)
  const seconds = Date.parse(`${local}Z`)
  // The 31st of a month that has none would pass for the 1st of the next.
  if (Number.isNaN(seconds) || !new Date(seconds).toISOString().startsWith(local)) return undefined
  const [hours, minutes] = offset === "Z" ? [0, 0] : [Number(offset.slice(1, 3)), Number(offset.slice(4))]
  if (hours > 23 || minutes > 59) return undefined
  const shift = (hours * 60 + minutes) * 60e6 * (offset.startsWith("-") ? -1 : 1)
  return seconds * 1000 + Math.ceil(Number(fraction.slice(1).padEnd(9, "0")) / 1000) - shift
}

const boundOf = (text: string): Bound | undefined => {
  const position = parsePosition(text)
  if (position !== undefined) return position
  const micros = microsOf(text)
  return micros === undefined ? undefined : { micros }
}

const isPosition = (bound: Bound): bound is Position => "epoch" in bound

const number = (text: string): number | undefined => {
  const n = Number(text)
  return Number.isSafeInteger(n) ? n : undefined
}

/**
 * Reads the range of a query, or names what in it cannot be.
 *
 * @param rows Whether the format has rows: one of whole frames cannot be thinned.
 */
export const rangeWishOf = (
  query: RangeQuery,
  format: { readonly name: string; readonly isThinnable: boolean }
): Effect.Effect<RangeWish, Problem<"invalid-request">> => {
  const errors: Array<InvalidValue> = []
  const wrong = (parameter: string, detail: string): undefined => {
    errors.push({ parameter, detail })
    return undefined
  }
  const read = <A>(
    parameter: keyof RangeQuery,
    parse: (text: string) => A | undefined,
    what: string
  ): A | undefined => {
    const text = query[parameter]
    return text === undefined ? undefined : parse(text) ?? wrong(parameter, `must be ${what}: got "${text}"`)
  }
  const place = "a position in range like \"0:12000\" or an instant there is like \"2026-01-01T00:00:00Z\""
  const from = read("from", boundOf, place)
  const to = read("to", boundOf, place)
  const cursor = read("cursor", parsePosition, "a position in range like \"0:12000\"")
  const limit = read("limit", number, "a number of samples below 2^53")
  const maxPoints = read("maxPoints", number, "a number of rows below 2^53")
  const last = read("last", (text) => {
    const match = durationPattern.exec(text)
    return match === null ? undefined : Math.round(Number(match[1]) * unitMicros[match[2]!]!)
  }, "a length of time like \"10s\" (ms, s, m, h)")

  const both = (parameter: keyof RangeQuery, other: keyof RangeQuery, why: string): void => {
    if (query[parameter] !== undefined && query[other] !== undefined) {
      wrong(parameter, `cannot be combined with ${other}: ${why}`)
    }
  }
  both("last", "from", "both say where to begin")
  both("last", "cursor", "both say where to begin")
  both("cursor", "from", "both say where to begin")
  both("maxPoints", "limit", "one thins the whole range, the other cuts it into pages")
  both("maxPoints", "cursor", "one thins the whole range, the other cuts it into pages")
  if (maxPoints !== undefined && !format.isThinnable) {
    wrong("maxPoints", `cannot be combined with format=${format.name}: it has no rows to leave out`)
  }
  if (last === 0) wrong("last", "must be longer than 0")
  if (from !== undefined && to !== undefined && isPosition(from) === isPosition(to) && isAfter(from, to)) {
    wrong("from", "must not be after to")
  }
  if (errors.length > 0) {
    const told = errors.map(({ parameter, detail }) => `${parameter}: ${detail}`).join("; ")
    return Effect.fail(problem("invalid-request", `Cannot read the query: ${told}`, { errors }))
  }
  return Effect.succeed({
    ...(from === undefined ? {} : { from }),
    ...(to === undefined ? {} : { to }),
    ...(last === undefined ? {} : { last }),
    ...(limit === undefined ? {} : { limit }),
    ...(cursor === undefined ? {} : { cursor }),
    ...(maxPoints === undefined ? {} : { maxPoints })
  })
}

const isAfter = (a: Bound, b: Bound): boolean =>
  isPosition(a) && isPosition(b) ?
    comparePositions(a, b) > 0 :
    !isPosition(a) && !isPosition(b) && a.micros > b.micros

// ---- What is stored, without its samples

/** Consecutive stored indexes of one epoch. */
interface Stretch {
  readonly epoch: number
  readonly first: number
  readonly next: number
}

/** The gaps of an epoch, up to where its record says. */
const gapsOfEpoch = (
  archive: ArchiveService,
  record: SessionRecord,
  { epoch, durable, samples }: EpochRecord
): Effect.Effect<ReadonlyArray<{ readonly from: number; readonly to: number }>, ArchiveUnavailable> =>
  samples === durable ?
    Effect.succeed([]) :
    Effect.map(archive.gaps(record.id, epoch), (gaps) =>
      // Since the record was read the device may have gone on.
      gaps.flatMap(({ from, to }) => from < durable ? [{ from, to: Math.min(to, durable) }] : []))

/** What is stored of an epoch between two positions, in order. */
const stretchesOf = Effect.fnUntraced(function*(
  archive: ArchiveService,
  record: SessionRecord,
  kept: EpochRecord,
  from: Position,
  to: Position
) {
  const { epoch, durable } = kept
  const begin = epoch === from.epoch ? from.index : 0
  const end = epoch === to.epoch ? Math.min(to.index, durable) : durable
  const stretches: Array<Stretch> = []
  if (epoch < from.epoch || epoch > to.epoch || begin >= end) return stretches
  let first = begin
  for (const gap of yield* gapsOfEpoch(archive, record, kept)) {
    if (gap.to <= first) continue
    if (gap.from >= end) break
    if (gap.from > first) stretches.push({ epoch, first, next: gap.from })
    first = gap.to
  }
  if (first < end) stretches.push({ epoch, first, next: end })
  return stretches
})

/** Gaps of a range, epoch by epoch: no more than one epoch's are in memory. */
export const gapsIn = (
  archive: ArchiveService,
  record: SessionRecord,
  { from, to }: Pick<DataRange, "from" | "to">
): Stream.Stream<Pick<Gap, "from" | "to" | "reason">, ArchiveUnavailable> =>
  Stream.fromIterable(record.epochs).pipe(
    Stream.filter(({ epoch }) => epoch >= from.epoch && epoch <= to.epoch),
    Stream.flatMap((kept) => {
      const { epoch } = kept
      const begin = epoch === from.epoch ? from.index : 0
      const end = epoch === to.epoch ? to.index : kept.durable
      return Stream.fromIterableEffect(gapsOfEpoch(archive, record, kept)).pipe(
        Stream.filter((gap) => begin < end && gap.to > begin && gap.from < end),
        Stream.map((gap) => ({
          from: { epoch, index: Math.max(gap.from, begin) },
          to: { epoch, index: Math.min(gap.to, end) },
          reason: "device" as const
        }))
      )
    })
  )

// ---- Times

/** The stored frames that hold a position or come after it, as far as one chunk goes. */
const framesAt = Effect.fnUntraced(function*(archive: ArchiveService, record: SessionRecord, at: Position) {
  const chunk = (yield* archive.read(record.id, at, 1))[0]
  if (chunk === undefined || chunk.epoch !== at.epoch) return undefined
  const cut = cutFrames(chunk.bytes, protocolLimits.messageBytesMax.value)
  if (isFrameError(cut)) throw new Error(cut.message)
  return { first: chunk.first, next: chunk.next, frames: cut.frames }
})

/** Wall times of the samples of a frame, in order. */
const timesOf = (
  record: SessionRecord,
  kept: EpochRecord,
  bytes: Uint8Array
): { index: number; times: Float64Array } => {
  const { description } = record
  const samples = readSamples(bytes)
  const block = isFrameError(samples) ? samples : readBlock(samples.block, description.channels.length)
  if (isFrameError(samples) || isFrameError(block)) throw new Error("Cannot read a frame that was checked when it came")
  const times = new Float64Array(block.count)
  const epoch = { t0: kept.t0, wall: kept.wall ?? 0, index: kept.index ?? 0 }
  for (let i = 0; i < block.count; i++) {
    const device = deviceTimeOf(samples, i, block.times, description)
    times[i] = wallTimeOf(samples.index + i, device, epoch, description.rate)
  }
  return { index: samples.index, times }
}

/** The first position of an epoch whose time is `micros` or later; undefined when all are before it. By bisection. */
const searchEpoch = Effect.fnUntraced(function*(
  archive: ArchiveService,
  record: SessionRecord,
  kept: EpochRecord,
  micros: number
) {
  let [low, high] = [kept.index ?? 0, kept.durable]
  while (low < high) {
    const middle = low + Math.floor((high - low) / 2)
    const chunk = yield* framesAt(archive, record, { epoch: kept.epoch, index: middle })
    if (chunk === undefined || chunk.first >= high) {
      high = middle
      continue
    }
    if (timesOf(record, kept, chunk.frames[0]!).times[0]! >= micros) {
      high = Math.min(middle, chunk.first)
      continue
    }
    for (const bytes of chunk.frames) {
      const { index, times } = timesOf(record, kept, bytes)
      const found = times.findIndex((time) => time >= micros)
      if (found >= 0) return index + found
    }
    low = chunk.next
  }
  return low < kept.durable ? low : undefined
})

/** The first position whose time is `micros` or later; the end when there is none. */
const searchTime = Effect.fnUntraced(function*(archive: ArchiveService, record: SessionRecord, micros: number) {
  const begun = record.epochs.filter(({ wall }) => wall !== undefined)
  const at = begun.findLastIndex(({ wall }) => wall! <= micros)
  if (at < 0) return begun[0] === undefined ? durableOf(record) : { epoch: begun[0].epoch, index: 0 }
  const kept = begun[at]!
  const index = yield* searchEpoch(archive, record, kept, micros)
  if (index !== undefined) return { epoch: kept.epoch, index }
  const after = begun[at + 1]
  return after === undefined ? durableOf(record) : { epoch: after.epoch, index: 0 }
})

/** The time of the last sample before `to`; undefined when there is none. */
const lastTime = Effect.fnUntraced(function*(archive: ArchiveService, record: SessionRecord, to: Position) {
  for (const kept of record.epochs.toReversed()) {
    const stretch = (yield* stretchesOf(archive, record, kept, startPosition, to)).at(-1)
    if (stretch === undefined) continue
    const index = stretch.next - 1
    const chunk = yield* framesAt(archive, record, { epoch: kept.epoch, index })
    const frame = chunk?.frames.map((bytes) => readSamples(bytes)).findLastIndex((samples) =>
      !isFrameError(samples) && samples.index <= index
    )
    if (chunk === undefined || frame === undefined || frame < 0) continue
    const { index: first, times } = timesOf(record, kept, chunk.frames[frame]!)
    return times[index - first]
  }
  return undefined
})

// ---- From wish to range

const least = (a: Position, b: Position): Position => comparePositions(a, b) <= 0 ? a : b

/** Finds where the range lies, and how many samples it holds. */
export const resolveRange: (
  archive: ArchiveService,
  record: SessionRecord,
  wish: RangeWish
) => Effect.Effect<DataRange, ReadError | Problem<"invalid-request">> = Effect.fnUntraced(
  function*(archive, record, wish) {
    const end = durableOf(record)
    const placeOf = (bound: Bound): Effect.Effect<Position, ReadError> =>
      isPosition(bound) ? Effect.succeed(least(bound, end)) : searchTime(archive, record, bound.micros)

    const { channels } = record.description
    if (wish.maxPoints !== undefined && wish.maxPoints < 2 * channels.length) {
      const detail = `must be at least ${2 * channels.length}: a lowest and a highest sample for each channel`
      return yield* Effect.fail(
        problem("invalid-request", `Cannot read the query: maxPoints: ${detail}`, {
          errors: [{ parameter: "maxPoints", detail }]
        })
      )
    }

    let to = wish.to === undefined ? end : yield* placeOf(wish.to)
    let from = wish.cursor === undefined ? startPosition : least(wish.cursor, end)
    if (wish.from !== undefined) from = yield* placeOf(wish.from)
    if (wish.last !== undefined) {
      const time = yield* lastTime(archive, record, to)
      from = time === undefined ? to : yield* searchTime(archive, record, time - wish.last + 1)
    }
    if (comparePositions(from, to) > 0) {
      // A cursor beyond where the range ends: its last page has been had.
      if (wish.from === undefined) from = to
      else {
        const detail = `must not be after to: it is at ${formatPosition(from)}, to at ${formatPosition(to)}`
        return yield* Effect.fail(
          problem("invalid-request", `Cannot read the query: from: ${detail}`, {
            errors: [{ parameter: "from", detail }]
          })
        )
      }
    }
    const isWhole = comparePositions(from, startPosition) === 0 && comparePositions(to, end) === 0 &&
      wish.limit === undefined
    if (isWhole) {
      const samples = record.epochs.reduce((sum, epoch) => sum + epoch.samples, 0)
      return { from, to, samples, next: undefined, isWhole }
    }

    const limit = wish.limit ?? Number.POSITIVE_INFINITY
    let samples = 0
    let last: Position | undefined
    for (const kept of record.epochs) {
      for (const { epoch, first, next } of yield* stretchesOf(archive, record, kept, from, to)) {
        const taken = Math.min(next - first, limit - samples)
        samples += taken
        if (taken > 0) last = { epoch, index: first + taken }
        if (first + taken < next) return { from, to: last ?? from, samples, next: last ?? from, isWhole: false }
      }
    }
    return { from, to, samples, next: undefined, isWhole: false }
  }
)

// ---- The range's events

/** The samples of a frame that lie between two positions; undefined when there is none. */
const cutFrame = (frame: Frame, from: Position, to: Position): Frame | undefined => {
  const first = frame.epoch === from.epoch ? Math.max(frame.index, from.index) : frame.index
  const next = frame.epoch === to.epoch ? Math.min(frame.next, to.index) : frame.next
  if (first >= next || frame.epoch > to.epoch) return undefined
  if (first === frame.index && next === frame.next) return frame
  return new PickedFrame(frame, Int32Array.from({ length: next - first }, (_, i) => first - frame.index + i))
}

/** Everything of a range: epochs, frames (cut where the range cuts them) and gaps. */
export const eventsIn = (
  feed: Feed["Service"],
  record: SessionRecord,
  { from, to, isWhole }: DataRange
): Stream.Stream<FeedEvent, ReadError> => {
  if (isWhole) return feed.stored(record, from)
  // A record that ends where the range does: nothing behind it is read.
  const epochs = record.epochs.filter(({ epoch }) => epoch <= to.epoch).map((kept) =>
    kept.epoch === to.epoch ? { ...kept, durable: Math.min(kept.durable, to.index) } : kept
  )
  return feed.stored({ ...record, epochs }, from).pipe(
    Stream.mapAccumArray(() => from, (before: Position, events) => {
      let next = before
      const kept: Array<FeedEvent> = []
      for (const event of events) {
        if (event.kind === kinds.gap) {
          if (comparePositions(event.from, to) >= 0) continue
          next = least(event.to, to)
          kept.push({ ...event, to: next })
        } else if (event.kind === kinds.samples) {
          const frame = cutFrame(event, from, to)
          if (frame === undefined) continue
          next = least({ epoch: event.epoch, index: event.next }, to)
          kept.push(frame)
        } else kept.push(event)
      }
      return [next, kept]
    }, {
      // What comes next is stored behind the range: nobody told of the gap before it.
      onHalt: (next) => {
        const first = next.epoch === to.epoch ? next : { epoch: to.epoch, index: 0 }
        return first.index < to.index ? [{ kind: kinds.gap, from: first, to, reason: "device" as const }] : []
      }
    })
  )
}
