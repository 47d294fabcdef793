/**
 * What tests of Thrum, and of archives made elsewhere, are made of. Needs `@effect/vitest`.
 *
 * @module
 */
export * from "./ArchiveSuite.ts"
export * from "./Recording.ts"
export * from "./TroubledArchive.ts"
