/**
 * Holds every answer of a server against `docs/API_CONTRACT.yml`: its status, headers, media type and body. What is
 * valid is decided by `openapi-backend`; here is only said which part of the contract an answer belongs to.
 */
import * as Yaml from "effect/encoding/Yaml"
import { readFileSync } from "node:fs"
import { get, type IncomingMessage } from "node:http"
import { OpenAPIValidator, SetMatchType } from "openapi-backend"

type Json = Readonly<Record<string, unknown>>

const isObject = (u: unknown): u is Json => typeof u === "object" && u !== null && !Array.isArray(u)
const objectOf = (u: unknown): Json => {
  if (isObject(u)) return u
  throw new TypeError(`Cannot use the contract: ${JSON.stringify(u)} is no object`)
}

/** The file, byte for byte. */
export const contractText: Uint8Array = readFileSync(new URL("../../docs/API_CONTRACT.yml", import.meta.url))

const raw = objectOf(Yaml.parse(new TextDecoder().decode(contractText)))

/** Every `$ref` in its place: the contract has no type that holds itself. */
const resolve = (u: unknown): unknown => {
  if (Array.isArray(u)) return u.map(resolve)
  if (!isObject(u)) return u
  const reference = u["$ref"]
  if (typeof reference !== "string") return Object.fromEntries(Object.entries(u).map(([key, v]) => [key, resolve(v)]))
  const parts = reference.replace(/^#\//, "").split("/").map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
  return resolve(parts.reduce<unknown>((at, part) => objectOf(at)[part], raw))
}

/** The contract without references. */
export const contract: Json = objectOf(resolve(raw))

const paths = objectOf(contract["paths"])
const responses = objectOf(objectOf(contract["components"])["responses"])

/** What the contract says to a request: the declared answers by status, and what they are called in errors. */
interface Expectation {
  readonly name: string
  readonly responses: Json
}

const listOf = (u: unknown): ReadonlyArray<unknown> => Array.isArray(u) ? u : []

/** What fits a template: of a parameter with an enum its values, of any other whatever is not empty. */
const templateOf = (template: string, item: unknown): RegExp => {
  const parameters = Object.values(objectOf(item)).flatMap((of) => listOf(objectOf(of)["parameters"]).map(objectOf))
  const patternOf = (name: string): string => {
    const parameter = parameters.find((one) => one["in"] === "path" && one["name"] === name)
    const values = parameter === undefined ? [] : listOf(objectOf(parameter["schema"])["enum"])
    return values.length === 0 ? "[^/]+" : `(?:${values.join("|")})`
  }
  const pattern = template.replaceAll(".", "\\.").replaceAll(/\{([^}]+)\}/g, (_, name: string) => patternOf(name))
  return new RegExp(`^${pattern}$`)
}

const expectationOf = (method: string, pathname: string): Expectation => {
  const [template, item] =
    Object.entries(paths).find(([template, item]) => templateOf(template, item).test(pathname)) ??
      []
  if (template === undefined) return { name: `${method} ${pathname}`, responses: { 404: responses["RouteNotFound"] } }
  const operation = objectOf(item)[method === "HEAD" ? "get" : method.toLowerCase()]
  if (operation !== undefined) {
    return { name: `${method} ${template}`, responses: objectOf(objectOf(operation)["responses"]) }
  }
  return {
    name: `${method} ${template}`,
    responses: method === "OPTIONS" ? { 204: responses["Preflight"] } : { 405: responses["MethodNotAllowed"] }
  }
}

const dateTime = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/

const validators = new WeakMap<object, OpenAPIValidator>()

/** A validator for one body schema or one set of headers, whichever is given. */
const validatorOf = (about: { readonly headers: Json } | { readonly schema: Json }): OpenAPIValidator => {
  const key = "schema" in about ? about.schema : about.headers
  const known = validators.get(key)
  if (known !== undefined) return known
  const made = new OpenAPIValidator({
    // The library reads only JSON bodies of one operation: here each schema is made one of those.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- its type wants every schema spelt out
    definition: {
      openapi: "3.0.3",
      info: { title: "One answer", version: "1" },
      paths: {
        "/": {
          get: {
            operationId: "answer",
            responses: {
              200: "schema" in about
                ? { description: "It.", content: { "application/json": { schema: about.schema } } }
                : { description: "It.", headers: about.headers }
            }
          }
        }
      }
    } as unknown as ConstructorParameters<typeof OpenAPIValidator>[0]["definition"],
    ajvOpts: { strict: false, allErrors: true, formats: { "date-time": dateTime, binary: true } }
  })
  validators.set(key, made)
  return made
}

const told = (errors: unknown): string => JSON.stringify(errors, undefined, 1).slice(0, 2000)

/** Throws unless `value` has the schema. */
export const mustBe = (what: string, schema: Json, value: unknown): void => {
  const { errors } = validatorOf({ schema }).validateResponse(value, "answer", 200)
  if (errors !== null && errors !== undefined) throw new Error(`${what} is not as the contract says: ${told(errors)}`)
}

/** The headers that must be there, by the headers that may. */
const requiredHeaders = new WeakMap<object, Json>()

const mustHaveHeaders = (what: string, declared: Json, headers: Headers): void => {
  const required = requiredHeaders.get(declared) ??
    Object.fromEntries(Object.entries(declared).filter(([, header]) => objectOf(header)["required"] === true))
  requiredHeaders.set(declared, required)
  const checks = [[required, SetMatchType.Superset], [declared, SetMatchType.Any]] as const
  for (const [expected, setMatchType] of checks) {
    // The validator turns texts into numbers in place: each check gets its own.
    const { errors } = validatorOf({ headers: expected }).validateResponseHeaders(
      Object.fromEntries(headers),
      "answer",
      { statusCode: 200, setMatchType }
    )
    if (errors !== null && errors !== undefined) throw new Error(`${what} has other headers: ${told(errors)}`)
  }
  if (headers.get("access-control-allow-origin") !== "*") throw new Error(`${what} is not for every origin`)
  const link = headers.get("link") ?? ""
  if (!link.includes("</openapi.yml>; rel=\"service-desc\"")) throw new Error(`${what} does not lead to the contract`)
}

/** The lines of a text that ends with one. */
export const lines = (text: string): ReadonlyArray<string> => {
  if (!text.endsWith("\n")) throw new Error("The last line has no end")
  return text.slice(0, -1).split("\n")
}

/** One server-sent event. */
export interface ServerSentEvent {
  readonly event: string
  readonly id: string | undefined
  readonly data: string
}

/** The events of a stream of them, as a browser reads it; throws for what a browser would pass over. */
export const serverSentEvents = (text: string): ReadonlyArray<ServerSentEvent> =>
  text.split("\n\n").slice(0, -1).flatMap((block) => {
    const fields = new Map<string, string>()
    for (const line of block.split("\n")) {
      if (line.startsWith(":")) continue
      const match = /^(retry|id|event|data): (.+)$/.exec(line)
      if (match === null || fields.has(match[1]!)) throw new Error(`No line of server-sent events: "${line}"`)
      fields.set(match[1]!, match[2]!)
    }
    const [event, data] = [fields.get("event"), fields.get("data")]
    if (data === undefined) return []
    if (event === undefined) throw new Error(`The event has no name: "${block}"`)
    const type = String(objectOf(JSON.parse(data))["type"])
    if (event !== (type === "error" ? "problem" : type)) throw new Error(`The event "${event}" is of type "${type}"`)
    const id = fields.get("id")
    if (id !== undefined && !/^\d+:\d+$/.test(id)) throw new Error(`The id is no position: "${id}"`)
    return [{ event, id, data }]
  })

const noHeaders: Json = {}
const seen = new Set<string>()

/** What was answered so far, as `GET /sessions/{id} 200`. */
export const answersSeen: ReadonlySet<string> = seen

/** Every answer that an operation declares, written alike. */
export const answersDeclared: ReadonlyArray<string> = Object.entries(paths).flatMap(([template, item]) =>
  Object.entries(objectOf(item)).flatMap(([method, operation]) =>
    Object.keys(objectOf(objectOf(operation)["responses"])).map((status) =>
      `${method.toUpperCase()} ${template} ${status}`
    )
  )
)

/** One answer, read whole. */
export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: Uint8Array<ArrayBuffer>
}

/** Throws when the answer to a request is not as the contract says. */
export const checkAnswer = (method: string, path: string, { status, headers, body }: Answer): void => {
  const { name, responses } = expectationOf(method, path.split("?", 1)[0]!)
  const what = `The answer ${status} to ${name}`
  const declared = responses[String(status)]
  if (declared === undefined) {
    throw new Error(`${what} is not in the contract: ${new TextDecoder().decode(body).slice(0, 500)}`)
  }
  seen.add(`${name} ${status}`)
  const { headers: declaredHeaders = noHeaders, content = noHeaders } = objectOf(declared)
  mustHaveHeaders(what, objectOf(declaredHeaders), headers)

  if (Object.keys(objectOf(content)).length === 0) {
    if (body.length > 0) throw new Error(`${what} has a body of ${body.length} bytes`)
    return
  }
  const mediaType = headers.get("content-type")?.split(";", 1)[0]?.trim()
  const media = mediaType === undefined ? undefined : objectOf(content)[mediaType]
  if (media === undefined) throw new Error(`${what} has the media type "${mediaType}"`)
  const { schema, "x-line-schema": lineSchema, "x-event-schema": eventSchema } = objectOf(media)
  const text = new TextDecoder().decode(body)
  if (method === "HEAD") {
    if (body.length > 0) throw new Error(`${what} has a body of ${body.length} bytes`)
  } else if (eventSchema !== undefined) {
    for (const { data } of serverSentEvents(text)) mustBe(what, objectOf(eventSchema), JSON.parse(data))
  } else if (lineSchema !== undefined) {
    for (const line of lines(text)) mustBe(what, objectOf(lineSchema), JSON.parse(line))
  } else mustBe(what, objectOf(schema), mediaType?.endsWith("json") === true ? JSON.parse(text) : text)
}

/**
 * Fetches, and throws when the answer is not as the contract says. The body is read whole. Redirects are not followed.
 *
 * @param base Such as `http://127.0.0.1:8080`.
 * @param path With its query.
 */
export const checkedFetch = async (base: string, path: string, init: RequestInit = {}): Promise<Response> => {
  const answer = await fetch(`${base}${path}`, { redirect: "manual", ...init })
  const body = new Uint8Array(await answer.arrayBuffer())
  checkAnswer(init.method ?? "GET", path, { status: answer.status, headers: answer.headers, body })
  return new Response(body.length === 0 ? null : body, { status: answer.status, headers: answer.headers })
}

/** An answer that does not end by itself: read as it comes, and held against the contract when it is let go. */
export interface OpenAnswer {
  readonly status: number
  readonly headers: Headers
  /** What came so far, up to the last whole event or line. */
  readonly text: () => string
  /** Whether the server ended it. */
  readonly isOver: () => boolean
  /** Goes away, and throws when what came is not as the contract says. */
  readonly leave: () => Promise<void>
}

/** Asks for an answer that goes on. */
export const openFetch = async (
  base: string,
  path: string,
  headers: Record<string, string> = {}
): Promise<OpenAnswer> => {
  const abort = new AbortController()
  const answer = await fetch(`${base}${path}`, { headers, signal: abort.signal })
  const decoder = new TextDecoder()
  const between = answer.headers.get("content-type")?.startsWith("text/event-stream") === true ? "\n\n" : "\n"
  let [received, isOver] = ["", false]
  const reading = (async () => {
    for await (const piece of answer.body ?? []) received += decoder.decode(piece, { stream: true })
    isOver = true
  })().catch(() => undefined)
  const text = (): string =>
    isOver
      ? received
      : received.slice(0, received.lastIndexOf(between) < 0 ? 0 : received.lastIndexOf(between) + between.length)
  return {
    status: answer.status,
    headers: answer.headers,
    text,
    isOver: () => isOver,
    leave: async () => {
      abort.abort()
      await reading
      const body = new TextEncoder().encode(text())
      checkAnswer("GET", path, { status: answer.status, headers: answer.headers, body })
    }
  }
}

const answerOf = (message: IncomingMessage, body: Uint8Array<ArrayBuffer>): Answer => ({
  status: message.statusCode ?? 0,
  headers: new Headers(Object.entries(message.headers).map(([name, value]) => [name, String(value)])),
  body
})

/** Asks for a WebSocket, closes it at once when it comes, and throws when the answer is not as the contract says. */
export const checkedUpgrade = async (base: string, path: string): Promise<Answer> => {
  const answer = await new Promise<Answer>((resolve, reject) => {
    const headers = {
      connection: "Upgrade",
      upgrade: "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": Buffer.alloc(16, 1).toString("base64"),
      "sec-websocket-protocol": "thrum.v1"
    }
    get(`${base}${path}`, { headers })
      .on("upgrade", (message, socket) => {
        socket.destroy()
        resolve(answerOf(message, new Uint8Array(0)))
      })
      .on("response", (message) => {
        const pieces: Array<Buffer> = []
        message.on("data", (piece: Buffer) => pieces.push(piece))
        message.on("end", () => resolve(answerOf(message, new Uint8Array(Buffer.concat(pieces)))))
      })
      .on("error", reject)
  })
  // The handshake is written by the WebSocket library: it has no other headers than its own.
  if (answer.status === 101) seen.add(`GET ${expectationOf("GET", path.split("?", 1)[0]!).name.slice(4)} 101`)
  else checkAnswer("GET", path, answer)
  return answer
}
