/* Writes to the serial line without end. */
#include "machine.h"

void main(const u8 *info) {
    (void)info;
    for (;;) print("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n");
}
