/** `docs/PROTOCOL.md` against the code: every example, table and number in it that can be compared is compared. */
import {
  codes,
  comeBack,
  encodeSamples,
  type Gap,
  isFrameError,
  kinds,
  packCounts,
  type Position,
  protocolLimits,
  protocolVersion,
  readBlock,
  readDeviceFrame,
  readServerFrame,
  readViewerFrame,
  type SessionInfo,
  subprotocol
} from "@thrum/protocol"
import { readFileSync } from "node:fs"
import { assert, describe, it } from "vitest"
import { Frame } from "../packages/core/src/Frame.ts"
import { predictorA, predictorB } from "../packages/protocol/src/BlockLayout.ts"
import { jsonOf } from "../packages/server/src/EventText.ts"

const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), "utf8")
const page = read("docs/PROTOCOL.md")

const sectionOf = (title: string): string => {
  const from = page.indexOf(`\n${title}`)
  assert.isAbove(from, 0, `no section "${title}"`)
  const level = title.slice(0, title.indexOf(" "))
  const end = page.slice(from + 1).search(new RegExp(`\\n#{1,${level.length}} `))
  return end < 0 ? page.slice(from) : page.slice(from, from + 1 + end)
}

/** The cells of the tables of a text, row by row, without heads. */
const rowsOf = (text: string): ReadonlyArray<ReadonlyArray<string>> => {
  const lines = text.split("\n")
  return lines.flatMap((line, i) => {
    const isRow = line.startsWith("|") && !line.startsWith("|-") && lines[i + 1]?.startsWith("|-") !== true
    return isRow ? [line.slice(1, -1).split("|").map((cell) => cell.trim())] : []
  })
}
const codeOf = (cell: string): string => cell.replaceAll("`", "")
const signed = (cell: string): number => Number(cell.replace("−", "-"))

/** Examples in bytes: the comments behind a semicolon are for people. */
const examplesOf = (language: string): ReadonlyArray<{ readonly title: string; readonly hex: string }> =>
  Array.from(page.matchAll(/^```(\w+) (.+)\n([\s\S]*?)^```$/gm), ([, found, title = "", body = ""]) => ({
    language: found,
    title,
    hex: body.replace(/;.*$/gm, "").replace(/\s+/g, "")
  })).filter((example) => example.language === language).map(({ hex, title }) => ({ title, hex }))

interface FrameVector {
  readonly title: string
  readonly hex: string
}
interface BlockVector extends FrameVector {
  readonly channels: number
  readonly input: ReadonlyArray<number | string>
  readonly kind: string
  readonly times?: ReadonlyArray<number>
  readonly period?: number
}
const frameVectors: ReadonlyArray<FrameVector> = JSON.parse(read("test/vectors/frames.json"))
const blockVectors: ReadonlyArray<BlockVector> = JSON.parse(read("test/vectors/block.json"))
const blockVector = (title: string): BlockVector => {
  const found = blockVectors.find((one) => one.title === title)
  assert(found !== undefined, `no vector "${title}"`)
  return found
}

/** A number that a source names: `const name = 64 * 1024` or `name: 10_000,`. */
const numberIn = (path: string, name: string): number => {
  const product = new RegExp(`\\b${name}(?: =|:) ([\\d_ *]+)[,\\n]`).exec(read(path))?.[1]
  assert(product !== undefined, `${path} has no number ${name}`)
  return product.split("*").reduce((sum, factor) => sum * Number(factor.trim().replaceAll("_", "")), 1)
}

/** The rows of vectors in the page, as text. */
const rowsText = ({ channels, input }: BlockVector): string => {
  const rows = input.flatMap((_, i) => i % channels === 0 ? [`[${input.slice(i, i + channels).join(",")}]`] : [])
  return rows.join(" ")
}

/** As the page writes numbers. */
const figure = (n: number): string => n.toLocaleString("en-US")
const at = (index: number, epoch = 0): Position => ({ epoch, index })
/** The rule of the vector "segments". */
const segmentsRow = (i: number): ReadonlyArray<number> => [
  i * i % 23 - 11,
  1000 + i * 37 % 61,
  i % 9 === 0 ? 5000 : 0
]
const frameOf = (title: string) => {
  const hex = frameVectors.find((one) => one.title === title)?.hex ?? ""
  const message = Buffer.from(hex, "hex")
  return [readViewerFrame, readServerFrame, readDeviceFrame].map((read) => read(message)).find((one) =>
    !isFrameError(one)
  )
}

describe("docs/PROTOCOL.md", () => {
  it("shows each golden frame, byte for byte, and no other", () => {
    assert.deepStrictEqual(
      examplesOf("hex").map(({ hex, title }) => ({ title, hex })).toSorted((a, b) => a.title < b.title ? -1 : 1),
      frameVectors.map(({ hex, title }) => ({ title, hex })).toSorted((a, b) => a.title < b.title ? -1 : 1)
    )
  })

  it("has the kinds of frames", () => {
    const names: Record<string, string> = { viewerWelcome: "viewer's welcome", caughtUp: "caught-up" }
    assert.deepStrictEqual(
      rowsOf(sectionOf("## 5. Frames").split("\n### ")[0]!).map(([kind, name]) => [Number(kind), name]),
      Object.entries(kinds).map(([name, kind]) => [kind, names[name] ?? name])
    )
  })

  it("has the codes, row by row", () => {
    assert.deepStrictEqual(
      rowsOf(sectionOf("## 11. Errors and closes")),
      Object.entries(codes).map(([name, { code, fault, means, remedy }]) => [
        String(code),
        name,
        fault,
        means,
        remedy,
        comeBack(code)
      ])
    )
  })

  it("names codes as the table does, wherever it names one", () => {
    const named = Array.from(page.matchAll(/\b(\d{4}) \((\w+)\)/g), ([, code, name]) => [Number(code), name])
    assert.isAbove(named.length, 15)
    for (const [code, name] of named) {
      assert.strictEqual(Object.entries(codes).find(([one]) => one === name)?.[1].code, code)
    }
  })

  it("has the limits of the protocol and of this server, row by row", () => {
    const rows = rowsOf(sectionOf("## 12. Limits"))
    const protocol = Object.entries(protocolLimits).map((
      [name, { about, unit, value }]
    ) => [name, String(value), unit, about])
    assert.deepStrictEqual(rows.slice(0, protocol.length), protocol)
    const ws = "packages/server/src/ws"
    const sources: Record<string, string> = {
      ackEveryMs: `${ws}/PublisherSocket.ts`,
      helloWaitMs: `${ws}/PublisherSocket.ts`,
      unreadBytesMax: `${ws}/PublisherSocket.ts`,
      endWaitMs: "packages/core/src/Limits.ts",
      gapsMax: "packages/core/src/Limits.ts",
      viewerBytesMax: `${ws}/ViewerSocket.ts`,
      drainWaitMs: `${ws}/ViewerSocket.ts`,
      durableEveryMs: "packages/core/src/Limits.ts",
      everyMs: `${ws}/Keepalive.ts`,
      retryAfterMs: `${ws}/Refusal.ts`
    }
    assert.deepStrictEqual(
      rows.slice(protocol.length).map(([name, value]) => [name, value]),
      Object.entries(sources).map(([name, path]) => [name, String(numberIn(path, name))])
    )
  })

  it("repeats the numbers it is about", () => {
    const { controlBytesMax, messageBytesMax, samplesPerFrameMax, windowBytes } = protocolLimits
    const sentences = [
      `The sub-protocol is \`${subprotocol}\``,
      `# The Thrum protocol, version ${protocolVersion}`,
      `A message from a device has at most ${figure(messageBytesMax.value)} bytes`,
      `above ${figure(2 * messageBytesMax.value)} bytes the server does not read it`,
      `A frame from the server to a device has at most ${controlBytesMax.value} bytes`,
      `1 to ${figure(samplesPerFrameMax.value)} samples, packed`,
      `more than ${figure(2 * windowBytes.value)} bytes of new frames`,
      `It is ${figure(windowBytes.value)}\nbytes now`
    ]
    for (const sentence of sentences) assert.include(page, sentence)
  })

  it("has the predictors of the block", () => {
    const rows = rowsOf(sectionOf("### 9.4 A channel"))
    assert.deepStrictEqual(
      rows.map(([pred, kind, a, b]) => [Number(pred), kind, signed(a!), signed(b!)]),
      Array.from(predictorA, (a, pred) => [pred, pred < 4 ? "M" : "D", a, predictorB[pred]])
    )
  })

  it("has test vectors of the block that are the golden ones", () => {
    const rows = rowsOf(sectionOf("### 9.9 Test vectors"))
    assert.isAtLeast(rows.length, 10)
    for (const [title, input, hex] of rows) {
      const vector = blockVector(title!)
      assert.strictEqual(codeOf(hex!), vector.hex, title)
      if (title === "segments") {
        assert.deepStrictEqual(vector.input, Array.from({ length: 45 }, (_, i) => segmentsRow(i)).flat())
      } else {
        const times = vector.times === undefined ? "" : `, t = ${vector.times.join(", ")}, T = ${vector.period}`
        const kind = vector.kind === "float32" ? "float32 " : ""
        assert.strictEqual(input, `${kind}\`${rowsText(vector)}\`${times}`, title)
      }
    }
  })

  it("takes blocks apart bit by bit, without losing one", () => {
    const section = sectionOf("### 9.7 A block, bit by bit")
    const examples = examplesOf("block")
    assert.deepStrictEqual(examples.map(({ title }) => title), ["one sample", "five samples"])
    for (const { hex, title } of examples) {
      assert.strictEqual(hex, blockVector(title).hex)
      const table = section.slice(section.indexOf(`\`\`\`block ${title}`)).split("\n\n")[1] ?? ""
      const bits = rowsOf(table).map(([cell]) => Array.from(cell!.matchAll(/`([01]+)`/g), ([, run]) => run).join(""))
        .join("")
      assert.strictEqual(
        bits,
        Array.from(Buffer.from(hex, "hex"), (byte) => byte.toString(2).padStart(8, "0")).join("")
      )
    }
    const block = readBlock(Buffer.from(blockVector("five samples").hex, "hex"), 3)
    assert(!isFrameError(block))
    const values = Array.from(section.matchAll(/y = ([^|]+) \|/g), ([, list]) => list!.split(", ").map(signed))
    const channel = (c: number) => Array.from(block.integers).filter((_, i) => i % 3 === c)
    assert.deepStrictEqual(values, [channel(0), channel(1), channel(2).slice(1)])
  })

  it("shows the JSON that a viewer gets", () => {
    const lines = (/```json\n([\s\S]*?)```/.exec(page)?.[1] ?? "").trim().split("\n")
    const welcome = frameOf("viewer's welcome")
    assert(welcome !== undefined && "session" in welcome)
    const session: SessionInfo = welcome.session
    const block = packCounts([1, -2], 1)
    assert(!isFrameError(block))
    const bytes = encodeSamples(12_000, 120_000_000, block)
    const gap: Gap = {
      kind: kinds.gap,
      from: { epoch: 0, index: 12_001 },
      to: { epoch: 0, index: 12_800 },
      reason: "device"
    }
    assert.deepStrictEqual(JSON.parse(lines[0]!), {
      type: "welcome",
      version: protocolVersion,
      session,
      from: "0:11900"
    })
    const events = [
      jsonOf({ kind: kinds.epoch, epoch: 0, t0: 1_000_000, wall: 1_767_225_600_000_000, index: 0 }, session),
      jsonOf(new Frame(0, 12_000, 12_002, 120_000_000, bytes), session),
      jsonOf({ kind: kinds.durable, position: at(11_900) }, session),
      jsonOf(gap, session),
      jsonOf({ kind: kinds.caughtUp, position: at(12_001) }, session),
      jsonOf({ kind: kinds.ended, position: at(400, 1) }, session)
    ]
    assert.deepStrictEqual(lines.slice(1, 7), events)
    const { code, name, text, type }: Record<string, unknown> = JSON.parse(lines[7] ?? "{}")
    assert.deepStrictEqual([type, code, name, typeof text], ["error", codes.ViewerSent.code, "ViewerSent", "string"])
    assert.lengthOf(lines, 8)
  })
})
