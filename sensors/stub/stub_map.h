/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where everything lies in a synthetic VM: the one place that knows, for the sensor, for tests and
 * demos.
 *
 * Two shapes.  Even VMs page with 4 levels and have one RAM object from 0.  Odd VMs page with 5
 * levels and have two objects: the lower half from 0, the upper half from STUB_HIGH_GPA.
 *
 * A kernel lies in one of two places, by the parity of the boot (0 for the first; each reset and
 * each respawn counts), so that nothing found before a reset is right after it.  Everything but
 * frames of the upper half lies below STUB_MAP_END.
 */
#ifndef STUB_MAP_H
#define STUB_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STUB_PAGE UINT64_C(0x1000)
#define STUB_LARGE_PAGE UINT64_C(0x200000)
#define STUB_HUGE_PAGE UINT64_C(0x40000000)

/* --- RAM -------------------------------------------------------------------------------------- */

#define STUB_RAM_DEFAULT (UINT64_C(64) << 20)
#define STUB_RAM_MINIMUM (UINT64_C(32) << 20) /* both halves hold STUB_MAP_END */
#define STUB_RAM_MAXIMUM (UINT64_C(512) << 30)
#define STUB_MAP_END (UINT64_C(16) << 20)
#define STUB_LOW_MAXIMUM (UINT64_C(3) << 30) /* odd VMs: the hole begins here at the latest */
#define STUB_HIGH_GPA (UINT64_C(4) << 30)    /* odd VMs: where the second object begins */
#define STUB_OUTSIDE_GPA (UINT64_C(1) << 40) /* no RAM in any shape */

/** Whether a VM has the shape with two objects and five levels. */
static inline bool stub_is_split(unsigned vm) {
    return vm % 2 == 1;
}

/** Paging levels of a VM. */
static inline uint8_t stub_levels(unsigned vm) {
    return stub_is_split(vm) ? 5 : 4;
}

/** Octets of the object that begins at 0. */
static inline uint64_t stub_low_size(unsigned vm, uint64_t ram_size) {
    if (!stub_is_split(vm))
        return ram_size;
    return ram_size / 2 < STUB_LOW_MAXIMUM ? ram_size / 2 : STUB_LOW_MAXIMUM;
}

/* --- the kernel ------------------------------------------------------------------------------- */

#define STUB_KERNEL_MAP_GVA UINT64_C(0xffffffff80000000)  /* __START_KERNEL_map */
#define STUB_KERNEL_TEXT_GVA UINT64_C(0xffffffff81000000) /* where the text is linked */

/** Guest-physical address of the kernel's image; a 2 MiB page maps it. */
static inline uint64_t stub_kernel_gpa(unsigned boot) {
    return UINT64_C(0x200000) + (boot % 2) * STUB_LARGE_PAGE;
}

/** KERNELOFFSET of the note: the displacement of the text. */
static inline uint64_t stub_kernel_offset(unsigned vm, unsigned boot) {
    return (1 + (vm + boot) % 7) * UINT64_C(0x2000000);
}

/** Where the kernel's image is mapped. */
static inline uint64_t stub_kernel_gva(unsigned vm, unsigned boot) {
    return STUB_KERNEL_TEXT_GVA + stub_kernel_offset(vm, boot);
}

/** phys_base of the note; taken as signed it is negative. */
static inline uint64_t stub_phys_base(unsigned vm, unsigned boot) {
    return stub_kernel_gpa(boot) - (stub_kernel_gva(vm, boot) - STUB_KERNEL_MAP_GVA);
}

/* Offsets in the image. */
#define STUB_SWAPPER_OFFSET UINT64_C(0x100000) /* swapper_pg_dir, the root */
#define STUB_TABLES_OFFSET UINT64_C(0x101000)  /* the kernel half's other tables */
#define STUB_NOTE_OFFSET UINT64_C(0x180000)    /* text of the VMCOREINFO note, page-aligned */
#define STUB_BANNER_OFFSET UINT64_C(0x190000)  /* linux_banner */

/** The kernel's root. */
static inline uint64_t stub_swapper_gpa(unsigned boot) {
    return stub_kernel_gpa(boot) + STUB_SWAPPER_OFFSET;
}

/** Where the kernel maps its root. */
static inline uint64_t stub_swapper_gva(unsigned vm, unsigned boot) {
    return stub_kernel_gva(vm, boot) + STUB_SWAPPER_OFFSET;
}

/** Text of the VMCOREINFO note. */
static inline uint64_t stub_note_gpa(unsigned boot) {
    return stub_kernel_gpa(boot) + STUB_NOTE_OFFSET;
}

/** linux_banner's frame. */
static inline uint64_t stub_banner_gpa(unsigned boot) {
    return stub_kernel_gpa(boot) + STUB_BANNER_OFFSET;
}

/**
 * linux_banner in a read-only 4 KiB page of its own (the image's 2 MiB page shows it too,
 * writable).
 */
static inline uint64_t stub_banner_gva(unsigned vm, unsigned boot) {
    return stub_kernel_gva(vm, boot) + STUB_LARGE_PAGE;
}

/** Where the kernel maps physical memory, in 1 GiB pages: gpa 0, and STUB_HIGH_GPA of odd VMs. */
static inline uint64_t stub_direct_gva(unsigned vm) {
    return stub_is_split(vm) ? UINT64_C(0xff11000000000000) : UINT64_C(0xffff888000000000);
}

#define STUB_BANNER_TEXT "Linux version 6.1.0-stub (vmibus@stub) #1 SMP stub\n"
#define STUB_RELEASE "6.1.0-stub"

/* --- processes -------------------------------------------------------------------------------- */

#define STUB_PROCESSES 3

/** Guest-physical address of what belongs to a process: its tables, then its frames. */
static inline uint64_t stub_process_gpa(unsigned boot, unsigned process) {
    return UINT64_C(0x600000) + (boot % 2) * UINT64_C(0x100000) + process * UINT64_C(0x40000);
}

/** A process's root. Its upper half is the kernel's. */
static inline uint64_t stub_process_cr3(unsigned boot, unsigned process) {
    return stub_process_gpa(boot, process);
}

/*
 * The same addresses in each process, with frames of its own.  The buffer has STUB_BUFFER_PAGES
 * writable pages; the page after it is not present.  The large and the huge page show the same to
 * all processes.
 */
#define STUB_DATA_GVA UINT64_C(0x400000)          /* writable; text: see STUB_DATA_FORMAT */
#define STUB_READ_ONLY_GVA UINT64_C(0x401000)     /* read-only; STUB_READ_ONLY_TEXT */
#define STUB_NOT_PRESENT_GVA UINT64_C(0x402000)   /* entry 0 at level 1 */
#define STUB_PAGE_OUTSIDE_GVA UINT64_C(0x403000)  /* leads to STUB_OUTSIDE_GPA */
#define STUB_BUFFER_GVA UINT64_C(0x410000)        /* see stub_buffer_gpa() */
#define STUB_RESERVED_GVA UINT64_C(0x800000)      /* a 2 MiB page whose entry has bit 13 set */
#define STUB_TABLE_OUTSIDE_GVA UINT64_C(0xa00000) /* its page table is at STUB_OUTSIDE_GPA */
#define STUB_LARGE_GVA UINT64_C(0xc00000)         /* a writable 2 MiB page at STUB_LARGE_GPA */
#define STUB_HUGE_GVA UINT64_C(0x40000000)        /* a writable 1 GiB page at gpa 0 */
#define STUB_NON_CANONICAL_GVA UINT64_C(0x8000000000000000)

#define STUB_DATA_FORMAT "%s process %u boot %u data\n" /* name, process, boot */
#define STUB_READ_ONLY_TEXT "read-only page\n"
#define STUB_BUFFER_PAGES 4
#define STUB_BUFFER_SIZE (STUB_BUFFER_PAGES * STUB_PAGE)
#define STUB_LARGE_GPA UINT64_C(0xa00000) /* holds zeros until somebody writes */
#define STUB_FREE_GPA UINT64_C(0xc00000)  /* a page that nobody uses */

/** Octet at an offset of a process's buffer. */
static inline uint8_t stub_buffer_octet(unsigned process, size_t offset) {
    return (uint8_t)(process * 64 + offset / STUB_PAGE * 16 + offset % 16);
}

/** Frame of the data page. */
static inline uint64_t stub_data_gpa(unsigned boot, unsigned process) {
    return stub_process_gpa(boot, process) + 0x10000;
}

/** Frame of the read-only page. */
static inline uint64_t stub_read_only_gpa(unsigned boot, unsigned process) {
    return stub_process_gpa(boot, process) + 0x11000;
}

/**
 * Frames of the buffer: descending with holes between; the second one of odd VMs is in the upper
 * object.
 */
static inline uint64_t stub_buffer_gpa(unsigned vm, unsigned boot, unsigned process,
                                       unsigned page) {
    uint64_t gpa = stub_process_gpa(boot, process) + 0x20000 - page * 2 * STUB_PAGE;

    return stub_is_split(vm) && page == 1 ? STUB_HIGH_GPA + gpa : gpa;
}

/**
 * What the sensor tells as a vCPU's CR3: the root itself in even VMs, the first process's in odd
 * ones.
 */
static inline uint64_t stub_vcpu_cr3(unsigned vm, unsigned boot) {
    return stub_is_split(vm) ? stub_process_cr3(boot, 0) : stub_swapper_gpa(boot);
}

/* --- input, as the guest sees it -------------------------------------------------------------- */

/*
 * One page of header, one page of entries.  Entry N of the events applied since the last reset is
 * entries[N % STUB_INPUT_ENTRIES]; count rises after the entry is written.
 */
#define STUB_INPUT_GPA UINT64_C(0x900000)
#define STUB_INPUT_SIZE (2 * STUB_PAGE)
#define STUB_INPUT_ENTRIES 256
#define STUB_INPUT_MAGIC UINT64_C(0x54504e4942555453) /* the octets "STUBINPT" */

struct stub_input_header {
    uint64_t magic;
    uint64_t count;    /**< events applied, releases included */
    uint64_t released; /**< of them, made by INPUT_RELEASE */
    uint32_t held;     /**< keys and buttons held now */
    uint32_t reserved;
};

struct stub_input_entry {
    uint16_t type;
    uint16_t code;
    int32_t value;
    uint32_t number; /**< low half of N */
    uint32_t by_bus; /**< 1: made by INPUT_RELEASE */
};

#endif
