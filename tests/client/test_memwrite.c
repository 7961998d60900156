/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes of libvmibus: the shape they come in, and the results of tables, from a bus that may lie. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vmibus/client.h>

#include "client/fake_server.h"
#include "harness.h"

static const struct vmibus_endpoint endpoint = {.slot = 2, .generation = 5};
static const struct vmibus_mapped_buffer buffer = {.number = 3, .size = 4096};

static struct vmibus *connect_to(struct fake_server *server, fake_script script) {
    struct vmibus *bus;

    ck_assert_int_eq(vmibus_connect_consume_fd(&bus, fake_server_start(server, script), "test"), 0);
    return bus;
}

static struct vmibus_memwrite_source source_of(const struct vmibus_frame *frame) {
    struct vmibus_memwrite_source source;

    memcpy(&source, frame->cmd_memwrite.data, sizeof(source));
    return source;
}

/* Answers with one result of each error in turn, or none. */
static void answer(int fd, const struct vmibus_frame *command, enum vmibus_error error, size_t n) {
    struct vmibus_frame frame = fake_ack(command, error);
    struct vmibus_extent_result results[4] = {};

    for (size_t i = 0; i < n; i++)
        results[i] = (struct vmibus_extent_result){.gpa = 0x1000 * i, .written = (uint32_t)i, .error = (uint16_t)i};
    frame.ack.reason = error ? VMIBUS_REASON_SNAPSHOT : 0;
    frame.header.tail_length = (uint32_t)(n * sizeof(*results));
    fake_write_frame(fd, &frame, results);
}

static void check_shapes(int fd) {
    struct vmibus_frame frame;
    uint8_t tail[256];

    fake_accept(fd);
    frame = fake_read_frame(fd, tail, sizeof(tail)); /* from a buffer */
    ck_assert_uint_eq(frame.cmd_memwrite.flags, VMIBUS_MEMWRITE_SRC_BUFFER | VMIBUS_MEMWRITE_EXPECT);
    ck_assert_uint_eq(frame.cmd_memwrite.len, 1000);
    ck_assert_uint_eq(frame.cmd_memwrite.gva, 0x2000);
    ck_assert_uint_eq(frame.header.tail_length, 0);
    ck_assert_uint_eq(source_of(&frame).buffer, 3);
    ck_assert_uint_eq(source_of(&frame).offset, 77);
    ck_assert_uint_eq(source_of(&frame).extents, 0);
    answer(fd, &frame, VMIBUS_ERROR_OK, 0);

    frame = fake_read_frame(fd, tail, sizeof(tail)); /* a table with its octets behind it */
    ck_assert_uint_eq(frame.cmd_memwrite.flags,
                      VMIBUS_MEMWRITE_SRC_PAYLOAD | VMIBUS_MEMWRITE_TABLE | VMIBUS_MEMWRITE_EXPECT_GPA);
    ck_assert_uint_eq(frame.cmd_memwrite.len, 12);
    ck_assert_uint_eq(frame.cmd_memwrite.gva, 0);
    ck_assert_uint_eq(frame.header.tail_length, 2 * sizeof(struct vmibus_write_extent) + 12);
    ck_assert_uint_eq(source_of(&frame).extents, 2);
    ck_assert_uint_eq(source_of(&frame).buffer, 0);
    ck_assert_mem_eq(tail + 2 * sizeof(struct vmibus_write_extent), "abcdefghijkl", 12);
    answer(fd, &frame, VMIBUS_ERROR_OK, 2);

    frame = fake_read_frame(fd, tail, sizeof(tail)); /* from a buffer; refused before anything is looked at */
    ck_assert_uint_eq(frame.cmd_memwrite.flags, VMIBUS_MEMWRITE_SRC_BUFFER | VMIBUS_MEMWRITE_TABLE);
    ck_assert_uint_eq(frame.header.tail_length, 2 * sizeof(struct vmibus_write_extent));
    ck_assert_uint_eq(source_of(&frame).offset, 77);
    answer(fd, &frame, VMIBUS_ERROR_BUSY, 0);

    frame = fake_read_frame(fd, tail, sizeof(tail)); /* a bus that says too much */
    answer(fd, &frame, VMIBUS_ERROR_OK, 3);
    fake_await_close(fd);
}

TEST(test_shapes_and_results) {
    struct vmibus_write_extent extents[2] = {{.gva = 0x1000, .len = 4, .gpa = 1}, {.gva = 0x9000, .len = 8}};
    struct vmibus_write write = {.gva = 0x2000, .len = 1000, .buffer = &buffer, .offset = 77, .flags = VMIBUS_MEMWRITE_EXPECT};
    struct vmibus_extent_result results[2];
    struct fake_server server;
    struct vmibus_message reply;
    struct vmibus *bus = connect_to(&server, check_shapes);

    ck_assert_int_eq(vmibus_memwrite(bus, &endpoint, &write, NULL), 0);
    write = (struct vmibus_write){.gva = 99, .len = 99, .data = "abcdefghijkl", .flags = VMIBUS_MEMWRITE_EXPECT_GPA};
    ck_assert_int_eq(vmibus_memwrite_table(bus, &endpoint, &write, extents, 2, results, &reply), 0);
    ck_assert_uint_eq(results[1].gpa, 0x1000);
    ck_assert_uint_eq(results[1].written, 1);
    vmibus_message_deinit(&reply);
    write = (struct vmibus_write){.buffer = &buffer, .offset = 77};
    ck_assert_int_eq(vmibus_memwrite_table(bus, &endpoint, &write, extents, 2, results, NULL), VMIBUS_ERROR_BUSY);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_uint_eq(results[i].error, VMIBUS_ERROR_BUSY);
        ck_assert_uint_eq(results[i].reason, VMIBUS_REASON_SNAPSHOT);
        ck_assert_uint_eq(results[i].written, 0);
    }
    ck_assert_int_eq(vmibus_memwrite_table(bus, &endpoint, &write, extents, 2, results, &reply), -EPROTO);
    ck_assert_ptr_null(reply.tail);
    vmibus_free(bus);
    fake_server_join(&server);
}

static void expect_nothing(int fd) {
    fake_accept(fd);
    fake_await_close(fd);
}

/* What does not fit is not sent. */
TEST(test_tables_that_do_not_fit) {
    struct vmibus_write_extent *extents = calloc(VMIBUS_EXTENTS_BOUND + 1, sizeof(*extents));
    struct vmibus_write write = {.data = extents};
    struct fake_server server;
    struct vmibus *bus = connect_to(&server, expect_nothing);

    ck_assert_int_eq(vmibus_memwrite_table(bus, &endpoint, &write, extents, 0, NULL, NULL), -EINVAL);
    ck_assert_int_eq(vmibus_memwrite_table(bus, &endpoint, &write, extents, VMIBUS_EXTENTS_BOUND + 1, NULL, NULL), -EMSGSIZE);
    ck_assert_int_eq(vmibus_memwrite_table(bus, &endpoint, &write, extents, SIZE_MAX / 64, NULL, NULL), -EMSGSIZE);
    extents[0].len = extents[1].len = UINT32_MAX;
    ck_assert_int_eq(vmibus_memwrite_table(bus, &endpoint, &write, extents, 2, NULL, NULL), -EMSGSIZE);
    extents[1].len = 0;
    ck_assert_int_eq(vmibus_memwrite_table(bus, &endpoint, &write, extents, 2, NULL, NULL), -EMSGSIZE);
    vmibus_free(bus);
    fake_server_join(&server);
    free(extents);
}

HARNESS_SUITE("client: writes", HARNESS_QUICK)
