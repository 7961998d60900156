/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See fake_guest.h. */
#include "fake_guest.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

uint64_t fake_guest_page(struct fake_guest *guest) {
    uint64_t gpa = guest->next_table;

    ck_assert_msg(gpa + FAKE_PAGE <= guest->len, "the fake guest is too small");
    guest->next_table += FAKE_PAGE;
    memset(guest->memory + gpa, 0, FAKE_PAGE);
    return gpa;
}

uint64_t *fake_guest_entry(struct fake_guest *guest, struct vmibus_guest_root root, uint64_t gva,
                           unsigned int level) {
    uint64_t table = root.cr3;

    for (unsigned int at = root.levels;; at--) {
        uint64_t index = gva >> (12 + 9 * (at - 1)) & 0x1ff;
        uint64_t *entry = (uint64_t *)(void *)(guest->memory + table) + index;

        if (at == level)
            return entry;
        if (!(*entry & ENTRY_PRESENT))
            *entry = fake_guest_page(guest) | ENTRY_TABLE;
        table = *entry & UINT64_C(0xffffffffff000);
    }
}

void fake_guest_map(struct fake_guest *guest, struct vmibus_guest_root root, uint64_t gva,
                    uint64_t gpa, unsigned int level, uint64_t flags) {
    *fake_guest_entry(guest, root, gva, level) =
        gpa | flags | ENTRY_PRESENT | (level > 1 ? ENTRY_LARGE : 0);
}

static int read_memory(void *context, uint64_t gpa, void *buffer, size_t len) {
    struct fake_guest *guest = context;

    if (guest->reads < sizeof(guest->read_gpa) / sizeof(guest->read_gpa[0]))
        guest->read_gpa[guest->reads] = gpa;
    guest->reads++;
    if (guest->fail_at_read && guest->reads == (size_t)guest->fail_at_read)
        return guest->failure;
    if (gpa > guest->len || len > guest->len - gpa)
        return VMIBUS_GUEST_OUTSIDE_RAM;
    memcpy(buffer, guest->memory + gpa, len);
    if (guest->after_read)
        guest->after_read(guest, gpa);
    return 0;
}

struct vmibus_guest_reader fake_guest_reader(struct fake_guest *guest) {
    return (struct vmibus_guest_reader){.read = read_memory, .context = guest};
}

void fake_guest_boot(struct fake_guest *guest, struct fake_kernel *kernel) {
    uint64_t top = fake_guest_page(guest);

    kernel->root = (struct vmibus_guest_root){.cr3 = top, .levels = kernel->levels};
    kernel->swapper = FAKE_IMAGE + top - kernel->phys_base;
    fake_guest_map(guest, kernel->root, kernel->swapper, top, 1, ENTRY_WRITABLE | ENTRY_NX);
}

size_t fake_guest_note(struct fake_guest *guest, uint64_t gpa, const struct fake_kernel *kernel) {
    int len;

    ck_assert(gpa + FAKE_PAGE <= guest->len);
    len = snprintf((char *)guest->memory + gpa, FAKE_PAGE,
                   "OSRELEASE=6.1.0-99-test\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=%" PRIx64 "\n"
                   "NUMBER(phys_base)=%" PRId64 "\nNUMBER(pgtable_l5_enabled)=%d\nKERNELOFFSET=0\n",
                   kernel->swapper, (int64_t)kernel->phys_base, kernel->levels == 5);
    return (size_t)len;
}

uint64_t fake_guest_process(struct fake_guest *guest, const struct fake_kernel *kernel) {
    uint64_t top;

    /* A pair of tables, as page-table isolation has them: the second is that of user mode. */
    if (guest->next_table & FAKE_PAGE)
        fake_guest_page(guest);
    top = fake_guest_page(guest);
    fake_guest_page(guest);
    memcpy(guest->memory + top + FAKE_PAGE / 2, guest->memory + kernel->root.cr3 + FAKE_PAGE / 2,
           FAKE_PAGE / 2);
    fake_guest_map(guest, (struct vmibus_guest_root){.cr3 = top, .levels = kernel->levels},
                   0x400000, 0, 1, ENTRY_WRITABLE | ENTRY_USER);
    return top;
}
