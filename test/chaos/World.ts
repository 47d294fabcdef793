/**
 * What the chaos happens to: a real PostgreSQL, kept running by its supervisor in this process, and one server process
 * at a time, always on the same port, so that its peers come back by themselves.
 */
import { startEmbeddedPostgres } from "../../packages/server/src/sql/EmbeddedPostgres.ts"
import { Effect, Exit, Logger, Redacted, Scope } from "effect"
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Random } from "../simulation/Random.ts"
import { type ServerProcess, startProcess } from "../support/Process.ts"

/** Where a peer that connects to a port nobody listens on cannot meet itself: below the ports systems give out. */
const ports = { min: 12_000, max: 30_000 }

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer()
    server.once("error", () => resolve(false))
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)))
  })

/** A port for the whole of a scenario. Not from the seed: two runs may be under way. */
export const fixedPort = async (): Promise<number> => {
  for (let tries = 0; tries < 50; tries++) {
    const port = ports.min + Math.floor(Math.random() * (ports.max - ports.min))
    if (await isFree(port)) return port
  }
  throw new Error(`Cannot find a free port of ${ports.min} to ${ports.max}`)
}

/** No such file, or no such process. */
const isMissing = (cause: unknown): boolean =>
  cause instanceof Error && "code" in cause && (cause.code === "ENOENT" || cause.code === "ESRCH")

export class World {
  readonly port: number
  readonly databasePort: number
  private readonly databaseUrl: string
  private readonly folder: string
  private readonly scope: Scope.Closeable
  private server: ServerProcess | undefined

  private constructor(folder: string, scope: Scope.Closeable, databaseUrl: string, databasePort: number, port: number) {
    this.folder = folder
    this.scope = scope
    this.databaseUrl = databaseUrl
    this.databasePort = databasePort
    this.port = port
  }

  static async open(): Promise<World> {
    const folder = mkdtempSync(join(tmpdir(), "thrum-chaos-"))
    chmodSync(folder, 0o755)
    const scope = await Effect.runPromise(Scope.make())
    const database = await Effect.runPromise(
      startEmbeddedPostgres({ dataDir: join(folder, "postgres") }).pipe(
        Scope.provide(scope),
        Effect.provide(Logger.layer([]))
      )
    )
    return new World(folder, scope, Redacted.value(database.url), database.port, await fixedPort())
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  /** The server process, the last that was started; there must be one. */
  get current(): ServerProcess {
    if (this.server === undefined) throw new Error("Cannot use the server: it is not started")
    return this.server
  }

  /**
   * Starts the server, in the place of one that was ended.
   *
   * @param databasePort Of a proxy before the database, where there is one.
   */
  async serve(databasePort: number = this.databasePort): Promise<ServerProcess> {
    const url = this.databaseUrl.replace(`:${this.databasePort}/`, `:${databasePort}/`)
    this.server = await startProcess({ DATABASE_URL: url, PORT: String(this.port) })
    return this.server
  }

  /** Fails when the server has ended by itself. */
  mustRun(): void {
    if (existsSync(`/proc/${this.current.pid}`)) return
    throw new Error(`Cannot go on: the server has ended by itself: ${this.lastWords()}`)
  }

  /** What the server wrote last. */
  lastWords(): string {
    return this.server?.output().slice(-2000) ?? ""
  }

  /** `kill -9`, and a new server at once. */
  async killServer(): Promise<void> {
    this.mustRun()
    await this.current.end("SIGKILL")
    await this.serve()
  }

  /** The postmaster's process and those it has started; none while it does not run. */
  databaseProcesses(): ReadonlyArray<number> {
    try {
      const file = readFileSync(join(this.folder, "postgres", "cluster", "postmaster.pid"), "utf8")
      const postmaster = Number(file.split("\n")[0])
      const children = readFileSync(`/proc/${postmaster}/task/${postmaster}/children`, "utf8").trim().split(" ")
      return [postmaster, ...children.filter((pid) => pid !== "").map(Number)]
    } catch (cause) {
      if (isMissing(cause)) return []
      throw cause
    }
  }

  /** Sends a signal to processes of the database. One that is gone already is as good. */
  signalDatabase(pids: ReadonlyArray<number>, signal: NodeJS.Signals): void {
    for (const pid of pids) {
      try {
        process.kill(pid, signal)
      } catch (cause) {
        if (!isMissing(cause)) throw cause
      }
    }
  }

  /** Bytes of memory the server's process holds now. */
  serverMemory(): number {
    const status = readFileSync(`/proc/${this.current.pid}/status`, "utf8")
    return 1024 * Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0)
  }

  /** Ends the server; `code` tells how, also when it had ended before. */
  async endServer(signal: NodeJS.Signals = "SIGTERM"): Promise<{ readonly code: number | null; readonly ms: number }> {
    return this.current.end(signal)
  }

  async close(): Promise<void> {
    await this.server?.end("SIGKILL")
    await Effect.runPromise(Scope.close(this.scope, Exit.void))
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** Waits a while. */
export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** A moment from 0 to `ms`, anywhere in it alike. */
export const moment = (random: Random, ms: number): Promise<void> => pause(random.between(0, ms))
