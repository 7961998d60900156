/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"
#include "utf8.h"

struct table {
    size_t n_columns;
    size_t n_cells;
    char **cells;
};

static void *need(void *memory) {
    if (!memory) {
        fputs("vmibusctl: out of memory\n", stderr);
        exit(STATUS_FAILED);
    }
    return memory;
}

struct table *table_new(size_t n_columns) {
    struct table *table = need(calloc(1, sizeof(*table)));

    table->n_columns = n_columns;
    return table;
}

void table_cell(struct table *table, const char *format, ...) {
    va_list arguments;
    char *text;

    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) < 0)
        text = NULL;
    va_end(arguments);
    need(text);
    table->cells = need(realloc(table->cells, (table->n_cells + 1) * sizeof(*table->cells)));
    table->cells[table->n_cells++] = need(strdup(printable(text)));
    free(text);
}

static size_t width(const char *text) {
    size_t n = 0;

    for (; *text; text++)
        n += (*text & 0xc0) != 0x80;
    return n;
}

struct table *table_print(struct table *table) {
    for (size_t i = 0; i < table->n_cells; i++) {
        size_t column = i % table->n_columns, widest = 0;
        bool last = column + 1 == table->n_columns;

        for (size_t j = column; j < table->n_cells; j += table->n_columns)
            widest = width(table->cells[j]) > widest ? width(table->cells[j]) : widest;
        fputs(table->cells[i], stdout);
        if (last)
            putchar('\n');
        else
            printf("%*s", (int)(widest - width(table->cells[i]) + 2), "");
    }
    for (size_t i = 0; i < table->n_cells; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table);
    return NULL;
}
