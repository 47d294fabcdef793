#pragma once
enum { WIFI_STA = 1, WL_CONNECTED = 3 };
struct WiFiRadio {
  void mode(int) {}
  void begin(const char *, const char *) {}
  int status() { return WL_CONNECTED; }
};
extern WiFiRadio WiFi;
