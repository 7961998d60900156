/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Layouts as readers of structures ask for them: tables of wishes, members read by them, and BTF where it lies in the guest, that
 * of modules too.
 */
#include "harness.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fake_btf.h"
#include "flat_kernel.h"
#include "guest/linux/btf.h"
#include "guest/linux/fields.h"
#include "guest/linux/module_layouts.h"

static struct flat_kernel *flat;
static struct fake_btf fake;

enum {
    U64 = 1,
    S32,
};

static void begin(void) {
    flat = flat_kernel_new(FLAT_MAPLE);
    ck_assert_ptr_nonnull(flat);
    flat->kernel.btf = btf_free(flat->kernel.btf);
    fake_btf_begin(&fake, 1, 0);
    fake_btf_int(&fake, "u64", 8, 64);
    fake_btf_int(&fake, "int", 4, 1u << 24 | 32);
}

/* Puts the BTF into the guest; the kernel has none yet. */
static uint64_t put(size_t *len) {
    void *octets = fake_btf_octets(&fake, len);
    uint64_t gva = flat_take(flat, *len);

    memcpy(flat_at(flat, gva), octets, *len);
    free(octets);
    return gva;
}

static void put_vmlinux(void) {
    size_t len;
    uint64_t gva = put(&len);

    flat_symbol(flat, "__start_BTF", gva);
    flat_symbol(flat, "__stop_BTF", gva + len);
}

static void end(void) {
    flat = flat_kernel_free(flat);
}

/* --- wishes ------------------------------------------------------------------------------------------------------------- */

struct wanted {
    struct linux_field a, b, c;
};

#define WISH(structure, path, field) {structure, path, offsetof(struct wanted, field), false}
#define OPTION(structure, path, field) {structure, path, offsetof(struct wanted, field), true}

static void structure(const char *name, const char *member, const char *another) {
    fake_btf_type(&fake, name, FAKE_STRUCT, 0, 16);
    if (member)
        fake_btf_member(&fake, member, U64, 0);
    if (another)
        fake_btf_member(&fake, another, S32, 64);
}

TEST(test_the_first_name_that_exists_counts) {
    static const struct linux_wish wishes[] = {
        WISH("task", "state_of_tomorrow", a), WISH("task", "state", a), WISH("task", "__state", a),
        WISH("tusk", "pid", b), WISH("task", "pid", b), OPTION("task", "nothing", c), {0},
    };
    struct wanted wanted = {0};

    begin();
    structure("task", "state", "pid");
    put_vmlinux();
    ck_assert_msg(linux_fields_resolve(&flat->kernel, wishes, &wanted) == 0, "%s", flat->kernel.why);
    ck_assert_uint_eq(wanted.a.size, 8);
    ck_assert_uint_eq(wanted.b.offset, 8);
    ck_assert(wanted.b.is_signed);
    ck_assert_uint_eq(wanted.c.size, 0);
    end();
}

TEST(test_p12_what_is_missing_is_named) {
    static const struct linux_wish wishes[] = {WISH("task", "state", a), WISH("task", "pid", b), {0}};
    struct wanted wanted = {0};

    begin();
    structure("task", "state", NULL);
    put_vmlinux();
    ck_assert_int_eq(linux_fields_resolve(&flat->kernel, wishes, &wanted), VMIBUS_GUEST_UNPROVEN);
    ck_assert_ptr_nonnull(strstr(flat->kernel.why, "task"));
    ck_assert_ptr_nonnull(strstr(flat->kernel.why, "pid"));
    end();
}

TEST(test_of_several_of_one_name_the_first_with_all_that_is_wished) {
    static const struct linux_wish wishes[] = {WISH("context", "state", a), WISH("context", "pid", b), {0}};
    static const struct linux_wish others[] = {WISH("context", "state", a), WISH("context", "nothing", b), {0}};
    struct wanted wanted = {0};

    begin();
    structure("context", "foreign", NULL);
    structure("context", "state", NULL);
    fake_btf_type(&fake, "context", FAKE_STRUCT, 0, 32);
    fake_btf_member(&fake, "state", U64, 64);
    fake_btf_member(&fake, "pid", U64, 128);
    structure("context", "state", "pid");
    put_vmlinux();
    ck_assert_int_eq(linux_fields_resolve(&flat->kernel, wishes, &wanted), 0);
    ck_assert_uint_eq(wanted.a.offset, 8);
    ck_assert_uint_eq(wanted.b.offset, 16);
    ck_assert_int_eq(linux_fields_resolve(&flat->kernel, others, &wanted), VMIBUS_GUEST_UNPROVEN);
    end();
}

/* --- members --------------------------------------------------------------------------------------------------------------- */

TEST(test_members_are_read_as_numbers) {
    static const struct {
        struct linux_field field;
        uint64_t value;
    } cases[] = {
        {{.offset = 0, .size = 8}, UINT64_C(0xf8f7f6f5f4f3f2f1)},
        {{.offset = 1, .size = 4}, 0xf5f4f3f2},
        {{.offset = 1, .size = 2, .is_signed = true}, UINT64_C(0xfffffffffffff3f2)},
        {{.offset = 7, .size = 1}, 0xf8},
        {{.offset = 0, .size = 1, .bit = 4, .bits = 4}, 0xf},
        {{.offset = 0, .size = 2, .bit = 4, .bits = 6}, 0x2f},
        {{.offset = 0, .size = 3, .bit = 1, .bits = 17, .is_signed = true}, UINT64_C(0xfffffffffffff978)},
        {{.offset = 0, .size = 8, .bit = 0, .bits = 64}, UINT64_C(0xf8f7f6f5f4f3f2f1)},
    };
    const uint8_t octets[] = {0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8};
    uint64_t gva, value;

    begin();
    gva = flat_take(flat, 8);
    memcpy(flat_at(flat, gva), octets, 8);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert(linux_get_field(octets, 8, &cases[i].field, &value));
        ck_assert_msg(value == cases[i].value, "case %zu: %" PRIx64, i, value);
        ck_assert_int_eq(linux_read_field(&flat->kernel, gva, &cases[i].field, &value), 0);
        ck_assert_uint_eq(value, cases[i].value);
        ck_assert(!linux_get_field(octets, cases[i].field.offset + cases[i].field.size - 1, &cases[i].field, &value));
    }
    end();
}

TEST(test_p09_what_is_no_number_is_not_read) {
    static const struct linux_field fields[] = {
        {.size = 0}, {.size = 3}, {.size = 16}, {.offset = UINT32_MAX, .size = 8}, {.size = 9, .bits = 62, .bit = 7},
    };
    uint8_t octets[32] = {0};
    uint64_t value;

    begin();
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        ck_assert(!linux_get_field(octets, sizeof(octets), &fields[i], &value));
        ck_assert_int_ne(linux_read_field(&flat->kernel, FLAT_BASE, &fields[i], &value), 0);
    }
    end();
}

/* --- BTF in the guest -------------------------------------------------------------------------------------------------------- */

TEST(test_btf_is_read_once_and_again_after_it_was_dropped) {
    const struct btf *btf;
    uint32_t size;
    int64_t value;
    size_t reads;

    begin();
    structure("task", "state", "pid");
    fake_btf_type(&fake, "kind", FAKE_ENUM, 0, 4);
    fake_btf_value(&fake, "KIND", 9);
    put_vmlinux();
    ck_assert_int_eq(linux_structure_size(&flat->kernel, "task", &size), 0);
    ck_assert_uint_eq(size, 16);
    reads = flat->reads;
    ck_assert_int_eq(linux_enumerator(&flat->kernel, "KIND", &value), 0);
    ck_assert_int_eq(value, 9);
    ck_assert_int_eq(linux_structure_size(&flat->kernel, "tisk", &size), VMIBUS_GUEST_NOT_FOUND);
    ck_assert_int_eq(linux_enumerator(&flat->kernel, "KEIN", &value), VMIBUS_GUEST_NOT_FOUND);
    ck_assert_uint_eq(flat->reads, reads);
    linux_layouts_drop(&flat->kernel);
    ck_assert_int_eq(linux_layouts(&flat->kernel, &btf), 0);
    ck_assert_uint_gt(flat->reads, reads);
    end();
}

TEST(test_p12_a_kernel_without_btf_is_refused_with_the_reason) {
    static const uint64_t stops[] = {
        FLAT_BASE, FLAT_BASE - 1, FLAT_BASE + 12, FLAT_BASE + FLAT_LEN + 1, FLAT_BASE + (UINT64_C(1) << 40),
    };
    const struct btf *btf;

    begin();
    ck_assert_int_eq(linux_layouts(&flat->kernel, &btf), VMIBUS_GUEST_UNPROVEN);
    ck_assert_ptr_nonnull(strstr(flat->kernel.why, "BTF"));
    ck_assert_ptr_null(btf);
    for (size_t i = 0; i < sizeof(stops) / sizeof(stops[0]); i++) {
        flat->n_symbols = 0;
        flat_symbol(flat, "__start_BTF", FLAT_BASE);
        flat_symbol(flat, "__stop_BTF", stops[i]);
        ck_assert_int_gt(linux_layouts(&flat->kernel, &btf), 0);
        ck_assert_ptr_null(btf);
    }
    end();
}

/* --- BTF of modules ------------------------------------------------------------------------------------------------------ */

/* The kernel's own books of BTF (Linux kernel/bpf/btf.c). */
struct books {
    struct flat_list list;
    uint64_t module, btf;
};

struct book {
    uint64_t data, base;
    uint32_t data_size, start_id, start_string, unused;
};

static struct book *book;
static struct books *entry;

/* A kernel with two modules in its list, at 0x1000 and 0x2000; the second has BTF. */
static void begin_modules(void) {
    uint64_t head, first_gva, entry_gva, book_gva;
    const struct btf *base;
    size_t len;

    begin();
    structure("in_vmlinux", "x", NULL);
    fake_btf_type(&fake, "list_head", FAKE_STRUCT, 0, 16);
    fake_btf_member(&fake, "next", U64, 0);
    fake_btf_type(&fake, "btf_module", FAKE_STRUCT, 0, sizeof(struct books));
    fake_btf_member(&fake, "list", fake.first_id + fake.n - 2, 0);
    fake_btf_member(&fake, "module", U64, 128);
    fake_btf_member(&fake, "btf", U64, 192);
    fake_btf_type(&fake, "btf", FAKE_STRUCT, 0, sizeof(struct book));
    fake_btf_member(&fake, "data", U64, 0);
    fake_btf_member(&fake, "base_btf", U64, 64);
    fake_btf_member(&fake, "data_size", S32, 128);
    fake_btf_member(&fake, "start_id", S32, 160);
    fake_btf_member(&fake, "start_str_off", S32, 192);
    put_vmlinux();
    ck_assert_int_eq(linux_layouts(&flat->kernel, &base), 0);

    head = flat_take(flat, sizeof(struct flat_list));
    first_gva = flat_take(flat, sizeof(struct books));
    entry_gva = flat_take(flat, sizeof(struct books));
    book_gva = flat_take(flat, sizeof(struct book));
    flat_symbol(flat, "btf_modules", head);
    ((struct flat_list *)flat_at(flat, head))->next = first_gva;
    *(struct books *)flat_at(flat, first_gva) = (struct books){.list.next = entry_gva, .module = 0x1000};
    entry = flat_at(flat, entry_gva);
    *entry = (struct books){.list.next = head, .module = 0x2000, .btf = book_gva};
    book = flat_at(flat, book_gva);
    *book = (struct book){.base = 1, .start_id = btf_n_types(base), .start_string = btf_strings_len(base)};
    fake_btf_begin(&fake, btf_n_types(base), btf_strings_len(base));
    fake_btf_type(&fake, "in_module", FAKE_STRUCT, 0, 16);
    fake_btf_member(&fake, "y", U64, 64);
    book->data = put(&len);
    book->data_size = (uint32_t)len;
}

TEST(test_a_module_describes_its_structures_on_top_of_vmlinux) {
    static const struct linux_wish wishes[] = {WISH("in_module", "y", a), WISH("in_vmlinux", "x", b), {0}};
    struct wanted wanted = {0};
    struct btf *btf;

    begin_modules();
    ck_assert_msg(linux_module_layouts(&flat->kernel, 0x2000, &btf) == 0, "%s", flat->kernel.why);
    ck_assert_int_eq(linux_fields_resolve_in(&flat->kernel, btf, wishes, &wanted), 0);
    ck_assert_uint_eq(wanted.a.offset, 8);
    ck_assert_uint_eq(wanted.b.size, 8);
    btf_free(btf);
    ck_assert_int_eq(linux_module_layouts(&flat->kernel, 0x3000, &btf), VMIBUS_GUEST_NOT_FOUND);
    ck_assert_ptr_null(btf);
    end();
}

TEST(test_p12_btf_that_goes_on_from_elsewhere_is_refused, .iterations = 5) {
    struct btf *btf;

    begin_modules();
    switch (_i) {
    case 0:
        book->start_id++;
        break;
    case 1:
        book->start_string--;
        break;
    case 2:
        book->base = 0;
        break;
    case 3:
        book->data_size = UINT32_MAX;
        break;
    default: /* the list leads back into itself, and not to its head */
        entry->list.next = FLAT_BASE + (uint64_t)((uint8_t *)entry - flat->memory);
        entry->module = 0;
        break;
    }
    ck_assert_int_eq(linux_module_layouts(&flat->kernel, 0x2000, &btf), VMIBUS_GUEST_UNPROVEN);
    ck_assert_ptr_null(btf);
    end();
}

HARNESS_SUITE("layouts of structures", HARNESS_QUICK)
