/** The viewer's stream as bytes: what the device sent, untouched, with epochs and gaps between. A `.thrum` file. */
import { durableOf, infoOf } from "@thrum/core"
import { encodeEnded, encodeEpoch, encodeGap, encodeViewerWelcome, kinds } from "@thrum/protocol"
import { Effect, Stream } from "effect"
import type { DataFormat } from "./Format.ts"

const nothing: ReadonlyArray<void> = []

export const frames: DataFormat = {
  name: "frames",
  mediaType: "application/vnd.thrum.frames",
  contentType: "application/vnd.thrum.frames",
  extension: "thrum",
  // The blocks are packed already.
  isCompressible: false,
  open: ({ record, from, reachesEnd }) =>
    Effect.succeed({
      writer: (sink) => {
        return {
          head: () => sink.copy(encodeViewerWelcome(infoOf(record), from)),
          event: (event) => {
            switch (event.kind) {
              case kinds.epoch:
                sink.copy(encodeEpoch(event))
                break
              case kinds.gap:
                sink.copy(encodeGap(event))
                break
              case kinds.samples:
                sink.copy(event.bytes)
            }
            return sink.isFull ? [undefined] : nothing
          },
          tail: () =>
            record.state === "ended" && reachesEnd ?
              Stream.sync(() => sink.copy(encodeEnded(durableOf(record)))) :
              Stream.empty
        }
      }
    })
}
