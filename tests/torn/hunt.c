/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "torn/hunt.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "harness.h"

#ifdef VMIBUS_SANITIZED
#define SANITIZED_SHARE 10
#else
#define SANITIZED_SHARE 1
#endif

/* Loads of 8 octets into rax: torn if turning them by an octet changes them. */
#define LOAD_8(low, middle) 0x48, 0x8b, 0x04, 0x25, low, middle, 0x02, 0x00
#define TURN_8 0x48, 0x89, 0xc3, 0x48, 0xc1, 0xc3, 0x08, 0x48, 0x39, 0xd8
#define LOAD_4(low) 0x8b, 0x04, 0x25, low, 0x00, 0x02, 0x00
#define TURN_4 0x89, 0xc3, 0xc1, 0xc3, 0x08, 0x39, 0xd8
#define LOAD_2(low) 0x66, 0x8b, 0x04, 0x25, low, 0x00, 0x02, 0x00
#define TURN_2 0x66, 0x89, 0xc3, 0x66, 0xc1, 0xc3, 0x08, 0x66, 0x39, 0xd8
#define COMPARE_8(low, middle) 0x48, 0x3b, 0x04, 0x25, low, middle, 0x02, 0x00
/* What the vCPU left in its own octet, and what it leaves there next. */
#define COMPARE_OWN 0x38, 0x17
#define CHANGE_OWN 0xfe, 0xc2, 0x88, 0x17
/* Counts at rbp + low, unless the flags say equal. */
#define COUNT(low) 0x48, 0xff, 0x45, low
#define COUNT_TORN(low) 0x74, 0x04, COUNT(low)

static const uint8_t loop[] = {
    LOAD_8(0x00, 0x00), TURN_8, COUNT_TORN(0x00),                /* 8 aligned octets at 0x20000 */
    LOAD_4(0x08), TURN_4, COUNT_TORN(0x08),                      /* 4 at 0x20008 */
    LOAD_2(0x10), TURN_2, COUNT_TORN(0x10),                      /* 2 at 0x20010 */
    COMPARE_OWN, COUNT_TORN(0x18), CHANGE_OWN,                   /* beside the one at 0x20018 */
    LOAD_8(0x7c, 0x00), TURN_8, COUNT_TORN(0x20),                /* 8 across a cache line, at 0x2007c */
    LOAD_8(0x00, 0x01), COMPARE_8(0xf8, 0x01), COUNT_TORN(0x28), /* first and last of 256 octets at 0x20100 */
    LOAD_8(0xfc, 0x2f), TURN_8, COUNT_TORN(0x30),                /* 8 across a page, at 0x22ffc */
    COUNT(0x38), 0xe9, 0, 0, 0, 0,                               /* jmp to the beginning, filled in when it is put somewhere */
};

_Static_assert(sizeof(loop) <= HUNT_GUEST_MAX, "as the header says");

/* What is written.  A vCPU counts what it sees torn of it in the counter of the same index. */
static const struct place {
    uint32_t gpa, len;
    bool may_tear;
    const char *what;
} places[] = {
    {0x20000, 8, false, "8 aligned octets"},
    {0x20008, 4, false, "4 aligned octets"},
    {0x20010, 2, false, "2 aligned octets"},
    {0x20018, 1, false, "the guest's own octets beside 1 octet"},
    {0x2007c, 8, true, "8 octets across a cache line"},
    {0x20100, 256, true, "256 octets"},
    {0x22ffc, 8, true, "8 octets across a page"},
};

#define N_PLACES (sizeof(places) / sizeof(*places))
#define ROUNDS N_PLACES

size_t hunt_put_guest(uint8_t *at) {
    const int32_t back = -(int32_t)sizeof(loop);

    memcpy(at, loop, sizeof(loop));
    memcpy(at + sizeof(loop) - sizeof(back), &back, sizeof(back));
    return sizeof(loop);
}

unsigned long hunt_writes(unsigned long otherwise) {
    const char *wish = getenv("VMIBUS_TORN_WRITES");

    return wish ? strtoul(wish, NULL, 10) : otherwise / SANITIZED_SHARE;
}

/* --- what the guest saw -------------------------------------------------------------------------- */

/* All counters of all vCPUs. */
struct sight {
    uint64_t counters[2][N_PLACES + 1];
};

static uint64_t counter(const struct hunt *hunt, unsigned int vcpu, size_t i) {
    const uint32_t counters = vcpu ? HUNT_SECOND_COUNTERS : HUNT_COUNTERS;

    return hunt->peek(hunt->guest, counters + (uint32_t)(i * sizeof(uint64_t)));
}

static uint64_t total(const struct hunt *hunt, size_t i) {
    uint64_t sum = 0;

    for (unsigned int vcpu = 0; vcpu < hunt->vcpus; vcpu++)
        sum += counter(hunt, vcpu, i);
    return sum;
}

/* Every vCPU has to have been there: on a busy processor it may take a while to get a turn. */
static void wait_for_rounds(const struct hunt *hunt, uint64_t rounds) {
    for (unsigned int vcpu = 0; vcpu < hunt->vcpus; vcpu++) {
        uint64_t until = counter(hunt, vcpu, ROUNDS) + rounds;

        while (counter(hunt, vcpu, ROUNDS) < until)
            hunt->turn(hunt->guest);
    }
}

/* Two rounds: what was seen in the one that was under way is counted. */
static struct sight settle(const struct hunt *hunt) {
    struct sight sight = {};

    wait_for_rounds(hunt, 2);
    for (unsigned int vcpu = 0; vcpu < hunt->vcpus; vcpu++)
        for (size_t i = 0; i <= ROUNDS; i++)
            sight.counters[vcpu][i] = counter(hunt, vcpu, i);
    return sight;
}

static uint64_t since(const struct sight *before, const struct sight *after, size_t i) {
    return after->counters[0][i] - before->counters[0][i] + after->counters[1][i] - before->counters[1][i];
}

/* The processor's name as the kernel tells it; "?" where it tells none. */
static void name_processor(char *name, size_t size) {
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[256];

    snprintf(name, size, "?");
    while (file && fgets(line, sizeof(line), file)) {
        char *value = strchr(line, ':');

        if (strncmp(line, "model name", 10) != 0 || !value)
            continue;
        snprintf(name, size, "%.*s", (int)strcspn(value + 2, "\n"), value + 2);
        break;
    }
    if (file)
        fclose(file);
}

/* Tells what was seen, and fails the test for what must not be. */
static void judge(const struct sight *before, const struct sight *after, bool may_tear) {
    struct utsname host;
    char processor[128];

    ck_assert_int_eq(uname(&host), 0);
    name_processor(processor, sizeof(processor));
    for (size_t i = 0; i < N_PLACES; i++)
        printf("%s: seen torn %" PRIu64 " times\n", places[i].what, since(before, after, i));
    for (size_t i = 0; i < N_PLACES; i++)
        ck_assert_msg((may_tear && places[i].may_tear) || since(before, after, i) == 0,
                      "%s: seen torn %" PRIu64 " times in %" PRIu64 " looks, by Linux %s %s on %s", places[i].what,
                      since(before, after, i), since(before, after, ROUNDS), host.release, host.machine, processor);
}

/* --- writing --------------------------------------------------------------------------------------- */

static void write_octets(struct hunt *hunt, uint32_t gpa, const uint8_t *data, uint32_t len) {
    const struct vmibus_write write = {
        .gva = hunt->base + gpa,
        .data = data,
        .len = len,
        .flags = hunt->flags,
        .token = hunt->token,
        .epoch = hunt->epoch,
    };

    ck_assert_int_eq(vmibus_memwrite(hunt->bus, &hunt->endpoint, &write, NULL), 0);
}

void hunt_write_each(struct hunt *hunt, uint8_t octet) {
    uint8_t data[256];

    memset(data, octet, sizeof(data));
    for (size_t i = 0; i < N_PLACES; i++)
        write_octets(hunt, places[i].gpa, data, places[i].len);
}

void hunt_write_table(struct hunt *hunt, uint8_t octet) {
    uint8_t data[512];
    const struct vmibus_write write = {.data = data, .flags = hunt->flags, .token = hunt->token, .epoch = hunt->epoch};
    struct vmibus_write_extent extents[N_PLACES];
    struct vmibus_extent_result results[N_PLACES];

    memset(data, octet, sizeof(data));
    for (size_t i = 0; i < N_PLACES; i++)
        extents[i] = (struct vmibus_write_extent){.gva = hunt->base + places[i].gpa, .len = places[i].len};
    ck_assert_int_eq(vmibus_memwrite_table(hunt->bus, &hunt->endpoint, &write, extents, N_PLACES, results, NULL), 0);
    for (size_t i = 0; i < N_PLACES; i++)
        ck_assert_uint_eq(results[i].written, places[i].len);
}

/* --- hunting --------------------------------------------------------------------------------------- */

void hunt_for_torn(struct hunt *hunt, hunt_write_fn *write, unsigned long writes) {
    unsigned long times = writes / N_PLACES + 1;
    struct sight before = settle(hunt), after;

    for (unsigned long i = 0; i < times; i++)
        write(hunt, (uint8_t)(i * 37));
    wait_for_rounds(hunt, 1000);
    after = settle(hunt);
    printf("%lu writes while the guest looked %" PRIu64 " times\n", times * N_PLACES, since(&before, &after, ROUNDS));
    judge(&before, &after, true);
}

/* The guest looks again after each round of commands, so that it has to be stopped for the next. */
void hunt_quiesced(struct hunt *hunt, unsigned long writes) {
    struct hunt quiesced = *hunt;
    struct sight before = settle(hunt), after;
    unsigned long times = writes / N_PLACES + 1;

    quiesced.flags |= VMIBUS_MEMWRITE_QUIESCE;
    for (unsigned long i = 0; i < times; i++) {
        (i % 2 ? hunt_write_each : hunt_write_table)(&quiesced, (uint8_t)(i * 37));
        wait_for_rounds(hunt, 1);
    }
    after = settle(hunt);
    printf("%lu writes while the guest stood still, which looked %" PRIu64 " times in all\n", times * N_PLACES,
           since(&before, &after, ROUNDS));
    judge(&before, &after, false);
}

void hunt_calibrate(struct hunt *hunt) {
    static const uint8_t foreign[3] = {1, 2, 3};

    wait_for_rounds(hunt, 1);
    for (uint8_t i = 1; total(hunt, 0) == 0; i++)
        for (uint32_t octet = 0; octet < places[0].len; octet++)
            write_octets(hunt, places[0].gpa + octet, &i, 1);
    ck_assert_uint_eq(total(hunt, 1), 0);
    ck_assert_uint_eq(total(hunt, 3), 0);
    for (unsigned int vcpu = 0; vcpu < hunt->vcpus; vcpu++)
        while (counter(hunt, vcpu, 3) == 0)
            write_octets(hunt, places[3].gpa - 1, foreign, sizeof(foreign));
}
