/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/tables.h"

#include <string.h>

static const uint8_t *find(const struct tables_reader *reader, uint64_t table) {
    for (unsigned i = 0; i < TABLES_KEPT; i++)
        if (reader->kept[i].known && reader->kept[i].gpa == table)
            return reader->kept[i].octets;
    return NULL;
}

static int read_table(struct tables_reader *reader, uint64_t table, const uint8_t **octets) {
    unsigned i = reader->next++ % TABLES_KEPT;
    int r;

    reader->kept[i].known = false;
    r = reader->guest->read(reader->guest->context, table, reader->kept[i].octets, TABLES_SIZE);
    if (r)
        return r;
    reader->kept[i].known = true;
    reader->kept[i].gpa = table;
    *octets = reader->kept[i].octets;
    return 0;
}

static int read_entry(void *context, uint64_t gpa, void *buffer, size_t len) {
    struct tables_reader *reader = context;
    uint64_t skip = gpa % TABLES_SIZE;
    const uint8_t *octets;
    int r;

    if (len > TABLES_SIZE - skip)
        return reader->guest->read(reader->guest->context, gpa, buffer, len);
    octets = find(reader, gpa - skip);
    if (!octets) {
        r = read_table(reader, gpa - skip, &octets);
        if (r)
            return r;
    }
    memcpy(buffer, octets + skip, len);
    return 0;
}

struct vmibus_guest_reader tables_reader_init(struct tables_reader *reader,
                                              const struct vmibus_guest_reader *guest) {
    reader->guest = guest;
    reader->next = 0;
    for (unsigned i = 0; i < TABLES_KEPT; i++)
        reader->kept[i].known = false;
    return (struct vmibus_guest_reader){.read = read_entry, .context = reader};
}
