/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: a pixmap, which becomes PNG.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/target.h"
#include "qemu/png.h"

FUZZ_TARGET(ppm) {
    uint32_t width, height;
    const uint8_t *pixels = png_find_pixels(data, size, &width, &height);
    uint8_t *image;
    size_t len;

    if (!pixels)
        return 0;
    if (pixels + (size_t)width * height * 3 != data + size)
        abort();
    image = png_encode(pixels, width, height, &len);
    if (!image || len < 57 || memcmp(image, "\x89PNG", 4) != 0)
        abort();
    free(image);

    return 0;
}
