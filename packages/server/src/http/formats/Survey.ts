/**
 * What must be known of a whole recording before its first byte can be written: reads it once through, and keeps
 * nothing of it. In slices: no more than {@link samplesPerTurn} samples, and a frame, before the event loop has its turn.
 */
import { formatPosition, kinds } from "@thrum/protocol"
import { Effect, Stream } from "effect"
import { release } from "../ByteSink.ts"
import { pickedOf } from "../PickedFrame.ts"
import { recordedOf } from "../SessionHandlers.ts"
import { blockOf } from "./Columns.ts"
import { type DataError, gapText, type Recording } from "./Format.ts"

export interface Survey {
  /** Samples read. */
  readonly samples: number
  /** Whether every frame that was read holds counts. */
  readonly isCounts: boolean
  /** Smallest and largest count of those frames; 0 when there is none. */
  readonly min: number
  readonly max: number
  /** The first sample that does not follow the one before it, `0:500`; undefined while all do. */
  readonly broken: string | undefined
}

const samplesPerTurn = 16_384

/** Reads a recording for what its numbers are, to its end or until `isEnough`. */
export const surveyOf = (
  recording: Recording,
  isEnough: (survey: Survey) => boolean
): Effect.Effect<Survey, DataError> =>
  Effect.suspend(() => {
    const channels = recording.record.description.channels.length
    const survey: { -readonly [K in keyof Survey]: Survey[K] } = {
      samples: 0,
      isCounts: true,
      min: 0,
      max: 0,
      broken: undefined
    }
    let [turn, epoch, next] = [0, -1, 0]
    return recording.events.pipe(
      Stream.mapEffect((event) => {
        if (event.kind !== kinds.samples) return Effect.void
        const block = blockOf(event, channels)
        if (block.exponent !== undefined) survey.isCounts = false
        for (const k of block.integers) {
          if (k < survey.min) survey.min = k
          if (k > survey.max) survey.max = k
        }
        release(block.integers)
        const picked = pickedOf(event)
        const count = picked?.length ?? block.count
        const first = event.index + (picked?.[0] ?? 0)
        const last = event.index + (picked?.[count - 1] ?? block.count - 1)
        const follows = survey.samples === 0 || (event.epoch === epoch && first === next)
        if (!follows || last - first !== count - 1) {
          survey.broken ??= formatPosition({ epoch: event.epoch, index: first })
        }
        survey.samples += count
        epoch = event.epoch
        next = last + 1
        turn += block.count
        if (turn < samplesPerTurn) return Effect.void
        turn = 0
        return Effect.yieldNow
      }),
      Stream.takeUntil(() => isEnough(survey)),
      Stream.runDrain,
      Effect.as(survey)
    )
  })

/** Gaps that metadata list: about 60 bytes each. */
const gapsMax = 10_000

/** What a file says of itself besides its columns, for formats with room for texts by name. */
export const metadataOf = (recording: Recording): Effect.Effect<ReadonlyMap<string, string>, DataError> =>
  recording.gaps.pipe(
    Stream.take(gapsMax + 1),
    Stream.runCollect,
    Effect.map((gaps) => {
      const { record, values, from, complete, next } = recording
      return new Map([
        ["thrum.session", JSON.stringify(recordedOf(record))],
        ["thrum.values", values],
        ["thrum.from", formatPosition(from)],
        ...(next === undefined ? [] : [["thrum.next", formatPosition(next)] as const]),
        ["thrum.complete", String(complete)],
        ["thrum.gaps", `[${gaps.slice(0, gapsMax).map(gapText).join(",")}]`],
        ["thrum.gaps.all", String(gaps.length <= gapsMax)]
      ])
    })
  )
