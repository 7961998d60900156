/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The sweep for notes; see sweep.h. */
#include "sweep.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "paging.h"

static const char note_begin[] = "OSRELEASE=";
#define NOTE_BEGIN_LEN (sizeof(note_begin) - 1)

int sweep_init(struct sweep *sweep, struct vmibus_guest_ram *ram) {
    *sweep = (struct sweep){.ram = ram, .at = SWEEP_BEGIN, .end = SWEEP_BEGIN, .chunk = malloc(SWEEP_CHUNK_SIZE)};
    return sweep->chunk ? 0 : -ENOMEM;
}

void sweep_deinit(struct sweep *sweep) {
    free(sweep->chunk);
    *sweep = (struct sweep){0};
}

/*
 * Moves on to the next stretch of data.  It begins at the first whole page: of a page that begins
 * in a hole, the beginning is zeros.
 */
static int next_stretch(struct sweep *sweep) {
    uint64_t gpa = sweep->end, len;
    int r = vmibus_guest_ram_next_data(sweep->ram, &gpa, &len);

    if (r == VMIBUS_GUEST_NOT_FOUND && !sweep->low) {
        sweep->low = true;
        sweep->at = sweep->end = 0;
        return 0;
    }
    if (r != 0)
        return r;
    if (sweep->low && gpa >= SWEEP_BEGIN)
        return VMIBUS_GUEST_NOT_FOUND;
    if (sweep->low && len > SWEEP_BEGIN - gpa)
        len = SWEEP_BEGIN - gpa;
    sweep->at = (gpa + PAGING_PAGE_SIZE - 1) & ~(PAGING_PAGE_SIZE - 1);
    sweep->end = gpa + len;
    return 0;
}

static void take_off(uint64_t *octets, uint64_t n) {
    *octets -= *octets < n ? *octets : n;
}

/* Reads the next piece of the stretch. It may come out empty. */
static int read_chunk(struct sweep *sweep, uint64_t *octets) {
    size_t len = SWEEP_CHUNK_SIZE;
    int r;

    sweep->chunk_gpa = sweep->at;
    sweep->chunk_len = sweep->chunk_done = 0;
    if (len > sweep->end - sweep->at)
        len = (size_t)(sweep->end - sweep->at);
    take_off(octets, len);
    r = vmibus_guest_ram_read(sweep->ram, sweep->at, sweep->chunk, len);
    if (r == -EIO) {
        /* A page that the host's memory lost; around it, go by single pages. */
        len = len < PAGING_PAGE_SIZE ? len : PAGING_PAGE_SIZE;
        r = vmibus_guest_ram_read(sweep->ram, sweep->at, sweep->chunk, len);
        if (r == -EIO) {
            sweep->at += len;
            return 0;
        }
    }
    if (r > 0) {
        /* The file was truncated meanwhile: what is left of it, the next stretches will tell. */
        sweep->at = sweep->end;
        return 0;
    }
    if (r < 0)
        return r;
    sweep->at += len;
    sweep->chunk_len = len;
    return 0;
}

/* Looks at what is left of the piece in memory. */
static bool search_chunk(struct sweep *sweep, uint64_t *gpa) {
    while (sweep->chunk_done + NOTE_BEGIN_LEN <= sweep->chunk_len) {
        size_t offset = sweep->chunk_done;

        sweep->chunk_done += PAGING_PAGE_SIZE;
        if (memcmp(sweep->chunk + offset, note_begin, NOTE_BEGIN_LEN) == 0) {
            *gpa = sweep->chunk_gpa + offset;
            return true;
        }
    }
    return false;
}

int sweep_next(struct sweep *sweep, uint64_t *octets, uint64_t *gpa) {
    while (*octets > 0) {
        int r;

        if (search_chunk(sweep, gpa))
            return 0;
        r = sweep->at < sweep->end ? read_chunk(sweep, octets) : next_stretch(sweep);
        if (r != 0)
            return r;
    }
    return VMIBUS_GUEST_UNFINISHED;
}
