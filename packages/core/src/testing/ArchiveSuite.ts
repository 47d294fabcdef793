/**
 * What every {@link Archive} must do, as tests. An archive made elsewhere passes when `archiveSuite` does.
 *
 * Each test makes sessions of its own, so the archive need not be empty and the tests may share it.
 */
import { assert, layer } from "@effect/vitest"
import { type Description, type Position, startPosition } from "@thrum/protocol"
import { Effect, Exit, Fiber, type Layer, Schema } from "effect"
import { type Append, Archive, type Chunk } from "../Archive.ts"
import type { SessionId } from "../Session.ts"
import { chunkOf, type MadeSession, makeFrames, sessionOf } from "./Recording.ts"

/** 2026-01-01 in µs. */
const wall = 1_767_225_600_000_000

const newSession = (description?: Description): MadeSession => {
  const session = { ...sessionOf(0), id: crypto.randomUUID() }
  return description === undefined ? session : { ...session, description }
}

/** A session with one open epoch. */
const begin = Effect.gen(function*() {
  const archive = yield* Archive
  const { id } = yield* Effect.tap(Effect.sync(newSession), archive.create)
  yield* archive.openEpoch(id, "boot-0")
  return { archive, id }
})

/** Adds chunks as they are, after `expected`. */
const appendOf = (id: SessionId, chunks: ReadonlyArray<Chunk>, expected = chunks[0]?.first ?? 0): Append => {
  const [first, last] = [chunks[0], chunks.at(-1)]
  return {
    sessionId: id,
    epoch: first?.epoch ?? 0,
    expected,
    next: last?.next ?? expected,
    t0: (first?.first ?? 0) * 10_000,
    wall: wall + (first?.first ?? 0) * 10_000,
    index: first?.first ?? 0,
    chunks
  }
}

/** Reads to the end, page after page, as a viewer does. */
const readAll = Effect.fnUntraced(function*(id: SessionId, bytesMax: number, from: Position = startPosition) {
  const archive = yield* Archive
  const chunks: Array<Chunk> = []
  let at = from
  // Each page moves on, so the number of pages is bounded by the chunks there are.
  while (true) {
    const page = yield* archive.read(id, at, bytesMax)
    const last = page.at(-1)
    if (last === undefined) return chunks
    const bytes = page.reduce((sum, chunk) => sum + chunk.bytes.length, 0)
    assert.isTrue(page.length === 1 || bytes <= bytesMax, `a page of ${page.length} chunks holds ${bytes} bytes`)
    chunks.push(...page)
    at = { epoch: last.epoch, index: last.next }
  }
})

/** Chunks as plain values: which class of bytes an archive gives is its own affair. */
const plain = (chunks: ReadonlyArray<Chunk>) =>
  chunks.map(({ epoch, first, next, bytes }) => ({ epoch, first, next, bytes: Array.from(bytes) }))

const assertChunks = (actual: ReadonlyArray<Chunk>, expected: ReadonlyArray<Chunk>) =>
  assert.deepStrictEqual(plain(actual), plain(expected))

const tagOf = <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => error._tag)

/**
 * Holds an archive to its contract.
 *
 * @example
 * ```ts
 * import { Archive } from "@thrum/core"
 * import { archiveSuite } from "@thrum/core/testing"
 * archiveSuite("MemoryArchive", Archive.layerMemory)
 * ```
 */
export const archiveSuite = <E>(name: string, archive: Layer.Layer<Archive, E>): void =>
  layer(archive, { excludeTestServices: true })(name, (it) => {
    it.effect("create() keeps a session, and session() gives it back exactly", () =>
      Effect.gen(function*() {
        const archive = yield* Archive
        const descriptions: ReadonlyArray<Description> = [
          {
            channels: [
              { name: "x", unit: "m/s²", scale: 0.0037718, offset: -9.80665 },
              { name: "θ", unit: "°", scale: 1e-7, offset: 5e-324 },
              { name: "t", unit: "°C", scale: -1 / 3, offset: 1.7976931348623157e308 }
            ],
            rate: 31.25,
            tick: 1,
            name: "Handgelenk \u0000 \"links\" 🫀 \\ \n \ud800",
            sensor: "LIS3DH",
            gravity: false
          },
          { channels: [{ name: "count", unit: "count", scale: 1, offset: 0 }], rate: 5000, tick: 1000 / 3 }
        ]
        for (const description of descriptions) {
          const session = newSession(description)
          yield* archive.create(session)
          const record = yield* archive.session(session.id)
          assert.deepStrictEqual({ ...record, keyHash: Array.from(record.keyHash) }, {
            ...session,
            keyHash: Array.from(session.keyHash),
            state: "live",
            endedAt: undefined,
            epochs: []
          })
          // The order of the keys too: the welcome of a recording is part of its bytes.
          assert.strictEqual(JSON.stringify(record.description), JSON.stringify(description))
        }
      }))

    it.effect("create() again, as after a lost answer, changes nothing; another session under the id is a defect", () =>
      Effect.gen(function*() {
        const archive = yield* Archive
        const session = newSession()
        yield* archive.create(session)
        yield* archive.openEpoch(session.id, "boot-0")
        yield* archive.create(session)
        assert.strictEqual((yield* archive.session(session.id)).epochs.length, 1)
        const taken = yield* Effect.exit(archive.create({ ...session, keyHash: new Uint8Array(32) }))
        assert.isTrue(Exit.isFailure(taken) && Exit.hasDies(taken))
      }))

    it.effect("what is not there is SessionNotFound, has no chunks and no gaps, and takes nothing", () =>
      Effect.gen(function*() {
        const archive = yield* Archive
        const { id } = newSession()
        assert.strictEqual(yield* tagOf(archive.session(id)), "SessionNotFound")
        assert.strictEqual(yield* tagOf(archive.openEpoch(id, "boot-0")), "SessionNotFound")
        assert.strictEqual(yield* tagOf(archive.seal(id, 1)), "SessionNotFound")
        assert.deepStrictEqual(yield* archive.read(id, startPosition, 1000), [])
        assert.deepStrictEqual(yield* archive.gaps(id, 0), [])

        // A session that is gone is no reason to refuse the others of a group.
        const kept = yield* begin
        const frames = makeFrames(1)
        const met = yield* archive.append([appendOf(id, frames), appendOf(kept.id, frames)])
        assert.deepStrictEqual(met, [{ durable: 0, sealed: true }, { durable: 10, sealed: false }])
        assert.deepStrictEqual(yield* archive.append([]), [])
      }))

    it.effect("openEpoch() numbers boot ids from 0, knows the current one again and fences older ones", () =>
      Effect.gen(function*() {
        const { archive, id } = yield* begin
        const [frame] = makeFrames(1)
        yield* archive.append([appendOf(id, [frame!])])
        const again = yield* archive.openEpoch(id, "boot-0")
        assert.deepStrictEqual(again, {
          epoch: 0,
          bootId: "boot-0",
          t0: 0,
          wall,
          index: 0,
          durable: 10,
          samples: 10,
          bytes: frame!.bytes.length
        })
        const next = yield* archive.openEpoch(id, "boot-1")
        assert.deepStrictEqual(next, {
          epoch: 1,
          bootId: "boot-1",
          t0: undefined,
          wall: undefined,
          index: undefined,
          durable: 0,
          samples: 0,
          bytes: 0
        })
        const stale = yield* Effect.flip(archive.openEpoch(id, "boot-0"))
        assert.deepInclude(stale, { _tag: "StaleEpoch", id, epoch: 0 })
        assert.deepStrictEqual((yield* archive.session(id)).epochs, [again, next])

        // Frames that were under way when the device was powered up anew are still kept.
        const late = makeFrames(1, { from: 10 })
        assert.deepStrictEqual(yield* archive.append([appendOf(id, late)]), [{ durable: 20, sealed: false }])

        yield* archive.seal(id, 1)
        for (const bootId of ["boot-0", "boot-1", "boot-2"]) {
          assert.strictEqual(yield* tagOf(archive.openEpoch(id, bootId)), "SessionEnded")
        }
      }))

    it.effect("openEpoch() by many at once leaves no number out and gives none twice", () =>
      Effect.gen(function*() {
        const { archive, id } = yield* begin
        const same = yield* Effect.all(Array.from({ length: 8 }, () => archive.openEpoch(id, "boot-1")), {
          concurrency: "unbounded"
        })
        assert.deepStrictEqual(same.map((opened) => opened.epoch), Array.from({ length: 8 }, () => 1))
        const all = yield* Effect.all(Array.from({ length: 8 }, (_, i) => archive.openEpoch(id, `device-${i}`)), {
          concurrency: "unbounded"
        })
        assert.deepStrictEqual(all.map(({ epoch }) => epoch).toSorted((a, b) => a - b), [2, 3, 4, 5, 6, 7, 8, 9])
        const kept = (yield* archive.session(id)).epochs
        assert.deepStrictEqual(kept.map(({ epoch }) => epoch), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
        for (const { epoch, bootId } of all) assert.strictEqual(kept[epoch]?.bootId, bootId)
      }))

    it.effect("openEpoch() racing with seal() opens nothing after it", () =>
      Effect.gen(function*() {
        for (let round = 0; round < 20; round++) {
          const { archive, id } = yield* begin
          const opening = yield* Effect.forkChild(
            Effect.exit(Effect.all([1, 2, 3, 4].map((n) => archive.openEpoch(id, `boot-${n}`)), { mode: "result" })),
            { startImmediately: true }
          )
          const sealed = yield* archive.seal(id, 1)
          yield* Fiber.join(opening)
          assert.deepStrictEqual((yield* archive.session(id)).epochs, sealed.epochs)
        }
      }))

    it.effect("append() is exactly once: the same again answers the same and is stored once", () =>
      Effect.gen(function*() {
        const { archive, id } = yield* begin
        const first = appendOf(id, [chunkOf(makeFrames(3)), chunkOf(makeFrames(2, { from: 30 }))])
        const once = yield* archive.append([first])
        assert.deepStrictEqual(once, [{ durable: 50, sealed: false }])
        assert.deepStrictEqual(yield* archive.append([first]), once)
        assertChunks(yield* readAll(id, 1e6), first.chunks)
        const [epoch] = (yield* archive.session(id)).epochs
        const bytes = first.chunks.reduce((sum, chunk) => sum + chunk.bytes.length, 0)
        assert.deepInclude(epoch, { durable: 50, samples: 50, bytes })
      }))

    it.effect("append() tried by many at once is added by one, and all learn the same", () =>
      Effect.gen(function*() {
        const { archive, id } = yield* begin
        const append = appendOf(id, makeFrames(3))
        const met = yield* Effect.all(Array.from({ length: 12 }, () => archive.append([append])), {
          concurrency: "unbounded"
        })
        assert.deepStrictEqual(met, Array.from({ length: 12 }, () => [{ durable: 30, sealed: false }]))
        assertChunks(yield* readAll(id, 1e6), append.chunks)
      }))

    it.effect("append() that expects another watermark adds nothing and answers the one there is", () =>
      Effect.gen(function*() {
        const { archive, id } = yield* begin
        yield* archive.append([appendOf(id, makeFrames(2))])
        const before = yield* archive.session(id)
        for (const expected of [0, 10, 19, 21, 1000]) {
          const met = yield* archive.append([appendOf(id, makeFrames(1, { from: expected }), expected)])
          assert.deepStrictEqual(met, [{ durable: 20, sealed: false }], `expected ${expected}`)
        }
        assert.deepStrictEqual(yield* archive.session(id), before)
        assertChunks(yield* readAll(id, 1e6), makeFrames(2))
      }))

    it.effect("append() of a group answers for each in its order, whatever becomes of the others", () =>
      Effect.gen(function*() {
        const { archive, id: a } = yield* begin
        const { id: b } = yield* begin
        const { id: sealed } = yield* begin
        yield* archive.openEpoch(b, "boot-1")
        yield* archive.append([appendOf(sealed, makeFrames(1))])
        yield* archive.seal(sealed, 1)
        const late = makeFrames(2, { from: 7 })
        const met = yield* archive.append([
          appendOf(b, makeFrames(3, { epoch: 1 })),
          appendOf(sealed, makeFrames(1, { from: 10 })),
          appendOf(a, late, 7),
          appendOf(b, makeFrames(1)),
          appendOf(b, makeFrames(1, { epoch: 2 }))
        ])
        assert.deepStrictEqual(met, [
          { durable: 30, sealed: false },
          { durable: 10, sealed: true },
          { durable: 0, sealed: false },
          { durable: 10, sealed: false },
          { durable: 0, sealed: true }
        ])
        assertChunks(yield* readAll(a, 1e6), [])
        assertChunks(yield* readAll(b, 1e6), [...makeFrames(1), ...makeFrames(3, { epoch: 1 })])
        assertChunks(yield* readAll(sealed, 1e6), makeFrames(1))
      }))

    it.effect("append() of a group that holds an epoch twice, against the rule, adds one and says so of one", () =>
      Effect.gen(function*() {
        const { archive, id } = yield* begin
        const tries = [makeFrames(1), makeFrames(2, { count: 20 }), makeFrames(3)]
        const met = yield* archive.append(tries.map((frames) => appendOf(id, frames)))
        const added = tries.filter((frames, i) => met[i]?.durable === frames.at(-1)?.next)
        assert.strictEqual(added.length, 1)
        assertChunks(yield* readAll(id, 1e6), added.flat())
      }))

    it.effect("append() keeps gaps before, between and after chunks, and gaps() tells them", () =>
      Effect.gen(function*() {
        const { archive, id } = yield* begin
        assert.deepStrictEqual(yield* archive.gaps(id, 0), [])

        // Passing over a gap is all this one does: there is no first frame yet.
        yield* archive.append([{ ...appendOf(id, []), next: 40 }])
        assert.deepStrictEqual((yield* archive.session(id)).epochs[0], {
          epoch: 0,
          bootId: "boot-0",
          t0: undefined,
          wall: undefined,
          index: undefined,
          durable: 40,
          samples: 0,
          bytes: 0
        })
        assert.deepStrictEqual(yield* archive.gaps(id, 0), [{ from: 0, to: 40 }])

        const chunks = [...makeFrames(1, { from: 100 }), ...makeFrames(2, { from: 150 })]
        yield* archive.append([appendOf(id, chunks, 40)])
        yield* archive.append([appendOf(id, makeFrames(1, { from: 170 }))])
        yield* archive.append([{ ...appendOf(id, [], 180), next: 200 }])
        const [epoch] = (yield* archive.session(id)).epochs
        const bytes = [...chunks, ...makeFrames(1, { from: 170 })].reduce((sum, chunk) => sum + chunk.bytes.length, 0)
        assert.deepStrictEqual(epoch, {
          epoch: 0,
          bootId: "boot-0",
          t0: 1_000_000,
          wall: wall + 1_000_000,
          index: 100,
          durable: 200,
          samples: 40,
          bytes
        })
        assert.deepStrictEqual(yield* archive.gaps(id, 0), [
          { from: 0, to: 100 },
          { from: 110, to: 150 },
          { from: 180, to: 200 }
        ])
        assert.deepStrictEqual(yield* archive.gaps(id, 1), [])
      }))

    it.effect("the start of an epoch is its first frame's and stays, with or without a device clock", () =>
      Effect.gen(function*() {
        const { archive, id } = yield* begin
        yield* archive.openEpoch(id, "boot-1")
        const [clockless] = makeFrames(1)
        yield* archive.append([
          { ...appendOf(id, [clockless!]), t0: undefined },
          appendOf(id, makeFrames(1, { epoch: 1 }))
        ])
        yield* archive.append([
          appendOf(id, makeFrames(1, { from: 10 })),
          appendOf(id, makeFrames(1, { epoch: 1, from: 10 }))
        ])
        const { epochs } = yield* archive.session(id)
        assert.deepInclude(epochs[0], { t0: undefined, wall, index: 0 })
        assert.deepInclude(epochs[1], { t0: 0, wall, index: 0 })
      }))

    it.effect("indexes, times and bytes of any size come back as they went in", () =>
      Effect.gen(function*() {
        const { archive, id } = yield* begin
        const high = Number.MAX_SAFE_INTEGER
        const everyByte = Uint8Array.from({ length: 256 }, (_, i) => i)
        // A view into a larger buffer must not bring its neighbours along.
        const view = new Uint8Array(70_000).fill(7).subarray(1000, 66_536).fill(9)
        const chunks: ReadonlyArray<Chunk> = [
          { epoch: 0, first: 2 ** 31 - 5, next: 2 ** 31 + 5, bytes: everyByte },
          { epoch: 0, first: 2 ** 32 + 1, next: 2 ** 32 + 2, bytes: view },
          { epoch: 0, first: high - 2, next: high - 1, bytes: new Uint8Array(300_000).fill(3) }
        ]
        yield* archive.append([{ ...appendOf(id, chunks, 0), next: high, t0: high, wall: high }])
        assertChunks(yield* readAll(id, 1e6), chunks)
        assertChunks(yield* archive.read(id, { epoch: 0, index: 2 ** 32 }, 10), chunks.slice(1, 2))
        assertChunks(yield* archive.read(id, { epoch: 0, index: high - 2 }, 10), chunks.slice(2))
        assertChunks(yield* archive.read(id, { epoch: 0, index: high }, 10), [])
        assert.deepInclude((yield* archive.session(id)).epochs[0], { t0: high, wall: high, durable: high, samples: 12 })
        assert.deepStrictEqual((yield* archive.gaps(id, 0)).at(-1), { from: high - 1, to: high })
        // Small numbers after large ones, on the same connection.
        const { id: small } = yield* begin
        yield* archive.append([appendOf(small, makeFrames(1))])
        assertChunks(yield* readAll(small, 1e6), makeFrames(1))
      }))

    it.effect("seal() ends for good, answers the whole, and twice is the same as once", () =>
      Effect.gen(function*() {
        const { archive, id } = yield* begin
        yield* archive.openEpoch(id, "boot-1")
        yield* archive.append([appendOf(id, makeFrames(2))])
        const sealed = yield* archive.seal(id, 1_767_225_600_123)
        assert.deepInclude(sealed, { id, state: "ended", endedAt: 1_767_225_600_123 })
        assert.deepStrictEqual(sealed.epochs.map((epoch) => epoch.durable), [20, 0])
        assert.deepStrictEqual(yield* archive.seal(id, 1_767_225_600_999), sealed)
        assert.deepStrictEqual(yield* archive.session(id), sealed)

        const met = yield* archive.append([
          appendOf(id, makeFrames(1, { from: 20 })),
          appendOf(id, makeFrames(1, { epoch: 1 }))
        ])
        assert.deepStrictEqual(met, [{ durable: 20, sealed: true }, { durable: 0, sealed: true }])
        assert.deepStrictEqual(yield* archive.append([{ ...appendOf(id, [], 20), next: 30 }]), [
          { durable: 20, sealed: true }
        ])
        // Tried again after its answer was lost and the session was sealed: `durable` says that it was added.
        assert.deepStrictEqual((yield* archive.append([appendOf(id, makeFrames(2))]))[0]?.durable, 20)
        assert.deepStrictEqual(yield* archive.session(id), sealed)
        assertChunks(yield* readAll(id, 1e6), makeFrames(2))

        const empty = newSession()
        yield* archive.create(empty)
        assert.deepInclude(yield* archive.seal(empty.id, 5), { state: "ended", endedAt: 5, epochs: [] })
      }))

    it.effect("append() racing with seal(): what was acknowledged is in it, and nothing comes after it", () =>
      Effect.gen(function*() {
        let within = 0
        for (let round = 0; round < 200; round++) {
          const { archive, id } = yield* begin
          const frames = makeFrames(30, { count: 1 })
          const writing = yield* Effect.forkChild(
            Effect.gen(function*() {
              for (const [i, frame] of frames.entries()) {
                const [met] = yield* archive.append([appendOf(id, [frame])])
                if (met!.sealed) return i
                yield* Effect.yieldNow
              }
              return frames.length
            }),
            { startImmediately: true }
          )
          for (let turn = 0; turn < round % 8; turn++) yield* Effect.promise(() => new Promise(setImmediate))
          const sealed = yield* archive.seal(id, 1)
          const then = yield* readAll(id, 1e6)
          const acknowledged = yield* Fiber.join(writing)
          assertChunks(then, frames.slice(0, acknowledged))
          assertChunks(yield* readAll(id, 1e6), then)
          assert.deepInclude(sealed.epochs[0], { durable: acknowledged, samples: acknowledged })
          assert.deepStrictEqual(yield* archive.session(id), sealed)
          if (acknowledged > 0 && acknowledged < frames.length) within++
        }
        assert.isAbove(within, 0, "no round was sealed between two appends")
      }))

    it.effect("read() starts at the chunk that holds a position, or the next one, in this epoch or a later one", () =>
      Effect.gen(function*() {
        const { archive, id } = yield* begin
        for (const epoch of [1, 2, 3]) yield* archive.openEpoch(id, `boot-${epoch}`)
        // Epoch 1 stays empty; epoch 0 and 2 have gaps, epoch 3 begins with one.
        const epoch0 = [chunkOf(makeFrames(2)), chunkOf(makeFrames(2, { from: 20 })), ...makeFrames(1, { from: 60 })]
        const epoch2 = [...makeFrames(1, { epoch: 2 }), ...makeFrames(1, { epoch: 2, from: 30 })]
        const epoch3 = makeFrames(1, { epoch: 3, from: 5 })
        yield* archive.append([appendOf(id, epoch0), appendOf(id, epoch2), appendOf(id, epoch3, 0)])
        const all = [...epoch0, ...epoch2, ...epoch3]

        for (let epoch = 0; epoch <= 4; epoch++) {
          for (let index = 0; index <= 75; index++) {
            const rest = all.filter((chunk) => chunk.epoch > epoch || (chunk.epoch === epoch && chunk.next > index))
            assertChunks(yield* archive.read(id, { epoch, index }, 1e6), rest)
            // However small the page: one chunk.
            assertChunks(yield* archive.read(id, { epoch, index }, 0), rest.slice(0, 1))
          }
        }
        const [size0, size1] = [all[0]!.bytes.length, all[1]!.bytes.length]
        assertChunks(yield* archive.read(id, startPosition, size0 + size1), all.slice(0, 2))
        assertChunks(yield* archive.read(id, startPosition, size0 + size1 - 1), all.slice(0, 1))
        for (const bytesMax of [0, 100, 150, 200, 400]) assertChunks(yield* readAll(id, bytesMax), all)
      }))

    it.effect("read() gives a long recording page by page, whole and in order", () =>
      Effect.gen(function*() {
        const { archive, id } = yield* begin
        const frames = makeFrames(1500, { count: 2 })
        for (let from = 0; from < frames.length; from += 250) {
          yield* archive.append([appendOf(id, frames.slice(from, from + 250))])
        }
        for (const bytesMax of [1e9, 7000]) assertChunks(yield* readAll(id, bytesMax), frames)
        const { id: other } = yield* begin
        assert.deepStrictEqual(yield* archive.read(other, startPosition, 1e9), [])
      }))

    const Step = Schema.Union([
      Schema.Struct({ do: Schema.Literal("open") }),
      Schema.Struct({ do: Schema.Literals(["again", "stale"]) }),
      Schema.Struct({
        do: Schema.Literal("add"),
        /** How many epochs back from the current one. */
        back: Schema.Literals([0, 0, 0, 1]),
        /** Gap before each chunk, and its frames. */
        chunks: Schema.Array(Schema.Tuple([Schema.Literals([0, 0, 1, 50]), Schema.Literals([1, 2, 3])])).check(
          Schema.isMaxLength(4)
        ),
        end: Schema.Literals([0, 0, 3])
      })
    ])

    it.effect.prop(
      "any sequence of appends reads back as a simple model says",
      { steps: Schema.Array(Step).check(Schema.isMaxLength(12)), bytesMax: Schema.Literals([0, 120, 300, 1e6]) },
      ({ steps, bytesMax }) =>
        Effect.gen(function*() {
          const { archive, id } = yield* begin
          const model: Array<{ durable: number; readonly chunks: Array<Chunk>; last: Append | undefined }> = [
            { durable: 0, chunks: [], last: undefined }
          ]
          for (const step of steps) {
            const current = model.length - 1
            if (step.do === "open") {
              assert.strictEqual((yield* archive.openEpoch(id, `boot-${model.length}`)).epoch, model.length)
              model.push({ durable: 0, chunks: [], last: undefined })
              continue
            }
            const epoch = step.do === "add" ? Math.max(0, current - step.back) : current
            const kept = model[epoch]!
            if (step.do === "add") {
              let next = kept.durable
              const chunks = step.chunks.map(([gap, frames]) => {
                const chunk = chunkOf(makeFrames(frames, { epoch, from: next + gap, count: 3 }))
                next = chunk.next
                return chunk
              })
              next += step.end
              const append = { ...appendOf(id, chunks, kept.durable), epoch, next }
              assert.deepStrictEqual(yield* archive.append([append]), [{ durable: next, sealed: false }])
              kept.chunks.push(...chunks)
              kept.durable = next
              kept.last = append
            } else if (kept.last !== undefined) {
              const stale = { ...kept.last, expected: kept.durable + 1, next: kept.durable + 4 }
              const met = yield* archive.append([step.do === "again" ? kept.last : stale])
              assert.deepStrictEqual(met, [{ durable: kept.durable, sealed: false }])
            }
          }
          assertChunks(yield* readAll(id, bytesMax), model.flatMap((kept) => kept.chunks))
          const { epochs } = yield* archive.session(id)
          for (const [epoch, { chunks, durable }] of model.entries()) {
            const samples = chunks.reduce((sum, chunk) => sum + chunk.next - chunk.first, 0)
            const bytes = chunks.reduce((sum, chunk) => sum + chunk.bytes.length, 0)
            assert.deepInclude(epochs[epoch], { epoch, durable, samples, bytes, index: chunks[0]?.first })
            const gaps = yield* archive.gaps(id, epoch)
            const missing = gaps.reduce((sum, gap) => sum + gap.to - gap.from, 0)
            assert.strictEqual(missing + samples, durable)
            for (const gap of gaps) {
              assert.isFalse(chunks.some((chunk) => chunk.first < gap.to && gap.from < chunk.next))
            }
          }
        }),
      { timeout: 60_000, arbitrary: { runs: 60 } }
    )

    it.effect("ready() asks the archive", () =>
      Effect.gen(function*() {
        const { synchronousCommit, durable } = yield* (yield* Archive).ready
        assert.isString(synchronousCommit)
        assert.strictEqual(durable, synchronousCommit !== "memory" && synchronousCommit !== "off")
      }))
  })
