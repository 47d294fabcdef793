/** What the formats of text have in common: events as rows. */
import { type Gap, kinds } from "@thrum/protocol"
import type { ByteSink } from "../ByteSink.ts"
import { DataRows, type RowLayout } from "../DataRows.ts"
import type { Recording, Writer } from "./Format.ts"

/** Writes events as rows of a layout. `gapRow` is what a gap is in the midst of them. */
export const rowWriter = (
  { record, values }: Recording,
  sink: ByteSink,
  layout: RowLayout,
  gapRow: (gap: Gap) => string
): Writer["event"] => {
  const rows = new DataRows(sink, layout, record.description, values)
  return function*(event): Iterable<void> {
    switch (event.kind) {
      case kinds.epoch:
        return rows.begin(event)
      case kinds.gap:
        return sink.text(gapRow(event))
      case kinds.samples:
        rows.open(event)
        while (!rows.write()) yield
    }
  }
}
