/** A real Chromium that runs a module of this repository, and the small server that gives it the sources. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, readFileSync } from "node:fs"
import { createServer } from "node:http"
import { stripTypeScriptTypes } from "node:module"
import { extname, join, normalize, resolve } from "node:path"

const root = resolve(import.meta.dirname, "../..")
const chromium = "/usr/bin/chromium"

/** Whether there is one on this machine. */
export const hasBrowser: boolean = existsSync(chromium)

const imports = {
  "@thrum/client": "/packages/client/src/mod.ts",
  "@thrum/protocol": "/packages/protocol/src/mod.ts",
  "msgpackr/pack": "/node_modules/msgpackr/pack.js",
  "msgpackr/unpack": "/node_modules/msgpackr/unpack.js"
}

export interface Page {
  /** What the module said: everything it sent to `/said`, parsed. */
  readonly said: () => Promise<unknown>
  /** Ends the browser at once, as a power cut does. */
  readonly kill: () => Promise<void>
}

export interface PageServer {
  /** Opens `/<module>?<query>` in a browser with this profile. */
  readonly open: (module: string, query: URLSearchParams, profile: string) => Page
  readonly close: () => void
}

const page = (module: string): string =>
  `<!doctype html><title>test</title>
<script type="importmap" nonce="test">${JSON.stringify({ imports })}</script>
<script type="module" src="/${module}"></script>`

/** Serves the sources as scripts, without their types, under a policy that lets no code be made from strings. */
export const startPageServer = async (): Promise<PageServer> => {
  let onSaid: ((said: unknown) => void) | undefined
  const server = createServer((request, answer) => {
    const path = normalize(decodeURIComponent(new URL(request.url ?? "/", "http://host").pathname))
    if (path === "/said") {
      let text = ""
      request.setEncoding("utf8").on("data", (piece: string) => {
        text += piece
      }).on("end", () => {
        answer.end()
        onSaid?.(JSON.parse(text))
      })
    } else if (path.startsWith("/page/")) {
      answer.writeHead(200, {
        "content-type": "text/html",
        "content-security-policy": "default-src 'none'; script-src 'self' 'nonce-test'; connect-src *"
      }).end(page(path.slice("/page/".length)))
    } else if (extname(path) === ".ts" || extname(path) === ".js") {
      const source = readFileSync(join(root, path), "utf8")
      answer.writeHead(200, { "content-type": "text/javascript" })
        .end(path.endsWith(".ts") ? stripTypeScriptTypes(source) : source)
    } else answer.writeHead(404).end()
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  if (address === null || typeof address === "string") throw new Error("the page server does not listen")

  const browsers = new Set<ChildProcess>()
  const end = async (browser: ChildProcess): Promise<void> => {
    browsers.delete(browser)
    if (browser.exitCode !== null || browser.signalCode !== null) return
    // Its processes are a group of their own.
    process.kill(-browser.pid!, "SIGKILL")
    await once(browser, "exit")
  }
  return {
    open: (module, query, profile) => {
      const url = `http://127.0.0.1:${address.port}/page/${module}?${query.toString()}`
      const { promise, resolve } = Promise.withResolvers<unknown>()
      onSaid = resolve
      const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", `--user-data-dir=${profile}`]
      const browser = spawn(chromium, [...flags, url], { stdio: "ignore", detached: true })
      browsers.add(browser)
      const gone = once(browser, "exit").then(() => {
        throw new Error("the browser ended before the page said anything")
      })
      gone.catch(() => {})
      return { said: () => Promise.race([promise, gone]), kill: () => end(browser) }
    },
    close: () => {
      for (const browser of browsers) void end(browser)
      server.close()
    }
  }
}
