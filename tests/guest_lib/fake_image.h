/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fake_image: a fake guest with a kernel whose image is mapped in one piece, so that a test can put tables there, and the library's
 * own kernel object on it.
 */
#ifndef TESTS_GUEST_LIB_FAKE_IMAGE_H
#define TESTS_GUEST_LIB_FAKE_IMAGE_H

#include "fake_guest.h"
#include "guest/linux/kernel.h"

/** Octets of the image, and where it begins: at gpa FAKE_IMAGE_GPA. */
#define FAKE_IMAGE_LEN (UINT64_C(8) << 20)
#define FAKE_IMAGE_GPA (UINT64_C(2) << 20)
#define FAKE_IMAGE_GVA (FAKE_IMAGE + FAKE_IMAGE_GPA)

struct fake_image {
    struct fake_guest guest;
    struct fake_kernel fake;
    size_t note_len;
    struct vmibus_linux *kernel;
};

/** Makes the guest, with a note to which lines may be added. */
void fake_image_begin(struct fake_image *image);

/** Adds a line to the note, without its newline. */
void fake_image_note(struct fake_image *image, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Opens the kernel: the note is final. */
void fake_image_open(struct fake_image *image);

/** The memory behind an address of the image. */
void *fake_image_at(struct fake_image *image, uint64_t gva);

void fake_image_end(struct fake_image *image);

#endif
