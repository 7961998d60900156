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

#define PAGE 4096u
#define PORTION ((size_t)1024 * 1024)

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

/* Says why there are no descriptors, for whoever may not read through the authority either. */
static void explain_attachment(const struct guest_memory *memory) {
    const char *doc = vmibus_reason_doc(memory->attachment->reason);
    const char *remedy = vmibus_reason_remedy(memory->attachment->reason);

    if (memory->attachment->n_fds == 0)
        fprintf(stderr, "vmibusctl: its RAM is not given out as descriptors: %s%s%s\n", doc ? doc : "the bus does not say why.",
                remedy ? " " : "", remedy ? remedy : "");
}

static int open_mediated(struct vmibusctl *ctl, struct guest_memory *memory) {
    const struct vm *vm = memory->vm;
    struct vmibus_message reply;
    int r = vmibus_mediated_new(ctl->bus, &vm->endpoint, memory->attachment->epoch, &memory->mediated, &reply);

    if (r == 0) {
        vmibus_message_deinit(&reply);
        r = vmibus_buffer_new(ctl->bus, PORTION, &memory->buffer, &reply);
    }
    if (r) {
        r = report_refusal(ctl, r, &reply, "cannot read %s through the memory authority", printable(vm->name));
        explain_attachment(memory);
    } else {
        memory->reader = (struct vmibus_guest_reader){.read = vmibus_mediated_read, .context = memory->mediated};
    }
    vmibus_message_deinit(&reply);
    return r;
}

static int open_ram(struct guest_memory *memory) {
    const struct vmibus_attachment *attachment = memory->attachment;
    const char *name = printable(memory->vm->name);
    int r;

    r = vmibus_guest_ram_new(&memory->ram, attachment->ranges, attachment->n_ranges, attachment->fds, attachment->n_fds);
    if (r < 0)
        return report_failure("the RAM of %s cannot be used: %s", name, strerror(-r));
    memory->reader = vmibus_guest_ram_reader(memory->ram);
    return STATUS_OK;
}

int guest_memory_attach(struct vmibusctl *ctl, const struct vm *vm, bool physical, const char *cr3, bool mediated,
                        struct guest_memory *memory) {
    struct vmibus_message reply;
    int r;

    *memory = (struct guest_memory){.vm = vm};
    r = choose_root(vm, physical, cr3, memory);
    if (r)
        return r;
    r = vmibus_attach(ctl->bus, &vm->endpoint, vm->memctx.memctx.epoch, &memory->attachment, &reply);
    if (r)
        r = report_refusal(ctl, r, &reply, "cannot attach to the RAM of %s", printable(vm->name));
    else
        r = mediated || memory->attachment->n_fds == 0 ? open_mediated(ctl, memory) : open_ram(memory);
    vmibus_message_deinit(&reply);
    return r;
}

void guest_memory_detach(struct guest_memory *memory) {
    memory->ram = vmibus_guest_ram_free(memory->ram);
    memory->mediated = vmibus_mediated_free(memory->mediated);
    memory->buffer = vmibus_buffer_free(memory->buffer);
    vmibus_release(memory->attachment);
    memory->attachment = NULL;
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
        bool told = memory->vm->invalidated.header.kind && ended->epoch >= memory->attachment->epoch;

        if (!told && guest_memory_is_current(memory))
            return STATUS_OK;
        /* The page may tell before the event comes, and where the event is not for this user. */
        reason = told ? ended->reason : VMIBUS_REASON_NONE;
    }
    report_failure("the epoch ended while it was read: %s What was read may be of before or after.",
                   reason && vmibus_reason_doc(reason) ? vmibus_reason_doc(reason) : "");
    return STATUS_REFUSED + VMIBUS_ERROR_STALE_EPOCH;
}

/* Page by page, so that what lies before a hole is shown. */
static int read_physical(const struct guest_memory *memory, uint64_t gpa, uint8_t *buffer, size_t len, size_t *done) {
    for (*done = 0; *done < len;) {
        size_t part = PAGE - (size_t)((gpa + *done) & (PAGE - 1));
        int r;

        part = part < len - *done ? part : len - *done;
        r = memory->reader.read(memory->reader.context, gpa + *done, buffer + *done, part);
        if (r)
            return guest_memory_report(memory, r, gpa + *done, NULL);
        *done += part;
    }
    return STATUS_OK;
}

/* The authority walks by itself, with many pages to one question, where it knows the depth. */
static int read_mediated(struct vmibusctl *ctl, const struct guest_memory *memory, bool physical, uint64_t address,
                         uint8_t *buffer, size_t len, size_t *done) {
    struct vmibus_read read = {
        .cr3 = physical ? 0 : memory->root.cr3,
        .epoch = memory->attachment->epoch,
        .buffer = memory->buffer,
        .flags = physical ? VMIBUS_MEMREAD_PHYSICAL : 0,
    };
    int r = 0;

    for (*done = 0; r == 0 && *done < len;) {
        size_t left = len - *done, part = left < memory->buffer->size ? left : memory->buffer->size;
        struct vmibus_message reply;

        read.gva = address + *done;
        read.len = (uint32_t)part;
        r = vmibus_read(ctl->bus, &memory->vm->endpoint, &read, &reply);
        /* What QUOTA and PRESSURE count is something else. */
        if (r == 0 || r == VMIBUS_ERROR_TRANSLATION || r == VMIBUS_ERROR_VALIDATION || r == VMIBUS_ERROR_IO)
            part = reply.frame.ack.count < part ? (size_t)reply.frame.ack.count : part;
        else
            part = 0;
        memcpy(buffer + *done, memory->buffer->octets, part);
        *done += part;
        if (r)
            r = report_refusal(ctl, r, &reply, "cannot read 0x%" PRIx64 " of %s through the memory authority", address + *done,
                               printable(memory->vm->name));
        else if (part == 0)
            r = report_failure("the bus read nothing and does not say why");
        vmibus_message_deinit(&reply);
    }
    if (r == STATUS_REFUSED + VMIBUS_ERROR_DENIED)
        explain_attachment(memory);
    return r;
}

int guest_memory_read(struct vmibusctl *ctl, const struct guest_memory *memory, bool physical, uint64_t address, void *buffer,
                      size_t len, size_t *done) {
    struct vmibus_guest_translation fault = {};
    int r;

    *done = 0;
    if (memory->mediated && (physical || memory->vm->memctx.memctx.state == VMIBUS_MEMCTX_STATE_READY))
        return read_mediated(ctl, memory, physical, address, buffer, len, done);
    if (physical)
        return read_physical(memory, address, buffer, len, done);
    r = vmibus_guest_read(&memory->reader, &memory->root, address, buffer, len, done, &fault);
    return r ? guest_memory_report(memory, r, address + *done, &fault) : STATUS_OK;
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
