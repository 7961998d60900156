/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A file of extents for one write, a line each:
 *
 *     ADDR HEX [expect=HEX] [gpa=ADDR]
 *
 * Empty lines and what follows a # do not count.  expect and gpa are on every line or on none, as the
 * command has one flag for all of them.
 */
#ifndef VMIBUSCTL_EXTENTS_H
#define VMIBUSCTL_EXTENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json.h>

#include <vmibus/client.h>

/** All zeros: none. */
struct extents {
    struct vmibus_write_extent *records;
    size_t n;
    uint8_t *octets;        /* to write, one extent after the other; extents_join() puts those to expect before */
    uint8_t *expected;      /* as many */
    size_t length;
    size_t n_expect, n_gpa; /* lines that had them */
};

/** Adds the extents of a file; - is standard input. Says what is wrong with it. A status. */
int extents_read(struct extents *extents, const char *path);

/** Makes one block of the octets to expect and those to write. False: there is no memory. */
bool extents_join(struct extents *extents);

/** VMIBUS_MEMWRITE_EXPECT and EXPECT_GPA, by what the lines had. */
uint32_t extents_get_flags(const struct extents *extents);

/** Frees it. */
void extents_deinit(struct extents *extents);

/** How each extent fared, as an array of objects, with its gva and len; the caller's. */
struct json_object *extents_json(const struct extents *extents, const struct vmibus_extent_result *results);

/** Says to stderr what is wrong with each extent that something is wrong with. */
void extents_explain(const struct extents *extents, const struct vmibus_extent_result *results);

#endif
