/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Layouts of structures that a module defines. A module's BTF goes on where that of vmlinux ends: its types refer to
 * vmlinux's by their ids (Documentation/bpf/btf.rst, split BTF).
 */
#ifndef GUEST_LINUX_MODULE_LAYOUTS_H
#define GUEST_LINUX_MODULE_LAYOUTS_H

#include "kernel.h"

/**
 * Reads a module's BTF from the copy that the kernel keeps of it (Linux kernel/bpf/btf.c, btf_modules); that in the module's own
 * section is gone once it has been loaded.
 * @param module  address of its struct module
 * @param btfp    receives it, for linux_fields_resolve_in() and the functions of btf.h, which then look in vmlinux's too; whoever
 *                asked frees it with btf_free(), before linux_layouts_drop() and the end of the kernel object
 * @return 0; NOT_FOUND: the kernel has none of this module; UNPROVEN; another result of reading, or a negative errno
 */
int linux_module_layouts(struct vmibus_linux *kernel, uint64_t module, struct btf **btfp);

#endif
