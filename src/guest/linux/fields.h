/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Layouts of structures: what of them is not for every reader (kernel.h has the rest). BTF is read from the guest once, when the
 * first layout is asked for, in some milliseconds; whoever keeps a kernel for long and has resolved all it wishes
 * gives the 5 to 11 MB back with linux_layouts_drop().
 */
#ifndef GUEST_LINUX_FIELDS_H
#define GUEST_LINUX_FIELDS_H

#include "kernel.h"

/**
 * Reads vmlinux's BTF, unless it was read: between the symbols __start_BTF and __stop_BTF.
 * @return 0, UNPROVEN (no BTF, or none that can be believed), another result of reading, or a negative errno
 */
int linux_layouts(struct vmibus_linux *kernel, const struct btf **btfp);

/** Frees vmlinux's BTF; it is read again when it is asked for. BTF of modules over it must be freed before. */
void linux_layouts_drop(struct vmibus_linux *kernel);

/**
 * The BTF that lies in the guest's memory.
 * @param base  of vmlinux, for a module's; else NULL
 * @param of    whose it is, for the reason
 * @return as linux_layouts()
 */
int linux_layouts_read(struct vmibus_linux *kernel, const struct btf *base, uint64_t gva, uint64_t len, const char *of,
                       struct btf **btfp);

/** linux_fields_resolve() in any BTF, such as a module's. */
int linux_fields_resolve_in(struct vmibus_linux *kernel, const struct btf *btf, const struct linux_wish *wishes, void *fields);

#endif
