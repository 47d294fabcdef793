/** The REST door as a patient client uses it: what fails for a while is asked again, what is refused is told. */
import { pause } from "./World.ts"

/** Milliseconds for one answer, and for all tries of one question. */
const answerMs = 15_000
const patienceMs = 90_000

export interface NewSession {
  readonly id: string
  readonly ingestKey: string
}

export interface Answer {
  readonly status: number
  readonly etag: string | null
  readonly body: Uint8Array<ArrayBuffer>
}

const textOf = (body: Uint8Array): string => new TextDecoder().decode(body)

export class Rest {
  readonly base: string

  constructor(base: string) {
    this.base = base
  }

  /** Asks until there is an answer that is not "come back later". The body of the answer is whole. */
  async ask(path: string, init: RequestInit = {}): Promise<Answer> {
    const deadline = Date.now() + patienceMs
    while (true) {
      let why: string
      try {
        const response = await fetch(this.base + path, { ...init, signal: AbortSignal.timeout(answerMs) })
        const body = new Uint8Array(await response.arrayBuffer())
        if (response.status !== 503) return { status: response.status, etag: response.headers.get("etag"), body }
        why = textOf(body)
      } catch (cause) {
        why = String(cause)
      }
      if (Date.now() > deadline) throw new Error(`Cannot ask ${path}: no answer in ${patienceMs} ms, at last ${why}`)
      await pause(50)
    }
  }

  async create(): Promise<NewSession> {
    const { status, body } = await this.ask("/sessions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ rate: 100, channels: [{ name: "x", unit: "count" }] })
    })
    if (status !== 201) throw new Error(`Cannot create a session: ${status} ${textOf(body)}`)
    const { session, ingestKey } = JSON.parse(textOf(body))
    return { id: session.id, ingestKey }
  }

  async end({ id, ingestKey }: NewSession): Promise<number> {
    const { status, body } = await this.ask(`/sessions/${id}/end`, {
      method: "POST",
      headers: { authorization: `Bearer ${ingestKey}` }
    })
    if (status !== 200) throw new Error(`Cannot end the session: ${status} ${textOf(body)}`)
    return status
  }

  /** The whole recording as frames. */
  async data(id: string, format: "frames" | "csv" = "frames"): Promise<Answer> {
    const answer = await this.ask(`/sessions/${id}/data?format=${format}`)
    if (answer.status !== 200) throw new Error(`Cannot get the data: ${answer.status} ${textOf(answer.body)}`)
    return answer
  }

  /** What the session says of itself. */
  async standing(id: string): Promise<{ readonly state: string; readonly samples: number; readonly bytes: number }> {
    const { status, body } = await this.ask(`/sessions/${id}`)
    if (status !== 200) throw new Error(`Cannot get the session: ${status} ${textOf(body)}`)
    return JSON.parse(textOf(body))
  }
}
