/**
 * Virtual time: what happens when, in one order that follows from the seed.
 *
 * A heap of events by time and then by the order in which they were made. Effect's clock, its scheduler and microtasks
 * all stand on it, so a run is one synchronous call: no timer, promise or turn of the event loop is left to chance. An
 * event belongs to a process or to nobody; what belongs to a process that was killed never happens.
 */
import { Clock, Context, Duration, Effect, type Fiber, Scheduler } from "effect"
import type { Random } from "./Random.ts"

/** A program that can die with all it has in memory: a clock and a scheduler of its own. */
export interface Process {
  readonly name: string
  isAlive: boolean
  /** What its effects run with. */
  readonly context: Context.Context<never>
}

interface Event {
  readonly at: number
  readonly order: number
  readonly owner: Process | undefined
  run: (() => void) | undefined
}

const isBefore = (a: Event, b: Event): boolean => a.at < b.at || (a.at === b.at && a.order < b.order)

/** Operations of fibers in one event, at most. */
const operationsMax = 200_000

export class Timeline {
  /** Milliseconds since the start. */
  now = 0
  /** One event had more operations of fibers than any has that ends. */
  onEndless: (operations: number) => void = () => {}
  private readonly random: Random
  private readonly heap: Array<Event> = []
  private readonly microtasks: Array<() => void> = []
  private made = 0
  private operations = 0

  constructor(random: Random) {
    this.random = random
  }

  /** Does `run` after `delay` ms, unless its owner is dead by then. Returns how to take that back. */
  after(delay: number, run: () => void, owner?: Process): () => void {
    return this.at(this.now + delay, run, owner)
  }

  /** The same, at a moment: what is said for one moment happens in the order in which it was said. */
  at(moment: number, run: () => void, owner?: Process): () => void {
    const event: Event = { at: Math.max(this.now, moment), order: this.made++, owner, run }
    this.push(event)
    return () => {
      event.run = undefined
    }
  }

  /**
   * A process whose fibers also give way, besides where Effect lets them, at any operation with the probability
   * `yielding`: whatever is not one synchronous step may be parted.
   */
  process(name: string, yielding: number): Process {
    const process: Process = {
      name,
      isAlive: true,
      context: Context.empty().pipe(
        Context.add(Clock.Clock, this.clockOf(() => process)),
        Context.add(Scheduler.Scheduler, new SeededScheduler(this, this.random, yielding, () => process))
      )
    }
    return process
  }

  /** Lets events happen, one after the other, until `isOver` says so or nothing is left. `step` follows each of them. */
  play(isOver: () => boolean, step: () => void): void {
    const { queueMicrotask } = globalThis
    // Core resumes viewers by microtasks. Ours run after each event, as a runtime's do; nobody else is awake to notice.
    globalThis.queueMicrotask = (task) => {
      this.microtasks.push(task)
    }
    try {
      while (!isOver()) {
        const event = this.pop()
        if (event === undefined) return
        if (event.run === undefined || event.owner?.isAlive === false) continue
        this.now = event.at
        this.operations = 0
        event.run()
        for (let i = 0; i < this.microtasks.length; i++) this.microtasks[i]!()
        this.microtasks.length = 0
        step()
      }
    } finally {
      globalThis.queueMicrotask = queueMicrotask
    }
  }

  /** Counts an operation of a fiber. True when one event has had so many that it would never end by itself. */
  isEndless(): boolean {
    if (++this.operations <= operationsMax) return false
    this.onEndless(operationsMax)
    return true
  }

  private clockOf(owner: () => Process): Clock.Clock {
    const millis = (): number => Math.floor(this.now)
    const nanos = (): bigint => BigInt(Math.floor(this.now * 1e6))
    return {
      currentTimeMillisUnsafe: millis,
      currentTimeNanosUnsafe: nanos,
      monotonicTimeNanosUnsafe: nanos,
      currentTimeMillis: Effect.sync(millis),
      currentTimeNanos: Effect.sync(nanos),
      monotonicTimeNanos: Effect.sync(nanos),
      sleep: (duration) => {
        const delay = Duration.toMillis(duration)
        if (delay <= 0) return Effect.yieldNow
        return Effect.callback<void>((resume) => {
          const cancel = this.after(delay, () => resume(Effect.void), owner())
          return Effect.sync(cancel)
        })
      }
    }
  }

  private push(event: Event): void {
    const { heap } = this
    let at = heap.push(event) - 1
    while (at > 0) {
      const parent = (at - 1) >>> 1
      if (!isBefore(event, heap[parent]!)) break
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = event
  }

  private pop(): Event | undefined {
    const { heap } = this
    const [first] = heap
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return last
    let at = 0
    while (true) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
      if (!isBefore(heap[child]!, last)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = last
    return first
  }
}

/** Milliseconds until a scheduled task runs, at most: other things may happen before. */
const turnMax = 0.05

class SeededScheduler extends Scheduler.MixedScheduler {
  private readonly timeline: Timeline
  private readonly random: Random
  private readonly yielding: number

  constructor(timeline: Timeline, random: Random, yielding: number, owner: () => Process) {
    super("async", (task) => timeline.after(random.between(0, turnMax), task, owner()))
    this.timeline = timeline
    this.random = random
    this.yielding = yielding
  }

  override shouldYield(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    return this.timeline.isEndless() || super.shouldYield(fiber) ||
      (this.yielding > 0 && this.random.chance(this.yielding))
  }
}
