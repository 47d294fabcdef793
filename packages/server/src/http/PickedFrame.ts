/**
 * A samples frame of which only some samples are asked for: the seam between what is chosen of a recording and the
 * formats that write it.
 *
 * Whoever chooses (a range that cuts a frame, a thinning for plots) wraps the frame; whoever writes rows asks
 * {@link pickedOf} which samples they are; whoever writes frames sends the whole frame, and says so.
 */
import { Frame } from "@thrum/core"

export class PickedFrame extends Frame {
  /** Numbers of the samples within the frame, in ascending order; at least one. */
  readonly picked: Int32Array

  constructor(frame: Frame, picked: Int32Array) {
    super(frame.epoch, frame.index, frame.next, frame.t0, frame.bytes)
    this.picked = picked
  }
}

/** The samples of a frame that are asked for, by their number within it; undefined when all are. */
export const pickedOf = (frame: Frame): Int32Array | undefined =>
  frame instanceof PickedFrame ? frame.picked : undefined

/** How many samples of a frame are asked for. */
export const countOf = (frame: Frame): number =>
  frame instanceof PickedFrame ? frame.picked.length : frame.next - frame.index
