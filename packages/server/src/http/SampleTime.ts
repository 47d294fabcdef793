/** When a sample was taken: by its device's clock, and by the wall's. One rule for all who write or ask for times. */
import type { Frame } from "@thrum/core"
import type { Description, Epoch } from "@thrum/protocol"

/**
 * Device time of sample `i` of a frame, µs since boot; undefined where the device has no clock.
 *
 * @param times Ticks of the frame's block, when it carries them.
 */
export const deviceTimeOf = (
  frame: Pick<Frame, "t0">,
  i: number,
  times: Int32Array | undefined,
  { rate, tick }: Pick<Description, "rate" | "tick">
): number | undefined =>
  frame.t0 === undefined ?
    undefined :
    frame.t0 + (times === undefined ? Math.round(i * 1e6 / rate) : times[i]! * tick)

/** The wall's clock, µs since 1970, at the sample with this index and device time. */
export const wallTimeOf = (
  index: number,
  device: number | undefined,
  epoch: Pick<Epoch, "t0" | "wall" | "index">,
  rate: number
): number =>
  device === undefined || epoch.t0 === undefined ?
    epoch.wall + Math.round((index - epoch.index) * 1e6 / rate) :
    epoch.wall + device - epoch.t0
