/** A viewer over a real socket: collects what it is sent, and turns samples into the texts they were measured as. */
import {
  type Epoch,
  type Gap,
  isFrameError,
  kinds,
  readBlock,
  readViewerFrame,
  type SessionInfo,
  subprotocol,
  textsOf,
  type ViewerFrame
} from "@thrum/protocol"
import { type Closed, until } from "./Device.ts"

/** One sample: where it is and the text of each channel. */
export interface SeenSample {
  readonly epoch: number
  readonly index: number
  readonly texts: ReadonlyArray<string>
}

export class Watcher {
  readonly frames: Array<ViewerFrame> = []
  session: SessionInfo | undefined
  closed: Closed | undefined
  readonly ws: WebSocket

  constructor(live: string) {
    this.ws = new WebSocket(live, subprotocol)
    this.ws.binaryType = "arraybuffer"
    this.ws.addEventListener("message", (event: MessageEvent<ArrayBuffer>) => {
      const frame = readViewerFrame(new Uint8Array(event.data))
      if (isFrameError(frame)) throw new Error(frame.message)
      if (frame.kind === kinds.viewerWelcome) this.session = frame.session
      this.frames.push(frame)
    })
    this.ws.addEventListener("close", (event) => {
      this.closed = { code: event.code, reason: event.reason }
    })
  }

  /** Opens and waits for the welcome (or the close that came instead). */
  static async open(live: string): Promise<Watcher> {
    const watcher = new Watcher(live)
    await until("a viewer's welcome", () => watcher.session !== undefined || watcher.closed !== undefined)
    return watcher
  }

  has(kind: number): boolean {
    return this.frames.some((frame) => frame.kind === kind)
  }

  async ended(): Promise<void> {
    await until("the viewer's end", () => this.closed !== undefined, 60_000)
  }

  get gaps(): ReadonlyArray<Gap> {
    return this.frames.filter((frame) => frame.kind === kinds.gap)
  }

  /** Every sample it saw, in the order it came. */
  samples(): ReadonlyArray<SeenSample> {
    const samples: Array<SeenSample> = []
    const channels = this.session!.channels
    let epoch: Epoch | undefined
    for (const frame of this.frames) {
      if (frame.kind === kinds.epoch) epoch = frame
      if (frame.kind !== kinds.samples) continue
      if (epoch === undefined) throw new Error("samples came before their epoch")
      const block = readBlock(frame.block, channels.length)
      if (isFrameError(block)) throw new Error(block.message)
      const text = textsOf(block, channels)
      for (let i = 0; i < block.count; i++) {
        samples.push({
          epoch: epoch.epoch,
          index: frame.index + i,
          texts: channels.map((_, c) => text(i * channels.length + c))
        })
      }
    }
    return samples
  }

  async close(): Promise<void> {
    this.ws.close()
    await until("the close", () => this.closed !== undefined)
  }
}
