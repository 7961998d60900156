/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads protocol/vectors.txt; its head says how it is written.
 *
 * For tests: whatever is wrong with the file fails the running test.
 */
#ifndef TESTS_PROTOCOL_VECTOR_FILE_H
#define TESTS_PROTOCOL_VECTOR_FILE_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#define VECTOR_FIELD_OCTETS 64
#define VECTOR_TAIL_OCTETS 4096
#define VECTOR_FIELDS 128

/** One field: where it is, and either a number or octets. */
struct vector_field {
    char path[64];                      /**< such as body.events.0.type */
    uint64_t number;
    uint8_t octets[VECTOR_FIELD_OCTETS];
    size_t n_octets;                    /**< 0: a number */
};

/** One vector. */
struct vector {
    char name[64];
    struct vector_field fields[VECTOR_FIELDS];
    size_t n_fields;
    uint8_t frame[VMIBUS_FRAME_SIZE];
    size_t frame_octets;
    uint8_t tail[VECTOR_TAIL_OCTETS];
    size_t tail_octets;
};

/** The vectors of a file, heap-allocated. */
struct vector_file {
    struct vector *vectors;
    size_t n_vectors;
};

/** Reads protocol/vectors.txt of the source tree. */
void vector_file_init(struct vector_file *file);

/** Frees what init allocated. */
void vector_file_deinit(struct vector_file *file);

/** Finds a vector by name; fails the test if there is none. */
const struct vector *vector_file_find(const struct vector_file *file, const char *name);

#endif
