import {
  encodeError,
  encodeTime,
  encodeWelcome,
  isFrameError,
  kinds,
  readDeviceFrame,
  readServerFrame
} from "@thrum/protocol"
import { afterEach, assert, beforeEach, describe, it, vi } from "vitest"
import { ClockEstimate } from "./ClockEstimate.ts"
import { Connection } from "./Connection.ts"
import type { ThrumError } from "./ThrumError.ts"

/** A WebSocket without a network: a test opens it, hears what is sent and says what comes. */
class FakeSocket extends EventTarget {
  static readonly OPEN = 1
  static last: FakeSocket
  readyState = 0
  binaryType = ""
  readonly sent: Array<Uint8Array> = []
  closes = 0

  constructor() {
    super()
    FakeSocket.last = this
  }

  open(): void {
    this.readyState = 1
    this.dispatchEvent(new Event("open"))
  }

  say(bytes: Uint8Array | string): void {
    this.dispatchEvent(new MessageEvent("message", { data: typeof bytes === "string" ? bytes : bytes.slice().buffer }))
  }

  end(code: number): void {
    this.readyState = 3
    this.dispatchEvent(new CloseEvent("close", { code }))
  }

  send(bytes: Uint8Array): void {
    this.sent.push(bytes)
  }

  close(): void {
    this.closes++
    this.readyState = 3
  }
}

const start = () => {
  const lost: Array<ThrumError> = []
  const frames: Array<number> = []
  const clock = new ClockEstimate()
  const connection = new Connection({
    url: "ws://host/ingest",
    doing: "go on",
    heartbeat: 1000,
    clock,
    read: readServerFrame,
    onOpen: () => {},
    onFrame: ({ kind }) => {
      frames.push(kind)
      if (kind === kinds.welcome) connection.welcomed()
    },
    onLost: (why) => lost.push(why)
  })
  return { clock, connection, frames, lost, socket: FakeSocket.last }
}

const welcome = encodeWelcome({ epoch: 0, next: 0, window: 1000, server: 0, sure: true })

/** Answers every time frame that was not answered yet. */
const answer = (socket: FakeSocket, offset: number): void => {
  for (const bytes of socket.sent.splice(0)) {
    const frame = readDeviceFrame(bytes)
    if (!isFrameError(frame) && frame.kind === kinds.time) socket.say(encodeTime(frame.device, frame.device + offset))
  }
}

describe("Connection", () => {
  beforeEach(() => {
    vi.useFakeTimers()
    vi.stubGlobal("WebSocket", FakeSocket)
  })
  afterEach(() => {
    vi.useRealTimers()
    vi.unstubAllGlobals()
  })

  it("is lost when it is not welcomed in ten seconds, once, and closed", () => {
    const { lost, socket } = start()
    socket.open()
    vi.advanceTimersByTime(9999)
    assert.isEmpty(lost)
    vi.advanceTimersByTime(1)
    assert.deepStrictEqual(lost.map(({ code, name }) => [code, name]), [[1006, "ConnectionLost"]])
    socket.end(1006)
    socket.say(welcome)
    vi.advanceTimersByTime(100_000)
    assert.deepStrictEqual([lost.length, socket.closes], [1, 1])
  })

  it("asks for a sign of life every heartbeat, and is lost after four of silence", () => {
    const { lost, socket } = start()
    socket.open()
    socket.say(welcome)
    assert.strictEqual(socket.sent.length, 1)
    for (let i = 0; i < 20; i++) {
      answer(socket, 0)
      vi.advanceTimersByTime(1000)
    }
    assert.isEmpty(lost)
    answer(socket, 0)
    vi.advanceTimersByTime(4999)
    assert.isEmpty(lost)
    vi.advanceTimersByTime(1)
    assert.strictEqual(lost[0]?.code, 1006)
    assert.include(lost[0]?.message, "silent")
  })

  it("any frame is a sign of life", () => {
    const { lost, socket } = start()
    socket.open()
    socket.say(welcome)
    for (let i = 0; i < 20; i++) {
      vi.advanceTimersByTime(1000)
      socket.say(welcome)
    }
    assert.isEmpty(lost)
  })

  it("after a sleep of its own asks before it believes the silence", () => {
    const { lost, socket } = start()
    socket.open()
    socket.say(welcome)
    const now = performance.now()
    // A page that sleeps: no timer runs, and then the first does, late.
    const slept = vi.spyOn(performance, "now").mockImplementation(() => now + 3_600_000)
    vi.advanceTimersByTime(1000)
    slept.mockImplementation(() => now + 3_601_000)
    vi.advanceTimersByTime(1000)
    assert.isEmpty(lost)
    for (let i = 2; i < 6; i++) {
      slept.mockImplementation(() => now + 3_600_000 + i * 1000)
      vi.advanceTimersByTime(1000)
    }
    assert.strictEqual(lost.length, 1)
    slept.mockRestore()
  })

  it("answers to time frames tell the clock, and are not handed on", () => {
    const { clock, frames, socket } = start()
    assert.isUndefined(clock.offset)
    socket.open()
    socket.say(welcome)
    vi.advanceTimersByTime(40)
    answer(socket, 5_000_000)
    assert.deepStrictEqual(frames, [kinds.welcome])
    assert.approximately(clock.latency ?? 0, 40, 0.01)
    assert.approximately(clock.offset ?? 0, 5_000_000 - 20_000, 10)
  })

  it("an error frame gives the close its words, even when the close itself is lost", () => {
    for (const code of [4100, 1006]) {
      const { frames, lost, socket } = start()
      socket.open()
      socket.say(encodeError("Overloaded", "too many", 1500))
      socket.end(code)
      assert.deepStrictEqual(lost.map(({ code, name, retryAfter }) => ({ code, name, retryAfter })), [
        { code: 4100, name: "Overloaded", retryAfter: 1500 }
      ])
      assert.include(lost[0]?.message, "too many")
      assert.isEmpty(frames)
    }
  })

  it("what is no frame ends it for good", () => {
    for (const bytes of [Uint8Array.of(0xc1), "text"]) {
      const { lost, socket } = start()
      socket.open()
      socket.say(bytes)
      assert.deepStrictEqual(lost.map(({ code, name }) => [code, name]), [[0, "NotThrum"]])
    }
  })

  it("says nothing more once it is closed by its owner", () => {
    const { connection, frames, lost, socket } = start()
    socket.open()
    connection.close()
    connection.send(welcome)
    socket.say(welcome)
    socket.end(1000)
    vi.advanceTimersByTime(100_000)
    assert.deepStrictEqual([frames, lost, socket.sent], [[], [], []])
  })
})
