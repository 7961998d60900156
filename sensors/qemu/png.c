/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each row is told as its difference from the row above (filter Up), which makes zeros of what screens are
 * mostly made of, and runs of one octet are told by their length.  One block with the fixed codes.
 */
#include "png.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define FILTER_UP 2
#define RUN_MIN 3
#define RUN_MAX 258

/* Octets being written, the last few bits of them in `bits`. */
struct writer {
    uint8_t *octets;
    size_t len;
    uint64_t bits;
    unsigned int n_bits;
    uint32_t adler_low, adler_high;
    uint32_t crc_table[256];
};

/* --- the pixmap ------------------------------------------------------------------------------ */

/* A decimal number and the one octet of white space after it. */
static bool read_number(const uint8_t **at, const uint8_t *end, uint32_t *value) {
    const uint8_t *p = *at;

    *value = 0;
    while (p < end && *p >= '0' && *p <= '9' && *value <= PNG_SIDE_BOUND)
        *value = *value * 10 + (uint32_t)(*p++ - '0');
    if (p == *at || p == end || (*p != ' ' && *p != '\n'))
        return false;
    *at = p + 1;

    return true;
}

const uint8_t *png_find_pixels(const uint8_t *ppm, size_t len, uint32_t *width, uint32_t *height) {
    const uint8_t *at = ppm + 3, *end = ppm + len;
    uint32_t depth;

    if (len < 3 || memcmp(ppm, "P6\n", 3) != 0)
        return NULL;
    if (!read_number(&at, end, width) || !read_number(&at, end, height) ||
        !read_number(&at, end, &depth) || depth != 255)
        return NULL;
    if (!*width || !*height || *width > PNG_SIDE_BOUND || *height > PNG_SIDE_BOUND ||
        (size_t)(end - at) != (size_t)*width * *height * 3)
        return NULL;

    return at;
}

/* --- deflate --------------------------------------------------------------------------------- */

static void put_bits(struct writer *writer, uint32_t value, unsigned int n) {
    writer->bits |= (uint64_t)value << writer->n_bits;
    for (writer->n_bits += n; writer->n_bits >= 8; writer->n_bits -= 8) {
        writer->octets[writer->len++] = (uint8_t)writer->bits;
        writer->bits >>= 8;
    }
}

/* Codes begin with their highest bit. */
static void put_code(struct writer *writer, uint32_t code, unsigned int n) {
    uint32_t reversed = 0;

    for (unsigned int i = 0; i < n; i++)
        reversed |= (code >> i & 1) << (n - 1 - i);
    put_bits(writer, reversed, n);
}

/* RFC 1951, 3.2.6. */
static void put_symbol(struct writer *writer, unsigned int symbol) {
    if (symbol < 144)
        put_code(writer, 0x30 + symbol, 8);
    else if (symbol < 256)
        put_code(writer, 0x190 + symbol - 144, 9);
    else if (symbol < 280)
        put_code(writer, symbol - 256, 7);
    else
        put_code(writer, 0xc0 + symbol - 280, 8);
}

/* RFC 1951, 3.2.5: so many octets like the last one. */
static void put_run(struct writer *writer, unsigned int length) {
    static const uint16_t bases[] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                     31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
    unsigned int i = sizeof(bases) / sizeof(bases[0]) - 1, extra;

    while (bases[i] > length)
        i--;
    extra = i < 8 || i == 28 ? 0 : (i - 4) / 4;
    put_symbol(writer, 257 + i);
    put_bits(writer, length - bases[i], extra);
    put_code(writer, 0, 5); /* distance 1 */
}

static void sum(struct writer *writer, uint8_t octet) {
    writer->adler_low = (writer->adler_low + octet) % 65521;
    writer->adler_high = (writer->adler_high + writer->adler_low) % 65521;
}

static void put_row(struct writer *writer, const uint8_t *row, const uint8_t *above, size_t len) {
    int last = -1;

    sum(writer, FILTER_UP);
    put_symbol(writer, FILTER_UP);
    for (size_t i = 0; i < len;) {
        uint8_t octet = (uint8_t)(row[i] - (above ? above[i] : 0));
        size_t run = 0;

        while (octet == last && run < RUN_MAX && i + run < len &&
               (uint8_t)(row[i + run] - (above ? above[i + run] : 0)) == octet)
            run++;
        if (run < RUN_MIN)
            run = 1;
        if (run == 1)
            put_symbol(writer, octet);
        else
            put_run(writer, (unsigned int)run);
        for (size_t k = 0; k < run; k++)
            sum(writer, octet);
        last = octet;
        i += run;
    }
}

/* --- chunks ---------------------------------------------------------------------------------- */

static void put_u32(struct writer *writer, uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8)
        writer->octets[writer->len++] = (uint8_t)(value >> shift);
}

static void fill_crc_table(struct writer *writer) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;

        for (unsigned int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xedb88320) : 0);
        writer->crc_table[i] = crc;
    }
}

/* Begins a chunk whose data follow. Returns where it begins, for chunk_end(). */
static size_t chunk_begin(struct writer *writer, const char *type) {
    size_t start = writer->len;

    writer->len += 4;
    memcpy(writer->octets + writer->len, type, 4);
    writer->len += 4;

    return start;
}

static void chunk_end(struct writer *writer, size_t start) {
    size_t end = writer->len;
    uint32_t crc = UINT32_MAX;

    writer->len = start;
    put_u32(writer, (uint32_t)(end - start - 8));
    writer->len = end;
    for (size_t i = start + 4; i < end; i++)
        crc = crc >> 8 ^ writer->crc_table[(crc ^ writer->octets[i]) & 0xff];
    put_u32(writer, ~crc);
}

static void put_header(struct writer *writer, uint32_t width, uint32_t height) {
    static const uint8_t signature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    static const uint8_t truecolour[] = {8, 2, 0, 0, 0};
    size_t start;

    memcpy(writer->octets, signature, sizeof(signature));
    writer->len = sizeof(signature);
    start = chunk_begin(writer, "IHDR");
    put_u32(writer, width);
    put_u32(writer, height);
    memcpy(writer->octets + writer->len, truecolour, sizeof(truecolour));
    writer->len += sizeof(truecolour);
    chunk_end(writer, start);
}

static void put_pixels(struct writer *writer, const uint8_t *pixels, uint32_t width,
                       uint32_t height) {
    size_t start = chunk_begin(writer, "IDAT"), line = 3 * (size_t)width;

    put_bits(writer, 0x0178, 16); /* RFC 1950: deflate, a window of 32 KiB */
    put_bits(writer, 3, 3);       /* the last block, fixed codes */
    for (uint32_t row = 0; row < height; row++)
        put_row(writer, pixels + row * line, row ? pixels + (row - 1) * line : NULL, line);
    put_symbol(writer, 256);
    if (writer->n_bits)
        put_bits(writer, 0, 8 - writer->n_bits);
    put_u32(writer, writer->adler_high << 16 | writer->adler_low);
    chunk_end(writer, start);
}

uint8_t *png_encode(const uint8_t *pixels, uint32_t width, uint32_t height, size_t *lenp) {
    size_t octets = (size_t)height * (1 + 3 * (size_t)width);
    struct writer writer = {.adler_low = 1};

    /* Nine bits for an octet at most, and what is around them. */
    writer.octets = malloc(octets + octets / 8 + 128);
    if (!writer.octets)
        return NULL;
    fill_crc_table(&writer);
    put_header(&writer, width, height);
    put_pixels(&writer, pixels, width, height);
    chunk_end(&writer, chunk_begin(&writer, "IEND"));
    *lenp = writer.len;

    return writer.octets;
}
