/**
 * What names a session: any of the links the server hands out.
 */
import { ownError } from "./ThrumError.ts"

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

/** Whether `text` is the id of a session, as far as its form tells. */
export const isSessionId = (text: string): boolean => idPattern.test(text)

/**
 * Reads the address of a server.
 *
 * @param text `http(s)://host[:port][/path]`; `ws(s)://` means the same server.
 * @throws ThrumError `BadLink` when it is none.
 */
export const parseServer = (text: string): string => {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const protocol = url === undefined ? undefined : httpOf[url.protocol]
  if (url === undefined || protocol === undefined || url.host === "") {
    throw ownError("BadLink", `Cannot use "${text}" as the address of a server: it is not like http://host:port`)
  }
  if (url.username !== "" || url.password !== "") {
    throw ownError("BadLink", `Cannot use the address of ${url.host}: it holds a user name or a password`)
  }
  return `${protocol}//${url.host}${url.pathname.replace(/\/+$/, "")}`
}

/**
 * Reads a link to a session.
 *
 * @param text `http://host/sessions/ID`, the same with `/live`, `/ingest`, `/data` or `/end`, with `ws:` for `http:`.
 * @throws ThrumError `BadLink` when it is none.
 * @example
 * ```ts
 * import { parseLink, urlOf } from "@thrum/client"
 * const link = parseLink("https://thrum.example/sessions/3f0c2b1a-8d4e-4f6a-9b7c-5d1e2f3a4b5c/data")
 * urlOf(link, "live") // "wss://thrum.example/sessions/3f0c2b1a-8d4e-4f6a-9b7c-5d1e2f3a4b5c/live"
 * ```
 */
export const parseLink = (text: string): SessionLink => {
  if (!URL.canParse(text)) {
    throw ownError("BadLink", `Cannot find a session by "${text}": it is no link like http://host/sessions/ID`)
  }
  const url = new URL(text)
  const [, prefix = "", id = ""] = pathPattern.exec(url.pathname) ?? []
  if (!idPattern.test(id)) {
    throw ownError("BadLink", `Cannot find a session by "${text}": its path does not end in /sessions/ID`)
  }
  return { server: parseServer(`${url.protocol}//${url.host}${prefix}`), id: id.toLowerCase() }
}

/** A link of the session: itself, or its `live`, `ingest`, `data` or `end`. The first two are WebSockets. */
export const urlOf = (link: SessionLink, part?: "live" | "ingest" | "data" | "end"): string => {
  const url = `${link.server}/sessions/${link.id}${part === undefined ? "" : `/${part}`}`
  return part === "live" || part === "ingest" ? url.replace(/^http/, "ws") : url
}

/** Where a role connects to. */
export interface Door {
  /** Undefined for a WebSocket whose path is not one of a session's links: then REST cannot be asked about it. */
  readonly link: SessionLink | undefined
  /** `ws(s)://…` */
  readonly url: string
}

/**
 * The door of a session: `ingest` or `live` of any of its links, or a WebSocket's address as it is.
 *
 * @throws ThrumError `BadLink` when it is neither.
 */
export const doorOf = (text: string, part: "live" | "ingest"): Door => {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url !== undefined && /^wss?:$/.test(url.protocol) && !pathPattern.test(url.pathname)) {
    return { link: undefined, url: url.href }
  }
  const link = parseLink(text)
  return { link, url: urlOf(link, part) }
}
