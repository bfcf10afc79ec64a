/* Burns CPU without ever leaving guest mode. */
#include "machine.h"

void main(const u8 *info) {
    (void)info;
    print("burning\n");
    for (;;) __asm__ volatile("" ::: "memory");
}
