/*
 * An ADXL345 on an ESP32, streamed to a Thrum server over TLS: 100 Hz, three axes, nothing lost while the network is
 * away for less than about two minutes. See the README beside this folder.
 *
 * Two tasks. One empties the sensor's FIFO (32 samples, 320 ms), packs 50 samples to a frame and puts it into the ring;
 * nothing it does waits for the network. The other, Arduino's loop(), connects, sends and listens. They share the ring,
 * under a lock that is never held while bytes are sent.
 */
#include <esp_timer.h>
#if __has_include(<esp_random.h>)  // its place before ESP-IDF 4.4 was another, which Arduino.h includes
#include <esp_random.h>
#endif
#include <WiFi.h>
#include <WiFiClientSecure.h>
#include <Wire.h>

#define THRUM_IMPLEMENTATION
#include "thrum.h"
#define THRUM_WEBSOCKET_IMPLEMENTATION
#include "thrum_websocket.h"

#include "config.h"

enum { RATE = 100, COUNT = 50, CHANNELS = 3, RING_BYTES = 48 * 1024 };
enum { SILENCE_MS = 20000, BEAT_MS = 5000, HANDSHAKE_MS = 10000 };

static uint8_t memory[RING_BYTES];
static thrum_ring ring;
static SemaphoreHandle_t lock;
static uint8_t boot_id[8];

/* ---- The sensor ---- */

enum { ADXL345 = 0x53 };
enum { BW_RATE = 0x2c, POWER_CTL = 0x2d, INT_SOURCE = 0x30, DATA_FORMAT = 0x31, DATA = 0x32, FIFO_CTL = 0x38, FIFO_STATUS = 0x39 };

static void set_register(uint8_t address, uint8_t value) {
  Wire.beginTransmission(ADXL345);
  Wire.write(address);
  Wire.write(value);
  Wire.endTransmission();
}

static bool get_registers(uint8_t address, uint8_t *out, uint8_t length) {
  Wire.beginTransmission(ADXL345);
  Wire.write(address);
  if (Wire.endTransmission(false) != 0 || Wire.requestFrom((uint8_t)ADXL345, length) != length) return false;
  for (uint8_t i = 0; i < length; i++) out[i] = (uint8_t)Wire.read();
  return true;
}

static void start_sensor() {
  Wire.begin();
  Wire.setClock(400000);
  set_register(POWER_CTL, 0x00);
  set_register(BW_RATE, 0x0a);      // 100 Hz
  set_register(DATA_FORMAT, 0x0b);  // full resolution, ±16 g: 3.9 mg a count, right-justified
  set_register(FIFO_CTL, 0x80);     // stream: the newest 32
  set_register(POWER_CTL, 0x08);    // measure
}

/* Packs what was collected and keeps it. `index`: of its first sample. */
static void keep(const int16_t *samples, uint32_t count, uint64_t index, uint64_t t0) {
  static int32_t scratch[COUNT];
  static uint8_t frame[THRUM_FRAME_MAX(COUNT, CHANNELS, 16)];
  thrum_values values = thrum_int16(samples, count, CHANNELS);
  int32_t length = thrum_samples(frame, sizeof frame, index, t0, &values, scratch);
  if (length <= 0) return;
  xSemaphoreTake(lock, portMAX_DELAY);
  int32_t dropped = thrum_ring_add(&ring, frame, (uint32_t)length);
  uint32_t all = ring.dropped_frames;
  xSemaphoreGive(lock);
  if (dropped > 0) Serial.printf("The ring is full: %lu frames dropped so far\n", (unsigned long)all);
}

static void sample(void *) {
  static int16_t samples[COUNT * CHANNELS];
  uint64_t index = 0;  // of the next sample
  uint64_t t0 = 0;
  uint64_t last_us = (uint64_t)esp_timer_get_time();
  uint32_t count = 0;
  for (;;) {
    uint8_t status, source, bytes[6];
    vTaskDelay(pdMS_TO_TICKS(50));
    uint64_t now_us = (uint64_t)esp_timer_get_time();
    if (!get_registers(INT_SOURCE, &source, 1) || !get_registers(FIFO_STATUS, &status, 1)) continue;
    uint32_t waiting = status & 0x3f;
    if (source & 0x01) {
      // The FIFO ran over. What it held before is gone: those instants keep their indexes, as a gap.
      uint64_t instants = (now_us - last_us) * RATE / 1000000;
      if (count > 0) keep(samples, count, index - count, t0);
      count = 0;
      if (instants > waiting) index += instants - waiting;
    }
    for (uint32_t left = waiting; left > 0 && get_registers(DATA, bytes, 6); left--) {
      if (count == 0) t0 = now_us - (uint64_t)(left - 1) * (1000000 / RATE);
      for (int c = 0; c < CHANNELS; c++) {
        samples[count * CHANNELS + c] = (int16_t)(bytes[2 * c] | bytes[2 * c + 1] << 8);
      }
      count++;
      index++;
      if (count == COUNT) {
        keep(samples, count, index - count, t0);
        count = 0;
      }
    }
    last_us = now_us;
  }
}

/* ---- The connection ---- */

static WiFiClientSecure client;
static thrum_ws_parser parser;
static uint32_t tries, code, retry_after, heard_ms, beat_ms;

/* One WebSocket frame in one write, which makes it one TLS record. */
static bool send_frame(uint8_t opcode, const uint8_t *bytes, uint32_t length) {
  static uint8_t out[THRUM_WS_HEADER_MAX + THRUM_FRAME_MAX(COUNT, CHANNELS, 16)];
  uint8_t mask[4];
  if (length > sizeof out - THRUM_WS_HEADER_MAX) return false;
  esp_fill_random(mask, sizeof mask);
  uint32_t head = thrum_ws_header(out, opcode, length, mask);
  memcpy(out + head, bytes, length);
  thrum_ws_mask(out + head, length, mask, 0);
  return client.write(out, head + length) == head + length;
}

/* Opens a WebSocket and says hello. */
static bool open_connection() {
  static thrum_ws_reply reply;
  char request[512];
  uint8_t nonce[16], hello[THRUM_HELLO_MAX];
  if (WiFi.status() != WL_CONNECTED || !client.connect(SERVER_HOST, SERVER_PORT)) return false;
  esp_fill_random(nonce, sizeof nonce);
  int32_t length = thrum_ws_request(request, sizeof request, SERVER_HOST, INGEST_PATH, nonce, NULL);
  if (length < 0 || client.write((const uint8_t *)request, (size_t)length) != (size_t)length) return false;
  thrum_ws_expect(&reply, nonce);
  int32_t answer = 0;
  for (uint32_t began = millis(); answer == 0;) {
    if (client.available() > 0) answer = thrum_ws_answer(&reply, (uint8_t)client.read());
    else if (!client.connected() || millis() - began > HANDSHAKE_MS) return false;
    else delay(5);
  }
  if (answer < 0) {
    Serial.printf("The server answered %ld\n", (long)-answer);
    return false;
  }
  memset(&parser, 0, sizeof parser);
  xSemaphoreTake(lock, portMAX_DELAY);
  length = thrum_hello(hello, sizeof hello, INGEST_KEY, boot_id, sizeof boot_id, thrum_ring_oldest(&ring));
  xSemaphoreGive(lock);
  return length > 0 && send_frame(THRUM_WS_BINARY, hello, (uint32_t)length);
}

/* Acts on one message of the server. */
static bool take_message() {
  thrum_message message;
  if (thrum_read(parser.message, parser.message_bytes, &message) < 0) return false;
  xSemaphoreTake(lock, portMAX_DELAY);
  uint64_t durable = ring.durable;
  int32_t error = thrum_ring_take(&ring, &message);
  if (ring.durable > durable) tries = 0;
  xSemaphoreGive(lock);
  if (message.kind == THRUM_ERROR) {
    code = message.code;
    retry_after = message.retry_after;
    Serial.printf("The server says %lu: %.*s\n", (unsigned long)code, (int)message.text_bytes, message.text);
  }
  if (error == THRUM_OK) return true;
  Serial.printf("The server is at an index that was never sent (%ld)\n", (long)error);
  return false;
}

/* Hears what came; false when the connection is over. */
static bool hear() {
  while (client.available() > 0) {
    heard_ms = millis();
    switch (thrum_ws_feed(&parser, (uint8_t)client.read())) {
      case THRUM_WS_MESSAGE:
        if (!take_message()) return false;
        break;
      case THRUM_WS_PINGED:
        if (!send_frame(THRUM_WS_PONG, parser.control, parser.control_bytes)) return false;
        break;
      case THRUM_WS_CLOSED:
        if (parser.close_code != 1005) code = parser.close_code;
        return false;
      case THRUM_WS_BAD:
        return false;
      default:
        break;
    }
  }
  return client.connected() && millis() - heard_ms <= SILENCE_MS;
}

/* Sends what the window has room for; false when the connection is over. */
static bool speak() {
  static uint8_t copy[THRUM_FRAME_MAX(COUNT, CHANNELS, 16)];
  thrum_frame frame;
  for (;;) {
    xSemaphoreTake(lock, portMAX_DELAY);
    bool is_next = thrum_ring_peek(&ring, &frame);
    // The other task may add a frame, and so overwrite this one, while it is being sent.
    if (is_next) memcpy(copy, frame.bytes, frame.length);
    xSemaphoreGive(lock);
    if (!is_next) break;
    if (!send_frame(THRUM_WS_BINARY, copy, frame.length)) return false;
    xSemaphoreTake(lock, portMAX_DELAY);
    thrum_ring_sent(&ring, &frame);
    xSemaphoreGive(lock);
    if (!hear()) return false;
  }
  if (!ring.is_welcome || millis() - beat_ms < BEAT_MS) return true;
  uint8_t time[THRUM_TIME_MAX];
  int32_t length = thrum_time(time, sizeof time, (uint64_t)esp_timer_get_time());
  beat_ms = millis();
  return send_frame(THRUM_WS_BINARY, time, (uint32_t)length);
}

void setup() {
  Serial.begin(115200);
  lock = xSemaphoreCreateMutex();
  WiFi.mode(WIFI_STA);
  WiFi.begin(WIFI_NAME, WIFI_PASSWORD);  // it reconnects by itself
  client.setCACert(ROOT_CA);
  // A power-up: new boot id, index 0. The random generator is a true one once the radio is on.
  esp_fill_random(boot_id, sizeof boot_id);
  thrum_ring_init(&ring, memory, sizeof memory);
  start_sensor();
  // Above loop(): a TLS handshake takes seconds, the FIFO lasts 320 ms.
  xTaskCreatePinnedToCore(sample, "sample", 4096, NULL, 5, NULL, 1);
}

void loop() {
  code = retry_after = 0;
  bool is_open = open_connection();
  heard_ms = beat_ms = millis();
  while (is_open) {
    is_open = hear() && speak();
    delay(10);
  }
  client.stop();
  xSemaphoreTake(lock, portMAX_DELAY);
  thrum_ring_disconnect(&ring);
  xSemaphoreGive(lock);

  int come = thrum_come_back(code, 0);
  if (come == THRUM_DONE || come == THRUM_COME_NEVER) {
    Serial.printf("Not coming back: %lu\n", (unsigned long)code);
    for (;;) delay(60000);
  }
  delay(thrum_wait_ms(come, tries++, retry_after, esp_random()));
}
