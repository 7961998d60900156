/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl write: guest memory, whole or not at all, in one command. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "authority.h"
#include "frame_json.h"
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

static int write_memory(struct vmibusctl *ctl, const struct vm *vm, const struct vmibus_write *write) {
    const char *name = printable(vm->name);
    struct vmibus_message reply;
    int r = vmibus_memwrite(ctl->bus, &vm->endpoint, write, &reply);

    if (r)
        r = report_refusal(ctl, r, &reply, "cannot write %" PRIu32 " octets at 0x%" PRIx64 " of %s", write->len, write->gva, name);
    else if (ctl->json)
        frame_json_print(frame_json_body(&reply.frame));
    else
        printf("%s %" PRIu32 " octets at 0x%" PRIx64 " of %s, epoch 0x%" PRIx64 "\n",
               write->flags & VMIBUS_MEMWRITE_DRY_RUN ? "would write" : "wrote", write->len, write->gva, name,
               reply.frame.ack.epoch);
    vmibus_message_deinit(&reply);
    return r;
}

static int check(const struct arguments *arguments, struct vmibus_write *write) {
    const char *cr3 = arguments_get(arguments, "cr3"), *epoch = arguments_get(arguments, "epoch");

    if (!units_parse_number(arguments->words[1], UINT64_MAX, &write->gva))
        return vmibusctl_usage("address", arguments->words[1], "it is decimal, or 0x and hexadecimal");
    if (!arguments_get(arguments, "hex") == !arguments_get(arguments, "file"))
        return vmibusctl_usage("--hex, --file", NULL, "give one of them: it says what to write");
    if (cr3 && (!units_parse_number(cr3, UINT64_MAX, &write->cr3) || write->cr3 == 0))
        return vmibusctl_usage("--cr3", cr3, "it is a page-table root, decimal or 0x and hexadecimal, and not 0");
    if (cr3 && arguments_get(arguments, "physical"))
        return vmibusctl_usage("--cr3", NULL, "a physical address needs none: give --cr3 or --physical");
    if (epoch && (!units_parse_number(epoch, UINT64_MAX, &write->epoch) || write->epoch == 0))
        return vmibusctl_usage("--epoch", epoch, "it is the number of an epoch, as `vmibusctl info` shows it");
    write->flags = get_flags(arguments);
    return STATUS_OK;
}

static int run_on(struct vmibusctl *ctl, const struct arguments *arguments, const struct vm *vm, struct vmibus_write *write) {
    struct authority authority = {};
    struct source source = {};
    int r = get_source(ctl, arguments, &source);

    if (r == STATUS_OK)
        r = authority_take(ctl, vm, VMIBUS_LEASE_CLASS_MEMWRITE, arguments_get(arguments, "token"), &authority);
    if (r == STATUS_OK) {
        write->data = source.octets;
        write->len = (uint32_t)source.length;
        write->token = authority.token;
        if (!write->epoch)
            write->epoch = vm->memctx.memctx.epoch;
        r = write_memory(ctl, vm, write);
        authority_release(ctl, &authority);
    }
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
    {"epoch", "EPOCH", "the epoch in which the address was found; refused if it has ended (default: the current one)"},
    {"expect", "BYTES", "write only if these octets are there now"},
    {"quiesce", NULL, "pause the guest around the write, where the bus can (UNSUPPORTED so far)"},
    {"dry-run", NULL, "pass every check, write nothing"},
    {"read-only-page", NULL, "write also into pages that the guest maps read-only"},
    {"token", "TOKEN", "the MEMWRITE lease is held already, under this fencing token"},
    {},
};

const struct verb verb_write = {
    .name = "write",
    .synopsis = "VM ADDR",
    .summary = "write guest memory, whole or not at all",
    .min_words = 2,
    .max_words = 2,
    .options = options,
    .run = run,
};
