/** What happened and what broke. Nothing that broke is forgotten; the first {@link told} are told in words. */

/** The promises. A count that is not 0 at the end fails the run. */
export const promises = [
  /** Samples under a durable ack that are not in the data. */
  "lost",
  /** Samples stored more than once. */
  "twice",
  /** Samples stored before others that come before them. */
  "out of order",
  /** Samples that a device kept and that are not in the data. */
  "missing",
  /** Stretches a viewer, or the data, passed over without a word. */
  "holes",
  /** Samples a viewer was shown again. */
  "repeats",
  /** Frames that are not what was produced at their place. */
  "foreign",
  /** Data of a sealed session that was not the same later. */
  "changed",
  /** All else: a bound that did not hold, a refusal of a correct device, who did not come back. */
  "broken"
] as const

export type Promised = typeof promises[number]

/** Sentences kept. */
const told = 20

export class Tally {
  readonly sentences: Array<string> = []
  private readonly broken: Map<Promised, number> = new Map()
  private readonly happened: Map<string, number> = new Map()

  /** A promise broke, `n` times. */
  breaks(promise: Promised, n: number, sentence: string): void {
    if (n <= 0) return
    this.broken.set(promise, this.of(promise) + n)
    if (this.sentences.length < told) this.sentences.push(`${promise}: ${sentence}`)
  }

  /** Something happened that is worth a number in the result. */
  counts(what: string, n = 1): void {
    this.happened.set(what, this.got(what) + n)
  }

  /** Keeps the largest. */
  most(what: string, n: number): void {
    this.happened.set(what, Math.max(this.got(what), n))
  }

  of(promise: Promised): number {
    return this.broken.get(promise) ?? 0
  }

  got(what: string): number {
    return this.happened.get(what) ?? 0
  }

  get isOk(): boolean {
    return this.broken.size === 0
  }

  /** `12 kills, 3 sessions`: in the order in which they first happened. */
  story(): string {
    return Array.from(this.happened, ([what, n]) => `${amount(n)} ${what}`).join(", ")
  }

  /** `0 lost, 0 twice, …` */
  verdict(): string {
    return promises.map((promise) => `${amount(this.of(promise))} ${promise}`).join(", ")
  }
}

const amount = (n: number): string => n < 1e6 ? String(Math.round(n)) : `${(n / 1e6).toFixed(1)} M`
