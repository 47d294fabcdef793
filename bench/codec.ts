/**
 * The packed block on the recordings of `test/data`: bytes a sample against the measured sizes, and its speed here.
 *
 * `node bench/codec.ts`. A sample is one reading of three channels. Exits 1 when an integer recording in frames of 100
 * is more than 1 % off its measured size. Speeds are medians of one process on this machine, one block after another in
 * memory: no frame, no socket, no checksum.
 */
import { checkBlock, readBlock } from "../packages/protocol/src/Block.ts"
import { packCounts, packFloats, type PackOptions } from "../packages/protocol/src/BlockEncoder.ts"
import { type FrameError, isFrameError } from "../packages/protocol/src/FrameError.ts"
import { type MeasuredSize, measuredSizes, readRecording } from "../test/Recordings.ts"

const runs = 7
/** Samples each run handles at least, so that it is long beside the clock. */
const samplesPerRun = 50_000
const allowed = 0.01

const unwrap = <A>(result: A | FrameError): A => {
  if (isFrameError(result)) throw new Error(result.message)
  return result
}

const median = (values: ReadonlyArray<number>): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN

/** A recording cut into frames, and how one is packed. */
interface Frames {
  readonly frames: ReadonlyArray<Int32Array | Float32Array>
  readonly times: ReadonlyArray<ReadonlyArray<number>> | undefined
  readonly count: number
}

const cut = ({ recording, toCount }: MeasuredSize, size: number): Frames => {
  const { count, numbers, ticks } = readRecording(recording)
  const frames: Array<Int32Array | Float32Array> = []
  const times: Array<ReadonlyArray<number>> = []
  for (let i = 0; i < count; i += size) {
    const frame = numbers.subarray(i * 3, (i + size) * 3)
    frames.push(toCount === undefined ? Float32Array.from(frame) : Int32Array.from(frame, toCount))
    if (ticks !== undefined) times.push(Array.from(ticks.subarray(i, i + size), (t) => t - (ticks[i] ?? 0)))
  }
  return { frames, times: ticks === undefined ? undefined : times, count }
}

const pack = (frame: Int32Array | Float32Array, options: PackOptions = {}): Uint8Array =>
  unwrap(frame instanceof Int32Array ? packCounts(frame, 3, options) : packFloats(frame, 3, options))

const bytesOf = (blocks: ReadonlyArray<Uint8Array>): number => blocks.reduce((sum, block) => sum + block.length, 0)

/** Million samples a second of `work` on each of `items`, which hold `count` samples. */
const speedOf = <A>(items: ReadonlyArray<A>, count: number, work: (item: A) => unknown): number => {
  const rounds = Math.ceil(samplesPerRun / count)
  const speeds: Array<number> = []
  for (let run = 0; run < runs; run++) {
    const start = performance.now()
    for (let round = 0; round < rounds; round++) for (const item of items) work(item)
    speeds.push((count * rounds) / (performance.now() - start) / 1000)
  }
  return median(speeds)
}

const column = (text: string | number, width: number): string => String(text).padStart(width)
const print = (line: string): void => void process.stdout.write(`${line}\n`)

print(`${"bytes a sample".padEnd(26)}  F=25 measured  ratio   F=100 measured  ratio   times: F=25  F=100`)
let failed = false
for (const size of measuredSizes) {
  const cells = [25, 100].map((frameSize) => {
    const { count, frames, times } = cut(size, frameSize)
    const bytes = bytesOf(frames.map((frame) => pack(frame))) / count
    const timed = times && bytesOf(frames.map((frame, i) => pack(frame, { times: times[i] ?? [] }))) / count
    const measured = frameSize === 25 ? size.bytes25 : size.bytes100
    const off = Math.abs(bytes / measured - 1) > allowed
    if (off && frameSize === 100 && size.toCount !== undefined) failed = true
    return { bytes, measured, off, times: timed === undefined ? "" : `+${(timed - bytes).toFixed(2)}` }
  })
  const sizes = cells.map(({ bytes, measured, off }) =>
    `${column(bytes.toFixed(3), 6)} ${column(measured.toFixed(2), 8)} ${column((bytes / measured).toFixed(4), 6)}${
      off ? "!" : " "
    }`
  )
  print(`${size.name.padEnd(26)}${sizes.join("  ")}  ${cells.map(({ times }) => column(times, 9)).join(" ")}`)
}

print("")
print(`${"million samples/s, F=100".padEnd(26)} encode, all  encode, {0,4,13}  decode   check`)
for (const size of measuredSizes) {
  const { count, frames } = cut(size, 100)
  const blocks = frames.map((frame) => pack(frame))
  const speeds = [
    column(speedOf(frames, count, (frame) => pack(frame)).toFixed(2), 12),
    column(speedOf(frames, count, (frame) => pack(frame, { predictors: [0, 4, 13] })).toFixed(2), 17),
    column(speedOf(blocks, count, (block) => readBlock(block, 3)).toFixed(1), 8),
    column(speedOf(blocks, count, (block) => checkBlock(block, 3)).toFixed(1), 8)
  ]
  print(`${size.name.padEnd(26)}${speeds.join("")}`)
}

if (failed) {
  print("\nAn integer recording in frames of 100 is more than 1 % off its measured size")
  process.exitCode = 1
}
