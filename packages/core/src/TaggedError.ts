/** The type of a class made by `Data.TaggedError`: written out because exported classes must not extend expressions. */
import type { Cause } from "effect"

/** A constructor of errors that carry `_tag` and `Fields`, and can be yielded in `Effect.gen`. */
export type TaggedErrorClass<Tag extends string, Fields extends object> = new(
  fields: Fields
) => Cause.YieldableError & { readonly _tag: Tag } & Readonly<Fields>
