/**
 * What is live: a {@link Live} for each session that somebody publishes or watches here.
 *
 * The control plane around the data plane of `Live.ts`: it opens a session from the archive for the first who asks,
 * shares it, and lets it go a while after the last one left. Viewers are told the durable watermark here, at most every
 * `CoreLimits.durableEveryMs`.
 */
import { Context, Effect, Layer, type Scope } from "effect"
import { Archive, type ArchiveUnavailable } from "./Archive.ts"
import { CoreLimits } from "./Limits.ts"
import { Live, type RingsBytes } from "./Live.ts"
import type { SessionId, SessionNotFound } from "./Session.ts"

export interface HubShape {
  /** The session, shared with everyone here who has it open, until the scope closes. */
  readonly open: (id: SessionId) => Effect.Effect<Live, SessionNotFound | ArchiveUnavailable, Scope.Scope>
  /** The session if anyone here has it open. */
  readonly peek: (id: SessionId) => Live | undefined
  /** All sessions that are open here. */
  readonly lives: () => Iterable<Live>
  /** Bytes of recent frames in memory. */
  readonly ringsBytes: () => number
}

const Tag: Context.ServiceClass<Hub, "@thrum/core/Hub", HubShape> = Context.Service<Hub, HubShape>()("@thrum/core/Hub")

/** What is live. */
export class Hub extends Tag {
  static readonly layer: Layer.Layer<Hub, never, Archive> = Layer.effect(
    Hub,
    Effect.gen(function*() {
      const archive = yield* Archive
      const limits = yield* CoreLimits
      const scope = yield* Effect.scope
      const open = new Map<SessionId, { readonly live: Live; holders: number }>()
      const rings: RingsBytes = { bytes: 0 }
      let letGo = 0

      const acquire = Effect.fnUntraced(function*(id: SessionId) {
        while (true) {
          const known = open.get(id)
          if (known !== undefined) {
            known.holders++
            return known
          }
          const before = letGo
          const record = yield* archive.session(id)
          // A session that was let go while we read may have moved on since: what we read is not where it stands.
          if (open.has(id) || letGo !== before) continue
          const entry = { live: new Live(record, limits, rings), holders: 1 }
          open.set(id, entry)
          return entry
        }
      })

      const release = Effect.fnUntraced(function*(entry: { readonly live: Live; holders: number }) {
        entry.holders--
        if (entry.holders > 0) return
        yield* Effect.forkIn(
          Effect.sleep(limits.idleMs).pipe(Effect.andThen(Effect.sync(() => {
            if (entry.holders > 0 || open.get(entry.live.id) !== entry) return
            open.delete(entry.live.id)
            entry.live.clear()
            letGo++
          }))),
          scope
        )
      })

      const told = new WeakMap<Live, Live["durable"]>()
      yield* Effect.forkScoped(
        Effect.sleep(limits.durableEveryMs).pipe(
          Effect.andThen(Effect.sync(() => {
            for (const { live } of open.values()) {
              if (live.viewers.size === 0 || told.get(live) === live.durable) continue
              told.set(live, live.durable)
              for (const viewer of live.viewers) viewer.durable(live.durable)
            }
          })),
          Effect.forever
        )
      )

      return Hub.of({
        open: (id) => Effect.map(Effect.acquireRelease(acquire(id), release), (entry) => entry.live),
        peek: (id) => open.get(id)?.live,
        lives: function*() {
          for (const { live } of open.values()) yield live
        },
        ringsBytes: () => rings.bytes
      })
    })
  )
}
