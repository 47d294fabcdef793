/*
 * The test's hands on thrum.h: reads one command a line, prints one answer a line. thrum.test.ts asks and compares.
 *
 *   block  TYPE CHANNELS COUNT TIMED PERIOD TIMES… VALUES…            hex of the block, read back by the decoder too
 *   samples INDEX T0|- and as block                                   hex of the frame
 *   hello KEY|- HEX|#NUMBER NEXT      end INDEX      time MICROS      hex of the frame
 *   period COUNT TIMES…                                               the usual period
 *   unpack CHANNELS HEX                                               count exponent period|- TIMES… VALUES…
 *   read   HEX                                                        kind and fields
 *   close  CODE END_SENT                                              what to do
 *   feed   HEX                                                        what a WebSocket's bytes are, one word each
 *   accept HEX HEX                                                    what an answer (2nd) to a nonce (1st) is
 *   model  SEED STEPS                                                 the ring against a list
 *   stream SEED FRAMES                                                the ring against a server with faults
 *
 * TYPE is i16, i32 or f32 (bit patterns). What is refused answers `error NUMBER`. A broken promise ends the program.
 * Every buffer is of exactly the size it may be used to, from the heap, so that the sanitizers see one byte too many.
 */
#define THRUM_IMPLEMENTATION
#define THRUM_DECODER
#include "../thrum.h"
#define THRUM_WEBSOCKET_IMPLEMENTATION
#include "../thrum_websocket.h"

#include <stdio.h>
#include <stdlib.h>

#include "ring_test.h"

static void *allocate(size_t size) {
  void *memory = malloc(size > 0 ? size : 1);
  if (memory == NULL) abort();
  return memory;
}

/* ---- Text ---- */

static char *line;
static size_t line_size;
static char *word_at;

static int read_line(void) {
  size_t length = 0;
  int c;
  while ((c = getchar()) != EOF && c != '\n') {
    if (length + 2 > line_size) {
      line_size = line_size * 2 + 256;
      line = (char *)realloc(line, line_size);
      if (line == NULL) abort();
    }
    line[length++] = (char)c;
  }
  if (c == EOF && length == 0) return 0;
  line[length] = 0;
  word_at = line;
  return 1;
}

static char *word(void) {
  char *from = word_at;
  if (from == NULL || *from == 0) {
    fprintf(stderr, "a word is missing in: %.200s\n", line);
    exit(2);
  }
  while (*word_at != 0 && *word_at != ' ') word_at++;
  if (*word_at != 0) *word_at++ = 0;
  return from;
}

static int64_t number(void) { return strtoll(word(), NULL, 10); }

static uint64_t whole(void) { return strtoull(word(), NULL, 10); }

static uint8_t *bytes_of(const char *hex, uint32_t *length) {
  uint8_t *bytes;
  uint32_t i;
  *length = (uint32_t)strlen(hex) / 2;
  bytes = (uint8_t *)allocate(*length);
  for (i = 0; i < *length; i++) {
    char pair[3];
    pair[0] = hex[2 * i];
    pair[1] = hex[2 * i + 1];
    pair[2] = 0;
    bytes[i] = (uint8_t)strtoul(pair, NULL, 16);
  }
  return bytes;
}

static void print_hex(const uint8_t *bytes, int32_t length) {
  static const char digits[] = "0123456789abcdef";
  int32_t i;
  if (length < 0) {
    printf("error %d\n", (int)length);
    return;
  }
  for (i = 0; i < length; i++) {
    putchar(digits[bytes[i] >> 4]);
    putchar(digits[bytes[i] & 15]);
  }
  putchar('\n');
}

#define MUST(condition)                                                             \
  do {                                                                              \
    if (!(condition)) {                                                             \
      fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition);       \
      exit(1);                                                                      \
    }                                                                               \
  } while (0)

/* ---- Blocks ---- */

typedef struct input {
  thrum_values values;
  void *data;
  int32_t *times;
  int32_t *scratch;
  uint32_t bits;
  int is_float;
} input;

static input read_input(void) {
  input in;
  const char *type = word();
  uint32_t channels = (uint32_t)number();
  uint32_t count = (uint32_t)number();
  int is_timed = (int)number();
  uint32_t period = (uint32_t)number();
  uint32_t size = count * channels;
  uint32_t i;
  in.is_float = strcmp(type, "f32") == 0;
  in.bits = strcmp(type, "i16") == 0 ? 16 : 32;
  in.times = NULL;
  in.scratch = (int32_t *)allocate(4 * (size_t)count);
  if (is_timed) {
    in.times = (int32_t *)allocate(4 * (size_t)count);
    for (i = 0; i < count; i++) in.times[i] = (int32_t)number();
  }
  if (in.bits == 16) {
    int16_t *data = (int16_t *)allocate(2 * (size_t)size);
    for (i = 0; i < size; i++) data[i] = (int16_t)number();
    in.data = data;
    in.values = thrum_int16(data, count, channels);
  } else {
    int32_t *data = (int32_t *)allocate(4 * (size_t)size);
    for (i = 0; i < size; i++) data[i] = (int32_t)number();
    in.data = data;
    in.values = in.is_float ? thrum_float32((const uint32_t *)in.data, count, channels) : thrum_int32(data, count, channels);
  }
  in.values.times = in.times;
  in.values.period = period;
  return in;
}

static void free_input(const input *in) {
  free(in->data);
  free(in->times);
  free(in->scratch);
}

/* The block gives back what went in, as far as that takes no floating point. */
static void check_block(const input *in, const uint8_t *bytes, int32_t length) {
  const thrum_values *values = &in->values;
  uint32_t size = values->count * values->channels;
  int32_t *got = (int32_t *)allocate(4 * (size_t)size);
  int32_t *times = (int32_t *)allocate(4 * (size_t)values->count);
  thrum_unpacked unpacked;
  uint32_t i;
  MUST(thrum_unpack(bytes, (uint32_t)length, values->channels, got, times, values->count, &unpacked) ==
       (int32_t)values->count);
  MUST(unpacked.has_times == (values->times != NULL));
  MUST((unpacked.exponent >= 0) == in->is_float);
  for (i = 0; i < size; i++) {
    if (in->bits == 16) MUST(got[i] == ((const int16_t *)in->data)[i]);
    else if (!in->is_float) MUST(got[i] == ((const int32_t *)in->data)[i]);
    else if (unpacked.exponent == 255) MUST((got[i] ^ ((got[i] >> 31) & 0x7fffffff)) == ((const int32_t *)in->data)[i]);
  }
  for (i = 0; i < values->count && values->times != NULL; i++) MUST(times[i] == values->times[i]);
  free(got);
  free(times);
}

static void command_block(void) {
  input in = read_input();
  uint32_t bound = THRUM_BLOCK_MAX(in.values.count, in.values.channels, in.bits) +
                   (in.times != NULL ? THRUM_TIMES_MAX(in.values.count) : 0);
  uint8_t *out = (uint8_t *)allocate(bound);
  int32_t length = thrum_block(out, bound, &in.values, in.scratch);
  MUST(length != THRUM_E_SPACE);
  if (length > 0) {
    uint8_t *exact = (uint8_t *)allocate((size_t)length);
    check_block(&in, out, length);
    MUST(thrum_block(exact, (uint32_t)length - 1, &in.values, in.scratch) == THRUM_E_SPACE);
    MUST(thrum_block(exact, (uint32_t)length, &in.values, in.scratch) == length);
    MUST(memcmp(exact, out, (size_t)length) == 0);
    free(exact);
  }
  print_hex(out, length);
  free(out);
  free_input(&in);
}

static void command_samples(void) {
  uint64_t index = whole();
  const char *clock = word();
  uint64_t t0 = clock[0] == '-' ? THRUM_NO_CLOCK : strtoull(clock, NULL, 10);
  input in = read_input();
  uint32_t bound = THRUM_FRAME_MAX(in.values.count, in.values.channels, in.bits) +
                   (in.times != NULL ? THRUM_TIMES_MAX(in.values.count) : 0);
  uint8_t *out = (uint8_t *)allocate(bound);
  int32_t length = thrum_samples(out, bound, index, t0, &in.values, in.scratch);
  MUST(length != THRUM_E_SPACE);
  if (length > 0) MUST(thrum_samples(out, (uint32_t)length - 1, index, t0, &in.values, in.scratch) == THRUM_E_SPACE);
  if (length > 0) MUST(thrum_samples(out, (uint32_t)length, index, t0, &in.values, in.scratch) == length);
  print_hex(out, length);
  free(out);
  free_input(&in);
}

static void command_unpack(void) {
  uint32_t channels = (uint32_t)number();
  uint32_t length, i;
  uint8_t *bytes = bytes_of(word(), &length);
  thrum_unpacked unpacked;
  int32_t none = 0;
  int32_t count = thrum_unpack(bytes, length, channels, &none, NULL, 0, &unpacked);
  if (count == THRUM_E_SPACE) {
    int32_t *values = (int32_t *)allocate(4 * (size_t)unpacked.count * channels);
    int32_t *times = unpacked.has_times ? (int32_t *)allocate(4 * (size_t)unpacked.count) : NULL;
    count = thrum_unpack(bytes, length, channels, values, times, unpacked.count, &unpacked);
    if (count > 0) {
      printf("%d %d ", (int)count, (int)unpacked.exponent);
      if (unpacked.has_times) printf("%lu", (unsigned long)unpacked.period);
      else printf("-");
      for (i = 0; times != NULL && i < unpacked.count; i++) printf(" %ld", (long)times[i]);
      for (i = 0; i < unpacked.count * channels; i++) printf(" %ld", (long)values[i]);
      printf("\n");
    }
    free(values);
    free(times);
  }
  if (count <= 0) printf("error %d\n", (int)count);
  free(bytes);
}

/* ---- Frames ---- */

static void command_hello(void) {
  uint8_t out[THRUM_HELLO_MAX + THRUM_KEY_MAX];
  const char *key = word();
  const char *boot = word();
  uint64_t next = whole();
  int32_t length;
  if (key[0] == '-') key = NULL;
  if (boot[0] == '#') {
    uint64_t boot_number = strtoull(boot + 1, NULL, 10);
    length = thrum_hello_number(out, sizeof out, key, boot_number, next);
    if (length > 0) MUST(thrum_hello_number(out, (uint32_t)length - 1, key, boot_number, next) == THRUM_E_SPACE);
  } else {
    uint32_t boot_bytes;
    uint8_t *boot_id = bytes_of(boot, &boot_bytes);
    length = thrum_hello(out, sizeof out, key, boot_id, boot_bytes, next);
    if (length > 0) MUST(thrum_hello(out, (uint32_t)length - 1, key, boot_id, boot_bytes, next) == THRUM_E_SPACE);
    if (key == NULL || strlen(key) <= 43) MUST(length <= (int32_t)THRUM_HELLO_MAX);
    free(boot_id);
  }
  print_hex(out, length);
}

static void command_pair(int is_end) {
  uint8_t out[THRUM_END_MAX];
  uint64_t n = whole();
  int32_t length = is_end ? thrum_end(out, sizeof out, n) : thrum_time(out, sizeof out, n);
  if (length > 0) {
    MUST((is_end ? thrum_end(out, (uint32_t)length - 1, n) : thrum_time(out, (uint32_t)length - 1, n)) == THRUM_E_SPACE);
  }
  print_hex(out, length);
}

static void command_period(void) {
  uint32_t count = (uint32_t)number();
  int32_t *times = (int32_t *)allocate(4 * (size_t)count);
  uint32_t i;
  for (i = 0; i < count; i++) times[i] = (int32_t)number();
  printf("%lu\n", (unsigned long)thrum_usual_period(times, count));
  free(times);
}

static void print_unless(uint64_t value, uint64_t none) {
  if (value == none) printf(" -");
  else printf(" %llu", (unsigned long long)value);
}

static void command_read(void) {
  uint32_t length;
  uint8_t *bytes = bytes_of(word(), &length);
  thrum_message m;
  int32_t kind = thrum_read(bytes, length, &m);
  if (kind < 0) printf("error %d", (int)kind);
  else printf("%d", (int)kind);
  MUST(kind == THRUM_E_FRAME || kind == m.kind);
  switch (kind) {
    case THRUM_WELCOME:
      printf(" %lu %lu %llu %lu %llu %s", (unsigned long)m.version, (unsigned long)m.epoch, (unsigned long long)m.next,
             (unsigned long)m.window, (unsigned long long)m.server, m.sure ? "true" : "false");
      break;
    case THRUM_ACK:
      printf(" %llu %llu %lu", (unsigned long long)m.received, (unsigned long long)m.durable, (unsigned long)m.window);
      break;
    case THRUM_REWIND:
      printf(" %llu", (unsigned long long)m.next);
      break;
    case THRUM_TIME:
      printf(" %llu", (unsigned long long)m.device);
      print_unless(m.server, THRUM_UNKNOWN);
      break;
    case THRUM_ERROR: {
      uint32_t i;
      printf(" %lu", (unsigned long)m.code);
      print_unless(m.retry_after, THRUM_NEVER);
      printf(" ");
      for (i = 0; i < m.text_bytes; i++) printf("%02x", (unsigned)(uint8_t)m.text[i]);
      break;
    }
    default:
      break;
  }
  printf("\n");
  free(bytes);
}

static void print_bytes(const char *what, const uint8_t *bytes, uint32_t length) {
  uint32_t i;
  printf(" %s:", what);
  for (i = 0; i < length; i++) printf("%02x", (unsigned)bytes[i]);
}

static void command_feed(void) {
  uint32_t length, i;
  uint8_t *bytes = bytes_of(word(), &length);
  thrum_ws_parser *parser = (thrum_ws_parser *)allocate(sizeof *parser);
  int what = THRUM_WS_MORE;
  memset(parser, 0, sizeof *parser);
  printf("fed");
  for (i = 0; i < length && what != THRUM_WS_CLOSED && what != THRUM_WS_BAD; i++) {
    what = thrum_ws_feed(parser, bytes[i]);
    if (what == THRUM_WS_MESSAGE) print_bytes("message", parser->message, parser->message_bytes);
    if (what == THRUM_WS_PINGED) print_bytes("ping", parser->control, parser->control_bytes);
    if (what == THRUM_WS_PONGED) print_bytes("pong", parser->control, parser->control_bytes);
    if (what == THRUM_WS_CLOSED) printf(" close:%lu", (unsigned long)parser->close_code);
    if (what == THRUM_WS_BAD) printf(" bad");
  }
  printf("\n");
  free(parser);
  free(bytes);
}

static void command_accept(void) {
  uint32_t length, i;
  uint8_t *nonce = bytes_of(word(), &length);
  uint8_t *bytes = bytes_of(word(), &i);
  thrum_ws_reply *reply = (thrum_ws_reply *)allocate(sizeof *reply);
  int32_t answer = 0;
  uint32_t size = i;
  thrum_ws_expect(reply, nonce);
  for (i = 0; i < size && answer == 0; i++) answer = thrum_ws_answer(reply, bytes[i]);
  printf("%ld after %lu\n", (long)answer, (unsigned long)i);
  free(reply);
  free(bytes);
  free(nonce);
}

int main(void) {
  while (read_line()) {
    const char *command = word();
    if (strcmp(command, "block") == 0) command_block();
    else if (strcmp(command, "samples") == 0) command_samples();
    else if (strcmp(command, "hello") == 0) command_hello();
    else if (strcmp(command, "end") == 0) command_pair(1);
    else if (strcmp(command, "time") == 0) command_pair(0);
    else if (strcmp(command, "period") == 0) command_period();
    else if (strcmp(command, "unpack") == 0) command_unpack();
    else if (strcmp(command, "read") == 0) command_read();
    else if (strcmp(command, "feed") == 0) command_feed();
    else if (strcmp(command, "accept") == 0) command_accept();
    else if (strcmp(command, "close") == 0) {
      uint32_t code = (uint32_t)number();
      printf("%d\n", thrum_come_back(code, (int)number()));
    } else if (strcmp(command, "model") == 0) {
      uint32_t seed = (uint32_t)number();
      ring_model(seed, (uint32_t)number());
    } else if (strcmp(command, "stream") == 0) {
      uint32_t seed = (uint32_t)number();
      ring_stream(seed, (uint32_t)number());
    } else {
      fprintf(stderr, "no such command: %s\n", command);
      return 2;
    }
  }
  free(line);
  return 0;
}
