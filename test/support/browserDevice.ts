/**
 * What a page does with the client: a test runs it in a browser. `?step=push`: pushes samples that cannot leave yet, into
 * IndexedDB. `?step=go-on`: takes up what is there, pushes the rest, ends the session, and watches it from its start.
 */
import { createSession, endSession, IndexedDbStore, openDevice, watch } from "@thrum/client"

const say = async (said: unknown): Promise<void> => {
  await fetch("/said", { method: "POST", body: JSON.stringify(said) })
}

const run = async (query: URLSearchParams): Promise<unknown> => {
  const [url, key, server] = ["url", "key", "server"].map((name) => query.get(name) ?? "")
  const store = new IndexedDbStore("thrum-test")
  const device = await openDevice({ url: url!, key: key!, channels: 1, rate: 1000, values: "counts", store })
  const { isResumed, next } = device.status
  for (let i = next; i < next + 500; i++) device.push([i])
  device.flush()
  if (query.get("step") === "push") {
    // What is written is there after the page has gone; the device does not say when, so another look is waited for.
    const other = new IndexedDbStore("thrum-test")
    for (;;) {
      const stored = await other.load()
      if (stored?.frames.at(-1)?.next === 500) return { isResumed, next, frames: stored.frames.length }
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
  await device.end()
  const values: Array<number> = []
  for await (const event of watch(url!, { from: "start" })) if (event.type === "samples") values.push(...event.values)
  await device.close()
  const left = await new IndexedDbStore("thrum-test").load()
  // REST, from another origin.
  const other = await createSession(server!, { rate: 10 })
  const ended = await endSession(other.url, other.key)
  return { isResumed, next, values, isLeft: left !== undefined, state: ended["state"] }
}

await run(new URLSearchParams(location.search)).then(say, (error: unknown) => say({ error: String(error) }))
