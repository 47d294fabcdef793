/**
 * Reads a `.thrum` recording: the viewer's stream of a session as bytes, from a download or a file.
 *
 * Holds the piece that came last and the beginning of one frame, at most 64 KiB.
 */
import { cutFrames, isFrameError, protocolLimits, readViewerFrame } from "@thrum/protocol"
import { Reading, type RecordingEvent } from "./Reading.ts"
import { ownError } from "./ThrumError.ts"

/** Where the bytes come from: a file, the body of an answer, a stream of any platform. */
export type RecordingSource = Uint8Array | AsyncIterable<Uint8Array> | ReadableStream<Uint8Array>

/**
 * Reads a recording.
 *
 * @returns What `watch` gives of the session: welcome, epochs, samples, gaps; `ended` last, only when the session was
 *   sealed. Without it the recording holds what was durable when it was made.
 * @throws ThrumError `NotThrum` when the bytes are no recording; `CutShort` when they end within a frame, or hold none.
 * @example
 * ```ts
 * import { getData, readRecording } from "@thrum/client"
 *
 * const answer = await getData("http://127.0.0.1:8080/sessions/3f0c2b1a-8d4e-4f6a-9b7c-5d1e2f3a4b5c", { format: "frames" })
 * for await (const event of readRecording(answer.body!)) {
 *   if (event.type === "samples") console.log(event.position, event.values)
 * }
 * ```
 */
export async function* readRecording(source: RecordingSource): AsyncGenerator<RecordingEvent, void, undefined> {
  const reading = new Reading("read the recording")
  let rest = new Uint8Array(0)
  let at = 0
  for await (const piece of piecesOf(source)) {
    const bytes = rest.length === 0 ? piece : joined(rest, piece)
    const cut = cutFrames(bytes, protocolLimits.messageBytesMax.value)
    if (isFrameError(cut)) throw ownError("NotThrum", `Cannot read the recording: ${cut.message}`)
    for (const bytes of cut.frames) {
      const frame = readViewerFrame(bytes)
      if (isFrameError(frame)) throw ownError("NotThrum", `Cannot read the recording at byte ${at}: ${frame.message}`)
      at += bytes.length
      const event = reading.take(frame, bytes.length)
      if (event?.type === "samples") event.open()
      if (event !== undefined) yield event
    }
    rest = cut.rest.slice()
  }
  if (rest.length > 0) {
    throw ownError("CutShort", `Cannot read all of the recording: it ends within the frame at byte ${at}`)
  }
  if (reading.session === undefined) throw ownError("CutShort", "Cannot read the recording: it is empty")
}

const joined = (a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> => {
  const both = new Uint8Array(a.length + b.length)
  both.set(a)
  both.set(b, a.length)
  return both
}

async function* piecesOf(source: RecordingSource): AsyncGenerator<Uint8Array, void, undefined> {
  if (source instanceof Uint8Array) return yield source
  // Not every browser iterates its streams.
  if (!("getReader" in source)) return yield* source
  const reader = source.getReader()
  try {
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) yield piece.value
  } finally {
    await reader.cancel()
  }
}
