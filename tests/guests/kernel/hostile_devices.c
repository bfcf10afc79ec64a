/* Does the worst to every virtio device of the machine, one after the other, then uses the first,
   an entropy device, as it should. */
#include "machine.h"

static u64 device;
#define DEVICE device
#include "virtio.h"

#define PAGE 0x1000UL
#define MISSING 0x3f000000UL  /* past the memory of a small guest, below the hole */

static u8 bytes[64];
static struct descriptor nested[4];

static u64 seed = 0x9e3779b97f4a7c15;

static u64 random(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static void expect(int holds, const char *what) {
    if (holds) return;
    print("wrong: ");
    print(what);
    put('\n');
}

/* From a reset to a device that works, with no queue but this one. */
static void use_queue(u32 index, u32 features) {
    queue.available.flags = queue.available.index = 0;
    queue.used.flags = queue.used.index = 0;
    barrier();
    begin(features);
    set(QUEUE_SEL, index);
    set(QUEUE_NUM, QUEUE_SIZE);
    set_address(QUEUE_DESC, (u64)queue.table);
    set_address(QUEUE_DRIVER, (u64)&queue.available);
    set_address(QUEUE_DEVICE, (u64)&queue.used);
    set(QUEUE_READY, 1);
    driver_ok();
}

/* How often the device is asked whether it has given up. */
static u32 patience;

/* Makes `head` available on this queue; the number of devices that gave up: 1, or 0 where the device
   has nothing for the queue and does not look. */
static u32 offer(u32 index, u16 head) {
    queue.available.ring[queue.available.index % QUEUE_SIZE] = head;
    barrier();
    queue.available.index++;
    barrier();
    set(QUEUE_NOTIFY, index);
    for (u32 left = patience; left; left--)
        if (get(STATUS) & NEEDS_RESET) return 1;
    return 0;
}

/* Of which there are so many. */
#define CHAINS 8

static u32 bad_chains(u32 index) {
    u32 broken = 0;
    use_queue(index, 0);
    describe(0, (u64)bytes, 8, NEXT, 1);
    describe(1, (u64)bytes, 8, NEXT, 0);
    broken += offer(index, 0);
    use_queue(index, 0);
    describe(0, (u64)bytes, 8, NEXT, 0xffff);
    broken += offer(index, 0);
    use_queue(index, 0);
    broken += offer(index, 0xffff);
    use_queue(index, 0);
    describe(0, MISSING, 64, 0, 0);
    broken += offer(index, 0);
    use_queue(index, 0);
    describe(0, 0xfffffffffffffff0UL, 0xffffffff, WRITE, 0);
    broken += offer(index, 0);
    use_queue(index, 0);
    describe(0, 0, 0xffffffff, WRITE | NEXT, 1);
    describe(1, 0, 0xffffffff, WRITE, 0);
    broken += offer(index, 0);
    use_queue(index, 1 << 28);
    nested[0] = (struct descriptor){(u64)nested, sizeof nested, INDIRECT, 0};
    describe(0, (u64)nested, sizeof nested, INDIRECT, 0);
    broken += offer(index, 0);
    use_queue(index, 0);
    queue.available.index = 30000;
    broken += offer(index, 0);
    return broken;
}

static void bad_geometry(u32 index) {
    static const u32 sizes[] = {0, 3, 0x10000, 0xffffffff};
    for (u32 n = 0; n < 4; n++) {
        begin(0);
        set(QUEUE_SEL, index);
        set(QUEUE_NUM, sizes[n]);
        set(QUEUE_READY, 1);
        expect(get(QUEUE_READY) == 0, "a queue of a size that is none");
    }
    static const u64 bad[] = {MISSING, DEVICE_WINDOW, 0xfffffffffffffff0UL, 1UL << 52};
    for (u32 n = 0; n < 4; n++) {
        begin(0);
        set(QUEUE_SEL, index);
        set(QUEUE_NUM, QUEUE_SIZE);
        set_address(QUEUE_DESC, (u64)queue.table);
        set_address(QUEUE_DRIVER, bad[n]);
        set_address(QUEUE_DEVICE, (u64)&queue.used);
        set(QUEUE_READY, 1);
        expect(get(STATUS) & NEEDS_RESET, "a ring outside of memory");
    }
    use_queue(index, 0);
    set(QUEUE_NUM, 4);
    set_address(QUEUE_DESC, MISSING);
    set(QUEUE_READY, 0);
    expect(get(QUEUE_READY) == 1, "a queue that is changed while it is used");
}

static void touch_registers(void) {
    for (u64 at = device; at < device + 0x140; at++) {
        (void)*(volatile u8 *)at;
        (void)*(volatile u64 *)at;
        *(volatile u8 *)at = (u8)random();
        *(volatile u16 *)at = (u16)random();
        *(volatile u64 *)at = random();
        if (at & 3) *(volatile u32 *)at = (u32)random();
    }
}

static void storm(u32 queues) {
    use_queue(0, 0);
    for (u32 n = 0; n < 2000; n++) set(QUEUE_NOTIFY, n % (queues + 2));
    for (u32 n = 0; n < 256; n++) set(STATUS, n);
    for (u32 n = 0; n < 2000; n++) {
        u64 choice = random();
        set(choice & 0xfc, (u32)(choice >> 32) & (u32)(choice >> 20));
        if (n % 64 == 0) use_queue((u32)random() % queues, 0);
        if (n % 8 == 0) queue.available.index = (u16)random();
    }
    set(STATUS, 0);
}

static void attack(void) {
    u32 queues = 0, broken = 0;
    for (;; queues++) {
        set(QUEUE_SEL, queues);
        if (get(QUEUE_NUM_MAX) == 0) break;
    }
    set(QUEUE_SEL, 0xffffffff);
    expect(get(QUEUE_NUM_MAX) == 0, "a queue that is not there");
    set(QUEUE_READY, 1);
    touch_registers();
    for (u32 index = 0; index < queues; index++) {
        bad_geometry(index);
        /* Every device looks at its second queue, or at its only one, as soon as it is notified. */
        patience = index == (queues > 1) ? 500000 : 100;
        u32 here = bad_chains(index);
        expect(patience == 100 || here == CHAINS, "a chain that is taken");
        broken += here;
    }
    touch_registers();
    storm(queues);
    print("device ");
    print_number(get(DEVICE_ID));
    print(" broke ");
    print_number(broken);
    print(" times\n");
}

void main(const u8 *info) {
    (void)info;
    map_devices();
    u32 count = 0;
    for (device = DEVICE_WINDOW; get(MAGIC) == 0x74726976; device += PAGE, count++) attack();
    print("devices: ");
    print_number(count);
    put('\n');
    device = DEVICE_WINDOW;
    initialize(0);
    describe(0, (u64)bytes, sizeof bytes, WRITE, 0);
    submit(0);
    expect(wait_used() == sizeof bytes, "a request after all that");
    print("survived\n");
    reset();
}
