/** What operators ask: whether the instance is ready, and its numbers. */
import { Archive, Hub, WriteQueue } from "@thrum/core"
import { Effect } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { Draining } from "./Ports.ts"
import { type Problem, problem, problemOf } from "./Problem.ts"

/** Milliseconds the archive has to answer. */
const readyWaitMs = 2000

/** The answer of a ready instance. */
export interface ReadyAnswer {
  readonly database: "reachable"
  readonly synchronousCommit: string
  readonly durable: boolean
}

/** Asks the archive itself, now. */
export const ready: Effect.Effect<ReadyAnswer, Problem<"archive-unavailable" | "draining">, Archive> = Effect.gen(
  function*() {
    const [archive, isDraining] = [yield* Archive, yield* Draining]
    if (isDraining()) {
      return yield* Effect.fail(problem("draining", "Cannot take new work: the instance is shutting down"))
    }
    const readiness = yield* archive.ready.pipe(
      Effect.mapError(problemOf),
      Effect.timeoutOrElse({
        duration: readyWaitMs,
        orElse: () =>
          Effect.fail(problem("archive-unavailable", `Cannot reach the archive: no answer after ${readyWaitMs} ms`))
      })
    )
    // The archive in memory promises nothing and says so; a database that acks before it has written is not ready.
    if (!readiness.durable && readiness.synchronousCommit !== "memory") {
      const detail = "Cannot promise that what is acked is kept: the database commits without waiting for its disk " +
        `(synchronous_commit is ${readiness.synchronousCommit})`
      return yield* Effect.fail(problem("archive-unavailable", detail))
    }
    return { database: "reachable", ...readiness }
  }
)

/** One number: its name, what it counts, and whether it only ever grows. */
const metric = (name: string, type: "counter" | "gauge", help: string, value: number): string =>
  `# HELP thrum_${name} ${help}\n# TYPE thrum_${name} ${type}\nthrum_${name} ${value}\n`

/** The numbers of the core in Prometheus' text format, then those that are registered as Effect metrics. */
export const metricsText: Effect.Effect<string, never, Hub | WriteQueue> = Effect.gen(function*() {
  const [hub, queue] = [yield* Hub, yield* WriteQueue]
  const counts = queue.counts()
  let [sessions, publishers, viewers] = [0, 0, 0]
  for (const live of hub.lives()) {
    sessions++
    viewers += live.viewers.size
    if (live.publisher !== undefined) publishers++
  }
  const own = [
    metric("sessions_open", "gauge", "Sessions in memory: published, watched, or let go a moment ago.", sessions),
    metric("publishers", "gauge", "Devices that publish.", publishers),
    metric("viewers", "gauge", "Viewers that follow live.", viewers),
    metric("rings_bytes", "gauge", "Bytes of recent frames kept for joins.", hub.ringsBytes()),
    metric("queue_bytes", "gauge", "Bytes of frames that wait for a commit.", counts.bytes),
    metric("queue_groups_total", "counter", "Groups committed.", counts.groups),
    metric("queue_frames_total", "counter", "Frames committed.", counts.frames),
    metric("queue_failures_total", "counter", "Commits that failed and were tried again.", counts.failures),
    metric("queue_refused_total", "counter", "Frames not queued because the queue was full.", counts.refused),
    metric("queue_fenced_total", "counter", "Frames dropped because another writer had moved on.", counts.fenced)
  ]
  return own.join("") + (yield* PrometheusMetrics.format())
})
