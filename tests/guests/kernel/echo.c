/* Sends back what it receives. */
#include "machine.h"

void main(const u8 *info) {
    (void)info;
    print("ready\n");
    for (;;)
        if (inb(COM1 + 5) & 1) put((char)inb(COM1));
}
