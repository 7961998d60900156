/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holders.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "frame_json.h"
#include "table.h"

void holders_fetch(struct vmibusctl *ctl, const struct vm *vm, struct holders *holders) {
    *holders = (struct holders){};
    if (vmibus_memory_query(ctl->bus, &vm->endpoint, VMIBUS_MEMORY_QUERY_HOLDERS, &holders->reply))
        return;
    holders->rows = holders->reply.tail;
    holders->n = holders->reply.frame.header.tail_length / sizeof(*holders->rows);
}

void holders_deinit(struct holders *holders) {
    vmibus_message_deinit(&holders->reply);
}

static uint64_t now(void) {
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Of an epoch that has ended: how long it may still be held. */
static void describe_deadline(uint64_t overdue, char *text, size_t size) {
    uint64_t time = now();

    if (overdue == 0)
        snprintf(text, size, "current");
    else if (overdue <= time)
        snprintf(text, size, "overdue for %" PRIu64 " ms", (time - overdue) / 1000000);
    else
        snprintf(text, size, "ended, to be released in %" PRIu64 " ms", (overdue - time) / 1000000);
}

void holders_print(const struct holders *holders) {
    struct table *table;
    char deadline[64];

    if (holders->n == 0)
        return;
    puts("held by");
    table = table_new(5);
    table_cell(table, "  UID");
    table_cell(table, "PID");
    table_cell(table, "EPOCH");
    table_cell(table, "DESCRIPTORS");
    table_cell(table, "STATE");
    for (size_t i = 0; i < holders->n; i++) {
        const struct vmibus_memory_holder *row = &holders->rows[i];

        describe_deadline(row->overdue, deadline, sizeof(deadline));
        table_cell(table, "  %" PRIu32, row->uid);
        table_cell(table, "%" PRIu32, row->pid);
        table_cell(table, "0x%" PRIx64, row->epoch);
        table_cell(table, "%" PRIu32, row->descriptors);
        table_cell(table, "%s", deadline);
    }
    table_print(table);
}

struct json_object *holders_json(const struct holders *holders) {
    return frame_json_records(vmibus_record_describe("memory_holder"), holders->rows, holders->n * sizeof(*holders->rows));
}
