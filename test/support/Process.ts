/** A server as its operators run it: a process of its own, on a real PostgreSQL. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { until } from "./Device.ts"

const bin = fileURLToPath(new URL("../../packages/server/src/bin.mjs", import.meta.url))

const running = new Set<ChildProcess>()
process.once("exit", () => {
  for (const child of running) child.kill("SIGKILL")
})

export interface ServerProcess {
  readonly url: string
  readonly pid: number
  /** What it wrote, both ways. */
  readonly output: () => string
  /** Sends a signal and waits for the exit. */
  readonly end: (signal: NodeJS.Signals) => Promise<{ readonly code: number | null; readonly ms: number }>
  readonly signal: (signal: NodeJS.Signals) => void
}

/** Starts `thrum serve` on a free port and waits until it serves. */
export const startProcess = async (env: Readonly<Record<string, string>>): Promise<ServerProcess> => {
  const child = spawn(process.execPath, [bin, "serve"], {
    env: { ...process.env, DATABASE_URL: "", PORT: "0", ...env },
    stdio: ["ignore", "pipe", "pipe"]
  })
  running.add(child)
  child.once("exit", () => running.delete(child))
  let output = ""
  const hear = (data: Buffer): void => {
    output += data.toString()
  }
  child.stdout.on("data", hear)
  child.stderr.on("data", hear)
  const address = (): string | undefined => /serves at (http:\/\/[^\s,]+)/.exec(output)?.[1]
  await until("the server", () => address() !== undefined || child.exitCode !== null, 30_000)
  const url = address()
  if (url === undefined) throw new Error(`the server ended with ${child.exitCode}: ${output}`)
  return {
    url,
    pid: child.pid!,
    output: () => output,
    signal: (signal) => {
      child.kill(signal)
    },
    end: async (signal) => {
      const started = Date.now()
      child.kill(signal)
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit")
      return { code: child.exitCode, ms: Date.now() - started }
    }
  }
}
