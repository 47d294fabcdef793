/**
 * Calls made from the contract: of every operation its parameters, headers and bodies, mostly as they should be and
 * often not. What it has to say of a session (keys, where its stream is) it learns from the {@link Pool}.
 */
import { encodeEnd, encodeSamples, packCounts, packFloats } from "@thrum/protocol"
import { contract } from "../support/contract.ts"
import type { Random } from "../simulation/Random.ts"
import { type Json, listOf, mutated, oddText, parts, valueOf } from "./Values.ts"

/** One request. */
export interface Call {
  readonly method: string
  /** With its query, as it goes over the wire. */
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array | undefined
  readonly operation: string
  /** Whether a WebSocket is asked for. */
  readonly upgrade: boolean
  /** The session it is about, where there is one. */
  readonly session: Known | undefined
}

/** A session that was created. */
export interface Known {
  readonly id: string
  readonly key: string
  readonly channels: number
  next: number
  boot: number
  ended: boolean
  etag: string | undefined
}

/** Sessions to ask for; the oldest is forgotten. */
export class Pool {
  readonly sessions: Array<Known> = []

  add(session: Known): void {
    this.sessions.push(session)
    if (this.sessions.length > 40) this.sessions.shift()
  }
}

interface Operation {
  readonly name: string
  readonly method: string
  readonly template: string
  readonly parameters: ReadonlyArray<Json>
  readonly body: Json | undefined
  readonly isSecured: boolean
  readonly isSocket: boolean
  readonly mediaTypes: ReadonlyArray<string>
}

const operations: ReadonlyArray<Operation> = Object.entries(parts(contract["paths"])).flatMap(([template, item]) =>
  Object.entries(parts(item)).map(([method, of]) => {
    const operation = parts(of)
    const responses = parts(operation["responses"])
    return {
      name: String(operation["operationId"]),
      method: method.toUpperCase(),
      template,
      parameters: listOf(operation["parameters"]).map(parts),
      body: operation["requestBody"] === undefined ? undefined : parts(parts(operation["requestBody"])["content"]),
      isSecured: listOf(operation["security"]).length > 0,
      isSocket: "101" in responses,
      mediaTypes: Object.keys(parts(parts(responses["200"])["content"]))
    }
  })
)

/** Cheap and dull ones come less often. */
const weighted = operations.flatMap((operation) => {
  const weight = operation.name === "docs"
    ? 0
    : operation.name === "endSession"
    ? 2
    : operation.template.startsWith("/sessions")
    ? 8
    : 1
  return Array.from<Operation>({ length: weight }).fill(operation)
})

const id = (pool: Pool, random: Random): { readonly text: string; readonly session: Known | undefined } => {
  if (pool.sessions.length > 0 && random.chance(0.85)) {
    const session = random.pick(pool.sessions)
    return { text: session.id, session }
  }
  const hex = (length: number): string => Array.from({ length }, () => random.int(0, 15).toString(16)).join("")
  const text = random.pick([
    () => `${hex(8)}-${hex(4)}-4${hex(3)}-a${hex(3)}-${hex(12)}`,
    () => encodeURIComponent(oddText(random).toWellFormed()) || "x",
    () => "%zz",
    () => hex(32).toUpperCase()
  ])()
  return { text, session: undefined }
}

/** A value of a parameter as a text: one that fits, one near to what the session has, or one that does not. */
const textOf = (parameter: Json, session: Known | undefined, random: Random): string => {
  if (random.chance(0.1)) return oddText(random).toWellFormed()
  const near = `${random.int(0, 1)}:${random.int(0, (session?.next ?? 0) + 5)}`
  switch (parameter["name"]) {
    case "from":
    case "to":
    case "cursor":
    case "Last-Event-ID":
      if (random.chance(0.7)) return near
      if (random.chance(0.5)) return new Date(Date.now() - random.int(-5000, 5000)).toISOString()
      break
    case "next":
      if (random.chance(0.7)) return String(session?.next ?? 0)
      break
    case "wait":
      return random.chance(0.9) ? "500" : String(random.int(-1, 200))
    case "limit":
    case "maxPoints":
      return String(random.int(0, 60))
    case "Thrum-Boot-Id":
      return random.chance(0.9) ? String(session?.boot ?? 1) : String(valueOf(parts(parameter["schema"]), random))
    default:
  }
  return String(valueOf(parts(parameter["schema"]), random))
}

const queryOf = (operation: Operation, session: Known | undefined, random: Random): string => {
  const pairs: Array<[string, string]> = []
  for (const parameter of operation.parameters) {
    if (parameter["in"] !== "query") continue
    const name = String(parameter["name"])
    const chance = name === "partial" ? 0.7 : operation.parameters.length > 5 ? 0.2 : 0.3
    if (!random.chance(chance)) continue
    pairs.push([name, name === "partial" && random.chance(0.9) ? "true" : textOf(parameter, session, random)])
    if (random.chance(0.02)) pairs.push([name, textOf(parameter, session, random)])
  }
  if (random.chance(0.03)) pairs.push([oddText(random).toWellFormed() || "y", "1"])
  const query = new URLSearchParams(pairs).toString()
  if (random.chance(0.01)) return `?${query}&%zz=%`
  return query === "" ? "" : `?${query}`
}

/** Frames that go on where the session is, or do not. */
const framesOf = (session: Known | undefined, random: Random): Uint8Array => {
  const channels = session?.channels ?? 1
  const frames: Array<Uint8Array> = []
  let next = session?.next ?? 0
  for (let i = random.int(0, 4); i > 0; i--) {
    const count = random.int(1, 30)
    if (random.chance(0.1)) next += random.int(1, 20)
    if (random.chance(0.02)) next -= random.int(1, 20)
    const values = Array.from({ length: count * channels }, () => random.int(-1000, 1000))
    if (random.chance(0.1)) values[0] = Number.NaN
    const block = Number.isNaN(values[0]) || random.chance(0.3)
      ? packFloats(values, channels)
      : packCounts(values, channels)
    if (!(block instanceof Uint8Array)) throw new Error(block.message)
    frames.push(encodeSamples(Math.max(0, next), random.chance(0.2) ? undefined : Math.max(0, next) * 10_000, block))
    next += count
  }
  if (random.chance(0.02)) frames.push(encodeEnd(Math.max(0, next)))
  const bytes = Buffer.concat(frames)
  if (random.chance(0.1) && bytes.length > 0) bytes[random.int(0, bytes.length - 1)] = random.int(0, 255)
  if (random.chance(0.05)) return bytes.subarray(0, random.int(0, bytes.length))
  if (random.chance(0.01)) return new Uint8Array(300_000)
  return bytes
}

const jsonBody = (schema: Json, random: Random): Uint8Array => {
  const value = valueOf(schema, random)
  const text = JSON.stringify(random.chance(0.3) ? mutated(value, random) : value)
  if (random.chance(0.03)) return Buffer.from(text.slice(0, random.int(0, text.length)))
  if (random.chance(0.01)) return Buffer.from(JSON.stringify({ rate: 1, name: "x".repeat(70_000) }))
  if (random.chance(0.01)) return Buffer.from("[".repeat(20_000))
  return Buffer.from(text)
}

const accepts = ["*/*", "text/html", "text/*;q=0.5, application/json;q=0.1", "*/*;q=0", ";;;", "application/json;q=2"]

/** The next call. */
export const nextCall = (pool: Pool, random: Random): Call => {
  const operation = pool.sessions.length < 3 ?
    operations.find(({ name }) => name === "createSession")! :
    random.pick(weighted)
  const { text, session } = id(pool, random)
  let path = operation.template.replaceAll(/\{([^}]+)\}/g, (_, name: string) => {
    if (name === "id") return text
    const parameter = operation.parameters.find((one) => one["in"] === "path" && one["name"] === name)
    return random.chance(0.95) ? String(valueOf(parts(parts(parameter)["schema"]), random)) : "xml"
  })
  if (random.chance(0.02)) {
    path = random.pick(["/nowhere", "//", `${path}/`, `/${encodeURIComponent("ü")}`, "/sessions/a/b"])
  }
  const headers: Record<string, string> = {}
  for (const parameter of operation.parameters) {
    if (parameter["in"] !== "header") continue
    const value = textOf(parameter, session, random).replaceAll(/[^\x20-\x7e]/g, "")
    if (random.chance(parameter["required"] === true ? 0.95 : 0.2)) headers[String(parameter["name"])] = value
  }
  if (operation.isSecured && random.chance(0.95)) {
    const key = random.chance(0.9) ? session?.key ?? "x".repeat(43) : "wrong"
    headers["authorization"] = random.chance(0.97) ? `Bearer ${key}` : `Basic ${key}`
  }
  if (operation.mediaTypes.length > 0 && random.chance(0.6)) {
    headers["accept"] = random.chance(0.9) ? random.pick(operation.mediaTypes) : random.pick(accepts)
  }
  if (random.chance(0.1)) headers["accept-encoding"] = random.pick(["gzip", "br", "zstd", "identity;q=0", "*", "x, y"])
  if (random.chance(0.1)) {
    headers["if-none-match"] = random.chance(0.6)
      ? session?.etag ?? "*"
      : random.pick(["*", "x", "\""])
  }
  if (random.chance(0.03)) headers["range"] = random.pick(["bytes=0-9", "bytes=9-0", "rows=1-2", "bytes=0-0,2-3"])

  let body: Uint8Array | undefined
  let method = operation.method
  if (operation.body !== undefined) {
    const [mediaType = "application/json", media] = Object.entries(operation.body)[0] ?? []
    body = mediaType === "application/json" ?
      jsonBody(parts(parts(media)["schema"]), random) :
      framesOf(session, random)
    headers["content-type"] = random.chance(0.97)
      ? mediaType
      : random.pick(["text/plain", "application/json;charset=x", "x"])
    if (random.chance(0.01)) headers["content-encoding"] = "gzip"
  }
  if (method === "GET" && random.chance(0.08)) method = random.pick(["HEAD", "OPTIONS", "DELETE", "PUT", "POST"])
  else if (method === "POST" && random.chance(0.03)) {
    method = random.pick(["GET", "OPTIONS", "PATCH"])
    body = undefined
  }
  return {
    method,
    path: `${path}${queryOf(operation, session, random)}`,
    headers,
    body,
    operation: operation.name,
    upgrade: operation.isSocket && method === "GET" && random.chance(operation.name === "ingest" ? 0.5 : 0.3),
    session
  }
}
