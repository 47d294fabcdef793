import * as fc from "fast-check"
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, describe, it } from "vitest"
import { FileStore } from "./FileStore.ts"
import type { StoredFrames } from "./FrameStore.ts"
import type { DeviceFrame } from "./Retention.ts"
import { ThrumError } from "./ThrumError.ts"

const folder = mkdtempSync(join(tmpdir(), "thrum-store-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
let files = 0
const newPath = (): string => join(folder, `device-${files++}.log`)

const frame = (index: number, samples = 10, size = 20): DeviceFrame => ({
  index,
  next: index + samples,
  bytes: new Uint8Array(size).fill(index % 251)
})

const load = async (
  path: string
): Promise<{ readonly stored: StoredFrames | undefined; readonly tornBytes: number }> => {
  const store = new FileStore(path, "process")
  const stored = await store.load()
  await store.close()
  return { stored, tornBytes: store.tornBytes }
}

const begin = async (path: string, survives: "power" | "process" = "process"): Promise<FileStore> => {
  const store = new FileStore(path, survives)
  assert.isUndefined(await store.load())
  await store.begin("session", Uint8Array.of(1, 2, 3))
  return store
}

describe("FileStore", () => {
  it("gives back what it was given", async () => {
    const path = newPath()
    const store = await begin(path, "power")
    await Promise.all([0, 10, 20].map((index) => store.append(frame(index))))
    await store.free(10, 5)
    await store.append(frame(30))
    await store.close()
    assert.deepStrictEqual(await load(path), {
      stored: {
        session: "session",
        bootId: Uint8Array.of(1, 2, 3),
        durable: 5,
        freed: 10,
        frames: [frame(10), frame(20), frame(30)]
      },
      tornBytes: 0
    })
  })

  it("is empty after it was cleared, and begins anew", async () => {
    const path = newPath()
    const store = await begin(path)
    // All in one turn: nothing of the first boot may come after the second has begun.
    await Promise.all([
      store.append(frame(0)),
      // The first is on its way to the disk by itself; this one and what follows go there together.
      store.append(frame(10)),
      store.clear(),
      store.begin("other", Uint8Array.of(4)),
      store.append(frame(0, 1))
    ])
    await store.close()
    const { stored } = await load(path)
    assert.deepStrictEqual([stored?.session, stored?.frames], ["other", [frame(0, 1)]])
    const again = new FileStore(path)
    await again.load()
    await again.clear()
    await again.close()
    assert.deepStrictEqual([(await load(path)).stored, statSync(path).size], [undefined, 0])
  })

  it("torn anywhere, it gives back a beginning of what it was given, whole, and goes on from there", async () => {
    const path = newPath()
    const store = await begin(path)
    const ends = [statSync(path).size]
    for (const index of [0, 10, 20]) {
      await store.append(frame(index))
      ends.push(statSync(path).size)
    }
    await store.close()
    const whole = readFileSync(path)
    for (let length = 0; length < whole.length; length++) {
      const torn = newPath()
      writeFileSync(torn, whole.subarray(0, length))
      const { stored, tornBytes } = await load(torn)
      const kept = ends.filter((end) => end <= length).length
      assert.deepStrictEqual(
        stored?.frames,
        kept === 0 ? undefined : [0, 10, 20].slice(0, kept - 1).map((i) => frame(i))
      )
      assert.strictEqual(tornBytes, length - (ends.findLast((end) => end <= length) ?? 0))
    }
    truncateSync(path, ends[2]! + 5)
    const opened = new FileStore(path, "process")
    assert.deepStrictEqual((await opened.load())?.frames, [frame(0), frame(10)])
    await opened.append(frame(20, 1))
    await opened.close()
    assert.deepStrictEqual((await load(path)).stored?.frames, [frame(0), frame(10), frame(20, 1)])
  })

  it("a changed byte in the last record, and zeros behind it, are left out", async () => {
    const path = newPath()
    const store = await begin(path)
    await store.append(frame(0))
    const size = statSync(path).size
    await store.append(frame(10))
    await store.close()
    const whole = readFileSync(path)
    for (let at = size; at < whole.length; at++) {
      const changed = Uint8Array.from(whole)
      changed[at]! ^= 0x40
      writeFileSync(path, changed)
      assert.deepStrictEqual((await load(path)).stored?.frames, [frame(0)], `byte ${at}`)
    }
    writeFileSync(path, whole)
    appendFileSync(path, new Uint8Array(4096))
    assert.deepStrictEqual(await load(path).then(({ stored, tornBytes }) => [stored?.frames.length, tornBytes]), [
      2,
      4096
    ])
  })

  it("whatever is appended and freed, it gives back what is left, in about twice its size (property)", async () => {
    const steps = fc.array(
      fc.oneof(
        fc.record({ do: fc.constant("append" as const), size: fc.integer({ min: 1, max: 60_000 }) }),
        fc.record({ do: fc.constant("free" as const), size: fc.integer({ min: 0, max: 10 }) }),
        fc.record({ do: fc.constant("reopen" as const), size: fc.constant(0) })
      ),
      { maxLength: 120 }
    )
    await fc.assert(
      fc.asyncProperty(steps, async (steps) => {
        const path = newPath()
        let store = await begin(path)
        let left: Array<DeviceFrame> = []
        let [next, freed] = [0, 0]
        for (const step of steps) {
          if (step.do === "append") {
            const added = frame(next, 10, step.size)
            left.push(added)
            next += 10
            await store.append(added)
          } else if (step.do === "free") {
            freed = left[step.size]?.index ?? next
            left = left.slice(step.size)
            await store.free(freed, freed)
            const live = left.reduce((sum, { bytes }) => sum + bytes.length + 25, 0)
            assert.isAtMost(statSync(path).size, 2 * live + 1_048_576 + 70_000)
          } else {
            await store.close()
            store = new FileStore(path, "process")
            assert.deepStrictEqual((await store.load())?.frames, left)
          }
        }
        await store.close()
        const { stored } = await load(path)
        assert.deepStrictEqual([stored?.frames, stored?.freed], [left, freed])
        rmSync(path)
      }),
      { numRuns: 30 }
    )
  })

  it("what cannot be written rejects, by name", async () => {
    const store = new FileStore(join(folder, "no", "such", "folder"))
    assert.instanceOf(await store.load().catch((error: unknown) => error), Error)
    assert.instanceOf(await store.append(frame(0)).catch((error: unknown) => error), ThrumError)
  })
})
