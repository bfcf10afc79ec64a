/* Says what it was given, then ticks about nine times a second; `ticks=N` resets after N. */
#include "machine.h"

void main(const u8 *info) {
    const char *line = cmdline(info);
    u64 last = parameter(line, "ticks");
    print("hello from a roost guest\ncmdline: ");
    print(line);
    print("\nmemory: ");
    /* The hole for the BIOS makes it a little less than what was asked for. */
    print_number((memory_bytes(info) + (1 << 20) - 1) >> 20);
    print(" MiB\n");
    for (u64 tick = 1;; tick++) {
        print("tick ");
        print_number(tick);
        put('\n');
        if (tick == last) reset();
        wait(65535);
        wait(65535);
    }
}
