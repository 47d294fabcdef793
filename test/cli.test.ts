/** The command line as its users run it: processes, a real server on the embedded database, exit codes. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const portOf = (server: { readonly address: () => AddressInfo | string | null }): number => {
  const address = server.address()
  if (address === null || typeof address === "string") throw new Error("the server does not listen")
  return address.port
}

const bin = fileURLToPath(new URL("../packages/server/src/bin.mjs", import.meta.url))
const recording = (name: string): string => fileURLToPath(new URL(`data/${name}.csv`, import.meta.url))
const phone = recording("phone_bmi160_walk_a")
const wrist = recording("wrist_geneactiv")
/** ms that a command may take on a busy machine. */
const commandMax = 60_000
/** ms that a server may be there, for all commands together. */
const serverMax = 10 * commandMax

const children = new Set<ChildProcess>()
let folder = ""
let dataDir = ""

interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

interface Running {
  readonly child: ChildProcess
  readonly ended: Promise<Ended>
  /** Returns when standard output matches. */
  readonly shows: (pattern: RegExp) => Promise<RegExpExecArray>
}

const thrum = (
  args: ReadonlyArray<string>,
  options: { readonly env?: NodeJS.ProcessEnv; readonly node?: ReadonlyArray<string>; readonly max?: number } = {}
): Running => {
  const child = spawn(process.execPath, [...options.node ?? [], bin, ...args], {
    env: { ...process.env, ...options.env }
  })
  children.add(child)
  let [out, err] = ["", ""]
  const waiting = new Set<() => void>()
  const tell = (): void => {
    for (const look of waiting) look()
  }
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    out += text
    tell()
  })
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    err += text
  })
  const timer = setTimeout(() => child.kill("SIGKILL"), options.max ?? commandMax)
  const ended = new Promise<Ended>((resolve) => {
    child.on("close", (code) => {
      clearTimeout(timer)
      children.delete(child)
      resolve({ code, out, err })
      tell()
    })
  })
  const shows = (pattern: RegExp): Promise<RegExpExecArray> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        const match = pattern.exec(out)
        if (match !== null) resolve(match)
        else if (children.has(child)) return
        else reject(new Error(`thrum ${args.join(" ")} ended and did not show ${String(pattern)}: ${out}${err}`))
        waiting.delete(look)
      }
      waiting.add(look)
      look()
    })
  return { child, ended, shows }
}

const run = (...args: ReadonlyArray<string>): Promise<Ended> => {
  const running = thrum(args)
  running.child.stdin?.end()
  return running.ended
}

const serve = async (port = 0): Promise<{ readonly server: Running; readonly url: string }> => {
  const server = thrum(["serve", "--port", String(port), "--data-dir", dataDir], { max: serverMax })
  const [, url = ""] = await server.shows(/serves at (http:\S+?),/)
  return { server, url }
}

const idOf = (out: string): string => /sessions\/([0-9a-f-]{36})/.exec(out)?.[1] ?? ""
const rowsOf = (file: string, from: number): ReadonlyArray<ReadonlyArray<number>> =>
  readFileSync(file, "utf8").trim().split(/\r?\n/).slice(1).map((line) => line.split(",").slice(from).map(Number))

/** The one line of a failure. */
const lineOf = ({ err }: Ended): string => {
  const lines = err.trim().split("\n").filter((line) => line.startsWith("thrum: Cannot"))
  assert.strictEqual(lines.length, 1, err)
  return lines[0] ?? ""
}

let url = ""
let server: Running

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "thrum-cli-"))
  // The embedded database of root runs as another user, who must be let through.
  chmodSync(folder, 0o755)
  dataDir = join(folder, "data")
  const started = await serve()
  url = started.url
  server = started.server
}, commandMax)

afterAll(async () => {
  server.child.kill("SIGTERM")
  await server.ended
  for (const child of children) child.kill("SIGKILL")
  rmSync(folder, { recursive: true, force: true })
}, commandMax)

describe("the command line", () => {
  it("helps with every command, and wrong usage is one line and exit code 2", async () => {
    const commands = ["serve", "stream", "watch", "pull", "demo"]
    const helps = await Promise.all([[], ...commands.map((command) => [command])].map((args) => run(...args, "--help")))
    for (const { code, err, out } of helps) assert.deepStrictEqual([code, err, out.includes("USAGE")], [0, "", true])
    for (const command of commands) assert.include(helps[0]?.out, `  ${command} `)

    for (
      const [args, words] of [
        [["strem"], "strem"],
        [["stream"], "file"],
        [["stream", phone], "--to"],
        [["stream", phone, "--to", "nowhere"], "\"nowhere\""],
        [["stream", phone, "--to", url, "--speed", "fast"], "\"fast\""],
        [["stream", phone, "--to", url, "--rate", "-5"], "--rate -5"],
        [["stream", phone, "--to", url, "--key", "k"], "--session"],
        [["watch", "walk"], "\"walk\""],
        [["watch", `${url}/sessions/${crypto.randomUUID()}`, "--from", "noon"], "\"noon\""],
        [["pull", `${url}/sessions/${crypto.randomUUID()}`, "-o", join(folder, "walk.xls")], "walk.xls"],
        [["serve", "--port", "70000"], "70000"]
      ] as const
    ) {
      const ended = await run(...args)
      assert.strictEqual(ended.code, 2, args.join(" "))
      assert.include(lineOf(ended), words)
      assert.strictEqual(ended.err.trim().split("\n").length, 1, ended.err)
    }
  }, 3 * commandMax)

  it("says in one line that Node is too old", async () => {
    const old = "data:text/javascript,Object.defineProperty(process,'versions',{value:{node:'20.19.1'}})"
    const ended = await thrum(["--help"], { node: ["--import", old] }).ended
    assert.deepStrictEqual(ended, {
      code: 1,
      out: "",
      err: "thrum: Cannot run on Node 20.19.1: it needs 22.19 or newer\n"
    })
  })

  for (const [file, from] of [[phone, 1], [wrist, 0], [recording("imu_xio_float"), 1]] as const) {
    it(`streams, watches and pulls ${file.split("/").at(-1)}: every number is the file's`, async () => {
      const streamed = await run("stream", file, "--to", url, "--speed", "max")
      assert.deepStrictEqual([streamed.code, lineOfDone(streamed.out)], [0, true], streamed.err)
      const link = `${url}/sessions/${idOf(streamed.out)}`
      const rows = rowsOf(file, from)

      const seen = await run("watch", link, "--from", "start", "--json")
      assert.strictEqual(seen.code, 0, seen.err)
      const events = seen.out.trim().split("\n").map((line): { type: string; values: ReadonlyArray<number> } =>
        JSON.parse(line)
      )
      assert.deepStrictEqual(events.filter(({ type }) => type === "sample").map(({ values }) => values), rows)
      assert.strictEqual(events.at(-1)?.type, "ended")

      const pulled = (extension: string): string => join(folder, `${idOf(streamed.out)}.${extension}`)
      for (const extension of ["json", "csv", "ndjson", "thrum"]) {
        const ended = await run("pull", link, "-o", pulled(extension))
        assert.deepStrictEqual([ended.code, existsSync(`${pulled(extension)}.part`)], [0, false], ended.err)
      }
      const json: { complete: boolean; rows: ReadonlyArray<ReadonlyArray<number>> } = JSON.parse(
        readFileSync(pulled("json"), "utf8")
      )
      assert.deepStrictEqual([json.complete, json.rows.map((row) => row.slice(3))], [true, rows])
      assert.deepStrictEqual(rowsOf(pulled("csv"), 3), rows)
      const lines = readFileSync(pulled("ndjson"), "utf8").trim().split("\n")
      assert.deepStrictEqual(JSON.parse(lines.at(-1) ?? ""), { end: { complete: true, samples: rows.length } })
      const piped = await run("pull", link, "-o", "-", "--format", "csv")
      assert.strictEqual(piped.out, readFileSync(pulled("csv"), "utf8"))
    }, 3 * commandMax)
  }

  it("streams what comes out of a program while it comes, and a watcher sees it live", async () => {
    const streaming = thrum(["stream", "-", "--to", url, "--rate", "50"])
    streaming.child.stdin?.write("x,y\n1,2\n3,4\n")
    const [, id = ""] = await streaming.shows(/watch {2}\S+\/sessions\/(\S+)/)
    const watching = thrum(["watch", id, "--to", url, "--from", "start", "--json"])
    await watching.shows(/"0:1".*\[3,4\]/)
    streaming.child.stdin?.write("5,6\n")
    await watching.shows(/"0:2".*\[5,6\]/)
    streaming.child.stdin?.end("7,8")
    const [streamed, watched] = await Promise.all([streaming.ended, watching.ended])
    assert.deepStrictEqual([streamed.code, watched.code], [0, 0], streamed.err + watched.err)
    assert.include(watched.out, "[7,8]")
  })

  it("shows lines instead of a picture where there is no terminal, and the totals at the end", async () => {
    const streamed = await run("stream", wrist, "--to", url, "--speed", "max", "--rate", "85.7", "--name", "left wrist")
    const watched = await run("watch", `${url}/sessions/${idOf(streamed.out)}`, "--from", "start")
    assert.strictEqual(watched.code, 0, watched.err)
    assert.include(watched.out, "left wrist")
    assert.match(watched.out, /ended {2}4,800 samples, no gaps/)
    assert.notInclude(watched.out, "\x1b")
  })

  it("a recording that cannot be sent names the line, and leaves no process behind", async () => {
    const broken = join(folder, "broken.csv")
    writeFileSync(broken, "t_ms,x,y\n0,1,2\n10,3,oops\n")
    const ended = await run("stream", broken, "--to", url)
    assert.strictEqual(ended.code, 1)
    assert.include(lineOf(ended), "line 3")
    assert.include(lineOf(ended), "\"oops\"")
  })

  it("a server that is not there, and a session that is not there, are said in one line", async () => {
    const id = crypto.randomUUID()
    const missing = join(folder, "missing.csv")
    const free = createServer().listen(0, "127.0.0.1")
    await once(free, "listening")
    const nobody = `http://127.0.0.1:${portOf(free)}`
    free.close()
    for (
      const [args, words] of [
        [["stream", phone, "--to", nobody], "ECONNREFUSED"],
        [["watch", `${nobody}/sessions/${id}`], "ECONNREFUSED"],
        [["pull", `${nobody}/sessions/${id}`, "-o", missing], "ECONNREFUSED"],
        [["watch", `${url}/sessions/${id}`], id],
        [["pull", `${url}/sessions/${id}`, "-o", missing], id],
        [["stream", join(folder, "nothing.csv"), "--to", url], "no such file"]
      ] as const
    ) {
      const ended = await run(...args)
      assert.strictEqual(ended.code, 1, ended.err)
      assert.include(lineOf(ended), words)
    }
    assert.isFalse(existsSync(missing))
  }, 2 * commandMax)

  it(
    "goes on with a session, pulls it while it is live only when asked to, and never replaces a file by itself",
    async () => {
      const first = join(folder, "first.csv")
      writeFileSync(first, "x\n1\n2\n3\n")
      const opened = await run("stream", first, "--to", url, "--keep-open", "--rate", "100")
      const key = /key {4}(\S+)/.exec(opened.out)?.[1] ?? ""
      const link = `${url}/sessions/${idOf(opened.out)}`
      const file = join(folder, "live.csv")

      const refused = await run("pull", link, "-o", file)
      assert.deepStrictEqual([refused.code, existsSync(file), existsSync(`${file}.part`)], [1, false, false])
      assert.strictEqual((await run("pull", link, "-o", file, "--partial")).code, 0)
      assert.deepStrictEqual(rowsOf(file, 3), [[1], [2], [3]])

      const again = await run("stream", first, "--to", url, "--session", link, "--key", key, "--rate", "100")
      assert.strictEqual(again.code, 0, again.err)
      const kept = await run("pull", link, "-o", file)
      assert.strictEqual(kept.code, 1)
      assert.include(lineOf(kept), "--force")
      assert.strictEqual((await run("pull", link, "-o", file, "--force")).code, 0)
      assert.deepStrictEqual(rowsOf(file, 3), [[1], [2], [3], [1], [2], [3]])

      const wrong = await run("stream", first, "--to", url, "--session", link, "--key", "wrong", "--rate", "100")
      assert.strictEqual(wrong.code, 1)
    },
    2 * commandMax
  )

  it("a download that is cut leaves nothing behind, and says so", async () => {
    for (const cut of ["cut", "short"] as const) {
      const liar = createServer((_, answer) => {
        answer.writeHead(200, { "content-type": "text/csv", "thrum-complete": "true" })
        answer.write("position,device_time (µs),time,x\n0:0,,,1\n0:1,,")
        setTimeout(() => cut === "cut" ? answer.destroy() : answer.end(), 100)
      }).listen(0, "127.0.0.1")
      await once(liar, "listening")
      const file = join(folder, `${cut}.csv`)
      const link = `http://127.0.0.1:${portOf(liar)}/sessions/${crypto.randomUUID()}`
      const ended = await run("pull", link, "-o", file)
      liar.close()
      assert.deepStrictEqual([ended.code, existsSync(file), existsSync(`${file}.part`)], [1, false, false], ended.err)
      lineOf(ended)
    }
  })

  it("Ctrl-C ends what waits with 130", async () => {
    const file = join(folder, "one.csv")
    writeFileSync(file, "x\n1\n")
    const opened = await run("stream", file, "--to", url, "--keep-open", "--rate", "1")
    const watching = thrum(["watch", `${url}/sessions/${idOf(opened.out)}`, "--from", "start"])
    await watching.shows(/Watching/)
    watching.child.kill("SIGINT")
    assert.strictEqual((await watching.ended).code, 130)

    const streaming = thrum(["stream", phone, "--to", url])
    await streaming.shows(/data /)
    streaming.child.kill("SIGINT")
    assert.strictEqual((await streaming.ended).code, 130)
  })

  it("a reader that has enough ends a watcher quietly", async () => {
    // More lines than a pipe holds: the watcher still writes when its reader leaves.
    const streamed = await run("stream", recording("wrist_axivity_ax3"), "--to", url, "--speed", "max")
    const watching = thrum(["watch", `${url}/sessions/${idOf(streamed.out)}`, "--from", "start", "--json"])
    watching.child.stdout?.once("data", () => watching.child.stdout?.destroy())
    const { code, err } = await watching.ended
    assert.deepStrictEqual([code, err], [141, ""])
  })

  it("the server stops with 0; who streams and who watches come back to the next one and miss nothing", async () => {
    const streaming = thrum(["stream", phone, "--to", url, "--speed", "12"])
    const [, id = ""] = await streaming.shows(/watch {2}\S+\/sessions\/(\S+)/)
    const watching = thrum(["watch", id, "--to", url, "--from", "start", "--json"])
    await watching.shows(/"0:300"/)
    server.child.kill("SIGTERM")
    assert.strictEqual((await server.ended).code, 0)
    server = (await serve(Number(new URL(url).port))).server
    const [streamed, watched] = await Promise.all([streaming.ended, watching.ended])
    assert.deepStrictEqual([streamed.code, watched.code], [0, 0], streamed.err + watched.err)
    const rows = rowsOf(phone, 1)
    const events = watched.out.trim().split("\n").map((line): { type: string; values: ReadonlyArray<number> } =>
      JSON.parse(line)
    )
    assert.deepStrictEqual(events.filter(({ type }) => type === "sample").map(({ values }) => values), rows)
    const data = await run("pull", id, "--to", url, "-o", "-", "--format", "json")
    const json: { rows: ReadonlyArray<ReadonlyArray<number>> } = JSON.parse(data.out)
    assert.deepStrictEqual(json.rows.map((row) => row.slice(3)), rows)
  }, 2 * commandMax)

  it("the demo shows all of it and ends by itself", async () => {
    const ended = await thrum(["demo"], { env: { THRUM_DATA_DIR: join(folder, "demo"), PORT: undefined } }).ended
    assert.strictEqual(ended.code, 0, ended.err)
    assert.match(ended.out, /Sealed\..*\n\n {2}http:\S+\/sessions\/\S+\/data\n/)
    assert.match(ended.out, /All 13,758 values equal the file's/)
  }, 2 * commandMax)
})

const lineOfDone = (out: string): boolean => /^done {3}[\d,]+ samples, .* B\/sample .*sealed: http\S+\/data$/m.test(out)
