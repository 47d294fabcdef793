/**
 * PostgreSQL's processes: the programs that run to their end (`initdb`), and the postmaster, which serves one
 * cluster until it is stopped.
 *
 * Of what they print the last {@link tailLines} lines are kept, {@link lineCharsMax} characters of each.
 */
import { Deferred, Effect, Option } from "effect"
import { type ChildProcess, spawn, type StdioOptions } from "node:child_process"
import { readFileSync, readlinkSync, realpathSync } from "node:fs"
import { readFile, rm } from "node:fs/promises"
import { join } from "node:path"
import type { DatabaseUser } from "./DatabaseUser.ts"
import { codeOf, messageOf } from "./EmbeddedPostgresError.ts"

const tailLines = 8
const lineCharsMax = 400

/** What the programs get of our environment. No `PG*` and no locale: they would change what is created and served. */
const passedOn = ["PATH", "HOME", "TMPDIR", "TMP", "TEMP", "SystemRoot", "LD_LIBRARY_PATH"] as const

const environment = (): Record<string, string> => {
  const env: Record<string, string> = { LC_ALL: "C", TZ: "UTC" }
  for (const name of passedOn) {
    const value = process.env[name]
    if (value !== undefined) env[name] = value
  }
  return env
}

/** In a session of its own: a Ctrl-C in the terminal, or a signal to our group, must reach Thrum and not the database. */
const launch = (
  program: string,
  args: ReadonlyArray<string>,
  user: DatabaseUser | undefined,
  stdio: StdioOptions
): ChildProcess =>
  spawn(program, [...args], {
    detached: process.platform !== "win32",
    windowsHide: true,
    env: environment(),
    stdio,
    ...(user === undefined ? {} : { uid: user.uid, gid: user.gid })
  })

interface Tail {
  readonly push: (text: string) => void
  /** The lines kept, as one. */
  readonly oneLine: () => string
}

const makeTail = (): Tail => {
  const lines: Array<string> = []
  let unfinished = ""
  return {
    push: (text) => {
      const parts = (unfinished + text).split("\n")
      unfinished = (parts.pop() ?? "").slice(0, lineCharsMax)
      for (const part of parts) {
        const line = part.trim().slice(0, lineCharsMax)
        if (line !== "") lines.push(line)
      }
      lines.splice(0, lines.length - tailLines)
    },
    oneLine: () => [...lines, unfinished.trim()].filter((line) => line !== "").join(" | ")
  }
}

const endingOf = (code: number | null, signal: NodeJS.Signals | null, tail: Tail): string => {
  const how = signal === null ? `exit code ${code}` : `signal ${signal}`
  const said = tail.oneLine()
  return said === "" ? how : `${how}: ${said}`
}

/**
 * Runs a program to its end.
 *
 * @param input Its standard input.
 * @returns Undefined when it ended with exit code 0, otherwise how it ended and what it said last. Interrupted, it is
 *   killed with all it started.
 */
export const runProgram = (
  program: string,
  args: ReadonlyArray<string>,
  user: DatabaseUser | undefined,
  input: string
): Effect.Effect<string | undefined> =>
  Effect.callback((resume) => {
    const tail = makeTail()
    let child: ChildProcess
    try {
      child = launch(program, args, user, ["pipe", "ignore", "pipe"])
    } catch (cause) {
      return resume(Effect.succeed(messageOf(cause)))
    }
    child.stderr?.setEncoding("utf8").on("data", tail.push)
    // It may end before it has read its input; how it ended tells more than the broken pipe.
    child.stdin?.on("error", () => {}).end(input)
    child.once("error", (cause) => resume(Effect.succeed(cause.message)))
    child.once("close", (code, signal) => {
      resume(Effect.succeed(code === 0 ? undefined : endingOf(code, signal, tail)))
    })
    return Effect.sync(() => {
      if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
        sendSignal(process.platform === "win32" ? child.pid : -child.pid, "SIGKILL")
      }
    })
  })

/** False when nobody is there any more. */
const sendSignal = (pid: number, signal: NodeJS.Signals | 0): boolean => {
  try {
    process.kill(pid, signal)
    return true
  } catch (cause) {
    if (codeOf(cause) === "ESRCH") return false
    if (codeOf(cause) === "EPERM") return true // somebody, but not ours
    throw cause
  }
}

/** What a postmaster writes into its cluster about itself. */
export interface PostmasterFile {
  readonly pid: number
  readonly port: number
  /** `"starting"`, `"ready"`, `"standby"`, `"stopping"`; empty in its first moments. */
  readonly status: string
}

/**
 * Reads `postmaster.pid`; undefined when there is none, or nothing in it.
 *
 * @see PostgreSQL's `src/include/utils/pidfile.h`.
 */
export const readPostmasterFile = async (cluster: string): Promise<PostmasterFile | undefined> => {
  const text = await readFile(join(cluster, "postmaster.pid"), "utf8").catch((cause: unknown) => {
    if (codeOf(cause) === "ENOENT") return ""
    throw cause
  })
  const lines = text.split("\n")
  const pid = Number(lines[0])
  if (!Number.isInteger(pid) || pid <= 0) return undefined
  return { pid, port: Number(lines[3] ?? 0), status: (lines[7] ?? "").trim() }
}

/** Removes `postmaster.pid`. Only for one whose process is certainly no postmaster of this cluster. */
export const removePostmasterFile = (cluster: string): Promise<void> => rm(join(cluster, "postmaster.pid"))

/**
 * Whether process `pid` is a postmaster of `cluster` (a real path): PostgreSQL makes the cluster its working directory.
 * `"unknown"` where a process' working directory cannot be read and the process exists.
 */
export const isServing = (pid: number, cluster: string): "yes" | "no" | "unknown" => {
  if (!sendSignal(pid, 0)) return "no"
  if (process.platform !== "linux") return "unknown"
  try {
    return readlinkSync(`/proc/${pid}/cwd`) === cluster ? "yes" : "no"
  } catch (cause) {
    // A process that ended and that nobody has waited for still has a number, and no directory.
    return codeOf(cause) === "ENOENT" || codeOf(cause) === "ESRCH" ? "no" : "unknown"
  }
}

/** When a process began, in ticks since the machine did: with its number this names it for ever. Linux only. */
const beginningOf = (pid: number): string | undefined => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1")
    // The second field is the name in parentheses, which may hold spaces; the beginning is the 22nd.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]
  } catch {
    return undefined
  }
}

/** A postmaster of ours, by birth or by adoption. */
export interface Postmaster {
  readonly pid: number
  readonly port: number
  readonly adopted: boolean
  readonly isRunning: () => boolean
  /** Waits for its end and tells how it ended. May be run many times. */
  readonly ended: Effect.Effect<string>
  /** SIGINT: disconnect everybody and shut down. SIGQUIT: drop everything at once, recover at the next start. */
  readonly signal: (signal: "SIGINT" | "SIGQUIT" | "SIGKILL") => void
}

/** Windows has no signals; PostgreSQL takes them there through a pipe that `pg_ctl` knows. */
const signalTo = (pid: number, pgCtl: string) => (signal: "SIGINT" | "SIGQUIT" | "SIGKILL"): void => {
  if (process.platform !== "win32" || signal === "SIGKILL") {
    sendSignal(pid, signal)
    return
  }
  spawn(pgCtl, ["kill", signal.slice(3), String(pid)], { windowsHide: true, stdio: "ignore" }).on("error", () => {})
}

/** Long enough for the last words of a process that has ended to come through its pipe. */
const lastWordsMs = 100

/**
 * Starts a postmaster as our child. Returns at once; `postmaster.pid` tells when it is ready.
 *
 * @returns The postmaster, or why the system does not start it.
 */
export const launchPostmaster = (
  postgres: string,
  pgCtl: string,
  args: ReadonlyArray<string>,
  port: number,
  user: DatabaseUser | undefined
): Postmaster | string => {
  const tail = makeTail()
  const ended = Deferred.makeUnsafe<string>()
  const end = (how: string) => Deferred.doneUnsafe(ended, Effect.succeed(how))
  let child: ChildProcess
  try {
    child = launch(postgres, args, user, ["ignore", "ignore", "pipe"])
  } catch (cause) {
    return messageOf(cause)
  }
  const { pid } = child
  child.stderr?.setEncoding("utf8").on("data", tail.push)
  child.on("error", (cause) => {
    if (pid === undefined) end(cause.message)
  })
  // "close" comes when all is read. That may be late: the children of a killed postmaster hold its pipe, too.
  child.once("exit", (code, signal) => setTimeout(() => end(endingOf(code, signal, tail)), lastWordsMs))
  child.once("close", (code, signal) => end(endingOf(code, signal, tail)))
  return {
    pid: pid ?? 0,
    port,
    adopted: false,
    isRunning: () => pid !== undefined && child.exitCode === null && child.signalCode === null,
    ended: Deferred.await(ended),
    signal: pid === undefined ? () => {} : signalTo(pid, pgCtl)
  }
}

const adoptedPollMs = 100

/** Takes over a postmaster that another process started and left; the caller knows that it serves `cluster`. */
export const adoptPostmaster = (file: PostmasterFile, cluster: string, pgCtl: string): Postmaster => {
  const { pid, port } = file
  const beginning = beginningOf(pid)
  // Asked before each signal: its number may be another process' by now.
  const isRunning = () => isServing(pid, cluster) !== "no" && beginningOf(pid) === beginning
  const signal = signalTo(pid, pgCtl)
  return {
    pid,
    port,
    adopted: true,
    isRunning,
    ended: Effect.suspend(() => isRunning() ? Effect.sleep(adoptedPollMs) : Effect.fail("gone")).pipe(
      Effect.forever,
      Effect.catch(() => Effect.succeed("not our child, so nobody knows how"))
    ),
    signal: (name) => {
      if (isRunning()) signal(name)
    }
  }
}

const fastStopMs = 5000
/** 5 s after a SIGQUIT the postmaster itself kills what is left of its children; none must outlive it. */
const immediateStopMs = 6000
const killMs = 1000

/** Stops a postmaster and waits for its end: SIGINT for 5 s, then SIGQUIT for 6 s, then SIGKILL for 1 s. */
export const stopPostmaster: (postmaster: Postmaster) => Effect.Effect<void> = Effect.fnUntraced(
  function*(postmaster) {
    for (
      const [signal, waitMs] of [["SIGINT", fastStopMs], ["SIGQUIT", immediateStopMs], ["SIGKILL", killMs]] as const
    ) {
      if (!postmaster.isRunning()) return
      postmaster.signal(signal)
      const how = yield* Effect.timeoutOption(postmaster.ended, waitMs)
      if (Option.isSome(how)) return
      yield* Effect.logWarning(
        `The embedded PostgreSQL (process ${postmaster.pid}) did not end within ${waitMs} ms of ${signal}`
      )
    }
  }
)

/** The same directory, whatever the way to it. */
export const sameDirectory = (a: string, b: string): boolean => {
  try {
    return realpathSync(a) === realpathSync(b)
  } catch {
    return false
  }
}
