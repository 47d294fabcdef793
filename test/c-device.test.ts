/**
 * A device written in C against the whole service: `devices/c/examples/stream_csv.c` streams recordings through a
 * network that cuts its connections, and REST gives back exactly what the files hold.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { connect, createServer, type Socket } from "node:net"
import { fileURLToPath } from "node:url"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { compile, compileCpp, isLeftOut, type Said, sanitizers, strict } from "../devices/c/test/Compiled.ts"
import { readRecording } from "./Recordings.ts"
import { checkedFetch } from "./support/contract.ts"
import { startServer, type TestServer } from "./support/Server.ts"

let server: TestServer
let program = ""

beforeAll(async () => {
  if (isLeftOut) return
  program = compile("examples/stream_csv.c", "stream-csv", [...strict, ...sanitizers])
  server = await startServer()
}, 120_000)
afterAll(() => server?.stop())

const create = async (rate: number): Promise<{ id: string; ingestKey: string; links: Record<string, string> }> => {
  const response = await checkedFetch(server.url, "/sessions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ rate })
  })
  assert.strictEqual(response.status, 201)
  const body = await response.json()
  return { id: body.session.id, ingestKey: body.ingestKey, links: body.links }
}

/** A way to the server that cuts the n-th connection after so many bytes from the device; later ones are left alone. */
const startCutter = async (
  serverPort: number,
  bytesUntilCut: ReadonlyArray<number>
): Promise<{ readonly port: number; readonly cuts: () => number; readonly stop: () => void }> => {
  const open = new Set<Socket>()
  let [connections, cuts] = [0, 0]
  const cutter = createServer((device) => {
    let left = bytesUntilCut[connections++] ?? Infinity
    const onward = connect(serverPort, "127.0.0.1")
    const cut = (): void => {
      device.destroy()
      onward.destroy()
    }
    for (const socket of [device, onward]) {
      open.add(socket)
      socket.on("error", cut).on("close", () => {
        open.delete(socket)
        cut()
      })
    }
    onward.on("data", (bytes) => device.write(bytes))
    device.on("data", (bytes) => {
      onward.write(bytes.subarray(0, Math.min(bytes.length, left)))
      left -= bytes.length
      if (left > 0) return
      cuts++
      // What was passed on arrives; what was not is lost, in the middle of a frame mostly.
      device.destroy()
      onward.end()
    })
  })
  cutter.listen(0, "127.0.0.1")
  await once(cutter, "listening")
  const address = cutter.address()
  if (address === null || typeof address === "string") throw new Error("Cannot cut: the server listens on no port")
  return {
    port: address.port,
    cuts: () => cuts,
    stop: () => {
      for (const socket of open) socket.destroy()
      cutter.close()
    }
  }
}

/** Runs the device to its end, at most `timeoutMs`. */
const runDevice = async (args: ReadonlyArray<string>, timeoutMs: number): Promise<Said> => {
  const device = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], timeout: timeoutMs })
  let [stdout, stderr] = ["", ""]
  device.stdout.on("data", (piece: Buffer) => (stdout += piece.toString()))
  device.stderr.on("data", (piece: Buffer) => (stderr += piece.toString()))
  const [status] = await once(device, "close")
  return { status: typeof status === "number" ? status : null, stdout, stderr }
}

const fileOf = (name: string): string => fileURLToPath(new URL(`data/${name}.csv`, import.meta.url))

/** Trailing zeros and exponents are spelling: `0.0` is `0`, `5.35E-05` is `0.0000535`. */
const digits = (text: string): string => String(Number(text))

const mustHoldAll = async (id: string, name: string): Promise<void> => {
  const recording = readRecording(name)
  const csv = await (await checkedFetch(server.url, `/sessions/${id}/data?format=csv`)).text()
  const rows = csv.trimEnd().split("\n").slice(1).map((line) => line.split(","))
  assert.strictEqual(rows.length, recording.count)
  rows.forEach((cells, i) => {
    assert.strictEqual(cells[0], `0:${i}`)
    assert.deepStrictEqual(
      cells.slice(3).map(digits),
      recording.texts.slice(3 * i, 3 * i + 3).map(digits),
      `row ${i} of ${name}`
    )
  })
}

describe.skipIf(isLeftOut)("a device in C", () => {
  it.each([
    ["wrist_axivity_ax6", 100, 25],
    ["vib_endaq_adxl357_4k", 4025, 250],
    ["seismic_openeew_a", 31.25, 100],
    ["imu_xio_float", 100, 100]
  ])("streams %s, seals the session, and REST gives the file back", async (name, rate, size) => {
    const { id, ingestKey, links } = await create(rate)
    const said = await runDevice([links["ingest"]!, ingestKey, fileOf(name), String(rate), String(size)], 60_000)
    assert.strictEqual(said.status, 0, said.stderr)
    const { count } = readRecording(name)
    assert.strictEqual(
      said.stdout,
      `sealed: ${count} samples in ${Math.ceil(count / size)} frames, 1 connections, 0 frames dropped\n`
    )
    await mustHoldAll(id, name)
  }, 90_000)

  it("resumes after every cut, with a ring of 4 KiB", async () => {
    const { id, ingestKey, links } = await create(100)
    const { href, port } = new URL(links["ingest"]!)
    // In the handshake, in the hello, and in the middle of frames.
    const cutter = await startCutter(Number(port), [100, 260, 2000, 1999, 12_345, 400, 20_001, 7777])
    const args = [
      href.replace(`:${port}/`, `:${cutter.port}/`),
      ingestKey,
      fileOf("wrist_axivity_ax3"),
      "100",
      "10",
      "4096"
    ]
    const said = await runDevice(args, 100_000)
    assert.strictEqual(said.status, 0, said.stderr)
    assert.match(said.stdout, / 0 frames dropped\n$/)
    assert.strictEqual(cutter.cuts(), 8)
    cutter.stop()
    await mustHoldAll(id, "wrist_axivity_ax3")
  }, 120_000)

  it("says why the server refuses it, and does not come back", async () => {
    const { links } = await create(100)
    const wrong = await runDevice([links["ingest"]!, "not-the-key", fileOf("wrist_geneactiv")], 30_000)
    assert.strictEqual(wrong.status, 1)
    assert.match(wrong.stderr, /^The server says 4003: /)
    const nowhere = links["ingest"]!.replace(/[0-9a-f-]{36}/, "00000000-0000-4000-8000-000000000000")
    const gone = await runDevice([nowhere, "key", fileOf("wrist_geneactiv")], 30_000)
    assert.strictEqual(gone.status, 1)
    assert.match(gone.stderr, /^Cannot connect: the server answered 404/)
  }, 60_000)
})

/** What the simulated sensor gives: see `devices/c/test/arduino/main.cpp`. */
const simulated = (i: number): ReadonlyArray<number> => [i % 401 - 200, (i * 7) % 1000 - 500, 256 + i % 3]

describe.skipIf(isLeftOut)("the sketch for ESP32", () => {
  it("streams its sensor through cuts, and every sample arrives", async () => {
    const { id, ingestKey, links } = await create(500)
    const { pathname, port } = new URL(links["ingest"]!)
    const cutter = await startCutter(Number(port), [300, 1000, 1500])
    const config = {
      WIFI_NAME: `"network"`,
      WIFI_PASSWORD: `"password"`,
      ROOT_CA: `""`,
      SERVER_HOST: `"127.0.0.1"`,
      SERVER_PORT: String(cutter.port),
      INGEST_PATH: `"${pathname}"`,
      INGEST_KEY: `"${ingestKey}"`
    }
    const sketch = compileCpp(
      ["-x", "c++", "../../examples/esp32/thrum_esp32/thrum_esp32.ino", "test/arduino/main.cpp"],
      "sketch",
      [
        // Two tasks share the ring: the lock must hold.
        "-O1",
        "-g",
        "-fsanitize=thread",
        "-Itest/arduino",
        "-I.",
        "-include",
        "Arduino.h",
        "-pthread",
        ...Object.entries(config).map(([name, value]) => `-D${name}=${value}`)
      ]
    )
    const board = spawn(sketch, { stdio: ["ignore", "ignore", "pipe"], env: { TSAN_OPTIONS: "halt_on_error=1" } })
    let stderr = ""
    board.stderr.on("data", (piece: Buffer) => (stderr += piece.toString()))
    const closed = once(board, "close")
    const wanted = 2000
    let durable = 0
    for (const deadline = Date.now() + 60_000; durable < wanted && board.exitCode === null && Date.now() < deadline;) {
      await new Promise((resolve) => setTimeout(resolve, 100))
      const standing = await (await checkedFetch(server.url, `/sessions/${id}`)).json()
      durable = Number(standing.durable.replace("0:", ""))
    }
    board.kill()
    await closed
    assert.strictEqual(stderr, "")
    assert.isAtLeast(durable, wanted)
    assert.strictEqual(cutter.cuts(), 3)
    cutter.stop()
    const ended = await checkedFetch(server.url, `/sessions/${id}/end`, {
      method: "POST",
      headers: { authorization: `Bearer ${ingestKey}` }
    })
    assert.strictEqual(ended.status, 200)
    const csv = await (await checkedFetch(server.url, `/sessions/${id}/data?format=csv`)).text()
    const rows = csv.trimEnd().split("\n").slice(1).map((line) => line.split(","))
    assert.isAtLeast(rows.length, wanted)
    rows.forEach((cells, i) => {
      assert.deepStrictEqual([cells[0], ...cells.slice(3).map(Number)], [`0:${i}`, ...simulated(i)])
    })
  }, 120_000)
})
