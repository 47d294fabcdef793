/**
 * Holds what `GET /sessions/{id}/data` gives of a sealed session against what its device produced and was told. Knows
 * the wire (docs/PROTOCOL.md, §10) and nothing of the server: frames are compared as bytes, blocks are never opened.
 */
import { endOfValue, type Gap, isFrameError, kinds, type Position, readViewerFrame } from "@thrum/protocol"
import type { Ledger } from "./Ledger.ts"
import { frameAt, isSame } from "./Stream.ts"
import type { Tally } from "./Tally.ts"

/** What is stored of a session, as far as viewers are compared with it. */
export interface Stored {
  /** Frames in their order. */
  readonly frames: ReadonlyArray<{ readonly epoch: number; readonly index: number; readonly next: number }>
  readonly has: (epoch: number, index: number) => boolean
  readonly end: Position
  readonly samples: number
  readonly bytes: number
}

/** Levels of arrays and maps in a frame: the welcome's are frame, session, channels, channel. */
const depthMax = 9

/** @param whole Whether the device itself ended the session, so that all it kept must be there. */
export const checkData = (ledger: Ledger, data: Uint8Array, whole: boolean, tally: Tally): Stored => {
  const frames: Array<{ readonly epoch: number; readonly index: number; readonly next: number }> = []
  const have = new Map<number, Set<number>>()
  let epoch = -1
  let cursor = 0
  let end: Position | undefined
  let [samples, bytes] = [0, 0]
  const where = (index: number): string => `session ${ledger.id} at ${epoch}:${index}`

  const takeSamples = (index: number, message: Uint8Array): void => {
    const boot = ledger.bootOf(epoch)
    const entry = boot?.entries.get(index)
    if (boot === undefined || entry === undefined) {
      return tally.breaks("foreign", 1, `${where(index)}: stored, and never produced`)
    }
    if (!isSame(message, frameAt(ledger.stream, boot.number, index).bytes)) {
      return tally.breaks("foreign", 1, `${where(index)}: stored with other bytes than were produced`)
    }
    const count = entry.next - index
    const stored = have.get(epoch) ?? new Set()
    if (stored.has(index)) return tally.breaks("twice", count, `${where(index)}: stored a second time`)
    have.set(epoch, stored.add(index))
    if (index < cursor) return tally.breaks("out of order", count, `${where(index)}: stored behind ${cursor}`)
    if (index > cursor) tally.breaks("holes", 1, `${where(index)}: nothing tells what is missing from ${cursor} on`)
    cursor = entry.next
    frames.push({ epoch, index, next: entry.next })
    samples += count
    bytes += message.length
  }

  const takeGap = ({ from, to }: Gap): void => {
    if (from.epoch > epoch && from.index === 0) [epoch, cursor] = [from.epoch, 0]
    if (from.epoch !== epoch || from.index !== cursor || to.epoch !== epoch || to.index <= from.index) {
      tally.breaks("holes", 1, `${where(cursor)}: a gap from ${from.epoch}:${from.index} to ${to.epoch}:${to.index}`)
    }
    cursor = to.index
  }

  for (let at = 0; at < data.length;) {
    const next = endOfValue(data, at, depthMax)
    const message = data.subarray(at, next)
    const frame = readViewerFrame(message)
    if (next < 0 || isFrameError(frame)) {
      tally.breaks("broken", 1, `the data of session ${ledger.id} cannot be read at byte ${at} of ${data.length}`)
      break
    }
    at = next
    if (end !== undefined) tally.breaks("broken", 1, `session ${ledger.id} goes on after its ended frame`)
    if (frame.kind === kinds.epoch) {
      if (frame.epoch <= epoch) tally.breaks("out of order", 1, `${where(cursor)}: epoch ${frame.epoch} comes after`)
      ;[epoch, cursor] = [frame.epoch, 0]
    } else if (frame.kind === kinds.samples) takeSamples(frame.index, message)
    else if (frame.kind === kinds.gap) takeGap(frame)
    else if (frame.kind === kinds.ended) end = frame.position
  }
  if (end === undefined) tally.breaks("broken", 1, `the data of session ${ledger.id} has no ended frame`)

  const has = (epoch: number, index: number): boolean => have.get(epoch)?.has(index) === true
  for (const boot of ledger.boots) {
    for (const { fate, index, next } of boot.entries.values()) {
      if (boot.epoch !== undefined && has(boot.epoch, index)) continue
      const place = `session ${ledger.id} at ${boot.epoch}:${index}`
      const isLast = boot === ledger.boots.at(-1)
      if (fate === "acked") tally.breaks("lost", next - index, `${place}: acked as durable, and not stored`)
      else if (whole && isLast && (ledger.keeps || fate === "open")) {
        tally.breaks("missing", next - index, `${place}: produced and kept (${fate}), and not stored`)
      } else tally.counts("samples given up", next - index)
    }
  }
  tally.counts("samples stored", samples)
  return { frames, has, end: end ?? { epoch: 0, index: 0 }, samples, bytes }
}
