/**
 * The few REST calls the commands make. Errors carry the server's own sentence (`detail` of its problem).
 *
 * Bound: an answer is read whole only where it is small, at most {@link answerBytesMax}; data is handed on as a stream.
 */
import type { Channel } from "@thrum/protocol"
import { CommandError, reasonOf } from "./CommandError.ts"
import { type SessionLink, urlOf } from "./Link.ts"

/** Bytes of a small answer. */
const answerBytesMax = 1_048_576
/** ms for the head of an answer. */
const headMax = 30_000

/** What a new session is to hold, as `POST /sessions` takes it. */
export interface NewSession {
  readonly channels: ReadonlyArray<Channel>
  readonly rate: number
  readonly tick?: number
  readonly name?: string
  readonly sensor?: string
}

/** A session that was just created. */
export interface Created {
  /** At the address it was created at. */
  readonly link: SessionLink
  readonly key: string
  /** The links to share: the server's public address may be another than ours. */
  readonly shared: SharedLinks
}

/** Links to give to others. */
export interface SharedLinks {
  readonly self: string
  readonly data: string
}

type Fields = Readonly<Record<string, unknown>>
const isFields = (u: unknown): u is Fields => typeof u === "object" && u !== null

/** The sentence of a problem, or what can be said without one. */
const problemOf = async (answer: Response): Promise<string> => {
  const body = await readSmall(answer).catch(() => undefined)
  const sentence = isFields(body) ? body["detail"] ?? body["title"] : undefined
  return `${typeof sentence === "string" ? sentence.replace(/\.$/, "") : answer.statusText} (HTTP ${answer.status})`
}

const readSmall = async (answer: Response): Promise<unknown> => {
  const pieces: Array<Uint8Array> = []
  let bytes = 0
  for await (const piece of answer.body ?? []) {
    pieces.push(piece)
    bytes += piece.length
    if (bytes > answerBytesMax) throw new CommandError(`Cannot read the answer: it is over ${answerBytesMax} bytes`)
  }
  return JSON.parse(Buffer.concat(pieces).toString("utf8"))
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
    throw new CommandError(`Cannot ${doing}: ${reasonOf(error)}`, { cause: error })
  }).finally(() => clearTimeout(timer))
  if (answer.ok) return answer
  throw new HttpError(`Cannot ${doing}: ${await problemOf(answer)}`, answer.status)
}

/** The server answered, and not with what was asked for. */
export class HttpError extends CommandError {
  readonly status: number

  constructor(message: string, status: number) {
    super(message)
    this.status = status
  }
}

/** `POST /sessions`. */
export const createSession = async (server: string, session: NewSession, signal?: AbortSignal): Promise<Created> => {
  const doing = `create a session at ${server}`
  const answer = await ask(doing, `${server}/sessions`, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json, application/problem+json" },
    body: JSON.stringify(session)
  }, signal)
  const created = await readSmall(answer).catch(() => undefined)
  const about = isFields(created) ? created["session"] : undefined
  const key = isFields(created) ? created["ingestKey"] : undefined
  if (!isFields(about) || typeof about["id"] !== "string" || typeof key !== "string") {
    throw new CommandError(`Cannot ${doing}: what answers there is not Thrum`)
  }
  const link = { server, id: about["id"] }
  const links = isFields(created) && isFields(created["links"]) ? created["links"] : {}
  const { data, self } = links
  return {
    link,
    key,
    shared: {
      self: typeof self === "string" ? self : urlOf(link),
      data: typeof data === "string" ? data : urlOf(link, "data")
    }
  }
}

/** `GET /sessions/{id}`, as the server tells it. */
export const getSession = async (link: SessionLink, signal?: AbortSignal): Promise<Fields> => {
  const doing = `find the session ${link.id} at ${link.server}`
  const answer = await ask(doing, urlOf(link), { headers: { accept: "application/json" } }, signal)
  const session = await readSmall(answer).catch(() => undefined)
  if (!isFields(session)) throw new CommandError(`Cannot ${doing}: what answers there is not Thrum`)
  return session
}

/** Why it is no use to connect to a session, as far as REST can tell: it is not there. */
export const refusalOf = async (link: SessionLink): Promise<CommandError | undefined> => {
  try {
    await getSession(link)
    return undefined
  } catch (error) {
    return error instanceof HttpError && error.status >= 400 && error.status < 500 && error.status !== 429
      ? error
      : undefined
  }
}

/** `GET /sessions/{id}/data`: the answer, its body to be read. */
export const getData = (
  link: SessionLink,
  query: Readonly<Record<string, string>>,
  signal?: AbortSignal
): Promise<Response> =>
  ask(`download ${urlOf(link)}`, `${urlOf(link, "data")}?${new URLSearchParams(query).toString()}`, {}, signal)
