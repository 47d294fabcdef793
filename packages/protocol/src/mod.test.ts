import { execFile } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { promisify } from "node:util"
import { assert, describe, it } from "vitest"

const door = new URL("mod.ts", import.meta.url).href

/** Runs a script against this package in a process of its own; what it prints, or why it ended. */
const run = async (script: string, ...flags: ReadonlyArray<string>): Promise<string> => {
  const source = `import * as thrum from ${JSON.stringify(door)}\n${script}`
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [...flags, "--no-warnings", "--input-type=module", "--eval", source],
    { timeout: 60_000 }
  )
  return stdout.trim()
}

const useEverything = `
  let isRefused = false
  try { new Function("return 1") } catch { isRefused = true }
  if (!isRefused) throw new Error("code can still be made from strings")
  const at = { epoch: 0, index: 300 }
  const channels = [{ name: "x", unit: "g", scale: 0.5, offset: 0 }]
  const session = { id: "a", channels, rate: 100, tick: 1, state: "live", createdAt: "2026-01-01T00:00:00Z" }
  const block = thrum.packCounts(Int32Array.from({ length: 300 }, (_, i) => i * i % 97), 1)
  // More often than msgpackr needs to think a shape worth compiling.
  for (let i = 0; i < 2000; i++) {
    const read = [
      thrum.readDeviceFrame(thrum.encodeHello({ key: "k", bootId: i, next: i })),
      thrum.readDeviceFrame(thrum.encodeSamples(i, undefined, block)),
      thrum.readDeviceFrame(thrum.encodeEnd(i)),
      thrum.readServerFrame(thrum.encodeWelcome({ epoch: 0, next: i, window: 1, server: 2 ** 50, sure: true })),
      thrum.readServerFrame(thrum.encodeAck({ received: i, durable: i, window: 1 })),
      thrum.readServerFrame(thrum.encodeError("BadFrame", "é".repeat(i % 100))),
      thrum.readViewerFrame(thrum.encodeViewerWelcome(session, at)),
      thrum.readViewerFrame(thrum.encodeGap({ from: at, to: at, reason: "lost" }))
    ]
    const wrong = read.find(thrum.isFrameError)
    if (wrong) throw wrong
  }
  const values = thrum.readBlock(block, 1)
  if (thrum.isFrameError(values)) throw values
  console.log("read", values.count)
`

describe("the package", () => {
  it("runs where no code can be made from strings, as in a browser under a strict CSP", async () => {
    for (const conditions of [[], ["--conditions=browser"]]) {
      assert.strictEqual(await run(useEverything, "--disallow-code-generation-from-strings", ...conditions), "read 300")
    }
  })

  it("makes no code from strings itself and knows nothing of Node", () => {
    const sources = readdirSync(import.meta.dirname).filter((name) =>
      name.endsWith(".ts") && !name.endsWith(".test.ts")
    )
    assert.include(sources, "Frame.ts")
    for (const name of sources) {
      const text = readFileSync(new URL(name, import.meta.url), "utf8").replace(/\/\*\*[\s\S]*?\*\/|\/\/.*/g, "")
      assert.notMatch(text, /\beval\s*\(|\bFunction\s*\(|\bBuffer\b|\bprocess\b|"node:|\brequire\s*\(/, name)
    }
  })

  it("believes no length: what lies about gigabytes is refused in a heap of 32 MB", async () => {
    const script = `
      const lengths = [0x00ffffff, 0x01ffffff, 0x10000000, 0x7fffffff, 0xffffffff]
      const heads = [[], [0x91], [0x92, 1], [0x95, 1, 1], [0x94, 2, 0, 0xc0], [0x94, 32, 1], [0x92, 34], [0x94, 19, 0]]
      let refused = 0
      for (const tail of [0, 60, 60_000]) for (const length of lengths) for (const lead of [0xc6, 0xdb, 0xdd, 0xdf]) {
        for (const head of heads) {
          const bytes = Uint8Array.of(...head, lead, length >>> 24, length >>> 16, length >>> 8, length, ...new Uint8Array(tail))
          for (const read of [thrum.readDeviceFrame, thrum.readServerFrame, thrum.readViewerFrame, thrum.readSamples]) {
            if (thrum.isFrameError(read(bytes))) refused++
            else throw new Error("read " + bytes.slice(0, 20))
          }
        }
      }
      console.log(refused, process.memoryUsage().arrayBuffers < 32 * 2 ** 20)
    `
    assert.strictEqual(await run(script, "--max-old-space-size=32"), "1920 true")
  })
})
