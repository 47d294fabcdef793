/** The client in a real browser: the same code, over its WebSocket, fetch and IndexedDB. */
import { createSession } from "@thrum/client"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { hasBrowser, type PageServer, startPageServer } from "./support/Browser.ts"
import { type Proxy, startProxy } from "./support/Proxy.ts"
import { startServer, type TestServer } from "./support/Server.ts"

const module = "test/support/browserDevice.ts"

// Where there is no Chromium this proves nothing: it is left out, and said so in the list of tests.
describe.skipIf(!hasBrowser)("in Chromium", () => {
  const profile = mkdtempSync(join(tmpdir(), "thrum-browser-"))
  let server: TestServer
  let proxy: Proxy
  let pages: PageServer
  beforeAll(async () => {
    server = await startServer()
    proxy = await startProxy(server.url)
    pages = await startPageServer()
  })
  afterAll(async () => {
    pages.close()
    await proxy.close()
    await server.stop()
    rmSync(profile, { recursive: true, force: true, maxRetries: 10 })
  })

  it("a device that is killed goes on with what IndexedDB kept; a viewer sees all of it, once", async () => {
    const { id, key } = await createSession(server.url, {
      rate: 1000,
      channels: [{ name: "x", unit: "count", scale: 1, offset: 0 }]
    })
    const query = (step: string): URLSearchParams =>
      new URLSearchParams({ step, key, url: `${proxy.url}/sessions/${id}`, server: server.url })

    proxy.isSilent = true
    const first = pages.open(module, query("push"), profile)
    assert.deepStrictEqual(await first.said(), { isResumed: false, next: 0, frames: 5 })
    await first.kill()
    proxy.cut()
    proxy.isSilent = false

    const second = pages.open(module, query("go-on"), profile)
    assert.deepStrictEqual(await second.said(), {
      isResumed: true,
      next: 500,
      values: Array.from({ length: 1000 }, (_, i) => i),
      isLeft: false,
      state: "ended"
    })
    await second.kill()
  }, 60_000)
})
