/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Names and identities of files, from the kernel's dentries, mounts and inodes.
 *
 * A path is what d_path() makes of it (Linux fs/d_path.c) for someone whose root is the topmost mount of the file's mount
 * namespace: "/usr/bin/cat", "/tmp/x (deleted)", "pipe:[1234]", "socket:[5]", "anon_inode:[eventfd]", "/memfd:x (deleted)".
 * A process that sees a root of its own (chroot, container) sees the end of that path.
 *
 * Text has the octets that the guest has: newlines and controls are possible, NUL is not.
 */
#ifndef GUEST_LINUX_PATH_H
#define GUEST_LINUX_PATH_H

#include "kernel.h"

/** What a file is, by its inode. */
struct linux_inode {
    uint64_t gva;
    uint64_t number;
    uint32_t device;    /**< as the kernel has it: major << 20 | minor (Linux include/linux/kdev_t.h) */
    uint32_t mode;      /**< S_IFMT and rights */
};

/**
 * The path of a struct path's two pointers.
 * @param mnt     address of its struct vfsmount
 * @param dentry  address of its struct dentry
 * @param text    room for the path, ends with NUL; "" on failure
 * @param size    its octets; VMIBUS_LINUX_PATH_SIZE is enough for what system calls take
 * @return 0; CHANGED: renamed meanwhile, read again; UNPROVEN: no layouts, or what is there contradicts itself, has no end, or
 *         is longer than @a size; another result of reading, or a negative errno
 */
int linux_path_of(struct vmibus_linux *kernel, uint64_t mnt, uint64_t dentry, char *text, size_t size);

/** The path of an open file, by the address of its struct file. */
int linux_path_of_file(struct vmibus_linux *kernel, uint64_t file, char *text, size_t size);

/** What an open file is. 0, UNPROVEN, another result of reading, or a negative errno. */
int linux_inode_of_file(struct vmibus_linux *kernel, uint64_t file, struct linux_inode *inode);

#endif
