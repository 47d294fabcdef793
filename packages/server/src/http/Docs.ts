/**
 * `/docs`: the contract as a page. Everything it needs is in it, and its security policy lets it ask no other server.
 *
 * The page is 3 MB, so it is made when somebody first asks for it, and kept.
 */
import { Effect, Layer } from "effect"
import { HttpRouter, type HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApi, HttpApiScalar, OpenApi } from "effect/http-api"
import { Contract } from "./Contract.ts"

const policy = [
  "default-src 'none'",
  "script-src 'unsafe-inline'",
  "style-src 'unsafe-inline'",
  "img-src 'self' data:",
  "font-src 'self' data:",
  "connect-src 'self'"
].join("; ")

// Fonts of another server; and tools that lead to one. Effect's type of these settings does not know the last two.
const look = { withDefaultFonts: false, showDeveloperTools: "never", hideClientButton: true }

/** Makes the effect that answers with the page. */
export const makeDocs: Effect.Effect<
  Effect.Effect<HttpServerResponse.HttpServerResponse, never, HttpServerRequest.HttpServerRequest>,
  never,
  Contract
> = Effect.gen(function*() {
  const { document } = yield* Contract
  const api = HttpApi.make("docs").annotate(OpenApi.Transform, () => ({ ...document }))
  const layer = HttpApiScalar.layer(api, { path: "/docs", scalar: look })
  let page: HttpServerResponse.HttpServerResponse | undefined
  return Effect.gen(function*() {
    if (page !== undefined) return page
    const made = yield* Effect.scoped(Effect.flatten(HttpRouter.toHttpEffect(layer))).pipe(
      // A router of its own, where the memory of layers would give the one this runs in.
      Effect.provideServiceEffect(Layer.CurrentMemoMap, Layer.makeMemoMap)
    )
    page = HttpServerResponse.setHeader(made, "content-security-policy", policy)
    return page
  }).pipe(Effect.orDie)
})
