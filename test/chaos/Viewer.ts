/** A viewer that comes back where it was, and hands all it is shown to its {@link Sight}. */
import { type ErrorFrame, formatPosition, isFrameError, kinds, readViewerFrame } from "@thrum/protocol"
import type { Random } from "../simulation/Random.ts"
import type { Ledger } from "./Ledger.ts"
import { Line } from "./Line.ts"
import { Sight } from "./Sight.ts"
import type { Tally } from "./Tally.ts"

export interface ViewerOptions {
  readonly ledger: Ledger
  readonly from: "start" | "now"
  readonly policy: "complete" | "latest"
  /** `ws://host:port` */
  readonly base: () => string
  readonly random: Random
  readonly tally: Tally
}

export class Viewer {
  readonly sight: Sight
  /** Resolves when the session's end was told and the connection closed. */
  readonly ended: Promise<void>
  private readonly line: Line
  private isWelcome = false

  constructor({ ledger, from, policy, base, random, tally }: ViewerOptions) {
    this.sight = new Sight(ledger, from, tally)
    const wrong = (sentence: string): void => tally.breaks("broken", 1, `viewer of session ${ledger.id}: ${sentence}`)
    let refusal: ErrorFrame | undefined
    const { promise, resolve } = Promise.withResolvers<void>()
    this.ended = promise
    this.line = new Line({
      url: () => {
        const at = this.sight.next === undefined ? "now" : formatPosition(this.sight.next)
        return `${base()}/sessions/${ledger.id}/live?from=${at}&policy=${policy}`
      },
      onOpen: () => {
        this.sight.connect()
        refusal = undefined
      },
      onMessage: (message) => {
        const frame = readViewerFrame(message)
        if (isFrameError(frame)) return wrong(frame.message)
        if (frame.kind === kinds.viewerWelcome) this.isWelcome = true
        if (frame.kind === kinds.error) refusal = frame
        this.sight.take(frame, message)
      },
      onClose: (code, reason) => {
        this.isWelcome = false
        if (this.sight.ended !== undefined) {
          // The close may be lost, the ended frame was not.
          this.line.close()
          resolve()
        } else if (code === 1000 || (code >= 4000 && code < 4100)) {
          wrong(`it only watched and was closed with ${code} "${reason}", before the end (${refusal?.text})`)
        }
        return false
      }
    }, random)
    this.line.open()
  }

  get isConnected(): boolean {
    return this.isWelcome
  }

  close(): void {
    this.line.close()
  }
}
