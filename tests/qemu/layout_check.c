/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "layout_check.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <json-c/json.h>
#include <vmibus/guest.h>

#include "harness.h"

#define PAGE UINT64_C(4096)
#define PROBES 4
#define SETTLE_TRIES 6000

/* One comparison. */
struct check {
    struct scene *scene;
    const char *const *backends;
    char *view; /* the oracle's flat views */
    struct vmibus_attachment *attachment;
    struct vmibus_mediated *mediated;
    struct vmibus_guest_ram *ram; /* NULL without descriptors */
    uint64_t random;
    struct layout_sum sum;
};

/* --- the oracle -------------------------------------------------------------------------------- */

static char *ask(struct scene *scene, const char *command, uint64_t gpa) {
    char line[64], *text;

    snprintf(line, sizeof(line), "%s0x%" PRIx64, command, gpa);
    ck_assert_msg(bed_hmp(scene->bed, line, &text) == 0, "%s: %s", line, bed_error(scene->bed));
    return text;
}

static bool is_named(const struct check *check, const char *name) {
    if (strncmp(name, "/objects/", 9) == 0)
        name += 9;
    for (const char *const *backend = check->backends; *backend; backend++)
        if (strcmp(name, *backend) == 0)
            return true;
    return false;
}

/* Where RAM of the backends lies in QEMU's address space; 0: it is none. */
static uint64_t locate(const struct check *check, uint64_t gpa) {
    char *text = ask(check->scene, "gpa2hva ", gpa), name[256];
    uint64_t hva = 0;

    if (sscanf(text, "Host virtual address for %*x (%255[^)]) is %" SCNx64, name, &hva) != 2 || !is_named(check, name))
        hva = 0;
    free(text);
    return hva;
}

/* Whether the flat view shows a backend there as ROM: no device has a backend's name in these guests. */
static bool is_rom(const struct check *check, uint64_t gpa) {
    for (const char *line = check->view; line; line = strchr(line, '\n'), line += line != NULL) {
        uint64_t first, last;
        char kind[16], name[256];

        if (sscanf(line, " %" SCNx64 "-%" SCNx64 " (prio 0, %15[^)]): %255s", &first, &last, kind, name) == 4 && first <= gpa &&
            gpa <= last && is_named(check, name))
            return strstr(kind, "rom") != NULL;
    }
    ck_abort_msg("the flat view does not show 0x%" PRIx64, gpa);
}

static void read_by_oracle(const struct check *check, uint64_t gpa, uint64_t words[8]) {
    char *text = ask(check->scene, "xp /8gx ", gpa), *at = text;

    for (int i = 0; i < 8; i++) {
        at = strstr(at, " 0x");
        ck_assert_msg(at, "xp says: %s", text);
        words[i] = strtoull(at + 1, &at, 16);
    }
    free(text);
}

uint64_t layout_of_qemu(struct bed *bed) {
    json_object *answer, *base, *plugged;
    uint64_t size;

    ck_assert_msg(bed_qmp(bed, "query-memory-size-summary", NULL, &answer) == 0, "%s", bed_error(bed));
    ck_assert(json_object_object_get_ex(answer, "base-memory", &base));
    ck_assert(json_object_object_get_ex(answer, "plugged-memory", &plugged));
    size = json_object_get_uint64(base) + json_object_get_uint64(plugged);
    json_object_put(answer);
    return size;
}

/* --- one address ------------------------------------------------------------------------------- */

/* The mapping of QEMU at an address is that of the range's file, at the range's offset. */
static void check_file(const struct check *check, const struct vmibus_ram_range *range, uint64_t within, uint64_t hva) {
    unsigned int major_number, minor_number;
    uint64_t start, end, offset, inode;
    char path[64], line[512];
    bool found = false;
    struct stat st;
    FILE *maps;

    ck_assert_int_eq(fstat(check->attachment->fds[range->object], &st), 0);
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)check->scene->bed->pid);
    maps = fopen(path, "re");
    ck_assert_ptr_nonnull(maps);
    while (!found && fgets(line, sizeof(line), maps))
        found = sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %x:%x %" SCNu64, &start, &end, &offset, &major_number,
                       &minor_number, &inode) == 6 &&
                start <= hva && hva < end;
    fclose(maps);
    ck_assert_msg(found, "QEMU has no mapping at 0x%" PRIx64, hva);
    ck_assert_uint_eq(inode, st.st_ino);
    ck_assert_uint_eq(makedev(major_number, minor_number), st.st_dev);
    ck_assert_uint_eq(offset + (hva - start), range->offset + within);
}

static void check_place(const struct check *check, const struct vmibus_ram_range *range, uint64_t within) {
    uint64_t hva = locate(check, range->gpa + within);

    ck_assert_msg(hva, "0x%" PRIx64 " is no RAM by gpa2hva", range->gpa + within);
    if (check->ram)
        check_file(check, range, within, hva);
}

static const struct vmibus_ram_range *find(const struct check *check, uint64_t gpa) {
    for (size_t i = 0; i < check->attachment->n_ranges; i++)
        if (gpa >= check->attachment->ranges[i].gpa && gpa - check->attachment->ranges[i].gpa < check->attachment->ranges[i].len)
            return &check->attachment->ranges[i];
    return NULL;
}

static void check_outside(const struct check *check, uint64_t gpa) {
    ck_assert_msg(find(check, gpa) || !locate(check, gpa), "0x%" PRIx64 " is RAM by gpa2hva, and in no range", gpa);
}

/* --- octets ------------------------------------------------------------------------------------ */

static uint64_t next_random(struct check *check) {
    check->random = check->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return check->random >> 16;
}

static int write_words(const struct check *check, uint64_t gpa, const uint64_t words[8], uint16_t *reason) {
    const struct vmibus_write write = {.gva = gpa,
                                       .data = words,
                                       .len = 64,
                                       .flags = VMIBUS_MEMWRITE_PHYSICAL,
                                       .token = check->scene->token,
                                       .epoch = check->scene->epoch};
    struct vmibus_message reply;
    int r = vmibus_memwrite(check->scene->bus, &check->scene->endpoint, &write, &reply);

    *reason = reply.frame.ack.reason;
    vmibus_message_deinit(&reply);
    return r;
}

/* All ways to read agree with the oracle. */
static void check_octets(const struct check *check, uint64_t gpa, const uint64_t expected[8]) {
    uint64_t words[8];

    read_by_oracle(check, gpa, words);
    ck_assert_msg(memcmp(words, expected, sizeof(words)) == 0, "QEMU does not see what was written at 0x%" PRIx64, gpa);
    ck_assert_int_eq(vmibus_mediated_read(check->mediated, gpa, words, sizeof(words)), 0);
    ck_assert_msg(memcmp(words, expected, sizeof(words)) == 0, "a mediated read differs at 0x%" PRIx64, gpa);
    if (!check->ram)
        return;
    ck_assert_int_eq(vmibus_guest_ram_read(check->ram, gpa, words, sizeof(words)), 0);
    ck_assert_msg(memcmp(words, expected, sizeof(words)) == 0, "a read by descriptor differs at 0x%" PRIx64, gpa);
}

static void check_pattern(struct check *check, const struct vmibus_ram_range *range, uint64_t within) {
    uint64_t gpa = range->gpa + within, words[8];
    uint16_t reason;

    if (range->flags & VMIBUS_RANGE_READ_ONLY) {
        read_by_oracle(check, gpa, words);
        check_octets(check, gpa, words);
        ck_assert_int_eq(write_words(check, gpa, words, &reason), VMIBUS_ERROR_TRANSLATION);
        ck_assert_uint_eq(reason, VMIBUS_REASON_ROM);
        return;
    }
    for (int i = 0; i < 8; i++)
        words[i] = next_random(check);
    ck_assert_msg(write_words(check, gpa, words, &reason) == 0, "0x%" PRIx64 " cannot be written: reason %u", gpa, reason);
    check_octets(check, gpa, words);
}

/* --- ranges ------------------------------------------------------------------------------------ */

static void check_range(struct check *check, const struct vmibus_ram_range *range) {
    bool read_only = (range->flags & VMIBUS_RANGE_READ_ONLY) != 0;

    ck_assert_uint_eq(range->gpa % PAGE, 0);
    ck_assert_uint_eq(range->len % PAGE, 0);
    ck_assert_uint_gt(range->len, 0);
    ck_assert_msg(!(range->flags & VMIBUS_RANGE_ALIAS), "an alias at 0x%" PRIx64, range->gpa);
    check_place(check, range, 0);
    check_place(check, range, range->len - 1);
    if (range->gpa)
        check_outside(check, range->gpa - 1);
    check_outside(check, range->gpa + range->len);
    check_pattern(check, range, range->len - 64);
    for (int i = 0; i < PROBES; i++) {
        uint64_t page = next_random(check) % (range->len / PAGE) * PAGE;

        check_place(check, range, page);
        check_pattern(check, range, page);
        ck_assert_int_eq(is_rom(check, range->gpa + page), read_only);
    }
    ck_assert_int_eq(is_rom(check, range->gpa), read_only);
    ck_assert_int_eq(is_rom(check, range->gpa + range->len - 1), read_only);
    check->sum.ram += range->len;
    check->sum.read_only += read_only ? range->len : 0;
    if (range->gpa < UINT64_C(1) << 32)
        check->sum.low_end = range->gpa + range->len;
    else
        check->sum.high += range->len;
    if (range->object + 1u > check->sum.n_objects)
        check->sum.n_objects = range->object + 1u;
}

struct layout_sum layout_check(struct scene *scene, const char *const *backends) {
    struct check check = {.scene = scene, .backends = backends, .random = scene->epoch};

    ck_assert_msg(bed_hmp(scene->bed, "info mtree -f", &check.view) == 0, "%s", bed_error(scene->bed));
    ck_assert_int_eq(vmibus_attach(scene->bus, &scene->endpoint, scene->epoch, &check.attachment, NULL), 0);
    ck_assert_int_eq(vmibus_mediated_new(scene->bus, &scene->endpoint, scene->epoch, &check.mediated, NULL), 0);
    if (check.attachment->n_fds)
        ck_assert_int_eq(vmibus_guest_ram_new(&check.ram, check.attachment->ranges, check.attachment->n_ranges,
                                              check.attachment->fds, check.attachment->n_fds),
                         0);
    check.sum.handed = check.ram != NULL;
    check.sum.n_ranges = check.attachment->n_ranges;
    for (size_t i = 0; i < check.attachment->n_ranges; i++)
        check_range(&check, &check.attachment->ranges[i]);
    ck_assert(vmibus_epoch_is_current(check.attachment));
    vmibus_guest_ram_free(check.ram);
    vmibus_mediated_free(check.mediated);
    vmibus_release(check.attachment);
    free(check.view);
    return check.sum;
}

/* --- waiting ----------------------------------------------------------------------------------- */

void layout_settle(struct bed *bed, bool has_shadow) {
    bool done = !has_shadow;

    for (int tries = 0; !done; tries++) {
        char *text;

        ck_assert_msg(tries < SETTLE_TRIES, "the firmware does not finish");
        ck_assert_msg(bed_hmp(bed, "info mtree -f", &text) == 0, "%s", bed_error(bed));
        done = strstr(text, "00000000000f0000-00000000000fffff (prio 0, rom)") != NULL;
        free(text);
        if (!done)
            poll(NULL, 0, 10);
    }
    ck_assert_msg(bed_qmp(bed, "stop", NULL, NULL) == 0, "%s", bed_error(bed));
}

static bool has_epoch(struct scene *scene, void *data) {
    (void)data;
    return scene->epoch != 0;
}

void layout_wait(struct scene *scene) {
    ck_assert_msg(scene_wait(scene, has_epoch, NULL), "no memory context was published");
}
