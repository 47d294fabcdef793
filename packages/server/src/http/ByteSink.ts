/**
 * Bytes being written, in slices of about {@link sliceBytes}: what is made before the event loop gets its turn. One
 * slice is in memory per answer, and what the connection has not taken yet.
 */

/** Bytes after which a slice is full. A few milliseconds of work at most. */
export const sliceBytes = 32_768

const encoder = new TextEncoder()

const powersOfTen: ReadonlyArray<number> = Array.from({ length: 10 }, (_, d) => 10 ** d)

/** Text as UTF-8. */
export const utf8 = (text: string): Uint8Array => encoder.encode(text)

/** Gives the memory of an array back that nobody uses any more: as garbage it would be collected late. */
export const release = ({ buffer, byteLength }: Int32Array | Float64Array | Uint8Array): void => {
  // What is small, or a part of something, is not worth it.
  if (byteLength > 4096 && byteLength === buffer.byteLength && buffer instanceof ArrayBuffer) buffer.transfer(0)
}

const nothing = new Uint8Array(0)

export class ByteSink {
  private bytes: Uint8Array<ArrayBuffer> = nothing
  private at = 0
  private spare: Uint8Array<ArrayBuffer> = nothing
  private readonly isSent: () => boolean

  /**
   * @param isSent Whether whoever took slices is done with all of them: then the memory of the last one is written
   *   again. Megabytes of slices a second would be garbage else, and much of it at a time.
   */
  constructor(isSent: () => boolean = () => false) {
    this.isSent = isSent
  }

  /** Whether it is time to {@link take}. */
  get isFull(): boolean {
    return this.at >= sliceBytes
  }

  get isEmpty(): boolean {
    return this.at === 0
  }

  /** What was written since the last time. The caller's own until it says that it is sent. */
  take(): Uint8Array {
    const slice = this.bytes.subarray(0, this.at)
    this.spare = this.bytes
    this.bytes = nothing
    this.at = 0
    return slice
  }

  /** Makes room for `size` bytes: must be called before they are written. */
  reserve(size: number): void {
    const needed = this.at + size
    if (needed <= this.bytes.length) return
    if (this.at === 0 && needed <= this.spare.length && this.isSent()) {
      this.bytes = this.spare
      this.spare = nothing
      return
    }
    const grown = new Uint8Array(Math.max(needed, sliceBytes + size))
    grown.set(this.bytes.subarray(0, this.at))
    this.bytes = grown
  }

  /** Writes text of any length and script. Makes its own room. */
  text(text: string): void {
    this.copy(utf8(text))
  }

  /** Writes bytes, of which there may be many. Makes its own room. */
  copy(bytes: Uint8Array): void {
    this.reserve(bytes.length)
    this.put(bytes)
  }

  /** Writes bytes. */
  put(bytes: Uint8Array): void {
    // Pieces are a few bytes long: a loop is quicker than `set`.
    if (bytes.length > 64) this.bytes.set(bytes, this.at)
    else for (let i = 0, at = this.at, to = this.bytes; i < bytes.length; i++, at++) to[at] = bytes[i]!
    this.at += bytes.length
  }

  /** Writes the lowest `bytes` bytes (1 to 4) of a whole number in two's complement, little-endian. */
  little(n: number, bytes: number): void {
    for (let rest = n; bytes > 0; bytes--, rest >>= 8) this.bytes[this.at++] = rest & 0xff
  }

  /** Writes characters below 128. */
  ascii(text: string): void {
    for (let i = 0, at = this.at, to = this.bytes; i < text.length; i++, at++) to[at] = text.charCodeAt(i)
    this.at += text.length
  }

  /** Writes a whole number: at most 18 bytes below 10^17 in magnitude. */
  integer(n: number): void {
    if (!Number.isSafeInteger(n)) {
      this.ascii(String(n))
      return
    }
    if (n < 0) {
      this.bytes[this.at++] = 0x2d
      n = -n
    }
    let size = 1
    for (let power = 10; n >= power; power *= 10) size++
    this.padded(n, size)
  }

  /** Writes `k / 10^places` in plain digits, without zeros at the end. `k` is of 32 bits: at most 13 bytes. */
  decimal(k: number, places: number): void {
    let [digits, left] = [k, places]
    while (left > 0 && digits % 10 === 0) {
      digits /= 10
      left--
    }
    if (digits < 0) {
      this.bytes[this.at++] = 0x2d
      digits = -digits
    }
    const power = powersOfTen[left]!
    const whole = Math.floor(digits / power)
    this.integer(whole)
    if (left === 0) return
    this.bytes[this.at++] = 0x2e
    this.padded(digits - whole * power, left)
  }

  /** Writes a whole number of at least 0 in exactly `size` digits. */
  padded(n: number, size: number): void {
    this.at += size
    const to = this.bytes
    let [rest, i] = [n, this.at - 1]
    // Most numbers have 32 bits, whose division is quicker.
    for (; size > 0 && rest > 0x7fffffff; size--, i--) {
      const tens = Math.floor(rest / 10)
      // In this order: 48 more than 2^53 would be rounded.
      to[i] = 0x30 + (rest - tens * 10)
      rest = tens
    }
    for (let small = rest | 0; size > 0; size--, i--) {
      const tens = (small / 10) | 0
      to[i] = 0x30 + small - tens * 10
      small = tens
    }
  }
}
