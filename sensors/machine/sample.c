/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Roots of systems that leave no note; see sample.h. */
#include "sample.h"

#define TABLE_ADDRESS UINT64_C(0x000ffffffffff000)

/* Linux Documentation/arch/x86/x86_64/mm.rst */
#define IMAGE_BEGIN UINT64_C(0xffffffff80000000)
#define IMAGE_SIZE UINT64_C(0x40000000)

/* Where a vCPU's tables map an address of the system's own; false if nowhere. */
static bool map_probe(struct vmibus_guest_ram *ram, uint64_t cr3, uint8_t levels, uint64_t gva,
                      uint64_t *gpa) {
    struct vmibus_guest_reader reader = vmibus_guest_ram_reader(ram);
    struct vmibus_guest_root root = {.cr3 = cr3, .levels = levels};
    struct vmibus_guest_translation translation;
    uint8_t octet;

    if (vmibus_guest_translate(&reader, &root, gva, &translation) != 0 ||
        (translation.rights & VMIBUS_GUEST_USER) ||
        vmibus_guest_ram_read(ram, translation.gpa, &octet, sizeof(octet)) != 0)
        return false;
    *gpa = translation.gpa;

    return true;
}

static bool agrees(struct vmibus_guest_ram *ram, uint64_t cr3, uint8_t levels,
                   const struct sample *before) {
    uint64_t gpa;

    return before->cr3 && levels == before->levels &&
           map_probe(ram, cr3, levels, before->probe_gva, &gpa) && gpa == before->probe_gpa;
}

/* The first vCPU that agrees; or, with NULL, that can be a beginning. */
static bool take(struct vmibus_guest_ram *ram, const struct registers *registers, bool in_process,
                 const struct sample *before, struct sample *sample) {
    for (size_t i = 0; i < registers->n_cr3; i++) {
        struct sample one = {.cr3 = registers->cr3[i] & TABLE_ADDRESS,
                             .probe_gva = registers->probe[i],
                             .levels = registers->levels[i]};

        if (registers->in_process[i] != in_process || !one.cr3)
            continue;
        if (before) {
            if (!agrees(ram, one.cr3, one.levels, before))
                continue;
            one.probe_gva = before->probe_gva;
            one.probe_gpa = before->probe_gpa;
        } else if (!one.probe_gva ||
                   !map_probe(ram, one.cr3, one.levels, one.probe_gva, &one.probe_gpa)) {
            continue;
        }
        *sample = one;
        return true;
    }

    return false;
}

/*
 * A vCPU in its system is preferred: one in a process may use a table that is the process's only, or
 * one that was made for user mode and maps next to nothing.
 */
bool sample_take(struct vmibus_guest_ram *ram, const struct registers *registers,
                 const struct sample *before, struct sample *sample) {
    *sample = (struct sample){0};
    if (take(ram, registers, false, before, sample) || take(ram, registers, true, before, sample))
        return true;
    if (!take(ram, registers, false, NULL, sample))
        take(ram, registers, true, NULL, sample);

    return false;
}

static uint64_t wait_ns(const struct sample *sample) {
    return sample->probe_gva - IMAGE_BEGIN < IMAGE_SIZE ? SAMPLE_AGREE_IMAGE_NS : SAMPLE_AGREE_NS;
}

bool samples_count(struct samples *samples, const struct sample *sample, bool agree, uint64_t now) {
    samples->last = *sample;
    if (!agree) {
        samples->count = 0;
        samples->since = now;
    }
    samples->count += sample->cr3 != 0;

    return samples->count >= SAMPLE_AGREE_COUNT && now - samples->since >= wait_ns(sample);
}
