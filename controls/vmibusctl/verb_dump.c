/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmibusctl dump: the guest's memory as an ELF core that crash(8) and drgn open.
 *
 * The file is sparse: what the guest never touched is neither read nor written, and pages of zeros take no room.  The guest
 * runs meanwhile, unless --quiesce is given, so lists in the picture may be torn.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "elf_core.h"
#include "frame_json.h"
#include "guest_memory.h"
#include "new_file.h"
#include "progress.h"
#include "report.h"
#include "standstill.h"
#include "units.h"

#define PAGE 4096u
#define CHUNK ((size_t)1024 * 1024)

/* One dump. */
struct dump {
    struct vmibusctl *ctl;
    struct guest_memory memory;
    struct new_file file;
    struct progress progress;
    struct vmibus_message vcpus;    /* the ACK to REGISTERS, or zeros */
    char note[VMIBUS_GUEST_NOTE_MAX];
    size_t note_len;
    uint8_t *chunk;
    uint64_t passed;        /* octets of RAM dealt with */
    uint64_t written;       /* ... that stand in the file */
    uint64_t unreadable;    /* ... that could not be read, and are zeros in the file */
};

/* The text of the note that the memctx names; without one the core has none. */
static void read_note(struct dump *dump) {
    uint64_t gpa = dump->memory.vm->memctx.memctx.note;

    if (gpa && dump->memory.reader.read(dump->memory.reader.context, gpa, dump->note, sizeof(dump->note)) == 0)
        dump->note_len = strnlen(dump->note, sizeof(dump->note));
}

/* The registers are a courtesy: without the capability, or a provider, the core has none. */
static void ask_registers(struct dump *dump) {
    struct vmibus_frame frame;
    int r;

    vmibus_command_init(&frame, VMIBUS_KIND_REGISTERS, &dump->memory.vm->endpoint);
    frame.registers.vcpu = UINT32_MAX;
    r = vmibus_call(dump->ctl->bus, &frame, NULL, 0, &dump->vcpus);
    if (r == 0 && dump->vcpus.frame.header.tail_length % sizeof(struct vmibus_vcpu_registers) == 0)
        return;
    fprintf(stderr, "vmibusctl: the dump has no registers: %s\n",
            r < 0 ? strerror(-r) : r && vmibus_error_doc((uint16_t)r) ? vmibus_error_doc((uint16_t)r) : "they are not understood");
    vmibus_message_deinit(&dump->vcpus);
    dump->vcpus = (struct vmibus_message){};
}

static int write_at(struct dump *dump, const void *octets, size_t len, uint64_t offset) {
    while (len > 0) {
        ssize_t n = pwrite(dump->file.fd, octets, len, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return report_failure("%s: %s", printable(dump->file.path), n < 0 ? strerror(errno) : "nothing was written");
        octets = (const uint8_t *)octets + n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return STATUS_OK;
}

static bool is_zero(const uint8_t *octets, size_t len) {
    return octets[0] == 0 && memcmp(octets, octets + 1, len - 1) == 0;
}

/* Writes what is not zeros, in runs of pages. */
static int write_chunk(struct dump *dump, size_t len, uint64_t offset) {
    for (size_t at = 0, end; at < len; at = end) {
        size_t step = len - at < PAGE ? len - at : PAGE;
        bool zero = is_zero(dump->chunk + at, step);
        int r;

        for (end = at + step; end < len; end += step) {
            step = len - end < PAGE ? len - end : PAGE;
            if (is_zero(dump->chunk + end, step) != zero)
                break;
        }
        if (zero)
            continue;
        r = write_at(dump, dump->chunk + at, end - at, offset + at);
        if (r)
            return r;
        dump->written += end - at;
    }
    return STATUS_OK;
}

/* Reads a chunk; what cannot be read is zeros, page by page. */
static void read_chunk(struct dump *dump, uint64_t gpa, size_t len) {
    const struct vmibus_guest_reader *reader = &dump->memory.reader;

    if (reader->read(reader->context, gpa, dump->chunk, len) == 0)
        return;
    for (size_t at = 0, step; at < len; at += step) {
        step = len - at < PAGE ? len - at : PAGE;
        if (reader->read(reader->context, gpa + at, dump->chunk + at, step) == 0)
            continue;
        memset(dump->chunk + at, 0, step);
        dump->unreadable += step;
    }
}

/* One stretch that holds data, [gpa, gpa + len), which stands at @a offset in the file. */
static int dump_stretch(struct dump *dump, uint64_t gpa, uint64_t len, uint64_t offset) {
    int r = STATUS_OK;

    for (uint64_t at = 0; at < len && r == STATUS_OK;) {
        size_t step = len - at < CHUNK ? (size_t)(len - at) : CHUNK;

        read_chunk(dump, gpa + at, step);
        if (!guest_memory_is_current(&dump->memory))
            return STATUS_REFUSED + VMIBUS_ERROR_STALE_EPOCH;
        r = write_chunk(dump, step, offset + at);
        at += step;
        progress_update(&dump->progress, dump->passed + at);
    }
    return r;
}

/* One range of RAM. Where there are descriptors, holes are passed over unread. */
static int dump_range(struct dump *dump, const struct vmibus_ram_range *range, uint64_t offset) {
    uint64_t end = range->gpa + range->len, begun = dump->passed;
    int r = STATUS_OK;

    for (uint64_t gpa = range->gpa, len = range->len; r == STATUS_OK && gpa < end; gpa += len) {
        if (dump->memory.ram && vmibus_guest_ram_next_data(dump->memory.ram, &gpa, &len) != 0)
            break;
        if (gpa >= end)
            break;
        if (len > end - gpa)
            len = end - gpa;
        dump->passed = begun + (gpa - range->gpa);
        r = dump_stretch(dump, gpa, len, offset + (gpa - range->gpa));
    }
    dump->passed = begun + range->len;
    return r;
}

static int dump_memory(struct dump *dump, const struct vmibus_ram_range *ranges, size_t n_ranges, uint64_t offset) {
    int r = STATUS_OK;

    for (size_t i = 0; i < n_ranges && r == STATUS_OK; i++) {
        r = dump_range(dump, &ranges[i], offset);
        offset += ranges[i].len;
    }
    return r;
}

static int compare_ranges(const void *a, const void *b) {
    const struct vmibus_ram_range *left = a, *right = b;

    return (left->gpa > right->gpa) - (left->gpa < right->gpa);
}

static uint64_t sum_of(const struct vmibus_ram_range *ranges, size_t n_ranges) {
    uint64_t sum = 0;

    for (size_t i = 0; i < n_ranges; i++)
        sum += ranges[i].len;
    return sum;
}

/* Head, then memory. The file has its full size from the beginning: what is not written is a hole. */
static int write_core(struct dump *dump, const struct vmibus_ram_range *ranges, size_t n_ranges) {
    const struct elf_core core = {
        .ranges = ranges,
        .n_ranges = n_ranges,
        .note = dump->note_len ? dump->note : NULL,
        .note_len = dump->note_len,
        .vcpus = dump->vcpus.tail,
        .n_vcpus = dump->vcpus.tail ? dump->vcpus.frame.header.tail_length / sizeof(struct vmibus_vcpu_registers) : 0,
    };
    uint64_t ram_size = sum_of(ranges, n_ranges);
    uint8_t *head;
    size_t head_len;
    int r = elf_core_head(&core, &head, &head_len);

    if (r < 0)
        return report_failure("cannot make the head of the core: %s", strerror(-r));
    r = write_at(dump, head, head_len, 0);
    free(head);
    if (r == STATUS_OK && ftruncate(dump->file.fd, (off_t)(head_len + ram_size)) < 0)
        r = report_failure("%s: %s", printable(dump->file.path), strerror(errno));
    if (r != STATUS_OK)
        return r;
    progress_begin(&dump->progress, "dumped", ram_size);
    r = dump_memory(dump, ranges, n_ranges, head_len);
    progress_clear(&dump->progress);
    return r;
}

static int write_sorted(struct dump *dump) {
    const struct vmibus_attachment *attachment = dump->memory.attachment;
    struct vmibus_ram_range *ranges = malloc(attachment->n_ranges * sizeof(*ranges));
    int r;

    dump->chunk = malloc(CHUNK);
    if (ranges && dump->chunk) {
        memcpy(ranges, attachment->ranges, attachment->n_ranges * sizeof(*ranges));
        qsort(ranges, attachment->n_ranges, sizeof(*ranges), compare_ranges);
        r = write_core(dump, ranges, attachment->n_ranges);
    } else {
        r = report_failure("out of memory");
    }
    free(dump->chunk);
    free(ranges);
    return r;
}

static void tell(const struct dump *dump) {
    char written[UNITS_SIZE_SIZE], passed[UNITS_SIZE_SIZE], unreadable[UNITS_SIZE_SIZE];
    struct json_object *object;

    if (dump->unreadable)
        fprintf(stderr, "vmibusctl: %s could not be read, and are zeros in the dump\n", units_size(dump->unreadable, unreadable));
    if (!dump->ctl->json) {
        printf("%s: %s of RAM, %s of them not zero%s\n", printable(dump->file.path), units_size(dump->passed, passed),
               units_size(dump->written, written), dump->note_len ? "" : ", without VMCOREINFO");
        return;
    }
    object = json_object_new_object();
    json_object_object_add(object, "file", json_object_new_string(dump->file.path));
    json_object_object_add(object, "epoch", json_object_new_uint64(dump->memory.attachment->epoch));
    json_object_object_add(object, "len", json_object_new_uint64(dump->passed));
    json_object_object_add(object, "written", json_object_new_uint64(dump->written));
    json_object_object_add(object, "unreadable", json_object_new_uint64(dump->unreadable));
    json_object_object_add(object, "note", json_object_new_boolean(dump->note_len != 0));
    frame_json_print(object);
}

static int dump_vm(struct dump *dump, const struct arguments *arguments, const struct vm *vm) {
    struct standstill standstill = {};
    int r = guest_memory_attach(dump->ctl, vm, true, NULL, arguments_get(arguments, "mediated"), &dump->memory), ended;

    if (r == STATUS_OK)
        r = new_file_begin(&dump->file, arguments->words[1], arguments_get(arguments, "force"));
    if (r == STATUS_OK && arguments_get(arguments, "quiesce"))
        r = standstill_begin(dump->ctl, vm, &standstill);
    if (r == STATUS_OK) {
        read_note(dump);
        ask_registers(dump);
        r = write_sorted(dump);
    }
    ended = standstill_end(&standstill);
    return r ? r : ended;
}

/* A file whose octets are of two epochs is no picture of any, nor is one that was given up for that. */
static int finish(struct dump *dump, const struct roster *roster, int dumped) {
    int r = guest_memory_check_epoch(dump->ctl, roster, &dump->memory);

    if (dumped)
        return r ? r : dumped;
    if (r == STATUS_OK)
        r = new_file_finish(&dump->file);
    if (r == STATUS_OK)
        tell(dump);
    return r;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct dump dump = {.ctl = ctl, .file.fd = -1};
    struct roster roster = {};
    struct vm *vm;
    int r = roster_fetch(ctl, &roster);

    if (r == STATUS_OK)
        r = roster_lookup(&roster, arguments->words[0], &vm);
    if (r == STATUS_OK) {
        r = dump_vm(&dump, arguments, vm);
        if (r == STATUS_OK || r == STATUS_REFUSED + VMIBUS_ERROR_STALE_EPOCH)
            r = finish(&dump, &roster, r);
    }
    new_file_abandon(&dump.file);
    vmibus_message_deinit(&dump.vcpus);
    guest_memory_detach(&dump.memory);
    roster_deinit(&roster);
    return r;
}

static const struct option_description options[] = {
    {"quiesce", NULL, "hold the guest still meanwhile: an exact picture"},
    {"mediated", NULL, "read through the memory authority also where RAM descriptors are given"},
    {"force", NULL, "replace FILE if it exists"},
    {},
};

const struct verb verb_dump = {
    .name = "dump",
    .synopsis = "VM FILE",
    .summary = "write the guest's memory as an ELF core that crash and drgn open",
    .min_words = 2,
    .max_words = 2,
    .options = options,
    .run = run,
};
