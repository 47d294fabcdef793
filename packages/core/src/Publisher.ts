/**
 * One connection of a device to its session: what a door holds while the device sends. Made by `Sessions.publish`,
 * gone with its scope. There is at most one per session here; the newest wins.
 */
import { codes, type FrameError, frameError } from "@thrum/protocol"
import type { Appended } from "./Archive.ts"
import type { Intake, IntakePeer } from "./Intake.ts"
import type { Live } from "./Live.ts"

/** How a door hears of what happens to its device. Called from the data plane: must not throw, must not wait. */
export interface PublisherPeer {
  /** {@link Publisher.received} or {@link Publisher.durable} moved: send an ack soon. */
  readonly onProgress: () => void
  /** Tell the device to resend from `next`. */
  readonly onRewind: (next: number) => void
  /** Tell the device why, and close. No frame is accepted any more. */
  readonly onClose: (why: FrameError) => void
}

export class Publisher implements IntakePeer {
  readonly live: Live
  readonly intake: Intake
  /** The index the device goes on from: what its welcome says. */
  readonly next: number
  private readonly peer: PublisherPeer
  private closed: FrameError | undefined

  /** Takes the place of the session's publisher. One that a newer connection has overtaken is closed instead. */
  constructor(live: Live, intake: Intake, peer: PublisherPeer, isOvertaken: boolean) {
    this.live = live
    this.intake = intake
    this.peer = peer
    this.next = isOvertaken ? intake.received : intake.resume()
    if (isOvertaken) this.supersede()
    else {
      live.publisher?.supersede()
      intake.peer = this
      live.publisher = this
    }
  }

  get epoch(): number {
    return this.intake.epoch
  }

  /** Everything before it arrived: pace yourself by it. */
  get received(): number {
    return this.intake.received
  }

  /** Everything before it is stored for certain: free your buffer up to it. */
  get durable(): number {
    return this.intake.durable
  }

  /**
   * Takes one samples frame. Synchronous: neither the archive nor a viewer can make it wait.
   *
   * @param message The frame as it came; not kept, so it may be a view into a buffer that is used again.
   * @returns Undefined, or why it was not accepted.
   */
  accept(message: Uint8Array): FrameError | undefined {
    return this.closed ?? this.intake.accept(message)
  }

  /** Ends this connection, by name. Later frames are refused with the same. */
  close(why: FrameError): void {
    if (this.closed !== undefined) return
    this.closed = why
    this.leave()
    this.peer.onClose(why)
  }

  /** Ends this connection for a newer one. */
  supersede(): void {
    this.close(frameError("Superseded", `Cannot go on: a newer connection publishes the session "${this.live.id}"`))
  }

  /** The door is gone. */
  leave(): void {
    this.closed ??= frameError("GoingAway", `Cannot accept the frame: the connection is closed`)
    if (this.intake.peer === this) this.intake.peer = undefined
    if (this.live.publisher === this) this.live.publisher = undefined
  }

  onProgress(): void {
    this.peer.onProgress()
  }

  onRewind(next: number): void {
    this.peer.onRewind(next)
  }

  onFenced(met: Appended): void {
    this.close(
      met.sealed ?
        frameError("SessionEnded", `Cannot publish: the session "${this.live.id}" has ended`) :
        frameError("Overloaded", `${codes.Overloaded.means} Another writer moved epoch ${this.epoch} to ${met.durable}`)
    )
  }
}
