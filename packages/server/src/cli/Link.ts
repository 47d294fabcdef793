/**
 * What a person gives to name a session: any of the links the server hands out, or its id and the server's address.
 */
import { usageError } from "./CommandError.ts"

/** Where a session is. */
export interface SessionLink {
  /** The server's address without a slash at its end: `https://thrum.example`, with a path when it is served under one. */
  readonly server: string
  readonly id: string
}

const idPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i
const pathPattern = /^(.*)\/sessions\/([^/]+)(?:\/(?:live|ingest|data|end|frames))?\/?$/
const httpOf: Readonly<Record<string, string>> = {
  "ws:": "http:",
  "wss:": "https:",
  "http:": "http:",
  "https:": "https:"
}

/**
 * Reads the address of a server.
 *
 * @param text `http(s)://host[:port][/path]`; `ws(s)://` means the same server.
 * @throws CommandError (exit code 2) when it is none.
 */
export const parseServer = (text: string): string => {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const protocol = url === undefined ? undefined : httpOf[url.protocol]
  if (url === undefined || protocol === undefined || url.host === "") {
    throw usageError(`Cannot use "${text}" as the address of a server: it is not like http://host:port`)
  }
  if (url.username !== "" || url.password !== "") {
    throw usageError(`Cannot use the address of ${url.host}: it holds a user name or a password`)
  }
  return `${protocol}//${url.host}${url.pathname.replace(/\/+$/, "")}`
}

/**
 * Reads a link to a session, or an id with the address of its server.
 *
 * @param text `http://host/sessions/ID`, the same with `/live`, `/ingest`, `/data` or `/end`, with `ws:` for `http:`; or
 *   `ID`.
 * @param to The server's address; needed with an id, and not together with a link.
 * @throws CommandError (exit code 2) when it is neither.
 */
export const parseLink = (text: string, to?: string): SessionLink => {
  if (idPattern.test(text)) {
    if (to === undefined) {
      throw usageError(`Cannot tell which server has the session "${text}": give its link, or the server with --to`)
    }
    return { server: parseServer(to), id: text.toLowerCase() }
  }
  if (!URL.canParse(text)) {
    throw usageError(`Cannot find a session by "${text}": it is neither a link like http://host/sessions/ID nor an id`)
  }
  const url = new URL(text)
  const [, prefix = "", id = ""] = pathPattern.exec(url.pathname) ?? []
  if (!idPattern.test(id)) {
    throw usageError(`Cannot find a session by "${text}": its path does not end in /sessions/ID`)
  }
  if (to !== undefined) throw usageError(`Cannot use --to "${to}": the link "${text}" already names its server`)
  return { server: parseServer(`${url.protocol}//${url.host}${prefix}`), id: id.toLowerCase() }
}

/** A link of the session: itself, or its `live`, `ingest`, `data` or `end`. The first two are WebSockets. */
export const urlOf = (link: SessionLink, part?: "live" | "ingest" | "data" | "end"): string => {
  const url = `${link.server}/sessions/${link.id}${part === undefined ? "" : `/${part}`}`
  return part === "live" || part === "ingest" ? url.replace(/^http/, "ws") : url
}
