/**
 * Keeps a device's frames in a file: a restart, a crash or a power cut loses none that were sent. For Node, Deno and Bun.
 *
 * The file is a log: records are added at its end, and it is written anew when more than half of it is freed. Each
 * record carries its length and a checksum, so a last one that was torn by a power cut is seen and left out. Records that
 * come while the disk is busy are written and synced together.
 *
 * Bound: about twice what the device keeps (`bufferBytesMax`), and {@link slack} bytes. The index of what is in the file
 * is held in memory, 32 bytes a frame; the frames are not.
 *
 * ```
 * record   length of what follows the checksum, 4 bytes · CRC-32 of it, 4 bytes · type, 1 byte · …
 * begun    1 · { session, bootId (hexadecimal), durable, freed } as JSON
 * frame    2 · index, 8 bytes · next, 8 bytes · the frame
 * freed    3 · before, 8 bytes · durable, 8 bytes
 * ```
 */
import { Buffer } from "node:buffer"
import { type FileHandle, open, rename } from "node:fs/promises"
import { dirname } from "node:path"
import { crc32 } from "node:zlib"
import type { FrameStore, StoredFrames } from "./FrameStore.ts"
import type { DeviceFrame } from "./Retention.ts"
import { ownError } from "./ThrumError.ts"

/**
 * When a frame counts as kept. `power`: it is on the disk (fdatasync) and survives a power cut. `process`: the operating
 * system has it; it survives the end of the process, and after a power cut the device has to begin a new boot id.
 */
export type Survives = "power" | "process"

/** Freed bytes below which a file is not written anew. */
const slack = 1_048_576
const headBytes = 8
/** No record is longer. */
const recordBytesMax = 1_048_576
const [begun, frame, freed] = [1, 2, 3]

interface Begun {
  readonly session: string
  readonly bootId: string
  readonly durable: number
  readonly freed: number
}

/** Where a frame's record is in the file. */
interface Place {
  readonly index: number
  readonly next: number
  readonly at: number
}

/** What waits to be written. */
interface Job {
  readonly write: () => Promise<void> | void
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

const recordOf = (type: number, parts: ReadonlyArray<Uint8Array>): Buffer => {
  const body = Buffer.concat([Uint8Array.of(type), ...parts])
  const head = Buffer.alloc(headBytes)
  head.writeUInt32BE(body.length, 0)
  head.writeUInt32BE(crc32(body), 4)
  return Buffer.concat([head, body])
}

const wholes = (a: number, b: number): Buffer => {
  const bytes = Buffer.alloc(16)
  bytes.writeBigUInt64BE(BigInt(a), 0)
  bytes.writeBigUInt64BE(BigInt(b), 8)
  return bytes
}

const isBegun = (u: unknown): u is Begun =>
  typeof u === "object" && u !== null && "session" in u && typeof u.session === "string" && "bootId" in u &&
  typeof u.bootId === "string" && "durable" in u && typeof u.durable === "number" && "freed" in u &&
  typeof u.freed === "number"

/**
 * A store in a file. One device, one process at a time.
 *
 * @example
 * ```ts
 * import { openDevice } from "@thrum/client"
 * import { FileStore } from "@thrum/client/file"
 *
 * const device = await openDevice({ url, key, channels: 3, rate: 100, store: new FileStore("device.log") })
 * ```
 */
export class FileStore implements FrameStore {
  /** Bytes at the end of the file that were no whole record, and were left out when it was loaded. */
  tornBytes = 0
  private readonly path: string
  private readonly survives: Survives
  private file: FileHandle | undefined
  private about: Begun | undefined
  private places: Array<Place> = []
  /** Bytes of the file. */
  private end = 0
  /** Bytes to be added to it. */
  private pieces: Array<Buffer> = []
  private jobs: Array<Job> = []
  private isRunning = false

  constructor(path: string, survives: Survives = "power") {
    this.path = path
    this.survives = survives
  }

  async load(): Promise<StoredFrames | undefined> {
    const file = this.file = await open(this.path, "a+")
    const bytes = await file.readFile()
    const frames: Array<DeviceFrame> = []
    let at = 0
    for (let body = bodyAt(bytes, at); body !== undefined; body = bodyAt(bytes, at)) {
      if (body[0] === begun) {
        const about: unknown = JSON.parse(body.toString("utf8", 1))
        if (!isBegun(about)) throw this.broken(at)
        this.about = about
        frames.length = 0
        this.places = []
      } else if (body[0] === frame && body.length > 17) {
        const place = { index: Number(body.readBigUInt64BE(1)), next: Number(body.readBigUInt64BE(9)), at }
        frames.push({ index: place.index, next: place.next, bytes: Uint8Array.from(body.subarray(17)) })
        this.places.push(place)
      } else if (body[0] === freed && body.length === 17) {
        const before = Number(body.readBigUInt64BE(1))
        this.note(before, Number(body.readBigUInt64BE(9)))
        while ((frames[0]?.next ?? Infinity) <= before) frames.shift()
      } else throw this.broken(at)
      at += headBytes + body.length
    }
    this.tornBytes = bytes.length - at
    this.end = at
    if (this.tornBytes > 0) {
      await file.truncate(at)
      await file.datasync()
    }
    const { about } = this
    return about === undefined ? undefined : {
      session: about.session,
      bootId: Uint8Array.from(Buffer.from(about.bootId, "hex")),
      durable: about.durable,
      freed: about.freed,
      frames
    }
  }

  begin(session: string, bootId: Uint8Array): Promise<void> {
    return this.do(async () => {
      this.about = { session, bootId: Buffer.from(bootId).toString("hex"), durable: 0, freed: 0 }
      this.drop()
      await this.rewrite()
    })
  }

  append(kept: DeviceFrame): Promise<void> {
    return this.do(() => {
      this.places.push({
        index: kept.index,
        next: kept.next,
        at: this.add(frame, [wholes(kept.index, kept.next), kept.bytes])
      })
    })
  }

  free(before: number, durable: number): Promise<void> {
    return this.do(async () => {
      this.note(before, durable)
      this.add(freed, [wholes(before, durable)])
      const live = this.end - (this.places[0]?.at ?? this.end)
      if (this.end - live > Math.max(slack, live)) {
        await this.write()
        await this.rewrite()
      }
    })
  }

  clear(): Promise<void> {
    return this.do(async () => {
      this.about = undefined
      this.drop()
      await this.rewrite()
    })
  }

  close(): Promise<void> {
    return this.do(async () => {
      await this.write()
      await this.file?.close()
      this.file = undefined
    })
  }

  /** Nothing of it is needed: neither what is in the file nor what is on its way there. */
  private drop(): void {
    this.places = []
    this.pieces = []
  }

  private note(before: number, durable: number): void {
    if (this.about !== undefined) this.about = { ...this.about, durable, freed: before }
    const kept = this.places.findIndex(({ next }) => next > before)
    this.places = kept < 0 ? [] : this.places.slice(kept)
  }

  /** @returns Where the record will be. */
  private add(type: number, parts: ReadonlyArray<Uint8Array>): number {
    const record = recordOf(type, parts)
    const at = this.end
    this.pieces.push(record)
    this.end += record.length
    return at
  }

  private do(write: Job["write"]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.jobs.push({ write, resolve, reject })
      if (!this.isRunning) void this.run()
    })
  }

  /** Does what waits, in its order; what came meanwhile goes to the disk together. */
  private async run(): Promise<void> {
    this.isRunning = true
    while (this.jobs.length > 0) {
      const jobs = this.jobs
      this.jobs = []
      try {
        for (const job of jobs) await job.write()
        await this.write()
        for (const job of jobs) job.resolve()
      } catch (error) {
        // What was not written of them is not known any more: all are told.
        for (const job of jobs) job.reject(error)
      }
    }
    this.isRunning = false
  }

  private async write(): Promise<void> {
    if (this.pieces.length === 0) return
    const bytes = Buffer.concat(this.pieces)
    this.pieces = []
    const file = this.opened()
    for (let at = 0; at < bytes.length;) at += (await file.write(bytes, at)).bytesWritten
    if (this.survives === "power") await file.datasync()
  }

  /** Makes the file anew with what is needed of it; the old one is there until the new one is whole. */
  private async rewrite(): Promise<void> {
    const old = this.opened()
    const path = `${this.path}.new`
    const file = await open(path, "w+")
    const from = this.places[0]?.at ?? this.end
    const tail = Buffer.alloc(this.end - from)
    for (let at = 0; at < tail.length;) {
      const { bytesRead } = await old.read(tail, at, tail.length - at, from + at)
      if (bytesRead === 0) throw ownError("StoreFailed", `Cannot read ${this.path}: it is shorter than it was`)
      at += bytesRead
    }
    const head = this.about === undefined ? Buffer.alloc(0) : recordOf(begun, [Buffer.from(JSON.stringify(this.about))])
    await file.writeFile(Buffer.concat([head, tail]))
    await file.datasync()
    await file.close()
    await rename(path, this.path)
    if (this.survives === "power") await syncDirectory(dirname(this.path))
    this.file = await open(this.path, "a+")
    await old.close()
    const moved = head.length - from
    this.places = this.places.map((place) => ({ ...place, at: place.at + moved }))
    this.end = head.length + tail.length
  }

  private opened(): FileHandle {
    if (this.file !== undefined) return this.file
    throw ownError("StoreFailed", `Cannot write ${this.path}: it is not open`)
  }

  private broken(at: number): Error {
    return ownError("StoreFailed", `Cannot read ${this.path}: the record at byte ${at} is whole, and is none of ours`)
  }
}

/** The body of the record at `at`; undefined where no whole record is. */
const bodyAt = (bytes: Buffer, at: number): Buffer | undefined => {
  if (at + headBytes > bytes.length) return undefined
  const length = bytes.readUInt32BE(at)
  const body = bytes.subarray(at + headBytes, at + headBytes + length)
  return length >= 1 && length <= recordBytesMax && body.length === length && crc32(body) === bytes.readUInt32BE(at + 4)
    ? body
    : undefined
}

/** A new name of a file survives a power cut once its directory is synced; where directories cannot be, it is left. */
const syncDirectory = async (path: string): Promise<void> => {
  const directory = await open(path, "r").catch(() => undefined)
  await directory?.sync().catch(() => {})
  await directory?.close()
}
