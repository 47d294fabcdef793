#pragma once
#include <stddef.h>
#include <stdint.h>
class WiFiClientSecure {
public:
  void setCACert(const char *) {}
  int connect(const char *host, uint16_t port);
  size_t write(const uint8_t *bytes, size_t length);
  int available();
  int read();
  uint8_t connected();
  void stop();

private:
  int socket_ = -1;
  bool is_over_ = false;
};
