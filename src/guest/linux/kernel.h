/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What every reader of Linux structures stands on: the kernel object, reading its memory, its symbols and
 * the layouts of its structures.
 *
 * Rules for whoever reads structures with this:
 *   - an address that was read from the guest is only ever given to linux_read*(), never computed with beyond adding a
 *     field's offset (wrapping is harmless: what is not mapped is not read);
 *   - every loop over guest data has a bound of its own, named in an enum or #define beside it;
 *   - fields are looked up once, by linux_fields_resolve(), into a layout of the reader's own that linux_layout_get() keeps in the
 *     kernel object;
 *   - a name that kernels spell differently over time is an alternative in the table of wishes, not a version check.
 */
#ifndef GUEST_LINUX_KERNEL_H
#define GUEST_LINUX_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/guest_linux.h>

struct kallsyms;
struct btf;
struct modules;

/** Longest reason that is kept. */
#define LINUX_WHY_BOUND 200

struct vmibus_linux {
    struct vmibus_guest_reader reader;
    struct vmibus_guest_root root;
    struct vmibus_guest_note note;
    char note_text[VMIBUS_GUEST_NOTE_MAX + 1]; /**< ends with NUL */
    struct kallsyms *kallsyms;  /**< NULL until it was asked for */
    struct btf *btf;            /**< of vmlinux; NULL until it was asked for */
    struct modules *modules;    /**< what is looked up once to read modules; NULL until it was asked for */
    void *task_layout;          /**< kept by linux_layout_get() for task.c; NULL until it was asked for, as those that follow */
    void *file_layout;          /**< ... for files.c */
    void *socket_layout;        /**< ... for sockets.c */
    void *path_layout;          /**< ... for path.c */
    void *mapping_layout;       /**< ... for mappings.c */
    uint64_t *budget;           /**< reads that may still be made; NULL: any number */
    uint64_t budget_left;       /**< ... is this one, where there is a budget */
    char why[LINUX_WHY_BOUND];
};

/* --- reading: 0, enum vmibus_guest_result or a negative errno, as vmibus_guest_read() -------------------------- */

/** Takes a read off the budget: one, and one more for each page. False: there is none left, and it must not be made. */
static inline bool linux_charge(const struct vmibus_linux *kernel, size_t len) {
    const uint64_t cost = 1 + len / 4096;

    if (!kernel->budget)
        return true;
    if (*kernel->budget < cost) {
        *kernel->budget = 0;
        return false;
    }
    *kernel->budget -= cost;
    return true;
}

/** Reads octets at an address of the kernel. UNFINISHED: the budget is spent. */
int linux_read(const struct vmibus_linux *kernel, uint64_t gva, void *buffer, size_t len);

/** Reads a pointer or another 64-bit number. */
int linux_read_u64(const struct vmibus_linux *kernel, uint64_t gva, uint64_t *value);

/** Reads a 32-bit number. */
int linux_read_u32(const struct vmibus_linux *kernel, uint64_t gva, uint32_t *value);

/**
 * Reads text up to its NUL, or up to @a size - 1 octets; always ends it with NUL. Octets are as they are in the guest: whoever
 * shows them makes them printable.
 */
int linux_read_text(const struct vmibus_linux *kernel, uint64_t gva, char *text, size_t size);

/** Whether an address lies in the kernel's half of the address space. */
bool linux_is_kernel_address(const struct vmibus_linux *kernel, uint64_t gva);

/** Says why an operation ends so, for vmibus_linux_why(); returns @a r. */
int linux_because(struct vmibus_linux *kernel, int r, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* --- the note -------------------------------------------------------------------------------------------------- */

/** A line SYMBOL(name)=address of the note. False: there is none, or it holds no address of the kernel. */
bool linux_note_symbol(const struct vmibus_linux *kernel, const char *name, uint64_t *gva);

/** A line such as "OFFSET(list_head.next)", with a decimal number of at most 9 digits. False: there is none such. */
bool linux_note_number(const struct vmibus_linux *kernel, const char *key, uint32_t *value);

/* --- symbols -------------------------------------------------------------------------------------------------- */

/** The address of a symbol of vmlinux. 0; NOT_FOUND; UNPROVEN, if kallsyms cannot be decoded. */
int linux_symbol(struct vmibus_linux *kernel, const char *name, uint64_t *gva);

/* --- layouts of structures (from BTF) -------------------------------------------------------------------------- */

/** Where a member lies in a structure. */
struct linux_field {
    uint32_t offset;    /**< octets from the structure's beginning */
    uint32_t size;      /**< octets; of an array without a size, those of one element; 0: the kernel has no such member */
    uint8_t bit;        /**< lowest bit, of a bit field */
    uint8_t bits;       /**< how many; 0: no bit field */
    bool is_signed;
};

/**
 * A wish: "task_struct", "comm"; a path through nested, also anonymous, members: "mm", "mm_mt.ma_root".
 * Wishes that begin with the same structure and member name stand in one table; several names for one thing follow
 * each other with the same target: the first that exists counts.
 */
struct linux_wish {
    const char *structure;  /**< name of a struct or union; NULL ends the table */
    const char *path;       /**< members, separated by dots */
    size_t target;          /**< offset of the struct linux_field to fill, in the caller's struct of fields */
    bool optional;          /**< left with size 0 where the kernel has it not */
};

/**
 * Looks up a table of wishes in vmlinux's BTF.
 * @param fields   the caller's struct of struct linux_field, zeroed before
 * @return 0; UNPROVEN where a wish that is not optional is not fulfilled (vmibus_linux_why() names it) or there is no BTF
 */
int linux_fields_resolve(struct vmibus_linux *kernel, const struct linux_wish *wishes, void *fields);

/**
 * Looks up, once, all that a reader of structures needs to know of the kernel.
 * @param kept    the member of the kernel object that keeps it: freed with it
 * @param size    its octets; it begins zeroed
 * @param look_up fills it
 * @return 0, what @a look_up returned (the next call tries again), or -ENOMEM
 */
int linux_layout_get(struct vmibus_linux *kernel, void **kept, size_t size,
                     int (*look_up)(struct vmibus_linux *kernel, void *layout));

/** The size of a structure in octets. 0 or NOT_FOUND, UNPROVEN. */
int linux_structure_size(struct vmibus_linux *kernel, const char *name, uint32_t *size);

/** The value of an enumerator, such as "PIDTYPE_TGID". 0 or NOT_FOUND, UNPROVEN. */
int linux_enumerator(struct vmibus_linux *kernel, const char *name, int64_t *value);

/** Reads an integer or pointer member (up to 8 octets, or a bit field) of the structure at @a gva. -EINVAL: not such a size. */
int linux_read_field(const struct vmibus_linux *kernel, uint64_t gva, const struct linux_field *field, uint64_t *value);

/** Octets that linux_read_fields() reads at most, from the first wanted member to the last. */
#define LINUX_FIELDS_SPAN_MAX 4096

/**
 * Reads several members of the structure at @a gva by one read: what they say together is of one moment, or nearly.
 * @param fields those wanted; one that the kernel has not (size 0) gives 0
 * @param n      their number
 * @param values receives them
 * @return as linux_read(); UNPROVEN: they lie further apart than LINUX_FIELDS_SPAN_MAX, or one is no number
 */
int linux_read_fields(const struct vmibus_linux *kernel, uint64_t gva, const struct linux_field *fields, size_t n,
                      uint64_t *values);

/** The same from a copy of the structure in the caller's memory; false: the member does not lie in its @a size octets. */
bool linux_get_field(const void *copy, size_t size, const struct linux_field *field, uint64_t *value);

#endif
