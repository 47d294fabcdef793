/**
 * A device of its own process that keeps its frames in a file: a test kills it. Each sample's value is its index, so
 * that what is read back tells whether an index was used twice.
 *
 * `storingDevice.ts <session's link> <key> <file> <samples>`: pushes up to so many samples, ends the session, exits.
 */
import { openDevice } from "@thrum/client"
import { FileStore } from "@thrum/client/file"

const [, , url = "", key = "", file = "", total = "0"] = process.argv

const device = await openDevice({
  url,
  key,
  channels: 1,
  rate: 1000,
  blockSamples: 20,
  values: "counts",
  store: new FileStore(file)
})
process.stdout.write(`from ${device.status.next}\n`)
while (device.status.next < Number(total)) {
  for (let i = 0; i < 10 && device.status.next < Number(total); i++) device.push([device.status.next])
  await new Promise((resolve) => setTimeout(resolve, 2))
}
await device.end()
await device.close()
process.stdout.write("ended\n")
