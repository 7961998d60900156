/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is read of a kernel's memory besides plain octets, and why something could not be read. */
#include "kernel.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "guest/paging.h"

int linux_read_u64(const struct vmibus_linux *kernel, uint64_t gva, uint64_t *value) {
    *value = 0;
    return linux_read(kernel, gva, value, sizeof(*value));
}

int linux_read_u32(const struct vmibus_linux *kernel, uint64_t gva, uint32_t *value) {
    *value = 0;
    return linux_read(kernel, gva, value, sizeof(*value));
}

/* Text may end just before a page that is not there: what is read never reaches into one behind the NUL. */
int linux_read_text(const struct vmibus_linux *kernel, uint64_t gva, char *text, size_t size) {
    size_t done = 0;

    if (size == 0)
        return -EINVAL;
    text[0] = '\0';
    while (done < size - 1) {
        uint64_t at = gva + done;
        size_t part = (size_t)(PAGING_PAGE_SIZE - (at & (PAGING_PAGE_SIZE - 1)));
        int r;

        part = part < size - 1 - done ? part : size - 1 - done;
        r = linux_read(kernel, at, text + done, part);
        if (r) {
            text[done] = '\0';
            return r;
        }
        if (memchr(text + done, '\0', part))
            return 0;
        done += part;
        text[done] = '\0';
    }
    return 0;
}

bool linux_is_kernel_address(const struct vmibus_linux *kernel, uint64_t gva) {
    return gva >> (kernel->root.levels == 5 ? 56 : 47) == (kernel->root.levels == 5 ? UINT64_C(0xff) : UINT64_C(0x1ffff));
}

int linux_because(struct vmibus_linux *kernel, int r, const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(kernel->why, sizeof(kernel->why), format, arguments);
    va_end(arguments);
    return r;
}

const char *vmibus_linux_why(const struct vmibus_linux *kernel) {
    if (kernel->budget && *kernel->budget == 0)
        return "it takes more reads than any sound kernel needs: it is larger than is believed, or leads astray";
    return kernel->why[0] ? kernel->why : "nothing has failed";
}
