import { Effect, Stream } from "effect"
import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from "node:zlib"
import { assert, describe, it } from "vitest"
import { codingFor, codings, encoded } from "./ContentCoding.ts"

const decoders = { zstd: zstdDecompressSync, br: brotliDecompressSync, gzip: gunzipSync }

describe("codingFor", () => {
  it.each([
    [undefined, undefined],
    ["", undefined],
    ["identity", undefined],
    ["gzip", "gzip"],
    ["GZIP", "gzip"],
    ["x-gzip", "gzip"],
    ["gzip, deflate, br, zstd", "zstd"],
    ["gzip, deflate, br", "br"],
    ["gzip;q=1.0, br;q=0.5, zstd;q=0.2", "gzip"],
    ["gzip; q=0.5 , br ; q=0.7", "br"],
    ["*", "zstd"],
    ["zstd;q=0, *", "br"],
    ["*;q=0", undefined],
    ["gzip;q=0", undefined],
    ["gzip;q=0.5, identity", undefined],
    ["gzip, identity;q=0.5", "gzip"],
    ["identity;q=0, gzip;q=0.1", "gzip"],
    ["deflate, compress", undefined],
    ["gzip;q=2", undefined],
    ["gzip;level=9", undefined]
  ])("%j: %s", (header, coding) => {
    assert.strictEqual(codingFor(header), coding)
  })
})

const slice = (text: string): Uint8Array => new TextEncoder().encode(text)

describe("encoded", () => {
  it.each(codings)("%s holds back nothing for longer than a moment, however slowly slices come", async (coding) => {
    const seen: Array<number> = []
    let written = 0
    const slow = Stream.range(0, 4).pipe(
      Stream.mapEffect((i) =>
        Effect.as(Effect.sleep("120 millis"), slice(`line ${i}\n`)).pipe(Effect.tap(() => Effect.sync(() => written++)))
      )
    )
    const pieces = await Effect.runPromise(
      encoded(coding, slow).pipe(
        Stream.tap(() => Effect.sync(() => seen.push(written))),
        Stream.runCollect
      )
    )
    assert.includeMembers(seen, [1, 2, 3, 4, 5])
    const text = decoders[coding](Buffer.concat(pieces)).toString()
    assert.strictEqual(text, "line 0\nline 1\nline 2\nline 3\nline 4\n")
  })

  it.each(codings)("%s fails with what it codes, and does not end", async (coding) => {
    const failing = Stream.make(slice("begun")).pipe(Stream.concat(Stream.fail("cut")))
    const pieces: Array<Uint8Array> = []
    const failure = await Effect.runPromise(
      encoded(coding, failing).pipe(
        Stream.tap((piece) => Effect.sync(() => pieces.push(piece))),
        Stream.runDrain,
        Effect.flip
      )
    )
    assert.strictEqual(failure, "cut")
    assert.throws(() => decoders[coding](Buffer.concat(pieces)))
  })

  it.each(codings)("%s of nothing is the coding of nothing", async (coding) => {
    const pieces = await Effect.runPromise(Stream.runCollect(encoded(coding, Stream.empty)))
    assert.strictEqual(decoders[coding](Buffer.concat(pieces)).length, 0)
  })
})
