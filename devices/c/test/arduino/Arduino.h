/*
 * As much of the Arduino core for ESP32 as examples/esp32 uses, on POSIX: so that the sketch can be compiled and run on a
 * PC by a test. TLS is left out (WiFiClientSecure is a plain socket), the sensor is simulated (Wire).
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

uint32_t millis();
void delay(uint32_t ms);
int64_t esp_timer_get_time();
uint32_t esp_random();
void esp_fill_random(void *out, size_t bytes);

struct SerialPort {
  void begin(unsigned long) {}
  int printf(const char *format, ...) __attribute__((format(printf, 2, 3)));
};
extern SerialPort Serial;

typedef struct Semaphore *SemaphoreHandle_t;
typedef void *TaskHandle_t;
enum { portMAX_DELAY = -1 };
#define pdMS_TO_TICKS(ms) (ms)
SemaphoreHandle_t xSemaphoreCreateMutex();
int xSemaphoreTake(SemaphoreHandle_t lock, int ticks);
int xSemaphoreGive(SemaphoreHandle_t lock);
void vTaskDelay(uint32_t ticks);
int xTaskCreatePinnedToCore(void (*task)(void *), const char *name, uint32_t stack, void *with, int priority,
                            TaskHandle_t *handle, int core);

void setup();
void loop();
