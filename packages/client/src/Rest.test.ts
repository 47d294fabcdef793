import { createServer, type RequestListener, type Server } from "node:http"
import { once } from "node:events"
import { afterEach, assert, describe, it } from "vitest"
import { createSession, endSession, getData, getSession, refusalOf } from "./Rest.ts"
import { portOf } from "./testing/PeerServer.ts"
import { ThrumError } from "./ThrumError.ts"

const id = "3f0c2b1a-8d4e-4f6a-9b7c-5d1e2f3a4b5c"
const servers: Array<Server> = []
afterEach(() => {
  for (const server of servers.splice(0)) server.close()
})

const serving = async (answer: RequestListener): Promise<string> => {
  const server = createServer(answer).listen(0, "127.0.0.1")
  servers.push(server)
  await once(server, "listening")
  return `http://127.0.0.1:${portOf(server)}`
}

const failureOf = async (promise: Promise<unknown>): Promise<ThrumError> => {
  try {
    await promise
  } catch (error) {
    assert.instanceOf(error, ThrumError)
    return error
  }
  throw new Error("nothing was refused")
}

const problem =
  (status: number, body: unknown, headers: Readonly<Record<string, string>> = {}): RequestListener => (_, answer) => {
    answer.writeHead(status, { "content-type": "application/problem+json", ...headers }).end(JSON.stringify(body))
  }

const link = async (status: number) => ({ server: await serving(problem(status, {})), id })

describe("Rest", () => {
  it("creates a session: what a device needs, and the links to share", async () => {
    let asked = ""
    const channels = [{ name: "x", unit: "g", scale: 1, offset: 0 }]
    const self = `https://thrum.example/sessions/${id}`
    const url = await serving((request, answer) => {
      asked = `${request.method} ${request.url}`
      answer.writeHead(201).end(
        JSON.stringify({ session: { id, channels, rate: 50, tick: 1 }, ingestKey: "key", links: { self } })
      )
    })
    const created = await createSession(`${url}/`, { rate: 50 })
    assert.strictEqual(asked, "POST /sessions")
    assert.deepStrictEqual(created, {
      id,
      url: `${url}/sessions/${id}`,
      key: "key",
      channels,
      rate: 50,
      tick: 1,
      links: {
        self,
        data: `${url}/sessions/${id}/data`,
        live: `${url.replace("http", "ws")}/sessions/${id}/live`,
        ingest: `${url.replace("http", "ws")}/sessions/${id}/ingest`,
        end: `${url}/sessions/${id}/end`
      }
    })
  })

  it("a problem is an error with its status, its name and its sentence", async () => {
    const url = await serving(problem(
      503,
      { type: "/problems/archive-unavailable", title: "Away", detail: "The database is away." },
      { "retry-after": "2" }
    ))
    const error = await failureOf(getSession(`${url}/sessions/${id}`))
    assert.deepInclude(error, { code: 503, name: "ArchiveUnavailable", retryAfter: 2000 })
    assert.include(error.message, "The database is away (HTTP 503)")
    const plain = await serving((_, answer) => answer.writeHead(502).end("<html>"))
    assert.deepInclude(await failureOf(createSession(plain, { rate: 1 })), { code: 502, name: "HttpError" })
  })

  it("ends a session with its key", async () => {
    let asked: ReadonlyArray<string | undefined> = []
    const url = await serving((request, answer) => {
      asked = [request.method, request.url, request.headers.authorization]
      answer.writeHead(200).end(JSON.stringify({ state: "ended" }))
    })
    assert.deepStrictEqual(await endSession(`${url}/sessions/${id}/ingest`, "key"), { state: "ended" })
    assert.deepStrictEqual(asked, ["POST", `/sessions/${id}/end`, "Bearer key"])
  })

  it("what is not Thrum, not there or too large is said so", async () => {
    for (const body of ["[]", "{}", "not JSON", JSON.stringify({ session: { id }, ingestKey: "key" })]) {
      const url = await serving((_, answer) => answer.end(body))
      assert.strictEqual((await failureOf(createSession(url, { rate: 1 }))).name, "NotThrum")
    }
    const large = await serving((_, answer) => answer.end(`"${"x".repeat(1_048_576)}"`))
    assert.strictEqual((await failureOf(getSession(`${large}/sessions/${id}`))).name, "NotThrum")
    const nobody = await serving(() => {})
    servers.pop()?.close()
    const error = await failureOf(createSession(nobody, { rate: 1 }))
    assert.deepInclude(error, { code: 0, name: "Unreachable" })
    assert.include(error.message, "ECONNREFUSED")
  })

  it("a download is a stream, and a signal ends it", async () => {
    const url = await serving((request, answer) => answer.end(request.url))
    const answer = await getData(`${url}/sessions/${id}`, { format: "csv" })
    assert.strictEqual(await answer.text(), `/sessions/${id}/data?format=csv`)
    const stuck = await serving(() => {})
    const stop = new AbortController()
    setTimeout(() => stop.abort(new Error("enough")), 20)
    assert.strictEqual(
      await getData(`${stuck}/sessions/${id}`, {}, stop.signal).then(() => "", String),
      "Error: enough"
    )
  })

  it("only what will not change is a refusal", async () => {
    assert.strictEqual((await refusalOf(await link(404)))?.code, 404)
    for (const status of [200, 429, 503]) assert.isUndefined(await refusalOf(await link(status)))
  })
})
