/**
 * Content codings (RFC 9110, 12.5.3): which one an answer comes in, and its bytes.
 *
 * One compressor per answer, working in Node's thread pool: 0.6 MiB (gzip), 1.6 MiB (zstd) or 1.7 MiB (br) of memory
 * each, measured. One slice at a time goes in, and what came out goes on before the next, so nothing piles up. What was written is
 * on its way after at most {@link flushEveryMs}, however slowly the next slice comes.
 */
import { Effect, Stream } from "effect"
import { once } from "node:events"
import type { Transform } from "node:stream"
import {
  type BrotliCompress,
  constants,
  createBrotliCompress,
  createGzip,
  createZstdCompress,
  type Gzip
} from "node:zlib"

/** The codings there are, the favourite first. */
export const codings = ["zstd", "br", "gzip"] as const

/** A coding, as `Content-Encoding` names it. */
export type Coding = typeof codings[number]

/** Milliseconds of slices that a compressor may keep back. */
const flushEveryMs = 100

const preferencePattern = /^([!#$%&'*+.^_`|~0-9a-z-]+)(?:\s*;\s*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?$/

/**
 * The coding to answer in; undefined for none.
 *
 * @param acceptEncoding The header. Without it, or where it allows nothing there is, an answer is not coded.
 * @example
 * ```ts
 * codingFor("gzip;q=0.5, zstd") // "zstd"
 * ```
 */
export const codingFor = (acceptEncoding: string | undefined): Coding | undefined => {
  const qualities = new Map<string, number>()
  for (const text of (acceptEncoding ?? "").toLowerCase().split(",")) {
    const match = preferencePattern.exec(text.trim())
    if (match !== null) qualities.set(match[1] === "x-gzip" ? "gzip" : match[1]!, Number(match[2] ?? 1))
  }
  const rest = qualities.get("*") ?? 0
  // Whoever says that plain bytes are as good gets plain bytes.
  let most = qualities.get("identity") ?? 0
  let best: Coding | undefined
  for (const coding of codings) {
    const quality = qualities.get(coding) ?? rest
    if (quality <= most) continue
    most = quality
    best = coding
  }
  return best
}

/** A compressor and how it gives out what it has. */
interface Compressor {
  readonly transform: Transform & Pick<Gzip | BrotliCompress, "flush">
  readonly flushKind: number
}

const compressors: { readonly [K in Coding]: () => Compressor } = {
  // Levels at which text of numbers is written faster than a network takes it.
  zstd: () => ({
    transform: createZstdCompress({
      params: { [constants.ZSTD_c_compressionLevel]: 3, [constants.ZSTD_c_windowLog]: 19 }
    }),
    flushKind: constants.ZSTD_e_flush
  }),
  br: () => ({
    transform: createBrotliCompress({
      params: { [constants.BROTLI_PARAM_QUALITY]: 4, [constants.BROTLI_PARAM_LGWIN]: 19 }
    }),
    flushKind: constants.BROTLI_OPERATION_FLUSH
  }),
  gzip: () => ({ transform: createGzip({ level: 4 }), flushKind: constants.Z_SYNC_FLUSH })
}

/** The bytes in a coding. Fails as they do, without the end of the coding: what was cut cannot be decoded to its end. */
export const encoded = <E>(coding: Coding, bytes: Stream.Stream<Uint8Array, E>): Stream.Stream<Uint8Array, E> =>
  Stream.unwrap(
    Effect.gen(function*() {
      const { transform, flushKind } = yield* Effect.acquireRelease(
        Effect.sync(compressors[coding]),
        ({ transform }) => Effect.sync(() => transform.destroy())
      )
      let out: Array<Uint8Array> = []
      transform.on("data", (piece: Uint8Array) => out.push(piece))
      // A compressor fails by a mistake of ours alone: whoever waits for it dies of it.
      let failure: Error | undefined
      transform.on("error", (error) => {
        failure = error
      })
      const take = (): ReadonlyArray<Uint8Array> => {
        if (failure !== undefined) throw failure
        const pieces = out
        out = []
        return pieces
      }
      let flushed = Number.NEGATIVE_INFINITY

      const write = (slice: Uint8Array): Effect.Effect<ReadonlyArray<Uint8Array>> =>
        Effect.callback((resume) => {
          const done = (): void => resume(Effect.sync(take))
          transform.write(slice, () => {
            const now = performance.now()
            if (now - flushed < flushEveryMs || failure !== undefined) return done()
            flushed = now
            transform.flush(flushKind, done)
          })
        })
      const end = Effect.promise(async () => {
        transform.end()
        await once(transform, "end")
        return take()
      })
      return bytes.pipe(
        Stream.mapEffect(write),
        Stream.concat(Stream.fromEffect(end)),
        Stream.flattenIterable
      )
    })
  )
