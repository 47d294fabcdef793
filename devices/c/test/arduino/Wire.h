#pragma once
#include <stdint.h>
/* An I2C bus with one ADXL345 on it, whose FIFO never runs over. Sample i is what simulated() in main.cpp says. */
class SensorBus {
public:
  void begin() {}
  void setClock(uint32_t) {}
  void beginTransmission(uint8_t) {}
  void write(uint8_t byte);
  uint8_t endTransmission(bool stop = true);
  uint8_t requestFrom(uint8_t address, uint8_t length);
  int read();

private:
  uint8_t written_[2] = {0, 0};
  uint8_t count_ = 0;
  uint8_t answer_[6] = {0, 0, 0, 0, 0, 0};
  uint8_t at_ = 0;
  uint32_t consumed_ = 0;
  bool is_measuring_ = false;
};
extern SensorBus Wire;
