/**
 * A sample's place in its session. Written `epoch:index` (`0:12000`) in REST, SSE ids and exports.
 *
 * An epoch is one power-up of the device; the index counts sampling instants from 0 within it.
 */

/** `epoch` is 0 … 2^31−1, `index` is 0 … 2^53−1. */
export interface Position {
  readonly epoch: number
  readonly index: number
}

/** The first position of every session. */
export const startPosition: Position = { epoch: 0, index: 0 }

/** Largest epoch and largest index. */
export const epochMax: number = 2 ** 31 - 1
export const indexMax: number = Number.MAX_SAFE_INTEGER

/** Negative when `a` is before `b`, 0 when equal, positive when after. */
export const comparePositions = (a: Position, b: Position): number => a.epoch - b.epoch || a.index - b.index

/** `{ epoch: 0, index: 12000 }` → `"0:12000"`. */
export const formatPosition = (p: Position): string => `${p.epoch}:${p.index}`

/**
 * Reads `"0:12000"`.
 *
 * @returns undefined when `text` is not two plain decimal numbers in range, joined by a colon.
 * @example
 * ```ts
 * import { parsePosition } from "@thrum/protocol"
 * parsePosition("0:12000") // { epoch: 0, index: 12000 }
 * parsePosition("12000") // undefined
 * ```
 */
export const parsePosition = (text: string): Position | undefined => {
  const match = /^(0|[1-9]\d{0,9}):(0|[1-9]\d{0,15})$/.exec(text)
  if (match === null) return undefined
  const [epoch, index] = [Number(match[1]), Number(match[2])]
  return epoch <= epochMax && index <= indexMax ? { epoch, index } : undefined
}
