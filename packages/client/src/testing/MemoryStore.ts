/** A store whose disk is an object: it can be slow, full, and cut off from the device that writes. */
import type { FrameStore, StoredFrames } from "../FrameStore.ts"
import type { DeviceFrame } from "../Retention.ts"

export class MemoryStore {
  content: StoredFrames | undefined
  isFull = false
  isStuck = false
  private stuck: Array<() => void> = []
  private reader = 0

  /** What was written before stays; whoever had the store open writes into the void from here on. */
  cut(): void {
    this.reader++
  }

  unstick(): void {
    this.isStuck = false
    for (const go of this.stuck.splice(0)) go()
  }

  /** The store as another run of the device finds it. */
  reopened(): FrameStore {
    const reader = ++this.reader
    const write = async (change: () => void): Promise<void> => {
      if (this.isStuck) await new Promise<void>((resolve) => this.stuck.push(resolve))
      if (reader === this.reader) change()
      else await new Promise(() => {})
    }
    return {
      load: async () => this.content,
      begin: (session, bootId) =>
        write(() => this.content = { session, bootId: new Uint8Array(bootId), durable: 0, freed: 0, frames: [] }),
      append: (frame: DeviceFrame) =>
        write(() => {
          if (this.isFull) throw new Error("no space left")
          if (this.content !== undefined) this.content = { ...this.content, frames: [...this.content.frames, frame] }
        }),
      free: (before, durable) =>
        write(() => {
          if (this.content === undefined) return
          const frames = this.content.frames.filter(({ next }) => next > before)
          this.content = { ...this.content, durable, freed: before, frames }
        }),
      clear: () => write(() => this.content = undefined),
      close: async () => {}
    }
  }
}
