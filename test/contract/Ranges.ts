/** Parts of a recording: each is held against the whole, cut by the test. */
import { packCounts, packFloats } from "@thrum/protocol"
import { assert, describe, it } from "vitest"
import { type Created, problemOf, type Rig, unknownId } from "./Rig.ts"

type Row = ReadonlyArray<number | string | null>

interface Data {
  readonly rows: ReadonlyArray<Row>
  readonly gaps: ReadonlyArray<{ readonly from: string; readonly to: string }>
  readonly samples: number
  readonly complete: boolean
  readonly next?: string
}

const placeOf = (position: unknown): readonly [number, number] => {
  const [epoch = 0, index = 0] = String(position).split(":").map(Number)
  return [epoch, index]
}
const isBefore = (a: unknown, b: unknown): boolean => {
  const [[epochA, indexA], [epochB, indexB]] = [placeOf(a), placeOf(b)]
  return epochA < epochB || (epochA === epochB && indexA < indexB)
}

/** The next link of an answer, without its server. */
const nextOf = (answer: Response, base: string): string | undefined => {
  const url = /<([^>]+)>; rel="next"/.exec(answer.headers.get("link") ?? "")?.[1]
  assert.isTrue(url === undefined || url.startsWith(base), url)
  return url?.slice(base.length)
}

const numbers = (seed: number, count: number): ReadonlyArray<number> =>
  Array.from({ length: count }, (_, i) => Math.imul(seed + i, 0x9e3779b1) >> 16)

const timeOf = (row: Row): string => String(row[2])

/** What must be left of rows, by the rule of the contract. */
const thinned = (rows: ReadonlyArray<Row>, channels: number, maxPoints: number): ReadonlyArray<Row> => {
  if (rows.length <= maxPoints) return rows
  const buckets = Math.floor(maxPoints / (2 * channels))
  const kept: Array<Row> = []
  let at = 0
  for (let bucket = 0; bucket < buckets; bucket++) {
    const size = Math.floor(rows.length / buckets) + (bucket < rows.length % buckets ? 1 : 0)
    const here = rows.slice(at, at + size)
    const picked = new Set<Row>()
    for (let c = 3; c < 3 + channels; c++) {
      const some = here.filter((row) => row[c] !== "NaN")
      const value = (row: Row): number => Number(row[c])
      const [low, high] = [Math.min(...some.map(value)), Math.max(...some.map(value))]
      for (const wanted of some.length === 0 ? [] : [low, high]) {
        picked.add(some.find((row) => value(row) === wanted)!)
      }
    }
    if (picked.size === 0) picked.add(here[0]!)
    kept.push(...here.filter((row) => picked.has(row)))
    at += size
  }
  return kept
}

export const describeRanges = (rig: Rig): void => {
  const { get, create, publish, end, base } = rig
  const dataOf = async (path: string): Promise<Data> => (await get(path)).json()

  /** Three epochs, frames of many sizes, gaps inside and between, frames with times and without a clock. */
  const motley = async (): Promise<Created> => {
    const session = await create({ rate: 100, tick: 1000, channels: [{ name: "x" }, { name: "y", scale: -0.5 }] })
    await publish(session, [
      { index: 2, t0: 1_000_000, block: packCounts(numbers(1, 14), 2) },
      { index: 9, t0: 1_070_000, block: packCounts(numbers(2, 2), 2) },
      { index: 15, t0: 1_130_000, block: packCounts(numbers(3, 80), 2) },
      { index: 60, t0: 1_580_000, block: packCounts(numbers(4, 6), 2, { times: [0, 9, 21] }) }
    ])
    await publish(session, [
      { index: 0, block: packFloats(numbers(5, 30).map((n) => n / 8), 2) },
      { index: 20, block: packFloats([Number.NaN, 1, Number.POSITIVE_INFINITY, Number.NaN], 2) }
    ], "2")
    await publish(
      session,
      Array.from({ length: 20 }, (_, i) => ({
        index: i * 7,
        t0: i * 70_000,
        block: packCounts(numbers(100 + i, i % 3 === 0 ? 2 : 14), 2)
      })),
      "3"
    )
    await end(session)
    return session
  }

  describe("ranges", () => {
    it("by position are the rows and gaps of the whole that lie in them", async () => {
      const { id } = await motley()
      const path = `/sessions/${id}/data`
      const whole = await dataOf(path)
      assert.strictEqual(whole.samples, 7 + 1 + 40 + 3 + 15 + 2 + 7 * 2 - 7 + 13 * 7)
      const places = [
        "0:0",
        "0:2",
        "0:4",
        "0:9",
        "0:10",
        "0:12",
        "0:15",
        "0:33",
        "0:55",
        "0:63",
        "0:9999",
        "1:0",
        "1:7"
      ]
        .concat(["1:15", "1:17", "1:21", "2:0", "2:1", "2:3", "2:70", "2:139", "2:140", "2:141", "7:3"])
      for (const [i, from] of places.entries()) {
        for (const to of places.slice(i)) {
          const part = await dataOf(`${path}?from=${from}&to=${to}`)
          const rows = whole.rows.filter(([at]) => !isBefore(at, from) && isBefore(at, to))
          assert.deepStrictEqual(part.rows, rows, `${from} to ${to}`)
          assert.strictEqual(part.samples, rows.length)
          const gaps = whole.gaps.flatMap((gap) => {
            const cut = {
              from: isBefore(gap.from, from) ? from : gap.from,
              to: isBefore(to, gap.to) ? to : gap.to,
              reason: "device"
            }
            return isBefore(cut.from, cut.to) && isBefore(gap.from, to) && isBefore(from, gap.to) ? [cut] : []
          })
          assert.deepStrictEqual([...part.gaps], gaps, `gaps of ${from} to ${to}`)
          assert.isUndefined(part.next)
        }
      }
    }, 60_000)

    it("by time begin and end with the first sample that is not before it, in the epoch that had begun", async () => {
      const { id } = await motley()
      const path = `/sessions/${id}/data`
      const whole = await dataOf(path)
      const starts = [0, 1, 2].map((epoch) => whole.rows.findIndex(([at]) => placeOf(at)[0] === epoch))
      /** Where an instant lies, as a number of a row. The three epochs overlap: they came faster than they were made. */
      const rowAt = (time: string): number => {
        const epoch = starts.findLastIndex((start) => timeOf(whole.rows[start]!) <= time)
        if (epoch < 0) return 0
        const end = starts[epoch + 1] ?? whole.rows.length
        const found = whole.rows.slice(starts[epoch], end).findIndex((row) => timeOf(row) >= time)
        return found < 0 ? end : starts[epoch]! + found
      }
      const times = whole.rows.map(timeOf)
      for (const time of times.filter((_, i) => i % 5 === 0 || i === times.length - 1)) {
        const from = await dataOf(`${path}?from=${time}`)
        assert.deepStrictEqual(from.rows, whole.rows.slice(rowAt(time)), `from ${time}`)
        const to = await dataOf(`${path}?to=${time}`)
        assert.deepStrictEqual(to.rows, whole.rows.slice(0, rowAt(time)), `to ${time}`)
        const later = `${time.slice(0, 26)}001Z`
        const after = await dataOf(`${path}?from=${later}`)
        assert.deepStrictEqual(after.rows, whole.rows.slice(rowAt(`${time.slice(0, 26)}~`)), `from ${later}`)
      }
      const east = new Date(Date.parse(times[0]!) + 5.5 * 3600e3).toISOString().slice(0, 23)
      for (const plus of ["%2B", "+"]) {
        assert.strictEqual(
          (await dataOf(`${path}?from=${east}${plus}05:30`)).samples,
          whole.samples - rowAt(`${times[0]!.slice(0, 23)}000Z`)
        )
      }
      assert.strictEqual(
        (await dataOf(`${path}?from=2000-01-01T00:00:00Z&to=2999-01-01T00:00:00Z`)).samples,
        whole.samples
      )
      assert.strictEqual((await dataOf(`${path}?from=2999-01-01T00:00:00Z`)).samples, 0)
      assert.strictEqual((await dataOf(`${path}?to=2000-01-01T00:00:00.5-01:00`)).samples, 0)
    }, 60_000)

    it("of the last seconds count back from the last sample", async () => {
      const session = await create({ rate: 100, channels: [{ name: "x" }] })
      await publish(session, [
        { index: 0, t0: 0, block: packCounts(numbers(1, 2500), 1) },
        { index: 3000, t0: 30_000_000, block: packCounts(numbers(2, 500), 1) }
      ])
      const path = `/sessions/${session.id}/data`
      const last = async (query: string): Promise<ReadonlyArray<unknown>> =>
        (await dataOf(`${path}?partial=true&${query}`)).rows.map(([at]) => at)
      assert.strictEqual((await last("last=1s")).length, 100)
      assert.strictEqual((await last("last=1s"))[0], "0:3400")
      assert.deepStrictEqual(await last("last=10ms"), ["0:3499"])
      assert.strictEqual((await last("last=12s")).length, 500 + 200)
      assert.strictEqual((await last("last=1.5m")).length, 3000)
      assert.strictEqual((await last("last=1h")).length, 3000)
      assert.deepStrictEqual(await last("last=20ms&to=0:3100"), ["0:3098", "0:3099"])
      // Where there is nothing at the end, the last sample is before it.
      assert.deepStrictEqual(await last("last=20ms&to=0:2700"), ["0:2498", "0:2499"])
      await end(session)
      assert.strictEqual((await get(`${path}?last=1s`)).headers.get("thrum-samples"), "100")
      const empty = await create()
      assert.deepInclude(await dataOf(`/sessions/${empty.id}/data?partial=true&last=1s`), { rows: [], complete: false })
    })

    it.each(["csv", "ndjson", "json"])("in pages of %s are together the whole", async (format) => {
      const { id } = await motley()
      const whole = await get(`/sessions/${id}/data?format=${format}`)
      const text = await whole.text()
      for (const limit of [1, 7, 13, 64, 1000]) {
        let path: string | undefined = `/sessions/${id}/data?format=${format}&limit=${limit}`
        const pages: Array<string> = []
        let samples = 0
        while (path !== undefined) {
          const answer: Response = await get(path)
          path = nextOf(answer, base())
          const page = await answer.text()
          samples += Number(answer.headers.get("thrum-samples"))
          assert.isAtMost(Number(answer.headers.get("thrum-samples")), limit)
          assert.strictEqual(answer.headers.get("thrum-complete"), String(path === undefined))
          if (path !== undefined) assert.strictEqual(Number(answer.headers.get("thrum-samples")), limit)
          if (format !== "csv") {
            const cursor = path === undefined ? undefined : new URL(path, "http://x").searchParams.get("cursor")
            const said = /"next":"([^"]+)"/.exec(page)?.[1]
            assert.strictEqual(said, cursor ?? undefined)
          }
          pages.push(page)
        }
        assert.strictEqual(samples, Number(whole.headers.get("thrum-samples")))
        if (format === "csv") {
          const rows = pages.map((page, i) => i === 0 ? page : page.slice(page.indexOf("\n") + 1))
          assert.strictEqual(rows.join(""), text)
        } else if (format === "ndjson") {
          const rows = pages.flatMap((page) => page.split("\n").slice(1, -2))
          assert.deepStrictEqual(rows, text.split("\n").slice(1, -2))
        } else {
          const parts = pages.map((page): Data => JSON.parse(page))
          const all: Data = JSON.parse(text)
          assert.deepStrictEqual(parts.flatMap(({ rows }) => rows), [...all.rows])
          assert.deepStrictEqual(parts.flatMap(({ gaps }) => gaps), [...all.gaps])
        }
      }
    }, 60_000)

    it("in pages keep to the range they are pages of", async () => {
      const { id } = await motley()
      const first = await get(`/sessions/${id}/data?from=0:3&to=2:3&limit=60&values=counts`)
      const next = nextOf(first, base())
      assert.include(next, "to=2%3A3")
      assert.include(next, "values=counts")
      const rest = await dataOf(next!)
      const whole = await dataOf(`/sessions/${id}/data?from=0:3&to=2:3&values=counts`)
      assert.deepStrictEqual([...(await first.json()).rows, ...rest.rows], [...whole.rows])
    })

    it("of a live session go on where the page before ended, whatever came meanwhile", async () => {
      const session = await create({ rate: 100, channels: [{ name: "x" }] })
      await publish(session, [{ index: 0, block: packCounts(numbers(1, 10), 1) }])
      const first = await get(`/sessions/${session.id}/data?partial=true&limit=7`)
      await publish(session, [{ index: 10, block: packCounts(numbers(11, 10), 1) }])
      const rest = await dataOf(nextOf(first, base())!.replace("limit=7", "limit=70"))
      assert.deepStrictEqual(rest.rows.map(([at]) => at), Array.from({ length: 13 }, (_, i) => `0:${7 + i}`))
      assert.isFalse(rest.complete)
    })

    it("of frames are the whole frames that overlap them", async () => {
      const { id } = await motley()
      const whole = Buffer.from(await (await get(`/sessions/${id}/data?format=frames`)).arrayBuffer())
      const answer = await get(`/sessions/${id}/data?format=frames&from=0:20&to=0:61`)
      const part = Buffer.from(await answer.arrayBuffer())
      assert.strictEqual(answer.headers.get("thrum-samples"), String(35 + 1))
      // Behind welcome and epoch there is one run of the whole: two frames and the gap between, untouched.
      const from = part.indexOf(Buffer.from([0x94, 2]))
      assert.isAbove(whole.indexOf(part.subarray(from)), 0)
      const tail = await get(`/sessions/${id}/data?format=frames&from=2:139`)
      assert.deepStrictEqual(
        Buffer.from(await tail.arrayBuffer()).subarray(-20),
        whole.subarray(-20)
      )
    })

    it("have tags of their own", async () => {
      const { id } = await motley()
      const tags = new Set<string>()
      const queries = ["", "from=0:3", "to=0:3", "from=0:3&to=0:9", "limit=2", "to=0:4", "maxPoints=8", "maxPoints=12"]
      for (const query of queries) {
        const path = `/sessions/${id}/data?${query}`
        const etag = (await get(path)).headers.get("etag") ?? ""
        assert.strictEqual((await get(path, { "if-none-match": etag })).status, 304)
        tags.add(etag)
      }
      assert.strictEqual(tags.size, queries.length)
    })

    it.each<[string, ReadonlyArray<string>]>([
      ["from=0:5&last=1s", ["last"]],
      ["cursor=0:5&last=1s", ["last"]],
      ["cursor=0:5&from=0:1", ["cursor"]],
      ["maxPoints=10&limit=5", ["maxPoints"]],
      ["maxPoints=10&cursor=0:0", ["maxPoints"]],
      ["maxPoints=10&format=frames", ["maxPoints"]],
      ["maxPoints=10&format=wav", ["maxPoints"]],
      ["from=0:5&to=0:4", ["from"]],
      ["from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", ["from"]],
      ["from=0:9007199254740993", ["from"]],
      ["from=2026-02-30T00:00:00Z", ["from"]],
      ["to=2026-01-01T24:00:00Z", ["to"]],
      ["from=2026-01-01", ["from"]],
      ["from=2026-01-01T00:00:00", ["from"]],
      ["from=yesterday", ["from"]],
      ["last=0s", ["last"]],
      ["last=-1s", ["last"]],
      ["last=10", ["last"]],
      ["last=10d", ["last"]],
      ["limit=0", ["limit"]],
      ["limit=1e3", ["limit"]],
      ["limit=9999999999999999", ["limit"]],
      ["maxPoints=0", ["maxPoints"]],
      ["cursor=start", ["cursor"]],
      ["limit=1&limit=2", ["limit"]],
      ["limit=0&to=x", ["to", "limit"]]
    ])("that make no sense are refused and named: %s", async (query, named) => {
      const answer = await get(`/sessions/${unknownId}/data?${query}`)
      assert.strictEqual(answer.status, 400)
      const { errors, detail } = await problemOf(answer)
      assert.deepStrictEqual(errors?.map(({ parameter }) => parameter), [...named], detail)
    })

    it("that only the session shows to make no sense are refused too", async () => {
      const { id } = await motley()
      const few = await get(`/sessions/${id}/data?maxPoints=3`)
      assert.strictEqual(few.status, 400)
      assert.match((await problemOf(few)).detail, /maxPoints: must be at least 4/)
      const mixed = await get(`/sessions/${id}/data?from=2999-01-01T00:00:00Z&to=0:4`)
      assert.strictEqual(mixed.status, 400)
      assert.match((await problemOf(mixed)).detail, /from: must not be after to: it is at 2:140, to at 0:4/)
    })
  })

  describe("thinning", () => {
    it("keeps of each bucket the lowest and the highest of every channel, and all gaps", async () => {
      const { id } = await motley()
      const path = `/sessions/${id}/data`
      for (const range of ["", "&from=0:20&to=2:50", "&from=1:14&to=2:30"]) {
        const whole = await dataOf(`${path}?values=unit${range}`)
        for (const maxPoints of [4, 5, 8, 20, 41, 100, whole.rows.length - 1, whole.rows.length, 10_000]) {
          if (maxPoints < 4) continue
          const part = await dataOf(`${path}?maxPoints=${maxPoints}${range}`)
          assert.deepStrictEqual(part.rows, thinned(whole.rows, 2, maxPoints), `${maxPoints} of ${whole.rows.length}`)
          assert.isAtMost(part.rows.length, maxPoints)
          assert.deepStrictEqual(part.gaps, whole.gaps)
          assert.deepInclude(part, { samples: part.rows.length, complete: true })
        }
      }
      const csv = await (await get(`${path}?format=csv&maxPoints=8`)).text()
      const rows = csv.trimEnd().split("\n").slice(1).map((line) => line.split(",")[0]!)
      const order = rows.map((at) => at.split("/")[0]!)
      assert.deepStrictEqual(order, order.toSorted((a, b) => isBefore(a, b) ? -1 : 1))
      assert.lengthOf(rows.filter((at) => at.includes("/")), (await dataOf(path)).gaps.length)
    }, 60_000)

    it("never loses a single peak in many samples", async () => {
      const session = await create({ rate: 1000, channels: [{ name: "x" }, { name: "y" }, { name: "z" }] })
      const peaks = new Map([[123, [0, 9999]], [4567, [1, -8888]], [4568, [2, 7777]], [29_999, [0, -6666]]])
      const frames = Array.from({ length: 60 }, (_, f) => {
        const values = numbers(f, 1500).map((n) => n % 100)
        for (const [index, [channel = 0, value = 0]] of peaks) {
          if (Math.floor(index / 500) === f) values[(index % 500) * 3 + channel] = value
        }
        return { index: f * 500, block: packCounts(values, 3) }
      })
      await publish(session, frames)
      await end(session)
      const { rows } = await dataOf(`/sessions/${session.id}/data?maxPoints=600`)
      assert.isAtMost(rows.length, 600)
      for (const [index, [channel = 0, value = 0]] of peaks) {
        assert.strictEqual(rows.find(([at]) => at === `0:${index}`)?.[3 + channel], value, `peak at ${index}`)
      }
    })
  })
}
