/** Callers that wait for something to be true of an object that changes. Bound: those who called. */
import type { ThrumError } from "./ThrumError.ts"

interface Waiter {
  readonly isTrue: () => boolean
  readonly resolve: () => void
  readonly reject: (error: ThrumError) => void
}

export class Waiters {
  private waiting: Array<Waiter> = []

  /** Returns when `isTrue`, asked now and whenever something {@link tell}s. */
  until(isTrue: () => boolean, failure: ThrumError | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ isTrue, resolve, reject })
      this.tell(failure)
    })
  }

  /** Something has changed; with a `failure` nothing will any more. */
  tell(failure: ThrumError | undefined): void {
    if (this.waiting.length === 0) return
    const waiting = this.waiting
    this.waiting = []
    for (const waiter of waiting) {
      if (waiter.isTrue()) waiter.resolve()
      else if (failure !== undefined) waiter.reject(failure)
      else this.waiting.push(waiter)
    }
  }
}
