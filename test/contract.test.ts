/**
 * The REST side against its contract: what the server declares is what the contract says, every answer that the
 * contract knows is given for real, and each is validated.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import {
  Archive,
  type ArchiveShape,
  ArchiveUnavailable,
  coreLayer,
  CoreLimits,
  coreLimits,
  Sessions,
  WriteQueue
} from "@thrum/core"
import {
  cutFrames,
  encodeSamples,
  isFrameError,
  kinds,
  packCounts,
  packFloats,
  protocolLimits,
  readViewerFrame,
  type ViewerFrame
} from "@thrum/protocol"
import { Cause, Context, Effect, Layer, Logger, ManagedRuntime } from "effect"
import * as Yaml from "effect/encoding/Yaml"
import { HttpRouter, HttpServer } from "effect/http"
import { type IncomingMessage, request } from "node:http"
import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from "node:zlib"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { declared } from "../packages/server/src/http/Api.ts"
import { Draining, httpRoutes, SocketDoors } from "../packages/server/src/http/mod.ts"
import { Doors } from "../packages/server/src/ws/Doors.ts"
import { makeNodeServer } from "../packages/server/src/ws/Upgrade.ts"
import { describeExamples } from "./contract/Examples.ts"
import { describeFrames } from "./contract/Frames.ts"
import { describeRanges } from "./contract/Ranges.ts"
import type { Rig } from "./contract/Rig.ts"
import { describeStreams } from "./contract/Streams.ts"
import { describeSummaries } from "./contract/Summaries.ts"
import {
  answersDeclared,
  answersSeen,
  checkedFetch,
  checkedUpgrade,
  contract,
  contractText,
  lines,
  mustBe
} from "./support/contract.ts"

// ---- A server whose troubles are ours to choose

type Trouble = "none" | "down" | "broken" | "silent" | "commits"
let trouble: Trouble = "none"
let isDraining = false
/** Reads of stored frames. */
let pagesRead = 0
/** How many more of them succeed. */
let pagesLeft = Number.POSITIVE_INFINITY
/** What was logged. */
const logged: Array<string> = []

/** An answer of the archive, unless there is trouble. */
const through = <A, E>(of: Effect.Effect<A, E>): Effect.Effect<A, E | ArchiveUnavailable> =>
  Effect.suspend((): Effect.Effect<A, E | ArchiveUnavailable> => {
    const cause = new Error("connect ECONNREFUSED 10.0.0.5:5432")
    switch (trouble) {
      case "down":
        return Effect.fail(new ArchiveUnavailable({ doing: "ask", cause }))
      case "broken":
        return Effect.die(cause)
      case "silent":
        return Effect.never
      default:
        return of
    }
  })

const troubled = (archive: ArchiveShape): ArchiveShape => ({
  ...archive,
  create: (session) => through(archive.create(session)),
  session: (id) => through(archive.session(id)),
  openEpoch: (id, bootId) => through(archive.openEpoch(id, bootId)),
  append: (group) =>
    Effect.suspend(() =>
      trouble === "commits" ?
        Effect.fail(new ArchiveUnavailable({ doing: "append", cause: "no" })) :
        archive.append(group)
    ),
  read: (id, from, bytesMax) =>
    Effect.suspend(() => {
      pagesRead++
      return pagesLeft-- <= 0 ?
        Effect.fail(new ArchiveUnavailable({ doing: "read", cause: "no" })) :
        archive.read(id, from, bytesMax)
    }),
  ready: through(archive.ready)
})

const archiveLayer = Layer.effect(
  Archive,
  Effect.map(Layer.build(Archive.layerMemory), (context) => Archive.of(troubled(Context.get(context, Archive))))
)
const queueLayer = Layer.effect(
  WriteQueue,
  Effect.map(WriteQueue, (queue) =>
    WriteQueue.of({
      ...queue,
      counts: () => {
        if (trouble === "broken") throw new Error("no counts")
        return queue.counts()
      }
    }))
)
const socketsLayer = Layer.effect(
  SocketDoors,
  Effect.map(Doors, ({ ingest, live }) => SocketDoors.of({ ingest, live }))
)
const routes = httpRoutes.pipe(Layer.provide(queueLayer), Layer.provide(socketsLayer))
const logLayer = Logger.layer([Logger.make(({ message, cause }) => {
  logged.push(`${String(message)} ${Cause.pretty(cause)}`)
})])
const runtime = ManagedRuntime.make(
  HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provideMerge(
      NodeHttpServer.layer(makeNodeServer, { port: 0, host: "127.0.0.1", gracefulShutdownTimeout: "100 millis" })
    ),
    Layer.provide(Doors.layer),
    Layer.provideMerge(coreLayer),
    Layer.provideMerge(archiveLayer),
    Layer.provide([
      Layer.succeed(CoreLimits, { ...coreLimits, endWaitMs: 200, pageBytesMax: 1024, chunkBytesMax: 512, idleMs: 1 }),
      Layer.succeed(Draining, () => isDraining),
      logLayer
    ])
  )
)

let base = ""
beforeAll(async () => {
  base = await runtime.runPromise(
    HttpServer.HttpServer.useSync((server) => HttpServer.formatAddress(server.address))
  )
})
afterAll(() => runtime.dispose())
afterEach(() => {
  trouble = "none"
  isDraining = false
  pagesLeft = Number.POSITIVE_INFINITY
})

// ---- What every test needs

const post = (path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> =>
  checkedFetch(base, path, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body)
  })

interface Created {
  readonly id: string
  readonly key: string
}

const create = async (session: unknown = { rate: 100 }): Promise<Created> => {
  const answer = await post("/sessions", session)
  assert.strictEqual(answer.status, 201)
  const { session: { id }, ingestKey } = await answer.json()
  return { id, key: ingestKey }
}

/** A samples frame to send. */
interface Sent {
  readonly index: number
  readonly t0?: number
  readonly block: Uint8Array | Error | { readonly message: string }
}

/** Sends frames as a device of this boot id does, and waits until they are stored. */
const publish = ({ id, key }: Created, frames: ReadonlyArray<Sent>, bootId = "1"): Promise<void> =>
  runtime.runPromise(Effect.scoped(Effect.gen(function*() {
    const peer = { onProgress: () => {}, onRewind: () => {}, onClose: () => {} }
    const publisher = yield* (yield* Sessions).publish(id, { key, bootId }, peer)
    for (const { index, t0, block } of frames) {
      if (!(block instanceof Uint8Array)) throw new Error(block.message)
      const refusal = publisher.accept(encodeSamples(index, t0, block))
      assert.isUndefined(refusal, refusal?.message)
    }
    yield* (yield* WriteQueue).flushed(id)
  })))

const end = ({ id, key }: Created): Promise<Response> =>
  post(`/sessions/${id}/end`, "", { authorization: `Bearer ${key}` })

const get = (path: string, headers: Record<string, string> = {}): Promise<Response> =>
  checkedFetch(base, path, { headers })

/** A sealed session of 4 counts with a gap in the midst. */
const sealed = async (): Promise<Created> => {
  const session = await create({
    rate: 100,
    channels: [{ name: "x", scale: 0.5, offset: 1 }, { name: "y", unit: "g" }]
  })
  await publish(session, [
    { index: 0, t0: 1_000_000, block: packCounts([1, 10, 2, 20], 2) },
    { index: 5, t0: 1_050_000, block: packCounts([3, 30, -4, 40], 2) }
  ])
  assert.strictEqual((await end(session)).status, 200)
  return session
}

const problemOf = async (answer: Response): Promise<{ type: string; detail: string; errors?: Array<object> }> =>
  answer.json()

const unknownId = "00000000-0000-4000-8000-000000000000"

// ---- The contract and the declaration

type Json = Record<string, unknown>
const isObject = (u: unknown): u is Json => typeof u === "object" && u !== null && !Array.isArray(u)
const parts = (u: unknown): Json => isObject(u) ? u : {}
const listOf = (u: unknown): ReadonlyArray<unknown> => Array.isArray(u) ? u : []

const annotations = new Set([
  "title",
  "description",
  "default",
  "example",
  "examples",
  "nullable",
  "x-line-schema",
  "x-event-schema"
])
const unionOf = (alternatives: ReadonlyArray<unknown>): unknown => {
  const flat = alternatives.flatMap((one) => isObject(one) && "either" in one ? listOf(one["either"]) : [one])
  const sorted = flat.toSorted((a, b) => JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)
  return sorted.length === 1 ? sorted[0] : { either: sorted }
}

/** Both of two schemas of one value, as far as the contract says it so. */
const both = (a: Json, b: Json): Json => {
  const merged: Json = { ...a }
  for (const [key, value] of Object.entries(b)) {
    const known = merged[key]
    merged[key] = key === "enum" && known !== undefined
      ? listOf(known).filter((one) => listOf(value).includes(one))
      : isObject(known) && isObject(value)
      ? both(known, value)
      : value
  }
  return merged
}

/** One spelling for what OpenAPI 3.0 by hand and 3.1 by `OpenApi.fromApi` write differently. */
const canonical = (u: unknown): unknown => {
  if (!isObject(u)) return u
  const { allOf, ...beside } = u
  if (Array.isArray(allOf)) return canonical(allOf.map(parts).reduce(both, beside))
  const alternatives = u["anyOf"] ?? u["oneOf"]
  if (Array.isArray(alternatives)) return unionOf(alternatives.map(canonical))
  if (listOf(u["enum"])[0] === null) return { type: "null" }
  if (u["nullable"] === true) return unionOf([canonical({ ...u, nullable: false }), { type: "null" }])
  const schema: Json = {}
  for (const [key, value] of Object.entries(u)) {
    if (annotations.has(key)) continue
    if ((key === "minimum" || key === "maximum") && Math.abs(Number(value)) === Number.MAX_SAFE_INTEGER) continue
    // What values there are says what type they have.
    if (key === "type" && u["enum"] !== undefined) continue
    schema[key] = key === "properties"
      ? Object.fromEntries(Object.entries(parts(value)).map(([name, property]) => [name, canonical(property)]))
      : key === "required" || key === "enum"
      ? listOf(value).map(String).toSorted((a, b) => a < b ? -1 : 1)
      : isObject(value)
      ? canonical(value)
      : value
  }
  // An object without properties, and one of anything: the same, whatever says it.
  if (schema["type"] === "object" && schema["properties"] === undefined) return { type: "object" }
  return schema
}

/** In a URL a boolean is one of two texts, and a whole number is digits. */
const inQuery = (schema: unknown): unknown => {
  const { type, minimum } = parts(schema)
  if (type === "boolean") return { enum: ["false", "true"] }
  if (type !== "integer") return canonical(schema)
  return { type: "string", pattern: minimum === 0 ? "^(0|[1-9]\\d{0,15})$" : "^[1-9]\\d{0,15}$" }
}

const contentOf = (of: unknown): unknown =>
  Object.fromEntries(
    Object.entries(parts(parts(of)["content"])).map(([type, media]) => [type, canonical(parts(media)["schema"])])
  )

/** All that callers can rely on, of either document. */
const operationsOf = (document: Json): Json =>
  Object.fromEntries(
    Object.entries(parts(document["paths"])).flatMap(([path, item]) =>
      Object.entries(parts(item)).map(([method, of]) => {
        const operation = parts(of)
        return [`${method} ${path}`, {
          operationId: operation["operationId"],
          tags: operation["tags"],
          security: operation["security"] ?? [],
          parameters: listOf(operation["parameters"]).map(parts).map((parameter) => ({
            name: parameter["in"] === "header" ? String(parameter["name"]).toLowerCase() : parameter["name"],
            in: parameter["in"],
            required: parameter["required"] ?? false,
            schema: inQuery(parameter["schema"])
          })).toSorted((a, b) => String(a.name) < String(b.name) ? -1 : 1),
          requestBody: operation["requestBody"] === undefined
            ? undefined
            : { required: parts(operation["requestBody"])["required"], content: contentOf(operation["requestBody"]) },
          responses: Object.fromEntries(
            Object.entries(parts(operation["responses"])).map(([status, response]) => [status, contentOf(response)])
          )
        }]
      })
    )
  )

describe("the contract", () => {
  it("says of every operation, parameter, status, media type and schema what the server declares", () => {
    const [byHand, byServer] = [operationsOf(contract), operationsOf(parts(declared()))]
    assert.deepStrictEqual(Object.keys(byServer).toSorted(), Object.keys(byHand).toSorted())
    for (const [operation, expected] of Object.entries(byHand)) {
      assert.deepStrictEqual(byServer[operation], expected, operation)
    }
    const schemes = parts(parts(contract["components"])["securitySchemes"])
    assert.deepStrictEqual(Object.keys(schemes), Object.keys(declared().components.securitySchemes))
  })

  it("has examples that are what their schemas say", () => {
    let examples = 0
    const visit = (at: string, u: unknown): void => {
      if (Array.isArray(u)) u.forEach((one, i) => visit(`${at}/${i}`, one))
      if (!isObject(u)) return
      const { schema, example, examples: named, "x-line-schema": lineSchema } = u
      const values = [
        ...(example === undefined ? [] : [example]),
        ...Object.values(parts(named)).map((one) => parts(one)["value"])
      ]
      for (const value of schema === undefined ? [] : values) {
        examples++
        mustBe(at, parts(schema), value)
        if (lineSchema === undefined) continue
        for (const line of lines(String(value))) mustBe(at, parts(lineSchema), JSON.parse(line))
      }
      for (const [key, value] of Object.entries(u)) if (!key.startsWith("example")) visit(`${at}/${key}`, value)
    }
    visit("", contract["paths"])
    assert.isAbove(examples, 5)
  })

  it("is served byte for byte, and as JSON", async () => {
    const yaml = await get("/openapi.yml")
    assert.deepStrictEqual(new Uint8Array(await yaml.arrayBuffer()), new Uint8Array(contractText))
    const json = await get("/openapi.json")
    assert.deepStrictEqual(await json.json(), Yaml.parse(new TextDecoder().decode(contractText)))
  })

  it("has a page to read that asks no other server", async () => {
    const page = await get("/docs")
    const html = await page.text()
    assert.include(html, "\"operationId\":\"createSession\"")
    assert.notMatch(html, /<(?:script|link|img|iframe)[^>]+(?:src|href)\s*=\s*["']?(?:https?:)?\/\//)
    assert.match(page.headers.get("content-security-policy") ?? "", /default-src 'none'.*connect-src 'self'/)
    const root = await get("/")
    assert.deepStrictEqual([root.status, root.headers.get("location")], [303, "/docs"])
  })
})

describe("sessions", () => {
  it("are created with what was said, and with defaults for what was not", async () => {
    const answer = await post("/sessions", { rate: 31.25, name: "porch", sensor: "ADXL355", gravity: true, tick: 10 })
    const { session, ingestKey, links } = await answer.json()
    const channel = { unit: "m/s²", scale: 1, offset: 0 }
    assert.deepInclude(session, {
      state: "live",
      rate: 31.25,
      name: "porch",
      sensor: "ADXL355",
      gravity: true,
      tick: 10,
      channels: ["x", "y", "z"].map((name) => ({ name, ...channel })),
      received: "0:0",
      durable: "0:0",
      samples: 0,
      publishing: false,
      links
    })
    assert.strictEqual(answer.headers.get("location"), `${base}/sessions/${session.id}`)
    assert.strictEqual(links.live, `${base.replace("http", "ws")}/sessions/${session.id}/live`)
    assert.match(ingestKey, /^[\w-]{43}$/)
    const again = await (await get(`/sessions/${session.id}`)).json()
    assert.deepStrictEqual(again, session)
  })

  it.each<[unknown, string, string]>([
    [{}, "#/rate", "Missing key"],
    ["", "#", ""],
    ["{\"rate\":", "#", "valid JSON"],
    [[], "#", ""],
    [{ rate: 0 }, "#/rate", ""],
    [{ rate: 1e9 }, "#/rate", ""],
    ["{\"rate\":1e999}", "#/rate", ""],
    [{ rate: 100, tick: 1.5 }, "#/tick", ""],
    [{ rate: 100, colour: "red" }, "#/colour", ""],
    [{ rate: 100, channels: [] }, "#/channels", ""],
    [{ rate: 100, channels: Array.from({ length: 17 }, (_, i) => ({ name: `c${i}` })) }, "#/channels", ""],
    [{ rate: 100, channels: [{ name: "x" }, { name: "x" }] }, "#/channels/1/name", "unique"],
    [{ rate: 100, channels: [{ name: "time" }] }, "#/channels/0/name", "another column"],
    [{ rate: 100, channels: [{ name: "a\u001b[2J" }] }, "#/channels/0/name", "control character"],
    [{ rate: 100, channels: [{ name: "\ud800" }] }, "#/channels/0/name", "control character"],
    [{ rate: 100, channels: [{ name: "x".repeat(33) }] }, "#/channels/0/name", ""],
    [{ rate: 100, channels: [{ name: "x", unit: "m".repeat(17) }] }, "#/channels/0/unit", ""],
    [{ rate: 100, channels: [{ name: "x", scale: 0 }] }, "#/channels/0/scale", "must not be 0"],
    [{ rate: 100, channels: [{ name: "x", "a/b~c": 1 }] }, "#/channels/0/a~1b~0c", ""],
    [{ rate: 100, gravity: "yes" }, "#/gravity", ""],
    ["{\"rate\":100,\"\\ud800\":1}", "#/%EF%BF%BD", ""]
  ])("are refused for %j, and the value is named", async (body, pointer, said) => {
    const answer = await post("/sessions", body)
    assert.strictEqual(answer.status, 400)
    const { detail, errors } = await problemOf(answer)
    const named = parts(errors?.[0])
    assert.strictEqual(named["pointer"], pointer)
    assert.include(String(named["detail"]), said)
    assert.include(detail, "Cannot read the body")
  })

  it("name at most 32 of the values that do not fit", async () => {
    const body = { rate: 100, ...Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`unknown${i}`, i])) }
    const { detail, errors } = await problemOf(await post("/sessions", body))
    assert.lengthOf(errors ?? [], 32)
    assert.match(detail, /and 496 more$/)
  })

  it("count characters, not code units", async () => {
    const channels = [{ name: "🜁".repeat(32), unit: "µ".repeat(16) }]
    assert.strictEqual((await post("/sessions", { rate: 1, channels })).status, 201)
  })

  it("take bodies up to 64 KiB, of JSON, as they are", async () => {
    const large = JSON.stringify({ rate: 100, name: "x".repeat(70_000) })
    assert.strictEqual((await post("/sessions", large)).status, 413)
    const chunked = new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(large))
        controller.close()
      }
    })
    // Node's fetch wants to be told of the duplex, its type does not know the word.
    const streaming: RequestInit & { duplex: "half" } = {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: chunked,
      duplex: "half"
    }
    const streamed = await checkedFetch(base, "/sessions", streaming)
    assert.strictEqual(streamed.status, 413)
    assert.strictEqual((await post("/sessions", "rate=1", { "content-type": "text/plain" })).status, 415)
    assert.strictEqual((await post("/sessions", "{}", { "content-encoding": "gzip" })).status, 415)
    assert.strictEqual(
      (await post("/sessions", { rate: 1 }, { "content-type": "application/json; charset=utf-8" })).status,
      201
    )
  })

  it("are not found by what is no id of one", async () => {
    for (
      const id of [unknownId, "1", unknownId.toUpperCase().replace("0000-4", "ABCD-4"), "x".repeat(300), "%00", "%zz"]
    ) {
      assert.strictEqual((await get(`/sessions/${id}`)).status, 404, id)
    }
    assert.match((await problemOf(await get("/sessions/1/data"))).detail, /Cannot find the session "1"/)
  })

  it("end by their key, once and for all", async () => {
    const session = await create()
    await publish(session, [{ index: 0, block: packCounts([1, 2, 3], 3) }])
    const path = `/sessions/${session.id}/end`
    const bare = await post(path, "")
    assert.deepStrictEqual([bare.status, bare.headers.get("www-authenticate")], [401, "Bearer"])
    assert.strictEqual((await post(path, "", { authorization: "Basic eDp5" })).status, 401)
    assert.strictEqual((await post(path, "", { authorization: `Bearer ${session.key}x` })).status, 403)
    assert.strictEqual((await end({ ...session, id: unknownId })).status, 404)
    const ended = await (await end(session)).json()
    assert.deepInclude(ended, { state: "ended", durable: "0:1", samples: 1 })
    assert.deepStrictEqual(await (await end(session)).json(), ended)
  })

  it("do not end while what they received is not stored", async () => {
    const session = await create()
    trouble = "commits"
    const sent = publish(session, [{ index: 0, block: packCounts([1, 2, 3], 3) }])
    await new Promise((resolve) => setTimeout(resolve, 50))
    const answer = await end(session)
    assert.strictEqual(answer.status, 503)
    assert.strictEqual((await problemOf(answer)).type, "/problems/not-flushed")
    trouble = "none"
    await sent
    assert.deepInclude(await (await end(session)).json(), { state: "ended", samples: 1 })
  })
})

/** A sealed session of 30,000 noisy samples in many chunks. */
const noisy = async (): Promise<Created> => {
  const session = await create()
  await publish(
    session,
    Array.from({ length: 300 }, (_, i) => ({
      index: i * 100,
      block: packCounts(Array.from({ length: 300 }, (_, j) => Math.imul(i * 300 + j, 0x9e3779b1) >> 18), 3)
    }))
  )
  await end(session)
  return session
}

/** The bytes as they came, and whether the answer ended. `fetch` would decode them. */
const rawGet = (path: string, headers: Record<string, string>) =>
  new Promise<{ answer: IncomingMessage; bytes: Buffer; isWhole: boolean }>((resolve, reject) => {
    request(`${base}${path}`, { headers }, (answer) => {
      const pieces: Array<Buffer> = []
      answer.on("data", (piece: Buffer) => pieces.push(piece))
      answer.on("error", () => {})
      answer.on("close", () => resolve({ answer, bytes: Buffer.concat(pieces), isWhole: answer.complete }))
    }).on("error", reject).end()
  })

describe("data", () => {
  it("is JSON with session, columns, rows, gaps and their number", async () => {
    const { id } = await sealed()
    const answer = await get(`/sessions/${id}/data`)
    const data = await answer.json()
    assert.deepInclude(data, {
      columns: ["position", "device_time", "time", "x", "y"],
      gaps: [{ from: "0:2", to: "0:5", reason: "device" }],
      samples: 4,
      complete: true
    })
    assert.notInclude(Object.keys(data.session), "links")
    assert.deepInclude(data.session, { id, state: "ended", rate: 100 })
    const cells = data.rows.map(([position, device, , ...values]: Array<unknown>) => [position, device, ...values])
    assert.deepStrictEqual(cells, [
      ["0:0", 1_000_000, 1.5, 10],
      ["0:1", 1_010_000, 2, 20],
      ["0:5", 1_050_000, 2.5, 30],
      ["0:6", 1_060_000, -1, 40]
    ])
    const [first, last] = [data.rows[0][2], data.rows[3][2]]
    assert.match(first, /^2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
    assert.strictEqual(Math.round(Date.parse(last) - Date.parse(first)), 60)
  })

  it("is CSV with units, and a row for each gap", async () => {
    const { id } = await sealed()
    const answer = await get(`/sessions/${id}/data`, { accept: "text/csv" })
    const text = await answer.text()
    const lines = text.replace(/2\d{3}-[^,]+Z/g, "T").split("\n")
    assert.deepStrictEqual(lines, [
      "position,device_time (µs),time,x (m/s²),y (g)",
      "0:0,1000000,T,1.5,10",
      "0:1,1010000,T,2,20",
      "0:2/0:5,,,,",
      "0:5,1050000,T,2.5,30",
      "0:6,1060000,T,-1,40",
      ""
    ])
    assert.strictEqual(answer.headers.get("content-type"), "text/csv; charset=utf-8; header=present")
    assert.strictEqual(answer.headers.get("content-disposition"), `attachment; filename="thrum-${id.slice(0, 8)}.csv"`)
  })

  it("is NDJSON with an end that says whether it is one", async () => {
    const { id } = await sealed()
    const answer = await get(`/sessions/${id}/data?format=ndjson&values=counts`, { accept: "text/csv" })
    const lines = (await answer.text()).trimEnd().split("\n").map((line): Json => JSON.parse(line))
    assert.deepStrictEqual(lines.map((line) => Object.keys(line)[0]), [
      "session",
      "position",
      "position",
      "gap",
      "position",
      "position",
      "end"
    ])
    assert.deepStrictEqual([lines[1]!["x"], lines[1]!["y"], lines[5]!["x"]], [1, 10, -4])
    assert.deepStrictEqual(lines[6], { end: { complete: true, samples: 4 } })
    assert.strictEqual(answer.headers.get("thrum-samples"), "4")
  })

  it("is the device's own frames", async () => {
    const { id } = await sealed()
    const bytes = new Uint8Array(await (await get(`/sessions/${id}/data?format=frames`)).arrayBuffer())
    const frames = viewerFrames(bytes)
    assert.deepStrictEqual(frames.map((frame) => frame.kind), [
      kinds.viewerWelcome,
      kinds.epoch,
      kinds.samples,
      kinds.gap,
      kinds.samples,
      kinds.ended
    ])
    assert.deepInclude(frames[5], { position: { epoch: 0, index: 7 } })
    const block = packCounts([1, 10, 2, 20], 2)
    if (isFrameError(block)) throw new Error(block.message)
    const sent = Buffer.from(encodeSamples(0, 1_000_000, block))
    assert.isAbove(Buffer.from(bytes).indexOf(sent), 0)
  })

  it("is written with the digits the device measured, and with the numbers that are none", async () => {
    const session = await create({
      rate: 50,
      channels: [{ name: "a,\"b\"", unit: "" }, { name: "=1+1", unit: "m/s²" }]
    })
    const floats = Float32Array.of(0.1, -9.80665, Number.NaN, Number.POSITIVE_INFINITY, -0, Number.NEGATIVE_INFINITY)
    await publish(session, [
      { index: 0, block: packFloats(floats, 2) },
      { index: 3, block: packFloats([0.057, -0.219, 1e-7, 3], 2) }
    ])
    await end(session)
    const csv = await (await get(`/sessions/${session.id}/data?format=csv`)).text()
    assert.deepStrictEqual(csv.replace(/2\d{3}-[^,]+Z/g, "T").split("\n"), [
      "position,device_time (µs),time,\"a,\"\"b\"\"\",=1+1 (m/s²)",
      "0:0,,T,0.1,-9.80665",
      "0:1,,T,NaN,Infinity",
      "0:2,,T,-0,-Infinity",
      "0:3,,T,0.057,-0.219",
      "0:4,,T,0.0000001,3",
      ""
    ])
    const { rows } = await (await get(`/sessions/${session.id}/data?values=counts`)).json()
    assert.deepStrictEqual(
      rows.map((row: Array<unknown>) => [row[1], ...row.slice(3)]),
      [[null, 0.1, -9.80665], [null, "NaN", "Infinity"], [null, -0, "-Infinity"], [null, 0.057, -0.219], [
        null,
        1e-7,
        3
      ]]
    )
  })

  it("has the device's own times where frames carry them, and a new clock in each epoch", async () => {
    const session = await create({ rate: 100, tick: 1000, channels: [{ name: "x" }] })
    await publish(session, [
      { index: 0, t0: 500_000, block: packCounts([1, 2, 3], 1, { times: [0, 11, 19] }) },
      { index: 3, block: packCounts([4], 1, { times: [0] }) }
    ])
    await publish(session, [{ index: 0, t0: 7, block: packCounts([5, 6], 1) }], "2")
    await end(session)
    const { rows, gaps } = await (await get(`/sessions/${session.id}/data`)).json()
    assert.deepStrictEqual(rows.map(([position, device, , x]: Array<unknown>) => [position, device, x]), [
      ["0:0", 500_000, 1],
      ["0:1", 511_000, 2],
      ["0:2", 519_000, 3],
      ["0:3", null, 4],
      ["1:0", 7, 5],
      ["1:1", 10_007, 6]
    ])
    assert.deepStrictEqual(gaps, [])
    const micros = (i: number): number =>
      Date.parse(`${String(rows[i][2]).slice(0, 19)}Z`) * 1000 + Number(String(rows[i][2]).slice(20, 26))
    assert.deepStrictEqual([micros(1) - micros(0), micros(3) - micros(0)], [11_000, 30_000])
  })

  it("has no time where the calendar ends", async () => {
    const session = await create({ rate: 1, channels: [{ name: "x" }] })
    await publish(session, [
      { index: 0, block: packCounts([1], 1) },
      { index: 2 ** 52, block: packCounts([2], 1) },
      { index: 2 ** 52 + 1, t0: Number.MAX_SAFE_INTEGER, block: packCounts([3, 4], 1) }
    ])
    await end(session)
    const { rows, gaps } = await (await get(`/sessions/${session.id}/data`)).json()
    assert.deepStrictEqual(rows.slice(1), [
      [`0:${2 ** 52}`, null, null, 2],
      [`0:${2 ** 52 + 1}`, Number.MAX_SAFE_INTEGER, null, 3],
      [`0:${2 ** 52 + 2}`, Number.MAX_SAFE_INTEGER + 1e6, null, 4]
    ])
    assert.deepStrictEqual(gaps, [{ from: "0:1", to: `0:${2 ** 52}`, reason: "device" }])
  })

  it("of a live session is refused, unless a part will do", async () => {
    const session = await create({ rate: 100, channels: [{ name: "x" }] })
    const path = `/sessions/${session.id}/data`
    const refused = await get(path)
    assert.strictEqual(refused.status, 409)
    assert.match((await problemOf(refused)).detail, /POST \/sessions\/.*\/end.*partial=true/)
    const empty = await (await get(`${path}?partial=true`)).json()
    assert.deepInclude(empty, { rows: [], gaps: [], samples: 0, complete: false })
    await publish(session, [{ index: 3, block: packCounts([1, 2], 1) }])
    const answer = await get(`${path}?partial=true`)
    assert.deepStrictEqual([answer.headers.get("cache-control"), answer.headers.get("etag")], ["no-store", null])
    assert.deepInclude(await answer.json(), {
      samples: 2,
      complete: false,
      gaps: [{ from: "0:0", to: "0:3", reason: "device" }]
    })
    const frames = new Uint8Array(await (await get(`${path}?partial=true&format=frames`)).arrayBuffer())
    assert.notInclude(viewerFrames(frames).map((frame) => frame.kind), kinds.ended)
    const lines = (await (await get(`${path}?partial=true&format=ndjson`)).text()).trimEnd().split("\n")
    assert.strictEqual(lines.at(-1), "{\"end\":{\"complete\":false,\"samples\":2}}")
  })

  it("of a sealed session is the same for ever, and may be kept for ever", async () => {
    const { id } = await sealed()
    const tags = new Set<string>()
    for (const query of ["format=json", "format=csv", "format=ndjson", "format=frames", "format=csv&values=counts"]) {
      const path = `/sessions/${id}/data?${query}`
      const [one, two] = [await get(path), await get(path, { host: "elsewhere.example", "if-none-match": "\"other\"" })]
      const etag = one.headers.get("etag") ?? ""
      tags.add(etag)
      assert.strictEqual(one.headers.get("cache-control"), "public, max-age=31536000, immutable")
      assert.strictEqual(two.headers.get("etag"), etag)
      assert.deepStrictEqual(await one.arrayBuffer(), await two.arrayBuffer())
      for (const named of [etag, `W/${etag}`, `"other", ${etag}`, "*"]) {
        assert.strictEqual((await get(path, { "if-none-match": named })).status, 304, named)
      }
    }
    assert.strictEqual(tags.size, 5)
  })

  it("comes in the format that Accept wants most", async () => {
    const { id } = await sealed()
    const typeFor = async (accept: string, query = ""): Promise<string | undefined> =>
      (await get(`/sessions/${id}/data${query}`, { accept })).headers.get("content-type")?.split(";")[0]
    assert.strictEqual(await typeFor("*/*"), "application/json")
    assert.strictEqual(await typeFor("text/*"), "text/csv")
    assert.strictEqual(await typeFor("application/json;q=0.2, text/csv;q=0.7"), "text/csv")
    assert.strictEqual(await typeFor("application/json;q=0, */*;q=0.1"), "text/csv")
    assert.strictEqual(await typeFor("application/vnd.thrum.frames"), "application/vnd.thrum.frames")
    assert.strictEqual(await typeFor("text/html", "?format=ndjson"), "application/x-ndjson")
    const refused = await get(`/sessions/${id}/data`, { accept: "text/html, application/*;q=0" })
    assert.strictEqual(refused.status, 406)
    assert.match((await problemOf(refused)).detail, /application\/json \(format=json\), text\/csv/)
  })

  it("is refused for queries the contract does not know", async () => {
    for (const query of ["format=xml", "partial=yes", "values=", "parital=true", "format=csv&format=json"]) {
      const answer = await get(`/sessions/${unknownId}/data?${query}`)
      assert.strictEqual(answer.status, 400, query)
      assert.property((await problemOf(answer)).errors?.[0], "parameter")
    }
  })

  const allFormats = ["json", "csv", "ndjson", "frames", "arrow", "parquet", "wav"]

  it.each(allFormats)("is cut as %s, never ended, when the archive fails on the way", async (format) => {
    const { id } = await noisy()
    const path = `/sessions/${id}/data?format=${format}`
    pagesRead = 0
    assert.strictEqual((await get(path)).headers.get("thrum-samples"), "30000")
    const pages = pagesRead
    for (const before of [1, 5]) {
      // Some formats look through all of it first: what fails then is told, and what fails here is the writing.
      pagesLeft = pages - before
      logged.length = 0
      const failure = await fetch(`${base}${path}`).then((answer) => answer.arrayBuffer()).then(
        () => undefined,
        (error: unknown) => error
      )
      assert.instanceOf(failure, TypeError)
      assert.lengthOf(logged.filter((line) => line.startsWith("Cannot finish sending data")), 1)
    }
    pagesLeft = 0
    if (format === "wav") assert.strictEqual((await get(path)).status, 503)
  })

  const decoders: Readonly<Record<string, (bytes: Buffer) => Buffer>> = {
    zstd: zstdDecompressSync,
    br: brotliDecompressSync,
    gzip: gunzipSync
  }

  it.each(Object.keys(decoders))("comes in %s to who asks for it, the same to the byte", async (coding) => {
    const { id } = await noisy()
    for (const format of allFormats) {
      const path = `/sessions/${id}/data?format=${format}`
      const plain = await rawGet(path, {})
      const coded = await rawGet(path, { "accept-encoding": coding })
      const isCoded = ["json", "csv", "ndjson", "arrow"].includes(format)
      assert.strictEqual(plain.answer.headers["content-encoding"], undefined)
      assert.strictEqual(coded.answer.headers["content-encoding"], isCoded ? coding : undefined)
      assert.strictEqual(coded.answer.headers.etag !== plain.answer.headers.etag, isCoded, "a strong ETag is of bytes")
      assert.strictEqual(coded.answer.headers.vary, "Accept, Accept-Encoding")
      const decoded = isCoded ? decoders[coding]!(coded.bytes) : coded.bytes
      assert.isTrue(decoded.equals(plain.bytes), format)
      if (isCoded) assert.isBelow(coded.bytes.length, plain.bytes.length * 0.7, format)

      const { etag = "" } = coded.answer.headers
      const head = await checkedFetch(base, path, { method: "HEAD", headers: { "accept-encoding": coding } })
      assert.deepStrictEqual(
        [head.headers.get("etag"), head.headers.get("content-encoding")],
        [etag, isCoded ? coding : null]
      )
      const again = { "accept-encoding": coding, "if-none-match": etag }
      assert.strictEqual((await get(path, again)).status, 304)
      const other = await get(path, { "accept-encoding": "identity", "if-none-match": etag })
      assert.strictEqual(other.status, isCoded ? 200 : 304)
    }
  })

  it.each(Object.keys(decoders))("is cut in %s too: what came cannot be decoded to an end", async (coding) => {
    const { id } = await noisy()
    for (const format of ["json", "csv", "ndjson", "arrow"]) {
      const path = `/sessions/${id}/data?format=${format}`
      pagesRead = 0
      await rawGet(path, {})
      pagesLeft = pagesRead - 1
      const { bytes, isWhole } = await rawGet(path, { "accept-encoding": coding })
      pagesLeft = Number.POSITIVE_INFINITY
      assert.isAbove(bytes.length, 0)
      assert.isFalse(isWhole)
      assert.throws(() => decoders[coding]!(bytes))
    }
  })

  it("is a file of a format by its extension", async () => {
    const { id } = await sealed()
    const file = `/sessions/${id}/data.csv`
    const [byPath, byFormat] = await Promise.all([get(file), get(`/sessions/${id}/data?format=csv`)])
    assert.strictEqual(await byPath.text(), await byFormat.text())
    const etag = byPath.headers.get("etag") ?? ""
    assert.strictEqual((await get(file, { "if-none-match": etag })).status, 304)
    assert.strictEqual((await get(`${file}?format=csv`)).status, 400)
    const unfit = await get(`/sessions/${id}/data.wav`)
    assert.strictEqual(unfit.status, 409)
    assert.match((await problemOf(unfit)).detail, /the sample at 0:5 does not follow the one before it/)
    assert.strictEqual(
      (await problemOf(await get(`/sessions/${unknownId}/data.csv`))).type,
      "/problems/session-not-found"
    )
    assert.strictEqual((await problemOf(await get(`/sessions/${id}/data.xml`))).type, "/problems/route-not-found")
  })

  it("is served whole to who asks for a range of bytes, and says that before", async () => {
    const { id } = await sealed()
    for (const format of allFormats) {
      const path = `/sessions/${id}/data?format=${format}`
      const whole = await rawGet(path, {})
      for (const more of [{}, { "if-range": whole.answer.headers.etag ?? "" }]) {
        const part = await rawGet(path, { range: "bytes=2-5", ...more })
        assert.strictEqual(part.answer.statusCode, format === "wav" ? 409 : 200)
        if (format === "wav") continue
        assert.strictEqual(part.answer.headers["accept-ranges"], "none")
        assert.isTrue(part.bytes.equals(whole.bytes))
      }
    }
  })

  it("waits for who does not read, and stops for who goes", async () => {
    const session = await create({ rate: 1000, channels: [{ name: "x" }, { name: "y" }, { name: "z" }] })
    const block = packCounts(Array.from({ length: 3000 }, (_, i) => i % 1000), 3)
    const count = 400
    await publish(session, Array.from({ length: count }, (_, i) => ({ index: i * 1000, block })))
    await end(session)
    pagesRead = 0
    const answer = await new Promise<IncomingMessage>((resolve) => {
      request(`${base}/sessions/${session.id}/data`, resolve).end()
    })
    // Until no more was read for a while: what fits in the buffers on the way has gone.
    let before = -1
    while (before !== pagesRead) {
      before = pagesRead
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
    assert.isAbove(pagesRead, 0)
    assert.isBelow(pagesRead, count)
    answer.destroy()
    await new Promise((resolve) => setTimeout(resolve, 200))
    assert.isAtMost(pagesRead, before + 1)
  })

  it("comes unharmed to who reads in fits and starts", async () => {
    const { id } = await noisy()
    for (const format of ["json", "frames", "arrow", "parquet"]) {
      const path = `/sessions/${id}/data?format=${format}`
      const whole = await rawGet(path, {})
      const slow = await new Promise<Buffer>((resolve, reject) => {
        request(`${base}${path}`, (answer) => {
          const pieces: Array<Buffer> = []
          answer.on("data", (piece: Buffer) => {
            pieces.push(piece)
            if (pieces.length % 8 !== 0) return
            answer.pause()
            setTimeout(() => answer.resume(), 5)
          })
          answer.on("end", () => resolve(Buffer.concat(pieces)))
          answer.on("error", reject)
        }).on("error", reject).end()
      })
      assert.isTrue(slow.equals(whole.bytes), format)
    }
  })

  it("is announced by HEAD", async () => {
    const { id } = await sealed()
    const [head, whole] = await Promise.all(
      ["HEAD", "GET"].map((method) => checkedFetch(base, `/sessions/${id}/data?format=csv`, { method }))
    )
    for (const name of ["etag", "content-type", "content-disposition", "thrum-samples", "cache-control", "vary"]) {
      assert.strictEqual(head!.headers.get(name), whole!.headers.get(name))
    }
  })
})

describe("sockets", () => {
  it("open for those who ask for one, and tell the others", async () => {
    const { id } = await create()
    for (const door of ["ingest", "live"]) {
      assert.strictEqual((await checkedUpgrade(base, `/sessions/${id}/${door}`)).status, 101)
      assert.strictEqual((await checkedUpgrade(base, `/sessions/${unknownId}/${door}`)).status, 404)
    }
    const plain = await get(`/sessions/${id}/ingest`)
    assert.deepStrictEqual([plain.status, plain.headers.get("upgrade")], [426, "websocket"])
    assert.strictEqual(
      (await checkedUpgrade(base, `/sessions/${id}/live?from=0:12&format=json&policy=latest`)).status,
      101
    )
    for (const query of ["from=yesterday", "from=0:-1", "from=9999999999:0", "format=xml", "policy=all", "form=now"]) {
      assert.strictEqual((await checkedUpgrade(base, `/sessions/${id}/live?${query}`)).status, 400, query)
    }
    assert.strictEqual((await checkedUpgrade(base, "/nowhere")).status, 404)
  })
})

describe("everywhere", () => {
  it("what is not in the contract is not there", async () => {
    for (const path of ["/nowhere", "/sessions/", "//sessions", "/sessions/x/y/z", "/SESSIONS", "/openapi"]) {
      const answer = await get(path)
      assert.strictEqual(answer.status, 404, path)
      assert.strictEqual((await problemOf(answer)).type, "/problems/route-not-found")
    }
  })

  it("another method is told which there are", async () => {
    const answer = await checkedFetch(base, `/sessions/${unknownId}/data`, { method: "DELETE" })
    assert.deepStrictEqual([answer.status, answer.headers.get("allow")], [405, "GET, HEAD, OPTIONS"])
    assert.strictEqual((await get("/sessions")).headers.get("allow"), "POST, OPTIONS")
    assert.strictEqual((await checkedFetch(base, "/sessions", { method: "HEAD" })).status, 405)
    assert.strictEqual((await checkedFetch(base, "/healthz", { method: "POST", body: "{}" })).status, 405)
  })

  it("pages of other origins may ask", async () => {
    const answer = await checkedFetch(base, "/sessions", {
      method: "OPTIONS",
      headers: { origin: "https://elsewhere.example", "access-control-request-method": "POST" }
    })
    assert.strictEqual(answer.headers.get("access-control-allow-methods"), "POST, OPTIONS")
    assert.include(answer.headers.get("access-control-allow-headers") ?? "", "Authorization")
    assert.strictEqual((await checkedFetch(base, "/nowhere", { method: "OPTIONS" })).status, 404)
  })

  it("an archive that cannot be reached is 503, one that fails in another way 500, and neither says how", async () => {
    const session = await create()
    const asks: ReadonlyArray<() => Promise<{ readonly status: number }>> = [
      () => post("/sessions", { rate: 1 }),
      () => get(`/sessions/${session.id}`),
      () => get(`/sessions/${session.id}/data`),
      () => get(`/sessions/${session.id}/data.csv`),
      () => end(session),
      () => checkedUpgrade(base, `/sessions/${session.id}/ingest`),
      () => checkedUpgrade(base, `/sessions/${session.id}/live`),
      () => get("/readyz")
    ]
    for (const [what, status] of [["down", 503], ["broken", 500]] as const) {
      trouble = what
      for (const ask of asks) {
        const answer = await ask()
        assert.strictEqual(answer.status, status, `${what} ${ask.toString()}`)
        if (answer instanceof Response) assert.notMatch(await answer.text(), /ECONNREFUSED|10\.0\.0\.5/)
      }
    }
    assert.strictEqual((await get("/metrics")).status, 500)
    const { instance } = await (await get("/readyz")).json()
    assert.isTrue(logged.some((line) => line.includes(instance)))
    assert.isFalse(logged.some((line) => line.includes(session.id) || line.includes(session.key)))
  })
})

describe("service", () => {
  it("lives, and is ready while the archive answers and nobody shuts it down", async () => {
    assert.deepStrictEqual(await (await get("/healthz")).json(), { status: "alive" })
    const ready = await get("/readyz")
    assert.deepStrictEqual(await ready.json(), { database: "reachable", synchronousCommit: "memory", durable: false })
    trouble = "silent"
    const began = performance.now()
    assert.strictEqual((await get("/readyz")).status, 503)
    assert.closeTo(performance.now() - began, 2000, 500)
    trouble = "none"
    isDraining = true
    const draining = await get("/readyz")
    assert.deepStrictEqual([draining.status, draining.headers.get("retry-after")], [503, "2"])
    assert.strictEqual((await problemOf(draining)).type, "/problems/draining")
    assert.strictEqual((await get("/healthz")).headers.get("connection"), "close")
  })

  it("counts in Prometheus' format", async () => {
    const text = await (await get("/metrics")).text()
    for (const line of text.trimEnd().split("\n")) {
      assert.match(line, /^(# (HELP|TYPE) thrum_[a-z_]+ .+|thrum_[a-z_]+(\{.*\})? [\d.e+-]+)$/)
    }
    assert.match(text, /^thrum_queue_frames_total [1-9]\d*$/m)
    assert.match(text, /^# TYPE thrum_viewers gauge$/m)
  })
})

const rig: Rig = {
  base: () => base,
  get,
  post,
  create,
  publish,
  end,
  setTrouble: (what) => {
    isDraining = what === "draining"
    trouble = what === "draining" ? "none" : what
  }
}

describeExamples(rig)
describeRanges(rig)
describeStreams(rig)
describeFrames(rig)
describeSummaries(rig)

describe("this file", () => {
  it("has met every answer in the contract", () => {
    // The page is made of text that is here already: there is no way to make that fail.
    const never = new Set(["GET /docs 500"])
    assert.deepStrictEqual(answersDeclared.filter((answer) => !answersSeen.has(answer) && !never.has(answer)), [])
  })
})

function viewerFrames(bytes: Uint8Array): ReadonlyArray<ViewerFrame> {
  const cut = cutFrames(bytes, protocolLimits.messageBytesMax.value)
  if (isFrameError(cut)) throw new Error(cut.message)
  return cut.frames.map((one) => {
    const frame = readViewerFrame(one)
    if (isFrameError(frame)) throw new Error(frame.message)
    return frame
  })
}
