/**
 * The ingest key: 256 random bits, shown once as 43 characters of base64url, kept as their SHA-256. Whoever has it may
 * publish, end and delete.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto"

/** A new key as it is shown, once. */
export const makeIngestKey = (): string => randomBytes(32).toString("base64url")

/** What is kept of a key. A key has 256 random bits, so one round of SHA-256 is enough. */
export const hashIngestKey = (key: string): Uint8Array => new Uint8Array(createHash("sha256").update(key).digest())

/** Whether `key` is the one that `hash` was made of. Takes the same time whatever is wrong with it. */
export const isIngestKey = (key: string, hash: Uint8Array): boolean => timingSafeEqual(hashIngestKey(key), hash)
