/**
 * The recordings of `test/data`: their texts, and the integers the packed block's sizes were measured on.
 *
 * A sample is one reading of three channels.
 */
import { readFileSync } from "node:fs"

/** One CSV file. */
export interface Recording {
  readonly name: string
  /** Samples. */
  readonly count: number
  /** `x,y,z` of sample after sample, as the file has them. */
  readonly texts: ReadonlyArray<string>
  /** The same as numbers. */
  readonly numbers: Float64Array
  /** Whether all are counts. */
  readonly counts: boolean
  /** Time column in whole ticks (ms or µs, by its name) from the first sample on; undefined when there is none. */
  readonly ticks: Float64Array | undefined
}

export const recordingNames: ReadonlyArray<string> = [
  "phone_bmi160_walk_a",
  "phone_bmi160_walk_b",
  "wrist_axivity_ax3",
  "wrist_axivity_ax6",
  "wrist_geneactiv",
  "seismic_openeew_a",
  "seismic_openeew_b",
  "vib_endaq_832m1_5k",
  "vib_endaq_adxl345_3k",
  "vib_endaq_adxl357_4k",
  "imu_xio_float"
]

/** Reads one of {@link recordingNames}. */
export const readRecording = (name: string): Recording => {
  const csv = readFileSync(new URL(`data/${name}.csv`, import.meta.url), "utf8")
  const [header = "", ...lines] = csv.trimEnd().split("\n")
  const rows = lines.map((line) => line.split(","))
  const timeColumn = header.split(",")[0] ?? ""
  const timed = timeColumn.startsWith("t_")
  const texts = rows.flatMap((row) => timed ? row.slice(1) : row)
  const ticksPerUnit = timeColumn === "t_s" ? 1e6 : 1
  return {
    name,
    count: rows.length,
    texts,
    numbers: Float64Array.from(texts, Number),
    counts: texts.every((text) => /^-?\d+$/.test(text)),
    ticks: timed ? Float64Array.from(rows, (row) => Math.round(Number(row[0]) * ticksPerUnit)) : undefined
  }
}

/** A row of the table of measured sizes: bytes a sample in frames of 25 and of 100 samples. */
export interface MeasuredSize {
  readonly name: string
  readonly recording: string
  /** Turns the numbers of the recording into what was packed; without it they are packed as float32. */
  readonly toCount?: (v: number) => number
  readonly bytes25: number
  readonly bytes100: number
}

const same = (v: number): number => v
// The phone's floats are whole 65536ths; the seismometer's decimals stand for 0.0037718 gal a count.
const phone = (v: number): number => Math.fround(v) * 65_536
const thousandths = (v: number): number => Math.round(v * 1000)
const seismometer = (v: number): number => Math.round(v / 0.0037718)

/** What was measured when the layout was chosen, by an encoder with all predictors: the reference for this one. */
export const measuredSizes: ReadonlyArray<MeasuredSize> = [
  { name: "phone_bmi160_walk_a", recording: "phone_bmi160_walk_a", toCount: phone, bytes25: 6.75, bytes100: 6.58 },
  { name: "phone_bmi160_walk_b", recording: "phone_bmi160_walk_b", toCount: phone, bytes25: 6.70, bytes100: 6.52 },
  { name: "wrist_axivity_ax3", recording: "wrist_axivity_ax3", toCount: same, bytes25: 1.04, bytes100: 0.84 },
  { name: "wrist_axivity_ax6", recording: "wrist_axivity_ax6", toCount: same, bytes25: 2.93, bytes100: 2.74 },
  { name: "wrist_geneactiv", recording: "wrist_geneactiv", toCount: same, bytes25: 2.19, bytes100: 2.04 },
  { name: "seismic_openeew_a", recording: "seismic_openeew_a", toCount: thousandths, bytes25: 3.15, bytes100: 2.98 },
  { name: "seismic_openeew_b", recording: "seismic_openeew_b", toCount: thousandths, bytes25: 3.19, bytes100: 2.99 },
  {
    name: "seismic_openeew_a_counts",
    recording: "seismic_openeew_a",
    toCount: seismometer,
    bytes25: 2.42,
    bytes100: 2.25
  },
  {
    name: "seismic_openeew_b_counts",
    recording: "seismic_openeew_b",
    toCount: seismometer,
    bytes25: 2.46,
    bytes100: 2.26
  },
  { name: "vib_endaq_832m1_5k", recording: "vib_endaq_832m1_5k", toCount: same, bytes25: 2.47, bytes100: 1.95 },
  { name: "vib_endaq_adxl345_3k", recording: "vib_endaq_adxl345_3k", toCount: same, bytes25: 1.83, bytes100: 1.52 },
  { name: "vib_endaq_adxl357_4k", recording: "vib_endaq_adxl357_4k", toCount: same, bytes25: 3.14, bytes100: 2.82 },
  { name: "imu_xio_float", recording: "imu_xio_float", bytes25: 9.35, bytes100: 9.10 }
]
