/**
 * The contract's files as others use them: linters pass them, a generator makes a client of them that works, and the
 * frames they describe are the frames there are.
 */
import { createConfig, lint } from "@redocly/openapi-core"
import { Archive } from "@thrum/core"
import { encodeSamples, isFrameError, kinds, packCounts } from "@thrum/protocol"
import { Effect, Exit, Layer, Logger, Scope } from "effect"
import * as Yaml from "effect/encoding/Yaml"
import { HttpServer } from "effect/http"
import { Unpackr } from "msgpackr"
import { execFile } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { generateApi } from "swagger-typescript-api"
import { assert, describe, it } from "vitest"
import { serverLayerOver } from "../packages/server/src/Server.ts"
import { contract, mustBe } from "./support/contract.ts"

const run = promisify(execFile)
const pathOf = (file: string): string => fileURLToPath(new URL(`../${file}`, import.meta.url))
const read = (file: string): string => readFileSync(pathOf(file), "utf8")

type Json = Readonly<Record<string, unknown>>
const isObject = (u: unknown): u is Json => typeof u === "object" && u !== null && !Array.isArray(u)
const objectOf = (u: unknown): Json => {
  if (isObject(u)) return u
  throw new TypeError(`${JSON.stringify(u)} is no object`)
}
const listOf = (u: unknown): ReadonlyArray<unknown> => Array.isArray(u) ? u : []

/** What the linter's recommended rules say and we do not follow, each by rule and place, and why. */
const exceptions: Readonly<Record<string, ReadonlyArray<readonly [rule: string, place: string]>>> = {
  "docs/API_CONTRACT.yml": [
    // A link to another server: the page that is made of this file has none.
    ["info-license-strict", "#/info/license/url"],
    // It knows only references in schemas. That every component is used, and in what, is a test of its own below.
    ["no-unused-components", "#/components/"],
    // A WebSocket answers 101, the root leads on with 303.
    ["operation-2xx-response", "#/paths/~1sessions~1{id}~1ingest/get/responses"],
    ["operation-2xx-response", "#/paths/~1/get/responses"],
    // They take nothing, so nothing about the request can be wrong.
    ...["~1", "~1docs", "~1healthz", "~1metrics", "~1openapi.json", "~1openapi.yml", "~1readyz"].map((path) =>
      ["operation-4xx-response", `#/paths/${path}/get/responses`] as const
    )
  ],
  "docs/ASYNCAPI.yml": [
    ["info-license-strict", "#/info/license/url"],
    // An empty list says in OpenAPI that everybody may; here the linter takes it for nothing.
    ...["acknowledge", "show", "askTime"].map((name) => ["security-defined", `#/operations/${name}`] as const)
  ]
}

describe("the files", () => {
  it.each(Object.keys(exceptions))("%s passes a linter", async (file) => {
    const config = await createConfig({ extends: ["recommended-strict"] })
    const problems = await lint({ ref: pathOf(file), config })
    const met = new Set<string>()
    const left = problems.flatMap(({ ruleId, message, location }) => {
      const pointer = location[0]?.pointer ?? ""
      const exception = exceptions[file]?.find(([rule, place]) => rule === ruleId && pointer.startsWith(place))
      if (exception === undefined) return [`${ruleId} at ${pointer}: ${message}`]
      met.add(exception.join(" "))
      return []
    })
    assert.deepStrictEqual(left, [])
    // One that is not needed any more is not kept.
    assert.deepStrictEqual(exceptions[file]?.map((one) => one.join(" ")).filter((one) => !met.has(one)), [])
  })

  it("name no component that nothing refers to", () => {
    const texts = ["docs/API_CONTRACT.yml", "docs/ASYNCAPI.yml"].map(read).join("\n")
    for (const [kind, components] of Object.entries(objectOf(contract["components"]))) {
      for (const name of Object.keys(objectOf(components))) {
        if (kind === "securitySchemes") assert.include(texts, `- ${name}: []`)
        else assert.include(texts, `#/components/${kind}/${name}'`)
      }
    }
  })

  it("agree on which frames go where", () => {
    const asyncapi = objectOf(Yaml.parse(read("docs/ASYNCAPI.yml")))
    const raw = objectOf(Yaml.parse(read("docs/API_CONTRACT.yml")))
    const nameOf = (reference: unknown): string => String(objectOf(reference)["$ref"]).split("/").at(-1)!
    const messages = objectOf(objectOf(asyncapi["components"])["messages"])
    const framesOf = (operation: string): ReadonlyArray<string> =>
      listOf(objectOf(objectOf(asyncapi["operations"])[operation])["messages"]).map((one) => {
        const payload = objectOf(objectOf(messages[nameOf(one)])["payload"])
        return nameOf(payload["schema"])
      })
    for (const [path, fromClient, fromServer] of [["ingest", "publish", "acknowledge"], ["live", "askTime", "show"]]) {
      const frames = objectOf(objectOf(objectOf(objectOf(raw["paths"])[`/sessions/{id}/${path}`])["get"])["x-frames"])
      assert.deepStrictEqual(framesOf(fromClient!), listOf(frames["fromClient"]).map(nameOf))
      const sent = framesOf(fromServer!).filter((name) => name !== "LiveEvent")
      assert.deepStrictEqual(sent, listOf(frames["fromServer"]).map(nameOf))
    }
  })
})

describe("the frames of the contract", () => {
  interface FrameSchema {
    readonly name: string
    readonly elements: ReadonlyArray<{ readonly name: string; readonly optional: boolean; readonly schema: Json }>
  }
  /** By kind. */
  const schemas = new Map<number, FrameSchema>()
  for (const [name, schema] of Object.entries(objectOf(objectOf(contract["components"])["schemas"]))) {
    const elements = listOf(objectOf(schema)["x-elements"]).map(objectOf).map((element) => ({
      name: String(element["name"]),
      optional: element["optional"] === true,
      schema: objectOf(element["schema"])
    }))
    if (elements.length > 0) schemas.set(Number(listOf(elements[0]!.schema["enum"])[0]), { name, elements })
  }

  const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true, int64AsType: "number" })
  /** Bytes are text to JSON Schema. */
  const plain = (u: unknown): unknown => u instanceof Uint8Array ? "bytes" : Array.isArray(u) ? u.map(plain) : u

  const mustFit = (title: string, hex: string): number => {
    const frame = listOf(unpackr.unpack(Buffer.from(hex, "hex")))
    const schema = schemas.get(Number(frame[0]))
    assert(schema !== undefined, `${title} is of a kind that has no schema`)
    for (const [i, element] of schema.elements.entries()) {
      const what = `${element.name} of ${title}`
      if (i < frame.length) mustBe(what, element.schema, plain(frame[i]))
      else assert.isTrue(element.optional, `${what} is missing`)
    }
    return Number(frame[0])
  }

  it("are all there are", () => {
    assert.deepStrictEqual([...schemas.keys()].toSorted((a, b) => a - b), Object.values(kinds))
  })

  it("are the frames of docs/PROTOCOL.md", () => {
    const page = read("docs/PROTOCOL.md")
    const met = new Set<number>()
    for (const [, title = "", body = ""] of page.matchAll(/^```hex (.+)\n([\s\S]*?)^```$/gm)) {
      met.add(mustFit(title, body.replace(/;.*$/gm, "").replace(/\s+/g, "")))
    }
    assert.deepStrictEqual([...met].toSorted((a, b) => a - b), Object.values(kinds))
  })

  it("refuse what is no such frame", () => {
    // A hello of another key, an ack of text, a gap for no reason, a position of one number.
    for (const hex of ["950101c30000", "9411a16100cd0400", "9423920000920001a178", "92229100"]) {
      assert.throws(() => mustFit(hex, hex), /not as the contract says/)
    }
  })
})

describe("a client that was generated", () => {
  it("has types that hold, and does a session from its creation to its data", async () => {
    const block = packCounts([10, 20, 30], 1)
    if (isFrameError(block)) throw new Error(block.message)
    const frame = encodeSamples(0, 0, block)
    const folder = mkdtempSync(join(tmpdir(), "thrum-client-"))
    const scope = await Effect.runPromise(Scope.make())
    try {
      const { files } = await generateApi({
        input: pathOf("docs/API_CONTRACT.yml"),
        output: false,
        silent: true,
        httpClientType: "fetch",
        generateUnionEnums: true,
        fileName: "client.ts"
      })
      for (const { fileName, fileExtension, fileContent } of files) {
        writeFileSync(join(folder, `${fileName}${fileExtension}`), fileContent)
      }
      writeFileSync(join(folder, "package.json"), "{\"type\":\"module\"}")
      writeFileSync(
        join(folder, "use.ts"),
        `import { type Ack, Api } from "./client.ts"
const [, , baseUrl = "", frame = ""] = process.argv
const api = new Api<string>({
  baseUrl,
  securityWorker: (key) => ({ headers: { authorization: \`Bearer \${key}\` } })
})
const created = (await api.sessions.createSession({ rate: 100, channels: [{ name: "x", unit: "g", scale: 0.5 }] })).data
const id: string = created.session.id
api.setSecurityData(created.ingestKey)
// The one call this generator has no words for: it makes JSON of every body that is no form.
const answer = await fetch(\`\${baseUrl}/sessions/\${id}/frames?wait=5000\`, {
  method: "POST",
  headers: {
    authorization: \`Bearer \${created.ingestKey}\`,
    "content-type": "application/vnd.thrum.frames",
    "thrum-boot-id": "1"
  },
  body: Buffer.from(frame, "hex")
})
const ack: Ack = await answer.json()
const durable: number = ack.durable
const ended = (await api.sessions.endSession(id)).data
const data = (await api.sessions.getData(id, { from: "0:1", limit: 5, values: "counts" }, { format: "json" })).data
const summary = (await api.sessions.getSummary(id)).data
const mean: number | null = summary.channels[0]!.mean
const problem = await api.sessions.getSession("no such session").then(() => undefined, ({ error }) => error)
process.stdout.write(JSON.stringify({
  durable,
  mean,
  state: ended.state,
  unit: data.session.channels[0]!.unit,
  cells: data.rows.map((row) => row[3]),
  type: problem?.type
}))
`
      )
      await run(pathOf("node_modules/.bin/tsc"), [
        "--ignoreConfig",
        "--noEmit",
        "--strict",
        "--noUncheckedIndexedAccess",
        "--target",
        "es2024",
        "--module",
        "nodenext",
        "--lib",
        "es2024,dom,dom.iterable",
        "--allowImportingTsExtensions",
        "--typeRoots",
        pathOf("node_modules/@types"),
        "--types",
        "node",
        "use.ts"
      ], { cwd: folder }).catch((error: { readonly stdout: string }) => {
        throw new Error(error.stdout)
      })
      const layer = serverLayerOver(Archive.layerMemory, { host: "127.0.0.1", port: 0, publicUrl: undefined })
      const context = await Effect.runPromise(
        Layer.buildWithScope(layer.pipe(Layer.provide(Logger.layer([]))), scope)
      )
      const url = await Effect.runPromise(
        HttpServer.HttpServer.useSync((server) => HttpServer.formatAddress(server.address)).pipe(
          Effect.provideContext(context)
        )
      )
      const { stdout } = await run(process.execPath, ["use.ts", url, Buffer.from(frame).toString("hex")], {
        cwd: folder
      })
      assert.deepStrictEqual(JSON.parse(stdout), {
        durable: 3,
        mean: 10,
        state: "ended",
        unit: "g",
        cells: [20, 30],
        type: "/problems/session-not-found"
      })
    } finally {
      await Effect.runPromise(Scope.close(scope, Exit.void))
      rmSync(folder, { recursive: true, force: true })
    }
  }, 60_000)
})
