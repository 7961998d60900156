/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl read: guest memory, as far as it can be read. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame_json.h"
#include "guest_memory.h"
#include "process_space.h"
#include "report.h"
#include "units.h"

#define CHUNK (1024 * 1024)

/* JSON is made whole before it is printed. */
#define JSON_BOUND (16 * 1024 * 1024)

struct reading {
    struct vmibusctl *ctl;
    struct guest_memory memory;
    bool physical;
    bool raw;
    uint64_t address;
    uint64_t length;
};

static void print_hex_line(uint64_t address, const uint8_t *octets, size_t n) {
    printf("0x%016" PRIx64 " ", address);
    for (size_t i = 0; i < 16; i++) {
        if (i == 8)
            putchar(' ');
        if (i < n)
            printf(" %02x", octets[i]);
        else
            fputs("   ", stdout);
    }
    fputs("  |", stdout);
    for (size_t i = 0; i < n; i++)
        putchar(octets[i] >= 0x20 && octets[i] < 0x7f ? octets[i] : '.');
    puts("|");
}

/* Octets of an epoch that ended meanwhile are none; guest_memory_check_epoch() says so in the end. */
static int read_chunk(struct reading *reading, uint64_t address, uint8_t *buffer, size_t n, size_t *done) {
    int r = STATUS_OK;

    *done = 0;
    if (guest_memory_is_current(&reading->memory))
        r = guest_memory_read(reading->ctl, &reading->memory, reading->physical, address, buffer, n, done);
    if (!guest_memory_is_current(&reading->memory)) {
        *done = 0;
        return STATUS_REFUSED + VMIBUS_ERROR_STALE_EPOCH;
    }
    return r;
}

static int print_octets(struct reading *reading, uint8_t *buffer) {
    int r = STATUS_OK;

    for (uint64_t at = 0; at < reading->length && r == STATUS_OK;) {
        size_t n = reading->length - at < CHUNK ? (size_t)(reading->length - at) : CHUNK, done = 0;

        r = read_chunk(reading, reading->address + at, buffer, n, &done);
        if (reading->raw) {
            if (fwrite(buffer, 1, done, stdout) != done)
                return report_failure("standard output: %s", strerror(errno));
        } else {
            for (size_t i = 0; i < done; i += 16)
                print_hex_line(reading->address + at + i, buffer + i, done - i < 16 ? done - i : 16);
        }
        at += n;
    }
    return r;
}

static int print_json(struct reading *reading, uint8_t *buffer) {
    struct json_object *object;
    size_t done = 0;
    int r = read_chunk(reading, reading->address, buffer, (size_t)reading->length, &done);

    object = json_object_new_object();
    json_object_object_add(object, reading->physical ? "gpa" : "gva", json_object_new_uint64(reading->address));
    if (!reading->physical)
        json_object_object_add(object, "cr3", json_object_new_uint64(reading->memory.root.cr3));
    json_object_object_add(object, "epoch", json_object_new_uint64(reading->memory.attachment->epoch));
    json_object_object_add(object, "len", json_object_new_uint64(done));
    json_object_object_add(object, "data", frame_json_hex(buffer, done));
    frame_json_print(object);
    return r;
}

static int read_memory(struct reading *reading) {
    size_t size = reading->ctl->json ? (size_t)reading->length : CHUNK;
    uint8_t *buffer = malloc(size);
    int r;

    if (!buffer)
        return report_failure("out of memory");
    r = reading->ctl->json ? print_json(reading, buffer) : print_octets(reading, buffer);
    free(buffer);
    return r;
}

static int check(const struct arguments *arguments, struct reading *reading) {
    uint64_t last;

    if (!units_parse_number(arguments->words[1], UINT64_MAX, &reading->address))
        return vmibusctl_usage("address", arguments->words[1], "it is decimal, or 0x and hexadecimal");
    if (!units_parse_length(arguments->words[2], &reading->length))
        return vmibusctl_usage("length", arguments->words[2], "it is a number of octets from 1, with K, M or G if you like");
    if (__builtin_add_overflow(reading->address, reading->length - 1, &last))
        return vmibusctl_usage("length", arguments->words[2], "it goes past the end of the address space");
    if (reading->raw && arguments_get(arguments, "hex"))
        return vmibusctl_usage("--raw", NULL, "give --raw or --hex");
    if (reading->ctl->json && reading->raw)
        return vmibusctl_usage("--raw", NULL, "give --raw or --json");
    if (reading->ctl->json && reading->length > JSON_BOUND)
        return vmibusctl_usage("length", arguments->words[2], "with --json it is at most 16M: use --raw");
    return STATUS_OK;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct reading reading = {
        .ctl = ctl,
        .physical = arguments_get(arguments, "physical"),
        .raw = arguments_get(arguments, "raw"),
    };
    struct roster roster = {};
    struct vm *vm;
    int r = check(arguments, &reading), ended;

    if (r == STATUS_OK)
        r = process_space_check(arguments);
    if (r == STATUS_OK)
        r = roster_fetch(ctl, &roster);
    if (r == STATUS_OK)
        r = roster_lookup(&roster, arguments->words[0], &vm);
    if (r == STATUS_OK) {
        r = guest_memory_attach(ctl, vm, reading.physical, arguments_get(arguments, "cr3"), arguments_get(arguments, "mediated"),
                                &reading.memory);
        if (r == STATUS_OK)
            r = process_space_enter(arguments_get(arguments, "pid"), &reading.memory);
        if (r == STATUS_OK) {
            r = read_memory(&reading);
            ended = guest_memory_check_epoch(ctl, &roster, &reading.memory);
            r = ended ? ended : r;
        }
    }
    guest_memory_detach(&reading.memory);
    roster_deinit(&roster);
    return r;
}

static const struct option_description options[] = {
    {"physical", NULL, "ADDR is guest-physical"},
    {"cr3", "ADDR", "translate by this page-table root; without it by the kernel's"},
    PROCESS_SPACE_OPTION,
    {"mediated", NULL, "read through the memory authority also where RAM descriptors are given"},
    {"hex", NULL, "print addresses, hexadecimal and text (default)"},
    {"raw", NULL, "print the octets as they are"},
    {},
};

const struct verb verb_read = {
    .name = "read",
    .synopsis = "VM ADDR LEN",
    .summary = "read guest memory",
    .min_words = 3,
    .max_words = 3,
    .options = options,
    .run = run,
};
