/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl info: everything the bus tells of one VM. */
#include <inttypes.h>
#include <stdio.h>

#include <vmibus/names.h>

#include "frame_json.h"
#include "frame_text.h"
#include "report.h"
#include "roster.h"
#include "table.h"
#include "units.h"

static void print_ranges(const struct vm *vm) {
    struct table *table = table_new(6);
    char size[UNITS_SIZE_SIZE];

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

static void print_text(const struct vm *vm, uint64_t capabilities, uint64_t rank) {
    printf("%s (slot %" PRIu32 ", generation 0x%" PRIx64 ")\n", printable(vm->name), vm->endpoint.slot, vm->endpoint.generation);
    print_section("roster", &vm->roster);
    print_section("lifecycle", &vm->lifecycle);
    print_section("memctx", &vm->memctx);
    if (vm->memctx.memctx.range_count)
        print_ranges(vm);
    print_section("last epoch that ended", &vm->invalidated);
    for (size_t i = 0; i < ROSTER_CLASSES; i++)
        print_section("lease", &vm->leases[i]);
    puts("your grant");
    printf("  capabilities ");
    frame_text_flags("capability", capabilities);
    printf("\n  rank         %" PRIu64 "\n", rank);
}

static void print_json(const struct vm *vm, uint64_t capabilities, uint64_t rank) {
    struct json_object *object = roster_json(vm, true), *grant = json_object_new_object();

    json_object_object_add(grant, "capabilities", frame_json_flags("capability", capabilities));
    json_object_object_add(grant, "rank", json_object_new_uint64(rank));
    json_object_object_add(object, "grant", grant);
    frame_json_print(object);
}

static int show(struct vmibusctl *ctl, const struct vm *vm) {
    struct vmibus_message reply;
    int r = vmibus_query(ctl->bus, &vm->endpoint, VMIBUS_QUERY_GRANT, &reply);

    if (r)
        r = report_refusal(ctl, r, &reply, "cannot ask for the grant on %s", printable(vm->name));
    else if (ctl->json)
        print_json(vm, reply.frame.ack.count, reply.frame.ack.value);
    else
        print_text(vm, reply.frame.ack.count, reply.frame.ack.value);
    vmibus_message_deinit(&reply);
    return r;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct roster roster = {};
    struct vm *vm;
    int r = roster_fetch(ctl, &roster);

    if (r == STATUS_OK)
        r = roster_lookup(&roster, arguments->words[0], &vm);
    if (r == STATUS_OK)
        r = show(ctl, vm);
    roster_deinit(&roster);
    return r;
}

const struct verb verb_info = {
    .name = "info",
    .synopsis = "VM",
    .summary = "show everything that is known of a VM: state, memory context, leases, your grant",
    .min_words = 1,
    .max_words = 1,
    .run = run,
};
