/**
 * What the HTTP side needs of its surroundings and does not know itself. The wiring provides it.
 */
import type { ArchiveUnavailable, From, Policy, SessionNotFound } from "@thrum/core"
import { Context, type Effect } from "effect"
import type { HttpServerRequest } from "effect/http"

/** How a viewer wants to see. */
export interface LiveWish {
  readonly from: From
  readonly policy: Policy
  readonly format: "frames" | "json"
}

export interface SocketDoorsShape {
  /** Takes the connection over and serves a device. Returns when the socket has closed. */
  readonly ingest: (
    id: string,
    bearer: string | undefined,
    request: HttpServerRequest.HttpServerRequest
  ) => Effect.Effect<void, SessionNotFound | ArchiveUnavailable>
  /** Takes the connection over and serves a viewer. Returns when the socket has closed. */
  readonly live: (
    id: string,
    wish: LiveWish,
    request: HttpServerRequest.HttpServerRequest
  ) => Effect.Effect<void, SessionNotFound | ArchiveUnavailable>
}

const Tag: Context.ServiceClass<SocketDoors, "@thrum/server/http/SocketDoors", SocketDoorsShape> = Context.Service<
  SocketDoors,
  SocketDoorsShape
>()("@thrum/server/http/SocketDoors")

/** Where requests for a WebSocket go. They fail before the upgrade only: after it, the socket has its own words. */
export class SocketDoors extends Tag {}

/**
 * The base of links, `https://thrum.example` with or without a path. Undefined: links are made of the request's `Host`,
 * as `http:` and `ws:`. No header a client or a proxy sets can turn that into `https:`.
 */
export const PublicUrl: Context.Reference<string | undefined> = Context.Reference("@thrum/server/http/PublicUrl", {
  defaultValue: (): string | undefined => undefined
})

/** Whether this instance is shutting down. Then it is not ready, and each answer closes its connection. */
export const Draining: Context.Reference<() => boolean> = Context.Reference("@thrum/server/http/Draining", {
  defaultValue: () => (): boolean => false
})
