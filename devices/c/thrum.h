/*
 * thrum.h: what a small board needs to speak `thrum.v1` (docs/PROTOCOL.md). One header, C99 (and C++11).
 *
 * No heap, no I/O, no floating point, no static data but constants; all memory is the caller's. Of libc only memcpy and
 * memset. It holds: an encoder of blocks and frames, a reader of what the server sends, and a ring that keeps frames
 * until they are durable and resends them. It knows no sockets: bytes go in, bytes come out.
 *
 * One C file says `#define THRUM_IMPLEMENTATION` before it includes this; all others just include it. (Not `static
 * inline` in each: the code is some KiB, and would be there once for every file that uses it.) Compile with
 * -ffunction-sections and link with --gc-sections: what is not called takes no room.
 *
 *     #define THRUM_IMPLEMENTATION
 *     #include "thrum.h"
 *
 *     enum { COUNT = 50, CHANNELS = 3 };
 *     static int16_t  samples[COUNT * CHANNELS];                  // sample after sample: x y z x y z …
 *     static int32_t  scratch[COUNT];
 *     static uint8_t  frame[THRUM_FRAME_MAX(COUNT, CHANNELS, 16)], memory[16384];
 *     static thrum_ring ring;
 *     static uint8_t  boot_id[8];
 *
 *     at power-up:    fill_random(boot_id, 8); thrum_ring_init(&ring, memory, sizeof memory);
 *     COUNT samples:  thrum_values values = thrum_int16(samples, COUNT, CHANNELS);
 *                     int32_t n = thrum_samples(frame, sizeof frame, ring.next, micros, &values, scratch);
 *                     if (n > 0) thrum_ring_add(&ring, frame, (uint32_t)n);       // > 0: that many frames were dropped
 *     connected:      n = thrum_hello(buffer, sizeof buffer, KEY, boot_id, 8, thrum_ring_oldest(&ring)); send it
 *     a message came: thrum_message message;
 *                     if (thrum_read(bytes, length, &message) > 0) error = thrum_ring_take(&ring, &message);
 *     always:         thrum_frame next;
 *                     while (thrum_ring_peek(&ring, &next) && send(next.bytes, next.length)) thrum_ring_sent(&ring, &next);
 *     disconnected:   thrum_ring_disconnect(&ring); wait as thrum_come_back(code, …) says; connect again, same boot_id
 *
 * To seal the session: when thrum_ring_unsent is 0, send thrum_end(…, ring.next) and wait for close 1000.
 *
 * Memory. Encoding n samples of C channels: the input (2nC or 4nC bytes), scratch 4n, the output (THRUM_FRAME_MAX), a
 * stack of about 0.65 KiB. The ring: the caller's memory and sizeof(thrum_ring), 120 bytes; each frame in it takes its
 * length and 2 bytes. How much memory? Bytes a second times the seconds a network may be away; three axes of a worn wrist
 * sensor at 100 Hz are about 300 bytes a second. Code: 7 KiB for all of it on a Cortex-M0, see size.sh.
 *
 * Units. Indexes count sampling instants since power-up, 0 … 2^53-1. Clocks (t0, time frames) are µs. Lengths are bytes.
 *
 * Errors. Functions that make or read bytes return their number or kind (> 0), or one of the negative THRUM_E codes;
 * after an error nothing was changed but, for the makers, the output's bytes.
 *
 * Switches, to be defined where THRUM_IMPLEMENTATION is:
 *   THRUM_PREDICTORS_CHEAP  try 3 predictors and not 15: a third of the time, 1 to 4 % more bytes (vibration: to 12 %)
 *   THRUM_DECODER           also thrum_unpack, which reads blocks (declared wherever it is defined)
 *   THRUM_API               what stands before each function; `static` for a program of one file
 *
 * Concurrency: none inside. When one task adds frames and another sends them, lock around each call; and copy a peeked
 * frame before the lock is let go, because thrum_ring_add may overwrite it.
 *
 * Two encoders that make the same choices make the same bytes. These are the choices of this one, and those of the
 * TypeScript encoder of the project, with whose bytes it is compared in tests:
 *   - Shift: the number of low bits in which no channel differs from its first sample; if nothing varies at all, the
 *     zeros in which all values end (none when all are 0). low: those bits of each channel's first sample.
 *   - Predictor: of each channel in order, the one with the fewest bits (base in its own width + residuals + Rice
 *     parameters, with the parameter of the channel before as the reference); the first in order among equals. With
 *     the switch above {0, 4, 13}, in this order. Kind M's base is the mean to the nearest, halves away from 0.
 *   - Rice parameter of each segment in order: m = floor(log2(floor(sum of codes / number of codes))), 0 if that is 0;
 *     of m-1, m, m+1 as far as they are in 0 … 30 the one with the fewest bits, its own change included, the smallest
 *     among equals; then the segment's reference, if it is not negative and takes fewer bits. All codes 0: -1, or the
 *     reference, if that takes fewer bits.
 *   - Base width: the largest that a channel's base needs, at least 1; times have their own.
 *   - Plain fields (PACK, base = smallest value) for all channels when the bit string then has fewer whole bytes.
 *   - Float32: k * 2^-E with the smallest E, then k / 10^d with the smallest d, then bit patterns; the form with the
 *     fewest bytes, the first among equals. k * 2^-E and k / 10^d hold no -0, NaN or infinity, and |k| < 2^31. A
 *     decimal's k is that of the value's own fewest places (k = v * 10^p to the nearest, halves to even, and its
 *     float32 is v again), then times 10^(d-p); d is the most that any value needs, at least 1.
 *   - Frames: integers in their shortest unsigned form; above 2^32-1 samples frames use uint 64 (cf), others int 64 (d3).
 */
#ifndef THRUM_H
#define THRUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef THRUM_API
#define THRUM_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Limits and errors ------------------------------------------------------------------------------------------ */

#define THRUM_VERSION 1
#define THRUM_SUBPROTOCOL "thrum.v1"
/* Of one frame. */
#define THRUM_COUNT_MAX 4096u
#define THRUM_CHANNELS_MAX 16u
#define THRUM_MESSAGE_MAX 65536u
/* The longest frame the server sends to a device, and so the largest receive buffer for messages. */
#define THRUM_CONTROL_MAX 125u
#define THRUM_KEY_MAX 128u
#define THRUM_BOOT_ID_MAX 16u
#define THRUM_INDEX_MAX UINT64_C(9007199254740991)

/*
 * Upper bounds in bytes, for arrays: `count` samples of `channels` values of `bits` bits (16 or 32; float32 are 32).
 * The values as plain bits and, for 3 channels, 14 (16 bits) or 20 bytes (32 bits); 23 more around them in a frame.
 * THRUM_TIMES_MAX comes on top when the samples have times.
 */
#define THRUM_BLOCK_MAX(count, channels, bits) \
  (4u + (17u + (uint32_t)(channels) * (7u + (bits) + (uint32_t)(count) * (bits))) / 8u)
#define THRUM_TIMES_MAX(count) (11u + 4u * (uint32_t)(count))
#define THRUM_FRAME_MAX(count, channels, bits) (23u + THRUM_BLOCK_MAX(count, channels, bits))
/* Of a hello with a key of 43 characters (all that Thrum makes) and a boot id of at most 16 bytes; other keys: +1 each. */
#define THRUM_HELLO_MAX 75u
#define THRUM_END_MAX 11u
#define THRUM_TIME_MAX 11u

enum {
  THRUM_OK = 0,
  /* The output is too small: nothing that is useful is in it. */
  THRUM_E_SPACE = -1,
  /* The caller gave what no frame can say: no samples or too many, no channels or too many, an index above 2^53-1 … */
  THRUM_E_INPUT = -2,
  /* The bytes are no frame: of the server (thrum_read), of samples (thrum_ring_add). */
  THRUM_E_FRAME = -3,
  /* The bytes are no block (thrum_unpack). */
  THRUM_E_BLOCK = -4,
  /* The frame begins before the samples that were added last end: an index never goes back. */
  THRUM_E_ORDER = -5,
  /* The frame does not fit the ring even when it is empty, or would be longer than a message may be. */
  THRUM_E_LARGE = -6,
  /*
   * The server names an index that is none of this ring's frames' (after its newest, or within one). In a welcome it
   * means that the boot id was used before, by another power-up: take a new one and say hello again. Else it is the
   * server's fault: connect again.
   */
  THRUM_E_RESUME = -7,
  /* The welcome speaks another version. */
  THRUM_E_VERSION = -8,
  /* An ack or a rewind came before the welcome. The server's fault. */
  THRUM_E_EARLY = -9
};

/* ---- Samples and blocks ----------------------------------------------------------------------------------------- */

/*
 * The samples of one frame: made by thrum_int16, thrum_int32 or thrum_float32; nothing is copied. `times` and `period`
 * may be set afterwards: `times` are `count` ticks since t0, one a sample, and `period` the nominal ticks between two
 * (any is right, the usual one packs best: thrum_usual_period). Leave them out when samples come at a steady rate.
 */
typedef struct thrum_values {
  const void *data;
  const int32_t *times;
  uint32_t period;
  uint32_t count;
  uint32_t channels;
  /* The rest is the encoder's own. */
  int32_t (*at)(const struct thrum_values *values, uint32_t i);
  int (*form)(struct thrum_values *values, int n);
  uint8_t exponent;
} thrum_values;

/*
 * `data` holds `count` (1 … 4096) samples of `channels` (1 … 16) values, sample after sample: channel c of sample i is at
 * i * channels + c. Float32 are given as their bit patterns; any are held exactly, NaN and its payload too. Floats cost
 * code (1 KiB more) and up to three times the time: send what the converter gave, and let the session's scale say what
 * it means.
 */
THRUM_API thrum_values thrum_int16(const int16_t *data, uint32_t count, uint32_t channels);
THRUM_API thrum_values thrum_int32(const int32_t *data, uint32_t count, uint32_t channels);
THRUM_API thrum_values thrum_float32(const uint32_t *data, uint32_t count, uint32_t channels);

/* The most frequent difference of neighbours, the first of those; 0 for one time. Takes up to count^2 / 2 steps. */
THRUM_API uint32_t thrum_usual_period(const int32_t *times, uint32_t count);

/*
 * Packs samples into a block (the `bin` of a samples frame), losslessly.
 * `scratch`: `count` integers; its content does not matter, before or after.
 * Returns the block's bytes, at most THRUM_BLOCK_MAX (+ THRUM_TIMES_MAX); THRUM_E_SPACE, THRUM_E_INPUT.
 */
THRUM_API int32_t thrum_block(uint8_t *out, uint32_t size, const thrum_values *values, int32_t *scratch);

/* ---- Frames to the server --------------------------------------------------------------------------------------- */

/* In the place of t0: the device has no clock. */
#define THRUM_NO_CLOCK UINT64_MAX

/*
 * A samples frame. `index`: of the first sample, thrum_ring's `next` or, when instants were lost (a FIFO ran over), that
 * much more. `t0`: µs since boot at the first sample, or THRUM_NO_CLOCK.
 * Returns bytes; THRUM_E_SPACE, THRUM_E_INPUT, THRUM_E_LARGE (above 65,536 bytes: take fewer samples).
 */
THRUM_API int32_t thrum_samples(uint8_t *out, uint32_t size, uint64_t index, uint64_t t0, const thrum_values *values,
                                int32_t *scratch);

/*
 * The hello: the first frame on each connection. `key`: the ingest key, ASCII, at most 128 characters, or NULL when it
 * went as `Authorization: Bearer`. `boot_id`: 1 to 16 bytes, new at every power-up and the same until the next: else
 * samples are lost. `next`: thrum_ring_oldest. Returns bytes; THRUM_E_SPACE, THRUM_E_INPUT.
 */
THRUM_API int32_t thrum_hello(uint8_t *out, uint32_t size, const char *key, const uint8_t *boot_id,
                              uint32_t boot_id_bytes, uint64_t next);
/* The same with a number up to 2^53-1 for a boot id: a counter of power-ups in flash. */
THRUM_API int32_t thrum_hello_number(uint8_t *out, uint32_t size, const char *key, uint64_t boot_id, uint64_t next);
/* The end: seal the session at `index`, after everything before it is durable. Returns bytes; THRUM_E_SPACE, _INPUT. */
THRUM_API int32_t thrum_end(uint8_t *out, uint32_t size, uint64_t index);
/* Asks for the server's clock; `device`: own clock, µs, comes back in the answer. Returns bytes; THRUM_E_SPACE, _INPUT. */
THRUM_API int32_t thrum_time(uint8_t *out, uint32_t size, uint64_t device);

/* ---- Frames of the server --------------------------------------------------------------------------------------- */

enum { THRUM_TIME = 4, THRUM_WELCOME = 16, THRUM_ACK = 17, THRUM_REWIND = 18, THRUM_ERROR = 19 };

/* In the place of `retry_after`: it is no use to come back. In the place of `server`: it was not said. */
#define THRUM_NEVER UINT32_MAX
#define THRUM_UNKNOWN UINT64_MAX

/* One frame of the server; the kind says which fields count, the others are 0. */
typedef struct thrum_message {
  int32_t kind;
  /* welcome; `sure`: what is durable survives a crash of the server's database */
  uint32_t version;
  uint32_t epoch;
  int sure;
  /* welcome, ack: bytes of samples frames that may be on their way */
  uint32_t window;
  /* welcome, rewind: the index to send from */
  uint64_t next;
  /* ack: everything before it arrived; everything before it is stored for certain */
  uint64_t received;
  uint64_t durable;
  /* time: what was asked, µs of the device */
  uint64_t device;
  /* welcome, time: µs since 1970 */
  uint64_t server;
  /* error: the close code that follows; ms to wait, 0 for now, or THRUM_NEVER; UTF-8 inside the given bytes, no 0 behind */
  uint32_t code;
  uint32_t retry_after;
  const char *text;
  uint32_t text_bytes;
} thrum_message;

/*
 * Reads one message of the server, exactly as bounded as docs/PROTOCOL.md §4 says: any form of a whole number, unknown
 * elements at the end ignored; never reads past `length`. Returns the kind (> 0), or THRUM_E_FRAME.
 */
THRUM_API int32_t thrum_read(const uint8_t *bytes, uint32_t length, thrum_message *message);

enum { THRUM_DONE, THRUM_COME_NOW, THRUM_COME_LATER, THRUM_COME_NEVER };

/*
 * What to do after a close with `code` (0 or 1006 when there was none). `end_sent`: an end frame was sent, on this
 * connection or an earlier one. THRUM_COME_NOW: after up to 200 ms at random, the first time; then like LATER: the error
 * frame's retry_after at least, growing, partly random. THRUM_COME_NEVER: not without a change (another key, session,
 * boot id); the code says which.
 */
THRUM_API int thrum_come_back(uint32_t code, int end_sent);
/*
 * ms to wait before the next try, after THRUM_COME_NOW or _LATER. `tries`: since the server last took something, 0 for
 * the first. `retry_after`: of the error frame, 0 without one; at most 5 minutes of it count. `random`: any 32 bits.
 * Doubles from 125 … 250 ms to 5 … 10 s.
 */
THRUM_API uint32_t thrum_wait_ms(int come, uint32_t tries, uint32_t retry_after, uint32_t random);

/* ---- The ring --------------------------------------------------------------------------------------------------- */

/*
 * Samples frames that are not durable yet, in order, and which of them to send next. At its bound the oldest go, are
 * counted in `dropped_…`, and the server hears of it by the next frame's higher index: a gap, if it did not have them.
 * Fields are for reading; only the functions below change them.
 */
typedef struct thrum_ring {
  uint8_t *memory;
  uint32_t size;
  /* Where the oldest frame begins, where the next one goes, the next to send, the first not under `received`. */
  uint32_t head;
  uint32_t tail;
  uint32_t cursor;
  uint32_t flight;
  /* Frames: kept; kept and not sent (since the last welcome or rewind); kept, sent and not under `received`. */
  uint32_t kept;
  uint32_t unsent;
  uint32_t flying;
  /* Bytes of the `flying` frames, and of those on their way that were dropped, up to index `gone_next`. */
  uint32_t flying_bytes;
  uint32_t gone_bytes;
  uint64_t gone_next;
  uint32_t window;
  uint32_t epoch;
  int is_welcome;
  /* Index after the newest sample added: the index of the next sample. */
  uint64_t next;
  /* Index after the last frame sent: where the server will be. */
  uint64_t sent;
  /* What the server said. */
  uint64_t received;
  uint64_t durable;
  /* Since thrum_ring_init: not durable when they had to go. */
  uint32_t dropped_frames;
  uint64_t dropped_samples;
} thrum_ring;

/* A frame to send. `gap`: instants before it that the server has not got and will not get, 0 mostly. */
typedef struct thrum_frame {
  const uint8_t *bytes;
  uint32_t length;
  uint64_t index;
  uint64_t next;
  uint64_t gap;
} thrum_frame;

/* An empty ring at index 0: a power-up. It wants a new boot id. `memory` belongs to the ring from here on. */
THRUM_API void thrum_ring_init(thrum_ring *ring, uint8_t *memory, uint32_t size);
/*
 * Keeps a copy of a samples frame, of whatever encoder. Returns how many frames were dropped to make room, 0 mostly;
 * THRUM_E_FRAME, THRUM_E_ORDER, THRUM_E_LARGE (over 65,535 bytes, or over `size` - 2), and then nothing was dropped.
 */
THRUM_API int32_t thrum_ring_add(thrum_ring *ring, const uint8_t *bytes, uint32_t length);
/* Whether a frame of `length` bytes can be added without a drop, for a source that can wait: 1 or 0. */
THRUM_API int thrum_ring_has_room(const thrum_ring *ring, uint32_t length);
/*
 * The next frame to send, if there is one: 1, else 0: there is none, the window is full, or no welcome came yet. The
 * bytes are the ring's: they stay until the next thrum_ring_add or thrum_ring_take.
 */
THRUM_API int thrum_ring_peek(const thrum_ring *ring, thrum_frame *frame);
/* The peeked frame was sent, all of it. Right even if it was dropped meanwhile. */
THRUM_API void thrum_ring_sent(thrum_ring *ring, const thrum_frame *frame);
/*
 * Acts on a welcome (goes on at `next`), an ack (frees what is durable, opens the window) or a rewind (goes back);
 * others are left to the caller. Returns THRUM_OK; THRUM_E_RESUME, THRUM_E_VERSION, THRUM_E_EARLY.
 */
THRUM_API int32_t thrum_ring_take(thrum_ring *ring, const thrum_message *message);
/* The connection is gone: nothing is to be sent until the next welcome. */
THRUM_API void thrum_ring_disconnect(thrum_ring *ring);
/* The index of the oldest frame it keeps, or `next` when it keeps none: for the hello. */
THRUM_API uint64_t thrum_ring_oldest(const thrum_ring *ring);
/* Frames not sent on this connection yet. 0: an end frame may go. */
THRUM_API uint32_t thrum_ring_unsent(const thrum_ring *ring);

#ifdef THRUM_DECODER
/* ---- The decoder ------------------------------------------------------------------------------------------------ */

typedef struct thrum_unpacked {
  /* Samples, 1 … 4096. */
  uint32_t count;
  /* The E of a float block, or -1: what the integers stand for, docs/PROTOCOL.md §9.6. */
  int32_t exponent;
  /* Whether the block has times, and the nominal ticks between two samples. */
  int has_times;
  uint32_t period;
} thrum_unpacked;

/*
 * Reads a block of `channels` channels. `values` has room for `count_max` samples, `times` for as many
 * ticks; it may be NULL for blocks that have none. Whatever the bytes are, it reads and writes only what it was given. Returns the number of samples;
 * THRUM_E_BLOCK, THRUM_E_SPACE (more than `count_max` samples), THRUM_E_LARGE (more than 4096), THRUM_E_INPUT
 * (no such number of channels, no room for times).
 */
THRUM_API int32_t thrum_unpack(const uint8_t *bytes, uint32_t length, uint32_t channels, int32_t *values, int32_t *times,
                               uint32_t count_max, thrum_unpacked *unpacked);
#endif

#ifdef __cplusplus
}
#endif
#endif /* THRUM_H */

/* ================================================================================================================= */

#if defined(THRUM_IMPLEMENTATION) && !defined(THRUM_IMPLEMENTED)
#define THRUM_IMPLEMENTED

#ifdef __cplusplus
extern "C" {
#endif

/* C99 leaves these two to the compiler; every one there is does it so, and one that does not shall say so here. */
typedef char thrum_right_shifts_are_arithmetic[(-3 >> 1) == -2 ? 1 : -1];
typedef char thrum_conversion_wraps[(int32_t)UINT32_C(0xfffffffe) == -2 ? 1 : -1];

enum {
  THRUM_SHIFT = 8,
  THRUM_TIMED = 4,
  THRUM_FLOAT = 2,
  THRUM_PACK = 1,
  THRUM_SEGMENT = 20,
  THRUM_ESCAPE = 24,
  THRUM_RICE_MAX = 30,
  /* No Rice parameter came yet. */
  THRUM_NONE = -2
};

/* In 1/64; the first four are kind M. */
static const int8_t thrum_a[15] = {0, 16, 8, 32, 0, 8, 48, 120, -32, 32, 32, 64, -16, 64, 127};
static const int8_t thrum_b[15] = {0, 0, -8, -16, 0, 8, 0, -56, -24, -32, 24, -32, -16, 0, -64};

#ifdef THRUM_PREDICTORS_CHEAP
static const uint8_t thrum_predictors[] = {0, 4, 13};
#else
static const uint8_t thrum_predictors[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
#endif

/* Bits of an unsigned value. */
static uint32_t thrum_width(uint32_t u) {
  uint32_t width = 0;
  if (u >> 16) width += 16, u >>= 16;
  if (u >> 8) width += 8, u >>= 8;
  if (u >> 4) width += 4, u >>= 4;
  if (u >> 2) width += 2, u >>= 2;
  return width + (u >> 1 ? 2 : u);
}

static uint32_t thrum_zigzag(int32_t v) { return ((uint32_t)v << 1) ^ (uint32_t)(v >> 31); }

static int32_t thrum_minus(int32_t a, int32_t b) { return (int32_t)((uint32_t)a - (uint32_t)b); }

/* What a predictor expects after z1 and, before it, z2. */
static int32_t thrum_expected(uint32_t predictor, int32_t z1, int32_t z2) {
  uint32_t a = (uint32_t)(int32_t)thrum_a[predictor];
  uint32_t b = (uint32_t)(int32_t)thrum_b[predictor];
  return (int32_t)(a * (uint32_t)z1 + b * (uint32_t)z2 + 32u) >> 6;
}

/* ---- Values ---- */

static int32_t thrum_at_int16(const thrum_values *values, uint32_t i) { return ((const int16_t *)values->data)[i]; }

static int32_t thrum_at_int32(const thrum_values *values, uint32_t i) { return ((const int32_t *)values->data)[i]; }

static uint32_t thrum_pattern(const thrum_values *values, uint32_t i) { return ((const uint32_t *)values->data)[i]; }

/* Bit patterns in an order that is that of the floats. */
static int32_t thrum_at_pattern(const thrum_values *values, uint32_t i) {
  int32_t bits = (int32_t)thrum_pattern(values, i);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

/* A finite float is mantissa * 2^(power - 150). */
static uint32_t thrum_mantissa(uint32_t bits) { return (bits & 0x7fffffu) | (bits & 0x7f800000u ? 0x800000u : 0u); }

static int32_t thrum_power(uint32_t bits) {
  int32_t field = (int32_t)((bits >> 23) & 0xffu);
  return field == 0 ? 1 : field;
}

static int thrum_is_plain(uint32_t bits) { return (bits & 0x7f800000u) != 0x7f800000u && bits != 0x80000000u; }

static int32_t thrum_signed(uint32_t bits, uint32_t k) { return bits >> 31 ? -(int32_t)k : (int32_t)k; }

static int32_t thrum_at_binary(const thrum_values *values, uint32_t i) {
  uint32_t bits = thrum_pattern(values, i);
  uint32_t mantissa = thrum_mantissa(bits);
  int32_t shift = thrum_power(bits) - 150 + values->exponent;
  /* 0 has no bits that say how far it may be shifted. */
  if (mantissa == 0) return 0;
  return thrum_signed(bits, shift >= 0 ? mantissa << shift : mantissa >> -shift);
}

/* Whether all values are k * 2^-E with |k| < 2^31; the smallest E. */
static int thrum_find_binary(thrum_values *values) {
  uint32_t size = values->count * values->channels;
  uint32_t largest = 0;
  int32_t exponent = 0;
  uint32_t i;
  for (i = 0; i < size; i++) {
    uint32_t bits = thrum_pattern(values, i);
    uint32_t mantissa = thrum_mantissa(bits);
    int32_t needs;
    if (!thrum_is_plain(bits)) return 0;
    if (mantissa == 0) continue;
    needs = 151 - thrum_power(bits) - (int32_t)thrum_width(mantissa & (0u - mantissa));
    if (needs > exponent) exponent = needs;
    if ((bits & 0x7fffffffu) > largest) largest = bits & 0x7fffffffu;
  }
  if (largest != 0 && (int32_t)thrum_width(thrum_mantissa(largest)) + thrum_power(largest) - 150 + exponent > 31) return 0;
  values->exponent = (uint8_t)exponent;
  values->at = thrum_at_binary;
  return 1;
}

static const uint32_t thrum_ten[10] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000};

/* |v| * 10^places to the nearest, halves to even. -1: it is 2^31 or more. *is_exact: k / 10^places is v as float32. */
static int64_t thrum_decimal(uint32_t bits, uint32_t places, int *is_exact) {
  uint32_t mantissa = thrum_mantissa(bits);
  uint32_t ten = thrum_ten[places];
  /* Below 2^54: 24 bits times 30. */
  uint64_t product = (uint64_t)mantissa * ten;
  int32_t power = thrum_power(bits) - 150;
  uint32_t shift;
  uint64_t k, rest, unit;
  if (power >= 0) {
    *is_exact = 1;
    if (power > 31 || product >> (31 - power)) return -1;
    return (int64_t)(product << power);
  }
  shift = (uint32_t)-power;
  if (shift > 55) {
    *is_exact = mantissa == 0;
    return 0;
  }
  if (shift < 24 && product >> (31 + shift)) return -1;
  unit = (uint64_t)1 << shift;
  k = product >> shift;
  rest = product & (unit - 1);
  if (rest > unit / 2 || (rest == unit / 2 && (k & 1))) {
    k++;
    rest = unit - rest;
  }
  /* Half a unit of v's last bit is 10^places / 2 here. The float before a power of two is nearer, but no decimal of so
     few places lies between. */
  *is_exact = 2 * rest < ten || (2 * rest == ten && (mantissa & 1) == 0);
  return (int64_t)k;
}

static int thrum_is_decimal(uint32_t bits, uint32_t places) {
  int is_exact;
  return thrum_decimal(bits, places, &is_exact) >= 0 && is_exact;
}

/* Fewest places with which a float is a decimal, 0 if there are none. What needs few does with more: begin anywhere. */
static uint32_t thrum_places(uint32_t bits, uint32_t near) {
  int is_exact;
  uint32_t places = near;
  if (!thrum_is_plain(bits) || thrum_decimal(bits, 1, &is_exact) < 0) return 0;
  while (thrum_decimal(bits, places, &is_exact) < 0) places--;
  if (is_exact) {
    while (places > 1 && thrum_is_decimal(bits, places - 1)) places--;
    return places;
  }
  for (places++; places <= 9 && thrum_decimal(bits, places, &is_exact) >= 0; places++) {
    if (is_exact) return places;
  }
  return 0;
}

/* |k| of a float as a decimal of `most` places; 2^31 or more when it has none. */
static uint64_t thrum_grown(uint32_t bits, uint32_t most) {
  int is_exact;
  uint32_t places = thrum_places(bits, most);
  return (uint64_t)thrum_decimal(bits, places, &is_exact) * thrum_ten[most - places];
}

static int32_t thrum_at_decimal(const thrum_values *values, uint32_t i) {
  uint32_t bits = thrum_pattern(values, i);
  return thrum_signed(bits, (uint32_t)thrum_grown(bits, values->exponent - 192u));
}

/* Whether all values are k / 10^d with |k| < 2^31; the smallest d. */
static int thrum_find_decimal(thrum_values *values) {
  uint32_t size = values->count * values->channels;
  uint32_t places = 1;
  uint32_t most = 1;
  uint32_t i;
  for (i = 0; i < size; i++) {
    places = thrum_places(thrum_pattern(values, i), places);
    if (places == 0) return 0;
    if (places > most) most = places;
  }
  for (i = 0; i < size; i++) {
    if (thrum_grown(thrum_pattern(values, i), most) >> 31) return 0;
  }
  values->exponent = (uint8_t)(192 + most);
  values->at = thrum_at_decimal;
  return 1;
}

/* Makes the values those of the n-th form, 0 … 2; 0 when they have none such. */
static int thrum_form_float32(thrum_values *values, int n) {
  if (n == 0) return thrum_find_binary(values);
  if (n == 1) return thrum_find_decimal(values);
  values->exponent = 255;
  values->at = thrum_at_pattern;
  return 1;
}

static thrum_values thrum_values_of(const void *data, uint32_t count, uint32_t channels) {
  thrum_values values;
  memset(&values, 0, sizeof values);
  values.data = data;
  values.count = count;
  values.channels = channels;
  return values;
}

THRUM_API thrum_values thrum_int16(const int16_t *data, uint32_t count, uint32_t channels) {
  thrum_values values = thrum_values_of(data, count, channels);
  values.at = thrum_at_int16;
  return values;
}

THRUM_API thrum_values thrum_int32(const int32_t *data, uint32_t count, uint32_t channels) {
  thrum_values values = thrum_values_of(data, count, channels);
  values.at = thrum_at_int32;
  return values;
}

THRUM_API thrum_values thrum_float32(const uint32_t *data, uint32_t count, uint32_t channels) {
  thrum_values values = thrum_values_of(data, count, channels);
  values.form = thrum_form_float32;
  return values;
}

THRUM_API uint32_t thrum_usual_period(const int32_t *times, uint32_t count) {
  uint32_t period = 0;
  uint32_t most = 0;
  uint32_t i, j;
  /* A difference that begins later than `most` before the end cannot occur more often. */
  for (i = 1; i < count && count - i > most; i++) {
    uint32_t difference = (uint32_t)times[i] - (uint32_t)times[i - 1];
    uint32_t seen = 1;
    for (j = i + 1; j < count; j++) seen += (uint32_t)times[j] - (uint32_t)times[j - 1] == difference;
    if (seen > most) {
      most = seen;
      period = difference;
    }
  }
  return period;
}

/* ---- Bits ---- */

typedef struct thrum_bits {
  uint8_t *at;
  uint32_t pending;
  uint32_t filled;
} thrum_bits;

/* `value` has no bits above `width`, 0 … 32. */
static void thrum_put(thrum_bits *bits, uint32_t value, uint32_t width) {
  if (width > 24) {
    thrum_put(bits, value >> 16, width - 16);
    value &= 0xffffu;
    width = 16;
  }
  /* At most 7 bits wait here. */
  bits->pending = bits->pending << width | value;
  bits->filled += width;
  while (bits->filled >= 8) {
    bits->filled -= 8;
    *bits->at++ = (uint8_t)(bits->pending >> bits->filled);
  }
}

static void thrum_put_parameter(thrum_bits *bits, int32_t k, int32_t reference) {
  int32_t change = k - reference;
  uint32_t ones = (uint32_t)(change < 0 ? -change : change);
  if (reference == THRUM_NONE) {
    thrum_put(bits, (uint32_t)(k + 1), 5);
    return;
  }
  thrum_put(bits, ((uint32_t)1 << ones) - 1, ones);
  thrum_put(bits, 0, 1);
  if (change != 0) thrum_put(bits, change < 0, 1);
}

static int32_t thrum_parameter_bits(int32_t k, int32_t reference) {
  int32_t change = k - reference;
  if (reference == THRUM_NONE) return 5;
  return change == 0 ? 1 : (change < 0 ? -change : change) + 2;
}

/* Bits of `size` codes with parameter k; `all` is all of them together. */
static int32_t thrum_rice_bits(const uint32_t *codes, uint32_t size, uint32_t all, uint32_t k) {
  uint32_t bits = size * (k + 1);
  uint32_t i;
  if (all >> k < THRUM_ESCAPE) {
    for (i = 0; i < size; i++) bits += codes[i] >> k;
    return (int32_t)bits;
  }
  for (i = 0; i < size; i++) {
    uint32_t q = codes[i] >> k;
    bits += q < THRUM_ESCAPE ? q : THRUM_ESCAPE + 32u - 1u - k;
  }
  return (int32_t)bits;
}

/* floor(log2(floor(sum / size))), 0 if that is 0. `size` is below 64. */
static uint32_t thrum_log2_mean(uint64_t sum, uint32_t size) {
  /* Bits below the quotient's last do not matter: a sum of more than 32 bits can do without 16 of them. */
  uint32_t dropped = sum >> 32 ? 16 : 0;
  uint32_t kept = (uint32_t)(sum >> dropped);
  uint32_t log2;
  if (kept < size) return 0;
  log2 = thrum_width(kept) - thrum_width(size);
  if (size << log2 > kept) log2--;
  return log2 + dropped;
}

/*
 * Bits of a channel's residuals and their parameters with a predictor: counted, and with `out` written too. Stops when
 * they are certain to be more than `limit`. *first gets the first parameter.
 */
static int32_t thrum_residuals(const int32_t *y, uint32_t count, uint32_t predictor, int32_t base, int32_t reference,
                               int32_t limit, int32_t *first, thrum_bits *out) {
  uint32_t codes[2 * THRUM_SEGMENT - 1];
  int differs = predictor >= 4;
  uint32_t at = differs ? 1 : 0;
  int32_t z1 = 0;
  int32_t z2 = 0;
  int32_t bits = 0;
  int is_first = 1;
  while (at < count && bits <= limit) {
    uint32_t left = count - at;
    uint32_t size = left < 2 * THRUM_SEGMENT ? left : (uint32_t)THRUM_SEGMENT;
    uint32_t all = 0;
    uint64_t sum = 0;
    int32_t k = -1;
    int32_t least;
    uint32_t i;
    for (i = 0; i < size; i++) {
      int32_t value = y[at + i];
      int32_t z = thrum_minus(value, base);
      uint32_t u = thrum_zigzag(thrum_minus(z, thrum_expected(predictor, z1, z2)));
      if (differs) base = value;
      codes[i] = u;
      all |= u;
      sum += u;
      z2 = z1;
      z1 = z;
    }
    at += size;

    if (all == 0) least = thrum_parameter_bits(-1, reference);
    else {
      int32_t middle = (int32_t)thrum_log2_mean(sum, size);
      int32_t candidate = middle > 0 ? middle - 1 : 0;
      least = INT32_MAX;
      for (; candidate <= middle + 1 && candidate <= THRUM_RICE_MAX; candidate++) {
        int32_t cost = thrum_rice_bits(codes, size, all, (uint32_t)candidate) + thrum_parameter_bits(candidate, reference);
        if (cost < least) {
          least = cost;
          k = candidate;
        }
      }
    }
    if (reference >= 0 && reference != k) {
      int32_t cost = thrum_rice_bits(codes, size, all, (uint32_t)reference) + 1;
      if (cost < least) {
        least = cost;
        k = reference;
      }
    }
    if (out != NULL) {
      thrum_put_parameter(out, k, reference);
      for (i = 0; i < size && k >= 0; i++) {
        uint32_t q = codes[i] >> k;
        if (q < THRUM_ESCAPE) {
          thrum_put(out, ((uint32_t)2 << q) - 2, q + 1);
          thrum_put(out, codes[i] & (((uint32_t)1 << k) - 1), (uint32_t)k);
        } else {
          thrum_put(out, 0xffffffu, THRUM_ESCAPE);
          thrum_put(out, codes[i], 32);
        }
      }
    }
    if (is_first) *first = k;
    is_first = 0;
    reference = k;
    bits += least;
  }
  return bits;
}

/* ---- Channels and blocks ---- */

/* What is known of a channel before it is planned. */
typedef struct thrum_scan {
  int32_t mean;
  int32_t smallest;
  uint32_t field_width;
} thrum_scan;

static thrum_scan thrum_scan_of(const int32_t *y, uint32_t count) {
  thrum_scan scan;
  int64_t sum = 0;
  int32_t smallest = y[0];
  int32_t largest = y[0];
  uint64_t twice;
  uint32_t quotient = 0;
  uint32_t rest = 0;
  int32_t shift;
  uint32_t i;
  for (i = 0; i < count; i++) {
    sum += y[i];
    if (y[i] < smallest) smallest = y[i];
    if (y[i] > largest) largest = y[i];
  }
  /* (2 |sum| + count) / (2 count), digit by digit of 16 bits: a board without a divider then needs none of 64 bits. */
  twice = 2 * (uint64_t)(sum < 0 ? -sum : sum) + count;
  for (shift = 32; shift >= 0; shift -= 16) {
    uint32_t part = rest << 16 | (uint32_t)((twice >> shift) & 0xffffu);
    quotient = quotient << 16 | part / (2 * count);
    rest = part % (2 * count);
  }
  scan.mean = (int32_t)(sum < 0 ? 0u - quotient : quotient);
  scan.smallest = smallest;
  scan.field_width = thrum_width((uint32_t)largest - (uint32_t)smallest);
  return scan;
}

/* How a block is to be written. */
typedef struct thrum_plan {
  /* Of the bit string. */
  uint32_t bytes;
  uint32_t shift;
  int is_packed;
  /* Widths of the bases: of the channels, of the times. */
  uint32_t width;
  uint32_t times_width;
  uint8_t predictors[THRUM_CHANNELS_MAX + 1];
} thrum_plan;

/* Bits of the two forms of a block so far, and the widths of their bases. */
typedef struct thrum_tally {
  uint32_t predicted;
  uint32_t packed;
  uint32_t width;
  uint32_t packed_width;
} thrum_tally;

static uint32_t thrum_max(uint32_t a, uint32_t b) { return a > b ? a : b; }

/* Channel c of the samples, without its low bits; c = channels: the times, without their period. */
static void thrum_column(const thrum_values *values, uint32_t c, uint32_t shift, int32_t *y) {
  uint32_t i;
  if (c < values->channels) {
    for (i = 0; i < values->count; i++) y[i] = values->at(values, i * values->channels + c) >> shift;
  } else {
    for (i = 0; i < values->count; i++) y[i] = (int32_t)((uint32_t)values->times[i] - i * values->period);
  }
}

/* Chooses the predictor of a channel. Returns the first Rice parameter, or `reference` when it has none. */
static int32_t thrum_plan_channel(const int32_t *y, uint32_t count, int32_t reference, uint8_t *predictor,
                                  thrum_tally *tally) {
  thrum_scan scan = thrum_scan_of(y, count);
  int32_t least = INT32_MAX;
  int32_t first = reference;
  uint32_t bits = 0;
  uint32_t width = 0;
  uint32_t i;
  for (i = 0; i < sizeof thrum_predictors; i++) {
    uint32_t candidate = thrum_predictors[i];
    int32_t base = candidate >= 4 ? y[0] : scan.mean;
    uint32_t base_width = thrum_width(thrum_zigzag(base));
    int32_t k = reference;
    int32_t limit = least - (int32_t)base_width;
    int32_t residual_bits = thrum_residuals(y, count, candidate, base, reference, limit, &k, NULL);
    if (residual_bits >= limit) continue;
    least = residual_bits + (int32_t)base_width;
    *predictor = (uint8_t)candidate;
    first = k;
    bits = (uint32_t)residual_bits;
    width = base_width;
  }
  tally->predicted += 4 + bits;
  tally->packed += 6 + count * scan.field_width;
  tally->width = thrum_max(tally->width, width);
  tally->packed_width = thrum_max(tally->packed_width, thrum_width(thrum_zigzag(scan.smallest)));
  return first;
}

/* The number of low bits that need not be sent with each value. */
static uint32_t thrum_shift_of(const thrum_values *values) {
  uint32_t varies = 0;
  uint32_t set = 0;
  uint32_t c, i;
  for (c = 0; c < values->channels; c++) {
    uint32_t first = (uint32_t)values->at(values, c);
    set |= first;
    for (i = 1; i < values->count; i++) varies |= (uint32_t)values->at(values, i * values->channels + c) ^ first;
  }
  if (varies == 0) varies = set;
  return varies == 0 ? 0 : thrum_width(varies & (0u - varies)) - 1;
}

static uint32_t thrum_low(const thrum_values *values, uint32_t c, uint32_t shift) {
  return (uint32_t)values->at(values, c) & (((uint32_t)1 << shift) - 1);
}

static void thrum_plan_block(const thrum_values *values, int32_t *scratch, thrum_plan *plan) {
  thrum_tally tally = {5, 5, 1, 1};
  thrum_tally times = {5, 5, 1, 1};
  uint32_t channels = values->channels;
  int32_t reference = THRUM_NONE;
  uint32_t head = 0;
  uint32_t c;
  plan->shift = thrum_shift_of(values);
  if (plan->shift > 0) {
    head = 5 + channels;
    for (c = 0; c < channels; c++) head += thrum_low(values, c, plan->shift) != 0 ? plan->shift : 0;
  }
  for (c = 0; c < channels; c++) {
    thrum_column(values, c, plan->shift, scratch);
    reference = thrum_plan_channel(scratch, values->count, reference, &plan->predictors[c], &tally);
  }
  tally.predicted += head + channels * tally.width;
  tally.packed += head + channels * tally.packed_width;
  if (values->times != NULL) {
    thrum_column(values, channels, 0, scratch);
    thrum_plan_channel(scratch, values->count, THRUM_NONE, &plan->predictors[channels], &times);
    tally.predicted += times.predicted + times.width;
    tally.packed += times.packed + times.packed_width;
  }
  /* Whole bytes, because the bits that fill the last one cost nothing either way. */
  tally.predicted = (tally.predicted + 7) / 8;
  tally.packed = (tally.packed + 7) / 8;
  plan->is_packed = tally.packed < tally.predicted;
  plan->bytes = plan->is_packed ? tally.packed : tally.predicted;
  plan->width = plan->is_packed ? tally.packed_width : tally.width;
  plan->times_width = plan->is_packed ? times.packed_width : times.width;
}

/* Writes a channel; returns the next one's reference. */
static int32_t thrum_put_channel(thrum_bits *bits, const int32_t *y, uint32_t count, const thrum_plan *plan, uint32_t c,
                                 uint32_t width, int32_t reference) {
  thrum_scan scan = thrum_scan_of(y, count);
  uint32_t predictor = plan->predictors[c];
  int32_t base = predictor >= 4 ? y[0] : scan.mean;
  uint32_t i;
  if (plan->is_packed) {
    thrum_put(bits, scan.field_width, 6);
    thrum_put(bits, thrum_zigzag(scan.smallest), width);
    for (i = 0; i < count; i++) thrum_put(bits, (uint32_t)y[i] - (uint32_t)scan.smallest, scan.field_width);
    return reference;
  }
  thrum_put(bits, predictor, 4);
  thrum_put(bits, thrum_zigzag(base), width);
  thrum_residuals(y, count, predictor, base, reference, INT32_MAX, &reference, bits);
  return reference;
}

static uint8_t *thrum_put_leb128(uint8_t *out, uint32_t value) {
  for (; value > 0x7f; value >>= 7) *out++ = (uint8_t)(value | 0x80u);
  *out++ = (uint8_t)value;
  return out;
}

static uint32_t thrum_leb128_bytes(uint32_t value) {
  uint32_t bytes = 1;
  for (; value > 0x7f; value >>= 7) bytes++;
  return bytes;
}

/* A block whose size is known and which is not written yet. */
typedef struct thrum_planned {
  thrum_values values;
  thrum_plan plan;
  uint32_t bytes;
} thrum_planned;

static int32_t thrum_plan_values(const thrum_values *values, int32_t *scratch, thrum_planned *planned) {
  if (values->count < 1 || values->count > THRUM_COUNT_MAX) return THRUM_E_INPUT;
  if (values->channels < 1 || values->channels > THRUM_CHANNELS_MAX) return THRUM_E_INPUT;
  planned->values = *values;
  if (values->form == NULL) thrum_plan_block(values, scratch, &planned->plan);
  else {
    int best = -1;
    int n;
    for (n = 0; n < 3; n++) {
      thrum_plan plan;
      if (!values->form(&planned->values, n)) continue;
      thrum_plan_block(&planned->values, scratch, &plan);
      if (best >= 0 && plan.bytes >= planned->plan.bytes) continue;
      planned->plan = plan;
      best = n;
    }
    values->form(&planned->values, best);
  }
  planned->bytes = 1 + thrum_leb128_bytes(values->count) + planned->plan.bytes;
  if (values->times != NULL) planned->bytes += thrum_leb128_bytes(values->period);
  if (values->form != NULL) planned->bytes++;
  return THRUM_OK;
}

static void thrum_put_block(uint8_t *out, const thrum_planned *planned, int32_t *scratch) {
  const thrum_values *values = &planned->values;
  const thrum_plan *plan = &planned->plan;
  uint32_t shift = plan->shift;
  int32_t reference = THRUM_NONE;
  thrum_bits bits = {NULL, 0, 0};
  uint32_t c;
  *out++ = (uint8_t)(0x10 | (shift > 0 ? THRUM_SHIFT : 0) | (values->times != NULL ? THRUM_TIMED : 0) |
                     (values->form != NULL ? THRUM_FLOAT : 0) | (plan->is_packed ? THRUM_PACK : 0));
  out = thrum_put_leb128(out, values->count);
  if (values->times != NULL) out = thrum_put_leb128(out, values->period);
  if (values->form != NULL) *out++ = values->exponent;
  bits.at = out;
  thrum_put(&bits, plan->width - 1, 5);
  if (shift > 0) {
    thrum_put(&bits, shift, 5);
    for (c = 0; c < values->channels; c++) {
      uint32_t low = thrum_low(values, c, shift);
      thrum_put(&bits, low != 0, 1);
      if (low != 0) thrum_put(&bits, low, shift);
    }
  }
  for (c = 0; c < values->channels; c++) {
    thrum_column(values, c, shift, scratch);
    reference = thrum_put_channel(&bits, scratch, values->count, plan, c, plan->width, reference);
  }
  if (values->times != NULL) {
    thrum_column(values, c, 0, scratch);
    thrum_put(&bits, plan->times_width - 1, 5);
    thrum_put_channel(&bits, scratch, values->count, plan, c, plan->times_width, THRUM_NONE);
  }
  if (bits.filled > 0) thrum_put(&bits, 0, 8 - bits.filled);
}

THRUM_API int32_t thrum_block(uint8_t *out, uint32_t size, const thrum_values *values, int32_t *scratch) {
  thrum_planned planned;
  int32_t error = thrum_plan_values(values, scratch, &planned);
  if (error != THRUM_OK) return error;
  if (planned.bytes > size) return THRUM_E_SPACE;
  thrum_put_block(out, &planned, scratch);
  return (int32_t)planned.bytes;
}

/* ---- Frames to the server ---- */

static uint32_t thrum_integer_bytes(uint64_t n) {
  return n < 0x80 ? 1 : n < 0x100 ? 2 : n < 0x10000 ? 3 : n <= UINT32_MAX ? 5 : 9;
}

/* `wide` is the lead of a number that needs 64 bits. */
static uint8_t *thrum_put_integer(uint8_t *out, uint64_t n, uint8_t wide) {
  uint32_t bytes = thrum_integer_bytes(n) - 1;
  if (bytes > 0) *out++ = bytes == 8 ? wide : (uint8_t)(bytes == 1 ? 0xcc : bytes == 2 ? 0xcd : 0xce);
  else bytes = 1;
  while (bytes > 0) *out++ = (uint8_t)(n >> 8 * --bytes);
  return out;
}

THRUM_API int32_t thrum_samples(uint8_t *out, uint32_t size, uint64_t index, uint64_t t0, const thrum_values *values,
                                int32_t *scratch) {
  thrum_planned planned;
  uint32_t bytes;
  int32_t error;
  if (index > THRUM_INDEX_MAX - values->count) return THRUM_E_INPUT;
  if (t0 != THRUM_NO_CLOCK && t0 > THRUM_INDEX_MAX) return THRUM_E_INPUT;
  error = thrum_plan_values(values, scratch, &planned);
  if (error != THRUM_OK) return error;
  bytes = 2 + thrum_integer_bytes(index) + (t0 == THRUM_NO_CLOCK ? 1 : thrum_integer_bytes(t0));
  bytes += (planned.bytes < 256 ? 2 : 3) + planned.bytes;
  if (bytes > THRUM_MESSAGE_MAX) return THRUM_E_LARGE;
  if (bytes > size) return THRUM_E_SPACE;
  *out++ = 0x94;
  *out++ = 2;
  out = thrum_put_integer(out, index, 0xcf);
  if (t0 == THRUM_NO_CLOCK) *out++ = 0xc0;
  else out = thrum_put_integer(out, t0, 0xcf);
  *out++ = planned.bytes < 256 ? 0xc4 : 0xc5;
  if (planned.bytes >= 256) *out++ = (uint8_t)(planned.bytes >> 8);
  *out++ = (uint8_t)planned.bytes;
  thrum_put_block(out, &planned, scratch);
  return (int32_t)bytes;
}

/* A hello whose boot id is `boot_id_bytes` bytes, or the number `boot_number` when there are none. */
static int32_t thrum_put_hello(uint8_t *out, uint32_t size, const char *key, const uint8_t *boot_id,
                               uint32_t boot_id_bytes, uint64_t boot_number, uint64_t next) {
  uint32_t key_bytes = 0;
  uint32_t bytes = 3;
  if (key != NULL) {
    while (key_bytes <= THRUM_KEY_MAX && key[key_bytes] != 0) key_bytes++;
  }
  if (key_bytes > THRUM_KEY_MAX || next > THRUM_INDEX_MAX || boot_number > THRUM_INDEX_MAX) return THRUM_E_INPUT;
  bytes += key == NULL || key_bytes < 32 ? 1 + key_bytes : 2 + key_bytes;
  bytes += boot_id_bytes > 0 ? 2 + boot_id_bytes : thrum_integer_bytes(boot_number);
  bytes += thrum_integer_bytes(next);
  if (bytes > size) return THRUM_E_SPACE;
  *out++ = 0x95;
  *out++ = 1;
  *out++ = THRUM_VERSION;
  if (key == NULL) *out++ = 0xc0;
  else {
    if (key_bytes >= 32) *out++ = 0xd9;
    *out++ = (uint8_t)(key_bytes < 32 ? 0xa0 | key_bytes : key_bytes);
    memcpy(out, key, key_bytes);
    out += key_bytes;
  }
  if (boot_id_bytes > 0) {
    *out++ = 0xc4;
    *out++ = (uint8_t)boot_id_bytes;
    memcpy(out, boot_id, boot_id_bytes);
    out += boot_id_bytes;
  } else out = thrum_put_integer(out, boot_number, 0xd3);
  thrum_put_integer(out, next, 0xd3);
  return (int32_t)bytes;
}

THRUM_API int32_t thrum_hello(uint8_t *out, uint32_t size, const char *key, const uint8_t *boot_id,
                              uint32_t boot_id_bytes, uint64_t next) {
  if (boot_id_bytes < 1 || boot_id_bytes > THRUM_BOOT_ID_MAX) return THRUM_E_INPUT;
  return thrum_put_hello(out, size, key, boot_id, boot_id_bytes, 0, next);
}

THRUM_API int32_t thrum_hello_number(uint8_t *out, uint32_t size, const char *key, uint64_t boot_id, uint64_t next) {
  return thrum_put_hello(out, size, key, NULL, 0, boot_id, next);
}

static int32_t thrum_put_pair(uint8_t *out, uint32_t size, uint8_t kind, uint64_t n) {
  uint32_t bytes = 2 + thrum_integer_bytes(n);
  if (n > THRUM_INDEX_MAX) return THRUM_E_INPUT;
  if (bytes > size) return THRUM_E_SPACE;
  *out++ = 0x92;
  *out++ = kind;
  thrum_put_integer(out, n, 0xd3);
  return (int32_t)bytes;
}

THRUM_API int32_t thrum_end(uint8_t *out, uint32_t size, uint64_t index) { return thrum_put_pair(out, size, 3, index); }

THRUM_API int32_t thrum_time(uint8_t *out, uint32_t size, uint64_t device) {
  return thrum_put_pair(out, size, THRUM_TIME, device);
}

/* ---- Msgpack, read ---- */

/* Offsets below are past a byte that was read, so 0 is free to mean: there is no such thing here. */

static uint64_t thrum_big_endian(const uint8_t *bytes, uint32_t width) {
  uint64_t value = 0;
  while (width-- > 0) value = value << 8 | *bytes++;
  return value;
}

/* Whether `size` bytes are UTF-8: shortest forms, no surrogates, nothing above U+10FFFF. */
static int thrum_is_utf8(const uint8_t *bytes, uint32_t size) {
  uint32_t at = 0;
  while (at < size) {
    uint8_t lead = bytes[at++];
    uint32_t more = lead < 0xc2 ? 0 : lead <= 0xdf ? 1 : lead <= 0xef ? 2 : lead <= 0xf4 ? 3 : 0;
    uint32_t i;
    if (lead <= 0x7f) continue;
    if (more == 0 || more > size - at) return 0;
    if (bytes[at] < (lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80)) return 0;
    if (bytes[at] > (lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf)) return 0;
    for (i = 1; i < more; i++) {
      if ((bytes[at + i] & 0xc0) != 0x80) return 0;
    }
    at += more;
  }
  return 1;
}

/* By lead byte from c0: bytes of a length; 16 + bytes of a number; 255: in no frame (reserved, extensions). */
static const uint8_t thrum_forms[32] = {16,  255, 16,  16,  1,   2, 4, 255, 255, 255, 20, 24, 17, 18, 20, 24,
                                        17,  18,  20,  24,  255, 255, 255, 255, 255, 1, 2, 4, 2, 4, 2, 4};

/* Levels of a whole frame: its own array, and 8 in the elements that are ignored. */
#define THRUM_DEPTH_MAX 9

/* The offset after the one value that all the bytes are to be; 0 when it is none that a frame may hold. */
static uint32_t thrum_walk(const uint8_t *bytes, uint32_t size) {
  /* Values still to come at each level. */
  uint32_t open[THRUM_DEPTH_MAX + 1];
  int depth = 0;
  uint32_t at = 0;
  open[0] = 1;
  while (depth >= 0) {
    uint32_t lead, length = 0;
    int is_text = 0;
    int is_nested = 0;
    if (open[depth] == 0) {
      depth--;
      continue;
    }
    open[depth]--;
    if (at >= size) return 0;
    lead = bytes[at++];
    if (lead <= 0x7f || lead >= 0xe0) continue;
    if (lead <= 0x9f) {
      is_nested = 1;
      length = lead <= 0x8f ? 2 * (lead & 0x0f) : lead & 0x0f;
    } else if (lead <= 0xbf) {
      is_text = 1;
      length = lead & 0x1f;
    } else {
      uint32_t width = thrum_forms[lead - 0xc0];
      if (width == 255) return 0;
      if (width >= 16) length = width - 16;
      else {
        if (width > size - at) return 0;
        length = (uint32_t)thrum_big_endian(bytes + at, width);
        at += width;
        is_nested = lead >= 0xdc;
        is_text = lead >= 0xd9 && !is_nested;
        /* Each value takes a byte at least, so a length that lies is found before it is believed. */
        if (length > size - at) return 0;
        if (lead >= 0xde) length *= 2;
      }
    }
    if (length > size - at) return 0;
    if (is_nested) {
      if (depth == THRUM_DEPTH_MAX) return 0;
      open[++depth] = length;
      continue;
    }
    if (is_text && !thrum_is_utf8(bytes + at, length)) return 0;
    at += length;
  }
  return at;
}

/* The whole number at `at` of well-formed msgpack, and the offset after it; 0 when it is another value. */
static uint32_t thrum_whole(const uint8_t *bytes, uint32_t at, uint64_t *value) {
  uint32_t lead = bytes[at++];
  uint32_t width;
  uint64_t n;
  *value = lead;
  if (lead <= 0x7f) return at;
  if (lead < 0xca || lead > 0xd3) return 0;
  width = thrum_forms[lead - 0xc0] - 16u;
  n = thrum_big_endian(bytes + at, width);
  if (lead <= 0xcb) {
    /* A float: its mantissa, moved to where the point is. No bit may be left behind it. */
    uint32_t fraction = width == 4 ? 23 : 52;
    uint64_t mantissa = n & (((uint64_t)1 << fraction) - 1);
    uint32_t exponent = (uint32_t)(n >> fraction) & (width == 4 ? 0xffu : 0x7ffu);
    uint32_t bias = width == 4 ? 127 : 1023;
    /* -0 is 0. */
    if (exponent == 0 && mantissa == 0) n = 0;
    else if (n >> (8 * width - 1) || exponent < bias || exponent > bias + 52) return 0;
    else {
      mantissa |= (uint64_t)1 << fraction;
      exponent -= bias;
      if (exponent >= fraction) n = mantissa << (exponent - fraction);
      else {
        n = mantissa >> (fraction - exponent);
        if (n << (fraction - exponent) != mantissa) return 0;
      }
    }
  } else if (lead >= 0xd0 && n >> (8 * width - 1)) return 0;
  if (n > THRUM_INDEX_MAX) return 0;
  *value = n;
  return at + width;
}

/* Numbers that are kept in 32 bits: no window, code or wait is as large, and what is only bounds what is smaller. */
static uint32_t thrum_narrow(uint64_t n) { return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX - 1; }

/* Reads `wanted` whole numbers from *at on. */
static int thrum_wholes(const uint8_t *bytes, uint32_t *at, uint32_t elements, uint32_t wanted, uint64_t *values) {
  uint32_t i;
  if (elements < wanted) return 0;
  for (i = 0; i < wanted; i++) {
    *at = thrum_whole(bytes, *at, &values[i]);
    if (*at == 0) return 0;
  }
  return 1;
}

/* A whole number or nil, if there is such an element: 1; *value is left alone when it is not said. 0: another value. */
static int thrum_optional(const uint8_t *bytes, uint32_t at, int is_there, uint64_t *value) {
  if (!is_there || bytes[at] == 0xc0) return 1;
  return thrum_whole(bytes, at, value) != 0;
}

THRUM_API int32_t thrum_read(const uint8_t *bytes, uint32_t length, thrum_message *message) {
  uint64_t n[5] = {0, 0, 0, 0, 0};
  uint32_t at, elements, kind;
  memset(message, 0, sizeof *message);
  if (length == 0 || length > THRUM_MESSAGE_MAX || thrum_walk(bytes, length) != length) return THRUM_E_FRAME;
  at = bytes[0] == 0xdc ? 3 : bytes[0] == 0xdd ? 5 : 1;
  elements = at > 1 ? (uint32_t)thrum_big_endian(bytes + 1, at - 1) : bytes[0] & 0x0fu;
  if (at == 1 && (bytes[0] & 0xf0) != 0x90) return THRUM_E_FRAME;
  if (elements == 0 || bytes[at] > 0x7f) return THRUM_E_FRAME;
  kind = bytes[at++];
  elements--;
  switch (kind) {
    case THRUM_WELCOME:
      if (elements < 6 || !thrum_wholes(bytes, &at, elements, 5, n) || n[1] > INT32_MAX) return THRUM_E_FRAME;
      if (bytes[at] != 0xc2 && bytes[at] != 0xc3) return THRUM_E_FRAME;
      message->version = thrum_narrow(n[0]);
      message->epoch = (uint32_t)n[1];
      message->next = n[2];
      message->window = thrum_narrow(n[3]);
      message->server = n[4];
      message->sure = bytes[at] == 0xc3;
      break;
    case THRUM_ACK:
      if (!thrum_wholes(bytes, &at, elements, 3, n)) return THRUM_E_FRAME;
      message->received = n[0];
      message->durable = n[1];
      message->window = thrum_narrow(n[2]);
      break;
    case THRUM_REWIND:
      if (!thrum_wholes(bytes, &at, elements, 1, n)) return THRUM_E_FRAME;
      message->next = n[0];
      break;
    case THRUM_TIME:
      n[1] = THRUM_UNKNOWN;
      if (!thrum_wholes(bytes, &at, elements, 1, n)) return THRUM_E_FRAME;
      if (!thrum_optional(bytes, at, elements > 1, &n[1])) return THRUM_E_FRAME;
      message->device = n[0];
      message->server = n[1];
      break;
    case THRUM_ERROR: {
      uint32_t lead, width;
      n[1] = THRUM_UNKNOWN;
      if (!thrum_wholes(bytes, &at, elements, 1, n) || elements < 2) return THRUM_E_FRAME;
      lead = bytes[at++];
      width = lead >= 0xd9 && lead <= 0xdb ? thrum_forms[lead - 0xc0] : 0;
      if (width == 0 && (lead & 0xe0) != 0xa0) return THRUM_E_FRAME;
      message->text_bytes = width > 0 ? (uint32_t)thrum_big_endian(bytes + at, width) : lead & 0x1f;
      message->text = (const char *)bytes + at + width;
      at += width + message->text_bytes;
      if (!thrum_optional(bytes, at, elements > 2, &n[1])) return THRUM_E_FRAME;
      message->code = thrum_narrow(n[0]);
      message->retry_after = n[1] == THRUM_UNKNOWN ? THRUM_NEVER : thrum_narrow(n[1]);
      break;
    }
    default:
      return THRUM_E_FRAME;
  }
  message->kind = (int32_t)kind;
  return message->kind;
}

THRUM_API int thrum_come_back(uint32_t code, int end_sent) {
  if (code == 1000 || (code == 4005 && end_sent)) return THRUM_DONE;
  /* An end and a rewind have crossed: what is missing is sent, and the end again. */
  if (code == 4013 && end_sent) return THRUM_COME_NOW;
  if (code == 1009 || (code >= 4000 && code < 4100)) return THRUM_COME_NEVER;
  return code >= 4100 && code < 4200 ? THRUM_COME_LATER : THRUM_COME_NOW;
}

THRUM_API uint32_t thrum_wait_ms(int come, uint32_t tries, uint32_t retry_after, uint32_t random) {
  uint32_t most = tries < 6 ? (uint32_t)250 << tries : 10000;
  if (come == THRUM_COME_NOW && tries == 0) return random % 200;
  if (retry_after == THRUM_NEVER) retry_after = 0;
  return (retry_after < 300000 ? retry_after : 300000) + most / 2 + random % (most / 2);
}

/* ---- The ring ---- */

/*
 * A record is two bytes of length and the frame, never broken in two. Where one does not fit before the end, a length
 * of 0 (or fewer than two bytes) says that the next begins at the start. Offsets are kept resolved: they are those of
 * a record, or the tail.
 */

/* Where the record after the one at `at` is; the tail after the last one. */
static uint32_t thrum_after(const thrum_ring *ring, uint32_t at, uint32_t length) {
  at += 2 + length;
  if (at == ring->tail) return at;
  return ring->size - at < 2 || (ring->memory[at] | ring->memory[at + 1]) == 0 ? 0 : at;
}

/* Index and next of a samples frame. 0: it is none. The block is not looked into but for its number of samples. */
static int thrum_span(const uint8_t *bytes, uint32_t length, uint64_t *index, uint64_t *next) {
  uint32_t at = 2;
  uint32_t width, count, i;
  uint64_t t0;
  if (length < 2 || thrum_walk(bytes, length) != length || bytes[0] != 0x94 || bytes[1] != 2) return 0;
  at = thrum_whole(bytes, at, index);
  if (at == 0) return 0;
  at = bytes[at] == 0xc0 ? at + 1 : thrum_whole(bytes, at, &t0);
  if (at == 0 || bytes[at] < 0xc4 || bytes[at] > 0xc6) return 0;
  width = thrum_forms[bytes[at] - 0xc0];
  at += 1 + width;
  if (at >= length || bytes[at++] >> 4 != 1) return 0;
  count = 0;
  for (i = 0; i < 3 && at < length; i++, at++) {
    count |= (bytes[at] & 0x7fu) << 7 * i;
    if (bytes[at] >= 0x80) continue;
    *next = *index + count;
    return count >= 1 && count <= THRUM_COUNT_MAX && *next <= THRUM_INDEX_MAX;
  }
  return 0;
}

/* The frame of the record at `at`. */
static void thrum_frame_at(const thrum_ring *ring, uint32_t at, thrum_frame *frame) {
  frame->bytes = ring->memory + at + 2;
  frame->length = (uint32_t)ring->memory[at] << 8 | ring->memory[at + 1];
  frame->gap = 0;
  thrum_span(frame->bytes, frame->length, &frame->index, &frame->next);
}

/* The oldest frame leaves the ring. */
static void thrum_free_oldest(thrum_ring *ring, const thrum_frame *oldest) {
  uint32_t after = thrum_after(ring, ring->head, oldest->length);
  ring->head = after;
  if (ring->unsent == ring->kept) {
    ring->cursor = ring->flight = after;
    ring->unsent--;
  } else if (ring->unsent + ring->flying == ring->kept) {
    ring->flight = after;
    ring->flying--;
    ring->flying_bytes -= oldest->length;
  }
  ring->kept--;
  if (ring->kept == 0) ring->head = ring->tail = ring->cursor = ring->flight = 0;
}

static void thrum_drop_oldest(thrum_ring *ring) {
  thrum_frame oldest;
  thrum_frame_at(ring, ring->head, &oldest);
  /* Sent and not received: it counts against the window, kept or not. */
  if (ring->flying > 0 && ring->unsent + ring->flying == ring->kept) {
    ring->gone_bytes += oldest.length;
    ring->gone_next = oldest.next;
  }
  ring->dropped_frames++;
  ring->dropped_samples += oldest.next - oldest.index;
  thrum_free_oldest(ring, &oldest);
}

THRUM_API void thrum_ring_init(thrum_ring *ring, uint8_t *memory, uint32_t size) {
  memset(ring, 0, sizeof *ring);
  ring->memory = memory;
  ring->size = size;
}

/* Where a frame of `length` bytes could go without a drop; `size` when there is no room. */
static uint32_t thrum_room(const thrum_ring *ring, uint32_t length) {
  if (ring->kept > 0 && ring->tail <= ring->head) return ring->head - ring->tail >= length + 2 ? ring->tail : ring->size;
  /* What is kept ends at the tail: room is behind it, or else before the head. */
  if (ring->size - ring->tail >= length + 2) return ring->tail;
  return ring->head >= length + 2 ? 0 : ring->size;
}

THRUM_API int thrum_ring_has_room(const thrum_ring *ring, uint32_t length) {
  return length <= 0xffffu && thrum_room(ring, length) < ring->size;
}

THRUM_API int32_t thrum_ring_add(thrum_ring *ring, const uint8_t *bytes, uint32_t length) {
  uint32_t before = ring->dropped_frames;
  uint32_t at;
  uint64_t index, next;
  if (!thrum_span(bytes, length, &index, &next)) return THRUM_E_FRAME;
  if (index < ring->next) return THRUM_E_ORDER;
  if (length > 0xffffu || ring->size < 2 || length > ring->size - 2) return THRUM_E_LARGE;
  for (at = thrum_room(ring, length); at == ring->size; at = thrum_room(ring, length)) thrum_drop_oldest(ring);
  if (at != ring->tail) {
    if (ring->size - ring->tail >= 2) memset(ring->memory + ring->tail, 0, 2);
    if (ring->cursor == ring->tail) ring->cursor = at;
    if (ring->flight == ring->tail) ring->flight = at;
    ring->tail = at;
  }
  ring->memory[ring->tail] = (uint8_t)(length >> 8);
  ring->memory[ring->tail + 1] = (uint8_t)length;
  memcpy(ring->memory + ring->tail + 2, bytes, length);
  ring->tail += 2 + length;
  ring->kept++;
  ring->unsent++;
  ring->next = next;
  return (int32_t)(ring->dropped_frames - before);
}

THRUM_API int thrum_ring_peek(const thrum_ring *ring, thrum_frame *frame) {
  uint32_t flying = ring->flying_bytes + ring->gone_bytes;
  if (!ring->is_welcome || ring->unsent == 0) return 0;
  thrum_frame_at(ring, ring->cursor, frame);
  /* One may always go: a window that is smaller than a frame would stop the stream for ever. */
  if (flying > 0 && (flying > ring->window || frame->length > ring->window - flying)) return 0;
  frame->gap = frame->index > ring->sent ? frame->index - ring->sent : 0;
  return 1;
}

THRUM_API void thrum_ring_sent(thrum_ring *ring, const thrum_frame *frame) {
  thrum_frame next;
  if (!ring->is_welcome) return;
  if (ring->unsent > 0) {
    thrum_frame_at(ring, ring->cursor, &next);
    if (next.index == frame->index) {
      ring->cursor = thrum_after(ring, ring->cursor, next.length);
      ring->unsent--;
      ring->flying++;
      ring->flying_bytes += next.length;
      ring->sent = next.next;
      return;
    }
    if (next.index < frame->index) return;
  } else if (frame->index < ring->sent) return;
  /* Dropped after it was peeked. */
  ring->gone_bytes += frame->length;
  ring->gone_next = frame->next;
  ring->sent = frame->next;
}

/* Goes on at index `next`: what comes before arrived, what comes after is to be sent, again or for the first time. */
static int32_t thrum_ring_go_to(thrum_ring *ring, uint64_t next) {
  uint32_t at = ring->head;
  uint32_t left = ring->kept;
  thrum_frame frame;
  if (next > ring->next) return THRUM_E_RESUME;
  for (; left > 0; left--) {
    thrum_frame_at(ring, at, &frame);
    if (frame.index >= next) break;
    /* A server that has a part of a frame was not sent it by this ring. */
    if (frame.next > next) return THRUM_E_RESUME;
    at = thrum_after(ring, at, frame.length);
  }
  ring->cursor = ring->flight = at;
  ring->unsent = left;
  ring->flying = 0;
  ring->flying_bytes = ring->gone_bytes = 0;
  ring->received = ring->sent = next;
  return THRUM_OK;
}

static int32_t thrum_ring_ack(thrum_ring *ring, const thrum_message *ack) {
  thrum_frame frame;
  if (ack->received > ring->next || ack->durable > ring->next) return THRUM_E_RESUME;
  ring->window = ack->window;
  ring->received = ack->received;
  ring->durable = ack->durable > ring->durable ? ack->durable : ring->durable;
  if (ring->gone_next <= ack->received) ring->gone_bytes = 0;
  while (ring->flying > 0) {
    thrum_frame_at(ring, ring->flight, &frame);
    if (frame.next > ack->received) break;
    ring->flight = thrum_after(ring, ring->flight, frame.length);
    ring->flying--;
    ring->flying_bytes -= frame.length;
  }
  while (ring->kept > 0) {
    thrum_frame_at(ring, ring->head, &frame);
    if (frame.next > ring->durable) break;
    thrum_free_oldest(ring, &frame);
  }
  /* After a rewind the server may have gone on by itself: it has what is durable, whether it was sent again or not. */
  if (ring->sent < ring->durable) ring->sent = ring->durable;
  return THRUM_OK;
}

THRUM_API int32_t thrum_ring_take(thrum_ring *ring, const thrum_message *message) {
  int32_t error = THRUM_OK;
  switch (message->kind) {
    case THRUM_WELCOME:
      if (message->version != THRUM_VERSION) return THRUM_E_VERSION;
      error = thrum_ring_go_to(ring, message->next);
      if (error != THRUM_OK) return error;
      ring->epoch = message->epoch;
      ring->window = message->window;
      ring->is_welcome = 1;
      return THRUM_OK;
    case THRUM_ACK:
      return ring->is_welcome ? thrum_ring_ack(ring, message) : THRUM_E_EARLY;
    case THRUM_REWIND:
      return ring->is_welcome ? thrum_ring_go_to(ring, message->next) : THRUM_E_EARLY;
    default:
      return THRUM_OK;
  }
}

THRUM_API void thrum_ring_disconnect(thrum_ring *ring) { ring->is_welcome = 0; }

THRUM_API uint64_t thrum_ring_oldest(const thrum_ring *ring) {
  thrum_frame oldest;
  if (ring->kept == 0) return ring->next;
  thrum_frame_at(ring, ring->head, &oldest);
  return oldest.index;
}

THRUM_API uint32_t thrum_ring_unsent(const thrum_ring *ring) { return ring->is_welcome ? ring->unsent : ring->kept; }

#ifdef THRUM_DECODER
/* ---- The decoder ---- */

/* Bits that are read; `left` becomes negative when more are wanted than there are, and all that comes then is 0. */
typedef struct thrum_source {
  const uint8_t *bytes;
  uint32_t at;
  int64_t left;
} thrum_source;

static uint32_t thrum_take(thrum_source *source, uint32_t width) {
  uint32_t value = 0;
  source->left -= width;
  if (source->left < 0) return 0;
  while (width > 0) {
    uint32_t used = source->at & 7u;
    uint32_t got = width < 8 - used ? width : 8 - used;
    uint32_t part = (uint32_t)source->bytes[source->at >> 3] >> (8 - used - got) & ((1u << got) - 1);
    value = value << got | part;
    source->at += got;
    width -= got;
  }
  return value;
}

/* One-bits before a zero bit, which is read too, or `most` one-bits, after which none is. */
static uint32_t thrum_take_ones(thrum_source *source, uint32_t most) {
  uint32_t ones = 0;
  while (ones < most && thrum_take(source, 1)) ones++;
  return ones;
}

static int32_t thrum_plus(int32_t a, int32_t b) { return (int32_t)((uint32_t)a + (uint32_t)b); }

static int32_t thrum_take_signed(thrum_source *source, uint32_t width) {
  uint32_t u = thrum_take(source, width);
  return (int32_t)(u >> 1 ^ (0u - (u & 1)));
}

/* A channel, `step` apart; 0 when its bits are none. *reference is the first parameter of the channel before. */
static int thrum_take_channel(thrum_source *source, int is_packed, uint32_t width, uint32_t count, int32_t *y,
                              uint32_t step, int32_t *reference) {
  uint32_t predictor, i, stop;
  int32_t base, k;
  int32_t z1 = 0;
  int32_t z2 = 0;
  int is_first = 1;
  if (is_packed) {
    uint32_t field_width = thrum_take(source, 6);
    if (field_width > 32) return 0;
    base = thrum_take_signed(source, width);
    for (i = 0; i < count; i++) y[i * step] = thrum_plus(base, (int32_t)thrum_take(source, field_width));
    return source->left >= 0;
  }
  predictor = thrum_take(source, 4);
  if (predictor == 15) return 0;
  base = thrum_take_signed(source, width);
  k = *reference;
  i = 0;
  if (predictor >= 4) y[i++ * step] = base;
  stop = i;
  while (i < count) {
    int32_t z;
    uint32_t u = 0;
    if (i == stop) {
      stop = count - i < 2 * THRUM_SEGMENT ? count : i + THRUM_SEGMENT;
      if (k == THRUM_NONE) k = (int32_t)thrum_take(source, 5) - 1;
      else {
        uint32_t ones = thrum_take_ones(source, THRUM_RICE_MAX + 2);
        if (ones > THRUM_RICE_MAX + 1) return 0;
        if (ones > 0) k += thrum_take(source, 1) ? -(int32_t)ones : (int32_t)ones;
      }
      if (k < -1 || k > THRUM_RICE_MAX || source->left < 0) return 0;
      if (is_first) *reference = k;
      is_first = 0;
    }
    if (k >= 0) {
      u = thrum_take_ones(source, THRUM_ESCAPE);
      u = u == THRUM_ESCAPE ? thrum_take(source, 32) : u << k | thrum_take(source, (uint32_t)k);
      if (source->left < 0) return 0;
    }
    z = thrum_plus((int32_t)(u >> 1 ^ (0u - (u & 1))), thrum_expected(predictor, z1, z2));
    y[i * step] = thrum_plus(base, z);
    if (predictor >= 4) base = y[i * step];
    z2 = z1;
    z1 = z;
    i++;
  }
  return source->left >= 0;
}

/* At most `most` bytes. Returns 0 when it does not end by then. */
static int thrum_take_leb128(thrum_source *source, uint32_t most, uint32_t *value) {
  uint32_t i;
  *value = 0;
  for (i = 0; i < most; i++) {
    uint32_t byte = thrum_take(source, 8);
    if (source->left < 0 || (i == 4 && byte > 0x0f)) return 0;
    *value |= (byte & 0x7fu) << 7 * i;
    if (byte < 0x80) return 1;
  }
  return 0;
}

THRUM_API int32_t thrum_unpack(const uint8_t *bytes, uint32_t length, uint32_t channels, int32_t *values, int32_t *times,
                               uint32_t count_max, thrum_unpacked *unpacked) {
  thrum_source source = {NULL, 0, 0};
  uint32_t lows[THRUM_CHANNELS_MAX];
  uint32_t lead, count, width, shift, c, i;
  int32_t reference = THRUM_NONE;
  if (channels < 1 || channels > THRUM_CHANNELS_MAX) return THRUM_E_INPUT;
  source.bytes = bytes;
  source.left = (int64_t)length * 8;
  lead = thrum_take(&source, 8);
  if (lead >> 4 != 1 || !thrum_take_leb128(&source, 3, &count) || count == 0) return THRUM_E_BLOCK;
  if (count > THRUM_COUNT_MAX) return THRUM_E_LARGE;
  unpacked->count = count;
  unpacked->exponent = -1;
  unpacked->has_times = (lead & THRUM_TIMED) != 0;
  unpacked->period = 0;
  if (unpacked->has_times && !thrum_take_leb128(&source, 5, &unpacked->period)) return THRUM_E_BLOCK;
  if (lead & THRUM_FLOAT) {
    int32_t exponent = (int32_t)thrum_take(&source, 8);
    if (exponent > 149 && exponent != 255 && (exponent < 193 || exponent > 201)) return THRUM_E_BLOCK;
    unpacked->exponent = exponent;
  }
  if (count > count_max) return THRUM_E_SPACE;
  if (unpacked->has_times && times == NULL) return THRUM_E_INPUT;
  width = thrum_take(&source, 5) + 1;
  shift = lead & THRUM_SHIFT ? thrum_take(&source, 5) : 0;
  memset(lows, 0, sizeof lows);
  for (c = 0; c < channels && (lead & THRUM_SHIFT); c++) {
    if (thrum_take(&source, 1)) lows[c] = thrum_take(&source, shift);
  }
  for (c = 0; c < channels; c++) {
    if (!thrum_take_channel(&source, lead & THRUM_PACK, width, count, values + c, channels, &reference)) return THRUM_E_BLOCK;
    for (i = 0; i < count; i++) {
      int32_t *value = values + i * channels + c;
      *value = (int32_t)((uint32_t)*value << shift | lows[c]);
    }
  }
  if (unpacked->has_times) {
    width = thrum_take(&source, 5) + 1;
    reference = THRUM_NONE;
    if (!thrum_take_channel(&source, lead & THRUM_PACK, width, count, times, 1, &reference)) return THRUM_E_BLOCK;
    for (i = 0; i < count; i++) times[i] = (int32_t)((uint32_t)times[i] + i * unpacked->period);
  }
  return source.left < 0 || source.left >= 8 ? THRUM_E_BLOCK : (int32_t)count;
}
#endif

#ifdef __cplusplus
}
#endif
#endif /* THRUM_IMPLEMENTATION */
