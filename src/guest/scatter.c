/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading several places of an address space. */
#include <vmibus/guest.h>

size_t vmibus_guest_read_scatter(const struct vmibus_guest_reader *reader,
                                 const struct vmibus_guest_root *root,
                                 struct vmibus_guest_scatter *reads, size_t n) {
    size_t whole = 0;

    for (size_t i = 0; i < n; i++) {
        reads[i].result = vmibus_guest_read(reader, root, reads[i].gva, reads[i].buffer,
                                            reads[i].len, &reads[i].done, NULL);
        whole += reads[i].result == 0;
    }
    return whole;
}
