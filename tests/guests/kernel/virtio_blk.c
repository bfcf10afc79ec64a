/* Says what is on its disk, counts its boots there, and asks for what a disk must refuse. */
#include "virtio.h"

enum { READ = 0, WRITE_OUT = 1, FLUSH = 4, GET_ID = 8 };

static struct { u32 type, reserved; u64 sector; } header;
static char data[512];
static volatile u8 status;

/* Its status. */
static u8 request(u32 type, u64 sector, u32 bytes) {
    header.type = type;
    header.sector = sector;
    status = 0xff;
    describe(0, (u64)&header, sizeof header, NEXT, bytes ? 1 : 2);
    describe(1, (u64)data, bytes, NEXT | (type == WRITE_OUT ? 0 : WRITE), 2);
    describe(2, (u64)&status, 1, WRITE, 0);
    submit(0);
    wait_used();
    return status;
}

static void expect(u8 is, u8 wanted, const char *what) {
    if (is == wanted) return;
    print("wrong: ");
    print(what);
    print(": ");
    print_number(is);
    put('\n');
}

void main(const u8 *info) {
    (void)info;
    map_devices();
    if (get(MAGIC) != 0x74726976 || get(VERSION) != 2 || get(DEVICE_ID) != 2) {
        print("no disk\n");
        reset();
    }
    /* VIRTIO_BLK_F_FLUSH. */
    initialize(1 << 9);
    u64 sectors = get(0x100) | (u64)get(0x104) << 32;

    expect(request(GET_ID, 0, 20), 0, "id");
    print("disk ");
    print(data);
    expect(request(READ, 0, 512), 0, "read");
    print(" has ");
    print(data);
    put('\n');

    expect(request(READ, sectors - 1, 512), 0, "read of the last sector");
    print("boot ");
    print_number((u8)data[0]);
    put('\n');
    data[0]++;
    expect(request(WRITE_OUT, sectors - 1, 512), 0, "write");
    expect(request(FLUSH, 0, 0), 0, "flush");

    expect(request(READ, sectors, 512), 1, "behind the end");
    expect(request(WRITE_OUT, ~0UL, 512), 1, "a sector that overflows");
    expect(request(READ, 0, 511), 1, "half a sector");
    expect(request(77, 0, 512), 2, "no such type");
    print("disk ok\n");
    reset();
}
