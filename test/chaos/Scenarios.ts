/**
 * What can go wrong around a server, one scenario each: it makes its trouble for a bounded time over a {@link Fleet}, then
 * lets everyone come to the end.
 */
import { connect, type Socket } from "node:net"
import type { Random } from "../simulation/Random.ts"
import { Fleet, type FleetOptions } from "./Fleet.ts"
import { anyTrouble, Proxy } from "./Proxy.ts"
import { Rest } from "./Rest.ts"
import type { Tally } from "./Tally.ts"
import { fixedPort, moment, pause, type World } from "./World.ts"

export interface Stage {
  readonly world: World
  readonly random: Random
  readonly tally: Tally
  /** Milliseconds for the trouble. The ends and checks come after. */
  readonly ms: number
  /** Whether the machine is to be spared: fewer peers. */
  readonly small: boolean
}

type Scenario = (stage: Stage) => Promise<void>

const mixedKeeps = ["everything", "30 s", "nothing"] as const

const fleetOf = ({ world, random, tally, small }: Stage, options: Partial<FleetOptions> = {}): Fleet =>
  new Fleet({
    devices: small ? 8 : 20,
    viewers: small ? 1 : 2,
    keeps: mixedKeeps,
    everyMs: 50,
    samplesMax: 100,
    widths: [1, 2, 4],
    lastsMs: [3000, 15_000],
    endedBy: ["device", "device", "device", "rest", "both"],
    url: world.url,
    socketsUrl: world.url,
    random,
    tally,
    ...options
  })

/** Ends all sessions, starts the server anew, reads the data again. */
const finish = async ({ world, tally }: Stage, fleet: Fleet): Promise<void> => {
  await fleet.stop()
  const { code, ms } = await world.endServer()
  if (code !== 0) tally.breaks("broken", 1, `the server ended with ${code} when it was told to stop, after ${ms} ms`)
  await world.serve()
  await fleet.recheck()
  await world.endServer("SIGKILL")
}

/** Waits for a condition of the system; breaks a promise when it does not come. */
const expect = async (tally: Tally, what: string, ms: number, holds: () => boolean): Promise<boolean> => {
  const deadline = Date.now() + ms
  while (!holds()) {
    if (Date.now() > deadline) {
      tally.breaks("broken", 1, `waited ${ms} ms for ${what}`)
      return false
    }
    await pause(10)
  }
  return true
}

/**
 * `kill -9` of the server at any moment, and a new one at once. PostgreSQL finishes what a dead server has asked for, so
 * now and then it is made to drop that too: when one of its processes is killed it ends all others, and recovers.
 */
const killServer: Scenario = async (stage) => {
  const { world, random, tally, ms, small } = stage
  await world.serve()
  const fleet = fleetOf(stage)
  const started = Date.now()
  let kills = 0
  while (Date.now() < started + ms) {
    await moment(random, small ? 500 : 1200)
    if (random.chance(0.25)) {
      const [, ...children] = world.databaseProcesses()
      if (children.length > 0) world.signalDatabase([random.pick(children)], "SIGKILL")
      tally.counts("of them with PostgreSQL's processes")
    }
    await world.killServer()
    tally.counts("kills of the server")
    kills++
  }
  tally.most("kills a minute", kills * 60_000 / (Date.now() - started))
  await finish(stage, fleet)
}

/** `kill -9` of PostgreSQL: the postmaster and all it started, or one of its processes. The server stays. */
const killDatabase: Scenario = async (stage) => {
  const { world, random, tally, ms } = stage
  await world.serve()
  const fleet = fleetOf(stage)
  const deadline = Date.now() + ms
  while (Date.now() < deadline) {
    await moment(random, 1500)
    const [postmaster, ...children] = world.databaseProcesses()
    if (postmaster === undefined) throw new Error("Cannot kill PostgreSQL: it has ended by itself")
    const isWhole = random.chance(0.7) || children.length === 0
    world.signalDatabase(isWhole ? [postmaster, ...children] : [random.pick(children)], "SIGKILL")
    tally.counts(isWhole ? "kills of PostgreSQL" : "kills of one process of PostgreSQL")
    const isUp = (): boolean => {
      const [now = postmaster] = world.databaseProcesses()
      return !isWhole || now !== postmaster
    }
    if (!await expect(tally, "PostgreSQL to be started again", 60_000, isUp)) break
    const acked = tally.got("samples acked")
    const isBack = await expect(
      tally,
      "durable acks after PostgreSQL was killed",
      60_000,
      () => tally.got("samples acked") > acked + 1000
    )
    if (!isBack) break
  }
  world.mustRun()
  await finish(stage, fleet)
}

const mebibyte = 1024 * 1024
/** What the server is configured to hold: the write queue, and a ring for each session (the limits of the core). */
const queueBytesMax = 64 * mebibyte
const ringBytesMax = mebibyte / 4
/** What JavaScript may take beside: its heap grows and shrinks by itself. */
const heapBytes = 64 * mebibyte

/** PostgreSQL stands still, or cannot be reached, for a while: live goes on, nothing is durable, memory is bounded. */
const stopDatabase: Scenario = async (stage) => {
  const { world, random, tally, ms } = stage
  const databasePort = await fixedPort()
  const proxy = await Proxy.listen(databasePort, world.databasePort, () => ({ kind: "none" }), random)
  await world.serve(databasePort)
  const outageMs = Math.min(60_000, Math.max(1500, ms / 2))
  const devices = stage.small ? 8 : 20
  // In a long one more comes than the queue holds: 8 KiB a frame.
  const flood = {
    samplesMax: 4096,
    widths: [4] as const,
    everyMs: Math.floor(outageMs * devices * 8192 / (1.5 * queueBytesMax))
  }
  const fleet = fleetOf(stage, {
    devices,
    viewers: 1,
    keeps: ["everything"],
    everyMs: 100,
    lastsMs: [ms * 10, ms * 10],
    endedBy: ["device"],
    ...(outageMs >= 20_000 ? flood : {})
  })
  const deadline = Date.now() + ms
  while (Date.now() < deadline) {
    await expect(tally, "all to be connected", 20_000, () => fleet.connected === 2 * devices)
    await moment(random, 1000)
    const memoryBefore = world.serverMemory()
    const isBlack = random.chance(0.5)
    const processes = world.databaseProcesses()
    if (isBlack) proxy.black(true)
    else world.signalDatabase(processes, "SIGSTOP")
    let memory = memoryBefore
    try {
      // What was committed already is told within the interval of acks.
      await pause(400)
      const durable = fleet.durable
      const until = Date.now() + outageMs - 400
      while (Date.now() < until) {
        await pause(100)
        memory = Math.max(memory, world.serverMemory())
      }
      if (fleet.durable !== durable) {
        tally.breaks(
          "broken",
          1,
          `durable moved from ${durable} to ${fleet.durable} while PostgreSQL could not be reached`
        )
      }
      const late = Array.from(fleet.viewers).filter((viewer) => viewer.sight.shownAt < Date.now() - 2000)
      if (late.length > 0) {
        tally.breaks("broken", late.length, `${late.length} viewers saw nothing for 2 s in the outage`)
      }
    } finally {
      world.signalDatabase(processes, "SIGCONT")
      proxy.black(false)
      // A network that comes back may have forgotten its connections.
      if (isBlack && random.chance(0.5)) proxy.cutAll()
    }
    tally.counts("outages of PostgreSQL")
    tally.counts("seconds of outage", outageMs / 1000)
    const more = memory - memoryBefore
    tally.most("MiB more in an outage", more / mebibyte)
    const most = queueBytesMax + devices * ringBytesMax + heapBytes
    if (more > most) tally.breaks("broken", 1, `the server took ${more} bytes more in an outage, over ${most}`)
    const target = Array.from(fleet.devices, (device) => [device, device.produced] as const)
    await expect(
      tally,
      "all that was produced to be durable",
      60_000,
      () => target.every(([device, produced]) => device.durable >= produced)
    )
  }
  await finish(stage, fleet)
  await proxy.close()
}

/** The network between the server and its peers. */
const network: Scenario = async (stage) => {
  const { world, random, tally, ms } = stage
  await world.serve()
  const port = await fixedPort()
  let isOver = false
  const proxy = await Proxy.listen(port, world.port, () => isOver ? { kind: "none" } : anyTrouble(random), random)
  const fleet = fleetOf(stage, { socketsUrl: `http://127.0.0.1:${port}` })
  const deadline = Date.now() + ms
  while (Date.now() < deadline) {
    // Those that have it good, or only slow, have it so for a few seconds.
    await moment(random, 300)
    proxy.cutAny()
  }
  isOver = true
  await finish(stage, fleet)
  await proxy.close()
  for (const [kind, count] of proxy.counts) if (kind !== "none") tally.counts(`connections ${kind}`, count)
}

/** A peer that asks for a session live and then reads nothing, answers nothing, closes nothing. */
const stuckPeer = (port: number, id: string): Socket => {
  const socket = connect({ port, host: "127.0.0.1" })
  socket.on("error", () => {})
  socket.pause()
  socket.write(
    `GET /sessions/${id}/live?from=start HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
  )
  return socket
}

const exitMs = 8000

/** SIGTERM with many open sockets, some of them stuck; then the next process, to which all come by themselves. */
const sigterm: Scenario = async (stage) => {
  const { world, random, tally, ms } = stage
  await world.serve()
  const devices = stage.small ? 15 : 100
  const fleet = fleetOf(stage, {
    devices,
    viewers: 1,
    everyMs: 300,
    keeps: ["everything"],
    lastsMs: [ms * 10, ms * 10],
    endedBy: ["device"]
  })
  const watched = await new Rest(world.url).create()
  const deadline = Date.now() + ms
  do {
    if (!await expect(tally, "all to come back", 30_000, () => fleet.connected === 2 * devices)) break
    const stuck = Array.from({ length: 3 }, () => stuckPeer(world.port, watched.id))
    await moment(random, 1500)
    tally.most("sockets open", fleet.connected + stuck.length)
    const { code, ms: took } = await world.endServer("SIGTERM")
    for (const socket of stuck) socket.destroy()
    tally.counts("SIGTERMs")
    tally.most("ms to exit at most", took)
    if (code !== 0 || took > exitMs) {
      tally.breaks("broken", 1, `SIGTERM with ${2 * devices} sockets: exit ${code} after ${took} ms`)
    }
    await world.serve()
  } while (Date.now() < deadline)
  await finish(stage, fleet)
}

/** Ends of every kind against frames that still come; the data is what it was then, for ever. */
const endRace: Scenario = async (stage) => {
  const { world, ms } = stage
  await world.serve()
  const fleet = fleetOf(stage, {
    devices: stage.small ? 4 : 10,
    everyMs: 4,
    samplesMax: 20,
    lastsMs: [0, 200],
    endedBy: ["rest", "rest", "both", "both", "device"]
  })
  await pause(ms)
  await finish(stage, fleet)
}

/** By name: how often one is taken in a mix, and the least time it is worth. */
export const scenarios: ReadonlyMap<
  string,
  { readonly run: Scenario; readonly weight: number; readonly leastMs: number }
> = new Map([
  ["kill-server", { run: killServer, weight: 4, leastMs: 3000 }],
  ["kill-database", { run: killDatabase, weight: 2, leastMs: 3000 }],
  ["stop-database", { run: stopDatabase, weight: 1, leastMs: 3000 }],
  ["network", { run: network, weight: 3, leastMs: 5000 }],
  ["sigterm", { run: sigterm, weight: 1, leastMs: 2000 }],
  ["end-race", { run: endRace, weight: 2, leastMs: 2000 }]
])
