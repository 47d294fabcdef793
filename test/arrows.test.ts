/** The arrows of the house, read from every import: who may know whom. */
import { readdirSync, readFileSync } from "node:fs"
import { builtinModules } from "node:module"
import { dirname, join, relative, resolve } from "node:path"
import { assert, describe, it } from "vitest"

const root = resolve(import.meta.dirname, "..")

interface Import {
  /** Path from the root. */
  readonly file: string
  /** What it imports: a path from the root for relative ones, else the specifier. */
  readonly target: string
}

const sourcesOf = (folder: string): ReadonlyArray<string> =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts") && !path.includes("node_modules"))
    .map((path) => join(folder, path))

// `import … from "x"`, `export … from "x"`, `import "x"` and `import("x")`; in docstrings they stand behind a star.
const specifier = /(?:^|;|\n)\s*(?:import|export)\b(?:[^"'`;]*?\bfrom)?\s*"([^"]+)"|\bimport\(\s*"([^"]+)"\s*\)/g

const importsOf = (file: string): ReadonlyArray<Import> =>
  Array.from(readFileSync(join(root, file), "utf8").matchAll(specifier), (match) => {
    const target = match[1] ?? match[2]!
    return { file, target: target.startsWith(".") ? relative(root, resolve(root, dirname(file), target)) : target }
  })

const packages = ["protocol", "core", "client", "server"] as const
const imports = packages.flatMap((name) => sourcesOf(`packages/${name}/src`)).flatMap(importsOf)
const isTest = (file: string): boolean => file.endsWith(".test.ts") || file.includes("/testing/")
const isNode = (target: string): boolean => target.startsWith("node:") || builtinModules.includes(target)

const folder = (path: string): string | undefined => /^packages\/server\/src\/(ws|http|sql)\//.exec(path)?.[1]

const broken = (rule: (found: Import) => boolean): ReadonlyArray<string> =>
  imports.filter((found) => !rule(found)).map(({ file, target }) => `${file} imports ${target}`)

describe("arrows", () => {
  it("reads imports at all, of every form", () => {
    assert.isAbove(imports.length, 100)
    assert.deepInclude(imports, { file: "packages/core/src/Hub.ts", target: "effect" })
    assert.deepInclude(imports, { file: "packages/core/src/Hub.ts", target: "packages/core/src/Archive.ts" })
    assert.deepInclude(imports, { file: "packages/protocol/src/mod.ts", target: "packages/protocol/src/Frame.ts" })
  })

  it("no package reaches into another's files, only through its door", () => {
    assert.deepStrictEqual(
      broken(({ file, target }) =>
        !target.startsWith("packages/") || target.startsWith(file.split("/").slice(0, 2).join("/"))
      ),
      []
    )
  })

  it("protocol imports no Effect and nothing of Node", () => {
    assert.deepStrictEqual(
      broken(({ file, target }) =>
        !file.startsWith("packages/protocol/") || isTest(file) || target.startsWith("packages/protocol/") ||
        target === "msgpackr/pack" || target === "msgpackr/unpack"
      ),
      []
    )
  })

  it("client imports protocol alone; Node is for the store in a file, behind a door of its own", () => {
    assert.deepStrictEqual(
      broken(({ file, target }) =>
        !file.startsWith("packages/client/") || isTest(file) || target === "@thrum/protocol" ||
        (target.startsWith("packages/client/") && target !== "packages/client/src/FileStore.ts") ||
        (file === "packages/client/src/FileStore.ts" && isNode(target))
      ),
      []
    )
  })

  it("core imports effect and protocol, never HTTP, WebSocket or a database driver", () => {
    const allowed = new Set(["effect", "effect/sql", "@thrum/protocol", "node:crypto", "node:zlib"])
    assert.deepStrictEqual(
      broken(({ file, target }) =>
        !file.startsWith("packages/core/") || isTest(file) || target.startsWith("packages/core/") || allowed.has(target)
      ),
      []
    )
    const forTests = new Set([...allowed, "@effect/vitest", "vitest", "fast-check", "effect/testing", "@thrum/core"])
    assert.deepStrictEqual(
      broken(({ file, target }) =>
        !file.startsWith("packages/core/") || !isTest(file) || target.startsWith("packages/core/") ||
        forTests.has(target) || isNode(target)
      ),
      []
    )
  })

  it("effect/sql is for the sql folder alone", () => {
    assert.deepStrictEqual(
      broken(({ file, target }) =>
        !file.startsWith("packages/core/") || file.startsWith("packages/core/src/sql/") ||
        !target.startsWith("effect/sql")
      ),
      []
    )
  })

  it("the server's folders never import one another: they meet in the wiring file", () => {
    assert.deepStrictEqual(
      broken(({ file, target }) => {
        const [from, to] = [folder(file), folder(target)]
        return from === undefined || to === undefined || from === to
      }),
      []
    )
  })

  it("the server's barrel of Effect's platform is not imported: it loads what we do not use", () => {
    assert.deepStrictEqual(broken(({ file, target }) => isTest(file) || target !== "@effect/platform-node"), [])
  })
})
