/** `POST /sessions`, `GET /sessions/{id}`, `POST /sessions/{id}/end`: to core and back. */
import {
  type EndMismatch,
  isSessionId,
  SessionNotFound,
  type SessionRecord,
  Sessions,
  type SessionStanding
} from "@thrum/core"
import { type Description, formatPosition, type SessionState } from "@thrum/protocol"
import { Effect } from "effect"
import type { Links } from "./Links.ts"
import { type Problem, problemOf } from "./Problem.ts"

/** A channel as it is asked for. */
export interface NewChannel {
  readonly name: string
  readonly unit?: string
  readonly scale?: number
  readonly offset?: number
}

/** The body of `POST /sessions`. */
export interface NewSession {
  readonly rate: number
  readonly channels?: ReadonlyArray<NewChannel>
  readonly tick?: number
  readonly name?: string
  readonly sensor?: string
  readonly gravity?: boolean
}

/** What of a session never changes once it is sealed: what stands beside its data. */
export interface RecordedSession extends Description {
  readonly id: string
  readonly state: SessionState
  readonly createdAt: string
  readonly endedAt?: string
}

/** A session with where it stands now. */
export interface SessionAnswer extends RecordedSession {
  readonly received: string
  readonly durable: string
  readonly samples: number
  readonly bytes: number
  readonly publishing: boolean
  readonly viewers: number
  readonly links: Links
}

/** Makes the links of a session. */
export type LinksOf = (id: string) => Links

const axes: ReadonlyArray<NewChannel> = [{ name: "x" }, { name: "y" }, { name: "z" }]

const descriptionOf = ({ channels = axes, rate, tick = 1, ...more }: NewSession): Description => ({
  channels: channels.map(({ name, unit = "m/s²", scale = 1, offset = 0 }) => ({ name, unit, scale, offset })),
  rate,
  tick,
  ...more
})

/**
 * The session beside its data. Its keys always come in this order, whatever the archive made of theirs: the data of a
 * sealed session is the same to the byte for ever.
 */
export const recordedOf = ({ id, state, createdAt, endedAt, description }: SessionRecord): RecordedSession => {
  const { channels, rate, tick, name, sensor, gravity } = description
  return {
    id,
    state,
    createdAt: new Date(createdAt).toISOString(),
    ...(endedAt === undefined ? {} : { endedAt: new Date(endedAt).toISOString() }),
    channels: channels.map(({ name, unit, scale, offset }) => ({ name, unit, scale, offset })),
    rate,
    tick,
    ...(name === undefined ? {} : { name }),
    ...(sensor === undefined ? {} : { sensor }),
    ...(gravity === undefined ? {} : { gravity })
  }
}

const answerOf = (standing: SessionStanding, linksOf: LinksOf): SessionAnswer => ({
  ...recordedOf(standing.record),
  received: formatPosition(standing.received),
  durable: formatPosition(standing.durable),
  samples: standing.samples,
  bytes: standing.bytes,
  publishing: standing.isPublishing,
  viewers: standing.viewers,
  links: linksOf(standing.record.id)
})

/** Refuses what cannot be a session's id before anybody looks for it. */
export const knownForm = (id: string): Effect.Effect<void, Problem<"session-not-found">> =>
  isSessionId(id) ? Effect.void : Effect.fail(problemOf(new SessionNotFound({ id })))

/** Creates a session. */
export const createSession: (
  asked: NewSession,
  linksOf: LinksOf
) => Effect.Effect<
  { readonly session: SessionAnswer; readonly ingestKey: string; readonly links: Links },
  Problem<"archive-unavailable">,
  Sessions
> = Effect.fn("SessionHandlers.createSession")(function*(asked: NewSession, linksOf: LinksOf) {
  const sessions = yield* Sessions
  const { standing, ingestKey } = yield* Effect.mapError(sessions.create(descriptionOf(asked)), problemOf)
  const session = answerOf(standing, linksOf)
  return { session, ingestKey, links: session.links }
})

/** Where a session stands. */
export const getSession: (
  id: string,
  linksOf: LinksOf
) => Effect.Effect<SessionAnswer, Problem<"session-not-found" | "archive-unavailable">, Sessions> = Effect.fn(
  "SessionHandlers.getSession"
)(function*(id: string, linksOf: LinksOf) {
  yield* knownForm(id)
  const sessions = yield* Sessions
  return answerOf(yield* Effect.mapError(sessions.standing(id), problemOf), linksOf)
})

/** Seals a session. */
export const endSession: (
  id: string,
  key: string,
  linksOf: LinksOf
) => Effect.Effect<
  SessionAnswer,
  Problem<"session-not-found" | "key-refused" | "not-flushed" | "archive-unavailable">,
  Sessions
> = Effect.fn("SessionHandlers.endSession")(function*(id: string, key: string, linksOf: LinksOf) {
  yield* knownForm(id)
  const sessions = yield* Sessions
  const standing = yield* sessions.end(id, { key }).pipe(
    // Only a device names a final index.
    Effect.catchTag("EndMismatch", (mismatch: EndMismatch) => Effect.die(mismatch)),
    Effect.mapError(problemOf)
  )
  return answerOf(standing, linksOf)
})
