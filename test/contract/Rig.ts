/** What the tests of the contract share: a server whose troubles are theirs to choose, and how to ask it. */

/** A session and the key that writes to it. */
export interface Created {
  readonly id: string
  readonly key: string
}

/** A samples frame to send. */
export interface Sent {
  readonly index: number
  readonly t0?: number
  readonly block: Uint8Array | Error | { readonly message: string }
}

export interface Rig {
  /** Such as `http://127.0.0.1:8080`. Known once the tests run. */
  readonly base: () => string
  /** Asks, and throws when the answer is not as the contract says. */
  readonly get: (path: string, headers?: Record<string, string>) => Promise<Response>
  readonly post: (path: string, body: unknown, headers?: Record<string, string>) => Promise<Response>
  readonly create: (session?: unknown) => Promise<Created>
  /** Sends frames as a device of this boot id does, and waits until they are stored. */
  readonly publish: (session: Created, frames: ReadonlyArray<Sent>, bootId?: string) => Promise<void>
  readonly end: (session: Created) => Promise<Response>
  /** Until the end of the test. */
  readonly setTrouble: (trouble: "none" | "down" | "broken" | "commits" | "draining") => void
}

/** An id that no session has. */
export const unknownId = "00000000-0000-4000-8000-000000000000"

/** A problem, as far as tests look into it. */
export interface ProblemBody {
  readonly type: string
  readonly detail: string
  readonly errors?: ReadonlyArray<{ readonly parameter?: string; readonly pointer?: string; readonly detail: string }>
  readonly ack?: { readonly epoch: number; readonly received: number; readonly durable: number; readonly next: number }
}

export const problemOf = (answer: Response): Promise<ProblemBody> => answer.json()
