/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl search: where a pattern stands in guest memory. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame_json.h"
#include "guest_memory.h"
#include "process_space.h"
#include "progress.h"
#include "report.h"
#include "units.h"

#define MATCHES_DEFAULT 1000
#define MATCHES_MAX 1000000
#define ROOM 256

/* Of a step: some milliseconds by descriptors, some tens through the authority. */
#define STEP (UINT64_C(16) << 20)
#define STEP_MEDIATED (UINT64_C(1) << 20)

/*
 * What is looked at before it is said that there is no end to it: so many times the RAM, or that much of a small one. The kernel
 * maps all RAM once, and processes share little; but tables may map one page at each of 2^48 addresses.
 */
#define LIMIT_RAMS 16
#define LIMIT_MIN (UINT64_C(4) << 30)

/* How a search ended. */
enum search_end {
    SEARCH_OVER,        /* all was looked at */
    SEARCH_MAX,         /* as many matches as were wanted */
    SEARCH_LIMIT,       /* too much was looked at */
};

struct search {
    struct vmibusctl *ctl;
    struct guest_memory memory;
    bool physical;
    uint8_t *octets;
    uint8_t *mask;
    struct vmibus_guest_pattern pattern;
    uint64_t from, last;
    uint64_t max;
    uint64_t n_found;
    uint64_t looked_at, limit; /* octets, roughly */
    uint64_t next; /* where to go on, unless it is over */
    struct json_object *found; /* with --json */
};

/* --- the command line -------------------------------------------------------------------------- */

static int parse_hex(const char *what, const char *text, uint8_t **octets, size_t *len) {
    int r = units_parse_hex(text, octets, len);

    if (r == 0 && *len > 0 && *len <= VMIBUS_GUEST_PATTERN_MAX)
        return STATUS_OK;
    if (r == -ENOMEM)
        return report_failure("out of memory");
    return vmibusctl_usage(what, text, "it is 1 to 4096 octets in hexadecimal");
}

static int parse_pattern(const struct arguments *arguments, struct search *search) {
    const char *text = arguments->words[1], *mask = arguments_get(arguments, "mask");
    size_t len = strlen(text);
    int r = STATUS_OK;

    if (arguments_get(arguments, "hex") && arguments_get(arguments, "text"))
        return vmibusctl_usage("--hex", NULL, "give --hex or --text");
    if (arguments_get(arguments, "hex")) {
        r = parse_hex("pattern", text, &search->octets, &len);
        search->pattern.octets = search->octets;
    } else {
        if (len == 0 || len > VMIBUS_GUEST_PATTERN_MAX)
            return vmibusctl_usage("pattern", text, "it has 1 to 4096 octets");
        search->pattern.octets = (const uint8_t *)text;
    }
    search->pattern.len = len;
    if (r == STATUS_OK && mask) {
        r = parse_hex("--mask", mask, &search->mask, &len);
        search->pattern.mask = search->mask;
        if (r == STATUS_OK && len != search->pattern.len)
            r = vmibusctl_usage("--mask", mask, "it has as many octets as the pattern");
    }
    return r;
}

static int parse_number(const struct arguments *arguments, const char *option, uint64_t bound, const char *expected,
                        uint64_t *value) {
    const char *text = arguments_get(arguments, option);
    char name[16];

    if (!text || units_parse_number(text, bound, value))
        return STATUS_OK;
    snprintf(name, sizeof(name), "--%s", option);
    return vmibusctl_usage(name, text, expected);
}

static int parse(const struct arguments *arguments, struct search *search) {
    static const char address[] = "it is decimal, or 0x and hexadecimal";
    uint64_t to = 0;
    int r = parse_pattern(arguments, search);

    if (r == STATUS_OK)
        r = process_space_check(arguments);
    if (r == STATUS_OK)
        r = parse_number(arguments, "from", UINT64_MAX, address, &search->from);
    if (r == STATUS_OK)
        r = parse_number(arguments, "to", UINT64_MAX, address, &to);
    if (r == STATUS_OK)
        r = parse_number(arguments, "align", UINT64_C(1) << 63, "it is a power of two", &search->pattern.align);
    if (r == STATUS_OK)
        r = parse_number(arguments, "max", MATCHES_MAX, "it is 1 to 1000000", &search->max);
    if (r != STATUS_OK)
        return r;
    if (search->pattern.align & (search->pattern.align - 1))
        return vmibusctl_usage("--align", arguments_get(arguments, "align"), "it is a power of two");
    if (search->max == 0)
        return vmibusctl_usage("--max", "0", "it is 1 to 1000000");
    if (arguments_get(arguments, "to") && to <= search->from)
        return vmibusctl_usage("--to", arguments_get(arguments, "to"), "it is the address behind the last octet, behind --from");
    search->last = to - 1; /* 0: to the end */
    return STATUS_OK;
}

/* --- searching --------------------------------------------------------------------------------- */

static void show(struct search *search, uint64_t address) {
    if (search->found)
        json_object_array_add(search->found, json_object_new_uint64(address));
    else
        printf("0x%016" PRIx64 "\n", address);
}

static int make_scan(struct search *search, struct vmibus_guest_scan **scan) {
    const struct vmibus_attachment *attachment = search->memory.attachment;
    const struct guest_memory *memory = &search->memory;
    int r;

    if (search->physical)
        r = vmibus_guest_scan_new_physical(scan, &memory->reader, attachment->ranges, attachment->n_ranges, &search->pattern,
                                           search->from, search->last);
    else
        r = vmibus_guest_scan_new(scan, &memory->reader, &memory->root, &search->pattern, search->from, search->last);
    if (r == -EINVAL)
        return vmibusctl_usage("--mask", NULL, "it leaves nothing of the pattern to search for");
    return r < 0 ? report_failure("cannot search: %s", strerror(-r)) : STATUS_OK;
}

/* What was found in a step counts only if the epoch goes on; guest_memory_check_epoch() says so in the end. */
static int step(struct search *search, struct vmibus_guest_scan *scan, struct progress *progress, bool *over) {
    const uint64_t octets = search->memory.mediated ? STEP_MEDIATED : STEP, left = search->max - search->n_found;
    const size_t room = left < ROOM ? (size_t)left : ROOM;
    uint64_t matches[ROOM];
    size_t n = 0;
    int r = VMIBUS_GUEST_UNFINISHED;

    if (guest_memory_is_current(&search->memory))
        r = vmibus_guest_scan_step(scan, octets, matches, room, &n);
    if (!guest_memory_is_current(&search->memory))
        return STATUS_REFUSED + VMIBUS_ERROR_STALE_EPOCH;
    if (n > 0)
        progress_clear(progress);
    for (size_t i = 0; i < n; i++)
        show(search, matches[i]);
    search->n_found += n;
    search->looked_at += n < room ? octets : 0;
    search->next = n == room ? matches[n - 1] + 1 : vmibus_guest_scan_get_position(scan);
    *over = r == 0;
    return r < 0 ? report_failure("cannot search further: %s", strerror(-r)) : STATUS_OK;
}

static uint64_t limit_of(const struct vmibus_attachment *attachment) {
    uint64_t ram = 0;

    for (size_t i = 0; i < attachment->n_ranges; i++)
        ram += attachment->ranges[i].len;
    return ram > LIMIT_MIN / LIMIT_RAMS ? ram * LIMIT_RAMS : LIMIT_MIN;
}

static int run_scan(struct search *search, struct vmibus_guest_scan *scan, enum search_end *end) {
    struct progress progress;
    bool over = false;
    int r = STATUS_OK;

    search->limit = limit_of(search->memory.attachment);

    progress_begin(&progress, "searched", 0);
    while (r == STATUS_OK && !over && search->n_found < search->max && search->looked_at < search->limit) {
        r = step(search, scan, &progress, &over);
        progress_update(&progress, vmibus_guest_scan_get_progress(scan));
    }
    progress_clear(&progress);
    *end = over ? SEARCH_OVER : search->n_found >= search->max ? SEARCH_MAX : SEARCH_LIMIT;
    return r;
}

/* @a end: NULL, if it failed. */
static void print_json(struct search *search, const enum search_end *end) {
    struct json_object *object = json_object_new_object();

    if (!search->physical)
        json_object_object_add(object, "cr3", json_object_new_uint64(search->memory.root.cr3));
    json_object_object_add(object, "epoch", json_object_new_uint64(search->memory.attachment->epoch));
    json_object_object_add(object, search->physical ? "gpas" : "gvas", search->found);
    json_object_object_add(object, "complete", json_object_new_boolean(end && *end == SEARCH_OVER));
    if (end && *end != SEARCH_OVER)
        json_object_object_add(object, "next", json_object_new_uint64(search->next));
    if (end && *end == SEARCH_LIMIT)
        json_object_object_add(object, "limit", json_object_new_uint64(search->limit));
    frame_json_print(object);
}

static int tell_end(const struct search *search, enum search_end end) {
    char size[UNITS_SIZE_SIZE];

    if (end == SEARCH_LIMIT) {
        report_failure("the limit of what is looked at in %s is reached, %s (%d times its RAM, at least 4 GiB): its tables map "
                       "some of it over and over. Go on with --from 0x%" PRIx64 ", or end it with --to.",
                       printable(search->memory.vm->name), units_size(search->limit, size), LIMIT_RAMS, search->next);
        return STATUS_REFUSED + VMIBUS_ERROR_TRANSLATION;
    }
    if (end == SEARCH_MAX)
        fprintf(stderr, "vmibusctl: there may be more: go on with --from 0x%" PRIx64 ", or give a larger --max\n", search->next);
    return search->n_found > 0 ? STATUS_OK : STATUS_NOT_FOUND;
}

static int look(struct search *search) {
    struct vmibus_guest_scan *scan = NULL;
    enum search_end end = SEARCH_OVER;
    int r = make_scan(search, &scan);

    if (r != STATUS_OK)
        return r;
    if (search->ctl->json)
        search->found = json_object_new_array();
    r = run_scan(search, scan, &end);
    vmibus_guest_scan_free(scan);
    if (search->ctl->json)
        print_json(search, r == STATUS_OK ? &end : NULL);
    return r == STATUS_OK ? tell_end(search, end) : r;
}

static int search_vm(struct search *search, const struct arguments *arguments) {
    struct roster roster = {};
    struct vm *vm;
    int r = roster_fetch(search->ctl, &roster), ended;

    if (r == STATUS_OK)
        r = roster_lookup(&roster, arguments->words[0], &vm);
    if (r == STATUS_OK)
        r = guest_memory_attach(search->ctl, vm, search->physical, arguments_get(arguments, "cr3"),
                                arguments_get(arguments, "mediated"), &search->memory);
    if (r == STATUS_OK) {
        r = process_space_enter(arguments_get(arguments, "pid"), &search->memory);
        if (r == STATUS_OK) {
            r = look(search);
            ended = guest_memory_check_epoch(search->ctl, &roster, &search->memory);
            r = ended ? ended : r;
        }
    }
    guest_memory_detach(&search->memory);
    roster_deinit(&roster);
    return r;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct search search = {.ctl = ctl, .physical = arguments_get(arguments, "physical"), .max = MATCHES_DEFAULT};
    int r = parse(arguments, &search);

    if (r == STATUS_OK)
        r = search_vm(&search, arguments);
    free(search.octets);
    free(search.mask);
    return r;
}

static const struct option_description options[] = {
    {"text", NULL, "PATTERN is the octets themselves (default)"},
    {"hex", NULL, "PATTERN is octets in hexadecimal"},
    {"mask", "HEX", "the bits of each octet that count; without it all do"},
    {"from", "ADDR", "the first address that a match may have"},
    {"to", "ADDR", "the address behind the last octet that is searched"},
    {"align", "N", "matches begin at multiples of this power of two"},
    {"max", "N", "end after so many matches; 1000 without it"},
    {"physical", NULL, "search guest-physical memory"},
    {"cr3", "ADDR", "search what this page-table root maps; without it what the kernel's does"},
    PROCESS_SPACE_OPTION,
    {"mediated", NULL, "read through the memory authority also where RAM descriptors are given"},
    {},
};

const struct verb verb_search = {
    .name = "search",
    .synopsis = "VM PATTERN",
    .summary = "find octets in guest memory",
    .min_words = 2,
    .max_words = 2,
    .options = options,
    .run = run,
};
