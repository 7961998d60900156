/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: the answer of gpa2hva.  The input is lines as they are recorded: "(qemu) gpa2hva ADDRESS", then the
 * answer; the region's name is what the answer has in parentheses.  An answer that is taken names an address that is
 * not zero, and is not taken for another guest-physical address or region.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/target.h"
#include "machine/layout.h"

#define COMMAND "(qemu) gpa2hva "

static void take_name(const char *answer, char name[MTREE_NAME_BOUND + 1]) {
    const char *begin = strchr(answer, '('), *end = strrchr(answer, ')');
    size_t len = begin && end && end > begin ? (size_t)(end - begin - 1) : 0;

    if (len > MTREE_NAME_BOUND)
        len = 0;
    memcpy(name, len ? begin + 1 : "", len);
    name[len] = '\0';
}

static void check(const char *answer, uint64_t gpa) {
    char name[MTREE_NAME_BOUND + 1], other[MTREE_NAME_BOUND + 2];
    uint64_t hva = 0, again = 0;

    take_name(answer, name);
    if (!layout_parse_location(answer, gpa, name, &hva))
        return;
    strcpy(other, name);
    strcat(other, "x");
    if (!hva || layout_parse_location(answer, gpa + 1, name, &again) ||
        layout_parse_location(answer, gpa, other, &again))
        abort();
}

FUZZ_TARGET(gpa2hva) {
    char *text = malloc(size + 1), *at;

    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    check(text, 0x1000);
    for (at = text; (at = strstr(at, COMMAND));) {
        uint64_t gpa = strtoull(at + strlen(COMMAND), NULL, 16);
        char *end;

        at = strchr(at, '\n');
        if (!at)
            break;
        end = strchr(++at, '\n');
        if (end)
            *end++ = '\0';
        check(at, gpa);
        if (!end)
            break;
        at = end;
    }
    free(text);

    return 0;
}
