/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The file that one process leaves to the next: what is written is read, and whatever else is in it is refused. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"
#include "util/fds.h"
#include "util/handover.h"

static const uint8_t token[HANDOVER_TOKEN] = "0123456789abcde";

struct thing {
    uint32_t number;
    uint64_t wide;
    uint8_t name[8];
    bool flag;
};

static const struct handover_member members[] = {
    HANDOVER_MEMBER(1, struct thing, number),
    HANDOVER_MEMBER(2, struct thing, wide),
    HANDOVER_MEMBER(3, struct thing, name),
    HANDOVER_MEMBER(4, struct thing, flag),
};

static int write_sample(void) {
    const struct thing thing = {.number = 7, .wide = UINT64_MAX, .name = "name", .flag = true};
    struct handover_writer writer = {};
    int pipes[2], state;

    ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
    handover_begin(&writer, 10);
    handover_put_members(&writer, members, HANDOVER_N(members), &thing);
    handover_begin(&writer, 11);
    handover_put_number(&writer, 1, 42);
    handover_put_fd(&writer, 2, pipes[1]);
    handover_end(&writer);
    handover_end(&writer);
    handover_put(&writer, 12, "text", 4);
    state = handover_seal(&writer, token, "sample 1");
    ck_assert_int_ge(state, 0);
    ck_assert_uint_eq(writer.n_fds, 1);
    handover_writer_deinit(&writer);
    close(pipes[0]);
    close(pipes[1]);
    return state;
}

static int *table_of(int fd) {
    int *fds = malloc(sizeof(*fds));

    *fds = fd;
    return fds;
}

TEST(what_is_written_is_read) {
    int state = write_sample(), fd = memfd_create("beside", MFD_CLOEXEC), taken;
    struct handover_record record, inner, member;
    struct handover_records records;
    struct handover handover;
    struct thing thing = {};

    ck_assert_int_eq(handover_open(&handover, state, table_of(fd), 1), 0);
    ck_assert_str_eq(handover.header->product, "sample 1");
    ck_assert_mem_eq(handover.header->token, token, sizeof(token));
    ck_assert(handover_find(handover_all(&handover), 10, &record));
    records = handover_in(&record);
    while (handover_next(&records, &member))
        (void)handover_take_member(&member, members, HANDOVER_N(members), &thing);
    ck_assert_uint_eq(thing.number, 7);
    ck_assert_uint_eq(thing.wide, UINT64_MAX);
    ck_assert_str_eq((char *)thing.name, "name");
    ck_assert(thing.flag);
    ck_assert(handover_find(handover_in(&record), 11, &inner));
    ck_assert(handover_find(handover_in(&inner), 1, &member));
    ck_assert_uint_eq(handover_number(&member), 42);
    ck_assert(handover_find(handover_in(&inner), 2, &member));
    taken = handover_take_fd(&member);
    ck_assert_int_eq(taken, fd);
    ck_assert_int_eq(handover.error, 0);
    /* Each is named once. */
    ck_assert_int_eq(handover_take_fd(&member), -1);
    ck_assert_int_eq(handover.error, -EBADMSG);
    handover_close(&handover);
    close(taken);
    close(state);
}

TEST(test_p12_file_that_somebody_could_change_is_refused) {
    int state = write_sample();
    struct handover handover;
    struct stat st;
    uint8_t *octets;
    int open_one;

    ck_assert_int_eq(fcntl(state, F_GET_SEALS) & (F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL),
                     F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
    ck_assert_int_eq(fstat(state, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
    octets = malloc((size_t)st.st_size);
    ck_assert_int_eq(pread(state, octets, (size_t)st.st_size, 0), st.st_size);
    /* The same octets without seals. */
    open_one = memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ck_assert_int_eq(write(open_one, octets, (size_t)st.st_size), st.st_size);
    ck_assert_int_eq(handover_open(&handover, open_one, NULL, 0), -EPERM);
    handover_close(&handover);
    ck_assert_int_eq(fcntl(open_one, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL), 0);
    ck_assert_int_eq(handover_open(&handover, open_one, NULL, 0), -EPERM);
    handover_close(&handover);
    close(open_one);
    free(octets);
    close(state);
}

TEST(test_p12_file_of_another_uid_is_refused) {
    int state = write_sample();
    struct handover handover;

    if (geteuid() != 0) {
        close(state);
        test_skip("only root can give a file away");
    }
    if (fchown(state, 12345, 0) < 0) {
        close(state);
        test_skip("this file cannot be given away");
    }
    ck_assert_int_eq(handover_open(&handover, state, NULL, 0), -EPERM);
    handover_close(&handover);
    close(state);
}

/* Any octet of it counts, and so does how many there are. */
TEST(test_p12_damaged_file_is_refused) {
    int state = write_sample();
    struct handover handover;
    struct stat st;
    uint8_t *octets;
    size_t size;

    ck_assert_int_eq(fstat(state, &st), 0);
    size = (size_t)st.st_size;
    octets = malloc(size + 8);
    ck_assert_int_eq(pread(state, octets, size, 0), size);
    ck_assert_int_eq(handover_open_octets(&handover, octets, size, table_of(dup(state)), 1), 0);
    handover_close(&handover);
    for (size_t i = 0; i < size; i++) {
        bool is_free = (i >= offsetof(struct handover_header, token) && i < sizeof(struct handover_header));

        if (is_free)
            continue;
        octets[i] ^= 0x40;
        ck_assert_int_lt(handover_open_octets(&handover, octets, size, table_of(dup(state)), 1), 0);
        handover_close(&handover);
        octets[i] ^= 0x40;
    }
    for (size_t i = 0; i < size; i++) {
        ck_assert_int_eq(handover_open_octets(&handover, octets, i, table_of(dup(state)), 1), -EBADMSG);
        handover_close(&handover);
    }
    ck_assert_int_eq(handover_open_octets(&handover, octets, size, NULL, 0), -EBADMSG);
    handover_close(&handover);
    octets[8]++;
    ck_assert_int_eq(handover_open_octets(&handover, octets, size, table_of(dup(state)), 1), -EPROTONOSUPPORT);
    handover_close(&handover);
    free(octets);
    close(state);
}

/* Writes by hand what handover_seal() would, so that it can be wrong inside. */
static int file_of(const void *records, size_t length) {
    struct handover_writer writer = {};
    int state;

    writer.octets = malloc(length + 1);
    memcpy(writer.octets, records, length);
    writer.length = writer.capacity = length;
    state = handover_seal(&writer, token, "by hand");
    ck_assert_int_ge(state, 0);
    handover_writer_deinit(&writer);
    return state;
}

TEST(test_p12_lengths_that_lie_are_seen) {
    static const uint8_t cases[][16] = {
        {1, 0, 0, 0, 9, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8},              /* longer than the file */
        {1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5, 6, 7, 8},  /* much longer */
        {1, 0, 0, 0, 4, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8},              /* half a head follows */
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int state = file_of(cases[i], sizeof(cases[i]));
        struct handover_records records;
        struct handover_record record;
        struct handover handover;

        ck_assert_int_eq(handover_open(&handover, state, NULL, 0), 0);
        records = handover_all(&handover);
        while (handover_next(&records, &record))
            ck_assert(record.octets + record.length <= (const uint8_t *)handover.header + handover.size);
        ck_assert_int_eq(handover.error, -EBADMSG);
        handover_close(&handover);
        close(state);
    }
}

/* What the version after wrote is read by the version before, and the other way round. */
TEST(other_versions_are_read) {
    struct handover_writer writer = {};
    struct handover_record record;
    struct handover_records records;
    struct handover handover;
    struct thing thing = {.wide = 5};
    const uint8_t wider[12] = {1}, too_wide[12] = {9, 0, 0, 0, 0, 0, 0, 0, 1};
    const uint16_t narrow = 300;
    int state;

    handover_put(&writer, 1, &narrow, sizeof(narrow)); /* a number grew since */
    handover_put(&writer, 999, "unknown", 7);
    handover_put(&writer, 3, "short", 5);
    handover_put(&writer, 4, wider, sizeof(wider)); /* a number shrank since */
    state = handover_seal(&writer, token, "other");
    ck_assert_int_eq(handover_open(&handover, state, NULL, 0), 0);
    records = handover_all(&handover);
    while (handover_next(&records, &record))
        ck_assert(handover_take_member(&record, members, HANDOVER_N(members), &thing) == (record.tag != 999));
    ck_assert_int_eq(handover.error, 0);
    ck_assert_uint_eq(thing.number, 300);
    ck_assert_uint_eq(thing.wide, 5); /* what is not there keeps its default */
    ck_assert_str_eq((char *)thing.name, "short");
    handover_close(&handover);
    close(state);
    handover_writer_deinit(&writer);

    handover_put(&writer, 1, too_wide, sizeof(too_wide));
    state = handover_seal(&writer, token, "other");
    ck_assert_int_eq(handover_open(&handover, state, NULL, 0), 0);
    records = handover_all(&handover);
    ck_assert(handover_next(&records, &record));
    ck_assert_uint_eq(handover_number(&record), 0);
    ck_assert_int_eq(handover.error, -EBADMSG);
    handover_close(&handover);
    close(state);
    handover_writer_deinit(&writer);
}

TEST(boolean_is_one_of_two) {
    for (uint8_t value = 0; value < 4; value++) {
        struct handover_writer writer = {};
        struct handover_records records;
        struct handover_record record;
        struct handover handover;
        struct thing thing = {};
        int state;

        handover_put(&writer, 4, &value, sizeof(value));
        state = handover_seal(&writer, token, "other");
        ck_assert_int_eq(handover_open(&handover, state, NULL, 0), 0);
        records = handover_all(&handover);
        ck_assert(handover_next(&records, &record));
        ck_assert(handover_take_member(&record, members, HANDOVER_N(members), &thing));
        ck_assert_int_eq(handover.error, value > 1 ? -EBADMSG : 0);
        ck_assert_int_eq(thing.flag, value == 1);
        handover_close(&handover);
        close(state);
        handover_writer_deinit(&writer);
    }
}

/* Once something is wrong nothing more is read. */
TEST(first_mistake_ends_the_reading) {
    int state = write_sample(), beside = memfd_create("beside", MFD_CLOEXEC);
    struct handover_records records;
    struct handover_record record;
    struct handover handover;

    ck_assert_int_eq(handover_open(&handover, state, table_of(beside), 1), 0);
    records = handover_all(&handover);
    ck_assert(!handover_wrong(&handover, -ENOSPC));
    ck_assert(!handover_wrong(&handover, -EBADMSG));
    ck_assert_int_eq(handover.error, -ENOSPC);
    ck_assert(!handover_next(&records, &record));
    ck_assert(!handover_find(handover_all(&handover), 10, &record));
    handover_close(&handover);
    close(state);
}

HARNESS_SUITE("handover", HARNESS_QUICK)
