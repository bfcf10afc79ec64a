/* Uses some of its memory, then follows its balloon's target: gives memory that it has used away,
   and when the target is zero again takes it back and looks at what is in it. */
#include "virtio.h"

#define NUM_PAGES 0x100
#define ACTUAL 0x104
#define PAGE 4096UL
/* Memory that is for the balloon: from 32 MiB on, 8 MiB. */
#define FIRST (32UL << 20)
#define PAGES 2048
/* Page numbers of one request. */
#define BATCH 256

static u32 numbers[BATCH];

static volatile u64 *page(u32 n) { return (volatile u64 *)(FIRST + n * PAGE); }

/* Waits until `num_pages` is something else than `old`. */
static u32 wait_target(u32 old) {
    while (get(NUM_PAGES) == old) wait(1000);
    return get(NUM_PAGES);
}

void main(void) {
    map_devices();
    if (get(MAGIC) != 0x74726976 || get(DEVICE_ID) != 5) {
        print("no balloon\n");
        reset();
    }
    for (u32 n = 0; n < PAGES; n++) *page(n) = n + 1;
    initialize(0);
    print("used\n");

    u32 target = wait_target(0);
    if (target > PAGES) target = PAGES;
    for (u32 given = 0; given < target; given += BATCH) {
        u32 count = target - given < BATCH ? target - given : BATCH;
        /* Backwards, as memory is often allocated. */
        for (u32 n = 0; n < count; n++)
            numbers[n] = (u32)(FIRST / PAGE) + given + count - 1 - n;
        describe(0, (u64)numbers, count * 4, 0, 0);
        submit(0);
        wait_used();
    }
    set(ACTUAL, target);
    print("given\n");

    wait_target(target);
    u32 kept = 0, lost = 0;
    for (u32 n = 0; n < PAGES; n++) {
        if (*page(n) == n + 1) kept++;
        if (*page(n) == 0) lost++;
        *page(n) = n + 1;
    }
    set(ACTUAL, 0);
    print_number(lost);
    print(" pages empty, ");
    print_number(kept);
    print(" as they were\nballoon ok\n");
    reset();
}
