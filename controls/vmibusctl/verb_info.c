/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl info: everything the bus tells of one VM. */
#include <inttypes.h>
#include <stdio.h>

#include <vmibus/names.h>

#include "frame_json.h"
#include "frame_text.h"
#include "holders.h"
#include "linux_facts.h"
#include "linux_guest.h"
#include "providers.h"
#include "report.h"
#include "roster.h"
#include "table.h"
#include "units.h"

static void print_ranges(const struct vm *vm) {
    struct table *table = table_new(6);
    char size[UNITS_SIZE_SIZE];

    puts("ranges of RAM");
    table_cell(table, "  GPA");
    table_cell(table, "LENGTH");
    table_cell(table, "SIZE");
    table_cell(table, "OFFSET");
    table_cell(table, "OBJECT");
    table_cell(table, "FLAGS");
    for (size_t i = 0; i < vm->memctx.memctx.range_count; i++) {
        const struct vmibus_ram_range *range = &vm->ranges[i];

        table_cell(table, "  0x%09" PRIx64, range->gpa);
        table_cell(table, "0x%" PRIx64, range->len);
        table_cell(table, "%s", units_size(range->len, size));
        table_cell(table, "0x%" PRIx64, range->offset);
        table_cell(table, "%u", range->object);
        table_cell(table, "%s%s%s", range->flags & VMIBUS_RANGE_READ_ONLY ? "READ_ONLY" : "",
                   (range->flags & VMIBUS_RANGE_READ_ONLY) && (range->flags & VMIBUS_RANGE_ALIAS) ? " " : "",
                   range->flags & VMIBUS_RANGE_ALIAS ? "ALIAS" : "");
    }
    table_print(table);
}

static void print_section(const char *title, const struct vmibus_frame *frame) {
    if (!frame->header.kind)
        return;
    puts(title);
    frame_text_fields(frame);
}

/* Why the root is believed, and how far. */
static void print_belief(const struct vmibus_memctx *memctx) {
    const struct vmibus_table_description *evidence = vmibus_table_describe("evidence");
    const struct vmibus_value_description *confidence =
        vmibus_table_find(vmibus_table_describe("confidence"), memctx->confidence);

    if (memctx->state != VMIBUS_MEMCTX_STATE_READY)
        return;
    puts("kernel root");
    printf("  %s\n", confidence ? confidence->doc : "Nothing is known of how sure it is.");
    for (size_t i = 0; i < evidence->n_values; i++)
        if (memctx->evidence & evidence->values[i].value)
            printf("  %s\n", evidence->values[i].doc);
}

/* How the caller's reads go; NULL: they do not. */
static struct vmibus_attachment *attach(struct vmibusctl *ctl, const struct vm *vm, uint64_t capabilities) {
    struct vmibus_attachment *attachment = NULL;

    if (vm->memctx.memctx.state != VMIBUS_MEMCTX_STATE_NONE && capabilities & (VMIBUS_CAP_RAM_FD | VMIBUS_CAP_MEM_READ))
        (void)vmibus_attach(ctl->bus, &vm->endpoint, 0, &attachment, NULL);
    return attachment;
}

static void print_reading(const struct vmibus_attachment *attachment) {
    const char *doc, *remedy;

    if (!attachment)
        return;
    puts("your reads");
    if (attachment->n_fds) {
        printf("  by RAM descriptors: %zu\n", attachment->n_fds);
        return;
    }
    doc = vmibus_reason_doc(attachment->reason);
    remedy = vmibus_reason_remedy(attachment->reason);
    printf("  through the memory authority: %s%s%s\n", doc ? doc : "the bus does not say why", remedy ? " " : "",
           remedy ? remedy : "");
}

static struct json_object *reading_json(const struct vmibus_attachment *attachment) {
    struct json_object *object = json_object_new_object();
    const char *reason = vmibus_reason_name(attachment->reason);

    json_object_object_add(object, "access", json_object_new_string(attachment->n_fds ? "FD" : "MEDIATED"));
    json_object_object_add(object, "reason", json_object_new_string(reason ? reason : "?"));
    return object;
}

static void print_text(const struct vm *vm, uint64_t capabilities, uint64_t rank,
                       const struct vmibus_attachment *attachment, const struct holders *holders,
                       const struct providers *providers) {
    printf("%s (slot %" PRIu32 ", generation 0x%" PRIx64 ")\n", printable(vm->name), vm->endpoint.slot, vm->endpoint.generation);
    print_section("roster", &vm->roster);
    providers_print(providers, vm);
    print_section("lifecycle", &vm->lifecycle);
    print_section("memctx", &vm->memctx);
    print_belief(&vm->memctx.memctx);
    if (vm->memctx.memctx.range_count)
        print_ranges(vm);
    print_section("last epoch that ended", &vm->invalidated);
    for (size_t i = 0; i < ROSTER_CLASSES; i++)
        print_section("lease", &vm->leases[i]);
    print_reading(attachment);
    holders_print(holders);
    puts("your grant");
    printf("  capabilities ");
    frame_text_flags("capability", capabilities);
    printf("\n  rank         %" PRIu64 "\n", rank);
}

static void print_json(const struct vm *vm, uint64_t capabilities, uint64_t rank,
                       const struct vmibus_attachment *attachment, const struct holders *holders,
                       const struct providers *providers) {
    struct json_object *object = roster_json(vm, true), *grant = json_object_new_object();

    json_object_object_add(grant, "capabilities", frame_json_flags("capability", capabilities));
    json_object_object_add(grant, "rank", json_object_new_uint64(rank));
    json_object_object_add(object, "grant", grant);
    json_object_object_add(object, "providers", providers_json(providers, vm));
    if (attachment)
        json_object_object_add(object, "reading", reading_json(attachment));
    json_object_object_add(object, "holders", holders_json(holders));
    frame_json_print(object);
}

static int show(struct vmibusctl *ctl, const struct vm *vm) {
    struct vmibus_attachment *attachment = NULL;
    struct vmibus_message reply;
    struct holders holders = {};
    struct providers providers = {};
    int r = vmibus_query(ctl->bus, &vm->endpoint, VMIBUS_QUERY_GRANT, &reply);

    /* Before this very call is one of them. */
    if (r == 0)
        holders_fetch(ctl, vm, &holders);
    if (r == 0)
        providers_fetch(ctl, &providers);
    if (r == 0)
        attachment = attach(ctl, vm, reply.frame.ack.count);
    if (r)
        r = report_refusal(ctl, r, &reply, "cannot ask for the grant on %s", printable(vm->name));
    else if (ctl->json)
        print_json(vm, reply.frame.ack.count, reply.frame.ack.value, attachment, &holders, &providers);
    else
        print_text(vm, reply.frame.ack.count, reply.frame.ack.value, attachment, &holders, &providers);
    vmibus_release(attachment);
    holders_deinit(&holders);
    providers_deinit(&providers);
    vmibus_message_deinit(&reply);
    return r;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct roster roster = {};
    struct vm *vm;
    int r;

    if (arguments_get(arguments, "linux"))
        return linux_facts_show(ctl, arguments);
    if (arguments_get(arguments, "quiesce") || arguments_get(arguments, "mediated"))
        return vmibusctl_usage("--quiesce, --mediated", NULL, "they go with --linux, which looks into the guest");
    r = roster_fetch(ctl, &roster);
    if (r == STATUS_OK)
        r = roster_lookup(&roster, arguments->words[0], &vm);
    if (r == STATUS_OK)
        r = show(ctl, vm);
    roster_deinit(&roster);
    return r;
}

static const struct option_description options[] = {
    {"linux", NULL, "show instead what the guest's Linux is: release, command line, boot time"},
    LINUX_GUEST_OPTIONS,
    {},
};

const struct verb verb_info = {
    .name = "info",
    .synopsis = "VM",
    .summary = "show everything that is known of a VM: state, memory context, leases, your grant",
    .min_words = 1,
    .max_words = 1,
    .options = options,
    .run = run,
};
