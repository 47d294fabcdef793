/**
 * The REST side of the server: `docs/API_CONTRACT.yml`, made to work.
 *
 * @module
 */
import type { Archive, Feed, Hub, Sessions, WriteQueue } from "@thrum/core"
import { type FileSystem, Layer, type Path } from "effect"
import type { Etag, HttpPlatform, HttpRouter } from "effect/http"
import { apiLayer } from "./Api.ts"
import { Contract } from "./Contract.ts"
import { guardLayer } from "./Guard.ts"
import type { SocketDoors } from "./Ports.ts"

export { ContractFile } from "./Contract.ts"
export { Draining, type LiveWish, PublicUrl, SocketDoors, type SocketDoorsShape } from "./Ports.ts"

/**
 * All routes of the contract, guarded: whatever is not in it is refused, and whatever fails is a problem.
 *
 * Serve it with `HttpRouter.serve(httpRoutes, { disableLogger: true })`: the default request log would write ids.
 */
export const httpRoutes: Layer.Layer<
  never,
  never,
  | Sessions
  | Archive
  | Feed
  | Hub
  | WriteQueue
  | SocketDoors
  | HttpRouter.HttpRouter
  | HttpPlatform.HttpPlatform
  | Etag.Generator
  | FileSystem.FileSystem
  | Path.Path
> = Layer.mergeAll(guardLayer, apiLayer).pipe(Layer.provide(Contract.layer))
