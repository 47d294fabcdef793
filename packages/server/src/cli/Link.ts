/**
 * What a person gives to name a session: any of the links the server hands out, or its id and the server's address.
 */
import * as client from "@thrum/client"
import { type SessionLink, ThrumError } from "@thrum/client"
import { usageError } from "./CommandError.ts"

/** What is no link is wrong usage: exit code 2. */
const orUsage = <A>(read: () => A): A => {
  try {
    return read()
  } catch (error) {
    throw error instanceof ThrumError ? usageError(error.message) : error
  }
}

/**
 * Reads the address of a server.
 *
 * @param text `http(s)://host[:port][/path]`; `ws(s)://` means the same server.
 * @throws CommandError (exit code 2) when it is none.
 */
export const parseServer = (text: string): string => orUsage(() => client.parseServer(text))

/**
 * Reads a link to a session, or an id with the address of its server.
 *
 * @param text `http://host/sessions/ID`, the same with `/live`, `/ingest`, `/data` or `/end`, with `ws:` for `http:`; or
 *   `ID`.
 * @param to The server's address; needed with an id, and not together with a link.
 * @throws CommandError (exit code 2) when it is neither.
 */
export const parseLink = (text: string, to?: string): SessionLink => {
  if (client.isSessionId(text)) {
    if (to === undefined) {
      throw usageError(`Cannot tell which server has the session "${text}": give its link, or the server with --to`)
    }
    return { server: parseServer(to), id: text.toLowerCase() }
  }
  if (!URL.canParse(text)) {
    throw usageError(`Cannot find a session by "${text}": it is neither a link like http://host/sessions/ID nor an id`)
  }
  const link = orUsage(() => client.parseLink(text))
  if (to !== undefined) throw usageError(`Cannot use --to "${to}": the link "${text}" already names its server`)
  return link
}
