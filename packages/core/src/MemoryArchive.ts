/**
 * The archive in memory: what {@link Archive} promises, for as long as the process lives.
 *
 * Holds every chunk it is given, by reference, and forgets nothing: bounded only by what is put in. Each operation is
 * one synchronous step, so nothing can come between its check and its change.
 */
import type { Description } from "@thrum/protocol"
import { Effect } from "effect"
import type { Append, Appended, ArchiveShape, Chunk } from "./Archive.ts"
import {
  type EpochRecord,
  SessionEnded,
  type SessionId,
  SessionNotFound,
  type SessionRecord,
  StaleEpoch
} from "./Session.ts"

interface KeptEpoch {
  record: EpochRecord
  readonly chunks: Array<Chunk>
}

interface KeptSession {
  readonly description: Description
  readonly keyHash: Uint8Array
  readonly createdAt: number
  endedAt: number | undefined
  /** At their own number. */
  readonly epochs: Array<KeptEpoch>
}

const recordOf = (id: SessionId, kept: KeptSession): SessionRecord => ({
  id,
  description: kept.description,
  keyHash: kept.keyHash,
  state: kept.endedAt === undefined ? "live" : "ended",
  createdAt: kept.createdAt,
  endedAt: kept.endedAt,
  epochs: kept.epochs.map((epoch) => epoch.record)
})

const sameBytes = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, i) => byte === b[i])

/** Index of the first chunk that ends after `index`. */
const searchChunk = (chunks: ReadonlyArray<Chunk>, index: number): number => {
  let [low, high] = [0, chunks.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (chunks[middle]!.next > index) high = middle
    else low = middle + 1
  }
  return low
}

/** Makes an empty archive. */
export const makeMemoryArchive = (): ArchiveShape => {
  const sessions = new Map<SessionId, KeptSession>()

  const find = (id: SessionId): Effect.Effect<KeptSession, SessionNotFound> => {
    const kept = sessions.get(id)
    return kept === undefined ? Effect.fail(new SessionNotFound({ id })) : Effect.succeed(kept)
  }

  const add = (append: Append): Appended => {
    const session = sessions.get(append.sessionId)
    const kept = session?.epochs[append.epoch]
    // What is not kept (any more) takes nothing, for good; the others of the group are not to suffer for it.
    if (session === undefined || kept === undefined) return { durable: 0, sealed: true }

    const { record } = kept
    const sealed = session.endedAt !== undefined
    if (sealed || record.durable !== append.expected) return { durable: record.durable, sealed }

    let { samples, bytes } = record
    for (const chunk of append.chunks) {
      samples += chunk.next - chunk.first
      bytes += chunk.bytes.length
      kept.chunks.push(chunk)
    }
    const begins = record.wall === undefined && append.chunks.length > 0
    kept.record = {
      ...record,
      ...(begins ? { t0: append.t0, wall: append.wall, index: append.index } : {}),
      durable: append.next,
      samples,
      bytes
    }
    return { durable: append.next, sealed: false }
  }

  return {
    create: ({ id, description, keyHash, createdAt }) =>
      Effect.suspend(() => {
        const kept = sessions.get(id)
        if (kept !== undefined && !sameBytes(kept.keyHash, keyHash)) {
          return Effect.die(new Error("Cannot create the session: another one is kept under its id"))
        }
        if (kept === undefined) sessions.set(id, { description, keyHash, createdAt, endedAt: undefined, epochs: [] })
        return Effect.void
      }),

    session: (id) => Effect.suspend(() => Effect.map(find(id), (kept) => recordOf(id, kept))),

    openEpoch: (id, bootId) =>
      Effect.suspend(() =>
        Effect.flatMap(find(id), (kept): Effect.Effect<EpochRecord, SessionEnded | StaleEpoch> => {
          if (kept.endedAt !== undefined) return Effect.fail(new SessionEnded({ id }))
          const known = kept.epochs.find(({ record }) => record.bootId === bootId)?.record
          if (known !== undefined && known.epoch < kept.epochs.length - 1) {
            return Effect.fail(new StaleEpoch({ id, epoch: known.epoch }))
          }
          if (known !== undefined) return Effect.succeed(known)
          const record: EpochRecord = {
            epoch: kept.epochs.length,
            bootId,
            t0: undefined,
            wall: undefined,
            index: undefined,
            durable: 0,
            samples: 0,
            bytes: 0
          }
          kept.epochs.push({ record, chunks: [] })
          return Effect.succeed(record)
        })
      ),

    append: (group) => Effect.sync(() => group.map(add)),

    seal: (id, endedAt) =>
      Effect.suspend(() =>
        Effect.map(find(id), (kept) => {
          kept.endedAt ??= endedAt
          return recordOf(id, kept)
        })
      ),

    read: (id, from, bytesMax) =>
      Effect.sync(() => {
        const page: Array<Chunk> = []
        let bytes = 0
        for (const { record, chunks } of sessions.get(id)?.epochs.slice(from.epoch) ?? []) {
          const first = record.epoch === from.epoch ? searchChunk(chunks, from.index) : 0
          for (let i = first; i < chunks.length; i++) {
            const chunk = chunks[i]!
            bytes += chunk.bytes.length
            if (page.length > 0 && bytes > bytesMax) return page
            page.push(chunk)
          }
        }
        return page
      }),

    gaps: (id, epoch) =>
      Effect.sync(() => {
        const kept = sessions.get(id)?.epochs[epoch]
        const gaps: Array<{ readonly from: number; readonly to: number }> = []
        if (kept === undefined) return gaps
        let from = 0
        for (const { first, next } of kept.chunks) {
          if (from < first) gaps.push({ from, to: first })
          from = next
        }
        if (from < kept.record.durable) gaps.push({ from, to: kept.record.durable })
        return gaps
      }),

    ready: Effect.succeed({ synchronousCommit: "memory", durable: false })
  }
}
