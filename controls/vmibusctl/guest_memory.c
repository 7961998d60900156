/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guest_memory.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include <vmibus/names.h>

#include "report.h"
#include "units.h"

/* Which root is meant. With a cr3 of the caller's, the depth still is the epoch's: the CPU has one at a time. */
static int choose_root(const struct vm *vm, bool physical, const char *cr3, struct guest_memory *memory) {
    const struct vmibus_memctx *memctx = &vm->memctx.memctx;

    if (physical && cr3)
        return vmibusctl_usage("--cr3", NULL, "a physical address needs none: give --cr3 or --physical");
    if (physical)
        return STATUS_OK;
    if (cr3) {
        memory->root.levels = memctx->levels ? memctx->levels : 4;
        if (!units_parse_number(cr3, UINT64_MAX, &memory->root.cr3) || memory->root.cr3 == 0)
            return vmibusctl_usage("--cr3", cr3, "it is a page-table root, decimal or 0x and hexadecimal, and not 0");
        return STATUS_OK;
    }
    if (memctx->state == VMIBUS_MEMCTX_STATE_READY) {
        memory->root.cr3 = memctx->cr3;
        memory->root.levels = memctx->levels;
        return STATUS_OK;
    }
    report_failure("%s has no proven kernel root: %s Wait for it, or give --cr3 or --physical.", printable(vm->name),
                   memctx->reason && vmibus_reason_doc(memctx->reason) ? vmibus_reason_doc(memctx->reason) : "no memctx came.");
    return STATUS_REFUSED + VMIBUS_ERROR_TRANSLATION;
}

static int open_ram(const struct vmibus_message *reply, struct guest_memory *memory) {
    const struct vmibus_header *header = &reply->frame.header;
    const char *name = printable(memory->vm->name);
    const char *doc = vmibus_reason_doc(reply->frame.ack.reason);
    int r;

    if (header->fd_count == 0) {
        report_failure("the RAM of %s is not given out: %s Reads through the memory authority would be the way; this bus has none.",
                       name, doc ? doc : "");
        return STATUS_REFUSED + VMIBUS_ERROR_UNSUPPORTED;
    }
    r = vmibus_guest_ram_new(&memory->ram, reply->tail, header->tail_length / sizeof(struct vmibus_ram_range), reply->fds,
                             header->fd_count);
    return r < 0 ? report_failure("the RAM of %s cannot be used: %s", name, strerror(-r)) : STATUS_OK;
}

int guest_memory_attach(struct vmibusctl *ctl, const struct vm *vm, bool physical, const char *cr3, struct guest_memory *memory) {
    struct vmibus_message reply;
    int r;

    *memory = (struct guest_memory){.vm = vm};
    r = choose_root(vm, physical, cr3, memory);
    if (r)
        return r;
    r = vmibus_attach(ctl->bus, &vm->endpoint, vm->memctx.memctx.epoch, &reply);
    if (r) {
        r = report_refusal(ctl, r, &reply, "cannot attach to the RAM of %s", printable(vm->name));
    } else {
        memory->attached = true;
        memory->epoch = reply.frame.ack.epoch ? reply.frame.ack.epoch : vm->memctx.memctx.epoch;
        r = open_ram(&reply, memory);
    }
    vmibus_message_deinit(&reply);
    return r;
}

void guest_memory_detach(struct vmibusctl *ctl, struct guest_memory *memory) {
    memory->ram = vmibus_guest_ram_free(memory->ram);
    if (memory->attached)
        vmibus_release(ctl->bus, &memory->vm->endpoint, memory->epoch);
    memory->attached = false;
}

int guest_memory_check_epoch(struct vmibusctl *ctl, const struct roster *roster, const struct guest_memory *memory) {
    struct vmibus_endpoint endpoint = memory->vm->endpoint;
    const struct vmibus_memctx_invalidated *ended = &memory->vm->invalidated.memctx_invalidated;
    uint16_t reason = VMIBUS_REASON_EXIT;
    int r;

    do
        r = vmibus_dispatch(ctl->bus);
    while (r == 0 && vmibus_get_poll_events(ctl->bus) & POLLOUT);
    if (r)
        return report_refusal(ctl, r, NULL, "cannot tell whether the memory is still the same");
    if (roster_find(roster, endpoint.slot, endpoint.generation)) {
        if (!memory->vm->invalidated.header.kind || ended->epoch < memory->epoch)
            return STATUS_OK;
        reason = ended->reason;
    }
    report_failure("the epoch ended while it was read: %s What was read may be of before or after.",
                   vmibus_reason_doc(reason) ? vmibus_reason_doc(reason) : "");
    return STATUS_REFUSED + VMIBUS_ERROR_STALE_EPOCH;
}

int guest_memory_report(const struct guest_memory *memory, int r, uint64_t address, const struct vmibus_guest_translation *fault) {
    static const char *const texts[] = {
        [VMIBUS_GUEST_NOT_PRESENT] = "a paging entry is not present",
        [VMIBUS_GUEST_RESERVED_BITS] = "a paging entry has reserved bits set",
        [VMIBUS_GUEST_NON_CANONICAL] = "the address is not canonical",
        [VMIBUS_GUEST_OUTSIDE_RAM] = "there is no RAM at that physical address",
        [VMIBUS_GUEST_TRUNCATED] = "the RAM file ends before",
    };
    bool known = r > 0 && (size_t)r < sizeof(texts) / sizeof(texts[0]) && texts[r];
    const char *text = r < 0 ? strerror(-r) : known ? texts[r] : "it cannot be read";

    fprintf(stderr, "vmibusctl: 0x%" PRIx64 " of %s: %s", address, printable(memory->vm->name), text);
    if (fault && fault->depth)
        fprintf(stderr, " (level %u: entry 0x%" PRIx64 " at 0x%" PRIx64 ")", fault->level, fault->entries[fault->depth - 1].value,
                fault->entries[fault->depth - 1].gpa);
    fputc('\n', stderr);
    return r < 0 ? STATUS_FAILED : STATUS_REFUSED + VMIBUS_ERROR_TRANSLATION;
}
