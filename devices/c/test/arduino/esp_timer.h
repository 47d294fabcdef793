#pragma once
/* esp_timer_get_time is in Arduino.h. */
