/*
 * thrum_websocket.h: as much of a WebSocket client (RFC 6455) as a Thrum device needs. C99 and C++11, no heap, no I/O:
 * it makes the bytes to send and takes the bytes that came, one at a time. Under it may be any byte stream, TLS or not.
 *
 * Bound: a message of the server has at most 125 bytes (docs/PROTOCOL.md §3.3), and so has each of its control frames;
 * both buffers are in thrum_ws_parser (about 300 bytes). What is longer ends the connection: THRUM_WS_BAD.
 *
 *     n = thrum_ws_request(buffer, sizeof buffer, "host:port", "/sessions/…/ingest", nonce, NULL)   send it
 *     each byte until it returns 1: status = thrum_ws_answer(&answer, byte)                         negative: refused
 *     each byte after that: switch (thrum_ws_feed(&parser, byte)) { case THRUM_WS_MESSAGE: … }
 *     to send a message: n = thrum_ws_header(head, THRUM_WS_BINARY, length, mask); send head, n;
 *                        thrum_ws_mask(piece, length, mask, 0); send piece
 *     at THRUM_WS_PINGED: the same with THRUM_WS_PONG and parser.control
 *
 * `nonce` and `mask` are 16 and 4 bytes of the board's random generator, new for each connection and each frame.
 *
 * One C file says `#define THRUM_WEBSOCKET_IMPLEMENTATION` before it includes this.
 */
#ifndef THRUM_WEBSOCKET_H
#define THRUM_WEBSOCKET_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef THRUM_API
#define THRUM_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define THRUM_WS_BYTES_MAX 125
#define THRUM_WS_HEADER_MAX 14

/* Opcodes. */
enum { THRUM_WS_BINARY = 2, THRUM_WS_CLOSE = 8, THRUM_WS_PING = 9, THRUM_WS_PONG = 10 };

/*
 * The bytes of the upgrade request, for sub-protocol thrum.v1. `host`: with its port unless that is the usual one.
 * `path`: from the session's ingest link. `key`: the ingest key as `Authorization: Bearer`, or NULL when it goes in the
 * hello. Returns their number, or -1 when they do not fit (about 200 bytes and the three texts).
 */
THRUM_API int32_t thrum_ws_request(char *out, uint32_t size, const char *host, const char *path,
                                   const uint8_t nonce[16], const char *key);

/* Reads the answer to the request. Set to 0 and call thrum_ws_expect first. */
typedef struct thrum_ws_reply {
  char line[128];
  uint32_t length;
  uint32_t total;
  int32_t status;
  char accept[29];
  uint8_t is_accepted;
  uint8_t is_thrum;
} thrum_ws_reply;

/* Nothing read yet. `nonce`: that of the request. */
THRUM_API void thrum_ws_expect(thrum_ws_reply *reply, const uint8_t nonce[16]);
/*
 * Takes a byte of the answer. 0: more is wanted. 1: the connection is a WebSocket with thrum.v1, and what comes next is
 * its first frame. Negative: it is not; -404 and the like is the HTTP status, -1 an answer that is none, over 4 KiB, or
 * not to this request.
 */
THRUM_API int32_t thrum_ws_answer(thrum_ws_reply *reply, uint8_t byte);

/* What thrum_ws_feed found. */
enum { THRUM_WS_MORE, THRUM_WS_MESSAGE, THRUM_WS_PINGED, THRUM_WS_PONGED, THRUM_WS_CLOSED, THRUM_WS_BAD };

/* Set to 0 for each connection. */
typedef struct thrum_ws_parser {
  /* A whole message, when THRUM_WS_MESSAGE was returned, until the next byte is fed. */
  uint8_t message[THRUM_WS_BYTES_MAX];
  /* What a ping, a pong or a close carried. */
  uint8_t control[THRUM_WS_BYTES_MAX];
  uint32_t message_bytes;
  uint32_t control_bytes;
  /* After THRUM_WS_CLOSED: the code, 1005 when there was none. */
  uint32_t close_code;
  uint32_t left;
  uint8_t head;
  uint8_t state;
  uint8_t is_open;
} thrum_ws_parser;

/* Takes a byte that came. After THRUM_WS_CLOSED and THRUM_WS_BAD there is nothing more to feed. */
THRUM_API int thrum_ws_feed(thrum_ws_parser *parser, uint8_t byte);

/* The bytes before a message or a control frame of `length` bytes; at most THRUM_WS_HEADER_MAX. Returns their number. */
THRUM_API uint32_t thrum_ws_header(uint8_t *out, uint8_t opcode, uint32_t length, const uint8_t mask[4]);
/* Masks a piece in place; `offset` is how many bytes of the message came before it. */
THRUM_API void thrum_ws_mask(uint8_t *bytes, uint32_t length, const uint8_t mask[4], uint32_t offset);

#ifdef __cplusplus
}
#endif
#endif /* THRUM_WEBSOCKET_H */

/* ================================================================================================================= */

#if defined(THRUM_WEBSOCKET_IMPLEMENTATION) && !defined(THRUM_WEBSOCKET_IMPLEMENTED)
#define THRUM_WEBSOCKET_IMPLEMENTED

#ifdef __cplusplus
extern "C" {
#endif

static void thrum_ws_base64(char *out, const uint8_t *bytes, uint32_t length) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  uint32_t i;
  for (i = 0; i < length; i += 3) {
    uint32_t left = length - i;
    uint32_t three = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0u);
    *out++ = digits[three >> 18];
    *out++ = digits[three >> 12 & 63];
    *out++ = '=';
    *out++ = '=';
    if (left > 1) out[-2] = digits[three >> 6 & 63];
    if (left > 2) out[-1] = digits[three & 63];
  }
  *out = 0;
}

static uint32_t thrum_ws_turn(uint32_t u, uint32_t by) { return u << by | u >> (32 - by); }

/* SHA-1 (RFC 3174) of at most 119 bytes. It proves nothing here but that a WebSocket server has answered. */
static void thrum_ws_sha1(uint8_t out[20], const char *text, uint32_t length) {
  uint32_t h[5] = {0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u, 0xc3d2e1f0u};
  uint8_t padded[128];
  uint32_t blocks = length < 56 ? 1 : 2;
  uint32_t block, i;
  memset(padded, 0, sizeof padded);
  memcpy(padded, text, length);
  padded[length] = 0x80;
  padded[64 * blocks - 2] = (uint8_t)(length >> 5);
  padded[64 * blocks - 1] = (uint8_t)(length << 3);
  for (block = 0; block < blocks; block++) {
    const uint8_t *at = padded + 64 * block;
    uint32_t w[80];
    uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (i = 0; i < 16; i++, at += 4) w[i] = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    for (; i < 80; i++) w[i] = thrum_ws_turn(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (i = 0; i < 80; i++) {
      uint32_t f = i < 20 ? ((b & c) | (~b & d)) : i < 40 || i >= 60 ? b ^ c ^ d : ((b & c) | (b & d) | (c & d));
      uint32_t k = i < 20 ? 0x5a827999u : i < 40 ? 0x6ed9eba1u : i < 60 ? 0x8f1bbcdcu : 0xca62c1d6u;
      uint32_t sum = thrum_ws_turn(a, 5) + f + e + k + w[i];
      e = d;
      d = c;
      c = thrum_ws_turn(b, 30);
      b = a;
      a = sum;
    }
    h[0] += a;
    h[1] += b;
    h[2] += c;
    h[3] += d;
    h[4] += e;
  }
  for (i = 0; i < 20; i++) out[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static uint32_t thrum_ws_append(char *out, uint32_t size, uint32_t at, const char *text) {
  while (*text != 0 && at < size) out[at++] = *text++;
  return *text == 0 ? at : size + 1;
}

THRUM_API int32_t thrum_ws_request(char *out, uint32_t size, const char *host, const char *path,
                                   const uint8_t nonce[16], const char *key) {
  char text[25];
  uint32_t at = 0;
  uint32_t i;
  const char *pieces[10];
  thrum_ws_base64(text, nonce, 16);
  pieces[0] = "GET ";
  pieces[1] = path;
  pieces[2] = " HTTP/1.1\r\nHost: ";
  pieces[3] = host;
  pieces[4] = "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
              "Sec-WebSocket-Protocol: thrum.v1\r\nSec-WebSocket-Key: ";
  pieces[5] = text;
  pieces[6] = key != NULL ? "\r\nAuthorization: Bearer " : "";
  pieces[7] = key != NULL ? key : "";
  pieces[8] = "\r\n\r\n";
  for (i = 0; i < 9; i++) at = thrum_ws_append(out, size, at, pieces[i]);
  return at > size ? -1 : (int32_t)at;
}

THRUM_API void thrum_ws_expect(thrum_ws_reply *reply, const uint8_t nonce[16]) {
  char text[25 + 36];
  uint8_t hash[20];
  memset(reply, 0, sizeof *reply);
  thrum_ws_base64(text, nonce, 16);
  memcpy(text + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
  thrum_ws_sha1(hash, text, 60);
  thrum_ws_base64(reply->accept, hash, 20);
}

/* The value of a header line, when it has that name (lower case). */
static const char *thrum_ws_value(const char *line, const char *name) {
  for (; *name != 0; line++, name++) {
    char c = *line >= 'A' && *line <= 'Z' ? (char)(*line + 32) : *line;
    if (c != *name) return NULL;
  }
  if (*line++ != ':') return NULL;
  while (*line == ' ' || *line == '\t') line++;
  return line;
}

static int thrum_ws_is(const char *value, const char *text) {
  if (value == NULL) return 0;
  while (*text != 0) {
    if (*value++ != *text++) return 0;
  }
  while (*value == ' ' || *value == '\t') value++;
  return *value == 0;
}

THRUM_API int32_t thrum_ws_answer(thrum_ws_reply *reply, uint8_t byte) {
  char *line = reply->line;
  int is_first = reply->status == 0;
  if (++reply->total > 4096) return -1;
  if (byte != '\n') {
    /* The headers that matter are short; of others the end is not kept. */
    if (reply->length < sizeof reply->line - 1) line[reply->length++] = (char)byte;
    return 0;
  }
  if (reply->length > 0 && line[reply->length - 1] == '\r') reply->length--;
  line[reply->length] = 0;
  if (is_first) {
    uint32_t i;
    if (reply->length < 12 || memcmp(line, "HTTP/1.1 ", 9) != 0) return -1;
    for (i = 9; i < 12; i++) {
      if (line[i] < '0' || line[i] > '9') return -1;
      reply->status = reply->status * 10 + (line[i] - '0');
    }
    if (reply->status < 100) return -1;
  } else if (reply->length == 0) {
    if (reply->status != 101) return -reply->status;
    return reply->is_accepted && reply->is_thrum ? 1 : -1;
  } else {
    if (thrum_ws_is(thrum_ws_value(line, "sec-websocket-accept"), reply->accept)) reply->is_accepted = 1;
    if (thrum_ws_is(thrum_ws_value(line, "sec-websocket-protocol"), "thrum.v1")) reply->is_thrum = 1;
  }
  reply->length = 0;
  return 0;
}

/* A frame has come whole. */
static int thrum_ws_whole(thrum_ws_parser *parser) {
  uint8_t opcode = parser->head & 0x0f;
  parser->state = 0;
  if (opcode < THRUM_WS_CLOSE) {
    parser->is_open = (parser->head & 0x80) == 0;
    return parser->is_open ? THRUM_WS_MORE : THRUM_WS_MESSAGE;
  }
  if (opcode == THRUM_WS_PING) return THRUM_WS_PINGED;
  if (opcode == THRUM_WS_PONG) return THRUM_WS_PONGED;
  if (parser->control_bytes == 1) return THRUM_WS_BAD;
  parser->close_code = parser->control_bytes == 0 ? 1005 : (uint32_t)parser->control[0] << 8 | parser->control[1];
  return THRUM_WS_CLOSED;
}

THRUM_API int thrum_ws_feed(thrum_ws_parser *parser, uint8_t byte) {
  uint8_t opcode = parser->head & 0x0f;
  if (parser->state == 0) {
    opcode = byte & 0x0f;
    /* No extension was agreed on; text is no frame of Thrum. */
    if (byte & 0x70) return THRUM_WS_BAD;
    if (opcode >= THRUM_WS_CLOSE ? opcode > THRUM_WS_PONG || !(byte & 0x80) : opcode != (parser->is_open ? 0 : THRUM_WS_BINARY)) {
      return THRUM_WS_BAD;
    }
    if (opcode == THRUM_WS_BINARY) parser->message_bytes = 0;
    if (opcode >= THRUM_WS_CLOSE) parser->control_bytes = 0;
    parser->head = byte;
    parser->state = 1;
    return THRUM_WS_MORE;
  }
  if (parser->state == 1) {
    /* A server does not mask, and has no need of the longer forms of a length. */
    if (byte > THRUM_WS_BYTES_MAX) return THRUM_WS_BAD;
    if (opcode < THRUM_WS_CLOSE && byte > THRUM_WS_BYTES_MAX - parser->message_bytes) return THRUM_WS_BAD;
    parser->left = byte;
    parser->state = 2;
    return byte == 0 ? thrum_ws_whole(parser) : THRUM_WS_MORE;
  }
  if (opcode < THRUM_WS_CLOSE) parser->message[parser->message_bytes++] = byte;
  else parser->control[parser->control_bytes++] = byte;
  return --parser->left == 0 ? thrum_ws_whole(parser) : THRUM_WS_MORE;
}

THRUM_API uint32_t thrum_ws_header(uint8_t *out, uint8_t opcode, uint32_t length, const uint8_t mask[4]) {
  uint8_t *at = out;
  *at++ = (uint8_t)(0x80 | opcode);
  if (length < 126) *at++ = (uint8_t)(0x80 | length);
  else if (length < 65536) {
    *at++ = 0x80 | 126;
    *at++ = (uint8_t)(length >> 8);
    *at++ = (uint8_t)length;
  } else {
    uint32_t i;
    *at++ = 0x80 | 127;
    for (i = 0; i < 4; i++) *at++ = 0;
    for (i = 0; i < 4; i++) *at++ = (uint8_t)(length >> (24 - 8 * i));
  }
  memcpy(at, mask, 4);
  return (uint32_t)(at + 4 - out);
}

THRUM_API void thrum_ws_mask(uint8_t *bytes, uint32_t length, const uint8_t mask[4], uint32_t offset) {
  uint32_t i;
  for (i = 0; i < length; i++) bytes[i] = (uint8_t)(bytes[i] ^ mask[(offset + i) & 3]);
}

#ifdef __cplusplus
}
#endif
#endif /* THRUM_WEBSOCKET_IMPLEMENTATION */
