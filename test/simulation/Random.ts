/** All chance of a simulation, from one number: the same seed gives the same world. */

export class Random {
  private state: number

  /** @param seed Any integer; its lower 32 bits count. */
  constructor(seed: number) {
    this.state = seed | 0
  }

  /** A number of [0, 1). Splitmix32. */
  next(): number {
    this.state = (this.state + 0x9e3779b9) | 0
    let z = this.state
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  /** A number of [min, max). */
  between(min: number, max: number): number {
    return min + (max - min) * this.next()
  }

  /** An integer of min … max, both in it. */
  int(min: number, max: number): number {
    return Math.floor(this.between(min, max + 1))
  }

  /** Mostly small, now and then `max`: what delays look like. */
  skewed(min: number, max: number): number {
    return min + (max - min) * this.next() ** 4
  }

  pick<A>(items: ReadonlyArray<A>): A {
    const item = items[this.int(0, items.length - 1)]
    if (item === undefined) throw new RangeError("Cannot pick: there is nothing to pick from")
    return item
  }
}
