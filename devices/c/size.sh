#!/bin/sh
# Prints what thrum.h takes on a Cortex-M0: code and constants (with what it needs of libgcc and libc), RAM, stack.
# Needs arm-none-eabi-gcc and newlib (Debian: gcc-arm-none-eabi libnewlib-arm-none-eabi). CFLAGS replaces -Os.
set -eu
cd "$(dirname "$0")"
target="-std=c99 -mcpu=cortex-m0 -mthumb ${CFLAGS:--Os} -ffunction-sections -fdata-sections"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# size NAME FLAGS BODY: links a program that does no more than BODY, and prints its size without the program's own.
size() {
  cat >"$tmp/program.c" <<C
#define THRUM_IMPLEMENTATION
#include "thrum.h"
void *volatile given;
volatile uint32_t number;
volatile int32_t result;
#define AT(type) ((type *)given)
void entry(void) { $3 }
C
  # shellcheck disable=SC2086
  arm-none-eabi-gcc $target $2 -I. "$tmp/program.c" -o "$tmp/program" -nostartfiles -Wl,--gc-sections -Wl,-e,entry
  text=$(arm-none-eabi-size -A "$tmp/program" | awk '$1 == ".text" || $1 == ".rodata" { sum += $2 } END { print sum }')
  own=$(arm-none-eabi-nm -S "$tmp/program" | awk '$4 == "entry" { print $2 }')
  printf '%-34s %6d\n' "$1" $((text - 0x$own))
}

values16='thrum_values v = thrum_int16(AT(int16_t), number, number);'
values32='thrum_values v = thrum_float32(AT(uint32_t), number, number);'
pack='result = thrum_samples(AT(uint8_t), number, number, number, &v, AT(int32_t));'
hello='result = thrum_hello(AT(uint8_t), number, AT(char), AT(uint8_t), number, number);'
read='result = thrum_read(AT(uint8_t), number, AT(thrum_message));'
ring='thrum_ring_init(AT(thrum_ring), AT(uint8_t), number); result = thrum_ring_add(AT(thrum_ring), AT(uint8_t), number);
  result = thrum_ring_peek(AT(thrum_ring), AT(thrum_frame)); thrum_ring_sent(AT(thrum_ring), AT(thrum_frame));
  result = thrum_ring_take(AT(thrum_ring), AT(thrum_message)); thrum_ring_disconnect(AT(thrum_ring));
  result = (int32_t)thrum_ring_oldest(AT(thrum_ring)); result = (int32_t)thrum_ring_unsent(AT(thrum_ring));'
unpack='result = thrum_unpack(AT(uint8_t), number, number, AT(int32_t), AT(int32_t), number, AT(thrum_unpacked));'

echo "$(arm-none-eabi-gcc --version | head -n 1), ${CFLAGS:--Os}, bytes"
size 'encoder, all predictors' '' "$values16 $pack"
size 'encoder, three predictors' -DTHRUM_PREDICTORS_CHEAP "$values16 $pack"
size 'encoder with float32' '' "$values32 $pack"
size 'hello' '' "$hello"
size 'reader of the server' '' "$read"
size 'ring' '' "$ring"
size 'all of it, three predictors' -DTHRUM_PREDICTORS_CHEAP "$values16 $pack $hello $read $ring"
size 'all of it' '' "$values16 $pack $hello $read $ring"
size 'decoder' -DTHRUM_DECODER "$unpack"

cat >"$tmp/ram.c" <<C
#include "thrum.h"
thrum_ring ring;
thrum_message message;
uint8_t frame16[THRUM_FRAME_MAX(50, 3, 16)];
int16_t input16[50 * 3];
int32_t scratch[50];
C
# shellcheck disable=SC2086
arm-none-eabi-gcc $target -I. -c "$tmp/ram.c" -o "$tmp/ram.o"
echo "RAM, bytes"
arm-none-eabi-nm -S --size-sort "$tmp/ram.o" | while read -r _ bytes _ name; do
  case $name in
    ring) what='thrum_ring, without its memory' ;;
    message) what='thrum_message' ;;
    frame16) what='a frame of 50 samples of 3 int16' ;;
    input16) what='its input' ;;
    scratch) what='its scratch' ;;
  esac
  printf '%-34s %6d\n' "$what" $((0x$bytes))
done

# The deepest way down: a frame is packed.
printf '#define THRUM_IMPLEMENTATION\n#include "thrum.h"\n' >"$tmp/stack.c"
# shellcheck disable=SC2086
arm-none-eabi-gcc $target -fno-inline -fstack-usage -I. -c "$tmp/stack.c" -o "$tmp/stack.o"
awk -F '[:\t]' '
  { used[$4] = $5 }
  END {
    n = split("thrum_samples thrum_plan_values thrum_plan_block thrum_plan_channel thrum_residuals thrum_rice_bits", way, " ")
    for (i = 1; i <= n; i++) sum += used[way[i]]
    printf "%-34s %6d\n", "stack, packing a frame", sum
  }' "$tmp/stack.su"
