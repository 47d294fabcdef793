/** A viewer: joins anywhere, reads at its own pace, leaves, comes back to where it was, until the session ends. */
import { formatPosition, type Position } from "@thrum/protocol"
import type { Link } from "./Network.ts"
import type { Random } from "./Random.ts"
import type { ViewerDown, ViewerUp } from "./Server.ts"
import type { Timeline } from "./Timeline.ts"
import type { Trace } from "./Trace.ts"
import { type SessionTruth, Sight, type Truth } from "./Truth.ts"

export interface WatcherHabits {
  readonly from: "start" | "now" | Position
  readonly policy: "complete" | "latest"
  readonly unreadMax: number
  readonly paceMax: number
  /** Milliseconds after which it leaves and comes back, at most. */
  readonly staysMax: number
}

interface Surroundings {
  readonly timeline: Timeline
  readonly random: Random
  readonly trace: Trace
  readonly truth: Truth
  readonly connect: (watcher: Watcher) => Link<ViewerUp, ViewerDown> | undefined
}

/** Milliseconds without an event after which it tries another connection, at most. */
const patience = 8000

export class Watcher {
  readonly session: SessionTruth
  readonly sight: Sight
  readonly name: string
  /** Stays where it is from now on. */
  isSteady = false
  private readonly habits: WatcherHabits
  private readonly world: Surroundings
  private link: Link<ViewerUp, ViewerDown> | undefined
  private heardAt = 0
  private leavesAt = 0

  constructor(session: SessionTruth, name: string, habits: WatcherHabits, world: Surroundings) {
    this.session = session
    this.name = name
    this.habits = habits
    this.world = world
    this.sight = new Sight(world.truth, session, name, habits.policy)
    this.connect()
    this.watch()
  }

  private connect(): void {
    const { random, timeline } = this.world
    if (this.link !== undefined || this.sight.ended) return
    const link = this.world.connect(this)
    if (link === undefined) {
      timeline.after(random.between(10, 500), () => this.connect())
      return
    }
    this.link = link
    this.heardAt = timeline.now
    this.leavesAt = timeline.now + random.skewed(1, this.habits.staysMax)
    link.onDown = (message) => {
      if (this.link !== link) return
      this.heardAt = timeline.now
      if (message._tag === "Welcome") {
        this.say(`is welcome at ${formatPosition(message.from)}`)
        return this.sight.welcome(message.from, message.by)
      }
      const { event } = message
      const place = "position" in event ?
        formatPosition(event.position) :
        "from" in event ?
        `${formatPosition(event.from)}-${formatPosition(event.to)} ${event.reason}` :
        "next" in event ?
        `${event.epoch}:${event.index}-${event.next}` :
        event.epoch
      this.say(`sees ${event.kind} ${place}`)
      this.sight.see(event)
    }
    link.onServerGone = (close) => {
      if (this.link !== link) return
      this.link = undefined
      this.say(`is closed: ${close?.name ?? "cut"}`)
      timeline.after(random.skewed(1, 1000), () => this.connect())
    }
    link.up({
      session: this.session.id,
      from: this.sight.next ?? this.habits.from,
      policy: this.habits.policy,
      unreadMax: this.habits.unreadMax,
      paceMax: this.habits.paceMax
    })
  }

  private watch(): void {
    const { random, timeline } = this.world
    timeline.after(random.between(50, 500), () => {
      if (this.sight.ended) return
      const isTired = !this.isSteady && timeline.now > this.leavesAt
      if (this.link !== undefined && (isTired || timeline.now - this.heardAt > patience)) {
        this.say(isTired ? "leaves" : "hears nothing, tries another connection")
        this.link.leave(random.skewed(0, 3000))
        this.link = undefined
        timeline.after(random.skewed(1, 1000), () => this.connect())
      }
      this.watch()
    })
  }

  private say(text: string): void {
    this.world.trace.say(this.world.timeline.now, `${this.name} ${text}`)
  }
}
