/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The text of VMCOREINFO notes, good, torn and hostile: vmibus_guest_note_parse(). */
#include "harness.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <vmibus/guest.h>

/* The lines of a Linux 6.1 that matter, in its order, with some that do not. */
static const char good[] = "OSRELEASE=6.1.0-56-amd64\n"
                           "BUILD-ID=1c2f0f5f3a0b6c1f3b0f7f5d6e1f2a3b4c5d6e7f\n"
                           "PAGESIZE=4096\n"
                           "SYMBOL(init_uts_ns)=ffffffff9d62c5a0\n"
                           "OFFSET(uts_namespace.name)=0\n"
                           "SYMBOL(node_online_map)=ffffffff9d9b6f20\n"
                           "SYMBOL(swapper_pg_dir)=ffffffff9d610000\n"
                           "SYMBOL(_stext)=ffffffff9be00000\n"
                           "NUMBER(phys_base)=-442499072\n"
                           "SYMBOL(init_top_pgt)=ffffffff9d610000\n"
                           "NUMBER(pgtable_l5_enabled)=1\n"
                           "KERNELOFFSET=1ae00000\n"
                           "NUMBER(KERNEL_IMAGE_SIZE)=1073741824\n"
                           "NUMBER(sme_mask)=0\n";

/* The lines without which there is nothing. */
static const char *const essentials[] = {"OSRELEASE=6.1.0\n",
                                         "SYMBOL(swapper_pg_dir)=ffffffff9d610000\n",
                                         "NUMBER(phys_base)=0\n"};

static struct vmibus_guest_note note;

static int parse(const char *text, size_t len) {
    memset(&note, 0xa5, sizeof(note));
    return vmibus_guest_note_parse(text, len, &note);
}

/* Parses the essentials, with one of them replaced and a line after them. */
static int parse_with(size_t replaced, const char *line, const char *more) {
    char text[4096];

    snprintf(text, sizeof(text), "%s%s%s%s", replaced == 0 ? line : essentials[0],
             replaced == 1 ? line : essentials[1], replaced == 2 ? line : essentials[2], more);
    return parse(text, strlen(text));
}

TEST(test_good_note) {
    char page[4096] = "";

    memcpy(page, good, sizeof(good) - 1);
    ck_assert_int_eq(parse(page, sizeof(page)), 0);
    ck_assert_uint_eq(note.gpa, 0);
    ck_assert_uint_eq(note.len, sizeof(good) - 1);
    ck_assert_str_eq(note.release, "6.1.0-56-amd64");
    ck_assert_uint_eq(note.swapper_pg_dir, UINT64_C(0xffffffff9d610000));
    ck_assert_uint_eq(note.phys_base, (uint64_t)-INT64_C(442499072));
    ck_assert_uint_eq(note.kernel_offset, 0x1ae00000);
    ck_assert(note.five_levels);
}

TEST(test_lines_that_older_kernels_lack_may_be_missing) {
    ck_assert_int_eq(parse_with(9, "", ""), 0);
    ck_assert(!note.five_levels);
    ck_assert_uint_eq(note.kernel_offset, 0);
}

TEST(test_needed_lines_must_be_there, .iterations = 3) {
    ck_assert_int_eq(parse_with((size_t)_i, "", ""), VMIBUS_GUEST_UNPROVEN);
    ck_assert_int_eq(parse_with((size_t)_i, "SYMBOL(x)=1\n", ""), VMIBUS_GUEST_UNPROVEN);
}

TEST(test_line_twice_is_not_believed) {
    for (size_t i = 0; i < 3; i++)
        ck_assert_int_eq(parse_with(9, "", essentials[i]), VMIBUS_GUEST_UNPROVEN);
    ck_assert_int_eq(parse_with(9, "", "KERNELOFFSET=1\nKERNELOFFSET=1\n"), VMIBUS_GUEST_UNPROVEN);
    ck_assert_int_eq(parse_with(9, "", "SYMBOL(a)=1\nSYMBOL(a)=1\n"), 0);
}

TEST(test_numbers_at_their_limits) {
    ck_assert_int_eq(parse_with(2, "NUMBER(phys_base)=9223372036854775807\n", ""), 0);
    ck_assert_uint_eq(note.phys_base, INT64_MAX);
    ck_assert_int_eq(parse_with(2, "NUMBER(phys_base)=-9223372036854775808\n", ""), 0);
    ck_assert_uint_eq(note.phys_base, UINT64_C(1) << 63);
    ck_assert_int_eq(parse_with(1, "SYMBOL(swapper_pg_dir)=ffffffffffffffff\n", ""), 0);
    ck_assert_uint_eq(note.swapper_pg_dir, UINT64_MAX);
}

TEST(test_malformed_values_are_not_believed) {
    static const struct {
        size_t which;
        const char *line;
    } cases[] = {
        {0, "OSRELEASE=\n"},
        {0, "OSRELEASE=linux\n"},
        {0, "OSRELEASE=6\n"},
        {0, "OSRELEASE=6.1 evil\n"},
        {0, "OSRELEASE=6.1\033[2J\n"},
        {0, "OSRELEASE=6.1\377\n"},
        {0, "OSRELEASE=6.1\r\n"},
        {0, "OSRELEASE=6.1.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"},
        {1, "SYMBOL(swapper_pg_dir)=\n"},
        {1, "SYMBOL(swapper_pg_dir)=0xffffffff9d610000\n"},
        {1, "SYMBOL(swapper_pg_dir)=fffffffff9d610000\n"},
        {1, "SYMBOL(swapper_pg_dir)=-1\n"},
        {1, "SYMBOL(swapper_pg_dir)=ffffffff9d61000g\n"},
        {1, "SYMBOL(swapper_pg_dir)= ffffffff9d610000\n"},
        {2, "NUMBER(phys_base)=\n"},
        {2, "NUMBER(phys_base)=-\n"},
        {2, "NUMBER(phys_base)=--1\n"},
        {2, "NUMBER(phys_base)=+1\n"},
        {2, "NUMBER(phys_base)=9223372036854775808\n"},
        {2, "NUMBER(phys_base)=-9223372036854775809\n"},
        {2, "NUMBER(phys_base)=99999999999999999999999999\n"},
        {2, "NUMBER(phys_base)=1f\n"},
        {2, "NUMBER(phys_base)=1 \n"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        ck_assert_msg(parse_with(cases[i].which, cases[i].line, "") == VMIBUS_GUEST_UNPROVEN,
                      "case %zu", i);
    ck_assert_int_eq(parse_with(9, "", "NUMBER(pgtable_l5_enabled)=2\n"), VMIBUS_GUEST_UNPROVEN);
    ck_assert_int_eq(parse_with(9, "", "NUMBER(pgtable_l5_enabled)=\n"), VMIBUS_GUEST_UNPROVEN);
    ck_assert_int_eq(parse_with(9, "", "KERNELOFFSET=x\n"), VMIBUS_GUEST_UNPROVEN);
}

TEST(test_release_of_full_length) {
    char line[128] = "OSRELEASE=6.";

    memset(line + strlen(line), 'a', 62);
    strcat(line, "\n");
    ck_assert_int_eq(parse_with(0, line, ""), 0);
    ck_assert_uint_eq(strlen(note.release), 64);
}

TEST(test_text_ends_at_nul) {
    char text[sizeof(good) + 64];

    memcpy(text, good, sizeof(good));
    memcpy(text + sizeof(good), "KERNELOFFSET=1\n", 15);
    ck_assert_int_eq(parse(text, sizeof(good) + 15), 0);
    ck_assert_uint_eq(note.len, sizeof(good) - 1);
    ck_assert_int_eq(parse("", 1), VMIBUS_GUEST_UNPROVEN);
    ck_assert_int_eq(parse("", 0), VMIBUS_GUEST_UNPROVEN);
}

TEST(test_no_more_than_a_page_is_read) {
    static char text[8192];

    memset(text, '\n', sizeof(text));
    memcpy(text, essentials[0], strlen(essentials[0]));
    memcpy(text + 100, essentials[1], strlen(essentials[1]));
    memcpy(text + 4096 - strlen(essentials[2]), essentials[2], strlen(essentials[2]));
    ck_assert_int_eq(parse(text, sizeof(text)), 0);
    ck_assert_uint_eq(note.len, VMIBUS_GUEST_NOTE_MAX);
    memset(text + 4000, '\n', 96);
    memcpy(text + 4097 - strlen(essentials[2]), essentials[2], strlen(essentials[2]));
    ck_assert_int_eq(parse(text, sizeof(text)), VMIBUS_GUEST_UNPROVEN);
}

/* Two pages, of which the second cannot be read. Returns the end of the first. */
static char *make_cliff(void) {
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    ck_assert_ptr_ne(pages, MAP_FAILED);
    ck_assert_int_eq(mprotect(pages + 4096, 4096, PROT_NONE), 0);
    return pages + 4096;
}

TEST(test_p09_torn_note_is_believed_only_with_all_it_needs) {
    char *cliff = make_cliff();
    size_t needed = (size_t)(strstr(good, "SYMBOL(init_top_pgt)") - good);

    /* Whatever was written when it was read; read no further than the length. */
    for (size_t len = 0; len < sizeof(good); len++) {
        int r;

        memcpy(cliff - len, good, len);
        r = parse(cliff - len, len);
        ck_assert_msg(r == (len < needed ? VMIBUS_GUEST_UNPROVEN : 0), "%zu octets", len);
        if (r == 0)
            ck_assert_uint_eq(note.phys_base, (uint64_t)-INT64_C(442499072));
    }
}

TEST(test_p09_any_octets_are_survived) {
    char *cliff = make_cliff();
    uint64_t state = 88172645463325252;

    for (int round = 0; round < 20000; round++) {
        size_t len, spoiled;

        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        len = state % sizeof(good);
        spoiled = state >> 32 & 15;
        memcpy(cliff - len, good, len);
        for (size_t i = 0; i < spoiled && len > 0; i++) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            cliff[-1 - (long)(state % len)] = (char)(state >> 40);
        }
        parse(cliff - len, len);
        ck_assert_uint_le(note.len, len);
        ck_assert_ptr_nonnull(memchr(note.release, 0, sizeof(note.release)));
    }
}

HARNESS_SUITE("note", HARNESS_QUICK)
