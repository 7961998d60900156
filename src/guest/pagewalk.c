/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page walk, and reading guest-virtual memory with it, by any reader.
 *
 * The tables are a running guest's: they may say anything and change while they are walked.  Depends on no other file of
 * the library that is compiled, so that the memory authority can have it alone; a reader that has a walk of its own
 * (direct.h) brings it along.
 */
#include <vmibus/guest.h>

#include "direct.h"
#include "walk.h"

WALK_INLINE int load_by_reader(void *context, uint64_t gpa, uint64_t *entry) {
    const struct vmibus_guest_reader *reader = context;

    return reader->read(reader->context, gpa, entry, sizeof(*entry));
}

/* Not inlined: what these keep on the stack would cost a reader with a walk of its own as much as two levels do. */
static __attribute__((noinline)) int
translate_by_reader(const struct vmibus_guest_reader *reader, const struct vmibus_guest_root *root,
                    uint64_t gva, struct vmibus_guest_translation *translation) {
    return walk_translate(load_by_reader, (void *)(uintptr_t)reader, root, gva, translation);
}

static __attribute__((noinline)) int
read_by_reader(const struct vmibus_guest_reader *reader, const struct vmibus_guest_root *root,
               uint64_t gva, void *buffer, size_t len, size_t *done,
               struct vmibus_guest_translation *fault) {
    return walk_read(load_by_reader, (void *)(uintptr_t)reader, reader->read, reader->context, root,
                     gva, buffer, len, done, fault);
}

int vmibus_guest_translate(const struct vmibus_guest_reader *reader,
                           const struct vmibus_guest_root *root, uint64_t gva,
                           struct vmibus_guest_translation *translation) {
    if (reader->direct)
        return reader->direct->translate(reader->context, root, gva, translation);
    return translate_by_reader(reader, root, gva, translation);
}

int vmibus_guest_read(const struct vmibus_guest_reader *reader,
                      const struct vmibus_guest_root *root, uint64_t gva, void *buffer, size_t len,
                      size_t *done, struct vmibus_guest_translation *fault) {
    if (reader->direct)
        return reader->direct->read(reader->context, root, gva, buffer, len, done, fault);
    return read_by_reader(reader, root, gva, buffer, len, done, fault);
}
