/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The wire as C sees it: structures and descriptions encode the same octets as the test vectors,
 * and names and descriptions hold together.
 */
#include <stdlib.h>
#include <string.h>

#include <vmibus/names.h>
#include <vmibus/protocol.h>

#include "harness.h"
#include "vector_file.h"
#include "vector_fills.h"

#define N_FILLS (sizeof(vector_fills) / sizeof(vector_fills[0]))

/* A frame and its tail, aligned for every record. */
struct encoding {
    struct vmibus_frame frame;
    _Alignas(8) uint8_t tail[VECTOR_TAIL_ROOM];
    size_t tail_octets;
};

static void assert_same_octets(const struct encoding *encoding, const struct vector *vector)
{
    const uint8_t *octets = (const uint8_t *)&encoding->frame;

    for (size_t i = 0; i < VMIBUS_FRAME_SIZE; i++)
        ck_assert_msg(octets[i] == vector->frame[i], "%s: octet %zu is %#x, expected %#x",
                      vector->name, i, octets[i], vector->frame[i]);
    ck_assert_uint_eq(encoding->tail_octets, vector->tail_octets);
    for (size_t i = 0; i < vector->tail_octets; i++)
        ck_assert_msg(encoding->tail[i] == vector->tail[i],
                      "%s: tail octet %zu is %#x, expected %#x", vector->name, i,
                      encoding->tail[i], vector->tail[i]);
}

/* --- encoding by structure members ----------------------------------------------------------- */

TEST(test_members_encode_every_vector)
{
    struct vector_file file;

    vector_file_init(&file);
    ck_assert_uint_eq(file.n_vectors, N_FILLS);
    for (size_t i = 0; i < N_FILLS; i++) {
        struct encoding encoding = {0};

        encoding.tail_octets = vector_fills[i].fill(&encoding.frame, encoding.tail);
        assert_same_octets(&encoding, vector_file_find(&file, vector_fills[i].name));
    }
    vector_file_deinit(&file);
}

TEST(test_every_kind_has_a_vector)
{
    const struct vmibus_frame_description *frame;

    for (size_t i = 0; (frame = vmibus_frame_describe_at(i)) != NULL; i++) {
        bool found = false;

        for (size_t j = 0; j < N_FILLS; j++)
            found = found || vector_fills[j].kind == frame->kind;
        ck_assert_msg(found, "%s has no vector", frame->name);
    }
}

/* These two are written by hand, octet by octet, and come from no generator. */

TEST(test_roster_by_hand)
{
    static const uint8_t expected[VMIBUS_FRAME_SIZE] = {
        0x01, 0x01, 0x01, 0x01,                         /* kind, direction, priority */
        0x00, 0x00, 0x01, 0x00,                         /* source, version, fd_count */
        0x02, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, /* flags, tail_length */
        0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* slot, deadline_us */
        0x05, 0x00, 0x00, 0x00, 0x07, 0x00, 0x00, 0x00, /* generation */
        0x09, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* publication */
        0x0b, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* delivery */
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* correlation */
        0x15, 0xcd, 0x5b, 0x07, 0x00, 0x00, 0x00, 0x00, /* timestamp */
        0x01, 0x00, 0x00, 0x00, 0xd2, 0x04, 0x00, 0x00, /* change, reserved, pid */
        0x40, 0xe2, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, /* start_time */
        0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, /* uuid */
        0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff,
        0x09, 0x00, 0x00, 0x00,                         /* groups */
    };
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ROSTER, .direction = VMIBUS_DIRECTION_UP,
                   .priority = VMIBUS_PRIORITY_NORMAL, .version = VMIBUS_PROTOCOL_VERSION,
                   .flags = VMIBUS_FRAME_RETAINED, .tail_length = 4, .slot = 3,
                   .generation = UINT64_C(0x0000000700000005), .publication = 9, .delivery = 11,
                   .timestamp = 123456789},
        .roster = {.change = VMIBUS_ROSTER_CHANGE_ADDED, .pid = 1234, .start_time = 123456,
                   .uuid = {0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb,
                            0xfc, 0xfd, 0xfe, 0xff},
                   .groups = VMIBUS_GROUP_LIFECYCLE | VMIBUS_GROUP_MEMORY},
    };

    ck_assert_mem_eq(&frame, expected, sizeof(expected));
}

TEST(test_memwrite_by_hand)
{
    static const uint8_t expected[VMIBUS_FRAME_SIZE] = {
        0x01, 0x03, 0x02, 0x03,                         /* kind, direction, priority */
        0x00, 0x00, 0x01, 0x00,                         /* source, version, fd_count */
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* flags, tail_length */
        0x01, 0x00, 0x00, 0x00, 0xe8, 0x03, 0x00, 0x00, /* slot, deadline_us */
        0x01, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, /* generation */
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* publication */
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* delivery */
        0x2a, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* correlation */
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* timestamp */
        0x00, 0x30, 0x21, 0x12, 0x00, 0x00, 0x00, 0x00, /* cr3 */
        0xef, 0xcd, 0xab, 0x89, 0xff, 0xff, 0xff, 0xff, /* gva */
        0x04, 0x00, 0x00, 0x00, 0x28, 0x00, 0x00, 0x00, /* len, flags */
        0x06, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, /* token */
        0x08, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, /* epoch */
        0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, /* data */
    };
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_CMD_MEMWRITE, .direction = VMIBUS_DIRECTION_DOWN,
                   .priority = VMIBUS_PRIORITY_URGENT, .version = 1, .slot = 1, .deadline_us = 1000,
                   .generation = UINT64_C(0x0000000200000001), .correlation = 42},
        .cmd_memwrite = {.cr3 = 0x12213000, .gva = UINT64_C(0xffffffff89abcdef), .len = 4,
                         .flags = VMIBUS_MEMWRITE_EXPECT | VMIBUS_MEMWRITE_DRY_RUN,
                         .token = UINT64_C(0x0000000200000006),
                         .epoch = UINT64_C(0x0000000200000008),
                         .data = {0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}},
    };

    ck_assert_mem_eq(&frame, expected, sizeof(expected));
    ck_assert_ptr_eq(&frame.cmd_memwrite.cr3, frame.body);
    ck_assert_uint_eq(sizeof(frame.cmd_memwrite.data), VMIBUS_MEMWRITE_INLINE);
}

/* --- encoding by descriptions ---------------------------------------------------------------- */

/* Where a path leads: a field, and the header, body or record that it is part of. */
struct place {
    const struct vmibus_field_description *field;
    uint8_t *base;
};

static const struct vmibus_field_description *
find_field(const struct vmibus_field_description *fields, size_t n_fields, const char *name,
           size_t length)
{
    for (size_t i = 0; i < n_fields; i++) {
        if (strlen(fields[i].name) == length && memcmp(fields[i].name, name, length) == 0)
            return &fields[i];
    }
    ck_abort_msg("no field %s", name);
}

/** Follows "name" or "name.index.name" from the header, body or record at @a base. */
static struct place follow(const struct vmibus_field_description *fields, size_t n_fields,
                           uint8_t *base, const char *path)
{
    size_t length = strcspn(path, ".");
    const struct vmibus_field_description *field = find_field(fields, n_fields, path, length);
    char *rest;
    unsigned long index;

    if (path[length] == '\0')
        return (struct place){field, base};
    ck_assert_int_eq(field->type, VMIBUS_FIELD_RECORD);
    index = strtoul(path + length + 1, &rest, 10);
    ck_assert_uint_lt(index, field->count);
    return follow(field->record->fields, field->record->n_fields,
                  base + field->offset + index * field->record->size, rest + 1);
}

/** The record that the tail of a vector is made of. */
static const struct vmibus_record_description *
tail_record(const struct vmibus_frame_description *description, const struct vector *vector)
{
    const char *answer = strchr(vector->name, '+');

    if (description->tail_record != NULL)
        return description->tail_record;
    ck_assert_ptr_nonnull(answer);
    return vmibus_record_describe(answer + 1);
}

static struct place find_place(struct encoding *encoding,
                               const struct vmibus_frame_description *description,
                               const struct vector *vector, const char *path)
{
    const struct vmibus_record_description *record;
    char *rest;
    unsigned long index;

    if (strncmp(path, "header.", 7) == 0) {
        record = vmibus_header_describe();
        return follow(record->fields, record->n_fields, (uint8_t *)&encoding->frame.header,
                      path + 7);
    }
    if (strncmp(path, "body.", 5) == 0)
        return follow(description->fields, description->n_fields, encoding->frame.body, path + 5);
    ck_assert_int_eq(strncmp(path, "tail.", 5), 0);
    record = tail_record(description, vector);
    ck_assert_ptr_nonnull(record);
    index = strtoul(path + 5, &rest, 10);
    ck_assert_uint_le((index + 1) * record->size, sizeof(encoding->tail));
    if (encoding->tail_octets < (index + 1) * record->size)
        encoding->tail_octets = (index + 1) * record->size;
    return follow(record->fields, record->n_fields, encoding->tail + index * record->size,
                  rest + 1);
}

static void set_field(struct encoding *encoding, const struct vmibus_frame_description *description,
                      const struct vector *vector, const struct vector_field *value)
{
    struct place place;

    if (strcmp(value->path, "tail") == 0) {
        ck_assert(description->tail_allowed);
        memcpy(encoding->tail, value->octets, value->n_octets);
        encoding->tail_octets = value->n_octets;
        return;
    }
    place = find_place(encoding, description, vector, value->path);
    ck_assert_int_eq(place.field->is_bytes, place.field->type == VMIBUS_FIELD_BYTES);
    if (place.field->is_bytes) {
        ck_assert_uint_le(value->n_octets, place.field->size);
        memcpy(place.base + place.field->offset, value->octets, value->n_octets);
    } else {
        vmibus_field_set(place.field, place.base, value->number);
        ck_assert_uint_eq(vmibus_field_get(place.field, place.base), value->number);
    }
}

TEST(test_descriptions_encode_every_vector)
{
    struct vector_file file;

    vector_file_init(&file);
    for (size_t i = 0; i < file.n_vectors; i++) {
        const struct vector *vector = &file.vectors[i];
        struct encoding encoding = {0};
        const struct vmibus_frame_description *description;

        /* The first field of every vector is the kind. */
        ck_assert_str_eq(vector->fields[0].path, "header.kind");
        description = vmibus_frame_describe((unsigned)vector->fields[0].number);
        ck_assert_ptr_nonnull(description);
        for (size_t j = 0; j < vector->n_fields; j++)
            set_field(&encoding, description, vector, &vector->fields[j]);
        assert_same_octets(&encoding, vector);
    }
    vector_file_deinit(&file);
}

TEST(test_field_access_is_exact)
{
    const struct vmibus_record_description *record = vmibus_record_describe("input_event");
    const struct vmibus_field_description *value =
        find_field(record->fields, record->n_fields, "value", 5);
    const struct vmibus_frame_description *hello = vmibus_frame_describe(VMIBUS_KIND_HELLO);
    const struct vmibus_field_description *name =
        find_field(hello->fields, hello->n_fields, "name", 4);
    uint8_t octets[sizeof(struct vmibus_input_event) + 2];

    /* At an odd address, and with more bits than there is room for. */
    memset(octets, 0xee, sizeof(octets));
    vmibus_field_set(value, octets + 1, (uint64_t)-2);
    ck_assert_int_eq((int64_t)vmibus_field_get(value, octets + 1), -2);
    ck_assert_uint_eq(octets[4], 0xee);
    ck_assert_uint_eq(octets[9], 0xee);
    vmibus_field_set(value, octets + 1, UINT64_C(0xffffffff00000005));
    ck_assert_uint_eq(vmibus_field_get(value, octets + 1), 5);
    /* What is no number is left alone. */
    ck_assert_uint_eq(vmibus_field_get(name, octets), 0);
    vmibus_field_set(name, octets, 1);
}

/* --- descriptions ---------------------------------------------------------------------------- */

static void assert_fields_sound(const char *owner, const struct vmibus_field_description *fields,
                                size_t n_fields, size_t size)
{
    size_t offset = 0;

    for (size_t i = 0; i < n_fields; i++) {
        const struct vmibus_field_description *field = &fields[i];

        ck_assert_msg(field->offset == offset, "%s.%s: offset %u", owner, field->name,
                      field->offset);
        ck_assert_uint_gt(field->size, 0);
        ck_assert_uint_gt(strlen(field->doc), 0);
        ck_assert_int_eq(field->record != NULL, field->type == VMIBUS_FIELD_RECORD);
        ck_assert(!field->is_text || field->is_bytes);
        ck_assert_int_eq(field->is_reserved, strncmp(field->name, "reserved", 8) == 0);
        if (field->record != NULL)
            ck_assert_uint_eq(field->size, field->count * field->record->size);
        offset += field->size;
    }
    ck_assert_msg(offset == size, "%s: fields take %zu octets of %zu", owner, offset, size);
}

TEST(test_frame_descriptions_are_sound)
{
    const struct vmibus_frame_description *frame;
    unsigned last = 0;
    size_t count = 0;

    for (; (frame = vmibus_frame_describe_at(count)) != NULL; count++) {
        ck_assert_uint_gt(frame->kind, last);
        last = frame->kind;
        ck_assert_ptr_eq(vmibus_frame_describe(frame->kind), frame);
        ck_assert_str_eq(vmibus_kind_name(frame->kind), frame->name);
        ck_assert_uint_le(frame->body_size, VMIBUS_BODY_SIZE);
        assert_fields_sound(frame->name, frame->fields, frame->n_fields, frame->body_size);
        ck_assert_uint_ne(frame->senders, 0);
        ck_assert_uint_ne(frame->channels, 0);
        ck_assert_ptr_nonnull(vmibus_direction_name(frame->direction));
        ck_assert(frame->priority == -1 || vmibus_priority_name((unsigned)frame->priority) != NULL);
        ck_assert(frame->lease_class == 0 || vmibus_lease_class_name(frame->lease_class) != NULL);
        ck_assert(frame->capability == 0 || vmibus_capability_name(frame->capability) != NULL);
        ck_assert_int_eq(frame->tail_allowed, frame->tail_doc != NULL);
        ck_assert(frame->tail_allowed || (frame->tail_record == NULL && !frame->tail_is_text));
        ck_assert(frame->tail_max == 0 || frame->tail_min <= frame->tail_max);
    }
    ck_assert_uint_gt(count, 30);
    ck_assert_ptr_null(vmibus_frame_describe_at(SIZE_MAX));
}

TEST(test_unknown_kinds_have_no_description)
{
    size_t described = 0, count = 0;

    for (unsigned kind = 0; kind <= 0x1ffff; kind++) {
        const struct vmibus_frame_description *frame = vmibus_frame_describe(kind);

        ck_assert(frame == NULL || frame->kind == kind);
        ck_assert_int_eq(frame != NULL, vmibus_kind_name(kind) != NULL);
        described += frame != NULL;
    }
    while (vmibus_frame_describe_at(count) != NULL)
        count++;
    ck_assert_uint_eq(described, count);
}

TEST(test_frames_say_what_they_need)
{
    const struct vmibus_frame_description *memwrite =
        vmibus_frame_describe(VMIBUS_KIND_CMD_MEMWRITE);
    const struct vmibus_frame_description *memctx = vmibus_frame_describe(VMIBUS_KIND_MEMCTX);
    const struct vmibus_frame_description *subscribe = vmibus_frame_describe(VMIBUS_KIND_SUBSCRIBE);
    const struct vmibus_frame_description *ack = vmibus_frame_describe(VMIBUS_KIND_ACK);

    ck_assert_uint_eq(memwrite->senders, VMIBUS_SENDER_CONTROL);
    ck_assert_uint_eq(memwrite->channels, VMIBUS_ON_MEMORY);
    ck_assert_uint_eq(memwrite->capability, VMIBUS_CAP_MEM_WRITE);
    ck_assert_uint_eq(memwrite->lease_class, VMIBUS_LEASE_CLASS_MEMWRITE);
    ck_assert_int_eq(memwrite->priority, -1);
    ck_assert(memwrite->tail_allowed && !memwrite->fds_allowed && !memwrite->retained);
    ck_assert_str_eq(memwrite->fields[0].name, "cr3");
    ck_assert(memctx->retained && !memctx->fds_allowed);
    ck_assert_int_eq(memctx->priority, VMIBUS_PRIORITY_NORMAL);
    ck_assert_ptr_eq(memctx->tail_record, vmibus_record_describe("ram_range"));
    ck_assert(subscribe->tail_is_text);
    ck_assert_uint_eq(subscribe->tail_min, 1);
    ck_assert_uint_eq(subscribe->tail_max, VMIBUS_NAME_BOUND);
    ck_assert_uint_eq(ack->channels, VMIBUS_ON_BUS | VMIBUS_ON_MEMORY);
    ck_assert(ack->fds_allowed);
    ck_assert(!memwrite->reserved);
}

TEST(test_retained_kinds_share_one_priority)
{
    const struct vmibus_frame_description *frame;
    int priority = -1;

    for (size_t i = 0; (frame = vmibus_frame_describe_at(i)) != NULL; i++) {
        if (!frame->retained)
            continue;
        ck_assert_int_ne(frame->priority, -1);
        ck_assert(priority == -1 || priority == frame->priority);
        priority = frame->priority;
        /* A subscription can name each of them. */
        ck_assert_uint_ge(frame->kind, 0x0100);
        ck_assert_uint_lt(frame->kind, 0x0140);
    }
    ck_assert_int_ne(priority, -1);
}

TEST(test_records_are_sound)
{
    static const struct {
        const char *name;
        size_t size;
    } records[] = {
        {"ram_range", sizeof(struct vmibus_ram_range)},
        {"layout_range", sizeof(struct vmibus_layout_range)},
        {"input_event", sizeof(struct vmibus_input_event)},
        {"counter_value", sizeof(struct vmibus_counter_value)},
        {"sensor_info", sizeof(struct vmibus_sensor_info)},
    };
    const struct vmibus_record_description *header = vmibus_header_describe();

    for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
        const struct vmibus_record_description *record = vmibus_record_describe(records[i].name);

        ck_assert_ptr_nonnull(record);
        ck_assert_str_eq(record->name, records[i].name);
        ck_assert_uint_eq(record->size, records[i].size);
        assert_fields_sound(record->name, record->fields, record->n_fields, record->size);
    }
    ck_assert_uint_eq(header->size, sizeof(struct vmibus_header));
    assert_fields_sound("header", header->fields, header->n_fields, header->size);
    ck_assert_ptr_null(vmibus_record_describe("ram_rang"));
    ck_assert_ptr_null(vmibus_record_describe(""));
}

TEST(test_kind_bits)
{
    ck_assert_uint_eq(VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER), UINT64_C(1) << 1);
    ck_assert_uint_eq(VMIBUS_KIND_BIT(0x013f), UINT64_C(1) << 63);
    ck_assert_uint_eq(VMIBUS_MAGIC, UINT64_C(0x0031535542494d56));
    ck_assert_mem_eq(&(uint64_t){VMIBUS_MAGIC}, "VMIBUS1", 8);
}

/* --- names ----------------------------------------------------------------------------------- */

/* Every table that a description refers to, and some that none does. */
static const char *const table_names[] = {
    "kind", "direction", "priority", "role", "channel", "memory_location", "error", "reason",
    "roster_change", "vm_state", "lifecycle_cause", "memctx_state", "confidence", "lease_class",
    "lease_operation", "lease_mode", "lease_state", "power_operation", "vm_operation",
    "input_type", "sensor_state", "query", "counter", "frame_flags", "feature", "capability",
    "memwrite_flags", "evidence", "access", "range_flags", "lifecycle_flags", "group",
};

#define N_TABLES (sizeof(table_names) / sizeof(table_names[0]))

/** The name as people may type it: other case, other dash. */
static void disguise(char *disguised, const char *name)
{
    for (; *name != '\0'; name++, disguised++) {
        *disguised = *name == '_' ? '-' : *name;
        if (*name >= 'A' && *name <= 'Z')
            *disguised = (char)(*name - 'A' + 'a');
    }
    *disguised = '\0';
}

static void assert_table_sound(const struct vmibus_table_description *table)
{
    uint32_t all = 0;

    for (size_t i = 0; i < table->n_values; i++) {
        const struct vmibus_value_description *value = &table->values[i];
        char disguised[64];

        ck_assert_msg(i == 0 || value->value > table->values[i - 1].value,
                      "%s.%s: order", table->name, value->name);
        ck_assert(!table->is_flags || (value->value & (value->value - 1)) == 0);
        ck_assert_ptr_eq(vmibus_table_find(table, value->value), value);
        ck_assert_ptr_null(vmibus_table_find(table, value->value + (UINT64_C(1) << 32)));
        ck_assert_ptr_eq(vmibus_table_find_name(table, value->name), value);
        disguise(disguised, value->name);
        ck_assert_ptr_eq(vmibus_table_find_name(table, disguised), value);
        ck_assert_uint_gt(strlen(value->doc), 0);
        all |= value->value;
    }
    ck_assert_uint_eq(table->all, table->is_flags ? all : 0);
    ck_assert_ptr_null(vmibus_table_find_name(table, ""));
    ck_assert_ptr_null(vmibus_table_find_name(table, "no such name"));
}

TEST(test_tables_are_sound)
{
    for (size_t i = 0; i < N_TABLES; i++) {
        const struct vmibus_table_description *table = vmibus_table_describe(table_names[i]);

        ck_assert_msg(table != NULL, "no table %s", table_names[i]);
        ck_assert_str_eq(table->name, table_names[i]);
        assert_table_sound(table);
    }
    ck_assert_ptr_null(vmibus_table_describe("nothing"));
}

TEST(test_names_of_enumerators)
{
    ck_assert_str_eq(vmibus_kind_name(VMIBUS_KIND_MEMCTX_INVALIDATED), "MEMCTX_INVALIDATED");
    ck_assert_str_eq(vmibus_error_name(VMIBUS_ERROR_OK), "OK");
    ck_assert_str_eq(vmibus_error_name(VMIBUS_ERROR_STALE_TOKEN), "STALE_TOKEN");
    ck_assert_str_eq(vmibus_reason_name(VMIBUS_REASON_NOT_BUILT), "NOT_BUILT");
    ck_assert_ptr_null(vmibus_error_name(VMIBUS_ERROR_UNSUPPORTED + 1));
    ck_assert_ptr_null(vmibus_reason_name(14));
    ck_assert_ptr_null(vmibus_lease_class_name(0));
    ck_assert_ptr_null(vmibus_kind_name(UINT32_MAX));
}

TEST(test_enumerators_by_name)
{
    ck_assert_int_eq(vmibus_lease_class_from_name("MEMWRITE"), VMIBUS_LEASE_CLASS_MEMWRITE);
    ck_assert_int_eq(vmibus_lease_class_from_name("memwrite"), VMIBUS_LEASE_CLASS_MEMWRITE);
    ck_assert_int_eq(vmibus_kind_from_name("Memctx-Invalidated"), VMIBUS_KIND_MEMCTX_INVALIDATED);
    ck_assert_int_eq(vmibus_error_from_name("ok"), 0);
    ck_assert_int_eq(vmibus_lease_class_from_name("MEM"), -1);
    ck_assert_int_eq(vmibus_lease_class_from_name("MEMWRITES"), -1);
    ck_assert_int_eq(vmibus_lease_class_from_name(" MEMWRITE"), -1);
    ck_assert_int_eq(vmibus_lease_class_from_name(""), -1);
    /* Only letters of ASCII have two cases, whatever the locale. */
    ck_assert_int_eq(vmibus_lease_class_from_name("\xcdNPUT"), -1);
}

TEST(test_single_flags_have_names)
{
    ck_assert_str_eq(vmibus_capability_name(VMIBUS_CAP_OBSERVE), "OBSERVE");
    ck_assert_str_eq(vmibus_capability_name(VMIBUS_CAP_SENSOR), "SENSOR");
    ck_assert_ptr_null(vmibus_capability_name(0));
    ck_assert_ptr_null(vmibus_capability_name(VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEMCTX));
    ck_assert_int_eq(vmibus_capability_from_name("ram-fd_OWNER"), VMIBUS_CAP_RAM_FD_OWNER);
    ck_assert_int_eq(vmibus_capability_from_name("ALL"), -1);
    ck_assert_str_eq(vmibus_memwrite_flags_name(VMIBUS_MEMWRITE_DRY_RUN), "DRY_RUN");
}

TEST(test_every_error_is_explained)
{
    const struct vmibus_table_description *errors = vmibus_table_describe("error");

    for (size_t i = 0; i < errors->n_values; i++) {
        unsigned error = errors->values[i].value;

        ck_assert_ptr_nonnull(vmibus_error_doc(error));
        ck_assert_int_eq(vmibus_error_remedy(error) != NULL, error != VMIBUS_ERROR_OK);
    }
    ck_assert_ptr_null(vmibus_error_doc(999));
    ck_assert_ptr_null(vmibus_error_remedy(999));
    ck_assert_ptr_nonnull(vmibus_reason_doc(VMIBUS_REASON_CANARY));
    ck_assert_ptr_nonnull(vmibus_capability_doc(VMIBUS_CAP_QUIESCE));
    ck_assert_ptr_nonnull(vmibus_counter_doc(VMIBUS_COUNTER_FDS_CHARGED));
    ck_assert_ptr_null(vmibus_counter_doc(0));
}

HARNESS_SUITE("protocol", HARNESS_QUICK)
