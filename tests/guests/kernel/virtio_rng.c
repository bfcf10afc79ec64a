/* Asks the entropy device for bytes, twice, resets it, and asks again. */
#include "virtio.h"

static u8 bytes[3][32];

static void ask(u8 *into) {
    describe(0, (u64)into, sizeof bytes[0], WRITE, 0);
    submit(0);
    u32 length = wait_used();
    print("got ");
    print_number(length);
    print(" bytes: ");
    for (u32 n = 0; n < sizeof bytes[0]; n++) {
        put("0123456789abcdef"[into[n] >> 4]);
        put("0123456789abcdef"[into[n] & 15]);
    }
    put('\n');
}

static int same(const u8 *a, const u8 *b) {
    for (u32 n = 0; n < sizeof bytes[0]; n++)
        if (a[n] != b[n]) return 0;
    return 1;
}

void main(const u8 *info) {
    (void)info;
    map_devices();
    if (get(MAGIC) != 0x74726976 || get(VERSION) != 2 || get(DEVICE_ID) != 4) {
        print("no rng\n");
        reset();
    }
    initialize(0);
    ask(bytes[0]);
    ask(bytes[1]);
    initialize(0);
    ask(bytes[2]);
    if (!(get(INTERRUPT_STATUS) & 1)) print("no interrupt\n");
    if (same(bytes[0], bytes[1]) || same(bytes[1], bytes[2])) print("not random\n");
    print("rng ok\n");
    reset();
}
