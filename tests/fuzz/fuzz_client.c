/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: what a hostile bus answers to a control that uses libvmibus.  All of it lies in the socket before the control
 * begins: it connects, calls this and that, dispatches, and meets the end.  The first octet: bit 0, whether a lawful WELCOME
 * precedes; bit 1, whether frames bring the descriptors that they announce; bit 2, whether these are sealed memory or no memory.
 * A correlation of 0 becomes that of the next command.  In the end no descriptor is left.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vmibus/client.h>

#include "fuzz/stream.h"
#include "fuzz/target.h"
#include "fuzz/world.h"

#define INPUT_MAX 65536
#define MEMORY_SIZE 8192

static struct stream bus;
static int memory_fd = -1, other_fd = -1;

static void make_fds(void) {
    memory_fd = memfd_create("memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    other_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (memory_fd < 0 || other_fd < 0 || ftruncate(memory_fd, MEMORY_SIZE) < 0 ||
        fcntl(memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        fuzz_fail("client", "there are no descriptors");
}

/* The lowest free one: where it is another in the end, some is left. */
static int next_fd(void) {
    int fd = dup(other_fd);

    close(fd);
    return fd;
}

static void put_welcome(void) {
    struct vmibus_frame welcome = fuzz_frame(VMIBUS_KIND_WELCOME, VMIBUS_DIRECTION_UP);

    welcome.header.correlation = 1;
    welcome.welcome = (struct vmibus_welcome){.magic = VMIBUS_MAGIC,
                                              .features = VMIBUS_FEATURE_ALL,
                                              .tail_bound = WORLD_TAIL_BOUND,
                                              .queue_depth = 16,
                                              .commands = 8,
                                              .endpoints = 4,
                                              .version = VMIBUS_PROTOCOL_VERSION,
                                              .memory = VMIBUS_MEMORY_LOCATION_HERE,
                                              .fds_per_frame = VMIBUS_FDS_PER_FRAME};
    stream_say(&bus, &welcome, NULL, 0);
}

static void put_all(uint8_t choice, const uint8_t *data, size_t size) {
    uint64_t correlation = choice & 1 ? 2 : 1;
    int fds[VMIBUS_FDS_PER_FRAME];

    for (size_t i = 0; i < VMIBUS_FDS_PER_FRAME; i++)
        fds[i] = choice & 4 ? memory_fd : other_fd;
    if (choice & 1)
        put_welcome();
    while (size >= sizeof(struct vmibus_frame)) {
        struct vmibus_frame frame;
        size_t n_fds, tail_length;

        memcpy(&frame, data, sizeof(frame));
        data += sizeof(frame);
        size -= sizeof(frame);
        if (frame.header.correlation == 0)
            frame.header.correlation = correlation++;
        n_fds = choice & 2 && frame.header.fd_count <= VMIBUS_FDS_PER_FRAME ? frame.header.fd_count : 0;
        tail_length = frame.header.tail_length < size ? frame.header.tail_length : size;
        stream_put(&bus, &frame, sizeof(frame), fds, n_fds);
        stream_put(&bus, data, tail_length, NULL, 0);
        data += tail_length;
        size -= tail_length;
    }
    stream_put(&bus, data, size, NULL, 0);
    shutdown(bus.fd, SHUT_WR);
}

static void hear(struct vmibus *client, struct vmibus_message *message, void *userdata) {
    size_t *n = userdata;

    (void)client;
    /* Every octet is there. */
    for (uint32_t i = 0; i < message->frame.header.tail_length; i++)
        *n += ((const uint8_t *)message->tail)[i];
}

static void use_memory(struct vmibus *client, const struct vmibus_endpoint *vm) {
    struct vmibus_mapped_buffer *buffer = NULL;
    struct vmibus_attachment *attachment = NULL;
    struct vmibus_mediated *mediated = NULL;
    struct vmibus_message reply = {};
    uint8_t octets[64];

    if (vmibus_attach(client, vm, 0, &attachment, &reply) == 0) {
        (void)vmibus_epoch_is_current(attachment);
        (void)vmibus_release(attachment);
    }
    vmibus_message_deinit(&reply);
    if (vmibus_buffer_new(client, MEMORY_SIZE, &buffer, &reply) == 0)
        buffer = vmibus_buffer_free(buffer);
    vmibus_message_deinit(&reply);
    if (vmibus_mediated_new(client, vm, 0, &mediated, &reply) == 0)
        (void)vmibus_mediated_read(mediated, 0x1000, octets, sizeof(octets));
    mediated = vmibus_mediated_free(mediated);
    vmibus_message_deinit(&reply);
}

static void use_writes(struct vmibus *client, const struct vmibus_endpoint *vm) {
    const struct vmibus_write write = {.data = "octets", .len = 6, .gva = 0x1000, .token = 1, .epoch = 1};
    const struct vmibus_write_extent extents[2] = {{.gva = 0x1000, .len = 3}, {.gva = 0x2000, .len = 3}};
    struct vmibus_extent_result results[2];
    struct vmibus_message reply = {};

    (void)vmibus_memwrite(client, vm, &write, &reply);
    vmibus_message_deinit(&reply);
    (void)vmibus_memwrite_table(client, vm, &write, extents, 2, results, &reply);
    vmibus_message_deinit(&reply);
}

static void use(struct vmibus *client) {
    const struct vmibus_endpoint vm = {.slot = 1, .generation = 1};
    struct vmibus_message reply = {};
    uint64_t token = 0;
    size_t n = 0;

    vmibus_set_handler(client, hear, &n);
    (void)vmibus_subscribe(client, "*", UINT64_MAX);
    (void)vmibus_lease_acquire(client, &vm, VMIBUS_LEASE_CLASS_MEMWRITE, VMIBUS_LEASE_MODE_QUEUE, 0, &token, &reply);
    vmibus_message_deinit(&reply);
    (void)vmibus_dispatch(client);
    use_memory(client, &vm);
    use_writes(client, &vm);
    (void)vmibus_query(client, NULL, VMIBUS_QUERY_STATS, &reply);
    vmibus_message_deinit(&reply);
    while (vmibus_dispatch(client) == 0)
        ;
    (void)vmibus_reclaim(client, 0);
}

FUZZ_TARGET(client) {
    struct vmibus *client = NULL;
    int sockets[2], first;

    if (size < 1 || size > INPUT_MAX)
        return -1;
    if (memory_fd < 0)
        make_fds();
    first = next_fd();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
        fuzz_fail("client", "there is no pair of sockets");
    stream_open_consume_fd(&bus, sockets[0]);
    put_all(data[0], data + 1, size - 1);
    if (vmibus_connect_consume_fd(&client, sockets[1], "fuzz") == 0)
        use(client);
    client = vmibus_free(client);
    stream_close(&bus);
    if (next_fd() != first)
        fuzz_fail("client", "a descriptor is left");
    return 0;
}
