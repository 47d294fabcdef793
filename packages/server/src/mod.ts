/**
 * Thrum's server: the core wired into HTTP, WebSocket and PostgreSQL.
 *
 * @module
 */
export * from "./Server.ts"
export * from "./Settings.ts"
