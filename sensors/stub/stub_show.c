/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The picture and the vCPU of a synthetic VM: see stub_show.h.
 *
 * PNG as the W3C's recommendation has it, second edition: signature, IHDR, IDAT, IEND; one stored
 * block of RFC 1951 in a stream of RFC 1950, nothing is compressed.
 */
#include "stub_show.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

VMIBUS_SYSCALLS("memfd_create")

#define LINE (3 * STUB_SCREEN_WIDTH)
#define PIXELS (STUB_SCREEN_HEIGHT * LINE)
#define SCANLINES (STUB_SCREEN_HEIGHT * (1 + LINE)) /* a filter before each */
#define PICTURE_BOUND (SCANLINES + 128)

struct picture {
    uint8_t octets[PICTURE_BOUND];
    size_t length;
};

static void add(struct picture *picture, const void *octets, size_t length) {
    memcpy(picture->octets + picture->length, octets, length);
    picture->length += length;
}

static void add_u32(struct picture *picture, uint32_t value) {
    const uint8_t octets[] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value};

    add(picture, octets, sizeof(octets));
}

static void add_pixels(const struct stub_vm *vm, struct picture *picture, unsigned row) {
    for (unsigned column = 0; column < STUB_SCREEN_WIDTH; column++)
        add(picture, (const uint8_t[]){(uint8_t)(column * 4), (uint8_t)(row * 5), (uint8_t)vm->index}, 3);
}

/* --- PPM -------------------------------------------------------------------------------------- */

static void make_ppm(const struct stub_vm *vm, struct picture *picture) {
    picture->length = (size_t)snprintf((char *)picture->octets, PICTURE_BOUND, "P6\n%d %d\n255\n",
                                       STUB_SCREEN_WIDTH, STUB_SCREEN_HEIGHT);
    for (unsigned row = 0; row < STUB_SCREEN_HEIGHT; row++)
        add_pixels(vm, picture, row);
}

/* --- PNG -------------------------------------------------------------------------------------- */

static uint32_t crc_of(const uint8_t *octets, size_t length) {
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < length; i++) {
        crc ^= octets[i];
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xedb88320) : 0);
    }
    return ~crc;
}

static uint32_t adler_of(const uint8_t *octets, size_t length) {
    uint32_t a = 1, b = 0;

    for (size_t i = 0; i < length; i++) {
        a = (a + octets[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

/* Begins a chunk whose data follow; returns where it begins, for chunk_end(). */
static size_t chunk_begin(struct picture *picture, const char *type) {
    size_t start = picture->length;

    add_u32(picture, 0);
    add(picture, type, 4);
    return start;
}

static void chunk_end(struct picture *picture, size_t start) {
    size_t end = picture->length;

    picture->length = start;
    add_u32(picture, (uint32_t)(end - start - 8));
    picture->length = end;
    add_u32(picture, crc_of(picture->octets + start + 4, end - start - 4));
}

static void add_scanlines(const struct stub_vm *vm, struct picture *picture) {
    const uint8_t begin[] = {0x78, 0x01, 0x01, SCANLINES & 0xff, SCANLINES >> 8, ~SCANLINES & 0xff, (0xffff ^ SCANLINES) >> 8};
    size_t start;

    add(picture, begin, sizeof(begin));
    start = picture->length;
    for (unsigned row = 0; row < STUB_SCREEN_HEIGHT; row++) {
        add(picture, "", 1);
        add_pixels(vm, picture, row);
    }
    add_u32(picture, adler_of(picture->octets + start, SCANLINES));
}

static void make_png(const struct stub_vm *vm, struct picture *picture) {
    static const uint8_t depth_and_colour[] = {8, 2, 0, 0, 0};
    size_t start;

    picture->length = 0;
    add(picture, "\x89PNG\r\n\x1a\n", 8);
    start = chunk_begin(picture, "IHDR");
    add_u32(picture, STUB_SCREEN_WIDTH);
    add_u32(picture, STUB_SCREEN_HEIGHT);
    add(picture, depth_and_colour, sizeof(depth_and_colour));
    chunk_end(picture, start);
    start = chunk_begin(picture, "IDAT");
    add_scanlines(vm, picture);
    chunk_end(picture, start);
    chunk_end(picture, chunk_begin(picture, "IEND"));
}

/* --- what is asked ---------------------------------------------------------------------------- */

int stub_show_screen(const struct stub_vm *vm, uint8_t format, uint64_t *octets) {
    struct picture picture;
    int fd = memfd_create("vmibus-stub-screen", MFD_CLOEXEC | MFD_ALLOW_SEALING), r = 0;

    if (fd < 0)
        return -errno;
    if (format == VMIBUS_IMAGE_FORMAT_PPM)
        make_ppm(vm, &picture);
    else
        make_png(vm, &picture);
    if (pwrite(fd, picture.octets, picture.length, 0) != (ssize_t)picture.length)
        r = -ENOSPC;
    else if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
        r = -errno;
    if (r < 0) {
        close(fd);
        return r;
    }
    *octets = picture.length;
    return fd;
}

void stub_show_registers(const struct stub_vm *vm, struct vmibus_vcpu_registers *registers) {
    *registers = (struct vmibus_vcpu_registers){
        .cpl = 3,
        .cs = 0x33,
        .rax = vm->input.count,
        .rsp = UINT64_C(0x410ff8),
        .rip = UINT64_C(0x400000),
        .rflags = 0x202,
        .cr0 = UINT64_C(0x80050033),
        .cr3 = stub_process_cr3(vm->boot, 0),
        .cr4 = stub_is_split(vm->index) ? UINT64_C(0x10a0) : UINT64_C(0xa0), /* LA57, PGE, PAE */
        .efer = 0xd01,                                                         /* NXE, LMA, LME, SCE */
    };
}
