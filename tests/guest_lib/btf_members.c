/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * btf_members: looks up members in a file of BTF with our reader, for test_btf_oracle.py.
 *
 *     btf_members FILE < QUESTIONS
 *
 * A question is a line "STRUCTURE PATH"; its answer "OFFSET SIZE BIT BITS", or "none", "refused WHY". A question without a path
 * is answered by the size of the structure.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/linux/btf.h"

static void answer(const struct btf *btf, const char *structure, const char *path) {
    uint32_t id = btf_find_structure(btf, structure, 0), size;
    char why[BTF_WHY_BOUND] = "";
    struct linux_field field;
    int r = VMIBUS_GUEST_NOT_FOUND;

    if (id != 0 && !path)
        r = btf_structure_size(btf, id, &size);
    else if (id != 0)
        r = btf_find_member(btf, id, path, &field, why);
    if (r == VMIBUS_GUEST_NOT_FOUND)
        puts("none");
    else if (r != 0)
        printf("refused %s\n", why);
    else if (!path)
        printf("%" PRIu32 "\n", size);
    else
        printf("%" PRIu32 " %" PRIu32 " %u %u\n", field.offset, field.size, field.bit, field.bits);
}

int main(int argc, char **argv) {
    FILE *file = argc == 2 ? fopen(argv[1], "rbe") : NULL;
    char line[1024], why[BTF_WHY_BOUND] = "";
    void *octets = malloc(BTF_LEN_MAX);
    struct btf *btf;
    size_t len;
    int r;

    if (!file || !octets) {
        fputs("btf_members: one file of BTF is needed\n", stderr);
        free(octets);
        return 2;
    }
    len = fread(octets, 1, BTF_LEN_MAX, file);
    fclose(file);
    r = btf_new(&btf, NULL, octets, len, why);
    if (r != 0) {
        fprintf(stderr, "btf_members: %d %s\n", r, why);
        return 1;
    }
    while (fgets(line, sizeof(line), stdin)) {
        char *path;

        line[strcspn(line, "\n")] = '\0';
        path = strchr(line, ' ');
        if (path)
            *path++ = '\0';
        answer(btf, line, path);
    }
    btf_free(btf);
    return 0;
}
