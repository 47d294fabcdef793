/**
 * The archive in PostgreSQL, on any `SqlClient` of that dialect. Brings no driver.
 *
 * @module
 */
export * as Migrations from "./Migrations.ts"
export * from "./SqlArchive.ts"
