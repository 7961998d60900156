/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's log: a ring that a test writes record by record, sound or not. */
#include "harness.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fake_image.h"
#include "guest/linux/log.h"

/* Where things are in the image. */
#define PRB (FAKE_IMAGE_GVA + 0x1000)
#define RING (FAKE_IMAGE_GVA + 0x2000)
#define DESCS (FAKE_IMAGE_GVA + 0x10000)
#define INFOS (FAKE_IMAGE_GVA + 0x20000)
#define TEXTS (FAKE_IMAGE_GVA + 0x40000)

#define COUNT_BITS 3
#define SIZE_BITS 8
#define FINALIZED (UINT64_C(2) << 62)
#define COMMITTED (UINT64_C(1) << 62)
#define REUSABLE (UINT64_C(3) << 62)

/* As in Linux 6.1. */
struct ring {
    uint32_t count_bits, pad;
    uint64_t descs, infos, head_id, tail_id, last_finalized;
    uint32_t size_bits, pad2;
    uint64_t data, head_lpos, tail_lpos, fail;
};

struct desc {
    uint64_t state, begin, next;
};

struct info {
    uint64_t sequence, time;
    uint16_t len;
    uint8_t facility, flags_level;
    uint32_t caller;
    char device[64];
};

struct log {
    struct fake_image image;
    struct ring *ring;
    struct desc *descs;
    struct info *infos;
    uint8_t *texts;
    uint64_t lpos;      /* where the next block begins */
    uint64_t id;        /* of the next record */
};

static void begin(struct log *log) {
    static const char *const lines[] = {
        "SIZE(printk_ringbuffer)=88", "OFFSET(printk_ringbuffer.desc_ring)=0", "OFFSET(printk_ringbuffer.text_data_ring)=48",
        "OFFSET(prb_desc_ring.count_bits)=0", "OFFSET(prb_desc_ring.descs)=8", "OFFSET(prb_desc_ring.infos)=16",
        "OFFSET(prb_desc_ring.head_id)=24", "OFFSET(prb_desc_ring.tail_id)=32", "OFFSET(prb_data_ring.size_bits)=0",
        "OFFSET(prb_data_ring.data)=8", "SIZE(prb_desc)=24", "OFFSET(prb_desc.state_var)=0", "OFFSET(prb_desc.text_blk_lpos)=8",
        "OFFSET(prb_data_blk_lpos.begin)=0", "OFFSET(prb_data_blk_lpos.next)=8", "SIZE(printk_info)=88",
        "OFFSET(printk_info.seq)=0", "OFFSET(printk_info.ts_nsec)=8", "OFFSET(printk_info.text_len)=16",
        "OFFSET(printk_info.caller_id)=20",
    };

    fake_image_begin(&log->image);
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        fake_image_note(&log->image, "%s", lines[i]);
    fake_image_note(&log->image, "SYMBOL(prb)=%" PRIx64, PRB);
    memcpy(fake_image_at(&log->image, PRB), &(uint64_t){RING}, 8);
    log->ring = fake_image_at(&log->image, RING);
    log->descs = fake_image_at(&log->image, DESCS);
    log->infos = fake_image_at(&log->image, INFOS);
    log->texts = fake_image_at(&log->image, TEXTS);
    *log->ring = (struct ring){.count_bits = COUNT_BITS, .descs = DESCS, .infos = INFOS, .size_bits = SIZE_BITS, .data = TEXTS};
    /* Ids and positions begin short of where they wrap. */
    log->id = (UINT64_C(1) << 62) - 2;
    log->lpos = UINT64_MAX << SIZE_BITS;
    log->ring->tail_id = log->id;
}

/* Appends a record as the kernel does: a block that does not fit the end of the ring lies at its beginning. */
static struct desc *append(struct log *log, const char *text, uint64_t state) {
    uint64_t mask = (1u << SIZE_BITS) - 1, size = (8 + strlen(text) + 7) & ~UINT64_C(7), at = log->lpos & mask, index;
    struct desc *desc;

    log->id &= (UINT64_C(1) << 62) - 1;
    index = log->id & ((1u << COUNT_BITS) - 1);
    desc = &log->descs[index];
    *desc = (struct desc){.state = state | log->id, .begin = log->lpos, .next = log->lpos + size};
    if (at + size > mask + 1) {
        at = 0;
        desc->next = (log->lpos & ~mask) + mask + 1 + size;
    }
    memcpy(log->texts + at, &log->id, 8);
    memcpy(log->texts + at + 8, text, strlen(text));
    log->infos[index] = (struct info){.sequence = log->id, .time = 1000 * index, .len = (uint16_t)strlen(text), .facility = 3,
                                      .flags_level = 6 << 5 | 1, .caller = 42};
    log->lpos = desc->next;
    log->ring->head_id = log->id++;
    return desc;
}

struct heard {
    char text[4096];
    size_t n;
};

static bool hear(void *context, const struct vmibus_linux_record *record) {
    struct heard *heard = context;

    ck_assert_uint_eq(strlen(record->text), record->len);
    strncat(heard->text, record->text, sizeof(heard->text) - strlen(heard->text) - 1);
    strncat(heard->text, "|", sizeof(heard->text) - strlen(heard->text) - 1);
    ck_assert_uint_eq(record->level, 6);
    ck_assert_uint_eq(record->facility, 3);
    ck_assert_uint_eq(record->caller, 42);
    heard->n++;
    return true;
}

static int visit(struct log *log, struct heard *heard, struct vmibus_linux_picture *picture) {
    if (!log->image.kernel)
        fake_image_open(&log->image);
    *heard = (struct heard){.n = 0};
    return vmibus_linux_visit_log(log->image.kernel, hear, heard, picture);
}

static struct log log_;

#define GOOD (VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY)

TEST(test_records) {
    struct vmibus_linux_picture picture;
    struct heard heard;

    begin(&log_);
    append(&log_, "one", FINALIZED);
    append(&log_, "two", FINALIZED);    /* here ids wrap */
    append(&log_, "three, not ended", COMMITTED);
    append(&log_, "four, not there yet", 0);
    append(&log_, "five", FINALIZED);
    ck_assert_int_eq(visit(&log_, &heard, &picture), 0);
    ck_assert_str_eq(heard.text, "one|two|three, not ended|five|");
    ck_assert_uint_eq(picture.flags, GOOD);
    ck_assert_uint_eq(picture.n_broken, 0);
    fake_image_end(&log_.image);
}

TEST(test_empty_log) {
    struct vmibus_linux_picture picture;
    struct heard heard;

    begin(&log_);
    log_.ring->head_id = log_.ring->tail_id;
    log_.descs[log_.ring->tail_id & 7].state = REUSABLE | log_.ring->tail_id;
    ck_assert_int_eq(visit(&log_, &heard, &picture), 0);
    ck_assert_uint_eq(heard.n, 0);
    ck_assert_uint_eq(picture.flags, GOOD);
    fake_image_end(&log_.image);
}

/* Both rings go round several times. */
TEST(test_rings_go_round) {
    struct vmibus_linux_picture picture;
    char text[64], expected[1024] = "";
    struct heard heard;

    begin(&log_);
    for (int i = 0; i < 50; i++) {
        snprintf(text, sizeof(text), "record %d %.*s", i, i % 13, "............");
        append(&log_, text, FINALIZED);
    }
    /* Room for 256 octets of texts: the last five fit for sure. */
    log_.ring->tail_id = (log_.ring->head_id - 4) & ((UINT64_C(1) << 62) - 1);
    for (int i = 45; i < 50; i++) {
        snprintf(text, sizeof(text), "record %d %.*s|", i, i % 13, "............");
        strcat(expected, text);
    }
    ck_assert_int_eq(visit(&log_, &heard, &picture), 0);
    ck_assert_str_eq(heard.text, expected);
    ck_assert_uint_eq(picture.flags, GOOD);
    fake_image_end(&log_.image);
}

TEST(test_record_without_text) {
    struct vmibus_linux_picture picture;
    struct heard heard;
    struct desc *desc;

    begin(&log_);
    desc = append(&log_, "lost", FINALIZED);
    desc->begin = desc->next = 3;
    append(&log_, "two", FINALIZED);
    ck_assert_int_eq(visit(&log_, &heard, &picture), 0);
    ck_assert_str_eq(heard.text, "|two|");
    fake_image_end(&log_.image);
}

/* --- what cannot be ------------------------------------------------------------------------------------------------- */

/* Descriptors that lie about their text: left out and counted, and nothing outside the ring of texts is shown. */
TEST(test_p09_descriptors_that_lie) {
    static const struct {
        uint64_t begin, next;   /* added to what is true */
    } lies[] = {
        {0, UINT64_MAX << 32}, {0, 1u << 20}, {1u << 20, 0}, {8, 0}, {UINT64_C(1) << 40, UINT64_C(1) << 40}, {0, UINT64_MAX - 15},
        {UINT64_C(1) << SIZE_BITS, 0}, {16, 16},
    };

    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct vmibus_linux_picture picture;
        struct heard heard;
        struct desc *desc;

        begin(&log_);
        append(&log_, "one", FINALIZED);
        desc = append(&log_, "two", FINALIZED);
        append(&log_, "three", FINALIZED);
        desc->begin += lies[i].begin;
        desc->next += lies[i].next;
        ck_assert_int_eq(visit(&log_, &heard, &picture), 0);
        /* A position that is moved by whole rings is another one of the same octets: the id there is right. */
        if (strcmp(heard.text, "one|two|three|") != 0) {
            ck_assert_str_eq(heard.text, "one|three|");
            ck_assert_uint_eq(picture.n_broken, 1);
        }
        fake_image_end(&log_.image);
        log_.image.kernel = NULL;
    }
}

/* A length beyond the block: cut there. */
TEST(test_p09_text_longer_than_its_block) {
    struct vmibus_linux_picture picture;
    struct heard heard;

    begin(&log_);
    append(&log_, "12345678", FINALIZED);
    log_.infos[(log_.id - 1) & 7].len = UINT16_MAX;
    append(&log_, "two", FINALIZED);
    ck_assert_int_eq(visit(&log_, &heard, &picture), 0);
    ck_assert_str_eq(heard.text, "12345678|two|");
    fake_image_end(&log_.image);
}

/* A block that another record has taken meanwhile. */
TEST(test_p12_block_of_another_record) {
    struct vmibus_linux_picture picture;
    struct heard heard;
    struct desc *desc;

    begin(&log_);
    desc = append(&log_, "one", FINALIZED);
    append(&log_, "two", FINALIZED);
    memset(log_.texts + (desc->begin & 255), 0x11, 8);
    ck_assert_int_eq(visit(&log_, &heard, &picture), 0);
    ck_assert_str_eq(heard.text, "two|");
    ck_assert_uint_eq(picture.n_broken, 1);
    ck_assert_uint_eq(picture.n_seen, 1);
    fake_image_end(&log_.image);
}

static void check_refused(void) {
    struct vmibus_linux_picture picture;
    struct heard heard;

    ck_assert_int_eq(visit(&log_, &heard, &picture), VMIBUS_GUEST_UNPROVEN);
    ck_assert_uint_eq(heard.n, 0);
    ck_assert_str_ne(vmibus_linux_why(log_.image.kernel), "nothing has failed");
}

TEST(test_p12_rings_that_cannot_be) {
    begin(&log_);
    append(&log_, "one", FINALIZED);
    log_.ring->tail_id = log_.ring->head_id - 8;    /* more than there are descriptors */
    check_refused();
    log_.ring->tail_id = log_.ring->head_id + 1;
    check_refused();
    log_.ring->tail_id = log_.ring->head_id;
    log_.ring->count_bits = 40;
    check_refused();
    log_.ring->count_bits = 0;
    check_refused();
    log_.ring->count_bits = COUNT_BITS;
    log_.ring->size_bits = 63;
    check_refused();
    log_.ring->size_bits = SIZE_BITS;
    memset(fake_image_at(&log_.image, PRB), 0, 8);
    check_refused();
    fake_image_end(&log_.image);
}

TEST(test_p12_note_without_the_log) {
    struct vmibus_linux_picture picture;
    struct fake_image image;
    struct heard heard = {.n = 0};

    fake_image_begin(&image);
    fake_image_open(&image);
    ck_assert_int_eq(vmibus_linux_visit_log(image.kernel, hear, &heard, &picture), VMIBUS_GUEST_UNPROVEN);
    ck_assert_msg(strstr(vmibus_linux_why(image.kernel), "5.10"), "%s", vmibus_linux_why(image.kernel));
    fake_image_end(&image);
}

/* A largest ring whose arrays are not there: given up soon. */
TEST(test_p09_largest_ring_of_nothing) {
    struct vmibus_linux_picture picture;
    struct heard heard;

    begin(&log_);
    append(&log_, "one", FINALIZED);
    log_.ring->count_bits = LOG_DESCRIPTOR_BITS_MAX;
    log_.ring->tail_id = log_.ring->head_id - (1u << LOG_DESCRIPTOR_BITS_MAX) + 1;
    log_.ring->descs = UINT64_C(0xffffffffa0000000);
    ck_assert_int_eq(visit(&log_, &heard, &picture), 0);
    ck_assert(!(picture.flags & VMIBUS_LINUX_ENDED));
    ck_assert_uint_lt(picture.n_broken, 10000);
    fake_image_end(&log_.image);
}

static bool hear_one(void *context, const struct vmibus_linux_record *record) {
    hear(context, record);
    return false;
}

TEST(test_visit_that_is_ended) {
    struct vmibus_linux_picture picture;
    struct heard heard = {.n = 0};

    begin(&log_);
    append(&log_, "one", FINALIZED);
    append(&log_, "two", FINALIZED);
    fake_image_open(&log_.image);
    ck_assert_int_eq(vmibus_linux_visit_log(log_.image.kernel, hear_one, &heard, &picture), 0);
    ck_assert_str_eq(heard.text, "one|");
    ck_assert_uint_eq(picture.n_seen, 1);
    ck_assert_uint_eq(picture.flags, 0);
    fake_image_end(&log_.image);
}

static bool count(void *context, const struct vmibus_linux_record *record) {
    (void)record;
    ++*(size_t *)context;
    return true;
}

/* Each descriptor has nearly all of the ring as its text: together they are no more than the ring. */
TEST(test_p09_texts_that_overlap_meet_the_bound) {
    struct vmibus_linux_picture picture;
    size_t n = 0;

    begin(&log_);
    for (int i = 0; i < 1 << COUNT_BITS; i++)
        append(&log_, "", FINALIZED);
    for (uint64_t id = log_.ring->tail_id, i = 0; i < 1 << COUNT_BITS; id = (id + 1) & ((UINT64_C(1) << 62) - 1), i++) {
        uint64_t index = id & ((1u << COUNT_BITS) - 1);

        memcpy(log_.texts + 8 * i, &id, 8);
        log_.descs[index].begin = 8 * i;
        log_.descs[index].next = (1u << SIZE_BITS) - 8;
        log_.infos[index].len = 150;
    }
    memset(log_.texts + 64, 'x', (1u << SIZE_BITS) - 64);
    fake_image_open(&log_.image);
    ck_assert_int_eq(vmibus_linux_visit_log(log_.image.kernel, count, &n, &picture), 0);
    ck_assert_uint_eq(n, 1);
    ck_assert_uint_eq(picture.flags & (VMIBUS_LINUX_BOUNDED | VMIBUS_LINUX_ENDED), VMIBUS_LINUX_BOUNDED);
    fake_image_end(&log_.image);
}

/* The guest takes a record back while it is read: it is not shown, and the picture says so. */
static void take_back(struct fake_guest *guest, uint64_t gpa) {
    if (gpa == INFOS - FAKE_IMAGE_GVA + FAKE_IMAGE_GPA + (((UINT64_C(1) << 62) - 2) & 7) * sizeof(struct info)) {
        guest->after_read = NULL;
        log_.descs[((UINT64_C(1) << 62) - 2) & 7].state = REUSABLE | ((UINT64_C(1) << 62) - 2);
    }
}

TEST(test_record_taken_back_meanwhile) {
    struct vmibus_linux_picture picture;
    struct heard heard;

    begin(&log_);
    append(&log_, "one", FINALIZED);
    append(&log_, "two", FINALIZED);
    fake_image_open(&log_.image);
    log_.image.guest.after_read = take_back;
    ck_assert_int_eq(visit(&log_, &heard, &picture), 0);
    ck_assert_str_eq(heard.text, "two|");
    ck_assert_uint_eq(picture.flags, VMIBUS_LINUX_ENDED);
    fake_image_end(&log_.image);
}

/* Each read fails in its turn: an error of the reader is passed on, and what is not whole is not called so. */
TEST(test_p12_each_read_that_fails, .iterations = 2) {
    const int failure = _i ? -EIO : VMIBUS_GUEST_OUTSIDE_RAM;
    struct vmibus_linux_picture picture;
    struct fake_guest *guest = &log_.image.guest;
    struct heard heard;
    int k = 1;

    begin(&log_);
    append(&log_, "one", FINALIZED);
    append(&log_, "two", COMMITTED);
    ck_assert_int_eq(visit(&log_, &heard, &picture), 0);
    for (guest->failure = failure;; k++) {
        int r;

        guest->reads = 0;
        guest->fail_at_read = k;
        r = visit(&log_, &heard, &picture);
        if (guest->reads < (size_t)k)
            break;
        if (failure < 0)
            ck_assert_msg(r == failure, "read %d: %d", k, r);
        ck_assert_msg(r != 0 || heard.n == 2 || picture.n_broken > 0 || !(picture.flags & VMIBUS_LINUX_STEADY), "read %d", k);
    }
    ck_assert_int_gt(k, 20);
    fake_image_end(&log_.image);
}

HARNESS_SUITE("linux_log", HARNESS_QUICK)
