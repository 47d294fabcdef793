/**
 * Keeps a device's frames in the browser's IndexedDB: a reload, a crash of the page or a power cut loses none that were
 * sent. Every write is its own transaction with strict durability, in the order of the calls.
 *
 * Bound: the device's `bufferBytesMax`; the browser's own quota below that rejects, and the device goes on without the
 * store and says so.
 */
import type { FrameStore, StoredFrames } from "./FrameStore.ts"
import type { DeviceFrame } from "./Retention.ts"

/** One object store: frames under their index, what was begun under this key. */
const begun = "begun"

interface Begun {
  readonly session: string
  readonly bootId: Uint8Array<ArrayBuffer>
  readonly durable: number
  readonly freed: number
}

const isBegun = (u: unknown): u is Begun =>
  typeof u === "object" && u !== null && "session" in u && typeof u.session === "string" && "bootId" in u &&
  u.bootId instanceof Uint8Array && "durable" in u && typeof u.durable === "number" && "freed" in u &&
  typeof u.freed === "number"

const isFrame = (u: unknown): u is DeviceFrame =>
  typeof u === "object" && u !== null && "index" in u && typeof u.index === "number" && "next" in u &&
  typeof u.next === "number" && "bytes" in u && u.bytes instanceof Uint8Array

const answerOf = <A>(request: IDBRequest<A>): Promise<A> =>
  new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result))
    request.addEventListener("error", () => reject(request.error ?? new Error("IndexedDB failed")))
  })

/**
 * A store in IndexedDB.
 *
 * @example
 * ```ts
 * import { createSession, IndexedDbStore, openDevice } from "@thrum/client"
 *
 * const session = await createSession(location.origin, { rate: 100 })
 * localStorage.setItem("session", JSON.stringify(session)) // what a reload needs to go on: link and key
 * const device = await openDevice({ ...session, store: new IndexedDbStore(`thrum-${session.id}`) })
 * ```
 */
export class IndexedDbStore implements FrameStore {
  private readonly database: Promise<IDBDatabase>

  /** @param name Of the database: one for each session that is kept. */
  constructor(name: string) {
    const request = indexedDB.open(name, 1)
    request.addEventListener("upgradeneeded", () => request.result.createObjectStore("frames"))
    this.database = answerOf(request)
    // Whoever calls next is told.
    this.database.catch(() => {})
  }

  async load(): Promise<StoredFrames | undefined> {
    const frames = (await this.database).transaction("frames", "readonly").objectStore("frames")
    // Numbers sort before strings.
    const [about, kept]: [unknown, ReadonlyArray<unknown>] = await Promise.all([
      answerOf(frames.get(begun)),
      answerOf(frames.getAll(IDBKeyRange.upperBound(Infinity)))
    ])
    return isBegun(about) ? { ...about, frames: kept.filter(isFrame) } : undefined
  }

  begin(session: string, bootId: Uint8Array): Promise<void> {
    return this.write((frames) => {
      frames.clear()
      frames.put({ session, bootId: bootId.slice(), durable: 0, freed: 0 }, begun)
    })
  }

  append(frame: DeviceFrame): Promise<void> {
    return this.write((frames) => frames.put(frame, frame.index))
  }

  free(before: number, durable: number): Promise<void> {
    return this.write((frames) => {
      frames.delete(IDBKeyRange.upperBound(before, true))
      const request = frames.get(begun)
      request.addEventListener("success", () => {
        const about: unknown = request.result
        if (isBegun(about)) frames.put({ ...about, durable, freed: before }, begun)
      })
    })
  }

  clear(): Promise<void> {
    return this.write((frames) => frames.clear())
  }

  async close(): Promise<void> {
    // Transactions that were begun are finished first.
    ;(await this.database).close()
  }

  private async write(change: (frames: IDBObjectStore) => unknown): Promise<void> {
    const transaction = (await this.database).transaction("frames", "readwrite", { durability: "strict" })
    const done = new Promise<void>((resolve, reject) => {
      transaction.addEventListener("complete", () => resolve())
      for (const end of ["error", "abort"]) {
        transaction.addEventListener(end, () => reject(transaction.error ?? new Error("IndexedDB gave up")))
      }
    })
    change(transaction.objectStore("frames"))
    return done
  }
}
