/*
 * The ring under random operations: against a plain list of the frames it must hold, and against a server as
 * docs/PROTOCOL.md §6 has it, with a network that cuts, a queue that fills up and a process that crashes.
 * Included by thrum_test.c, after the implementation.
 */

#define HOLD(condition)                                                                                \
  do {                                                                                                 \
    if (!(condition)) {                                                                                \
      fprintf(stderr, "%s:%d: broken with seed %lu at step %lu: %s\n", __FILE__, __LINE__,             \
              (unsigned long)ring_seed, (unsigned long)ring_step, #condition);                         \
      exit(1);                                                                                         \
    }                                                                                                  \
  } while (0)

static uint32_t ring_seed, ring_step, ring_noise;

static uint32_t noise(void) {
  ring_noise ^= ring_noise << 13;
  ring_noise ^= ring_noise >> 17;
  ring_noise ^= ring_noise << 5;
  return ring_noise;
}

static uint32_t below(uint32_t end) { return noise() % end; }

static void seed_noise(uint32_t seed) {
  ring_seed = seed;
  ring_noise = seed * 2654435761u + 88172645u;
  if (ring_noise == 0) ring_noise = 1;
}

/* A samples frame whose bytes follow from its index: `filler` bytes stand for the bits. */
static uint32_t make_frame(uint8_t *out, uint64_t index, uint32_t count, uint32_t filler) {
  uint8_t *at = out;
  uint32_t block = 1 + thrum_leb128_bytes(count) + filler;
  uint32_t i;
  *at++ = 0x94;
  *at++ = 2;
  at = thrum_put_integer(at, index, 0xcf);
  *at++ = 0xc0;
  *at++ = 0xc5;
  *at++ = (uint8_t)(block >> 8);
  *at++ = (uint8_t)block;
  *at++ = 0x10;
  at = thrum_put_leb128(at, count);
  for (i = 0; i < filler; i++) *at++ = (uint8_t)(index * 7 + i * 13);
  return (uint32_t)(at - out);
}

/* ---- Against a list ---- */

enum { LIST_MAX = 4096, FILLER_MAX = 90, FRAME_BYTES_MAX = FILLER_MAX + 30 };

typedef struct listed {
  uint64_t index, next;
  uint32_t count, filler, length;
} listed;

typedef struct list {
  listed frames[LIST_MAX];
  /* kept: [first, last); to send: [cursor, last); not received: [flight, cursor) */
  uint32_t first, flight, cursor, last;
  uint32_t gone_bytes;
  uint64_t gone_next, sent, received, durable, next, dropped;
  uint32_t window;
  int is_welcome;
} list;

static uint32_t list_used(const list *m) {
  uint32_t used = 0, i;
  for (i = m->first; i < m->last; i++) used += 2 + m->frames[i].length;
  return used;
}

static uint32_t list_flying(const list *m) {
  uint32_t bytes = m->gone_bytes, i;
  for (i = m->flight; i < m->cursor; i++) bytes += m->frames[i].length;
  return bytes;
}

static void list_drop(list *m) {
  const listed *oldest = &m->frames[m->first];
  if (m->flight <= m->first && m->cursor > m->first) {
    m->gone_bytes += oldest->length;
    m->gone_next = oldest->next;
  }
  m->dropped += oldest->next - oldest->index;
  m->first++;
  if (m->flight < m->first) m->flight = m->first;
  if (m->cursor < m->first) m->cursor = m->first;
}

static void list_go_to(list *m, uint64_t next) {
  m->cursor = m->first;
  while (m->cursor < m->last && m->frames[m->cursor].index < next) m->cursor++;
  m->flight = m->cursor;
  m->gone_bytes = 0;
  m->sent = m->received = next;
}

static void check_list(const thrum_ring *ring, const list *m) {
  thrum_frame frame;
  uint8_t bytes[FRAME_BYTES_MAX];
  int expected = m->is_welcome && m->cursor < m->last;
  uint32_t flying = list_flying(m);
  if (expected && flying > 0 && flying + m->frames[m->cursor].length > m->window) expected = 0;
  HOLD(thrum_ring_peek(ring, &frame) == expected);
  HOLD(ring->kept == m->last - m->first);
  HOLD(thrum_ring_oldest(ring) == (m->first < m->last ? m->frames[m->first].index : m->next));
  HOLD(thrum_ring_unsent(ring) == m->last - (m->is_welcome ? m->cursor : m->first));
  HOLD(ring->dropped_samples == m->dropped);
  HOLD(ring->next == m->next && ring->sent == m->sent && ring->received == m->received && ring->durable == m->durable);
  if (expected) {
    const listed *next = &m->frames[m->cursor];
    HOLD(frame.index == next->index && frame.next == next->next && frame.length == next->length);
    HOLD(frame.gap == (next->index > m->sent ? next->index - m->sent : 0));
    make_frame(bytes, next->index, next->count, next->filler);
    HOLD(memcmp(bytes, frame.bytes, frame.length) == 0);
  }
}

static int32_t tell(thrum_ring *ring, int32_t kind, uint64_t a, uint64_t b, uint32_t window) {
  thrum_message message;
  memset(&message, 0, sizeof message);
  message.kind = kind;
  message.version = 1;
  message.next = a;
  message.received = a;
  message.durable = b;
  message.window = window;
  return thrum_ring_take(ring, &message);
}

static void model_add(thrum_ring *ring, list *m, uint32_t size) {
  uint8_t bytes[FRAME_BYTES_MAX];
  listed frame;
  int32_t dropped;
  uint32_t before = 0;
  frame.index = m->next + (below(10) == 0 ? below(1000) : 0);
  frame.count = 1 + below(below(4) == 0 ? 4096 : 100);
  frame.filler = below(FILLER_MAX);
  frame.next = frame.index + frame.count;
  frame.length = make_frame(bytes, frame.index, frame.count, frame.filler);
  if (frame.length + 2 > size) {
    HOLD(thrum_ring_add(ring, bytes, frame.length) == THRUM_E_LARGE);
    return;
  }
  HOLD(thrum_ring_add(ring, bytes, frame.length - 1) == THRUM_E_FRAME);
  {
    int has_room = thrum_ring_has_room(ring, frame.length);
    dropped = thrum_ring_add(ring, bytes, frame.length);
    HOLD(has_room == (dropped == 0));
  }
  HOLD(dropped >= 0 && (uint32_t)dropped <= m->last - m->first);
  for (; dropped > 0; dropped--) {
    before = list_used(m);
    list_drop(m);
  }
  /* It drops no more than it must: with this much room left it would have found a place. */
  if (before > 0) HOLD(before + 2 * (FRAME_BYTES_MAX + 2) > size);
  HOLD(list_used(m) + frame.length + 2 <= size);
  m->frames[m->last++] = frame;
  m->next = frame.next;
  HOLD(thrum_ring_add(ring, bytes, frame.length) == THRUM_E_ORDER);
}

/* An index at the edge of a frame, from `from` in the list on, or the one after all. */
static uint64_t edge(const list *m, uint32_t from) {
  uint32_t i = from + below(m->last - from + 1);
  return i < m->last ? m->frames[i].index : m->next;
}

static void ring_model(uint32_t seed, uint32_t steps) {
  static list m;
  thrum_ring ring;
  uint32_t size;
  uint8_t *memory;
  uint64_t seen = 0;
  seed_noise(seed);
  size = 20 + below(below(2) ? 300 : 5000);
  memory = (uint8_t *)malloc(size);
  if (memory == NULL) abort();
  memset(&m, 0, sizeof m);
  memset(memory, (int)below(256), size);
  thrum_ring_init(&ring, memory, size);
  for (ring_step = 0; ring_step < steps; ring_step++) {
    thrum_frame frame;
    if (m.last == LIST_MAX) {
      memmove(m.frames, m.frames + m.first, (m.last - m.first) * sizeof m.frames[0]);
      m.last -= m.first;
      m.cursor -= m.first;
      m.flight -= m.first;
      m.first = 0;
    }
    switch (below(12)) {
      case 0: case 1: case 2: case 3:
        model_add(&ring, &m, size);
        break;
      case 4: case 5: case 6:
        if (!thrum_ring_peek(&ring, &frame)) break;
        if (below(8) == 0) {
          /* Another task adds while this one sends. */
          uint32_t at = m.cursor;
          listed sending = m.frames[at];
          if (m.last + 1 >= LIST_MAX) break;
          model_add(&ring, &m, size);
          thrum_ring_sent(&ring, &frame);
          if (m.first > at) {
            m.gone_bytes += sending.length;
            m.gone_next = sending.next;
          } else m.cursor++;
          m.sent = sending.next;
        } else {
          thrum_ring_sent(&ring, &frame);
          m.sent = m.frames[m.cursor++].next;
        }
        seen++;
        break;
      case 7: case 8: {
        uint64_t received = m.flight < m.cursor ? m.frames[m.flight + below(m.cursor - m.flight)].next : m.received;
        uint64_t durable = m.first < m.cursor ? m.frames[m.first + below(m.cursor - m.first)].next : m.durable;
        uint32_t window = below(2000);
        /* A server that goes on by itself after a rewind may free what was not sent again. */
        if (below(50) == 0) durable = edge(&m, m.first);
        if (durable < m.durable) durable = m.durable;
        if (!m.is_welcome) {
          HOLD(tell(&ring, THRUM_ACK, received, durable, window) == THRUM_E_EARLY);
          break;
        }
        HOLD(tell(&ring, THRUM_ACK, received, m.next + 1, window) == THRUM_E_RESUME);
        HOLD(tell(&ring, THRUM_ACK, m.next + 1, durable, window) == THRUM_E_RESUME);
        HOLD(tell(&ring, THRUM_ACK, received, durable, window) == THRUM_OK);
        m.window = window;
        m.received = received;
        m.durable = durable;
        if (m.gone_next <= received) m.gone_bytes = 0;
        while (m.flight < m.cursor && m.frames[m.flight].next <= received) m.flight++;
        while (m.first < m.last && m.frames[m.first].next <= durable) m.first++;
        if (m.cursor < m.first) m.cursor = m.first;
        if (m.flight < m.first) m.flight = m.first;
        if (m.sent < durable) m.sent = durable;
        break;
      }
      case 9:
      case 10: {
        int is_welcome = below(2) == 0;
        uint64_t next = edge(&m, m.first);
        int32_t kind = is_welcome ? THRUM_WELCOME : THRUM_REWIND;
        if (!is_welcome && !m.is_welcome) {
          HOLD(tell(&ring, kind, next, 0, 100) == THRUM_E_EARLY);
          break;
        }
        if (m.first < m.last) {
          const listed *torn = &m.frames[m.first + below(m.last - m.first)];
          if (torn->count > 1) HOLD(tell(&ring, kind, torn->index + 1, 0, 100) == THRUM_E_RESUME);
        }
        HOLD(tell(&ring, kind, m.next + 1, 0, 100) == THRUM_E_RESUME);
        /* What the ring has dropped, the server may still ask for. */
        if (below(4) == 0 && next > 0) next = m.first < m.last ? m.frames[m.first].index - below(2) * (m.frames[m.first].index > 0) : next;
        HOLD(tell(&ring, kind, next, 0, 100 + below(2000) * 0 + m.window) == THRUM_OK);
        list_go_to(&m, next);
        if (is_welcome) {
          m.is_welcome = 1;
          m.window += 100;
        }
        break;
      }
      default:
        if (below(4) != 0) break;
        thrum_ring_disconnect(&ring);
        m.is_welcome = 0;
        break;
    }
    check_list(&ring, &m);
  }
  free(memory);
  printf("ok %lu steps, %lu frames sent, %lu dropped\n", (unsigned long)steps, (unsigned long)seen,
         (unsigned long)ring.dropped_frames);
}

/* ---- Against a server ---- */

enum { WIRE_MAX = 512 };

typedef struct wired {
  int32_t kind;
  uint64_t a, b;
  uint32_t length;
  uint8_t bytes[FRAME_BYTES_MAX];
} wired;

typedef struct wire {
  wired messages[WIRE_MAX];
  uint32_t first, last;
} wire;

typedef struct server {
  uint64_t shown, queued, durable;
  /* 0 none, 1 wanted, 2 told */
  int rewind;
  int is_full;
  /* Since the rewind was told: whether the device has gone back; bytes of what came and did not go back. */
  int has_turned;
  uint32_t bytes_since_told;
  uint64_t last_next;
  uint32_t window;
  /* Of each index: 0 never seen, 1 stored, 2 told to be missing. */
  uint8_t *stored;
  uint64_t size;
  wire in, out;
  uint32_t rewinds, crashes;
} server;

static wired *wire_put(wire *w) {
  HOLD(w->last - w->first < WIRE_MAX);
  return &w->messages[w->last++ % WIRE_MAX];
}

static void server_say(server *s, int32_t kind, uint64_t a, uint64_t b) {
  wired *message = wire_put(&s->out);
  message->kind = kind;
  message->a = a;
  message->b = b;
}

static uint64_t server_received(const server *s) { return s->rewind == 2 ? s->queued : s->shown; }

static void server_ack(server *s) { server_say(s, THRUM_ACK, server_received(s), s->durable); }

static void server_mark(server *s, uint64_t from, uint64_t to, uint8_t mark) {
  for (; from < to; from++) {
    /* Never stored twice, never stored after it was told to be missing. */
    HOLD(from < s->size && s->stored[from] == 0);
    s->stored[from] = mark;
  }
}

/* What was shown and is not resent is lost. */
static void server_give_up(server *s) {
  server_mark(s, s->queued, s->shown, 2);
  s->queued = s->shown;
  s->rewind = 0;
}

static void server_tell(server *s, int has_turned) {
  s->rewind = 2;
  s->has_turned = has_turned;
  s->bytes_since_told = 0;
}

static void server_frame(server *s, const wired *message) {
  uint64_t index, next;
  uint8_t bytes[FRAME_BYTES_MAX];
  uint32_t filler, length;
  HOLD(thrum_span(message->bytes, message->length, &index, &next));
  filler = message->length - make_frame(bytes, index, (uint32_t)(next - index), 0);
  length = make_frame(bytes, index, (uint32_t)(next - index), filler);
  HOLD(length == message->length && memcmp(bytes, message->bytes, length) == 0);
  if (index == s->queued || index < s->last_next) s->has_turned = 1;
  s->last_next = next;
  if (s->rewind == 2 && (index >= s->shown || !s->has_turned)) {
    s->bytes_since_told += message->length;
    if (s->bytes_since_told > 2 * s->window) server_give_up(s);
  }
  if (index >= s->shown) {
    if (s->rewind == 0) {
      if (s->is_full) s->rewind = 1;
      else {
        server_mark(s, s->queued, index, 2);
        server_mark(s, index, next, 1);
        s->queued = next;
      }
    }
    s->shown = next;
  } else if (next <= s->queued) {
    /* A repeat: never of what was told to be missing. */
    for (; index < next; index++) HOLD(s->stored[index] == 1);
  } else {
    /* An overlap is a broken promise. */
    HOLD(index >= s->queued && next <= s->shown);
    /* What was on its way when the rewind left comes again in its turn. */
    if (s->rewind != 2 || !s->has_turned) return;
    s->bytes_since_told = 0;
    if (s->is_full) {
      s->rewind = 1;
      return;
    }
    server_mark(s, s->queued, index, 2);
    server_mark(s, index, next, 1);
    s->queued = next;
    if (s->queued == s->shown) s->rewind = 0;
  }
}

static void server_turn(server *s) {
  if (s->in.first < s->in.last && below(3) > 0) server_frame(s, &s->in.messages[s->in.first++ % WIRE_MAX]);
  if (below(40) == 0) s->is_full = below(3) == 0;
  if (!s->is_full && s->rewind == 1 && below(4) == 0) {
    server_tell(s, 0);
    s->rewinds++;
    server_ack(s);
    server_say(s, THRUM_REWIND, s->queued, 0);
  }
  if (!s->is_full && below(6) == 0) s->durable = s->queued;
  if (below(8) == 0 && s->out.last - s->out.first < WIRE_MAX - 8) server_ack(s);
}

/* The process dies: what is not durable never was. */
static void server_crash(server *s) {
  uint64_t i;
  for (i = s->durable; i < s->queued; i++) s->stored[i] = 0;
  s->shown = s->queued = s->durable;
  s->rewind = 0;
  s->crashes++;
}

static void ring_stream(uint32_t seed, uint32_t frames) {
  static server s;
  thrum_ring ring;
  uint8_t bytes[FRAME_BYTES_MAX];
  uint8_t *memory, *produced;
  uint32_t size, made = 0, resent = 0, cuts = 0, faults;
  uint64_t i, missing = 0, high = 0;
  int is_up = 0;
  seed_noise(seed);
  size = below(2) ? 400 + below(2000) : 65536;
  faults = 20 + below(400);
  memory = (uint8_t *)malloc(size);
  memset(&s, 0, sizeof s);
  s.size = (uint64_t)frames * 40;
  s.stored = (uint8_t *)calloc((size_t)s.size, 1);
  produced = (uint8_t *)calloc((size_t)s.size, 1);
  if (memory == NULL || s.stored == NULL || produced == NULL) abort();
  s.window = 200 + below(3000);
  thrum_ring_init(&ring, memory, size);
  for (ring_step = 0;; ring_step++) {
    int is_over = made == frames;
    thrum_frame frame;
    HOLD(ring_step < 2000 * (frames + 100));
    if (is_over && ring.kept == 0) break;
    if (!is_over && below(3) == 0) {
      uint64_t index = ring.next + (below(20) == 0 ? below(20) : 0);
      uint32_t count = 1 + below(20);
      uint32_t length = make_frame(bytes, index, count, below(FILLER_MAX));
      HOLD(thrum_ring_add(&ring, bytes, length) >= 0);
      for (i = index; i < index + count; i++) produced[i] = 1;
      made++;
    }
    if (!is_up) {
      if (below(10) == 0) {
        is_up = 1;
        if (s.rewind != 0) server_tell(&s, 1);
        server_say(&s, THRUM_WELCOME, server_received(&s), 0);
      }
      continue;
    }
    if (below(2) == 0 && s.in.last - s.in.first < WIRE_MAX && thrum_ring_peek(&ring, &frame)) {
      wired *message = wire_put(&s.in);
      memcpy(message->bytes, frame.bytes, frame.length);
      message->length = frame.length;
      resent += frame.index < high;
      high = frame.next > high ? frame.next : high;
      /* A connection may break after the last byte left and before that was known. */
      if (below(200) != 0) thrum_ring_sent(&ring, &frame);
      else {
        thrum_ring_disconnect(&ring);
        is_up = 0;
        if (below(2) == 0) server_turn(&s);
        s.in.first = s.in.last;
        s.out.first = s.out.last;
        continue;
      }
    }
    server_turn(&s);
    if (s.out.first < s.out.last && below(3) > 0) {
      const wired *message = &s.out.messages[s.out.first++ % WIRE_MAX];
      HOLD(tell(&ring, message->kind, message->a, message->b, s.window) == THRUM_OK);
    }
    if (below(faults) == 0 && !(is_over && below(20) > 0)) {
      uint32_t arrives = below(s.in.last - s.in.first + 1);
      for (; arrives > 0; arrives--) server_frame(&s, &s.in.messages[s.in.first++ % WIRE_MAX]);
      s.in.first = s.in.last;
      s.out.first = s.out.last;
      is_up = 0;
      cuts++;
      thrum_ring_disconnect(&ring);
      if (below(3) == 0) server_crash(&s);
    }
  }
  HOLD(ring.durable == ring.next);
  for (i = 0; i < ring.next; i++) {
    HOLD(produced[i] || s.stored[i] != 1);
    missing += produced[i] && s.stored[i] != 1;
  }
  HOLD(missing <= ring.dropped_samples);
  printf("ok %lu frames, %lu cuts, %lu crashes, %lu rewinds, %lu sent again, %lu samples dropped, %lu missing\n",
         (unsigned long)frames, (unsigned long)cuts, (unsigned long)s.crashes, (unsigned long)s.rewinds,
         (unsigned long)resent, (unsigned long)ring.dropped_samples, (unsigned long)missing);
  free(memory);
  free(s.stored);
  free(produced);
}
