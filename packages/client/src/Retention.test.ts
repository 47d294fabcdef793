import * as fc from "fast-check"
import { assert, describe, it } from "vitest"
import { type DeviceFrame, Retention } from "./Retention.ts"
import { ThrumError } from "./ThrumError.ts"

const frame = (index: number, samples: number, size: number): DeviceFrame => ({
  index,
  next: index + samples,
  bytes: new Uint8Array(size)
})

/** What can happen, with numbers that mean more or less of it. */
type Step =
  | { readonly do: "push"; readonly samples: number; readonly size: number; readonly skip: number }
  | { readonly do: "send" | "arrive" | "store" | "ack" | "rewind" | "cut" | "connect"; readonly share: number }

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    do: fc.constant("push" as const),
    samples: fc.integer({ min: 1, max: 5 }),
    size: fc.integer({ min: 1, max: 40 }),
    skip: fc.constantFrom(0, 0, 0, 0, 3)
  }),
  fc.record({
    do: fc.constantFrom("send", "arrive", "store", "ack", "rewind", "cut", "connect"),
    share: fc.double({ min: 0, max: 1, noNaN: true })
  })
)

/** A server as far as its promises go: it may forget whatever it has not said to be durable. */
class Server {
  /** By index: the very frames. */
  readonly has = new Map<number, DeviceFrame>()
  /** Ends of frames it has, in order: where it may go back to. */
  received = 0
  durable = 0

  take(frame: DeviceFrame): void {
    const known = this.has.get(frame.index)
    // A repeat must be the same frame, whether it is still wanted or not.
    if (known !== undefined) assert.strictEqual(known, frame, `index ${frame.index} came with other bytes`)
    if (frame.index < this.received) return
    this.has.set(frame.index, frame)
    this.received = frame.next
  }

  /** Forgets from somewhere between durable and received. */
  forget(share: number): void {
    const ends = [this.durable, ...this.ends(this.durable)]
    this.received = ends[Math.floor(share * (ends.length - 1))]!
    for (const index of this.has.keys()) if (index >= this.received) this.has.delete(index)
  }

  store(share: number): void {
    const ends = [this.durable, ...this.ends(this.durable)]
    this.durable = ends[Math.floor(share * (ends.length - 1))]!
  }

  private ends(from: number): ReadonlyArray<number> {
    return Array.from(this.has.values(), ({ next }) => next).filter((next) => next > from && next <= this.received)
      .toSorted((a, b) => a - b)
  }
}

class Model {
  readonly retention: Retention
  readonly server = new Server()
  readonly window = 100
  readonly pushed: Array<DeviceFrame> = []
  readonly dropped = new Set<DeviceFrame>()
  /** All frames that ever left, by index: an index must never mean other samples. */
  readonly left = new Map<number, DeviceFrame>()
  wire: Array<DeviceFrame> = []
  isConnected = false
  last = -1

  constructor(bytesMax: number) {
    this.retention = new Retention(bytesMax, true)
  }

  run(step: Step): void {
    const { retention, server } = this
    switch (step.do) {
      case "push": {
        const made = frame(retention.next + step.skip, step.samples, step.size)
        this.pushed.push(made)
        for (const gone of retention.add(made)) this.dropped.add(gone)
        retention.release(made.next)
        assert.isAtMost(retention.bytes, retention.bytesMax)
        break
      }
      case "send":
        for (let i = 0; i < 1 + step.share * 10; i++) if (!this.send()) break
        break
      case "arrive":
        for (const arrived of this.wire.splice(0, Math.ceil(step.share * this.wire.length))) server.take(arrived)
        break
      case "store":
        server.store(step.share)
        break
      case "ack":
        if (this.isConnected) this.fine(retention.ack(server.received, server.durable, this.window))
        break
      case "rewind":
        if (!this.isConnected) break
        // Frames on their way arrive out of turn, and come again.
        server.forget(step.share)
        this.wire = []
        this.fine(retention.ack(server.received, server.durable, this.window))
        this.fine(retention.rewind(server.received))
        this.last = -1
        break
      case "cut":
        this.isConnected = false
        this.wire = []
        retention.disconnect()
        server.forget(step.share)
        break
      case "connect":
        this.isConnected = true
        this.wire = []
        this.last = -1
        this.fine(retention.welcome(server.received, this.window))
    }
  }

  send(): boolean {
    const next = this.retention.take()
    if (next === undefined) return false
    assert.isTrue(this.isConnected, "sent without a welcome")
    assert.isAbove(next.index, this.last, "sent out of order")
    this.last = next.index
    const known = this.left.get(next.index)
    if (known !== undefined) assert.strictEqual(known, next, `index ${next.index} was used twice`)
    this.left.set(next.index, next)
    this.wire.push(next)
    const flying = this.wire.reduce((sum, { bytes }) => sum + bytes.length, 0)
    assert.isTrue(flying <= this.window || this.wire.length === 1, "more than the window is on its way")
    return true
  }

  /** All troubles end: what was pushed must get there, or was said to be dropped. */
  finish(): void {
    this.run({ do: "connect", share: 1 })
    for (let i = 0; i < 10_000 && this.retention.durable < this.retention.next; i++) {
      for (const what of ["send", "arrive", "store", "ack"] as const) this.run({ do: what, share: 1 })
    }
    assert.strictEqual(this.retention.durable, this.retention.next)
    assert.strictEqual(this.retention.bytes, 0)
    assert.strictEqual(this.retention.samples, 0)
    for (const one of this.pushed) {
      assert.isTrue(this.server.has.get(one.index) === one || this.dropped.has(one), `${one.index} is missing, untold`)
    }
    const told = Array.from(this.dropped).reduce((sum, { index, next }) => sum + next - index, 0)
    assert.strictEqual(this.retention.dropped, told)
  }

  private fine(error: ThrumError | undefined): void {
    if (error !== undefined) throw error
  }
}

describe("Retention", () => {
  it("whatever is lost, cut, rewound and dropped: all arrives or is told, in order, no index twice (property)", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), fc.integer({ min: 40, max: 1000 }), (steps, bytesMax) => {
        const model = new Model(bytesMax)
        for (const step of steps) model.run(step)
        model.finish()
      }),
      { numRuns: 1000 }
    )
  })

  it("without room for more and told not to drop, it keeps all (property)", () => {
    fc.assert(fc.property(fc.array(fc.integer({ min: 1, max: 50 }), { maxLength: 50 }), (sizes) => {
      const retention = new Retention(100, false)
      for (const size of sizes) assert.isEmpty(retention.add(frame(retention.next, 1, size)))
      const total = sizes.reduce((sum, size) => sum + size, 0)
      assert.strictEqual(retention.bytes, total)
      assert.strictEqual(retention.hasRoom(1), total < 100)
    }))
  })

  it("a window that dropped frames fill stays filled until the server has them", () => {
    const retention = new Retention(100, true)
    retention.release(Infinity)
    retention.welcome(0, 100)
    for (const index of [0, 1]) retention.add(frame(index, 1, 50))
    assert.deepStrictEqual([retention.take()?.index, retention.take()?.index], [0, 1])
    retention.add(frame(2, 1, 50))
    assert.deepStrictEqual([retention.dropped, retention.take()], [1, undefined])
    retention.ack(1, 0, 100)
    assert.strictEqual(retention.take()?.index, 2)
  })

  it("a server that contradicts itself is told from one that has forgotten", () => {
    const retention = new Retention(1000, true)
    for (const index of [0, 10, 20]) retention.add(frame(index, 10, 10))
    retention.release(30)
    assert.isUndefined(retention.welcome(0, 100))
    for (let i = 0; i < 3; i++) retention.take()
    assert.isUndefined(retention.ack(30, 20, 100))
    assert.isUndefined(retention.rewind(20))
    for (
      const error of [
        retention.rewind(10),
        retention.welcome(0, 100),
        retention.welcome(31, 100),
        retention.rewind(25),
        retention.ack(20, 10, 100),
        retention.ack(31, 20, 100)
      ]
    ) assert.strictEqual(error?.name, "Contradiction")
  })
})
