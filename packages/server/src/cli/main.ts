/**
 * The command line: which commands there are, what they take, how they end.
 *
 * Exit codes: 0 done, 1 could not be done, 2 asked in a wrong way, 130 stopped by Ctrl-C (128 + the signal). A server
 * that is stopped has done what it was asked: 0. What a command needs is imported when it runs, so that `--help` waits
 * for none of it.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Cause from "effect/Cause"
import * as Argument from "effect/cli/Argument"
import * as CliConfig from "effect/cli/CliConfig"
import * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { constants } from "node:os"
import about from "../../package.json" with { type: "json" }
import { CommandError } from "./CommandError.ts"
import { fromPromise } from "./Running.ts"

/** ms a server has for its last acks once it is told to stop. */
const stopMax = 7500

/** What the command that runs makes of being stopped. */
const stopping = { isSuccess: false }
const stopIsSuccess = (): void => {
  stopping.isSuccess = true
}

const text = (name: string, description: string): Flag.Flag<string | undefined> =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.optional, Flag.map(Option.getOrUndefined))
const number = (name: string, description: string): Flag.Flag<number | undefined> =>
  Flag.Finite(name).pipe(Flag.withDescription(description), Flag.optional, Flag.map(Option.getOrUndefined))
const yes = (name: string, description: string): Flag.Flag<boolean> =>
  Flag.Boolean(name).pipe(Flag.withDescription(description), Flag.withDefault(false))

const serve = Command.make("serve", {
  port: Flag.Int("port").pipe(
    Flag.filter((port) => port >= 0 && port <= 65_535, () => "a port is 0 to 65535, 0 takes a free one"),
    Flag.withDescription("Port to listen on (PORT, else 8080); 0 takes a free one"),
    Flag.optional
  ),
  host: Flag.String("host").pipe(Flag.withDescription("Address to listen on (HOST, else 127.0.0.1)"), Flag.optional),
  dataDir: Flag.String("data-dir").pipe(
    Flag.withDescription("Where the embedded database lives (THRUM_DATA_DIR)"),
    Flag.optional
  ),
  databaseUrl: Flag.String("database-url").pipe(
    Flag.withDescription("A PostgreSQL to use instead of the embedded one (DATABASE_URL)"),
    Flag.optional
  )
}, (flags) =>
  Effect.scoped(Effect.gen(function*() {
    stopIsSuccess()
    const { serve } = yield* Effect.promise(() => import("./serve.ts"))
    return yield* serve(flags)
  }))).pipe(
    Command.withDescription("Serve: take signals from devices, show them live, keep them"),
    Command.withExamples([
      { command: "thrum serve", description: "On this machine, with a database of its own" },
      {
        command: "thrum serve --host 0.0.0.0 --database-url postgres://…",
        description: "For a network, on a PostgreSQL"
      }
    ])
  )

const stream = Command.make("stream", {
  file: Argument.String("file").pipe(
    Argument.withDescription("A recording in CSV with a header line; - is standard input")
  ),
  to: Flag.String("to").pipe(Flag.withDescription("The server, as http(s)://host[:port]")),
  rate: number("rate", "Samples a second (else what the time column says, else 100)"),
  speed: text("speed", "So many times faster than it was recorded, or max (else 1; standard input: max)"),
  frame: Flag.Int("frame").pipe(
    Flag.withDescription("Samples a frame holds at most; one never lasts longer than a second"),
    Flag.withDefault(100)
  ),
  channels: text("channels", "Columns to send, like x,y,z (else all but the time)"),
  unit: text("unit", "Unit of the values (else count for integers, m/s² for decimals)"),
  scale: number("scale", "Unit per count, for integers"),
  float32: yes("float32", "Take the nearest float32 of numbers that cannot be sent exactly"),
  name: text("name", "Name of the session"),
  sensor: text("sensor", "The sensor, as its maker calls it"),
  session: text("session", "Go on with this session (its id or link) instead of a new one"),
  key: text("key", "The ingest key of --session"),
  keepOpen: yes("keep-open", "Do not end the session after the last sample")
}, ({ channels, speed, ...play }) =>
  fromPromise(async (signal) => {
    const { parseSpeed, stream } = await import("./stream.ts")
    return stream({
      ...play,
      speed: speed === undefined ? undefined : parseSpeed(speed),
      channels: channels?.split(",").map((name) => name.trim())
    }, signal)
  })).pipe(
    Command.withDescription("Stream a recording to a server as a device would, at the speed it was recorded"),
    Command.withExamples([
      { command: "thrum stream walk.csv --to http://localhost:8080", description: "As it happened" },
      { command: "thrum stream walk.csv --to http://localhost:8080 --speed 20", description: "Twenty times as fast" },
      {
        command: "sensor | thrum stream - --to https://thrum.example --rate 100",
        description: "As it comes out of a program"
      }
    ])
  )

const link = Argument.String("link").pipe(
  Argument.withDescription("A link to the session, like http://host/sessions/ID, or its id with --to")
)
const to = text("to", "The server, when the session is given by its id")

const watch = Command.make("watch", {
  link,
  to,
  from: Flag.String("from").pipe(
    Flag.withDescription("start, now, or a position like 0:12000"),
    Flag.withDefault("now")
  ),
  json: yes("json", "One JSON text a line: each sample, and what happens")
}, ({ from, json, link, to }) =>
  fromPromise(async (signal) => {
    const [{ parseFrom, watch }, { parseLink }] = await Promise.all([import("./watch.ts"), import("./Link.ts")])
    return watch({ link: parseLink(link, to), from: parseFrom(from), json }, signal)
  })).pipe(
    Command.withDescription("Watch a session live, until it ends"),
    Command.withExamples([
      { command: "thrum watch http://localhost:8080/sessions/ID", description: "From now on" },
      {
        command: "thrum watch ID --to http://localhost:8080 --from start --json",
        description: "All of it, for a program"
      }
    ])
  )

const pull = Command.make("pull", {
  link,
  to,
  output: Flag.String("output").pipe(
    Flag.withAlias("o"),
    Flag.withDescription("File to write: .json, .csv, .ndjson or .thrum; - is standard output")
  ),
  format: Flag.Literals("format", ["json", "csv", "ndjson", "frames"]).pipe(
    Flag.withDescription("The format (else by the file's extension; standard output: json)"),
    Flag.optional,
    Flag.map(Option.getOrUndefined)
  ),
  values: Flag.Literals("values", ["unit", "counts"]).pipe(
    Flag.withDescription("Integers in the channel's unit (the default), or as the device's counts"),
    Flag.optional,
    Flag.map(Option.getOrUndefined)
  ),
  partial: yes("partial", "Also from a session that is still live: what is stored by now"),
  force: yes("force", "Replace a file that is there")
}, ({ link, to, ...wish }) =>
  fromPromise(async (signal) => {
    const [{ pull }, { parseLink }] = await Promise.all([import("./pull.ts"), import("./Link.ts")])
    return pull({ ...wish, link: parseLink(link, to) }, signal)
  })).pipe(
    Command.withDescription("Download the data of a session, complete or not at all"),
    Command.withExamples([
      { command: "thrum pull http://localhost:8080/sessions/ID -o walk.csv", description: "As CSV" },
      { command: "thrum pull ID --to http://localhost:8080 -o - --format ndjson | head", description: "Into a program" }
    ])
  )

const demo = Command.make("demo", {
  once: yes("once", "End after it, even on a terminal")
}, ({ once }) =>
  Effect.scoped(Effect.gen(function*() {
    const { demo } = yield* Effect.promise(() => import("./demo.ts"))
    return yield* demo({ once, onServing: stopIsSuccess })
  }))).pipe(Command.withDescription("See it work: serve, stream a real recording, watch it, read it back"))

const thrum = Command.make("thrum").pipe(
  Command.withDescription("Raw motion data: live at once, stored for certain, all of it back"),
  Command.withSubcommands([serve, stream, watch, pull, demo])
)

/** Wrong usage is one line too; the whole help is one flag away. */
const presenter: CliOutput.Presenter = {
  present: (event) => {
    if (event._tag !== "InvalidInvocation") return CliOutput.defaultPresenter.present(event)
    const command = event.commandPath.join(" ")
    const problems = event.errors.map(({ message }) =>
      message.replace(
        /\s*Did you mean this\?\s*(.*)/s,
        (_, names: string) => ` (did you mean ${names.trim().split(/\s+/).join(", ")}?)`
      )
    )
    return Effect.sync(() => {
      process.stderr.write(`thrum: Cannot run "${command}": ${problems.join("; ")}; see ${command} --help\n`)
    })
  }
}

const services = Layer.mergeAll(
  NodeServices.layer,
  CliOutput.layerPresenter(presenter),
  CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions] })
)

const exitCodeOf = (
  exit: Exit.Exit<void, CliError.CliError | CommandError>,
  signal: NodeJS.Signals | undefined
): number => {
  if (Exit.isSuccess(exit)) return 0
  if (Cause.hasInterruptsOnly(exit.cause)) {
    return stopping.isSuccess ? 0 : 128 + constants.signals[signal ?? "SIGINT"]
  }
  const error = Cause.squash(exit.cause)
  // The presenter has said it.
  if (CliError.isCliError(error)) return error._tag === "ShowHelp" && error.errors.length === 0 ? 0 : 2
  if (error instanceof CommandError) {
    process.stderr.write(`thrum: ${error.message}\n`)
    return error.exitCode
  }
  process.stderr.write(
    `thrum: Cannot go on: ${error instanceof Error ? error.stack ?? error.message : String(error)}\n`
  )
  return 1
}

/** Ends the process when what was written has left it; when it cannot, the stream's own error says how it ends. */
const exitWith = (code: number): void => {
  process.stdout.write("", () => process.stderr.write("", () => setImmediate(() => process.exit(code))))
}

// A reader that has enough, such as `head`, ends us as SIGPIPE ends others.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  process.exit(error.code === "EPIPE" ? 128 + constants.signals.SIGPIPE : 1)
})

const fiber = Effect.runFork(Command.run(thrum, { version: about.version }).pipe(Effect.provide(services)))
// Nothing else may keep the process alive while a command waits for nothing but time.
const alive = setInterval(() => {}, 2 ** 30)
let signal: NodeJS.Signals | undefined
const stop = (name: NodeJS.Signals): void => {
  // The second one is meant.
  if (signal !== undefined) process.exit(128 + constants.signals[name])
  signal = name
  setTimeout(() => process.exit(1), stopMax).unref()
  Effect.runFork(Fiber.interrupt(fiber))
}
process.on("SIGINT", stop).on("SIGTERM", stop)
fiber.addObserver((exit) => {
  clearInterval(alive)
  exitWith(exitCodeOf(exit, signal))
})
