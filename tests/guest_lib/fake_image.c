/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See fake_image.h. */
#include "fake_image.h"

#include <check.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOTE_GPA UINT64_C(0x10000)

void fake_image_begin(struct fake_image *image) {
    memset(image, 0, sizeof(*image));
    image->guest.len = FAKE_IMAGE_GPA + FAKE_IMAGE_LEN;
    image->guest.memory = calloc(1, image->guest.len);
    ck_assert_ptr_nonnull(image->guest.memory);
    image->guest.next_table = 0x20000;
    image->fake.levels = 4;
    fake_guest_boot(&image->guest, &image->fake);
    for (uint64_t at = 0; at < FAKE_IMAGE_LEN; at += UINT64_C(2) << 20)
        fake_guest_map(&image->guest, image->fake.root, FAKE_IMAGE_GVA + at, FAKE_IMAGE_GPA + at, 2, 0);
    image->note_len = fake_guest_note(&image->guest, NOTE_GPA, &image->fake);
}

void fake_image_note(struct fake_image *image, const char *format, ...) {
    char *end = (char *)image->guest.memory + NOTE_GPA + image->note_len;
    size_t room = VMIBUS_GUEST_NOTE_MAX - image->note_len;
    va_list arguments;
    int n;

    va_start(arguments, format);
    n = vsnprintf(end, room, format, arguments);
    va_end(arguments);
    ck_assert(n >= 0 && (size_t)n + 2 < room);
    memcpy(end + n, "\n", 2);
    image->note_len += (size_t)n + 1;
}

void fake_image_open(struct fake_image *image) {
    struct vmibus_guest_reader reader = fake_guest_reader(&image->guest);

    ck_assert_int_eq(vmibus_linux_new(&image->kernel, &reader, &image->fake.root, NOTE_GPA), 0);
}

void *fake_image_at(struct fake_image *image, uint64_t gva) {
    uint64_t offset = gva - FAKE_IMAGE_GVA;

    ck_assert(offset < FAKE_IMAGE_LEN);
    return image->guest.memory + FAKE_IMAGE_GPA + offset;
}

void fake_image_end(struct fake_image *image) {
    image->kernel = vmibus_linux_free(image->kernel);
    free(image->guest.memory);
}
