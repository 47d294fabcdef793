/**
 * What is durable: sessions, epochs and the chunks of stored frames.
 *
 * A port. {@link Archive.layerMemory} keeps everything in memory (for tests and for embedding without a database);
 * `@thrum/core/sql` keeps it in PostgreSQL. Both pass the suite of `@thrum/core/testing`.
 *
 * Exactly once comes from the watermark: an append names the `expected` durable index of its epoch and moves it to
 * `next`; one that finds another value adds nothing and answers with what it found. So a resend, a zombie or a commit
 * whose answer was lost can never add twice.
 */
import type { Description, Position } from "@thrum/protocol"
import { Context, Data, type Effect, Layer } from "effect"
import { makeMemoryArchive } from "./MemoryArchive.ts"
import type { EpochRecord, SessionEnded, SessionId, SessionNotFound, SessionRecord, StaleEpoch } from "./Session.ts"
import type { TaggedErrorClass } from "./TaggedError.ts"

/** Consecutive frames of one epoch, one after the other as they came. Holds no gap: a gap begins a new chunk. */
export interface Chunk {
  readonly epoch: number
  /** Index of its first sample. */
  readonly first: number
  /** Index after its last sample: `next - first` samples. */
  readonly next: number
  /** Concatenated samples frames, as the device sent them. */
  readonly bytes: Uint8Array
}

/** What one group adds to one epoch. */
export interface Append {
  readonly sessionId: SessionId
  readonly epoch: number
  /** The durable index the writer believes in. */
  readonly expected: number
  /** The durable index when this is committed. */
  readonly next: number
  /** Of the epoch's first frame; kept only when the epoch has none yet. */
  readonly t0: number | undefined
  readonly wall: number
  readonly index: number
  /** In ascending order; empty when only a gap at the end is to be passed over. */
  readonly chunks: ReadonlyArray<Chunk>
}

/** What an append met. `durable` equals its `next` when it was added, now or by an earlier try of the same append. */
export interface Appended {
  readonly durable: number
  /** The session was sealed before the append came; nothing was added. */
  readonly sealed: boolean
}

/** How sure a commit is. */
export interface Readiness {
  /** PostgreSQL's `synchronous_commit`, or `"memory"`. */
  readonly synchronousCommit: string
  /** Whether a commit that returned survives a crash of the database. */
  readonly durable: boolean
}

/** The archive cannot be reached, or refused for a reason of its own. Comes back: try again. */
const UnavailableBase: TaggedErrorClass<"ArchiveUnavailable", { readonly doing: string; readonly cause: unknown }> =
  Data.TaggedError("ArchiveUnavailable")
export class ArchiveUnavailable extends UnavailableBase {
  override get message(): string {
    return `Cannot ${this.doing}: the archive is unavailable (${
      this.cause instanceof Error ? this.cause.message : String(this.cause)
    })`
  }
}

const CorruptBase: TaggedErrorClass<
  "ChunkCorrupt",
  { readonly sessionId: SessionId; readonly epoch: number; readonly first: number }
> = Data.TaggedError("ChunkCorrupt")
/** The bytes of a chunk are not the ones that were stored. */
export class ChunkCorrupt extends CorruptBase {
  override get message(): string {
    return `Cannot read the chunk at ${this.epoch}:${this.first}: its checksum does not fit its bytes`
  }
}

export interface ArchiveShape {
  /** Keeps a new session. The id is the caller's, and new. */
  readonly create: (
    session: {
      readonly id: SessionId
      readonly description: Description
      readonly keyHash: Uint8Array
      readonly createdAt: number
    }
  ) => Effect.Effect<void, ArchiveUnavailable>

  readonly session: (id: SessionId) => Effect.Effect<SessionRecord, SessionNotFound | ArchiveUnavailable>

  /**
   * The epoch of this boot id: the current one when it is the same, a new one when it was never seen. `StaleEpoch`
   * when it belongs to an epoch before the current one. Epochs count from 0.
   */
  readonly openEpoch: (
    id: SessionId,
    bootId: string
  ) => Effect.Effect<EpochRecord, SessionNotFound | SessionEnded | StaleEpoch | ArchiveUnavailable>

  /**
   * Adds a group, all in one commit. Answers in the order of the group, after the commit returned. At most one append
   * per epoch. On failure the commit may or may not have happened: append the same again.
   */
  readonly append: (group: ReadonlyArray<Append>) => Effect.Effect<ReadonlyArray<Appended>, ArchiveUnavailable>

  /** Seals for good: after this returned nothing is ever added. Twice is the same as once. */
  readonly seal: (
    id: SessionId,
    endedAt: number
  ) => Effect.Effect<SessionRecord, SessionNotFound | ArchiveUnavailable>

  /**
   * The stored chunks that hold `from` or come after it, in order: at least one when there is one, at most
   * `bytesMax` bytes when more than one.
   */
  readonly read: (
    id: SessionId,
    from: Position,
    bytesMax: number
  ) => Effect.Effect<ReadonlyArray<Chunk>, ArchiveUnavailable | ChunkCorrupt>

  /**
   * Where the stored samples of an epoch leave indexes out, in ascending order: before, between and after its chunks,
   * up to its durable index. `[from, to)` each. Reads no sample bytes.
   */
  readonly gaps: (
    id: SessionId,
    epoch: number
  ) => Effect.Effect<ReadonlyArray<{ readonly from: number; readonly to: number }>, ArchiveUnavailable>

  /** Asks the archive itself, now. */
  readonly ready: Effect.Effect<Readiness, ArchiveUnavailable>
}

const Tag: Context.ServiceClass<Archive, "@thrum/core/Archive", ArchiveShape> = Context.Service<
  Archive,
  ArchiveShape
>()("@thrum/core/Archive")

/** What is durable. */
export class Archive extends Tag {
  /** Everything in memory, gone with the process. Bounded only by what is put in: for tests and small embeddings. */
  static readonly layerMemory: Layer.Layer<Archive> = Layer.sync(Archive, makeMemoryArchive)
}
