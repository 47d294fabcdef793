/**
 * C programs for tests: compiled once a test run, in a directory that goes with the process.
 *
 * A machine without a C compiler fails these tests, unless `THRUM_ALLOW_NO_CC=1` says that they may be left out there.
 */
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const directory = mkdtempSync(join(tmpdir(), "thrum-c-"))
process.once("exit", () => rmSync(directory, { recursive: true, force: true }))

/** The folder of `thrum.h`. */
export const folder: string = fileURLToPath(new URL("..", import.meta.url))

/** What a program said. */
export interface Said {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program to its end, at most `timeoutMs`. */
export const run = (
  program: string,
  args: ReadonlyArray<string>,
  { input = "", timeoutMs = 120_000 }: { readonly input?: string; readonly timeoutMs?: number } = {}
): Said => {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    cwd: folder,
    input,
    encoding: "utf8",
    timeout: timeoutMs,
    maxBuffer: 2 ** 30
  })
  return { status, stdout: stdout ?? "", stderr: error === undefined ? stderr : `${stderr ?? ""}${error.message}` }
}

/** Whether a tool is there. */
export const has = (tool: string): boolean => run(tool, ["--version"], { timeoutMs: 20_000 }).status === 0

/** The C compiler, and the C++ one; undefined where there is none. */
export const compiler: string | undefined = ["cc", "gcc", "clang"].find(has)
const compilerOfCpp = ["c++", "g++", "clang++"].find(has)

const isExcused = (compiler === undefined || compilerOfCpp === undefined) && process.env["THRUM_ALLOW_NO_CC"] === "1"
if (isExcused) {
  process.stderr.write("\nNOT TESTED: devices/c, because there is no C or C++ compiler here (THRUM_ALLOW_NO_CC=1)\n\n")
}

/** Whether tests that need a compiler are left out. Without a compiler and without the permission, they fail. */
export const isLeftOut: boolean = isExcused

/** What every C file here is compiled with. */
export const strict: ReadonlyArray<string> = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
/** Faults end the program. */
export const sanitizers: ReadonlyArray<string> = [
  "-g",
  "-O1",
  "-fsanitize=address,undefined",
  "-fno-sanitize-recover=all"
]

const compileWith = (
  tool: string | undefined,
  sources: ReadonlyArray<string>,
  name: string,
  flags: ReadonlyArray<string>
): string => {
  if (tool === undefined) {
    throw new Error(
      "Cannot test devices/c: a compiler is missing (install gcc and g++, or allow it: THRUM_ALLOW_NO_CC=1)"
    )
  }
  const program = join(directory, name)
  const { status, stderr } = run(tool, [...flags, ...sources, "-o", program])
  if (status !== 0) throw new Error(`Cannot compile with ${tool} ${[...flags, ...sources].join(" ")}:\n${stderr}`)
  return program
}

/** Compiles a C file, a path in {@link folder}, and returns the program's path; throws with what the compiler said. */
export const compile = (source: string, name: string, flags: ReadonlyArray<string>): string =>
  compileWith(compiler, [source], name, flags)

/** The same for C++, of several files. */
export const compileCpp = (sources: ReadonlyArray<string>, name: string, flags: ReadonlyArray<string>): string =>
  compileWith(compilerOfCpp, sources, name, ["-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", ...flags])
