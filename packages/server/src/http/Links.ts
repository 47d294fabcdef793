/** The links of a session. */
import type { HttpServerRequest } from "effect/http"

/** Absolute URLs. `live` and `ingest` are WebSockets. */
export interface Links {
  readonly self: string
  readonly data: string
  readonly live: string
  readonly ingest: string
  readonly end: string
}

/** A host as a URL may name it, with or without a port. What else stands in `Host` is not repeated to anybody. */
const hostPattern = /^(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$/

/** The base of links: the public URL, or the host the request was sent to. */
export const baseOf = (publicUrl: string | undefined, request: HttpServerRequest.HttpServerRequest): string => {
  if (publicUrl !== undefined) return publicUrl.replace(/\/+$/, "")
  const host = request.headers["host"] ?? ""
  return `http://${hostPattern.test(host) ? host : "localhost"}`
}

/** @param base As {@link baseOf} gives it. */
export const linksOf = (base: string, id: string): Links => {
  const self = `${base}/sessions/${id}`
  // http becomes ws, https becomes wss.
  const socket = self.replace(/^http/, "ws")
  return { self, data: `${self}/data`, live: `${socket}/live`, ingest: `${socket}/ingest`, end: `${self}/end` }
}
