import { assert, describe, it } from "vitest"
import { doorOf, isSessionId, parseLink, parseServer, urlOf } from "./Link.ts"
import { ThrumError } from "./ThrumError.ts"

const id = "3f0c2b1a-8d4e-4f6a-9b7c-5d1e2f3a4b5c"

const refusalOf = (act: () => unknown): ThrumError => {
  try {
    act()
  } catch (error) {
    assert.instanceOf(error, ThrumError)
    return error
  }
  throw new Error("nothing was refused")
}

describe("Link", () => {
  it("every link the server hands out names the same session", () => {
    for (const part of ["", "/", "/live", "/ingest", "/data", "/end"]) {
      for (const scheme of part === "/live" || part === "/ingest" ? ["ws", "http"] : ["http"]) {
        assert.deepStrictEqual(parseLink(`${scheme}://host:8080/sessions/${id}${part}`), {
          server: "http://host:8080",
          id
        })
      }
    }
    assert.deepStrictEqual(parseLink(`wss://thrum.example/under/sessions/${id.toUpperCase()}/live?from=now`), {
      server: "https://thrum.example/under",
      id
    })
    assert.deepStrictEqual([isSessionId(id), isSessionId("walk")], [true, false])
  })

  it("what is no link is refused by its words, and no password is repeated", () => {
    for (const text of [id, "walk", "http://host/sessions/walk", "http://host/sessions", `mailto:${id}`]) {
      const error = refusalOf(() => parseLink(text))
      assert.deepInclude(error, { name: "BadLink", code: 0 })
      assert.include(error.message, text)
    }
    assert.include(refusalOf(() => parseServer("ftp://host")).message, "ftp://host")
    assert.notInclude(refusalOf(() => parseServer("http://me:secret@host")).message, "secret")
  })

  it("live and ingest are WebSockets, over TLS where the server is", () => {
    const link = parseLink(`https://host/sessions/${id}`)
    assert.strictEqual(urlOf(link, "live"), `wss://host/sessions/${id}/live`)
    assert.strictEqual(urlOf(parseLink(`http://host/sessions/${id}`), "ingest"), `ws://host/sessions/${id}/ingest`)
    assert.strictEqual(urlOf(link, "data"), `https://host/sessions/${id}/data`)
  })

  it("a role's door is found from any link, or is a WebSocket as it is", () => {
    const link = { server: "http://host", id }
    assert.deepStrictEqual(doorOf(`http://host/sessions/${id}/data`, "live"), {
      link,
      url: `ws://host/sessions/${id}/live`
    })
    assert.deepStrictEqual(doorOf(`ws://host/sessions/${id}/live`, "ingest"), {
      link,
      url: `ws://host/sessions/${id}/ingest`
    })
    assert.deepStrictEqual(doorOf("wss://host/relay?to=1", "live"), { link: undefined, url: "wss://host/relay?to=1" })
    assert.strictEqual(refusalOf(() => doorOf("http://host/relay", "live")).name, "BadLink")
  })
})
