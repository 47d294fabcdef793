/**
 * The few REST calls that the two roles stand on: create, look, end, download.
 *
 * Bound: an answer is read whole only where it is small, at most {@link answerBytesMax}; data is handed on as a stream.
 */
import type { Channel, Description } from "@thrum/protocol"
import { parseLink, parseServer, type SessionLink, urlOf } from "./Link.ts"
import { ownError, reasonOf, ThrumError } from "./ThrumError.ts"

/** Bytes of a small answer. */
const answerBytesMax = 1_048_576
/** ms for the head of an answer. */
const headMax = 30_000

/** What a new session is to hold, as `POST /sessions` takes it: three axes of counts unless it says otherwise. */
export type NewSession = Partial<Omit<Description, "rate">> & Pick<Description, "rate">

/** The links of a session. */
export interface Links {
  readonly self: string
  readonly data: string
  readonly live: string
  readonly ingest: string
  readonly end: string
}

/** A session that was just created: what `openDevice` needs, and the links to share. */
export interface Created {
  readonly id: string
  /** Of the session, at the address it was created at. */
  readonly url: string
  /** The ingest key: whoever has it may publish and end. It is shown this once. */
  readonly key: string
  readonly channels: ReadonlyArray<Channel>
  readonly rate: number
  readonly tick: number
  /** As the server gives them to others: its public address may be another than the one we used. */
  readonly links: Links
}

type Fields = Readonly<Record<string, unknown>>
const isFields = (u: unknown): u is Fields => typeof u === "object" && u !== null
const isChannel = (u: unknown): u is Channel =>
  isFields(u) && typeof u["name"] === "string" && typeof u["unit"] === "string" && typeof u["scale"] === "number" &&
  typeof u["offset"] === "number"

const readSmall = async (answer: Response): Promise<unknown> => {
  const decoder = new TextDecoder()
  let text = ""
  let bytes = 0
  const reader = answer.body?.getReader()
  for (let piece = await reader?.read(); piece?.done === false; piece = await reader?.read()) {
    bytes += piece.value.length
    if (bytes > answerBytesMax) {
      await reader?.cancel()
      throw ownError("NotThrum", `Cannot read the answer: it is over ${answerBytesMax} bytes`)
    }
    text += decoder.decode(piece.value, { stream: true })
  }
  return JSON.parse(text + decoder.decode())
}

/** `/problems/session-not-found` → `SessionNotFound`. */
const nameOf = (type: unknown): string =>
  typeof type === "string" && /\/problems\/[a-z-]+$/.test(type) ?
    type.slice(type.lastIndexOf("/") + 1).replace(/(?:^|-)(\w)/g, (_, first: string) => first.toUpperCase()) :
    "HttpError"

/** The error of an answer that is none of success: its problem's name and sentence, or what can be said without. */
const problemOf = async (doing: string, answer: Response): Promise<ThrumError> => {
  const body = await readSmall(answer).catch(() => undefined)
  const fields = isFields(body) ? body : {}
  const sentence = fields["detail"] ?? fields["title"]
  const said = typeof sentence === "string" ? sentence.replace(/\.$/, "") : answer.statusText
  const seconds = Number(answer.headers.get("retry-after") ?? Number.NaN)
  return new ThrumError(nameOf(fields["type"]), `Cannot ${doing}: ${said} (HTTP ${answer.status})`, {
    code: answer.status,
    retryAfter: Number.isFinite(seconds) ? seconds * 1000 : undefined
  })
}

/**
 * Asks the server.
 *
 * @param doing Begins the error: `create a session at http://…`.
 * @param signal Ends it, the reading of the body too.
 * @returns An answer of status 200 to 299; its body is not read yet.
 */
const ask = async (doing: string, url: string, init: RequestInit, signal?: AbortSignal): Promise<Response> => {
  const head = new AbortController()
  const timer = setTimeout(() => head.abort(new Error(`no answer in ${headMax / 1000} s`)), headMax)
  const answer = await fetch(url, {
    ...init,
    signal: signal === undefined ? head.signal : AbortSignal.any([signal, head.signal])
  }).catch((error: unknown) => {
    signal?.throwIfAborted()
    throw ownError("Unreachable", `Cannot ${doing}: ${reasonOf(error)}`, error)
  }).finally(() => clearTimeout(timer))
  if (answer.ok) return answer
  throw await problemOf(doing, answer)
}

const notThrum = (doing: string): ThrumError => ownError("NotThrum", `Cannot ${doing}: what answers there is not Thrum`)

/**
 * Creates a session.
 *
 * @param server Its address: `https://thrum.example`.
 * @throws ThrumError with the status of the answer (400: the description does not fit the contract); `Unreachable`.
 * @example
 * ```ts
 * import { createSession, openDevice } from "@thrum/client"
 * const session = await createSession("http://127.0.0.1:8080", { rate: 100 })
 * const device = await openDevice(session)
 * ```
 */
export const createSession = async (
  server: string,
  session: NewSession,
  signal?: AbortSignal
): Promise<Created> => {
  const base = parseServer(server)
  const doing = `create a session at ${base}`
  const answer = await ask(doing, `${base}/sessions`, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json, application/problem+json" },
    body: JSON.stringify(session)
  }, signal)
  const created = await readSmall(answer).catch(() => undefined)
  const about = isFields(created) ? created["session"] : undefined
  const key = isFields(created) ? created["ingestKey"] : undefined
  if (!isFields(created) || !isFields(about) || typeof key !== "string") throw notThrum(doing)
  const { channels, id, rate, tick } = about
  if (
    typeof id !== "string" || typeof rate !== "number" || typeof tick !== "number" || !Array.isArray(channels) ||
    !channels.every(isChannel)
  ) throw notThrum(doing)
  const link = { server: base, id }
  const links = isFields(created["links"]) ? created["links"] : {}
  const said = (name: keyof Links, own: string): string => {
    const url = links[name]
    return typeof url === "string" ? url : own
  }
  return {
    id,
    url: urlOf(link),
    key,
    channels,
    rate,
    tick,
    links: {
      self: said("self", urlOf(link)),
      data: said("data", urlOf(link, "data")),
      live: said("live", urlOf(link, "live")),
      ingest: said("ingest", urlOf(link, "ingest")),
      end: said("end", urlOf(link, "end"))
    }
  }
}

const linkOf = (session: string | SessionLink): SessionLink =>
  typeof session === "string" ? parseLink(session) : session

/** `GET /sessions/{id}`, as the server tells it. `session`: any of its links. */
export const getSession = async (session: string | SessionLink, signal?: AbortSignal): Promise<Fields> => {
  const link = linkOf(session)
  const doing = `find the session ${link.id} at ${link.server}`
  const answer = await ask(doing, urlOf(link), { headers: { accept: "application/json" } }, signal)
  const about = await readSmall(answer).catch(() => undefined)
  if (!isFields(about)) throw notThrum(doing)
  return about
}

/**
 * Seals a session, from whoever has its key; a device of its own calls `device.end()`. Twice is the same as once.
 *
 * @returns The session, as the server tells it.
 * @throws ThrumError `KeyRefused` (403), `SessionNotFound` (404), `NotFlushed` (503: not sealed, try again).
 */
export const endSession = async (
  session: string | SessionLink,
  key: string,
  signal?: AbortSignal
): Promise<Fields> => {
  const link = linkOf(session)
  const doing = `end the session ${link.id} at ${link.server}`
  const headers = { authorization: `Bearer ${key}`, accept: "application/json" }
  const answer = await ask(doing, urlOf(link, "end"), { method: "POST", headers }, signal)
  const about = await readSmall(answer).catch(() => undefined)
  if (!isFields(about)) throw notThrum(doing)
  return about
}

/**
 * `GET /sessions/{id}/data`: the answer, its body to be read. With `{ format: "frames" }` the body is what
 * `readRecording` reads.
 */
export const getData = (
  session: string | SessionLink,
  query: Readonly<Record<string, string>> = {},
  signal?: AbortSignal
): Promise<Response> => {
  const link = linkOf(session)
  const parameters = new URLSearchParams(query).toString()
  return ask(`download ${urlOf(link)}`, `${urlOf(link, "data")}?${parameters}`, {}, signal)
}

/** Why it is no use to connect to a session, as far as REST can tell: it is not there. */
export const refusalOf = async (link: SessionLink): Promise<ThrumError | undefined> => {
  try {
    await getSession(link)
    return undefined
  } catch (error) {
    return error instanceof ThrumError && error.code >= 400 && error.code < 500 && error.code !== 429
      ? error
      : undefined
  }
}
