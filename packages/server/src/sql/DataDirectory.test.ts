import { assert, describe, it } from "@effect/vitest"
import { join, resolve } from "node:path"
import { dataDirectoryOf, embeddedPostgresDirectory } from "./DataDirectory.ts"

const home = resolve("/home/ada")

const withXdg = (xdg: string | undefined): string => dataDirectoryOf({ env: { XDG_DATA_HOME: xdg }, home, uid: 1000 })

describe("DataDirectory", () => {
  it("dataDirectoryOf() takes THRUM_DATA_DIR before all else, and makes it absolute", () => {
    const env = { THRUM_DATA_DIR: "data", XDG_DATA_HOME: resolve("/xdg") }
    assert.strictEqual(dataDirectoryOf({ env, home, uid: 0 }), resolve("data"))
  })

  it("dataDirectoryOf() is /var/lib/thrum for root", () => {
    assert.strictEqual(dataDirectoryOf({ env: { XDG_DATA_HOME: resolve("/xdg") }, home, uid: 0 }), "/var/lib/thrum")
  })

  it("dataDirectoryOf() follows XDG_DATA_HOME, unless it is empty or relative", () => {
    assert.strictEqual(withXdg(resolve("/xdg")), join(resolve("/xdg"), "thrum"))
    for (const unset of [undefined, "", "xdg"]) {
      assert.strictEqual(withXdg(unset), join(home, ".local", "share", "thrum"))
    }
  })

  it("embeddedPostgresDirectory() names the major version", () => {
    assert.strictEqual(embeddedPostgresDirectory(home), join(home, "postgres-18"))
  })
})
