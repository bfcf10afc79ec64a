/* What the guests share: ports, the serial line, what the boot protocol says. */
#ifndef MACHINE_H
#define MACHINE_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define COM1 0x3f8

static inline void outb(u16 port, u8 value) {
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline u8 inb(u16 port) {
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void put(char c) { outb(COM1, (u8)c); }

static inline void print(const char *text) {
    while (*text) put(*text++);
}

static inline void print_number(u64 number) {
    char digits[20];
    int count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    while (count) put(digits[--count]);
}

/* Pulses the reset line through the keyboard controller. */
static inline void reset(void) {
    for (;;) outb(0x64, 0xfe);
}

/* Waits for `units` of the PIT's 1,193,182 Hz, by polling channel 2's output. */
static inline void wait(u16 units) {
    outb(0x61, (u8)((inb(0x61) & ~2) | 1)); /* gate on, speaker off */
    outb(0x43, 0xb0);                       /* channel 2, both bytes, mode 0 */
    outb(0x42, (u8)units);
    outb(0x42, (u8)(units >> 8));
    while (!(inb(0x61) & 0x20)) {
    }
}

static inline u64 read64(const u8 *at) { return *(const u64 *)at; }
static inline u32 read32(const u8 *at) { return *(const u32 *)at; }

/* The two boot protocols name the same two things in different places. */
#ifdef PVH
static inline const char *cmdline(const u8 *info) { return (const char *)read64(info + 24); }

static inline u64 memory_bytes(const u8 *info) {
    const u8 *entry = (const u8 *)read64(info + 40);
    u64 sum = 0;
    for (u32 left = read32(info + 48); left; left--, entry += 24)
        if (read32(entry + 16) == 1) sum += read64(entry + 8);
    return sum;
}
#else
static inline const char *cmdline(const u8 *info) {
    return (const char *)(u64)read32(info + 0x228);
}

static inline u64 memory_bytes(const u8 *info) {
    const u8 *entry = info + 0x2d0;
    u64 sum = 0;
    for (u8 left = info[0x1e8]; left; left--, entry += 20)
        if (read32(entry + 16) == 1) sum += read64(entry + 8);
    return sum;
}
#endif

/* The number behind `name=` on the command line; 0 if it is not there. */
static inline u64 parameter(const char *line, const char *name) {
    for (; *line; line++) {
        const char *at = line, *want = name;
        while (*want && *at == *want) at++, want++;
        if (*want || *at != '=') continue;
        u64 number = 0;
        while (*++at >= '0' && *at <= '9') number = number * 10 + (u64)(*at - '0');
        return number;
    }
    return 0;
}

#endif
