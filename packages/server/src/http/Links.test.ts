import { HttpServerRequest } from "effect/http"
import { assert, describe, it } from "vitest"
import { baseOf, linksOf } from "./Links.ts"

const requestTo = (host: string, more: Record<string, string> = {}): HttpServerRequest.HttpServerRequest =>
  HttpServerRequest.fromWeb(new Request("http://localhost/", { headers: { host, ...more } }))

describe("baseOf()", () => {
  it("is the host the request was sent to, as http, whatever a proxy says", () => {
    assert.strictEqual(baseOf(undefined, requestTo("thrum.example:8080")), "http://thrum.example:8080")
    assert.strictEqual(baseOf(undefined, requestTo("[::1]:80")), "http://[::1]:80")
    const forwarded = { "x-forwarded-proto": "https", "x-forwarded-host": "evil.example" }
    assert.strictEqual(baseOf(undefined, requestTo("thrum.example", forwarded)), "http://thrum.example")
  })

  it("repeats nothing that is no host", () => {
    for (const host of ["", "a b", "evil.example/x?", "a@b", "\"><script>", "h:123456"]) {
      assert.strictEqual(baseOf(undefined, requestTo(host)), "http://localhost", host)
    }
  })

  it("is the public URL where there is one", () => {
    assert.strictEqual(baseOf("https://thrum.example/base/", requestTo("inner:80")), "https://thrum.example/base")
  })
})

describe("linksOf()", () => {
  it("speaks WebSocket with the same security", () => {
    assert.deepStrictEqual(linksOf("https://thrum.example/base", "ID"), {
      self: "https://thrum.example/base/sessions/ID",
      data: "https://thrum.example/base/sessions/ID/data",
      live: "wss://thrum.example/base/sessions/ID/live",
      ingest: "wss://thrum.example/base/sessions/ID/ingest",
      end: "https://thrum.example/base/sessions/ID/end"
    })
  })
})
