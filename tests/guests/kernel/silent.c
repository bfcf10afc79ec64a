/* Runs on without ever printing anything. */
#include "machine.h"

void main(const u8 *info) {
    (void)info;
    for (;;) __asm__ volatile("pause" ::: "memory");
}
