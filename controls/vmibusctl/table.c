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
    text[utf8_copy_printable(text, strlen(text), text)] = '\0';
    table->cells[table->n_cells++] = text;
}

static size_t width(const char *text) {
    size_t n = 0;

    for (; *text; text++)
        n += (*text & 0xc0) != 0x80;
    return n;
}

/* How wide each column has to be. */
static size_t *measure(const struct table *table) {
    size_t *widest = need(calloc(table->n_columns, sizeof(*widest)));

    for (size_t i = 0; i < table->n_cells; i++) {
        size_t *column = &widest[i % table->n_columns], n = width(table->cells[i]);

        *column = n > *column ? n : *column;
    }
    return widest;
}

struct table *table_print(struct table *table) {
    size_t *widest = measure(table);

    for (size_t i = 0; i < table->n_cells; i++) {
        size_t column = i % table->n_columns;

        fputs(table->cells[i], stdout);
        if (column + 1 == table->n_columns)
            putchar('\n');
        else
            printf("%*s", (int)(widest[column] - width(table->cells[i]) + 2), "");
    }
    for (size_t i = 0; i < table->n_cells; i++)
        free(table->cells[i]);
    free(widest);
    free(table->cells);
    free(table);
    return NULL;
}
