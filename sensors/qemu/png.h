/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Turning a portable pixmap into PNG (PNG, second edition: W3C REC-PNG-20031110; RFC 1950, RFC 1951).
 *
 * Pure functions over octets that nobody vouches for.  The sensor does this itself because QEMU ends, with
 * its guest, if its PNG library cannot write.
 */
#ifndef SENSORS_QEMU_PNG_H
#define SENSORS_QEMU_PNG_H

#include <stddef.h>
#include <stdint.h>

/** Pixels in a row, and rows, at most. */
#define PNG_SIDE_BOUND 16384u

/**
 * Finds the pixels of a binary pixmap (P6) with 8 bits per channel and no comments, as QEMU writes it.
 * @return where they begin: 3 octets for each; NULL: it is none, or has fewer or more octets than it says
 */
const uint8_t *png_find_pixels(const uint8_t *ppm, size_t len, uint32_t *width, uint32_t *height);

/**
 * Encodes pixels.
 * @param pixels 3 octets for each: red, green, blue
 * @param lenp   receives the length of the image
 * @return the image, to be freed; NULL: out of memory
 */
uint8_t *png_encode(const uint8_t *pixels, uint32_t width, uint32_t height, size_t *lenp);

#endif
