/**
 * Loaded into a process before its own code (`node --import`): how long its event loop lets others wait. On SIGUSR2 it
 * writes what it saw since the last time, in milliseconds, as one line to standard error.
 *
 * `cpu` is the time the loop's thread worked between two looks, a millisecond apart at least: what others had to wait
 * for. `wall` is what they waited: on a machine that does other things too, that is more.
 */
import { createHistogram, monitorEventLoopDelay } from "node:perf_hooks"

const wall = monitorEventLoopDelay({ resolution: 1 })
wall.enable()

const cpu = createHistogram()
const threadMicros = (): number => {
  const { user, system } = process.threadCpuUsage()
  return user + system
}
let before = threadMicros()
setInterval(() => {
  const now = threadMicros()
  cpu.record(Math.max(1, Math.round(now - before)))
  before = now
}, 1).unref()

const micros = (value: number): number => Number((value / 1000).toFixed(2))
// The histogram counts the millisecond between two looks as well.
const nanos = (value: number): number => Number(Math.max(0, value / 1e6 - 1).toFixed(2))

process.on("SIGUSR2", () => {
  const seen = {
    cpu: { p50: micros(cpu.percentile(50)), p99: micros(cpu.percentile(99)), max: micros(cpu.max) },
    wall: { p50: nanos(wall.percentile(50)), p99: nanos(wall.percentile(99)), max: nanos(wall.max) }
  }
  process.stderr.write(`loop ${JSON.stringify(seen)}\n`)
  cpu.reset()
  wall.reset()
})
