/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl write: guest memory, whole or not at all, in one command. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "authority.h"
#include "extents.h"
#include "frame_json.h"
#include "process_space.h"
#include "report.h"
#include "units.h"

/* The octets to write; with --expect, those to compare with come first. */
struct source {
    uint8_t *octets;
    size_t length;      /* of what is to be written */
};

static int read_file(const char *path, size_t bound, uint8_t **octetsp, size_t *lengthp) {
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    uint8_t *octets = malloc(bound + 1);
    size_t length = 0;
    int r = STATUS_OK;

    if (file && octets)
        length = fread(octets, 1, bound + 1, file);
    if (!file || !octets || ferror(file))
        r = report_failure("cannot read %s: %s", printable(path), strerror(errno));
    else if (length == 0)
        r = report_failure("%s is empty: there is nothing to write", printable(path));
    else if (length > bound)
        r = report_failure("%s has more than the %zu octets that this bus writes at once: write it in pieces", printable(path),
                           bound);
    if (file && file != stdin)
        fclose(file);
    if (r) {
        free(octets);
        return r;
    }
    *octetsp = octets;
    *lengthp = length;
    return r;
}

static int parse_hex(const char *option, const char *text, uint8_t **octetsp, size_t *lengthp) {
    int r = units_parse_hex(text, octetsp, lengthp);

    if (r == -EINVAL)
        return vmibusctl_usage(option, text, "it is octets in hexadecimal, two digits each");
    return r ? report_failure("%s: %s", option, strerror(-r)) : STATUS_OK;
}

/* Puts the octets to compare with before those to write. */
static int add_expected(const char *text, struct source *source) {
    uint8_t *expected = NULL, *both;
    size_t length;
    int r = parse_hex("--expect", text, &expected, &length);

    if (r)
        return r;
    if (length != source->length) {
        free(expected);
        return vmibusctl_usage("--expect", text, "it is as long as what is to be written");
    }
    both = realloc(expected, 2 * length);
    if (!both) {
        free(expected);
        return report_failure("out of memory");
    }
    memcpy(both + length, source->octets, length);
    free(source->octets);
    source->octets = both;
    return STATUS_OK;
}

static int get_source(const struct vmibusctl *ctl, const struct arguments *arguments, struct source *source) {
    const char *hex = arguments_get(arguments, "hex"), *file = arguments_get(arguments, "file");
    const char *expect = arguments_get(arguments, "expect");
    size_t bound = vmibus_get_welcome(ctl->bus)->tail_bound / (expect ? 2 : 1);
    int r;

    if (hex)
        r = parse_hex("--hex", hex, &source->octets, &source->length);
    else
        r = read_file(file, bound, &source->octets, &source->length);
    if (r == STATUS_OK && source->length > bound)
        r = vmibusctl_usage("--hex", NULL, "it is longer than this bus writes at once");
    if (r == STATUS_OK && expect)
        r = add_expected(expect, source);
    return r;
}

static uint32_t get_flags(const struct arguments *arguments) {
    uint32_t flags = 0;

    if (arguments_get(arguments, "physical"))
        flags |= VMIBUS_MEMWRITE_PHYSICAL;
    if (arguments_get(arguments, "read-only-page"))
        flags |= VMIBUS_MEMWRITE_READ_ONLY_PAGE;
    if (arguments_get(arguments, "expect"))
        flags |= VMIBUS_MEMWRITE_EXPECT;
    if (arguments_get(arguments, "quiesce"))
        flags |= VMIBUS_MEMWRITE_QUIESCE;
    if (arguments_get(arguments, "dry-run"))
        flags |= VMIBUS_MEMWRITE_DRY_RUN;
    return flags;
}

static void print_written(const struct vmibus_write *write, const struct vmibus_ack *ack, uint64_t octets, const char *where,
                          const char *name) {
    printf("%s %" PRIu64 " octets %s of %s, epoch 0x%" PRIx64 "\n",
           write->flags & VMIBUS_MEMWRITE_DRY_RUN ? "would write" : "wrote", octets, where, name, ack->epoch);
}

static int write_memory(struct vmibusctl *ctl, const struct vm *vm, const struct vmibus_write *write) {
    const char *name = printable(vm->name);
    struct vmibus_message reply;
    char where[32];
    int r = vmibus_memwrite(ctl->bus, &vm->endpoint, write, &reply);

    snprintf(where, sizeof(where), "at 0x%" PRIx64, write->gva);
    if (r)
        r = report_refusal(ctl, r, &reply, "cannot write %" PRIu32 " octets %s of %s", write->len, where, name);
    else if (ctl->json)
        frame_json_print(frame_json_body(&reply.frame));
    else
        print_written(write, &reply.frame.ack, write->len, where, name);
    vmibus_message_deinit(&reply);
    return r;
}

/* With --json, what the bus answered is told once, with the results. */
static int refuse_extents(struct vmibusctl *ctl, int r, const struct vmibus_message *reply, const struct extents *extents,
                          const struct vmibus_extent_result *results, const char *name) {
    const struct vmibusctl quiet = {.bus = ctl->bus};

    r = report_refusal(&quiet, r, reply, "cannot write %zu extents of %s", extents->n, name);
    extents_explain(extents, results);
    return r;
}

static int write_extents(struct vmibusctl *ctl, const struct vm *vm, const struct vmibus_write *write,
                         const struct extents *extents) {
    struct vmibus_extent_result results[VMIBUS_EXTENTS_BOUND];
    struct vmibus_message reply;
    struct json_object *object;
    char where[32];
    int r = vmibus_memwrite_table(ctl->bus, &vm->endpoint, write, extents->records, extents->n, results, &reply);

    if (ctl->json && r >= 0) {
        object = frame_json_body(&reply.frame);
        json_object_object_add(object, "extents", extents_json(extents, results));
        frame_json_print(object);
    }
    snprintf(where, sizeof(where), "in %zu extents", extents->n);
    if (r)
        r = refuse_extents(ctl, r, &reply, extents, results, printable(vm->name));
    else if (!ctl->json)
        print_written(write, &reply.frame.ack, extents->length, where, printable(vm->name));
    vmibus_message_deinit(&reply);
    return r;
}

static int check(const struct arguments *arguments, struct vmibus_write *write) {
    const char *cr3 = arguments_get(arguments, "cr3"), *epoch = arguments_get(arguments, "epoch");

    if (arguments_get(arguments, "extents")) {
        if (arguments->n_words > 1 || arguments_get(arguments, "hex") || arguments_get(arguments, "file") ||
            arguments_get(arguments, "expect") || arguments_get(arguments, "expect-gpa"))
            return vmibusctl_usage("--extents", NULL, "the file says where, what, and what to expect: give nothing of that beside");
    } else if (arguments->n_words < 2) {
        return vmibusctl_usage("address", NULL, "give an address, or --extents and a file that has some");
    } else if (!units_parse_number(arguments->words[1], UINT64_MAX, &write->gva)) {
        return vmibusctl_usage("address", arguments->words[1], "it is decimal, or 0x and hexadecimal");
    } else if (!arguments_get(arguments, "hex") == !arguments_get(arguments, "file")) {
        return vmibusctl_usage("--hex, --file", NULL, "give one of them: it says what to write");
    }
    if (cr3 && (!units_parse_number(cr3, UINT64_MAX, &write->cr3) || write->cr3 == 0))
        return vmibusctl_usage("--cr3", cr3, "it is a page-table root, decimal or 0x and hexadecimal, and not 0");
    if (cr3 && arguments_get(arguments, "physical"))
        return vmibusctl_usage("--cr3", NULL, "a physical address needs none: give --cr3 or --physical");
    if (epoch && (!units_parse_number(epoch, UINT64_MAX, &write->epoch) || write->epoch == 0))
        return vmibusctl_usage("--epoch", epoch, "it is the number of an epoch, as `vmibusctl info` shows it");
    write->flags = get_flags(arguments);
    return process_space_check(arguments);
}

/* One extent that says where it is to be; its octets become the extents'. */
static int expect_at(const char *gpa, const struct vmibus_write *write, struct source *source, struct extents *extents) {
    extents->records = calloc(1, sizeof(*extents->records));
    if (!extents->records)
        return report_failure("out of memory");
    if (!units_parse_number(gpa, UINT64_MAX, &extents->records->gpa))
        return vmibusctl_usage("--expect-gpa", gpa, "it is decimal, or 0x and hexadecimal");
    extents->records->gva = write->gva;
    extents->records->len = (uint32_t)source->length;
    extents->n = extents->n_gpa = 1;
    extents->octets = source->octets;
    extents->length = source->length;
    source->octets = NULL;
    return STATUS_OK;
}

static int get_octets(const struct vmibusctl *ctl, const struct arguments *arguments, struct vmibus_write *write,
                      struct source *source, struct extents *extents) {
    const char *file = arguments_get(arguments, "extents"), *gpa = arguments_get(arguments, "expect-gpa");
    int r = file ? extents_read(extents, file) : get_source(ctl, arguments, source);

    if (r == STATUS_OK && gpa)
        r = expect_at(gpa, write, source, extents);
    if (r == STATUS_OK && file && !extents_join(extents))
        r = report_failure("out of memory");
    write->flags |= extents_get_flags(extents);
    write->data = extents->n ? extents->octets : source->octets;
    write->len = (uint32_t)source->length;
    return r;
}

static int run_on(struct vmibusctl *ctl, const struct arguments *arguments, const struct vm *vm, struct vmibus_write *write) {
    struct authority authority = {};
    struct extents extents = {};
    struct source source = {};
    const char *pid = arguments_get(arguments, "pid");
    int r = get_octets(ctl, arguments, write, &source, &extents);

    if (r == STATUS_OK && pid)
        r = process_space_find(ctl, vm, pid, &write->cr3);
    if (r == STATUS_OK)
        r = authority_take(ctl, vm, VMIBUS_LEASE_CLASS_MEMWRITE, arguments_get(arguments, "token"), &authority);
    if (r == STATUS_OK) {
        write->token = authority.token;
        if (!write->epoch)
            write->epoch = vm->memctx.memctx.epoch;
        r = extents.n ? write_extents(ctl, vm, write, &extents) : write_memory(ctl, vm, write);
        authority_release(ctl, &authority);
    }
    extents_deinit(&extents);
    free(source.octets);
    return r;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct vmibus_write write = {};
    struct roster roster = {};
    struct vm *vm;
    int r = check(arguments, &write);

    if (r == STATUS_OK)
        r = roster_fetch(ctl, &roster);
    if (r == STATUS_OK)
        r = roster_lookup(&roster, arguments->words[0], &vm);
    if (r == STATUS_OK)
        r = run_on(ctl, arguments, vm, &write);
    roster_deinit(&roster);
    return r;
}

static const struct option_description options[] = {
    {"hex", "BYTES", "what to write, two hexadecimal digits each octet"},
    {"file", "PATH", "a file that holds what to write; - is standard input"},
    {"physical", NULL, "ADDR is guest-physical"},
    {"cr3", "ADDR", "translate by this page-table root; without it by the kernel's"},
    PROCESS_SPACE_OPTION,
    {"epoch", "EPOCH", "the epoch in which the address was found; refused if it has ended (default: the current one)"},
    {"expect", "BYTES", "write only if these octets are there now"},
    {"expect-gpa", "ADDR", "write only if the address is at this guest-physical one now"},
    {"extents", "PATH",
     "several extents by one command, all or none: a line each, ADDR HEX [expect=HEX] [gpa=ADDR]; - is standard input"},
    {"quiesce", NULL, "hold the guest still around the write"},
    {"dry-run", NULL, "pass every check, write nothing"},
    {"read-only-page", NULL, "write also into pages that the guest maps read-only"},
    {"token", "TOKEN", "the MEMWRITE lease is held already, under this fencing token"},
    {},
};

const struct verb verb_write = {
    .name = "write",
    .synopsis = "VM [ADDR]",
    .summary = "write guest memory, whole or not at all",
    .min_words = 1,
    .max_words = 2,
    .options = options,
    .run = run,
};
