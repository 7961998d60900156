/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libvmibus-guest: reading a guest through the RAM that a memctx describes.
 *
 * Every octet that comes from a guest is hostile: nothing here trusts a count, a pointer or a
 * string that it read.  Nothing is cached that a running guest could make stale.  No function logs,
 * exits, writes to a guest or blocks on anything but the page cache.  An object may be used by one
 * thread at a time; distinct objects are independent.
 *
 * Return values: 0 success, negative errno fatal, positive enum vmibus_guest_result expected.
 */
#ifndef VMIBUS_GUEST_H
#define VMIBUS_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <vmibus/protocol.h>
#include <vmibus/visibility.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Expected outcomes. */
enum vmibus_guest_result {
    VMIBUS_GUEST_NOT_PRESENT = 1,   /**< a paging entry is not present */
    VMIBUS_GUEST_RESERVED_BITS = 2, /**< a paging entry has reserved bits set */
    VMIBUS_GUEST_NON_CANONICAL = 3, /**< the address is not canonical at this paging depth */
    VMIBUS_GUEST_OUTSIDE_RAM = 4,   /**< a physical address is not RAM */
    VMIBUS_GUEST_TRUNCATED = 5,     /**< the RAM file ends before the range does */
    VMIBUS_GUEST_NOT_FOUND = 6,     /**< nothing found */
    VMIBUS_GUEST_UNPROVEN = 7,      /**< something found that the evidence does not support */
    VMIBUS_GUEST_UNFINISHED = 8,    /**< there is more to do: call again */
    VMIBUS_GUEST_CHANGED = 9,       /**< it changed while it was read: read again */
};

/* --- guest-physical memory -------------------------------------------------------------------- */

/**
 * How guest-physical memory is read: fills @a buffer with @a len octets from @a gpa.
 * Returns 0, VMIBUS_GUEST_OUTSIDE_RAM, VMIBUS_GUEST_TRUNCATED or a negative errno.
 */
typedef int (*vmibus_guest_read_fn)(void *context, uint64_t gpa, void *buffer, size_t len);

/** What readers of this library can do besides; nobody else's concern. */
struct vmibus_guest_direct;

/** A way to read guest-physical memory. */
struct vmibus_guest_reader {
    vmibus_guest_read_fn read;
    void *context;
    const struct vmibus_guest_direct *direct; /**< NULL, unless a function of this library filled it */
};

/* --- page walk -------------------------------------------------------------------------------- */

/** An address space: its top page table and depth. */
struct vmibus_guest_root {
    uint64_t cr3;    /**< CR3 value; PCID and flag bits are ignored */
    uint8_t levels;  /**< 4 or 5 */
};

/** Rights that all levels of a walk agree on. */
enum vmibus_guest_rights {
    VMIBUS_GUEST_WRITABLE = 1u << 0,   /**< R/W set on every level */
    VMIBUS_GUEST_USER = 1u << 1,       /**< U/S set on every level */
    VMIBUS_GUEST_NO_EXECUTE = 1u << 2, /**< NX set on some level */
};

/** Where a guest-virtual address leads. What is not said to be filled is zero. */
struct vmibus_guest_translation {
    /** guest-physical address; after OUTSIDE_RAM and TRUNCATED, the one that could not be read */
    uint64_t gpa;
    uint64_t page_size;  /**< 4 KiB, 2 MiB or 1 GiB */
    uint32_t rights;     /**< enum vmibus_guest_rights, if an entry that maps a page was reached */
    uint8_t depth;       /**< entries read */
    /**
     * level that ended the walk: 1 is the page table, 5 the PML5; on failure, the level at fault,
     * where 0 is the page itself (vmibus_guest_read() only)
     */
    uint8_t level;
    struct {
        uint64_t gpa;    /**< where the entry lies */
        uint64_t value;  /**< the entry */
    } entries[5];        /**< from the top, depth of them */
};

/**
 * Walks the page tables once, reading each entry once (Intel SDM volume 3, 4.5; AMD APM volume 2,
 * 5.3), as a processor with 52 physical address bits and NX enabled does. Whether the address that
 * comes out is RAM, reading it tells. Any number of threads may walk with a reader that allows it.
 * @param reader       how to read guest-physical memory
 * @param root         the address space
 * @param gva          guest-virtual address
 * @param translation  filled as far as the walk came, also on failure
 * @return 0, NOT_PRESENT, RESERVED_BITS, NON_CANONICAL, OUTSIDE_RAM, TRUNCATED, or a negative
 *         errno; -EINVAL if the root has neither 4 nor 5 levels.
 */
VMIBUS_PUBLIC int vmibus_guest_translate(const struct vmibus_guest_reader *reader,
                                         const struct vmibus_guest_root *root, uint64_t gva,
                                         struct vmibus_guest_translation *translation);

/**
 * Reads guest-virtual memory, translating each page once. Pages are read one after another: a
 * running guest may change what they hold, and their tables, meanwhile.
 * @param reader  how to read guest-physical memory
 * @param root    the address space
 * @param gva     guest-virtual address; a range that passes the top of the address space is
 *                NON_CANONICAL from there on
 * @param buffer  filled with @a len octets; undefined behind what was read
 * @param len     octets
 * @param done    if not NULL, receives how many octets were read before the first failure
 * @param fault   if not NULL, filled on failure with the translation that failed; its level is 0
 *                where the translation succeeded and the page could not be read
 * @return as vmibus_guest_translate()
 */
VMIBUS_PUBLIC int vmibus_guest_read(const struct vmibus_guest_reader *reader,
                                    const struct vmibus_guest_root *root, uint64_t gva,
                                    void *buffer, size_t len, size_t *done,
                                    struct vmibus_guest_translation *fault);

/** One of several reads. */
struct vmibus_guest_scatter {
    uint64_t gva;   /**< guest-virtual address */
    void *buffer;   /**< filled with @a len octets; undefined behind @a done */
    size_t len;     /**< octets */
    size_t done;    /**< receives how many octets were read before the first failure */
    int result;     /**< receives what vmibus_guest_read() returns */
};

/**
 * Reads guest-virtual memory at several places, each as vmibus_guest_read() does; where one cannot be read, the others
 * are. They are read one after another: a running guest may change what they hold meanwhile.
 * @param reader  how to read guest-physical memory
 * @param root    the address space
 * @param reads   what to read
 * @param n       their number
 * @return how many were read in whole
 */
VMIBUS_PUBLIC size_t vmibus_guest_read_scatter(const struct vmibus_guest_reader *reader,
                                               const struct vmibus_guest_root *root,
                                               struct vmibus_guest_scatter *reads, size_t n);

/* --- RAM from a memctx ------------------------------------------------------------------------ */

/** Guest RAM as the ranges and read-only descriptors of a memctx give it. */
struct vmibus_guest_ram;

/**
 * Makes a view of guest RAM. Ranges in files of tmpfs (a memfd is one) that are sealed against shrinking are mapped
 * read-only, and pages that hold data are read by plain loads, tens of nanoseconds for a walk; all else is read by system
 * calls. Addresses for all of RAM are reserved; a process that locks its memory (mlockall() with MCL_CURRENT) while it
 * has such a view makes the host hold all of the guest's RAM.  Loads from a page that the guest gives back at that moment (a
 * balloon) allocate it anew, and where the host has none to give, because its commit limit (vm.overcommit_memory=2), the tmpfs or
 * the reader's memory cgroup is full, the reader gets SIGBUS or is killed; as it gets SIGBUS for a page that the host's memory
 * lost.  Who cannot risk that handles SIGBUS, or has the memory authority read (MEM_READ).
 * @param ramp     receives the view, NULL on failure
 * @param ranges   the memctx's ranges, in any order, copied; empty, overlapping or wrapping ones,
 *                 and ones of an object that has no descriptor, are refused with -EINVAL
 * @param n_ranges their number, at least 1
 * @param fds      the RAM objects' descriptors, duplicated; reading needs no more than O_RDONLY
 * @param n_fds    their number, at least 1
 * @return 0, -EINVAL, -ENOMEM, -EBADF or -EMFILE
 */
VMIBUS_PUBLIC int vmibus_guest_ram_new(struct vmibus_guest_ram **ramp,
                                       const struct vmibus_ram_range *ranges, size_t n_ranges,
                                       const int *fds, size_t n_fds);

/**
 * Makes a view of guest RAM for a process that others depend on, as sensors in the bus's own do: it maps nothing and reads by
 * pread(2) alone, so that whatever a guest, its VM's process or the host's memory does, reading fails or succeeds, allocates
 * nothing, and raises no signal.
 *
 * RAM may lie, wholly or in part, in the private memory of a process: a descriptor of /proc/PID/mem is one of such an object,
 * and the offsets of its ranges are addresses there.  What the process never touched reads as zeros, holds no data, and is not
 * touched.
 * @param pagemap_fd /proc/PID/pagemap of that process, duplicated; -1: no object is private. All else as in
 *                   vmibus_guest_ram_new()
 */
VMIBUS_PUBLIC int vmibus_guest_ram_new_unmapped(struct vmibus_guest_ram **ramp,
                                                const struct vmibus_ram_range *ranges,
                                                size_t n_ranges, const int *fds, size_t n_fds,
                                                int pagemap_fd);

/** Frees a view and its descriptors. Takes and returns NULL. */
VMIBUS_PUBLIC struct vmibus_guest_ram *vmibus_guest_ram_free(struct vmibus_guest_ram *ram);

/**
 * Reads guest-physical memory, across ranges that adjoin; holes of the files read as zeros and are
 * not filled by reading.
 * @return 0, VMIBUS_GUEST_OUTSIDE_RAM, VMIBUS_GUEST_TRUNCATED (the file has become shorter than its
 *         range), or a negative errno; unless 0, what the buffer holds is undefined.
 */
VMIBUS_PUBLIC int vmibus_guest_ram_read(struct vmibus_guest_ram *ram, uint64_t gpa, void *buffer,
                                        size_t len);

/** The view as a reader; the view is borrowed, and must outlive it. */
VMIBUS_PUBLIC struct vmibus_guest_reader vmibus_guest_ram_reader(struct vmibus_guest_ram *ram);

/**
 * The next stretch of guest-physical RAM at or after @a gpa that the backing files, or the process, hold data for.
 * @param gpa  where to begin; on success, where the data begin
 * @param len  receives the length of the stretch in octets
 * @return 0, VMIBUS_GUEST_NOT_FOUND after the last one, or a negative errno. A running guest may
 *         change the answer at once: it says where to look. It moves the position of the open file
 *         description.
 */
VMIBUS_PUBLIC int vmibus_guest_ram_next_data(struct vmibus_guest_ram *ram, uint64_t *gpa,
                                             uint64_t *len);

/* --- scanning for octets ---------------------------------------------------------------------- */

/** The octets that a pattern has at most. */
#define VMIBUS_GUEST_PATTERN_MAX 4096

/** What to scan for. */
struct vmibus_guest_pattern {
    const uint8_t *octets;  /**< @a len of them */
    const uint8_t *mask;    /**< as many: the bits that count; NULL: all do */
    size_t len;             /**< 1 to VMIBUS_GUEST_PATTERN_MAX */
    uint64_t align;         /**< of the addresses where it may begin: a power of two; 0 and 1: anywhere */
};

/** A scan under way: in steps, for event loops and for showing how far it is. */
struct vmibus_guest_scan;

/**
 * Begins a scan of guest-virtual memory. What the address space maps is scanned once for each address that it is mapped
 * at; a match may span pages that adjoin there, wherever they lie in RAM. What is not mapped, not RAM, or wholly in holes
 * of the RAM files, is left out: of a pattern of zeros, what the guest never touched is no match.
 * @param scanp   receives the scan, NULL on failure
 * @param reader  how to read guest-physical memory, copied; its context must outlive the scan
 * @param root    the address space, copied
 * @param pattern what to scan for, copied
 * @param from    the first address that a match may have
 * @param last    the last octet that belongs to the range
 * @return 0, -ENOMEM, or -EINVAL: the pattern has a length or an alignment that it may not have, or its mask leaves
 *         nothing, or the root has neither 4 nor 5 levels, or @a last lies before @a from
 */
VMIBUS_PUBLIC int vmibus_guest_scan_new(struct vmibus_guest_scan **scanp,
                                        const struct vmibus_guest_reader *reader,
                                        const struct vmibus_guest_root *root,
                                        const struct vmibus_guest_pattern *pattern, uint64_t from,
                                        uint64_t last);

/**
 * Begins a scan of guest-physical memory.
 * @param ranges   where there is RAM, copied; may be NULL for a reader that vmibus_guest_ram_reader() made
 * @param n_ranges their number
 * @return as vmibus_guest_scan_new(); -EINVAL also where it is not known where there is RAM
 */
VMIBUS_PUBLIC int vmibus_guest_scan_new_physical(struct vmibus_guest_scan **scanp,
                                                 const struct vmibus_guest_reader *reader,
                                                 const struct vmibus_ram_range *ranges,
                                                 size_t n_ranges,
                                                 const struct vmibus_guest_pattern *pattern,
                                                 uint64_t from, uint64_t last);

/** Frees a scan, finished or not. Takes and returns NULL. */
VMIBUS_PUBLIC struct vmibus_guest_scan *vmibus_guest_scan_free(struct vmibus_guest_scan *scan);

/**
 * Scans on. Matches come by rising address, overlapping ones too; each stood there when it was looked at. Page tables that
 * a step read are believed to its end, not longer.
 * @param scan    the scan
 * @param octets  roughly how much to look at, more than 0; tables count, so that a step ends whatever they say. An address
 *                space may map 2^48 octets by a few tables: a scan of it ends after as many steps as that takes
 * @param matches receives their addresses
 * @param n       how many there is room for, at least 1
 * @param found   receives how many there are
 * @return 0 if the scan is over; VMIBUS_GUEST_UNFINISHED if there is more to scan, or might be; or a negative errno. What
 *         was found is there either way.
 */
VMIBUS_PUBLIC int vmibus_guest_scan_step(struct vmibus_guest_scan *scan, uint64_t octets,
                                         uint64_t *matches, size_t n, size_t *found);

/**
 * How far a scan is: never less than before. Of virtual memory it is an estimate, by the entries of the upper tables.
 * @return hundredths of a percent, up to 10,000
 */
VMIBUS_PUBLIC unsigned int vmibus_guest_scan_get_progress(const struct vmibus_guest_scan *scan);

/** Where a scan that is not over goes on: a match before that has been found, and another scan may begin there. */
VMIBUS_PUBLIC uint64_t vmibus_guest_scan_get_position(const struct vmibus_guest_scan *scan);

/* --- the Linux kernel's own description ------------------------------------------------------- */

/** The octets that a note has at most: the kernel keeps it in one page. */
#define VMIBUS_GUEST_NOTE_MAX 4096

/** What a VMCOREINFO note says (Linux kernel/crash_core.c, arch/x86/kernel/machine_kexec_64.c). */
struct vmibus_guest_note {
    uint64_t gpa;               /**< where its text begins; 0 if only parsed */
    uint32_t len;               /**< octets of text, up to the first NUL */
    char release[65];           /**< OSRELEASE: printable, no blanks */
    uint64_t swapper_pg_dir;    /**< SYMBOL(swapper_pg_dir): virtual */
    uint64_t phys_base;         /**< NUMBER(phys_base): two's complement, may be negative */
    uint64_t kernel_offset;     /**< KERNELOFFSET: KASLR displacement of the text; 0 if not said */
    bool five_levels;           /**< NUMBER(pgtable_l5_enabled); false if not said */
};

/** What helps to find and to prove a root; all may be zero. */
struct vmibus_guest_hints {
    const uint64_t *vcpu_cr3;   /**< CR3 of live vCPUs that page in long mode; flags are ignored */
    const uint8_t *vcpu_levels; /**< their paging depths, 0 where unknown; NULL: none is known */
    size_t n_vcpu_cr3;
};

/** A kernel root, and why it is believed. */
struct vmibus_guest_kernel {
    struct vmibus_guest_root root;
    struct vmibus_guest_note note;
    /**
     * the top page table of a vCPU that agrees, 0 if none: its CR3 without flags; where the vCPU
     * ran on the user half of page-table isolation, the kernel half
     */
    uint64_t vcpu_cr3;
    uint64_t octets;            /**< octets of RAM that were read to find it, but for the proof */
    uint64_t swept;             /**< ... of them by sweeping; 0: a vCPU's own kernel led to it */
    uint32_t evidence;          /**< VMIBUS_EVIDENCE_ bits */
    uint8_t confidence;         /**< enum vmibus_confidence */
};

/**
 * Reads the text of a note: lines that are ended, up to the first NUL or VMIBUS_GUEST_NOTE_MAX
 * octets.
 * @return 0, or VMIBUS_GUEST_UNPROVEN where a line that is needed (OSRELEASE, swapper_pg_dir,
 *         phys_base) is missing, as in a note that is still being written, or stands there twice or
 *         malformed.
 */
VMIBUS_PUBLIC int vmibus_guest_note_parse(const char *text, size_t len,
                                          struct vmibus_guest_note *note);

/**
 * Finds the live Linux kernel's root: looks for a page-aligned VMCOREINFO note where the data of the
 * vCPUs' kernels point to, then in all data extents of RAM, and believes one only if its own tables
 * map swapper_pg_dir to itself; a vCPU's CR3, where given, must map it to the same place. A note that
 * hints contradict (left behind by a kernel before a reset) is not taken; without hints, neither is
 * one of several that name different roots.
 *
 * With a vCPU in a Linux kernel that reads some 8 MiB, 64 MiB at most, whatever the size of RAM; else
 * all of RAM that holds data (some 80 ms a GiB): in an event loop, take a search instead.
 * @param ram     the guest's RAM
 * @param hints   what is known of the vCPUs; may be NULL
 * @param kernel  receives the kernel: with confidence PROVEN if a vCPU agrees, NOTED if no vCPU is
 *                known; all zeros on failure
 * @return 0, VMIBUS_GUEST_NOT_FOUND (no note: booting, or not Linux), VMIBUS_GUEST_UNPROVEN, or a
 *         negative errno.
 */
VMIBUS_PUBLIC int vmibus_guest_find_linux(struct vmibus_guest_ram *ram,
                                          const struct vmibus_guest_hints *hints,
                                          struct vmibus_guest_kernel *kernel);

/** vmibus_guest_find_linux() in portions, for event loops. */
struct vmibus_guest_search;

/** Begins a search of RAM, which is borrowed and must outlive it. Returns 0 or -ENOMEM. */
VMIBUS_PUBLIC int vmibus_guest_search_new(struct vmibus_guest_search **searchp,
                                          struct vmibus_guest_ram *ram);

/** Frees a search, finished or not. Takes and returns NULL. */
VMIBUS_PUBLIC struct vmibus_guest_search *
vmibus_guest_search_free(struct vmibus_guest_search *search);

/**
 * Searches on.
 * @param search  the search
 * @param hints   what is known of the vCPUs now; may be NULL, may differ from step to step
 * @param octets  roughly how much RAM to sweep in this step, more than 0: 16 MiB take about 1.5 ms; the
 *                first step with vCPUs looks at their kernels before, once
 * @param kernel  as with vmibus_guest_find_linux()
 * @return VMIBUS_GUEST_UNFINISHED if there is more to read; else as vmibus_guest_find_linux(), and
 *         the search is over.
 */
VMIBUS_PUBLIC int vmibus_guest_search_step(struct vmibus_guest_search *search,
                                           const struct vmibus_guest_hints *hints, uint64_t octets,
                                           struct vmibus_guest_kernel *kernel);

#ifdef __cplusplus
}
#endif

#endif
