/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is kept over a restart: see stub_saved.h. */
#include "stub_saved.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void describe(const struct stub_vm *vm, struct stub_saved_vm *saved, uint32_t first_fd) {
    *saved = (struct stub_saved_vm){
        .index = vm->index,
        .state = vm->state,
        .held = vm->held,
        .goes_on = vm->goes_on,
        .powering_down = vm->powering_down,
        .is_offered = vm->endpoint != NULL,
        .kernel_up = vm->kernel_up,
        .n_fds = vm->ram ? (uint8_t)vm->ram->n_fds : 0,
        .boot = vm->boot,
        .note_len = vm->note_len,
        .epoch = vm->epoch,
        .ram_size = vm->ram ? vm->ram->size : 0,
        .input_count = vm->input.count,
        .input_released = vm->input.released,
        .keys_held = vm->input.held,
        .first_fd = first_fd,
    };
    if (vm->ram)
        memcpy(saved->sizes, vm->ram->sizes, sizeof(saved->sizes));
    memcpy(saved->keys, vm->input.keys, sizeof(saved->keys));
}

void stub_saved_free(struct stub *stub) {
    free(stub->saved_octets);
    free(stub->saved_fds);
    stub->saved_octets = NULL;
    stub->saved_fds = NULL;
}

int stub_saved_fill(struct stub *stub, struct vmibus_sensor_saved *saved) {
    size_t n = stub->options.vms, size = sizeof(struct stub_saved_header) + n * sizeof(struct stub_saved_vm);
    struct stub_saved_header *header = calloc(1, size);
    struct stub_saved_vm *records;
    uint32_t n_fds = 0;

    stub_saved_free(stub);
    stub->saved_octets = header;
    stub->saved_fds = calloc(n * STUB_OBJECTS_MAXIMUM + 1, sizeof(int));
    if (!header || !stub->saved_fds)
        return -ENOMEM;
    records = (struct stub_saved_vm *)(void *)(header + 1);
    *header = (struct stub_saved_header){
        .magic = STUB_SAVED_MAGIC, .n_vms = (uint32_t)n, .record_size = sizeof(struct stub_saved_vm)};
    for (size_t i = 0; i < n; i++) {
        const struct stub_vm *vm = &stub->vms[i];

        describe(vm, &records[i], n_fds);
        for (size_t j = 0; vm->ram && j < vm->ram->n_fds; j++)
            stub->saved_fds[n_fds++] = vm->ram->fds[j];
    }
    *saved = (struct vmibus_sensor_saved){.octets = header, .n_octets = size, .fds = stub->saved_fds, .n_fds = n_fds};
    return 0;
}

bool stub_saved_find(const struct vmibus_sensor_saved *saved, unsigned index, struct stub_saved_vm *vm) {
    const uint8_t *octets = saved->octets;
    struct stub_saved_header header;
    size_t size;

    if (saved->n_octets < sizeof(header))
        return false;
    memcpy(&header, octets, sizeof(header));
    if (header.magic != STUB_SAVED_MAGIC || header.record_size < sizeof(vm->index) ||
        header.n_vms > (saved->n_octets - sizeof(header)) / header.record_size)
        return false;
    size = header.record_size < sizeof(*vm) ? header.record_size : sizeof(*vm);
    for (uint32_t i = 0; i < header.n_vms; i++) {
        memset(vm, 0, sizeof(*vm));
        memcpy(vm, octets + sizeof(header) + (size_t)i * header.record_size, size);
        if (vm->index == index)
            return true;
    }
    return false;
}

struct stub_ram *stub_saved_ram(const struct vmibus_sensor_saved *saved, const struct stub_saved_vm *vm) {
    struct stub_ram *ram;

    if (vm->n_fds == 0 || vm->n_fds > STUB_OBJECTS_MAXIMUM || vm->first_fd > saved->n_fds || vm->n_fds > saved->n_fds - vm->first_fd)
        return NULL;
    ram = stub_ram_new(vm->index, vm->ram_size);
    if (ram && stub_ram_reopen(ram, saved->fds + vm->first_fd, vm->sizes, vm->n_fds) < 0)
        ram = stub_ram_unref(ram);
    return ram;
}
