/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "providers.h"

#include <stdio.h>
#include <string.h>

#include <vmibus/names.h>

#include "report.h"

#define N_GROUPS 7
#define NAME_SIZE 40

void providers_fetch(struct vmibusctl *ctl, struct providers *providers) {
    if (vmibus_query(ctl->bus, NULL, VMIBUS_QUERY_SENSORS, &providers->reply))
        vmibus_message_deinit(&providers->reply);
}

void providers_deinit(struct providers *providers) {
    vmibus_message_deinit(&providers->reply);
}

static uint16_t source_of(const struct vm *vm, unsigned int group) {
    const struct vmibus_roster *roster = &vm->roster.roster;
    const uint16_t sources[N_GROUPS] = {
        roster->lifecycle_source, roster->power_source,     roster->input_source, roster->memory_source,
        roster->screen_source,    roster->registers_source, roster->watch_source,
    };

    return sources[group];
}

/* By name, or by number where that is all that is known. */
static const char *name_of(const struct providers *providers, uint16_t source, char *name) {
    size_t n = providers->reply.tail ? providers->reply.frame.header.tail_length / sizeof(struct vmibus_sensor_info) : 0;

    for (size_t i = 0; i < n; i++) {
        struct vmibus_sensor_info info;

        memcpy(&info, (const char *)providers->reply.tail + i * sizeof(info), sizeof(info));
        if (info.source == source) {
            snprintf(name, NAME_SIZE, "%.*s", (int)sizeof(info.name), (const char *)info.name);
            return printable(name);
        }
    }
    snprintf(name, NAME_SIZE, "%u", source);
    return name;
}

void providers_print(const struct providers *providers, const struct vm *vm) {
    const struct vmibus_table_description *groups = vmibus_table_describe("group");
    char name[NAME_SIZE];

    puts("provided by");
    for (unsigned int i = 0; i < N_GROUPS; i++)
        if (source_of(vm, i))
            printf("  %-12s %s\n", vmibus_table_find(groups, UINT64_C(1) << i)->name,
                   name_of(providers, source_of(vm, i), name));
}

struct json_object *providers_json(const struct providers *providers, const struct vm *vm) {
    const struct vmibus_table_description *groups = vmibus_table_describe("group");
    struct json_object *object = json_object_new_object();
    char name[NAME_SIZE];

    for (unsigned int i = 0; i < N_GROUPS; i++)
        if (source_of(vm, i))
            json_object_object_add(object, vmibus_table_find(groups, UINT64_C(1) << i)->name,
                                   json_object_new_string(name_of(providers, source_of(vm, i), name)));
    return object;
}
