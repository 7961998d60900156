/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl list: the VMs. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <vmibus/names.h>

#include "frame_json.h"
#include "providers.h"
#include "report.h"
#include "table.h"
#include "units.h"

#include "roster.h"

static void print_json(struct vmibusctl *ctl, const struct roster *roster) {
    struct json_object *array = json_object_new_array();
    struct providers providers = {};

    providers_fetch(ctl, &providers);
    for (const struct vm *vm = roster->vms; vm; vm = vm->next) {
        struct json_object *object = roster_json(vm, false);

        json_object_object_add(object, "providers", providers_json(&providers, vm));
        json_object_array_add(array, object);
    }
    providers_deinit(&providers);
    frame_json_print(array);
}

static const char *name_or(const char *name) {
    return name ? name : "?";
}

static void print_row(struct table *table, const struct vm *vm) {
    static const uint8_t no_uuid[16];
    const struct vmibus_memctx *memctx = &vm->memctx.memctx;
    bool has_memory = vm->memctx.header.kind && memctx->ram_size;
    char size[UNITS_SIZE_SIZE], uuid[UNITS_UUID_SIZE];

    table_cell(table, "%" PRIu32, vm->endpoint.slot);
    table_cell(table, "%s", vm->name);
    table_cell(table, "%s", vm->lifecycle.header.kind ? name_or(vmibus_vm_state_name(vm->lifecycle.lifecycle.state)) : "-");
    table_cell(table, "%s", has_memory ? units_size(memctx->ram_size, size) : "-");
    table_cell(table, "%s", vm->memctx.header.kind ? name_or(vmibus_memctx_state_name(memctx->state)) : "-");
    if (vm->roster.roster.pid)
        table_cell(table, "%" PRIu32, vm->roster.roster.pid);
    else
        table_cell(table, "-");
    table_cell(table, "%s", memcmp(vm->roster.roster.uuid, no_uuid, 16) ? units_uuid(vm->roster.roster.uuid, uuid) : "-");
}

static void print_table(const struct roster *roster) {
    static const char *const headings[] = {"SLOT", "NAME", "STATE", "RAM", "MEMCTX", "PID", "UUID"};
    struct table *table;

    if (!roster->vms) {
        fputs("vmibusctl: no VM runs, or the policy grants you none.\n", stderr);
        return;
    }
    table = table_new(7);
    for (size_t i = 0; i < 7; i++)
        table_cell(table, "%s", headings[i]);
    for (const struct vm *vm = roster->vms; vm; vm = vm->next)
        print_row(table, vm);
    table_print(table);
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct roster roster = {};
    int r = roster_fetch(ctl, &roster);

    (void)arguments;
    if (r == STATUS_OK && ctl->json)
        print_json(ctl, &roster);
    else if (r == STATUS_OK)
        print_table(&roster);
    roster_deinit(&roster);
    return r;
}

const struct verb verb_list = {
    .name = "list",
    .synopsis = "",
    .summary = "list the VMs",
    .run = run,
};
