/* Does the worst to an entropy device and to addresses where nothing is, then uses it as it should. */
#include "virtio.h"

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

static u16 inw(u16 port) {
    u16 value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static u32 inl(u16 port) {
    u32 value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void outw(u16 port, u16 value) {
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static void outl(u16 port, u32 value) {
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

/* Where nothing is, all ones are read. */
static void touch_nothing(void) {
    for (u64 at = 0xc0000000; at < 0xfe000000; at += 0x1310000) {
        if (at >> 16 == DEVICE >> 16) continue;
        *(volatile u8 *)at = 1;
        *(volatile u16 *)at = 2;
        *(volatile u32 *)at = 3;
        *(volatile u64 *)at = 4;
        expect(*(volatile u8 *)at == 0xff, "an unmapped byte");
        expect(*(volatile u16 *)at == 0xffff, "two unmapped bytes");
        expect(*(volatile u32 *)at == 0xffffffff, "four unmapped bytes");
        expect(*(volatile u64 *)at == ~0UL, "eight unmapped bytes");
    }
    expect(*(volatile u32 *)(DEVICE + 0x1000) == 0xffffffff, "behind the last device");
    for (u32 port = 0x1000; port < 0x10000 - 4; port += 0x2e3) {
        outb((u16)port, 1);
        outw((u16)port, 2);
        outl((u16)port, 3);
        expect(inb((u16)port) == 0xff, "an unmapped port");
        expect(inw((u16)port) == 0xffff, "an unmapped port of two bytes");
        expect(inl((u16)port) == 0xffffffff, "an unmapped port of four bytes");
    }
}

/* Every byte of the device in every width, in every state of it. */
static void touch_registers(void) {
    for (u64 at = DEVICE; at < DEVICE + 0x140; at++) {
        (void)*(volatile u8 *)at;
        (void)*(volatile u16 *)at;
        (void)*(volatile u32 *)at;
        (void)*(volatile u64 *)at;
        *(volatile u8 *)at = (u8)random();
        *(volatile u16 *)at = (u16)random();
        *(volatile u64 *)at = random();
        if (at & 3) *(volatile u32 *)at = (u32)random();
    }
    (void)*(volatile u64 *)(DEVICE + 0xffc);
    *(volatile u64 *)(DEVICE + 0xffc) = 0;
}

/* The device must have given up on the driver. */
static void expect_broken(const char *what) {
    for (u32 patience = 200000; patience; patience--)
        if (get(STATUS) & NEEDS_RESET) return;
    expect(0, what);
}

static void bad_geometry(void) {
    static const u64 bad[] = {MISSING, DEVICE, 0xfffffffffffffff0UL, 1UL << 52};
    for (u32 n = 0; n < 4; n++) {
        begin(0);
        enable_queue(bad[n], (u64)&queue.available, (u64)&queue.used);
        expect_broken("a table outside of memory");
        begin(0);
        enable_queue((u64)queue.table, bad[n], (u64)&queue.used);
        expect_broken("an available ring outside of memory");
        begin(0);
        enable_queue((u64)queue.table, (u64)&queue.available, bad[n]);
        expect_broken("a used ring outside of memory");
        driver_ok();
        submit(0);
    }
    begin(0);
    enable_queue((u64)queue.table + 1, (u64)&queue.available + 1, (u64)&queue.used + 1);
    expect_broken("rings at odd addresses");
    static const u32 sizes[] = {0, 3, 0x10000, 0xffffffff};
    for (u32 n = 0; n < 4; n++) {
        begin(0);
        set(QUEUE_SEL, 0);
        set(QUEUE_NUM, sizes[n]);
        set(QUEUE_READY, 1);
        expect(get(QUEUE_READY) == 0, "a queue of a size that is none");
    }
    set(QUEUE_SEL, 0xffffffff);
    expect(get(QUEUE_NUM_MAX) == 0, "a queue that is not there");
    set(QUEUE_READY, 1);
}

static void bad_chains(void) {
    initialize(0);
    describe(0, (u64)bytes, 8, WRITE | NEXT, 1);
    describe(1, (u64)bytes, 8, WRITE | NEXT, 0);
    submit(0);
    expect_broken("a loop");
    initialize(0);
    describe(0, (u64)bytes, 8, WRITE | NEXT, 0xffff);
    submit(0);
    expect_broken("a descriptor past the table");
    initialize(0);
    submit(0xffff);
    expect_broken("a head past the table");
    initialize(0);
    describe(0, MISSING, 64, WRITE, 0);
    submit(0);
    expect_broken("a buffer outside of memory");
    initialize(0);
    describe(0, 0xfffffffffffffff0UL, 0xffffffff, WRITE, 0);
    submit(0);
    expect_broken("a buffer that wraps around");
    initialize(0);
    describe(0, 0, 0xffffffff, WRITE | NEXT, 1);
    describe(1, 0, 0xffffffff, WRITE, 0);
    submit(0);
    expect_broken("more bytes than there are");
    initialize(1 << 28);
    nested[0] = (struct descriptor){(u64)nested, sizeof nested, INDIRECT, 0};
    describe(0, (u64)nested, sizeof nested, INDIRECT, 0);
    submit(0);
    expect_broken("an indirect table in an indirect table");
    initialize(0);
    queue.available.index = 30000;
    barrier();
    set(QUEUE_NOTIFY, 0);
    expect_broken("an index far ahead");
}

static void storm(void) {
    initialize(0);
    for (u32 n = 0; n < 20000; n++) set(QUEUE_NOTIFY, n & 3);
    for (u32 n = 0; n < 2000; n++) set(STATUS, n & 0xff);
    for (u32 n = 0; n < 20000; n++) {
        u64 choice = random();
        set(choice & 0xfc, (u32)(choice >> 32) & (u32)(choice >> 20));
        if (n % 64 == 0) initialize(0);
        if (n % 8 == 0) queue.available.index = (u16)random();
    }
}

void main(const u8 *info) {
    (void)info;
    map_devices();
    touch_nothing();
    print("nothing touched\n");
    touch_registers();
    bad_geometry();
    touch_registers();
    bad_chains();
    print("chains broken\n");
    touch_registers();
    initialize(0);
    touch_registers();
    storm();
    print("storm over\n");
    initialize(0);
    describe(0, (u64)bytes, sizeof bytes, WRITE, 0);
    submit(0);
    expect(wait_used() == sizeof bytes, "a request after all that");
    print("survived\n");
    reset();
}
