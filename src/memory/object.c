/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/object.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "util/fds.h"

VMIBUS_SYSCALLS("fstatfs openat")

void ram_object_init(struct ram_object *object) {
    *object = (struct ram_object){.fd = -1};
}

void ram_object_deinit(struct ram_object *object) {
    view_deinit(&object->view);
    fd_close(object->fd);
    ram_object_init(object);
}

static bool is_file_named(const struct stat *st, const struct opener_file *file) {
    return major(st->st_dev) == file->device_major && minor(st->st_dev) == file->device_minor &&
           st->st_ino == file->inode;
}

int ram_object_consume_fd(struct ram_object *object, int fd, const struct opener_file *file) {
    _cleanup_fd_ int owned = fd;
    struct statfs fs;
    struct stat st;
    int flags, seals;

    if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
        return -errno;
    if (file && !is_file_named(&st, file))
        return -ESTALE;
    if (!S_ISREG(st.st_mode) || (fs.f_type != TMPFS_MAGIC && fs.f_type != HUGETLBFS_MAGIC))
        return -EMEDIUMTYPE;
    flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    seals = fcntl(fd, F_GET_SEALS);
    object->is_file = true;
    object->file = (struct opener_file){
        .device_major = major(st.st_dev),
        .device_minor = minor(st.st_dev),
        .inode = st.st_ino,
    };
    object->writable = (flags & O_ACCMODE) == O_RDWR && !(flags & (O_APPEND | O_PATH));
    object->huge = fs.f_type == HUGETLBFS_MAGIC;
    object->sealed = seals >= 0 && (seals & F_SEAL_SHRINK);
    object->fd = fd_steal(&owned);
    return 0;
}

int ram_object_reaches(const struct ram_object *object, uint64_t end) {
    struct stat st;

    if (!object->is_file || object->sealed)
        return 1;
    if (fstat(object->fd, &st) < 0)
        return -errno;
    return st.st_size >= 0 && (uint64_t)st.st_size >= end;
}

int ram_object_is_whole(const struct ram_object *object) {
    return ram_object_reaches(object, object->extent);
}

void ram_object_map(struct ram_object *object) {
    if (object->is_file && object->sealed && !object->huge)
        (void)view_init(&object->view, object->fd, object->extent);
}

int ram_object_reopen(int fd, int flags) {
    char path[32];
    int opened;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    opened = open(path, flags | O_CLOEXEC | O_NOCTTY);
    return opened < 0 ? -errno : opened;
}
