/**
 * Bytes being written, in slices of about {@link sliceBytes}: what is made before the event loop gets its turn. One
 * slice is in memory per answer, and what the connection has not taken yet.
 */

/** Bytes after which a slice is full. A few milliseconds of work at most. */
export const sliceBytes = 32_768

const encoder = new TextEncoder()

/** Text as UTF-8. */
export const utf8 = (text: string): Uint8Array => encoder.encode(text)

export class ByteSink {
  private bytes: Uint8Array<ArrayBuffer> = new Uint8Array(0)
  private at = 0

  /** Whether it is time to {@link take}. */
  get isFull(): boolean {
    return this.at >= sliceBytes
  }

  get isEmpty(): boolean {
    return this.at === 0
  }

  /** What was written since the last time. The caller's own. */
  take(): Uint8Array {
    const slice = this.bytes.subarray(0, this.at)
    this.bytes = new Uint8Array(0)
    this.at = 0
    return slice
  }

  /** Makes room for `size` bytes: must be called before they are written. */
  reserve(size: number): void {
    const needed = this.at + size
    if (needed <= this.bytes.length) return
    // Memory that is written before it is read need not be zeroed first.
    const grown = new Uint8Array(Buffer.allocUnsafeSlow(Math.max(needed, sliceBytes + size)).buffer)
    grown.set(this.bytes.subarray(0, this.at))
    this.bytes = grown
  }

  /** Writes text of any length and script. Makes its own room. */
  text(text: string): void {
    const bytes = utf8(text)
    this.reserve(bytes.length)
    this.put(bytes)
  }

  /** Writes bytes. */
  put(bytes: Uint8Array): void {
    // Pieces are a few bytes long: a loop is quicker than `set`.
    if (bytes.length > 64) {
      this.bytes.set(bytes, this.at)
      this.at += bytes.length
    } else for (let i = 0; i < bytes.length; i++) this.bytes[this.at++] = bytes[i]!
  }

  /** Writes characters below 128. */
  ascii(text: string): void {
    for (let i = 0; i < text.length; i++) this.bytes[this.at++] = text.charCodeAt(i)
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

  /** Writes a whole number of at least 0 in exactly `size` digits. */
  padded(n: number, size: number): void {
    this.at += size
    let rest = n
    for (let i = this.at - 1; size > 0; size--, i--) {
      const tens = Math.floor(rest / 10)
      // In this order: 48 more than 2^53 would be rounded.
      this.bytes[i] = 0x30 + (rest - tens * 10)
      rest = tens
    }
  }
}
