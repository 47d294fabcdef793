#!/usr/bin/env node
// Old versions of Node must be able to read this file, to say that they are too old: nothing newer than `import()`.
const [major, minor] = process.versions.node.split(".").map(Number)
if (major < 22 || (major === 22 && minor < 19)) {
  process.stderr.write(`thrum: Cannot run on Node ${process.versions.node}: it needs 22.19 or newer\n`)
  process.exitCode = 1
} else {
  void import("./cli/main.ts")
}
