/* Resets the machine. */
#include "machine.h"

void main(const u8 *info) {
    (void)info;
    print("resetting\n");
    reset();
}
