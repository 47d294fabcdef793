/** A whole server on a real PostgreSQL, on free ports of this machine, for one test file. */
import { serverLayer, type Settings } from "@thrum/server"
import { Effect, Exit, Layer, Logger, Scope } from "effect"
import { HttpServer } from "effect/http"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

export interface TestServer {
  /** `http://127.0.0.1:<port>` */
  readonly url: string
  readonly dataDir: string
  /** Drains and stops it; the data directory stays. */
  readonly stop: () => Promise<void>
}

/** Starts a server in this process. Its data directory is removed with the process, unless one is given. */
export const startServer = async (given: Partial<Settings> = {}): Promise<TestServer> => {
  const dataDir = given.dataDir ?? mkdtempSync(join(tmpdir(), "thrum-test-"))
  if (given.dataDir === undefined) {
    process.once("exit", () => rmSync(dataDir, { recursive: true, force: true }))
  }
  const scope = await Effect.runPromise(Scope.make())
  const settings: Settings = {
    port: 0,
    host: "127.0.0.1",
    databaseUrl: undefined,
    publicUrl: undefined,
    ...given,
    dataDir
  }
  const context = await Effect.runPromise(
    Layer.buildWithScope(serverLayer(settings).pipe(Layer.provide(Logger.layer([]))), scope)
  )
  const url = await Effect.runPromise(
    HttpServer.HttpServer.use((server) => Effect.succeed(HttpServer.formatAddress(server.address))).pipe(
      Effect.provideContext(context)
    )
  )
  return { url, dataDir, stop: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}
