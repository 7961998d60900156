/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel object: opening it, reading its memory, the lines of its note.
 *
 * A kernel is opened only where its note and its tables agree: the root that is given must map the note's
 * swapper_pg_dir to itself, or what the note says is of another kernel.
 */
#include "kernel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/paging.h"
#include "btf.h"
#include "kallsyms.h"
#include "modules.h"

/* Reads and parses the note. */
static int read_note(struct vmibus_linux *kernel, uint64_t note_gpa) {
    int r = kernel->reader.read(kernel->reader.context, note_gpa, kernel->note_text, VMIBUS_GUEST_NOTE_MAX);

    if (r)
        return r;
    kernel->note_text[VMIBUS_GUEST_NOTE_MAX] = '\0';
    r = vmibus_guest_note_parse(kernel->note_text, VMIBUS_GUEST_NOTE_MAX, &kernel->note);
    kernel->note.gpa = note_gpa;
    return r;
}

/* The root maps the kernel's top table to itself. */
static int check_root(const struct vmibus_linux *kernel) {
    struct vmibus_guest_translation translation;
    int r = vmibus_guest_translate(&kernel->reader, &kernel->root, kernel->note.swapper_pg_dir, &translation);

    if (r < 0)
        return r;
    if (r || translation.gpa != (kernel->root.cr3 & PAGING_ADDRESS) ||
        kernel->note.five_levels != (kernel->root.levels == 5))
        return VMIBUS_GUEST_UNPROVEN;
    return 0;
}

int vmibus_linux_new(struct vmibus_linux **linuxp, const struct vmibus_guest_reader *reader, const struct vmibus_guest_root *root,
                     uint64_t note_gpa) {
    struct vmibus_linux *kernel;
    int r;

    *linuxp = NULL;
    if (root->levels != PAGING_LEVELS_MIN && root->levels != PAGING_LEVELS_MAX)
        return -EINVAL;
    kernel = calloc(1, sizeof(*kernel));
    if (!kernel)
        return -ENOMEM;
    kernel->reader = *reader;
    kernel->root = *root;
    r = read_note(kernel, note_gpa);
    if (r == 0)
        r = check_root(kernel);
    if (r) {
        vmibus_linux_free(kernel);
        return r;
    }
    *linuxp = kernel;
    return 0;
}

struct vmibus_linux *vmibus_linux_free(struct vmibus_linux *kernel) {
    if (!kernel)
        return NULL;
    kernel->kallsyms = kallsyms_free(kernel->kallsyms);
    kernel->modules = modules_free(kernel->modules);
    kernel->btf = btf_free(kernel->btf);
    free(kernel->task_layout);
    free(kernel->file_layout);
    free(kernel->socket_layout);
    free(kernel->path_layout);
    free(kernel->mapping_layout);
    free(kernel);
    return NULL;
}

void vmibus_linux_set_budget(struct vmibus_linux *kernel, uint64_t reads) {
    kernel->budget_left = reads;
    kernel->budget = &kernel->budget_left;
}

int linux_read(const struct vmibus_linux *kernel, uint64_t gva, void *buffer, size_t len) {
    if (!linux_charge(kernel, len))
        return VMIBUS_GUEST_UNFINISHED;
    return vmibus_guest_read(&kernel->reader, &kernel->root, gva, buffer, len, NULL, NULL);
}

/* --- the note -------------------------------------------------------------------------------------------------- */

/* What follows the '=' of a line; NULL: there is no such line, or it is not ended. */
static const char *find_line(const struct vmibus_linux *kernel, const char *key, size_t *len) {
    size_t key_len = strlen(key);

    for (const char *line = kernel->note_text, *end; (end = strchr(line, '\n')); line = end + 1)
        if ((size_t)(end - line) > key_len && line[key_len] == '=' && memcmp(line, key, key_len) == 0) {
            *len = (size_t)(end - line) - key_len - 1;
            return line + key_len + 1;
        }
    return NULL;
}

/* Digits of a base, all of the line; at most 16 of them. */
static bool parse_digits(const char *digits, size_t len, unsigned int base, uint64_t *value) {
    *value = 0;
    if (len == 0 || len > 16)
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned int digit = 16;

        if (digits[i] >= '0' && digits[i] <= '9')
            digit = (unsigned int)(digits[i] - '0');
        else if (digits[i] >= 'a' && digits[i] <= 'f')
            digit = (unsigned int)(digits[i] - 'a') + 10;
        if (digit >= base)
            return false;
        *value = *value * base + digit;
    }
    return true;
}

bool linux_note_symbol(const struct vmibus_linux *kernel, const char *name, uint64_t *gva) {
    char key[80];
    const char *value;
    size_t len;

    snprintf(key, sizeof(key), "SYMBOL(%s)", name);
    value = find_line(kernel, key, &len);
    return value && parse_digits(value, len, 16, gva) && linux_is_kernel_address(kernel, *gva);
}

bool linux_note_number(const struct vmibus_linux *kernel, const char *key, uint32_t *value) {
    size_t len;
    const char *digits = find_line(kernel, key, &len);
    uint64_t number;

    if (!digits || len > 9 || !parse_digits(digits, len, 10, &number))
        return false;
    *value = (uint32_t)number;
    return true;
}
