/* Answers ARP requests for 10.77.0.2, pings, and UDP packets, which it sends back. A UDP packet to
   port 9 ends it. With `offloads=1` it takes every feature of the device, and answers packets whose
   checksums are left to it by such that leave theirs to the host. */
#include "virtio.h"

#define CONFIG 0x100
#define HEADER 12 /* struct virtio_net_hdr_v1 */
#define BUFFER_BYTES 2048
#define MAC_FEATURE (1 << 5)

struct net_queue {
    struct descriptor table[QUEUE_SIZE];
    struct { u16 flags, index, ring[QUEUE_SIZE], event; } available;
    struct { u16 flags, index; struct used ring[QUEUE_SIZE]; u16 event; } used __attribute__((aligned(4)));
} __attribute__((aligned(4096)));

static struct net_queue receive, transmit;
static u8 buffers[QUEUE_SIZE][BUFFER_BYTES], answer[BUFFER_BYTES];
static u8 mac[6];
static const u8 address[4] = {10, 77, 0, 2};

static void copy(u8 *to, const u8 *from, u32 length) {
    while (length--) *to++ = *from++;
}

static int same(const u8 *a, const u8 *b, u32 length) {
    while (length--)
        if (*a++ != *b++) return 0;
    return 1;
}

static void swap(u8 *a, u8 *b, u32 length) {
    for (; length--; a++, b++) {
        u8 kept = *a;
        *a = *b, *b = kept;
    }
}

static void enable(u32 number, struct net_queue *queue) {
    set(QUEUE_SEL, number);
    set(QUEUE_NUM, QUEUE_SIZE);
    set_address(QUEUE_DESC, (u64)queue->table);
    set_address(QUEUE_DRIVER, (u64)&queue->available);
    set_address(QUEUE_DEVICE, (u64)&queue->used);
    set(QUEUE_READY, 1);
}

static void give(u32 number, struct net_queue *queue, u16 head) {
    queue->available.ring[queue->available.index % QUEUE_SIZE] = head;
    barrier();
    queue->available.index++;
    barrier();
    set(QUEUE_NOTIFY, number);
}

/* Turns the packet into its answer; false if there is none. Checksums stay right when addresses
   and ports are swapped: they are sums. */
static int turn(u8 *packet, u32 length) {
    u8 *payload = packet + 14;
    if (length >= 42 && same(packet + 12, (const u8 *)"\x08\x06", 2)) {
        if (!same(payload, (const u8 *)"\0\1\x08\0\6\4\0\1", 8)) return 0; /* an ARP request */
        if (!same(payload + 24, address, 4)) return 0;
        payload[7] = 2;
        copy(payload + 18, payload + 8, 10); /* who asked is whom it is for */
        copy(payload + 8, mac, 6);
        copy(payload + 14, address, 4);
    } else if (length >= 42 && same(packet + 12, (const u8 *)"\x08\0\x45", 3)) {
        if (!same(payload + 16, address, 4)) return 0; /* IPv4 without options */
        swap(payload + 12, payload + 16, 4);
        u8 *inner = payload + 20;
        if (payload[9] == 17) {
            swap(inner, inner + 2, 2);
        } else if (payload[9] == 1 && inner[0] == 8) {
            inner[0] = 0;
            /* The type is the high byte of a word, so the checksum grows by 0x0800. */
            u32 sum = ((u32)inner[2] << 8 | inner[3]) + 0x800;
            sum = (sum & 0xffff) + (sum >> 16);
            inner[2] = (u8)(sum >> 8), inner[3] = (u8)sum;
        } else {
            return 0;
        }
    } else {
        return 0;
    }
    copy(packet, packet + 6, 6);
    copy(packet + 6, mac, 6);
    return 1;
}

/* Like `begin`, with all features but the ring's own. */
static void begin_with_all(void) {
    set(STATUS, 0);
    set(STATUS, ACKNOWLEDGE | DRIVER);
    for (u32 half = 0; half < 2; half++) {
        set(DEVICE_FEATURES_SEL, half);
        set(DRIVER_FEATURES_SEL, half);
        set(DRIVER_FEATURES, get(DEVICE_FEATURES) & (half ? ~0U : 0xffffff));
    }
    set(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
}

/* Sends a packet behind the header that its question had, or a plain one. */
static void send(const u8 *header, const u8 *packet, u32 length) {
    volatile u16 *index = &transmit.used.index;
    for (u32 n = 0; n < HEADER; n++) answer[n] = header ? header[n] : 0;
    copy(answer + HEADER, packet, length);
    transmit.table[0] = (struct descriptor){(u64)answer, HEADER + length, 0, 0};
    give(1, &transmit, 0);
    while (*index != transmit.available.index)
        if (get(STATUS) & NEEDS_RESET) return;
}

void main(const u8 *info) {
    u64 offloads = parameter(cmdline(info), "offloads");
    map_devices();
    if (get(MAGIC) != 0x74726976 || get(DEVICE_ID) != 1) {
        print("no network\n");
        reset();
    }
    if (offloads) begin_with_all();
    else begin(MAC_FEATURE);
    for (u32 n = 0; n < sizeof mac; n++) mac[n] = *(volatile u8 *)(DEVICE + CONFIG + n);
    enable(0, &receive);
    enable(1, &transmit);
    driver_ok();
    for (u16 n = 0; n < QUEUE_SIZE; n++) {
        receive.table[n] = (struct descriptor){(u64)buffers[n], BUFFER_BYTES, WRITE, 0};
        give(0, &receive, n);
    }
    print("net ready\n");
    volatile u16 *index = &receive.used.index;
    for (u16 seen = 0;;) {
        while (*index == seen) __asm__ volatile("pause");
        barrier();
        struct used used = receive.used.ring[seen++ % QUEUE_SIZE];
        u8 *packet = buffers[used.id % QUEUE_SIZE] + HEADER;
        u32 length = used.length - HEADER;
        int ends = length >= 42 && packet[23] == 17 && packet[36] == 0 && packet[37] == 9;
        u8 *header = packet - HEADER;
        if (turn(packet, length)) {
            if (header[0] & 1) print("left to the guest\n");
            send(offloads ? header : 0, packet, length);
        }
        if (ends) {
            print("net ok\n");
            reset();
        }
        give(0, &receive, (u16)used.id);
    }
}
