/* Sleeps for good: costs no CPU, as an idle machine. */
#include "machine.h"

void main(const u8 *info) {
    (void)info;
    print("idle\n");
    /* There is no handler for an interrupt, so there must be none: both controllers masked. */
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    for (;;) __asm__ volatile("sti; hlt");
}
