/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz/playing_sensor.h"

#include <string.h>

#include "fuzz/world.h"
#include "stub/stub_guest.h"
#include "stub/stub_map.h"
#include "stub/stub_ram.h"

#define GROUPS (VMIBUS_GROUP_ALL)

/* One guest for all VMs and inputs. */
static struct stub_ram *ram;
static uint32_t note_len;

static void make_guest(void) {
    if (ram)
        return;
    ram = stub_ram_new(0, STUB_RAM_MINIMUM);
    if (!ram || stub_ram_open(ram) < 0 || stub_guest_build(ram, "vm", 0, &note_len) < 0)
        fuzz_fail("peers", "there is no guest");
}

static bool is_offered(const struct playing_sensor *sensor, unsigned vm) {
    return sensor->vms[vm].slot != 0;
}

/* --- what it says -------------------------------------------------------------------------------- */

/* The low octet of a correlation is the VM. */
static struct vmibus_frame frame_of(struct playing_sensor *sensor, unsigned vm, enum vmibus_kind kind) {
    struct vmibus_frame frame = fuzz_frame(kind, VMIBUS_DIRECTION_UP);

    frame.header.slot = sensor->vms[vm].slot;
    frame.header.generation = sensor->vms[vm].generation;
    frame.header.correlation = ++sensor->correlation << 8 | vm;
    return frame;
}

void playing_sensor_connect_consume_fd(struct playing_sensor *sensor, int fd) {
    struct vmibus_frame hello = fuzz_hello(VMIBUS_ROLE_SENSOR, VMIBUS_CHANNEL_BUS);
    struct vmibus_frame announce = fuzz_frame(VMIBUS_KIND_SENSOR_ANNOUNCE, VMIBUS_DIRECTION_UP);

    make_guest();
    stream_open_consume_fd(&sensor->stream, fd);
    stream_say(&sensor->stream, &hello, NULL, 0);
    announce.sensor_announce =
        (struct vmibus_sensor_announce){.state = VMIBUS_SENSOR_STATE_READY, .groups = GROUPS, .name = "playing"};
    stream_say(&sensor->stream, &announce, NULL, 0);
}

void playing_sensor_disconnect(struct playing_sensor *sensor) {
    stream_close(&sensor->stream);
    memset(sensor->vms, 0, sizeof(sensor->vms));
    sensor->n_commands = 0;
}

void playing_sensor_offer(struct playing_sensor *sensor, unsigned vm, uint8_t choice) {
    static const char *const names[] = {"a-vm", "b-vm", "vm-a", "vm-b"};
    struct vmibus_frame frame = frame_of(sensor, vm, VMIBUS_KIND_ENDPOINT_OFFER);

    if (is_offered(sensor, vm))
        return;
    frame.endpoint_offer = (struct vmibus_endpoint_offer){.uuid = {choice & 3}, .groups = choice & 4 ? GROUPS : choice >> 1};
    stream_say(&sensor->stream, &frame, names[vm], strlen(names[vm]));
}

static void forget_commands(struct playing_sensor *sensor, const struct sensor_vm *vm) {
    unsigned kept = 0;

    for (unsigned i = 0; i < sensor->n_commands; i++)
        if (sensor->commands[i].slot != vm->slot || sensor->commands[i].generation != vm->generation)
            sensor->commands[kept++] = sensor->commands[i];
    sensor->n_commands = kept;
}

void playing_sensor_withdraw(struct playing_sensor *sensor, unsigned vm) {
    struct vmibus_frame frame = frame_of(sensor, vm, VMIBUS_KIND_ENDPOINT_WITHDRAW);
    struct sensor_vm gone = sensor->vms[vm];

    if (!is_offered(sensor, vm))
        return;
    frame.endpoint_withdraw.reason = VMIBUS_REASON_EXIT;
    stream_say(&sensor->stream, &frame, NULL, 0);
    /* Two offers may have turned out to be one VM. */
    for (unsigned i = 0; i < SENSOR_VMS; i++)
        if (sensor->vms[i].slot == gone.slot && sensor->vms[i].generation == gone.generation)
            sensor->vms[i] = (struct sensor_vm){};
    forget_commands(sensor, &gone);
}

void playing_sensor_say(struct playing_sensor *sensor, unsigned vm, struct vmibus_frame *frame, const void *tail,
                        size_t tail_length) {
    const struct vmibus_frame header = frame_of(sensor, vm, (enum vmibus_kind)frame->header.kind);

    frame->header = header.header;
    stream_say(&sensor->stream, frame, tail, tail_length);
}

void playing_sensor_propose_layout(struct playing_sensor *sensor, unsigned vm, uint8_t choice) {
    struct vmibus_frame frame = frame_of(sensor, vm, VMIBUS_KIND_MEM_LAYOUT);
    struct vmibus_layout_range ranges[STUB_RANGES_MAXIMUM] = {};
    size_t n = stub_ram_ranges(ram, ranges);

    if (!is_offered(sensor, vm))
        return;
    if (choice & 1)
        ranges[0].len += STUB_LARGE_PAGE;
    if (choice & 2)
        ranges[0].object = 1;
    if (choice & 4)
        ranges[0].gpa = UINT64_MAX - STUB_PAGE;
    frame.mem_layout.range_count = (uint16_t)n;
    frame.header.fd_count = 1;
    frame.header.tail_length = (uint32_t)(n * sizeof(ranges[0]));
    stream_put(&sensor->stream, &frame, sizeof(frame), ram->fds, 1);
    stream_put(&sensor->stream, ranges, frame.header.tail_length, NULL, 0);
}

void playing_sensor_propose_root(struct playing_sensor *sensor, unsigned vm, uint8_t choice) {
    struct vmibus_frame frame = frame_of(sensor, vm, VMIBUS_KIND_MEM_ROOT);

    frame.mem_root = (struct vmibus_mem_root){
        .epoch = sensor->vms[vm].epoch,
        .cr3 = stub_swapper_gpa(0) + (choice & 1 ? STUB_PAGE : 0),
        .note = stub_note_gpa(0) + (choice & 2 ? STUB_PAGE : 0),
        .note_len = choice & 4 ? UINT32_MAX : note_len,
        .vcpu_cr3 = stub_vcpu_cr3(0, 0),
        .probe_gva = stub_swapper_gva(0, 0),
        .levels = stub_levels(0),
        .confidence = VMIBUS_CONFIDENCE_PROVEN,
    };
    if (is_offered(sensor, vm))
        stream_say(&sensor->stream, &frame, NULL, 0);
}

void playing_sensor_answer(struct playing_sensor *sensor, enum vmibus_error error) {
    struct vmibus_frame frame = fuzz_frame(VMIBUS_KIND_ACK, VMIBUS_DIRECTION_UP);

    if (!sensor->n_commands)
        return;
    frame.header.slot = sensor->commands[0].slot;
    frame.header.generation = sensor->commands[0].generation;
    frame.header.correlation = sensor->commands[0].correlation;
    frame.ack = (struct vmibus_ack){.error = (uint16_t)error, .command = sensor->commands[0].kind, .count = 1};
    stream_say(&sensor->stream, &frame, NULL, 0);
    sensor->n_commands--;
    memmove(sensor->commands, sensor->commands + 1, sensor->n_commands * sizeof(sensor->commands[0]));
}

/* --- what it is sent ------------------------------------------------------------------------------ */

static void hear_answer(struct playing_sensor *sensor, const struct vmibus_frame *frame) {
    struct sensor_vm *vm = &sensor->vms[frame->header.correlation % SENSOR_VMS];

    if (frame->ack.error != VMIBUS_ERROR_OK)
        return;
    if (frame->ack.command == VMIBUS_KIND_ENDPOINT_OFFER)
        *vm = (struct sensor_vm){.slot = frame->header.slot, .generation = frame->header.generation};
    else if (frame->ack.command == VMIBUS_KIND_MEM_LAYOUT)
        vm->epoch = frame->ack.epoch;
}

static void check_token(const struct playing_sensor *sensor, const struct vmibus_frame *frame) {
    enum vmibus_lease_class lease_class = VMIBUS_LEASE_CLASS_POWER;
    uint64_t token;

    if (frame->header.kind == VMIBUS_KIND_CMD_INPUT) {
        lease_class = VMIBUS_LEASE_CLASS_INPUT;
        token = frame->cmd_input.token;
    } else if (frame->header.kind == VMIBUS_KIND_CMD_POWER) {
        token = frame->cmd_power.token;
    } else if (frame->header.kind == VMIBUS_KIND_CMD_VM && frame->cmd_vm.operation <= VMIBUS_VM_OPERATION_RESUME) {
        token = frame->cmd_vm.token;
    } else {
        return;
    }
    if (book_has_ended(sensor->book, &frame->header, lease_class, token))
        fuzz_fail("peers", "a command under a token that has ended");
}

static bool is_mine(const struct playing_sensor *sensor, const struct vmibus_header *header) {
    for (unsigned i = 0; i < SENSOR_VMS; i++)
        if (sensor->vms[i].slot == header->slot && sensor->vms[i].generation == header->generation)
            return true;
    return false;
}

static void hear_command(struct playing_sensor *sensor, const struct vmibus_frame *frame) {
    const struct vmibus_header *header = &frame->header;

    if (header->kind == VMIBUS_KIND_CANCEL || header->kind == VMIBUS_KIND_DEMAND || header->kind == VMIBUS_KIND_ACTIVE ||
        header->kind == VMIBUS_KIND_MEM_RETIRED)
        return;
    check_token(sensor, frame);
    if (header->slot && !is_mine(sensor, header))
        fuzz_fail("peers", "a command for a VM that the sensor does not have");
    if (sensor->n_commands < SENSOR_COMMANDS)
        sensor->commands[sensor->n_commands++] = *header;
}

void playing_sensor_hear(struct playing_sensor *sensor) {
    struct vmibus_frame frame;
    const uint8_t *tail;

    stream_receive(&sensor->stream);
    while (stream_next(&sensor->stream, &frame, &tail)) {
        if (frame.header.kind == VMIBUS_KIND_ACK)
            hear_answer(sensor, &frame);
        else if (frame.header.direction == VMIBUS_DIRECTION_DOWN)
            hear_command(sensor, &frame);
    }
}
