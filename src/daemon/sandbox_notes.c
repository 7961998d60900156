/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sandbox_notes.h"

#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <vmibus/syscalls.h>

#define NAME_MAX_OCTETS 64

struct visit {
    sandbox_note_fn fn;
    void *context;
};

static size_t padded(size_t size) {
    return (size + 3) & ~(size_t)3;
}

/* Names with blanks between them. */
static int visit_names(const char *text, size_t size, sandbox_note_fn fn, void *context) {
    char name[NAME_MAX_OCTETS];
    size_t at = 0;

    while (at < size && text[at]) {
        size_t length = strcspn(text + at, " ");
        int r;

        if (length >= sizeof(name))
            return -EINVAL;
        memcpy(name, text + at, length);
        name[length] = '\0';
        r = length ? fn(context, name) : 0;
        if (r < 0)
            return r;
        at += length + (text[at + length] == ' ');
    }
    return 0;
}

int sandbox_notes_parse(const void *segment, size_t size, sandbox_note_fn fn, void *context) {
    const char *at = segment, *end = at + size;

    while ((size_t)(end - at) >= sizeof(ElfW(Nhdr))) {
        ElfW(Nhdr) note;
        const char *owner = at + sizeof(note), *contents;
        size_t left = (size_t)(end - owner);
        int r;

        memcpy(&note, at, sizeof(note));
        if (padded(note.n_namesz) > left || note.n_descsz > left - padded(note.n_namesz))
            return 0;
        contents = owner + padded(note.n_namesz);
        if (note.n_type == VMIBUS_SYSCALLS_TYPE && note.n_namesz == sizeof(VMIBUS_SYSCALLS_OWNER) &&
            memcmp(owner, VMIBUS_SYSCALLS_OWNER, note.n_namesz) == 0 && note.n_descsz && contents[note.n_descsz - 1] == '\0') {
            r = visit_names(contents, note.n_descsz, fn, context);
            if (r < 0)
                return r;
        }
        if (padded(note.n_descsz) > (size_t)(end - contents))
            return 0;
        at = contents + padded(note.n_descsz);
    }
    return 0;
}

static int visit_object(struct dl_phdr_info *info, size_t size, void *data) {
    struct visit *visit = data;

    (void)size;
    for (ElfW(Half) i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        int r;

        if (header->p_type != PT_NOTE)
            continue;
        r = sandbox_notes_parse((const void *)(info->dlpi_addr + header->p_vaddr), header->p_memsz, visit->fn, visit->context);
        if (r < 0)
            return r;
    }
    return 0;
}

int sandbox_notes_visit(sandbox_note_fn fn, void *context) {
    struct visit visit = {.fn = fn, .context = context};

    return dl_iterate_phdr(visit_object, &visit);
}
