/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See fake_btf.h. */
#include "fake_btf.h"

#include <stdlib.h>
#include <string.h>

static void need(int condition) {
    if (!condition)
        abort();
}

void fake_btf_begin(struct fake_btf *self, uint32_t first_id, uint32_t first_string) {
    *self = (struct fake_btf){.first_id = first_id, .first_string = first_string, .strings_len = first_string == 0};
}

uint32_t fake_btf_name(struct fake_btf *self, const char *name) {
    size_t size = name ? strlen(name) + 1 : 0;
    uint32_t offset = self->strings_len;

    if (size <= 1)
        return 0;
    need(offset + size <= sizeof(self->strings));
    memcpy(self->strings + offset, name, size);
    self->strings_len += (uint32_t)size;
    return self->first_string + offset;
}

void fake_btf_word(struct fake_btf *self, uint32_t word) {
    need(self->n_words < sizeof(self->words) / sizeof(self->words[0]));
    self->words[self->n_words++] = word;
}

uint32_t fake_btf_type(struct fake_btf *self, const char *name, unsigned int kind, uint32_t flag, uint32_t size_or_type) {
    self->open = self->n_words;
    fake_btf_word(self, fake_btf_name(self, name));
    fake_btf_word(self, flag | kind << 24);
    fake_btf_word(self, size_or_type);
    return self->first_id + self->n++;
}

void fake_btf_member(struct fake_btf *self, const char *name, uint32_t type, uint32_t offset) {
    fake_btf_word(self, fake_btf_name(self, name));
    fake_btf_word(self, type);
    fake_btf_word(self, offset);
    self->words[self->open + 1]++;
}

void fake_btf_value(struct fake_btf *self, const char *name, uint32_t value) {
    fake_btf_word(self, fake_btf_name(self, name));
    fake_btf_word(self, value);
    self->words[self->open + 1]++;
}

uint32_t fake_btf_int(struct fake_btf *self, const char *name, uint32_t size, uint32_t word) {
    uint32_t id = fake_btf_type(self, name, FAKE_INT, 0, size);

    fake_btf_word(self, word);
    return id;
}

uint32_t fake_btf_array(struct fake_btf *self, uint32_t type, uint32_t n) {
    uint32_t id = fake_btf_type(self, NULL, FAKE_ARRAY, 0, 0);

    fake_btf_word(self, type);
    fake_btf_word(self, type);
    fake_btf_word(self, n);
    return id;
}

void *fake_btf_octets(const struct fake_btf *self, size_t *len) {
    uint32_t types_len = (uint32_t)(self->n_words * sizeof(self->words[0]));
    uint32_t header[FAKE_BTF_HEADER / 4] = {0x0001eb9f, FAKE_BTF_HEADER, 0, types_len, types_len, self->strings_len};
    uint8_t *octets;

    *len = sizeof(header) + types_len + self->strings_len;
    octets = malloc(*len);
    need(octets != NULL);
    memcpy(octets, header, sizeof(header));
    memcpy(octets + sizeof(header), self->words, types_len);
    memcpy(octets + sizeof(header) + types_len, self->strings, self->strings_len);
    return octets;
}
