/** All of the core over one archive: the order in which its layers stand on one another. */
import { Layer } from "effect"
import type { Archive } from "./Archive.ts"
import { Feed } from "./Feed.ts"
import { Hub } from "./Hub.ts"
import { Sessions } from "./Sessions.ts"
import { WriteQueue } from "./WriteQueue.ts"

/** Sessions, hub, write queue and feed. Needs an archive. When it closes, the queue is flushed first. */
export const coreLayer: Layer.Layer<Sessions | Hub | WriteQueue | Feed, never, Archive> = Sessions.layer.pipe(
  Layer.provideMerge(Layer.mergeAll(Hub.layer, WriteQueue.layer, Feed.layer))
)
