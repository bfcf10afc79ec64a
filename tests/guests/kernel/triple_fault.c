/* An exception with no table of handlers: a double fault, then a triple one. */
#include "machine.h"

void main(const u8 *info) {
    struct __attribute__((packed)) {
        u16 limit;
        u64 base;
    } none = {0, 0};
    (void)info;
    print("faulting\n");
    __asm__ volatile("lidt %0; ud2" : : "m"(none));
}
