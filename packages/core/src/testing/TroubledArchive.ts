/** An archive whose commits can be held up or made to fail: what a database does to the core, at the test's word. */
import { Effect, Latch, Layer } from "effect"
import { type Append, Archive, ArchiveUnavailable } from "../Archive.ts"

/** The test's hand on the archive. */
export interface Trouble {
  /** Commits wait from now on. */
  readonly hold: () => void
  /** Commits that wait go on. */
  readonly release: () => void
  /** The next `n` commits fail; `afterwards` says that they had been done all the same. */
  readonly fail: (n: number, afterwards?: boolean) => void
  /** Reads fail from now on, or no longer. */
  readonly failReads: (failing: boolean) => void
  /** Epochs cannot be opened from now on, or can again. */
  readonly failOpening: (failing: boolean) => void
  /** Every group that was committed, in order. */
  readonly groups: ReadonlyArray<ReadonlyArray<Append>>
}

const unavailable = (doing: string): ArchiveUnavailable => new ArchiveUnavailable({ doing, cause: "trouble" })

/** An archive in memory with trouble, and the hand on it. */
export const makeTroubledArchive = (): { readonly layer: Layer.Layer<Archive>; readonly trouble: Trouble } => {
  const latch = Latch.makeUnsafe(true)
  const groups: Array<ReadonlyArray<Append>> = []
  let [failures, areDone, readsFail, openingFails] = [0, false, false, false]
  const layer = Layer.effect(
    Archive,
    Effect.gen(function*() {
      const archive = yield* Archive
      return Archive.of({
        ...archive,
        append: Effect.fnUntraced(function*(group) {
          yield* latch.await
          if (failures > 0) {
            failures--
            if (areDone) yield* archive.append(group)
            return yield* unavailable("append")
          }
          groups.push(group)
          return yield* archive.append(group)
        }),
        openEpoch: (id, bootId) =>
          Effect.suspend(() =>
            openingFails ? Effect.fail(unavailable("open an epoch")) : archive.openEpoch(id, bootId)
          ),
        read: (id, from, bytesMax) =>
          Effect.suspend(() => readsFail ? Effect.fail(unavailable("read")) : archive.read(id, from, bytesMax))
      })
    })
  ).pipe(Layer.provide(Archive.layerMemory))
  return {
    layer,
    trouble: {
      hold: () => latch.closeUnsafe(),
      release: () => latch.openUnsafe(),
      fail: (n, afterwards = false) => {
        failures = n
        areDone = afterwards
      },
      failReads: (failing) => {
        readsFail = failing
      },
      failOpening: (failing) => {
        openingFails = failing
      },
      groups
    }
  }
}
