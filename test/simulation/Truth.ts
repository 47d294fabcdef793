/**
 * What must be so: what each device produced, what the archive took, what was acked and who saw what, kept beside the
 * core and compared with what it does. Shares no code with core.
 *
 * Every check speaks through {@link Truth.fail}: the first promise that breaks ends the run.
 */
import { comparePositions, formatPosition, type Gap, kinds, type Position } from "@thrum/protocol"

/** A frame as its device made it. */
export interface Produced {
  readonly first: number
  readonly next: number
  readonly bytes: Uint8Array
}

interface StoredChunk {
  readonly epoch: number
  readonly first: number
  readonly next: number
  readonly bytes: Uint8Array
}

/** Ranges of indexes `[from, to)` that grow at their end or anywhere. */
export class Ranges {
  private readonly ranges: Array<{ from: number; to: number }> = []

  add(from: number, to: number): void {
    if (to <= from) return
    const { ranges } = this
    let at = ranges.length
    while (at > 0 && ranges[at - 1]!.to >= from) at--
    let end = at
    while (end < ranges.length && ranges[end]!.from <= to) end++
    const merged = ranges.slice(at, end)
    ranges.splice(at, end - at, {
      from: Math.min(from, ...merged.map((range) => range.from)),
      to: Math.max(to, ...merged.map((range) => range.to))
    })
  }

  /** The parts of `[from, to)` that are in none. */
  missing(from: number, to: number): ReadonlyArray<{ readonly from: number; readonly to: number }> {
    const missing: Array<{ readonly from: number; readonly to: number }> = []
    for (const range of this.ranges) {
      if (range.to <= from) continue
      if (range.from >= to) break
      if (range.from > from) missing.push({ from, to: range.from })
      from = range.to
    }
    if (from < to) missing.push({ from, to })
    return missing
  }

  covers(from: number, to: number): boolean {
    return this.missing(from, to).length === 0
  }

  touches(from: number, to: number): boolean {
    return this.ranges.some((range) => range.from < to && range.to > from)
  }

  *[Symbol.iterator](): Generator<{ readonly from: number; readonly to: number }> {
    yield* this.ranges
  }
}

/** One power-up of one device: what it made, and what became of it. */
export class Boot {
  readonly session: SessionTruth
  readonly bootId: string
  epoch: number | undefined
  readonly produced: Map<number, Produced> = new Map()
  readonly stored: Ranges = new Ranges()
  /** The same, by process. */
  readonly storedBy: Map<string, Ranges> = new Map()
  /** Stored when a later epoch was open already, by process: a viewer of another process may have passed by. */
  readonly storedLate: Map<string, Ranges> = new Map()
  /** Processes that have opened its epoch, the last one last. */
  readonly openedBy: Set<string> = new Set()
  /** The watermark of its epoch, as the archive has it. */
  durable = 0
  /** Two writers have met in its epoch: what one of them showed may be lost without its knowing. */
  isDisputed = false
  /** The last durable ack the device has had. */
  acked = 0

  constructor(session: SessionTruth, bootId: string) {
    this.session = session
    this.bootId = bootId
  }

  get name(): string {
    return `${this.session.name}/${this.bootId}`
  }
}

export interface SessionTruth {
  readonly id: string
  readonly name: string
  readonly boots: Map<string, Boot>
  /** By epoch. */
  readonly epochs: Array<Boot>
  readonly chunks: Array<StoredChunk>
  /** Samples stored. */
  samples: number
  sealed: boolean
  /** What `end` answered with: chunks and samples then. */
  ended: { readonly chunks: number; readonly samples: number } | undefined
}

const isSame = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0

export class Truth {
  readonly sessions: Map<string, SessionTruth> = new Map()
  /** The first promise that broke. */
  broken: string | undefined

  fail(text: string): void {
    this.broken ??= text
  }

  session(id: string, name: string): SessionTruth {
    const session = {
      id,
      name,
      boots: new Map(),
      epochs: [],
      chunks: [],
      samples: 0,
      sealed: false,
      ended: undefined
    }
    this.sessions.set(id, session)
    return session
  }

  // What the archive did.

  epochOpened(id: string, epoch: number, bootId: string, by: string): void {
    const session = this.sessions.get(id)!
    const boot = session.boots.get(bootId)
    if (boot === undefined) return this.fail(`epoch ${epoch} of ${session.name} has the boot id "${bootId}" of nobody`)
    const known = session.epochs[epoch]
    boot.openedBy.delete(by)
    boot.openedBy.add(by)
    if (known === boot) return
    if (known !== undefined || boot.epoch !== undefined || epoch !== session.epochs.length) {
      return this.fail(`epoch ${epoch} was opened for ${boot.name}, which has ${boot.epoch}`)
    }
    boot.epoch = epoch
    session.epochs.push(boot)
  }

  /** The archive moved an epoch's watermark, by one group. */
  appended(
    id: string,
    append: {
      readonly epoch: number
      readonly expected: number
      readonly next: number
      readonly chunks: ReadonlyArray<StoredChunk>
    },
    by: string
  ): void {
    const session = this.sessions.get(id)!
    const boot = session.epochs[append.epoch]
    if (boot === undefined) {
      return this.fail(`${session.name} stored frames of epoch ${append.epoch}, which nobody opened`)
    }
    if (session.sealed) return this.fail(`${boot.name}: frames were stored after the seal`)
    if (append.expected !== boot.durable) {
      return this.fail(`${boot.name}: stored over ${boot.durable}, where ${append.expected} was expected`)
    }
    if ([...boot.openedBy].at(-1) !== by) boot.isDisputed = true
    let at = boot.durable
    for (const chunk of append.chunks) {
      if (chunk.epoch !== append.epoch) {
        this.fail(`${boot.name}: a chunk of epoch ${chunk.epoch} was stored in its place`)
      }
      if (chunk.first < at) this.fail(`${boot.name}: stored ${chunk.first} after ${at}: out of order, or twice`)
      at = this.storedFrames(boot, chunk)
      addTo(boot.storedBy, by, chunk.first, at)
      if (append.epoch < session.epochs.length - 1) addTo(boot.storedLate, by, chunk.first, at)
      session.chunks.push(chunk)
      session.samples += chunk.next - chunk.first
    }
    if (append.next < at) this.fail(`${boot.name}: the watermark ${append.next} is before the last sample ${at}`)
    boot.durable = append.next
  }

  /** Takes a chunk apart by what its device produced. Returns the index after it. */
  private storedFrames(boot: Boot, chunk: StoredChunk): number {
    let [index, at] = [chunk.first, 0]
    while (at < chunk.bytes.length) {
      const frame = boot.produced.get(index)
      if (frame === undefined) {
        this.fail(`${boot.name}: stored a frame at ${index}, which was never produced`)
        return chunk.next
      }
      if (!isSame(frame.bytes, chunk.bytes.subarray(at, at + frame.bytes.length))) {
        this.fail(`${boot.name}: the stored frame at ${index} is not the one that was produced`)
      }
      boot.stored.add(frame.first, frame.next)
      index = frame.next
      at += frame.bytes.length
    }
    if (index !== chunk.next) this.fail(`${boot.name}: a chunk says it ends at ${chunk.next} and ends at ${index}`)
    return index
  }

  sealed(id: string): void {
    this.sessions.get(id)!.sealed = true
  }

  // What devices were told.

  /** The core says so to a door, which will tell the device. */
  claimed(boot: Boot, received: number, durable: number): void {
    if (durable > boot.durable) {
      this.fail(`${boot.name}: durable is said to be ${durable} before the archive has it (${boot.durable})`)
    }
    if (received < durable) this.fail(`${boot.name}: received ${received} is below durable ${durable}`)
  }

  /** An ack came to the device, which still has `kept`. */
  acked(boot: Boot, durable: number, kept: ReadonlyArray<Produced>): void {
    // Where the archive is away, an instance may know less than the one that was there before it.
    if (durable < boot.acked && boot.openedBy.size === 1) {
      this.fail(`${boot.name}: durable went back from ${boot.acked} to ${durable}`)
    }
    boot.acked = durable
    for (const { first, next } of kept) {
      if (next <= durable && !boot.stored.covers(first, next)) {
        this.fail(`${boot.name}: acked durable ${durable}, and ${first}-${next} is not stored`)
      }
    }
  }

  /** A frame was accepted or was called a duplicate. What is said to be stored must be. */
  accepted(boot: Boot, frame: Produced, durable: number): void {
    if (frame.next <= durable && !boot.stored.covers(frame.first, frame.next)) {
      this.fail(
        `${boot.name}: ${frame.first}-${frame.next} was taken for a duplicate below durable ${durable}, not stored`
      )
    }
  }

  /** `end` answered. */
  endAnswered(id: string, samples: number): void {
    const session = this.sessions.get(id)!
    if (!session.sealed) return this.fail(`${session.name}: end answered before the seal`)
    if (samples !== session.samples) {
      return this.fail(`${session.name}: end answered ${samples} samples, stored are ${session.samples}`)
    }
    session.ended ??= { chunks: session.chunks.length, samples: session.samples }
  }

  /** Viewers were told that a range was shown and will never be stored. Looked at when all is over. */
  lostTold(id: string, gap: Gap, by: string): void {
    this.told.push({ id, gap, by })
  }

  private readonly told: Array<{ readonly id: string; readonly gap: Gap; readonly by: string }> = []

  /** All is over: what the archive holds in the end is what was stored, and nothing that was told lost is in it. */
  finish(contents: ReadonlyMap<string, ReadonlyArray<StoredChunk>>): void {
    for (const session of this.sessions.values()) {
      const chunks = contents.get(session.id) ?? []
      // An epoch's last frames may be stored after the next one's first.
      const all = session.chunks.toSorted((a, b) => a.epoch - b.epoch)
      if (chunks.length !== all.length) {
        this.fail(`${session.name}: the archive holds ${chunks.length} chunks, it took ${all.length}`)
      }
      for (const [i, chunk] of chunks.entries()) {
        const taken = all[i]
        if (
          taken === undefined || chunk.epoch !== taken.epoch || chunk.first !== taken.first ||
          chunk.next !== taken.next || !isSame(chunk.bytes, taken.bytes)
        ) this.fail(`${session.name}: chunk ${i} in the archive is not the one it took`)
      }
      const { ended } = session
      if (ended !== undefined && (ended.chunks !== chunks.length || ended.samples !== session.samples)) {
        this.fail(`${session.name}: ${session.samples - ended.samples} samples were added after end had answered`)
      }
    }
    for (const { id, gap, by } of this.told) {
      const boot = this.sessions.get(id)!.epochs[gap.from.epoch]
      if (boot === undefined) continue
      // Of two writers, one knows nothing of what the other will store.
      const stored = boot.openedBy.size > 1 ? boot.storedBy.get(by) ?? none : boot.stored
      if (stored.touches(gap.from.index, gap.to.index)) {
        this.fail(
          `${boot.name}: ${by} told ${formatPosition(gap.from)}-${formatPosition(gap.to)} lost, and it is stored`
        )
      }
    }
  }
}

/** What a viewer gets: the core's feed events, by their shape. */
export type Seen =
  | {
    readonly kind: typeof kinds.samples
    readonly epoch: number
    readonly index: number
    readonly next: number
    readonly bytes: Uint8Array
  }
  | { readonly kind: typeof kinds.epoch; readonly epoch: number }
  | { readonly kind: typeof kinds.durable; readonly position: Position }
  | Gap
  | { readonly kind: typeof kinds.caughtUp; readonly position: Position }
  | { readonly kind: typeof kinds.ended; readonly position: Position }

/** One viewer over all its connections: where it is, and what it was told. */
export class Sight {
  readonly name: string
  readonly policy: "complete" | "latest"
  /** Before it nothing more is wanted: where a new connection goes on. Undefined before the first welcome. */
  next: Position | undefined
  ended = false
  private readonly truth: Truth
  private readonly session: SessionTruth
  private start: Position | undefined
  /** Seen, by epoch, over all connections. */
  private readonly seen: Array<Ranges> = []
  /** Seen and told lost on this connection, by epoch. */
  private shown: Array<Ranges> = []
  private lost: Array<Ranges> = []
  private readonly servedBy = new Set<string>()
  private server = ""
  private announced = -1
  private durable: Position = { epoch: 0, index: 0 }
  private caughtUp = false
  private isFirst = true

  constructor(truth: Truth, session: SessionTruth, name: string, policy: "complete" | "latest") {
    this.truth = truth
    this.session = session
    this.name = name
    this.policy = policy
  }

  welcome(from: Position, by: string): void {
    this.servedBy.add(by)
    this.server = by

    if (this.next !== undefined && comparePositions(from, this.next) !== 0) {
      this.fail(`asked for ${formatPosition(this.next)}, welcomed at ${formatPosition(from)}`)
    }
    this.start ??= from
    this.next = from
    this.shown = []
    this.lost = []
    this.announced = -1
    this.durable = { epoch: 0, index: 0 }
    this.caughtUp = false
    this.isFirst = true
  }

  see(event: Seen): void {
    if (this.ended) return this.fail(`got kind ${event.kind} after the end`)
    switch (event.kind) {
      case kinds.samples:
        return this.frame(event.epoch, event.index, event.next, event.bytes)
      case kinds.epoch:
        if (event.epoch <= this.announced) this.fail(`epoch ${event.epoch} announced after ${this.announced}`)
        this.announced = event.epoch
        return
      case kinds.gap:
        return this.gap(event)
      case kinds.durable: {
        const { epoch, index } = event.position
        if (comparePositions(event.position, this.durable) < 0) this.fail(`durable went back to ${epoch}:${index}`)
        const boot = this.session.epochs[epoch]
        if (index > (boot?.durable ?? 0)) this.fail(`told durable ${epoch}:${index}, the archive has ${boot?.durable}`)
        this.durable = event.position
        return
      }
      case kinds.caughtUp:
        if (this.caughtUp) this.fail("caught up twice")
        // Where nothing of an epoch is left, the next one begins.
        if (event.position.epoch > this.next!.epoch && event.position.index === 0) this.next = event.position
        if (comparePositions(event.position, this.next!) !== 0) {
          this.fail(`caught up at ${formatPosition(event.position)}, is at ${formatPosition(this.next!)}`)
        }
        this.caughtUp = true
        return
      case kinds.ended:
        return this.end(event.position)
    }
  }

  private frame(epoch: number, index: number, next: number, bytes: Uint8Array): void {
    const at = this.next!
    const place = `${epoch}:${index}-${next}`
    const boot = this.session.epochs[epoch]
    const produced = boot?.produced.get(index)
    if (boot === undefined || produced === undefined || produced.next !== next || !isSame(produced.bytes, bytes)) {
      return this.fail(`got ${place}, which was not produced`)
    }
    if (this.announced !== epoch) this.fail(`got ${place} before its epoch was announced`)
    if (epoch < at.epoch || (epoch === at.epoch && next <= at.index)) {
      return this.fail(`got ${place} again, is at ${formatPosition(at)}`)
    }
    const expected = epoch === at.epoch ? at.index : 0
    // The first frame after a welcome may begin before the position: it is the one that holds it.
    if (index > expected || (index < expected && !this.isFirst)) {
      return this.fail(`got ${place}, is at ${epoch}:${expected}: a hole that was not told`)
    }
    this.isFirst = false
    this.next = { epoch, index: next }
    add(this.seen, epoch, index, next)
    add(this.shown, epoch, index, next)
  }

  private gap({ from, to, reason }: Gap): void {
    const at = this.next!
    const place = `${formatPosition(from)}-${formatPosition(to)} ${reason}`
    if (comparePositions(from, to) >= 0) return this.fail(`got the empty gap ${place}`)
    if (reason === "lost") {
      this.truth.lostTold(this.session.id, { kind: kinds.gap, from, to, reason }, this.server)
      if (comparePositions(to, at) > 0) {
        this.fail(`got the gap ${place} of what it never saw, is at ${formatPosition(at)}`)
      }
      add(this.lost, from.epoch, from.index, to.index)
      return
    }
    const expected = from.epoch > at.epoch ? { epoch: from.epoch, index: 0 } : at
    if (comparePositions(from, expected) !== 0) {
      return this.fail(`got the gap ${place}, is at ${formatPosition(expected)}`)
    }
    if (reason === "skipped" && this.policy === "complete") return this.fail(`got the gap ${place} and asked for all`)
    if (reason === "device") this.truth.lostTold(this.session.id, { kind: kinds.gap, from, to, reason }, this.server)
    this.isFirst = false
    this.next = to
    if (reason === "device") add(this.told, from.epoch, from.index, to.index)
    if (reason === "skipped") {
      for (let epoch = from.epoch; epoch <= to.epoch; epoch++) {
        add(
          this.skipped,
          epoch,
          epoch === from.epoch ? from.index : 0,
          epoch === to.epoch ? to.index : Number.MAX_SAFE_INTEGER
        )
      }
    }
  }

  private readonly skipped: Array<Ranges> = []
  private readonly told: Array<Ranges> = []

  private end(position: Position): void {
    const { session } = this
    this.ended = true
    const last = session.epochs.at(-1)
    const end = last === undefined ? { epoch: 0, index: 0 } : { epoch: last.epoch!, index: last.durable }
    if (!session.sealed) this.fail("was told the end before the seal")
    if (comparePositions(position, end) !== 0) {
      this.fail(`was told the end at ${formatPosition(position)}, it is at ${formatPosition(end)}`)
    }
    const start = this.start!
    for (const [epoch, boot] of session.epochs.entries()) {
      if (epoch < start.epoch) continue
      const others = [...this.servedBy, ...session.epochs.slice(epoch + 1).flatMap((later) => [...later.openedBy])]
      const settled = unionOf(
        this.seen[epoch],
        this.skipped[epoch],
        // Two writers met: one told the gap, and then the other's commit came.
        boot.isDisputed ? this.told[epoch] : undefined,
        ...Array.from(boot.storedLate, ([by, late]) => others.some((process) => process !== by) ? late : undefined)
      )
      for (const { from, to } of boot.stored) {
        const wanted = epoch === start.epoch ? Math.max(from, start.index) : from
        for (const hole of settled.missing(wanted, to)) {
          this.fail(`ended without ${epoch}:${hole.from}-${hole.to}, which is stored`)
        }
      }
      // Of an epoch that is over, an instance asks once what became of it: not again when another has stored more.
      if (boot.openedBy.size > 1 && epoch < session.epochs.length - 1) continue
      for (const { from, to } of this.shown[epoch] ?? none) {
        for (const hole of boot.stored.missing(from, to)) {
          if (this.lost[epoch]?.covers(hole.from, hole.to) !== true) {
            this.fail(`was shown ${epoch}:${hole.from}-${hole.to}, which is not stored, and never told that it is lost`)
          }
        }
      }
    }
  }

  private fail(text: string): void {
    this.truth.fail(`${this.name} of ${this.session.name} ${text}`)
  }
}

const none: Ranges = new Ranges()

const unionOf = (...all: ReadonlyArray<Ranges | undefined>): Ranges => {
  const union = new Ranges()
  for (const ranges of all) for (const { from, to } of ranges ?? none) union.add(from, to)
  return union
}

const addTo = (processes: Map<string, Ranges>, process: string, from: number, to: number): void => {
  const ranges = processes.get(process) ?? new Ranges()
  ranges.add(from, to)
  processes.set(process, ranges)
}

const add = (epochs: Array<Ranges>, epoch: number, from: number, to: number): void => {
  ;(epochs[epoch] ??= new Ranges()).add(from, to)
}
