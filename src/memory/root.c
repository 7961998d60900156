/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/root.h"

#include <stdio.h>
#include <string.h>

#include "memory/reader.h"

#define TABLE_ADDRESS UINT64_C(0x000ffffffffff000)
#define NOTE_MIN 32u
#define NOTE_MAX 4096u

static bool is_well_formed(const struct vmibus_mem_root *proposal, uint64_t *value) {
    if (proposal->levels != 4 && proposal->levels != 5) {
        *value = proposal->levels;
        return false;
    }
    if (proposal->cr3 & ~TABLE_ADDRESS) {
        *value = proposal->cr3;
        return false;
    }
    if (proposal->note && (proposal->note % MEMCTX_PAGE != 0 || proposal->note_len < NOTE_MIN ||
                           proposal->note_len > NOTE_MAX)) {
        *value = proposal->note;
        return false;
    }
    return true;
}

/* Where an address space maps the probe. */
static int map_probe(const struct vmibus_guest_reader *reader, uint64_t cr3,
                     const struct vmibus_mem_root *proposal,
                     struct vmibus_guest_translation *translation) {
    struct vmibus_guest_root space = {.cr3 = cr3, .levels = proposal->levels};
    int r = vmibus_guest_translate(reader, &space, proposal->probe_gva, translation);

    return r > 0 ? ROOT_UNPROVEN : r;
}

/* Whether an address space maps the probe to this place. */
static int check_probe(const struct vmibus_guest_reader *reader, uint64_t cr3,
                       const struct vmibus_mem_root *proposal, uint64_t gpa) {
    struct vmibus_guest_translation translation;
    int r = map_probe(reader, cr3, proposal, &translation);

    return r == 0 && translation.gpa != gpa ? ROOT_UNPROVEN : r;
}

/*
 * Without a note nothing says where the root is mapped, so the probe is any address that the vCPU cannot do without (what it
 * executes, or its interrupt table): the system's own, not a process's, and RAM.
 */
static int map_sampled_probe(const struct vmibus_guest_reader *reader,
                             const struct vmibus_mem_root *proposal, uint64_t *gpa) {
    struct vmibus_guest_translation translation;
    uint8_t octet;
    int r = map_probe(reader, proposal->cr3, proposal, &translation);

    if (r)
        return r;
    if (translation.rights & VMIBUS_GUEST_USER)
        return ROOT_UNPROVEN;
    *gpa = translation.gpa;
    r = reader->read(reader->context, translation.gpa, &octet, sizeof(octet));
    return r > 0 ? ROOT_UNPROVEN : r;
}

/* Whether a line of the note begins with `line`. */
static bool note_has_line(const char *text, size_t len, const char *line, size_t line_len) {
    const char *at = text, *end = text + len;

    while ((size_t)(end - at) >= line_len) {
        if (memcmp(at, line, line_len) == 0)
            return true;
        at = memchr(at, '\n', (size_t)(end - at));
        if (!at)
            return false;
        at++;
    }
    return false;
}

/* The note has to be there, and to name the address that the root maps itself at. */
static int check_note(const struct vmibus_guest_reader *reader,
                      const struct vmibus_mem_root *proposal) {
    static const char first[] = "OSRELEASE=";
    char text[NOTE_MAX], line[64];
    int len, r;

    r = reader->read(reader->context, proposal->note, text, proposal->note_len);
    if (r)
        return r < 0 ? r : ROOT_UNPROVEN;
    if (memcmp(text, first, sizeof(first) - 1) != 0)
        return ROOT_UNPROVEN;
    len = snprintf(line, sizeof(line), "SYMBOL(swapper_pg_dir)=%llx\n",
                   (unsigned long long)proposal->probe_gva);
    return note_has_line(text, proposal->note_len, line, (size_t)len) ? 0 : ROOT_UNPROVEN;
}

/* Never surer than the evidence, nor than the sensor itself. */
static uint8_t confidence_of(const struct vmibus_mem_root *proposal) {
    uint8_t confidence = VMIBUS_CONFIDENCE_SAMPLED;

    if (proposal->note)
        confidence = proposal->vcpu_cr3 ? VMIBUS_CONFIDENCE_PROVEN : VMIBUS_CONFIDENCE_NOTED;
    return proposal->confidence && proposal->confidence < confidence ? proposal->confidence
                                                                     : confidence;
}

static uint32_t evidence_of(const struct memctx *memctx, const struct vmibus_mem_root *proposal) {
    uint32_t evidence = VMIBUS_EVIDENCE_CANARY;

    if (memctx->process.pid)
        evidence |= VMIBUS_EVIDENCE_LAYOUT_MAPS;
    if (proposal->note)
        evidence |= VMIBUS_EVIDENCE_NOTE | VMIBUS_EVIDENCE_NOTE_MAPPED;
    if (proposal->vcpu_cr3)
        evidence |= VMIBUS_EVIDENCE_VCPU_CR3;
    return evidence;
}

static int check_evidence(const struct vmibus_guest_reader *reader,
                          const struct vmibus_mem_root *proposal, uint64_t *value) {
    uint64_t gpa = proposal->cr3;
    int r;

    if (!proposal->note && !proposal->vcpu_cr3) {
        *value = 0;
        return ROOT_UNPROVEN;
    }
    *value = proposal->probe_gva;
    r = proposal->note ? check_probe(reader, proposal->cr3, proposal, gpa)
                       : map_sampled_probe(reader, proposal, &gpa);
    if (!r && proposal->note) {
        *value = proposal->note;
        r = check_note(reader, proposal);
    }
    if (!r && proposal->vcpu_cr3) {
        *value = proposal->vcpu_cr3;
        r = check_probe(reader, proposal->vcpu_cr3, proposal, gpa);
    }
    return r;
}

int root_prove(const struct memctx *memctx, const struct vmibus_mem_root *proposal, uint64_t now, bool loads,
               struct memctx_root *root, struct canary *canary, uint64_t *value) {
    struct memory_reader context;
    struct vmibus_guest_reader reader = memory_reader_init(&context, memctx, loads, now);
    int r;

    if (!is_well_formed(proposal, value))
        return ROOT_MALFORMED;
    r = check_evidence(&reader, proposal, value);
    if (r)
        return r;
    *root = (struct memctx_root){
        .root = {.cr3 = proposal->cr3, .levels = proposal->levels},
        .probe_gva = proposal->probe_gva,
        .note = proposal->note,
        .vcpu_cr3 = proposal->vcpu_cr3,
        .note_len = proposal->note_len,
        .evidence = evidence_of(memctx, proposal),
        .confidence = confidence_of(proposal),
    };
    *value = proposal->cr3;
    r = canary_arm(canary, &reader, &root->root, proposal->probe_gva, proposal->note,
                   proposal->note_len);
    return r > 0 ? ROOT_UNPROVEN : r;
}

bool root_is_same(const struct memctx_root *a, const struct memctx_root *b) {
    return a->root.cr3 == b->root.cr3 && a->root.levels == b->root.levels && a->note == b->note &&
           a->probe_gva == b->probe_gva;
}
