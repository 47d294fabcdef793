/*
 * Streams a CSV file to a Thrum server, as a device would: thrum.h for blocks, frames and what is kept; plain POSIX
 * sockets and thrum_websocket.h for the way there. Plain `ws://` only: TLS is the board's library's work.
 *
 *     cc -std=c99 -o stream_csv stream_csv.c
 *     ./stream_csv ws://127.0.0.1:8080/sessions/ID/ingest KEY recording.csv [RATE [SAMPLES_PER_FRAME [RING_BYTES]]]
 *
 * The file has a header line; a first column whose name begins with `t_` is left out, the others are channels. Whole
 * numbers that fit 32 bits go as counts, others as float32. RATE (Hz) makes the start time of each frame; without one the device
 * has no clock. A file can wait, so frames are added only where the ring has room: nothing is dropped.
 *
 * Reconnects and resumes until everything is durable and the session sealed: exit 0. Exit 1 when the server says not to
 * come back, or takes nothing for two minutes.
 */
#define _POSIX_C_SOURCE 200809L
#define THRUM_IMPLEMENTATION
#include "../thrum.h"
#define THRUM_WEBSOCKET_IMPLEMENTATION
#include "../thrum_websocket.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 4096, COUNT_MAX = 250, RING_MAX = 1 << 20, PATIENCE_MS = 120000, SILENCE_MS = 20000, BEAT_MS = 5000 };

static void fail(const char *what, const char *which) {
  fprintf(stderr, "Cannot %s%s%s%s\n", what, which[0] ? " \"" : "", which, which[0] ? "\"" : "");
  exit(1);
}

static uint64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static uint64_t now_ms(void) { return now_us() / 1000; }

static void fill_random(void *out, size_t bytes) {
  static FILE *source;
  if (source == NULL) source = fopen("/dev/urandom", "rb");
  if (source == NULL || fread(out, 1, bytes, source) != bytes) fail("read", "/dev/urandom");
}

static void wait_ms(uint32_t ms) {
  struct timespec t;
  t.tv_sec = ms / 1000;
  t.tv_nsec = (long)(ms % 1000) * 1000000;
  while (nanosleep(&t, &t) != 0 && errno == EINTR) continue;
}

/* ---- The file ---- */

static FILE *csv;
static uint32_t skipped, channels;
static int is_float;

/* The cells of the next line, as counts or as bits; 0 at the end. */
static int read_row(int32_t *cells, int only_look) {
  char line[LINE_MAX_BYTES];
  char *at = line;
  uint32_t column;
  if (fgets(line, sizeof line, csv) == NULL || line[0] == '\n' || line[0] == 0) return 0;
  for (column = 0; column < skipped + channels; column++) {
    char *end;
    if (column >= skipped) {
      long count = (errno = 0, strtol(at, &end, 10));
      int is_count = errno == 0 && end != at && count >= INT32_MIN && count <= INT32_MAX &&
                     (*end == ',' || *end == '\n' || *end == '\r' || *end == 0);
      if (only_look) is_float |= !is_count;
      if (!only_look && !is_float) cells[column - skipped] = (int32_t)count;
      if (!only_look && is_float) {
        float value = strtof(at, &end);
        memcpy(&cells[column - skipped], &value, 4);
      }
    }
    at += strcspn(at, ",");
    if (*at == ',') at++;
    else if (column + 1 < skipped + channels) fail("read a line with too few cells", line);
  }
  return 1;
}

static void open_csv(const char *name) {
  char header[LINE_MAX_BYTES];
  const char *at;
  csv = fopen(name, "r");
  if (csv == NULL || fgets(header, sizeof header, csv) == NULL) fail("read", name);
  skipped = strncmp(header, "t_", 2) == 0;
  for (channels = 1 - skipped, at = header; *at != 0; at++) channels += *at == ',';
  if (channels < 1 || channels > THRUM_CHANNELS_MAX) fail("use a file without 1 to 16 channels", name);
  while (read_row(NULL, 1)) continue;
  rewind(csv);
  if (fgets(header, sizeof header, csv) == NULL) fail("read", name);
}

/* ---- The connection ---- */

static int connection = -1;
static thrum_ws_parser parser;

static void disconnect(void) {
  if (connection >= 0) close(connection);
  connection = -1;
}

static int send_all(const void *bytes, size_t length) {
  const char *at = (const char *)bytes;
  while (length > 0) {
    ssize_t sent = send(connection, at, length, MSG_NOSIGNAL);
    if (sent <= 0 && errno != EINTR) return 0;
    if (sent <= 0) continue;
    at += sent;
    length -= (size_t)sent;
  }
  return 1;
}

/* One WebSocket frame, header and masked bytes. */
static int send_frame(uint8_t opcode, const uint8_t *bytes, uint32_t length) {
  static uint8_t out[THRUM_WS_HEADER_MAX + THRUM_MESSAGE_MAX];
  uint8_t mask[4];
  uint32_t head;
  fill_random(mask, 4);
  head = thrum_ws_header(out, opcode, length, mask);
  memcpy(out + head, bytes, length);
  thrum_ws_mask(out + head, length, mask, 0);
  return send_all(out, head + length);
}

/* A byte within 10 s, or -1. Only for the handshake. */
static int receive_byte(void) {
  struct pollfd waiting;
  uint8_t byte;
  waiting.fd = connection;
  waiting.events = POLLIN;
  if (poll(&waiting, 1, 10000) != 1 || recv(connection, &byte, 1, 0) != 1) return -1;
  return byte;
}

/* Opens a WebSocket: 1; 0 when it could not; negative: the HTTP status that came instead. */
static int open_socket(const char *host, const char *port, const char *path) {
  struct addrinfo hints, *found, *each;
  struct timeval most = {10, 0};
  char request[1024], authority[300];
  uint8_t nonce[16];
  thrum_ws_reply reply;
  int32_t length, answer = 0;
  int on = 1;
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(host, port, &hints, &found) != 0) return 0;
  for (each = found; each != NULL && connection < 0; each = each->ai_next) {
    connection = socket(each->ai_family, each->ai_socktype, each->ai_protocol);
    if (connection >= 0 && connect(connection, each->ai_addr, each->ai_addrlen) != 0) disconnect();
  }
  freeaddrinfo(found);
  if (connection < 0) return 0;
  setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);

  fill_random(nonce, 16);
  snprintf(authority, sizeof authority, "%s:%s", host, port);
  length = thrum_ws_request(request, sizeof request, authority, path, nonce, NULL);
  if (length < 0) fail("say so long a path", path);
  thrum_ws_expect(&reply, nonce);
  if (send_all(request, (size_t)length)) {
    while (answer == 0) {
      int byte = receive_byte();
      if (byte < 0) break;
      answer = thrum_ws_answer(&reply, (uint8_t)byte);
    }
  }
  memset(&parser, 0, sizeof parser);
  if (answer != 1) disconnect();
  return answer == -1 ? 0 : answer;
}

/* ---- The device ---- */

int main(int count, char **words) {
  static uint8_t memory[RING_MAX], frame[THRUM_FRAME_MAX(COUNT_MAX, THRUM_CHANNELS_MAX, 32)];
  static int32_t cells[COUNT_MAX * THRUM_CHANNELS_MAX], scratch[COUNT_MAX];
  char host[256], port[8] = "80", path[512];
  uint8_t boot_id[8];
  const char *key = count > 2 ? words[2] : "";
  double rate = count > 4 ? atof(words[4]) : 0;
  long per_frame = count > 5 ? atol(words[5]) : 100;
  long ring_bytes = count > 6 ? atol(words[6]) : RING_MAX;
  thrum_ring ring;
  int32_t waiting = 0;
  uint32_t in_waiting = 0, connections = 0, tries = 0, frames = 0;
  uint32_t code = 0, retry_after = 0;
  uint64_t progressed = now_ms(), heard = 0, beat = 0;
  int is_read = 0, is_end_sent = 0, was_end_sent = 0;

  if (count < 4) fail("begin: stream_csv ws://HOST[:PORT]/PATH KEY FILE [RATE [SAMPLES_PER_FRAME [RING_BYTES]]]", "");
  if (sscanf(words[1], "ws://%255[^:/]:%7[0-9]%511s", host, port, path) != 3 &&
      sscanf(words[1], "ws://%255[^:/]%511s", host, path) != 2) {
    fail("use an address that is not ws://HOST[:PORT]/PATH", words[1]);
  }
  if (per_frame < 1 || per_frame > COUNT_MAX) fail("put that many samples into a frame", words[5]);
  if (ring_bytes < 1 || ring_bytes > RING_MAX) fail("have a ring of that size", words[6]);
  open_csv(words[3]);
  fill_random(boot_id, sizeof boot_id);
  thrum_ring_init(&ring, memory, (uint32_t)ring_bytes);

  for (;;) {
    struct pollfd poller;
    thrum_frame next;
    uint8_t bytes[THRUM_HELLO_MAX + THRUM_KEY_MAX];
    int closed = 0;
    int32_t length;

    /* Connect, and say hello. */
    if (connection < 0) {
      int opened = open_socket(host, port, path);
      if (now_ms() - progressed > PATIENCE_MS) fail("go on: the server took nothing for two minutes", "");
      if (opened < 0) {
        fprintf(stderr, "Cannot connect: the server answered %d\n", -opened);
        if (opened > -500 && opened != -429) return 1;
      }
      if (opened != 1) {
        uint32_t random;
        fill_random(&random, 4);
        wait_ms(thrum_wait_ms(THRUM_COME_LATER, tries++, 0, random));
        continue;
      }
      connections++;
      heard = now_ms();
      beat = heard;
      is_end_sent = 0;
      code = retry_after = 0;
      length = thrum_hello(bytes, sizeof bytes, key, boot_id, sizeof boot_id, thrum_ring_oldest(&ring));
      if (length < 0) fail("use the key", key);
      closed = !send_frame(THRUM_WS_BINARY, bytes, (uint32_t)length);
    }

    /* Read what fits: a frame that was made waits until the ring has room. */
    while (waiting > 0 || !is_read) {
      if (waiting == 0) {
        thrum_values values;
        uint64_t t0 = rate > 0 ? (uint64_t)((double)ring.next * 1e6 / rate + 0.5) : THRUM_NO_CLOCK;
        for (in_waiting = 0; in_waiting < (uint32_t)per_frame; in_waiting++) {
          if (!read_row(cells + in_waiting * channels, 0)) break;
        }
        is_read = in_waiting < (uint32_t)per_frame;
        if (in_waiting == 0) break;
        if (is_float) values = thrum_float32((const uint32_t *)cells, in_waiting, channels);
        else values = thrum_int32(cells, in_waiting, channels);
        waiting = thrum_samples(frame, sizeof frame, ring.next, t0, &values, scratch);
        if (waiting < 0 || waiting + 2 > ring_bytes) fail("keep a frame: the ring is too small", "");
      }
      if (!thrum_ring_has_room(&ring, (uint32_t)waiting)) break;
      thrum_ring_add(&ring, frame, (uint32_t)waiting);
      waiting = 0;
      frames++;
    }

    /* Send what the window has room for, and the end behind the last. */
    while (!closed && thrum_ring_peek(&ring, &next)) {
      closed = !send_frame(THRUM_WS_BINARY, next.bytes, next.length);
      if (!closed) thrum_ring_sent(&ring, &next);
    }
    if (!closed && ring.is_welcome && is_read && waiting == 0 && thrum_ring_unsent(&ring) == 0 && !is_end_sent) {
      length = thrum_end(bytes, sizeof bytes, ring.next);
      closed = !send_frame(THRUM_WS_BINARY, bytes, (uint32_t)length);
      is_end_sent = was_end_sent = 1;
    }
    if (!closed && ring.is_welcome && !is_end_sent && now_ms() - beat > BEAT_MS) {
      length = thrum_time(bytes, sizeof bytes, now_us());
      closed = !send_frame(THRUM_WS_BINARY, bytes, (uint32_t)length);
      beat = now_ms();
    }

    /* Hear what the server says. */
    poller.fd = connection;
    poller.events = POLLIN;
    if (poll(&poller, 1, 100) == 1) {
      uint8_t some[512];
      ssize_t got = recv(connection, some, sizeof some, 0);
      ssize_t i;
      if (got <= 0) closed = 1;
      else heard = now_ms();
      for (i = 0; i < got && !closed; i++) {
        thrum_message message;
        uint64_t durable = ring.durable;
        int32_t error = 0;
        switch (thrum_ws_feed(&parser, some[i])) {
          case THRUM_WS_MESSAGE:
            if (thrum_read(parser.message, parser.message_bytes, &message) < 0) fail("read a frame of the server", "");
            error = thrum_ring_take(&ring, &message);
            if (error != THRUM_OK) {
              fprintf(stderr, "Cannot go on: the server is at an index that was never sent (error %d)\n", (int)error);
              return 1;
            }
            if (message.kind == THRUM_ERROR) {
              code = message.code;
              retry_after = message.retry_after;
              fprintf(stderr, "The server says %lu: %.*s\n", (unsigned long)code, (int)message.text_bytes, message.text);
            }
            if (message.kind == THRUM_REWIND) is_end_sent = 0;
            break;
          case THRUM_WS_PINGED:
            closed = !send_frame(THRUM_WS_PONG, parser.control, parser.control_bytes);
            break;
          case THRUM_WS_CLOSED:
            if (parser.close_code != 1005) code = parser.close_code;
            closed = 1;
            break;
          case THRUM_WS_BAD:
            closed = 1;
            break;
          default:
            break;
        }
        if (ring.durable > durable) {
          progressed = now_ms();
          tries = 0;
        }
      }
    }
    if (now_ms() - heard > SILENCE_MS) closed = 1;
    if (now_ms() - progressed > PATIENCE_MS) fail("go on: the server took nothing for two minutes", "");

    if (closed) {
      int come = thrum_come_back(code, was_end_sent);
      uint32_t random;
      disconnect();
      thrum_ring_disconnect(&ring);
      if (come == THRUM_DONE) {
        printf("sealed: %llu samples in %lu frames, %lu connections, %lu frames dropped\n", (unsigned long long)ring.next,
               (unsigned long)frames, (unsigned long)connections, (unsigned long)ring.dropped_frames);
        return ring.durable == ring.next || code == 4005 ? 0 : 1;
      }
      if (come == THRUM_COME_NEVER) return 1;
      fill_random(&random, 4);
      wait_ms(thrum_wait_ms(come, tries++, retry_after, random));
    }
  }
}
