/**
 * Thrum's core: sessions, hub, write queue, archive and feed, as Effect layers to compose and to replace.
 *
 * @example A core in memory, one session, one viewer
 * ```ts
 * import { coreLayer, Archive, Feed, Hub, Sessions } from "@thrum/core"
 * import { Effect, Layer } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const sessions = yield* Sessions
 *   const { ingestKey, standing } = yield* sessions.create({
 *     channels: [{ name: "x", unit: "m/s²", scale: 1, offset: 0 }],
 *     rate: 100,
 *     tick: 1
 *   })
 *   return { id: standing.record.id, ingestKey }
 * })
 * await Effect.runPromise(program.pipe(Effect.provide(coreLayer.pipe(Layer.provide(Archive.layerMemory)))))
 * ```
 *
 * @module
 */
export * from "./Archive.ts"
export * from "./Core.ts"
export * from "./Feed.ts"
export * from "./Frame.ts"
export * from "./Hub.ts"
export * from "./IngestKey.ts"
export * from "./Intake.ts"
export * from "./Limits.ts"
export * from "./Live.ts"
export * from "./Publisher.ts"
export * from "./Session.ts"
export * from "./Sessions.ts"
export * from "./TaggedError.ts"
export * from "./WriteQueue.ts"
