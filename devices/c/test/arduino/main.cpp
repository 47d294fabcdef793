/* The stand-ins for the Arduino core, and the program that runs the sketch. See Arduino.h. */
#include "Arduino.h"
#include "WiFi.h"
#include "WiFiClientSecure.h"
#include "Wire.h"

#include <netdb.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

SerialPort Serial;
WiFiRadio WiFi;
SensorBus Wire;

int64_t esp_timer_get_time() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

uint32_t millis() { return (uint32_t)(esp_timer_get_time() / 1000); }

void delay(uint32_t ms) { usleep(ms * 1000); }

void esp_fill_random(void *out, size_t bytes) {
  static FILE *source = fopen("/dev/urandom", "rb");
  if (source == NULL || fread(out, 1, bytes, source) != bytes) abort();
}

uint32_t esp_random() {
  uint32_t u;
  esp_fill_random(&u, sizeof u);
  return u;
}

int SerialPort::printf(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int printed = vfprintf(stderr, format, arguments);
  va_end(arguments);
  return printed;
}

struct Semaphore {
  pthread_mutex_t mutex;
};

SemaphoreHandle_t xSemaphoreCreateMutex() {
  Semaphore *made = new Semaphore;
  pthread_mutex_init(&made->mutex, NULL);
  return made;
}

int xSemaphoreTake(SemaphoreHandle_t lock, int) { return pthread_mutex_lock(&lock->mutex) == 0; }

int xSemaphoreGive(SemaphoreHandle_t lock) { return pthread_mutex_unlock(&lock->mutex) == 0; }

void vTaskDelay(uint32_t ticks) { delay(ticks); }

struct Task {
  void (*task)(void *);
  void *with;
};

static void *run(void *given) {
  Task *task = (Task *)given;
  task->task(task->with);
  return NULL;
}

int xTaskCreatePinnedToCore(void (*task)(void *), const char *, uint32_t, void *with, int, TaskHandle_t *, int) {
  pthread_t thread;
  Task *given = new Task;
  given->task = task;
  given->with = with;
  return pthread_create(&thread, NULL, run, given) == 0;
}

/* ---- The sensor ---- */

/* Faster than the real one: a test is short. */
static const int64_t rate = 500;

static int16_t simulated(uint32_t i, int axis) {
  return (int16_t)(axis == 0 ? (int32_t)(i % 401) - 200 : axis == 1 ? (int32_t)(i * 7 % 1000) - 500 : 256 + (int32_t)(i % 3));
}

static uint32_t produced() {
  static const int64_t began = esp_timer_get_time();
  return (uint32_t)((esp_timer_get_time() - began) * rate / 1000000);
}

void SensorBus::write(uint8_t byte) {
  if (count_ < 2) written_[count_++] = byte;
}

uint8_t SensorBus::endTransmission(bool) {
  if (count_ == 2 && written_[0] == 0x2d) is_measuring_ = written_[1] == 0x08;
  if (is_measuring_) produced();
  count_ = 0;
  return 0;
}

uint8_t SensorBus::requestFrom(uint8_t, uint8_t length) {
  memset(answer_, 0, sizeof answer_);
  at_ = 0;
  if (written_[0] == 0x39 && is_measuring_) {
    uint32_t waiting = produced() - consumed_;
    answer_[0] = (uint8_t)(waiting < 63 ? waiting : 63);
  } else if (written_[0] == 0x32) {
    for (int axis = 0; axis < 3; axis++) {
      answer_[2 * axis] = (uint8_t)simulated(consumed_, axis);
      answer_[2 * axis + 1] = (uint8_t)(simulated(consumed_, axis) >> 8);
    }
    consumed_++;
  }
  return length;
}

int SensorBus::read() { return answer_[at_++]; }

/* ---- The network ---- */

int WiFiClientSecure::connect(const char *host, uint16_t port) {
  addrinfo hints, *found;
  char text[8];
  stop();
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  snprintf(text, sizeof text, "%u", (unsigned)port);
  if (getaddrinfo(host, text, &hints, &found) != 0) return 0;
  socket_ = ::socket(found->ai_family, found->ai_socktype, found->ai_protocol);
  bool is_open = socket_ >= 0 && ::connect(socket_, found->ai_addr, found->ai_addrlen) == 0;
  freeaddrinfo(found);
  if (!is_open) stop();
  is_over_ = false;
  return is_open;
}

size_t WiFiClientSecure::write(const uint8_t *bytes, size_t length) {
  ssize_t sent = socket_ < 0 ? 0 : send(socket_, bytes, length, MSG_NOSIGNAL);
  return sent < 0 ? 0 : (size_t)sent;
}

int WiFiClientSecure::available() {
  int waiting = 0;
  uint8_t byte;
  if (socket_ < 0 || ioctl(socket_, FIONREAD, &waiting) != 0) return 0;
  if (waiting == 0 && recv(socket_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) is_over_ = true;
  return waiting;
}

int WiFiClientSecure::read() {
  uint8_t byte;
  if (recv(socket_, &byte, 1, 0) == 1) return byte;
  is_over_ = true;
  return -1;
}

uint8_t WiFiClientSecure::connected() { return socket_ >= 0 && (!is_over_ || available() > 0); }

void WiFiClientSecure::stop() {
  if (socket_ >= 0) close(socket_);
  socket_ = -1;
}

int main() {
  setup();
  for (;;) loop();
}
