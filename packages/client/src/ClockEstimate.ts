/**
 * How the server's clock differs from ours, from time frames: NTP with one timestamp of the server.
 *
 * Holds the last {@link answersMax} answers; the one with the shortest way there and back counts, because its error is
 * at most half of that. Older ones leave, so that clocks that drift are followed.
 */
const answersMax = 8

interface Answer {
  /** µs to add to our clock. */
  readonly offset: number
  /** µs there and back. */
  readonly delay: number
}

export class ClockEstimate {
  private readonly answers: Array<Answer> = []

  /** Our clock: µs since 1970, whole, and never going back while the page or process lives. */
  static now(): number {
    return Math.round((performance.timeOrigin + performance.now()) * 1000)
  }

  /**
   * Takes an answer that came now.
   *
   * @param asked Our clock when we asked, µs.
   * @param server The server's clock in its answer, µs.
   */
  take(asked: number, server: number, now: number = ClockEstimate.now()): void {
    const delay = now - asked
    if (delay < 0) return
    this.answers.push({ offset: server - (asked + now) / 2, delay })
    if (this.answers.length > answersMax) this.answers.shift()
  }

  /** µs to add to our clock to get the server's; undefined before the first answer. */
  get offset(): number | undefined {
    return this.best?.offset
  }

  /** ms to the server and back, by the last answer; undefined before the first. */
  get latency(): number | undefined {
    const last = this.answers.at(-1)
    return last === undefined ? undefined : last.delay / 1000
  }

  private get best(): Answer | undefined {
    let best: Answer | undefined
    for (const answer of this.answers) if (best === undefined || answer.delay <= best.delay) best = answer
    return best
  }
}
