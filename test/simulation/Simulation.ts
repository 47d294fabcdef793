/**
 * A world of devices, viewers, servers and one archive, in which everything goes wrong that can, from one seed.
 *
 * First trouble: servers are killed and drained, connections cut, the archive fails, devices reboot. Then quiet: faults
 * stop, and within {@link quietMax} of virtual time everyone must have caught up and every session have ended. What must
 * hold meanwhile and afterwards is said in `Truth.ts`.
 */
import { type CoreLimitValues, hashIngestKey } from "@thrum/core"
import { protocolLimits } from "@thrum/protocol"
import { Effect } from "effect"
import { Device, type DeviceHabits } from "./Device.ts"
import { FaultyArchive, noFaults } from "./FaultyArchive.ts"
import { Link, type Network } from "./Network.ts"
import { Random } from "./Random.ts"
import { type DeviceDown, type DeviceUp, ingestKey, Server, type ViewerDown, type ViewerUp } from "./Server.ts"
import { Timeline } from "./Timeline.ts"
import { Trace } from "./Trace.ts"
import { Truth } from "./Truth.ts"
import { Watcher } from "./Watcher.ts"

/** What became of one seed. */
export interface Outcome {
  readonly seed: number
  /** The promise that broke, or undefined. */
  readonly broken: string | undefined
  /** Of everything that happened: the same seed has the same. */
  readonly hash: string
  /** The last lines of the trace. */
  readonly last: ReadonlyArray<string>
  readonly samples: number
  readonly events: number
  readonly kills: number
  /** Virtual milliseconds. */
  readonly took: number
}

/** Virtual milliseconds everyone has to catch up, and then all viewers to see the end. */
const quietMax = 120_000
/** Events of one seed, at most: a world that never comes to rest is broken. */
const eventsMax = 2_000_000

/** Runs one world. Synchronous. Keeps the last `lines` of its trace. */
export const simulate = (seed: number, lines: number = 60): Outcome => new Simulation(seed, lines).run()

class Simulation {
  private readonly seed: number
  private readonly random: Random
  private readonly timeline: Timeline
  private readonly trace: Trace
  private readonly truth = new Truth()
  private readonly archive: FaultyArchive
  private readonly network: Network = { delayMax: 5 }
  private readonly limits: CoreLimitValues
  private readonly yielding: number
  /** By place; undefined while there is none. */
  private readonly servers: Array<Server | undefined>
  private readonly links = new Set<Link<DeviceUp, DeviceDown> | Link<ViewerUp, ViewerDown>>()
  private readonly devices: Array<Device> = []
  private readonly watchers: Array<Watcher> = []
  private isQuiet = false
  private events = 0
  private kills = 0
  private made = 0
  /** Frames and bounds are this much larger than usual. */
  private readonly isFat: boolean

  constructor(seed: number, lines: number) {
    this.seed = seed
    this.trace = new Trace(lines)
    const random = this.random = new Random(seed)
    this.timeline = new Timeline(random)
    this.timeline.onEndless = (operations) => this.truth.fail(`one event took ${operations} operations, it never ends`)
    this.archive = new FaultyArchive(this.timeline, random, this.trace, this.truth)
    this.archive.onFenced = (process, boot) => {
      for (const server of this.servers) if (server?.process === process) server.fenced(boot)
    }
    this.yielding = random.pick([0, 0.002, 0.05, 0.3])
    this.isFat = random.chance(0.06)
    this.limits = this.makeLimits()
    this.servers = Array.from({ length: random.chance(0.4) ? 2 : 1 }, () => undefined)
  }

  private makeLimits(): CoreLimitValues {
    const { random } = this
    const size = this.isFat ? 400 : 1
    return {
      queueBytesMax: size * random.int(250, 4000),
      groupBytesMax: size * random.int(1, 1000),
      groupFramesMax: random.int(1, 30),
      chunkBytesMax: size * random.int(1, 500),
      ringBytesMax: size * random.pick([0, 100, random.int(1, 3000)]),
      ringsBytesMax: size * random.int(100, 5000),
      pageBytesMax: size * random.int(1, 1000),
      gapsMax: random.pick([3, 20, 10_000]),
      lostMax: 1000,
      durableEveryMs: random.int(5, 200),
      idleMs: random.int(1, 2000),
      endWaitMs: random.int(500, 5000),
      flushWaitMs: random.int(500, 5000)
    }
  }

  run(): Outcome {
    const { random, timeline, trace, truth } = this
    this.say(`seed ${this.seed} ${JSON.stringify(this.limits)} yields ${this.yielding} fat ${this.isFat}`)
    const sessions = random.int(1, 3)
    for (let i = 0; i < sessions; i++) this.addSession(i)
    for (const place of this.servers.keys()) this.start(place)
    this.trouble(random.between(2000, 12_000))

    let isOver = false
    const done = (): void => {
      isOver = true
    }
    timeline.play(() => isOver || truth.broken !== undefined, () => {
      for (const server of this.servers) server?.checkBounds()
      if (++this.events > eventsMax) truth.fail(`nothing comes to rest after ${eventsMax} events`)
      if (this.isQuiet) this.settle(done)
    })
    if (truth.broken === undefined && !isOver) truth.fail("everything stopped before it was over")
    if (truth.broken === undefined) this.finish()
    if (truth.broken !== undefined) this.say(`BROKEN ${truth.broken}`)
    let samples = 0
    for (const session of truth.sessions.values()) samples += session.samples
    return {
      seed: this.seed,
      broken: truth.broken,
      hash: trace.hash,
      last: trace.last,
      samples,
      events: this.events,
      kills: this.kills,
      took: timeline.now
    }
  }

  private addSession(i: number): void {
    const { archive, random, timeline, trace, truth } = this
    const id = `00000000-0000-4000-8000-${String(i).padStart(12, "0")}`
    Effect.runSync(archive.inner.create({
      id,
      description: { channels: [{ name: "x", unit: "count", scale: 1, offset: 0 }], rate: 100, tick: 1 },
      keyHash: hashIngestKey(ingestKey),
      createdAt: 0
    }))
    const session = truth.session(id, `s${i}`)
    const habits = this.makeHabits()
    this.say(`${session.name} ${JSON.stringify(habits)}`)
    const world = { timeline, random, trace, truth }
    timeline.after(random.skewed(0, 1000), () => {
      const device: Device = new Device(session, habits, { ...world, connect: (from) => this.connectDevice(from) })
      this.devices.push(device)
    })
    const watchers = random.int(1, 4)
    for (let n = 0; n < watchers; n++) {
      timeline.after(random.between(0, 8000), () => {
        if (this.isQuiet) return
        this.watchers.push(
          new Watcher(session, `v${i}.${n}`, {
            from: random.pick(["start", "start", "now", { epoch: random.int(0, 1), index: random.int(0, 300) }]),
            policy: random.chance(0.7) ? "complete" : "latest",
            unreadMax: random.int(1, 20),
            paceMax: random.pick([0, 10, 300]),
            staysMax: random.pick([2000, 1e6])
          }, { ...world, connect: (from) => this.connectWatcher(from) })
        )
      })
    }
  }

  private makeHabits(): DeviceHabits {
    const { random } = this
    const padding = this.isFat ? random.int(8000, 24_000) : 0
    return {
      keeping: random.pick(["all", "all", "little", "nothing"]),
      keptMax: random.int(1, 20),
      window: Math.min(protocolLimits.windowBytes.value, (padding + 100) * random.int(1, 40)),
      everyMax: random.pick([50, 200, 800]),
      countMax: random.int(1, 20),
      padding,
      overlapMax: random.pick([0, 0, 3]),
      repeats: random.pick([0, 0, 0.05]),
      skips: random.pick([0, 0, 0.1]),
      late: random.pick([0, 0.3]),
      reboots: random.pick([0, 0, 0.01]),
      ends: random.pick(["never", "never", "durable", "sent"])
    }
  }

  // Servers come and go.

  private start(place: number): void {
    const { archive, limits, random, timeline, trace, truth } = this
    const process = timeline.process(`c${place}.${this.made++}`, this.yielding)
    this.servers[place] = new Server(process, { archive, limits, random, timeline, trace, truth })
  }

  private kill(place: number): void {
    const server = this.servers[place]
    if (server === undefined) return
    this.kills++
    server.kill()
    this.servers[place] = undefined
    this.cutOff(server, 3000)
    this.timeline.after(this.random.skewed(1, 2000), () => this.startAgain(place))
  }

  private drain(place: number): void {
    const server = this.servers[place]
    if (server === undefined || !server.isUp) return
    server.drain(() => {
      this.cutOff(server, 10)
      // Killed while it drained: another has taken its place.
      if (this.servers[place] !== server) return
      this.servers[place] = undefined
      if (place === 0 || !this.isQuiet) this.timeline.after(this.random.skewed(1, 1000), () => this.startAgain(place))
    })
  }

  private startAgain(place: number): void {
    if (this.servers[place] === undefined && !(this.isQuiet && place > 0)) this.start(place)
  }

  /** The connections of a server that is gone. */
  private cutOff(server: Server, noticedMax: number): void {
    for (const link of this.links) {
      if (link.server !== server.process) continue
      link.cut(this.random.skewed(0.1, noticedMax), 0)
      this.links.delete(link)
    }
  }

  private pickServer(): Server | undefined {
    const up = this.servers.filter((server) => server?.isUp === true)
    return up.length === 0 ? undefined : this.random.pick(up)
  }

  private connectDevice(device: Device): Link<DeviceUp, DeviceDown> | undefined {
    const server = this.pickServer()
    if (server === undefined) return undefined
    const link = new Link<DeviceUp, DeviceDown>(this.timeline, this.random, this.network, server.process)
    this.links.add(link)
    server.ingest(link, device.session.id, device.name)
    return link
  }

  private connectWatcher(watcher: Watcher): Link<ViewerUp, ViewerDown> | undefined {
    const server = this.pickServer()
    if (server === undefined) return undefined
    const link = new Link<ViewerUp, ViewerDown>(this.timeline, this.random, this.network, server.process)
    this.links.add(link)
    server.watch(link, watcher.name)
    return link
  }

  // Trouble, then quiet.

  private trouble(duration: number): void {
    const { archive, network, random, timeline } = this
    const [kills, drains, cuts, aways, ends] = [
      random.pick([0, 1, 4, 10]),
      random.pick([0, 0, 2]),
      random.pick([0, 2, 15]),
      random.pick([0, 1, 3]),
      random.pick([0, 0, 1])
    ]
    network.delayMax = random.pick([1, 20, 300])
    const isBad = random.chance(0.5)
    archive.faults = {
      refuse: isBad ? random.between(0, 0.2) : 0,
      unknown: isBad ? random.between(0, 0.2) : 0,
      late: isBad ? random.between(0, 0.1) : 0,
      delayMax: random.pick([2, 30, 500])
    }
    const times = (n: number, act: () => void): void => {
      for (let i = 0; i < n; i++) timeline.after(random.between(0, duration), act)
    }
    times(kills, () => this.kill(random.int(0, this.servers.length - 1)))
    times(drains, () => this.drain(random.int(0, this.servers.length - 1)))
    times(cuts, () => {
      const open = [...this.links].filter((link) => link.isOpen)
      if (open.length === 0) return
      const link = random.pick(open)
      link.cut(random.skewed(0.1, 5000), random.skewed(0.1, 8000))
      this.links.delete(link)
    })
    times(aways, () => {
      archive.awayUntil = timeline.now + random.skewed(10, 8000)
      this.say(`the archive is away until ${archive.awayUntil.toFixed(0)}`)
      // An end that cannot be, and then the session goes on.
      if (random.chance(0.3)) timeline.after(random.between(0, 500), () => this.tryEnd(this.pickSession()))
    })
    times(ends, () => this.tryEnd(this.pickSession()))
    timeline.after(duration, () => this.becomeQuiet())
  }

  private pickSession(): string {
    return this.random.pick([...this.truth.sessions.keys()])
  }

  private tryEnd(id: string): void {
    const server = this.pickServer()
    server?.end(id, (error) => this.say(`end of ${this.truth.sessions.get(id)?.name} by its key: ${error ?? "done"}`))
  }

  private quietSince = 0
  private nextLook = 0
  private readonly ending = new Set<string>()
  private readonly ended = new Set<string>()

  private becomeQuiet(): void {
    const { archive, network, timeline } = this
    this.say("quiet")
    this.isQuiet = true
    this.quietSince = timeline.now
    archive.faults = noFaults
    archive.awayUntil = 0
    network.delayMax = 5
    for (const device of this.devices) device.finish()
    for (const watcher of this.watchers) watcher.isSteady = true
    // Servers tell one another nothing yet: in the end all meet at one.
    for (const place of this.servers.keys()) if (place > 0) this.drain(place)
    this.tick()
  }

  /** Keeps time going while everyone waits for the deadline. */
  private tick(): void {
    this.timeline.after(100, () => this.tick())
  }

  private settle(done: () => void): void {
    const { timeline, truth } = this
    if (timeline.now < this.nextLook) return
    this.nextLook = timeline.now + 50
    const late = timeline.now - this.quietSince > quietMax
    if (late) {
      const waiting = this.devices.filter((device) => !device.isSettled)
      const behind = this.watchers.filter((watcher) => !watcher.sight.ended)
      return truth.fail(
        `after ${quietMax} ms of quiet not all have caught up: devices ${
          waiting.map((device) => `${device.name} (${device.waiting} frames)`).join(", ")
        }; ended ${this.ended.size} of ${truth.sessions.size}; viewers ${
          behind.map((watcher) => watcher.name).join(", ")
        }`
      )
    }
    // Late devices are born still.
    for (const device of this.devices) if (!device.isDone) device.finish()
    // One that was still starting when it became quiet.
    for (const place of this.servers.keys()) if (place > 0) this.drain(place)
    if (this.servers.some((server, place) => place > 0 && server !== undefined)) return
    for (const session of truth.sessions.values()) {
      const device = this.devices.find((device) => device.session === session)
      const isReady = device === undefined ||
        (device.isSettled && (device.habits.ends === "never" || device.hasEnded || device.habits.keeping === "nothing"))
      if (!isReady || this.ending.has(session.id) || this.ended.has(session.id)) continue
      const server = this.pickServer()
      if (server === undefined) continue
      this.ending.add(session.id)
      server.end(session.id, (error) => {
        this.say(`end of ${session.name}: ${error ?? "done"}`)
        this.ending.delete(session.id)
        if (error === undefined) this.ended.add(session.id)
      })
    }
    if (
      this.ended.size === truth.sessions.size && this.devices.length === truth.sessions.size &&
      this.watchers.every((watcher) => watcher.sight.ended)
    ) done()
  }

  private finish(): void {
    const { archive, truth } = this
    const contents = new Map(
      [...truth.sessions.keys()].map((id) =>
        [
          id,
          Effect.runSync(Effect.orDie(archive.inner.read(id, { epoch: 0, index: 0 }, Number.MAX_SAFE_INTEGER)))
        ] as const
      )
    )
    truth.finish(contents)
    for (const server of this.servers) server?.checkEmpty()
    for (const device of this.devices) {
      const missing = device.owed.filter(({ first, next }) => !device.boot.stored.covers(first, next))
      if (missing.length > 0) truth.fail(`${device.name} kept all, and ${missing.length} frames are missing`)
      if (device.waiting > 0 && !device.hasEnded) {
        truth.fail(`${device.name} still has ${device.waiting} frames to send`)
      }
    }
  }

  private say(text: string): void {
    this.trace.say(this.timeline.now, text)
  }
}
