import { assert, describe, it } from "@effect/vitest"
import { CommandError } from "./CommandError.ts"
import { parseLink, parseServer } from "./Link.ts"

const id = "3f0c2b1a-8d4e-4f6a-9b7c-5d1e2f3a4b5c"

const refusalOf = (act: () => unknown): CommandError => {
  try {
    act()
  } catch (error) {
    assert.instanceOf(error, CommandError)
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
    assert.deepStrictEqual(parseLink(`wss://thrum.example/under/sessions/${id}/live?from=now`), {
      server: "https://thrum.example/under",
      id
    })
    assert.deepStrictEqual(parseLink(id.toUpperCase(), "https://thrum.example/"), {
      server: "https://thrum.example",
      id
    })
  })

  it("what is no link is refused as wrong usage, in its own words", () => {
    for (
      const [text, to, words] of [
        [id, undefined, "--to"],
        [id, "ftp://host", "ftp://host"],
        ["walk", undefined, "walk"],
        ["http://host/sessions/walk", undefined, "/sessions/ID"],
        ["http://host/sessions", undefined, "/sessions/ID"],
        [`mailto:${id}`, undefined, "/sessions/ID"],
        [`http://host/sessions/${id}`, "http://other", "already names its server"]
      ] as const
    ) {
      const error = refusalOf(() => parseLink(text, to))
      assert.strictEqual(error.exitCode, 2)
      assert.include(error.message, words)
    }
    assert.notInclude(refusalOf(() => parseServer("http://me:secret@host")).message, "secret")
  })
})
