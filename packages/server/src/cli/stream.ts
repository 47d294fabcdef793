/** `thrum stream`: plays a recording into a session and shows how far it is. */
import { usageError } from "./CommandError.ts"
import { type Play, playRecording, type Progress } from "./Player.ts"
import { bar, Picture } from "./Terminal.ts"
import { bytesText, grouped, secondsText } from "./TerminalPlot.ts"

/** Reads `--speed`. */
export const parseSpeed = (text: string): number | "max" => {
  const speed = text === "max" ? text : text.trim() === "" ? Number.NaN : Number(text)
  if (speed === "max" || (speed > 0 && Number.isFinite(speed))) return speed
  throw usageError(`Cannot use --speed "${text}": it is neither a number above 0 nor "max"`)
}

const perSample = ({ bytes, samples }: Progress): string => samples === 0 ? "–" : (bytes / samples).toFixed(2)

/** One line that says how far a recording is. */
export const progressLine = (progress: Progress): string => {
  const { durable, roundTrip, samples, seconds, share } = progress
  const part = share === undefined ? "" : `${bar(share, 24)} ${String(Math.floor(share * 100)).padStart(3)} %  `
  const rate = seconds > 0 ? `  ${grouped(samples / seconds)}/s` : ""
  const trip = roundTrip === undefined ? "" : `  ${roundTrip.toFixed(0)} ms`
  return `${part}${grouped(samples)} samples, ${grouped(durable)} durable${rate}  ${
    perSample(progress)
  } B/sample${trip}`
}

/** Runs the command. Links and the last line go to standard output, all else to standard error. */
export const stream = async (play: Play, signal: AbortSignal): Promise<void> => {
  const picture = new Picture(process.stderr)
  let data = ""
  let last: Progress | undefined
  try {
    const total = await playRecording(play, {
      onStart: ({ channels, key, rate, shared, unit }) => {
        data = shared.data
        const lines = [`watch  ${shared.self}`, `data   ${data}`]
        if (play.keepOpen === true && play.key === undefined) lines.push(`key    ${key}`)
        process.stdout.write(`${lines.join("\n")}\n`)
        picture.line(`Streaming ${channels.join(", ")} in ${unit} at ${rate} Hz`)
      },
      onNotice: (text) => picture.line(`thrum: ${text}`),
      onProgress: (progress) => {
        last = progress
        if (picture.isDue) picture.draw([progressLine(progress)])
      }
    }, signal)
    picture.end(false)
    process.stdout.write(
      `done   ${grouped(total.samples)} samples, ${perSample(total)} B/sample (${bytesText(total.bytes)}), ` +
        `${secondsText(total.seconds)}, ${play.keepOpen === true ? "durable, still open" : "sealed"}: ${data}\n`
    )
  } catch (error) {
    picture.end(false)
    if (last !== undefined) {
      picture.line(`thrum: Stopped with ${grouped(last.durable)} samples durable; the session stays open: ${data}`)
    }
    throw error
  }
}
