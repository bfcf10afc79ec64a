/* A virtio device on MMIO (virtio 1.2, section 4.2) as a polling driver uses it. */
#ifndef VIRTIO_H
#define VIRTIO_H

#include "machine.h"

/* Where the window of devices begins. */
#define DEVICE_WINDOW 0xd0000000UL
/* The device that is used: the first one, unless a guest uses several. */
#ifndef DEVICE
#define DEVICE DEVICE_WINDOW
#endif

enum {
    MAGIC = 0x00, VERSION = 0x04, DEVICE_ID = 0x08,
    DEVICE_FEATURES = 0x10, DEVICE_FEATURES_SEL = 0x14,
    DRIVER_FEATURES = 0x20, DRIVER_FEATURES_SEL = 0x24,
    QUEUE_SEL = 0x30, QUEUE_NUM_MAX = 0x34, QUEUE_NUM = 0x38, QUEUE_READY = 0x44,
    QUEUE_NOTIFY = 0x50, INTERRUPT_STATUS = 0x60, INTERRUPT_ACK = 0x64, STATUS = 0x70,
    QUEUE_DESC = 0x80, QUEUE_DRIVER = 0x90, QUEUE_DEVICE = 0xa0
};
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 64 };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

#define QUEUE_SIZE 8

struct descriptor { u64 address; u32 length; u16 flags, next; };
struct used { u32 id, length; };

static struct {
    struct descriptor table[QUEUE_SIZE];
    struct { u16 flags, index, ring[QUEUE_SIZE], event; } available;
    struct { u16 flags, index; struct used ring[QUEUE_SIZE]; u16 event; } used __attribute__((aligned(4)));
} queue __attribute__((aligned(4096)));

#define barrier() __asm__ volatile("" : : : "memory")

static inline u32 get(u64 reg) { return *(volatile u32 *)(DEVICE + reg); }
static inline void set(u64 reg, u32 value) { *(volatile u32 *)(DEVICE + reg) = value; }

/* Maps the last of the first four GiB one to one: the kernel starts with the first one mapped. */
static inline void map_devices(void) {
    static u64 directory[512] __attribute__((aligned(4096)));
    u64 cr3;
    __asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
    u64 *pml4 = (u64 *)(cr3 & ~0xfffUL);
    u64 *pdpt = (u64 *)(pml4[0] & ~0xfffUL);
    for (u64 n = 0; n < 512; n++) directory[n] = (3UL << 30) | n << 21 | 0x83;
    pdpt[3] = (u64)directory | 3;
    __asm__ volatile("mov %0, %%cr3" : : "r"(cr3) : "memory");
}

/* Resets the device and takes VIRTIO_F_VERSION_1 and the low features in `features`. */
static inline void begin(u32 features) {
    set(STATUS, 0);
    set(STATUS, ACKNOWLEDGE);
    set(STATUS, ACKNOWLEDGE | DRIVER);
    set(DRIVER_FEATURES_SEL, 0);
    set(DRIVER_FEATURES, features);
    set(DRIVER_FEATURES_SEL, 1);
    set(DRIVER_FEATURES, 1);
    set(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
}

static inline void set_address(u64 reg, u64 address) {
    set(reg, (u32)address);
    set(reg + 4, (u32)(address >> 32));
}

static inline void enable_queue(u64 table, u64 available, u64 used) {
    set(QUEUE_SEL, 0);
    set(QUEUE_NUM, QUEUE_SIZE);
    set_address(QUEUE_DESC, table);
    set_address(QUEUE_DRIVER, available);
    set_address(QUEUE_DEVICE, used);
    set(QUEUE_READY, 1);
}

static inline void driver_ok(void) {
    set(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

/* Everything from a reset to a device that works. */
static inline void initialize(u32 features) {
    queue.available.flags = queue.available.index = 0;
    queue.used.flags = queue.used.index = 0;
    barrier();
    begin(features);
    enable_queue((u64)queue.table, (u64)&queue.available, (u64)&queue.used);
    driver_ok();
}

static inline void describe(u16 at, u64 address, u32 length, u16 flags, u16 next) {
    queue.table[at] = (struct descriptor){address, length, flags, next};
}

/* Makes the chain at `head` available and tells the device. */
static inline void submit(u16 head) {
    queue.available.ring[queue.available.index % QUEUE_SIZE] = head;
    barrier();
    queue.available.index++;
    barrier();
    set(QUEUE_NOTIFY, 0);
}

/* Waits for the answer to what was submitted last; its length. Gives up when the device does. */
static inline u32 wait_used(void) {
    volatile u16 *index = &queue.used.index;
    while (*index != queue.available.index)
        if (get(STATUS) & NEEDS_RESET) return 0;
    barrier();
    return queue.used.ring[(u16)(*index - 1) % QUEUE_SIZE].length;
}

#endif
