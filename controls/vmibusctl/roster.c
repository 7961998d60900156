/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "roster.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame_json.h"
#include "report.h"
#include "units.h"

/* --- learning ------------------------------------------------------------------------------------- */

static struct vm *find_in(struct vm *vms, uint32_t slot, uint64_t generation) {
    for (struct vm *vm = vms; vm; vm = vm->next)
        if (vm->endpoint.slot == slot && vm->endpoint.generation == generation)
            return vm;
    return NULL;
}

struct vm *roster_find(const struct roster *roster, uint32_t slot, uint64_t generation) {
    return find_in(roster->vms, slot, generation);
}

static struct vm *vm_new(const struct vmibus_header *header) {
    struct vm *vm = calloc(1, sizeof(*vm));

    if (!vm)
        abort();
    vm->endpoint = (struct vmibus_endpoint){.slot = header->slot, .generation = header->generation};
    return vm;
}

static void vm_free(struct vm *vm) {
    free(vm->ranges);
    free(vm);
}

static void link_vm(struct vm **vms, struct vm *vm) {
    while (*vms && (*vms)->endpoint.slot < vm->endpoint.slot)
        vms = &(*vms)->next;
    vm->next = *vms;
    *vms = vm;
}

static void unlink_vm(struct vm **vms, struct vm *vm) {
    while (*vms != vm)
        vms = &(*vms)->next;
    *vms = vm->next;
}

/* At most one of each slot is kept: whoever may not see the roster hears no name, and of no removal. */
static struct vm *add_unnamed(struct roster *roster, const struct vmibus_header *header) {
    struct vm *vm = vm_new(header), *old = roster->unnamed;

    while (old && old->endpoint.slot != header->slot)
        old = old->next;
    if (old) {
        unlink_vm(&roster->unnamed, old);
        vm_free(old);
    }
    link_vm(&roster->unnamed, vm);
    return vm;
}

static void learn_name(struct vm *vm, const struct vmibus_message *message) {
    size_t length = message->frame.header.tail_length;

    if (length > VMIBUS_NAME_BOUND)
        length = VMIBUS_NAME_BOUND;
    vm->roster = message->frame;
    if (length)
        memcpy(vm->name, message->tail, length);
    vm->name[length] = '\0';
}

static void learn_memctx(struct vm *vm, const struct vmibus_message *message) {
    size_t n = message->frame.header.tail_length / sizeof(*vm->ranges);

    vm->memctx = message->frame;
    if (vm->memctx.memctx.range_count > n)
        vm->memctx.memctx.range_count = (uint16_t)n;
    n = vm->memctx.memctx.range_count;
    free(vm->ranges);
    vm->ranges = NULL;
    if (n == 0)
        return;
    vm->ranges = calloc(n, sizeof(*vm->ranges));
    if (!vm->ranges)
        abort();
    memcpy(vm->ranges, message->tail, n * sizeof(*vm->ranges));
}

static void learn_end(struct vm *vm, const struct vmibus_frame *frame) {
    vm->invalidated = *frame;
    if (vm->memctx.memctx.epoch == frame->memctx_invalidated.epoch)
        memset(&vm->memctx, 0, sizeof(vm->memctx));
}

static void learn_roster(struct roster *roster, const struct vmibus_message *message) {
    const struct vmibus_header *header = &message->frame.header;
    struct vm *vm = find_in(roster->vms, header->slot, header->generation);
    struct vm *unnamed = find_in(roster->unnamed, header->slot, header->generation);

    if (vm)
        unlink_vm(&roster->vms, vm);
    else if (unnamed)
        unlink_vm(&roster->unnamed, vm = unnamed);
    if (message->frame.roster.change == VMIBUS_ROSTER_CHANGE_REMOVED) {
        if (vm)
            vm_free(vm);
        return;
    }
    if (!vm)
        vm = vm_new(header);
    learn_name(vm, message);
    link_vm(&roster->vms, vm);
}

static void learn_state(struct vm *vm, const struct vmibus_message *message) {
    const struct vmibus_frame *frame = &message->frame;

    switch (frame->header.kind) {
    case VMIBUS_KIND_LIFECYCLE:
        vm->lifecycle = *frame;
        break;
    case VMIBUS_KIND_MEMCTX:
        learn_memctx(vm, message);
        break;
    case VMIBUS_KIND_MEMCTX_INVALIDATED:
        learn_end(vm, frame);
        break;
    case VMIBUS_KIND_LEASE:
        if (frame->lease.lease_class < ROSTER_CLASSES)
            vm->leases[frame->lease.lease_class] = *frame;
        break;
    }
}

void roster_learn(struct roster *roster, const struct vmibus_message *message) {
    const struct vmibus_header *header = &message->frame.header;
    struct vm *vm = find_in(roster->vms, header->slot, header->generation);

    if (!vm)
        vm = find_in(roster->unnamed, header->slot, header->generation);
    switch (header->kind) {
    case VMIBUS_KIND_ROSTER:
        learn_roster(roster, message);
        break;
    case VMIBUS_KIND_LIFECYCLE:
    case VMIBUS_KIND_MEMCTX:
    case VMIBUS_KIND_MEMCTX_INVALIDATED:
    case VMIBUS_KIND_LEASE:
        learn_state(vm ? vm : add_unnamed(roster, header), message);
        break;
    }
}

static void learn(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    (void)bus;
    roster_learn(userdata, message);
}

/* --- fetching ------------------------------------------------------------------------------------- */

int roster_fetch(struct vmibusctl *ctl, struct roster *roster) {
    int r = 0;

    if (!ctl->bus)
        r = vmibusctl_connect(ctl);
    if (r)
        return r;
    /* On a lent connection, the last borrower may have left its subscription: only a new one is replayed. */
    if (vmibus_is_lent(ctl->bus))
        roster_unsubscribe(ctl);
    vmibus_set_handler(ctl->bus, learn, roster);
    r = vmibus_subscribe(ctl->bus, "*", ROSTER_KINDS);
    if (r)
        return report_refusal(ctl, r, NULL, "cannot subscribe to the roster");
    do
        r = vmibus_dispatch(ctl->bus);
    while (r == 0 && vmibus_get_poll_events(ctl->bus) & POLLOUT);
    return r ? report_refusal(ctl, r, NULL, "cannot read the roster") : STATUS_OK;
}

void roster_unsubscribe(struct vmibusctl *ctl) {
    vmibus_subscribe(ctl->bus, "*", 0);
}

void roster_deinit(struct roster *roster) {
    struct vm **const lists[] = {&roster->vms, &roster->unnamed};

    for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
        while (*lists[i]) {
            struct vm *vm = *lists[i];

            unlink_vm(lists[i], vm);
            vm_free(vm);
        }
}

/* --- looking up ------------------------------------------------------------------------------------ */

static int no_vm(const struct roster *roster, const char *word) {
    fprintf(stderr, "vmibusctl: no VM is called '%s', as far as your grant shows. ", printable(word));
    if (!roster->vms)
        fputs("The roster is empty: no VM runs, or the policy grants you none.", stderr);
    else
        fputs("There are: ", stderr);
    for (const struct vm *vm = roster->vms; vm; vm = vm->next)
        fprintf(stderr, "%s%s", printable(vm->name), vm->next ? ", " : ".");
    fputc('\n', stderr);
    return STATUS_NO_VM;
}

static size_t match(const struct roster *roster, const char *word, struct vm **vmp) {
    uint8_t uuid[16];
    uint64_t slot;
    size_t n = 0;

    for (struct vm *vm = roster->vms; vm; vm = vm->next)
        if (strcmp(vm->name, word) == 0 && ++n)
            *vmp = vm;
    if (n == 0 && units_parse_uuid(word, uuid))
        for (struct vm *vm = roster->vms; vm; vm = vm->next)
            if (memcmp(vm->roster.roster.uuid, uuid, sizeof(uuid)) == 0 && ++n)
                *vmp = vm;
    if (n == 0 && units_parse_number(word, UINT32_MAX, &slot))
        for (struct vm *vm = roster->vms; vm; vm = vm->next)
            if (vm->endpoint.slot == slot && ++n)
                *vmp = vm;
    return n;
}

int roster_lookup(const struct roster *roster, const char *word, struct vm **vmp) {
    size_t n = match(roster, word, vmp);

    if (n == 1)
        return STATUS_OK;
    if (n == 0)
        return no_vm(roster, word);
    fprintf(stderr, "vmibusctl: %zu VMs are called '%s': name one by UUID or slot.\n", n, printable(word));
    return STATUS_NO_VM;
}

/* --- JSON ------------------------------------------------------------------------------------------ */

struct json_object *roster_json(const struct vm *vm, bool with_ranges) {
    struct json_object *object = json_object_new_object();
    struct json_object *leases = json_object_new_array(), *memctx;

    json_object_object_add(object, "slot", json_object_new_uint64(vm->endpoint.slot));
    json_object_object_add(object, "generation", json_object_new_uint64(vm->endpoint.generation));
    json_object_object_add(object, "name", frame_json_text(vm->name, strlen(vm->name)));
    json_object_object_add(object, "roster", frame_json_body(&vm->roster));
    if (vm->lifecycle.header.kind)
        json_object_object_add(object, "lifecycle", frame_json_body(&vm->lifecycle));
    if (vm->memctx.header.kind) {
        memctx = frame_json_body(&vm->memctx);
        if (with_ranges)
            json_object_object_add(memctx, "ranges",
                                   frame_json_records(vmibus_record_describe("ram_range"), vm->ranges,
                                                      vm->memctx.memctx.range_count * sizeof(*vm->ranges)));
        json_object_object_add(object, "memctx", memctx);
    }
    if (vm->invalidated.header.kind)
        json_object_object_add(object, "memctx_invalidated", frame_json_body(&vm->invalidated));
    for (size_t i = 0; i < ROSTER_CLASSES; i++)
        if (vm->leases[i].header.kind)
            json_object_array_add(leases, frame_json_body(&vm->leases[i]));
    json_object_object_add(object, "leases", leases);
    return object;
}
