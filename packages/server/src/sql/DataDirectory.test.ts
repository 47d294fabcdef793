import { assert, describe, it } from "@effect/vitest"
import { chmodSync, mkdtempSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { dataDirectoryOf, embeddedPostgresDirectory, letThrough } from "./DataDirectory.ts"

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

  it("letThrough() opens a directory of root's to those who pass, and touches no other", async () => {
    const directory = mkdtempSync(join(tmpdir(), "thrum-data-"))
    try {
      await letThrough(directory)
      assert.strictEqual(statSync(directory).mode & 0o777, process.getuid?.() === 0 ? 0o701 : 0o700)
      chmodSync(directory, 0o755)
      await letThrough(directory)
      assert.strictEqual(statSync(directory).mode & 0o777, 0o755)
      await letThrough(join(directory, "missing"))
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})
