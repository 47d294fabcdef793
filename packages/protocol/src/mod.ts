/**
 * Thrum's wire: frames, the packed block, codes and limits. Runs wherever there is JavaScript.
 *
 * @module
 */
export * from "./Block.ts"
export * from "./BlockEncoder.ts"
export * from "./Codes.ts"
export * from "./Frame.ts"
export * from "./FrameError.ts"
export * from "./Limits.ts"
export * from "./Position.ts"
export * from "./Scan.ts"
export * from "./Session.ts"
export * from "./Values.ts"
