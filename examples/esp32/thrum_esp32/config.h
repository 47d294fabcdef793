/* Yours. The session's id and key come from POST /sessions: see the README. */
#ifndef WIFI_NAME
#define WIFI_NAME "network"
#define WIFI_PASSWORD "password"
#define SERVER_HOST "thrum.example"
#define SERVER_PORT 443
#define INGEST_PATH "/sessions/00000000-0000-4000-8000-000000000000/ingest"
#define INGEST_KEY "the ingest key of the session"

/* The certificate at the root of the server's, PEM: the connection is refused without it. */
#define ROOT_CA \
  "-----BEGIN CERTIFICATE-----\n" \
  "…\n" \
  "-----END CERTIFICATE-----\n"
#endif
