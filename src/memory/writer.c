/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/writer.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "memory/write.h"
#include "util/fault.h"

VMIBUS_SYSCALLS("process_vm_writev")

static int write_fd(int fd, uint64_t offset, const uint8_t *source, size_t len, size_t *done) {
    ssize_t n;

    while (*done < len) {
        n = pwrite(fd, source + *done, len - *done, (off_t)(offset + *done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -ESRCH; /* /proc/PID/mem of an address space that is gone */
        *done += (size_t)n;
    }
    return 0;
}

static int write_own(uint64_t address, const uint8_t *source, size_t len, size_t *done) {
    struct iovec local, remote;
    ssize_t n;

    while (*done < len) {
        local.iov_base = (void *)(uintptr_t)(source + *done);
        remote.iov_base = (void *)(uintptr_t)(address + *done);
        local.iov_len = remote.iov_len = len - *done;
        n = process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        *done += (size_t)n;
    }
    return 0;
}

int writer_write(const struct memctx *memctx, size_t range, uint64_t skip, const uint8_t *source,
                 size_t len, size_t *done) {
    const struct vmibus_ram_range *where = &memctx->ranges[range];
    const struct ram_object *object = &memctx->objects[where->object];
    uint64_t address = memctx->addresses[range] + skip;
    int injected = fault_hit(FAULT_WRITE);

    *done = 0;
    if (injected < 0)
        return injected;
    if (where->flags & VMIBUS_RANGE_READ_ONLY)
        return -EACCES;
    if (object->is_file && object->writable && !object->huge)
        return write_fd(object->fd, where->offset + skip, source, len, done);
    if (memctx->memory_fd < 0)
        return -EACCES;
    if (memctx->own_process)
        return write_own(address, source, len, done);
    return write_fd(memctx->memory_fd, address, source, len, done);
}
