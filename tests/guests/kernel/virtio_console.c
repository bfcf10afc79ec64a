/* Greets on its virtio console, then says there what is typed, with the terminal's size, until that
   is `q`. */
#include "virtio.h"

#define COLUMNS 0x100
#define ROWS 0x102
#define SIZE_FEATURE 1

static struct {
    struct descriptor table[QUEUE_SIZE];
    struct { u16 flags, index, ring[QUEUE_SIZE], event; } available;
    struct { u16 flags, index; struct used ring[QUEUE_SIZE]; u16 event; } used __attribute__((aligned(4)));
} output __attribute__((aligned(4096)));
static char typed[64], line[128];

static u16 config(u64 at) { return *(volatile u16 *)(DEVICE + at); }

static u32 append(u32 at, const char *text) {
    while (*text) line[at++] = *text++;
    return at;
}

static u32 append_number(u32 at, u32 number) {
    char digits[10];
    int count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    while (count) line[at++] = digits[--count];
    return at;
}

/* Writes what is in `line` and waits until it is taken. */
static void say(u32 length) {
    volatile u16 *index = &output.used.index;
    output.table[0] = (struct descriptor){(u64)line, length, 0, 0};
    output.available.ring[output.available.index % QUEUE_SIZE] = 0;
    barrier();
    output.available.index++;
    barrier();
    set(QUEUE_NOTIFY, 1);
    while (*index != output.available.index)
        if (get(STATUS) & NEEDS_RESET) return;
}

void main(void) {
    map_devices();
    if (get(MAGIC) != 0x74726976 || get(DEVICE_ID) != 3) {
        print("no console\n");
        reset();
    }
    begin(SIZE_FEATURE);
    enable_queue((u64)queue.table, (u64)&queue.available, (u64)&queue.used);
    set(QUEUE_SEL, 1);
    set(QUEUE_NUM, QUEUE_SIZE);
    set_address(QUEUE_DESC, (u64)output.table);
    set_address(QUEUE_DRIVER, (u64)&output.available);
    set_address(QUEUE_DEVICE, (u64)&output.used);
    set(QUEUE_READY, 1);
    driver_ok();
    say(append(0, "who is there?\n"));
    for (;;) {
        describe(0, (u64)typed, sizeof typed - 1, WRITE, 0);
        submit(0);
        u32 length = wait_used();
        typed[length] = 0;
        u32 end = append(append(0, typed), " at ");
        end = append(append_number(end, config(COLUMNS)), "x");
        say(append(append_number(end, config(ROWS)), "\n"));
        if (length == 1 && typed[0] == 'q') break;
    }
    print("console ok\n");
    reset();
}
