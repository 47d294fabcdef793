/** The contract's examples, replayed: what it says is asked, and what it says is answered. */
import { encodeSamples, packCounts, packFloats } from "@thrum/protocol"
import { assert, describe, it } from "vitest"
import { checkedFetch, contract } from "../support/contract.ts"
import { type Created, type Rig } from "./Rig.ts"

type Json = Readonly<Record<string, unknown>>
const isObject = (u: unknown): u is Json => typeof u === "object" && u !== null && !Array.isArray(u)
const objectOf = (u: unknown): Json => {
  if (isObject(u)) return u
  throw new TypeError(`${JSON.stringify(u)} is no object`)
}
const listOf = (u: unknown): ReadonlyArray<unknown> => Array.isArray(u) ? u : []
const at = (...keys: ReadonlyArray<string>): unknown =>
  keys.reduce<unknown>((of, key) => objectOf(of)[key], contract["paths"])

/** The values of an object that has examples. */
const examplesOf = (of: Json): ReadonlyArray<unknown> => [
  ...("example" in of ? [of["example"]] : []),
  ...Object.values(objectOf(of["examples"] ?? {})).map((one) => objectOf(one)["value"])
]

/** Without what differs from session to session: ids, keys, servers, and wall-clock times. */
const generic = (text: string): string =>
  text.replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}/g, "ID")
    .replaceAll(/2\d{3}-\d\d-\d\dT[\d:.]+Z/g, "TIME")
    .replaceAll(/"wall":\d{16}/g, "\"wall\":WALL")
    .replaceAll(/(http|ws):\/\/[^/"]+/g, "$1://HOST")
    .replaceAll(/"ingestKey":"[\w-]{43}"/g, "\"ingestKey\":\"KEY\"")
    .replaceAll(/"durable":\d+/g, "\"durable\":DURABLE")

const assertSameJson = (actual: unknown, expected: unknown): void =>
  assert.deepStrictEqual(
    JSON.parse(generic(JSON.stringify(actual)).replaceAll(/:(WALL|DURABLE)/g, ":\"$1\"")),
    JSON.parse(generic(JSON.stringify(expected)).replaceAll(/:(WALL|DURABLE)/g, ":\"$1\""))
  )

/** The first example of an answer. */
const ofAnswer = (path: string, method: string, status: string, mediaType: string): unknown =>
  examplesOf(objectOf(at(path, method, "responses", status, "content", mediaType)))[0]

export const describeExamples = (rig: Rig): void => {
  const { base, get, post, create, publish, end } = rig
  const one = { rate: 100, channels: [{ name: "x" }] }

  /** The session of the contract's examples of data. */
  const exemplary = async (): Promise<Created> => {
    const session = await create(one)
    await publish(session, [
      { index: 0, t0: 1_000_000, block: packFloats([0.31], 1) },
      { index: 3, t0: 1_030_000, block: packFloats([Number.NaN], 1) }
    ])
    await end(session)
    return session
  }

  describe("examples", () => {
    it("of bodies create sessions, and the answer is the one shown", async () => {
      const bodies = examplesOf(objectOf(at("/sessions", "post", "requestBody", "content", "application/json")))
      assert.isAtLeast(bodies.length, 2)
      for (const body of bodies) assert.strictEqual((await post("/sessions", body)).status, 201)
      const answer = await (await post("/sessions", one)).json()
      assertSameJson(answer, ofAnswer("/sessions", "post", "201", "application/json"))
    })

    it("of parameters are taken, each by itself and all that go together", async () => {
      const { id } = await exemplary()
      for (const file of ["data", "data.csv"]) {
        const operation = objectOf(
          at(file === "data" ? "/sessions/{id}/data" : "/sessions/{id}/data.{extension}", "get")
        )
        let asked = 0
        for (const parameter of listOf(operation["parameters"]).map(objectOf)) {
          for (const value of parameter["in"] === "query" ? examplesOf(parameter) : []) {
            asked++
            const query = new URLSearchParams({ [String(parameter["name"])]: String(value) })
            assert.strictEqual((await get(`/sessions/${id}/${file}?${query.toString()}`)).status, 200, query.toString())
          }
        }
        assert.isAtLeast(asked, 8)
      }
    })

    it.each(["application/json", "text/csv", "application/x-ndjson"])(
      "of data as %s are what is answered",
      async (type) => {
        const { id } = await exemplary()
        const expected = ofAnswer("/sessions/{id}/data", "get", "200", type)
        const text = await (await get(`/sessions/${id}/data`, { accept: type })).text()
        if (typeof expected === "string") assert.strictEqual(generic(text), generic(expected))
        else assertSameJson(JSON.parse(text), expected)
        assert.isAbove(text.length, 100)
      }
    )

    it("of live events are what is answered", async () => {
      const session = await create(one)
      const empty = await create(one)
      await publish(session, [{ index: 0, t0: 1_000_000, block: packFloats([0.31, 0.34], 1) }])
      await Promise.all([end(session), end(empty)])
      for (const [{ id }, type] of [[session, "text/event-stream"], [empty, "application/x-ndjson"]] as const) {
        const text = await (await get(`/sessions/${id}/live?from=start`, { accept: type })).text()
        const expected = String(ofAnswer("/sessions/{id}/live", "get", "200", type)).trimEnd()
        assert.strictEqual(generic(text).trimEnd(), generic(expected))
      }
    })

    it("of acks and refusals are what a device is answered", async () => {
      const { id, key } = await create()
      const operation = objectOf(at("/sessions/{id}/frames", "post"))
      const bootId = listOf(operation["parameters"]).map(objectOf).find(({ name }) => name === "Thrum-Boot-Id")
      const block = packCounts([1, -2, 16384], 3)
      if (!(block instanceof Uint8Array)) throw new Error(block.message)
      const frame = encodeSamples(12_000, 120_000_000, block)
      const postFrames = async (body: Uint8Array<ArrayBuffer>): Promise<Response> =>
        checkedFetch(base(), `/sessions/${id}/frames?next=12000`, {
          method: "POST",
          headers: {
            authorization: `Bearer ${key}`,
            "thrum-boot-id": String(bootId?.["example"]),
            "content-type": "application/vnd.thrum.frames"
          },
          body
        })
      const refused = await postFrames(Buffer.concat([frame, Uint8Array.of(0x94, 2)]))
      assertSameJson(
        await refused.json(),
        ofAnswer("/sessions/{id}/frames", "post", "422", "application/problem+json")
      )
      const taken = await postFrames(frame)
      assert.deepStrictEqual(
        await taken.json(),
        ofAnswer("/sessions/{id}/frames", "post", "200", "application/json")
      )
    })

    it("of an invalid request is what one is answered", async () => {
      const expected = ofAnswer("/sessions", "post", "400", "application/problem+json")
      assert.deepStrictEqual(await (await post("/sessions", {})).json(), expected)
    })
  })
}
