/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A table for people: columns as wide as need be, the first row its heading. */
#ifndef VMIBUSCTL_TABLE_H
#define VMIBUSCTL_TABLE_H

#include <stddef.h>

struct table;

/** Makes a table with so many columns; ends the program where there is no memory. */
struct table *table_new(size_t n_columns);

/** Adds a cell; after the last one of a row, the next row begins. What is not fit for a terminal is replaced. */
void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Prints the table and frees it. Returns NULL. */
struct table *table_print(struct table *table);

#endif
