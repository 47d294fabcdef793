/**
 * The contract, `docs/API_CONTRACT.yml`: read once, when the server starts, and then the source of what exists.
 *
 * Holds the text as it is (served at `/openapi.yml`), the document, and its paths. That it cannot be read is a mistake
 * of whoever installed the server: a defect that says which file.
 */
import { Context, Effect, FileSystem, Layer } from "effect"
import * as Yaml from "effect/encoding/Yaml"
import { fileURLToPath } from "node:url"

/** Where the file is. Given from outside when the server is not run from its repository. */
export const ContractFile: Context.Reference<string> = Context.Reference("@thrum/server/http/ContractFile", {
  defaultValue: () => fileURLToPath(new URL("../../../../docs/API_CONTRACT.yml", import.meta.url))
})

/** An operation, as far as it matters before it is called. */
export interface ContractOperation {
  /** Media types of the body; undefined when it takes none. */
  readonly bodyTypes: ReadonlyArray<string> | undefined
  /** Bytes of the body, where it has a bound of its own (`x-bytes-max`). */
  readonly bodyBytesMax: number | undefined
}

/** A path and its operations by method in upper case. */
export interface ContractPath {
  readonly template: string
  readonly operations: ReadonlyMap<string, ContractOperation>
  /** The methods, `HEAD` and `OPTIONS` too, as `Allow` lists them. */
  readonly allow: string
}

export interface ContractShape {
  /** The file, byte for byte. */
  readonly yaml: Uint8Array
  /** The document. */
  readonly document: Readonly<Record<string, unknown>>
  /** The document as JSON. */
  readonly json: string
  /** The path a request's path (without its query) belongs to. */
  readonly find: (path: string) => ContractPath | undefined
}

const Tag: Context.ServiceClass<Contract, "@thrum/server/http/Contract", ContractShape> = Context.Service<
  Contract,
  ContractShape
>()("@thrum/server/http/Contract")

/** The contract. */
export class Contract extends Tag {
  static readonly layer: Layer.Layer<Contract, never, FileSystem.FileSystem> = Layer.effect(
    Contract,
    Effect.gen(function*() {
      const [files, file] = [yield* FileSystem.FileSystem, yield* ContractFile]
      const yaml = yield* files.readFile(file)
      const document = yield* Effect.sync(() => objectOf(Yaml.parse(new TextDecoder().decode(yaml))))
      return Contract.of({ yaml, document, json: JSON.stringify(document), find: makeFind(document) })
    }).pipe(
      Effect.catchCause((cause) =>
        Effect.flatMap(
          ContractFile,
          (file) => Effect.die(new Error(`Cannot read the contract at "${file}": it is missing or no YAML`, { cause }))
        )
      )
    )
  )
}

type Json = Readonly<Record<string, unknown>>

const isObject = (u: unknown): u is Json => typeof u === "object" && u !== null && !Array.isArray(u)
const objectOf = (u: unknown): Json => {
  if (isObject(u)) return u
  throw new TypeError("Cannot use the contract: an object was expected")
}

const methods: ReadonlySet<string> = new Set(["get", "put", "post", "delete", "patch"])

const pathOf = (template: string, item: Json): ContractPath => {
  const operations = new Map<string, ContractOperation>()
  for (const [method, operation] of Object.entries(item)) {
    if (!methods.has(method)) continue
    const given = objectOf(operation)["requestBody"]
    const body = given === undefined ? undefined : objectOf(given)
    const bytesMax = body?.["x-bytes-max"]
    operations.set(method.toUpperCase(), {
      bodyTypes: body === undefined ? undefined : Object.keys(objectOf(body["content"])),
      bodyBytesMax: typeof bytesMax === "number" ? bytesMax : undefined
    })
  }
  const get = operations.get("GET")
  if (get !== undefined) operations.set("HEAD", get)
  return { template, operations, allow: [...operations.keys(), "OPTIONS"].join(", ") }
}

/** The values a parameter of a path may have; undefined for any. */
const valuesOf = (item: Json, name: string): ReadonlyArray<string> | undefined => {
  for (const [method, operation] of Object.entries(item)) {
    const parameters = methods.has(method) ? objectOf(operation)["parameters"] : undefined
    for (const parameter of Array.isArray(parameters) ? parameters.map(objectOf) : []) {
      if (parameter["in"] !== "path" || parameter["name"] !== name) continue
      const values = objectOf(parameter["schema"])["enum"]
      return Array.isArray(values) ? values.map(String) : undefined
    }
  }
  return undefined
}

/** Text as a pattern of itself. */
const quote = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, "\\$&")

/** What fits a segment of a template: `data.{extension}` is `data.` and one of the values there are. */
const patternOf = (segment: string, item: Json): RegExp => {
  // Every other piece is the name of a parameter.
  const pieces = segment.split(/\{([^}]+)\}/).map((piece, i) =>
    i % 2 === 0 ? quote(piece) : `(?:${valuesOf(item, piece)?.map(quote).join("|") ?? "[^]+"})`
  )
  return new RegExp(`^${pieces.join("")}$`)
}

const makeFind = (document: Json): ContractShape["find"] => {
  const paths = Object.entries(objectOf(document["paths"])).map(([template, of]) => {
    const item = objectOf(of)
    return {
      segments: template.split("/").map((segment) => patternOf(segment, item)),
      path: pathOf(template, item)
    }
  })
  return (path) => {
    const segments = path.split("/")
    return paths.find((known) =>
      known.segments.length === segments.length && known.segments.every((part, i) => part.test(segments[i]!))
    )?.path
  }
}
