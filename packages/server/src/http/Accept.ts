/** Content negotiation (RFC 9110, 12.5.1): which of the media types there are a client wants most. */

interface Range {
  readonly type: string
  readonly subtype: string
  readonly quality: number
}

const token = "[!#$%&'*+.^_`|~0-9a-z-]+"
const rangePattern = new RegExp(`^(${token})/(${token})$`)
const qualityPattern = /^q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)$/

/** A range that cannot be read asks for nothing. */
const rangeOf = (text: string): Range | undefined => {
  const [range = "", ...parameters] = text.toLowerCase().split(";").map((part) => part.trim())
  const match = rangePattern.exec(range)
  if (match === null) return undefined
  const quality = parameters.find((parameter) => parameter.startsWith("q="))
  if (quality === undefined) return { type: match[1]!, subtype: match[2]!, quality: 1 }
  const value = qualityPattern.exec(quality)
  return value === null ? undefined : { type: match[1]!, subtype: match[2]!, quality: Number(value[1]) }
}

/** How closely a range names a media type: exactly 3, by its type 2, like everything 1; 0 when it does not. */
const closeness = ({ type, subtype }: Range, mediaType: string): number =>
  `${type}/${subtype}` === mediaType ?
    3 :
    subtype !== "*" ?
    0 :
    mediaType.startsWith(`${type}/`) ?
    2 :
    type === "*" ?
    1 :
    0

/**
 * The media type to answer with.
 *
 * @param accept The header; undefined or empty means anything.
 * @param offers What there is, the server's favourite first, in lower case.
 * @returns Undefined when nothing there is will do.
 * @example
 * ```ts
 * negotiate("text/csv;q=0.9, application/json;q=0.4", ["application/json", "text/csv"]) // "text/csv"
 * ```
 */
export const negotiate = (accept: string | undefined, offers: ReadonlyArray<string>): string | undefined => {
  if (accept === undefined || accept.trim() === "") return offers[0]
  const ranges = accept.split(",").flatMap((text) => rangeOf(text) ?? [])
  let best: string | undefined
  let most = 0
  for (const offer of offers) {
    let closest = 0
    let quality = 0
    for (const range of ranges) {
      const close = closeness(range, offer)
      if (close <= closest) continue
      closest = close
      quality = range.quality
    }
    if (quality > most) {
      most = quality
      best = offer
    }
  }
  return best
}
