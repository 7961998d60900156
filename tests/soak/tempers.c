/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "soak/tempers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stub/stub_map.h"

#define EVERYTHING (VMIBUS_KIND_BIT(VMIBUS_KIND_WATCH_CHANGED) * 2 - 1)
#define REAL_GPA UINT64_C(0x4000000) /* guests are told to leave it free: guests.c */
#define PROOF_OFFSET 0x8000u        /* behind what is anybody's: each client has 8 octets of its own there */
#define LONG 8000u
#define BUFFER_SIZE 16384u

/* --- what several do ------------------------------------------------------------------------------ */

static void subscribe(struct client *client, uint64_t kinds) {
    struct vmibus_frame frame;

    client->slot = 0;
    frame = client_command(client, VMIBUS_KIND_SUBSCRIBE);
    frame.subscribe.kinds = kinds;
    client_give(client, &frame, "*", 1);
}

/* Another VM each time: one that stays, or one that comes and goes. False: there is none. */
static bool choose_vm(struct client *client, bool churns) {
    unsigned begin = (client->slot + client->number + 1) % CLIENT_SLOTS;

    for (unsigned i = 0; i < CLIENT_SLOTS; i++) {
        unsigned slot = (begin + i) % CLIENT_SLOTS;

        if (slot && soak_vms[slot].present && soak_vms[slot].epoch && soak_vms[slot].churns == churns) {
            client->slot = slot;
            return true;
        }
    }
    return false;
}

/* Shared by all writers, and what watchers look at. */
static uint64_t word_gpa(const struct client *client) {
    return soak_vms[client->slot].real ? REAL_GPA : STUB_FREE_GPA;
}

/* Anybody's. */
static uint64_t octets_gpa(const struct client *client) {
    return soak_vms[client->slot].real ? REAL_GPA + STUB_PAGE : STUB_LARGE_GPA;
}

static void lease(struct client *client, enum vmibus_lease_class lease_class, enum vmibus_lease_operation operation,
                  enum vmibus_lease_mode mode, uint32_t ttl_ms) {
    struct vmibus_frame frame = client_command(client, VMIBUS_KIND_CMD_LEASE);

    frame.cmd_lease = (struct vmibus_cmd_lease){.token = operation == VMIBUS_LEASE_OPERATION_ACQUIRE ? 0 : client->token,
                                                .ttl_ms = ttl_ms,
                                                .operation = (uint8_t)operation,
                                                .lease_class = (uint8_t)lease_class,
                                                .mode = (uint8_t)mode};
    client_give(client, &frame, NULL, 0);
}

/* A token is given once, and each is higher than the one before. */
static bool took_lease(struct client *client, const struct vmibus_frame *command, const struct vmibus_frame *answer) {
    struct soak_vm *vm = &soak_vms[command->header.slot];
    uint64_t *highest = &vm->highest[command->cmd_lease.lease_class % CLIENT_CLASSES];

    if (answer->ack.error || command->cmd_lease.operation != VMIBUS_LEASE_OPERATION_ACQUIRE)
        return false;
    client->token = answer->ack.token;
    if (command->header.generation != vm->generation)
        return true;
    if (client->token == *highest) {
        fprintf(stderr, "token %llu was given twice\n", (unsigned long long)client->token);
        tally.duplicated++;
    }
    if (client->token > *highest)
        *highest = client->token;
    return true;
}

static struct vmibus_frame write_command(const struct client *client, uint64_t gpa, uint32_t len, uint32_t flags) {
    struct vmibus_frame frame = client_command(client, VMIBUS_KIND_CMD_MEMWRITE);

    frame.cmd_memwrite = (struct vmibus_cmd_memwrite){.gva = gpa,
                                                      .len = len,
                                                      .flags = VMIBUS_MEMWRITE_PHYSICAL | flags,
                                                      .token = client->token,
                                                      .epoch = soak_vms[client->slot].epoch};
    return frame;
}

/* --- those that watch ----------------------------------------------------------------------------- */

static void act_subscriber(struct client *client) {
    if (client->phase++ == 0)
        subscribe(client, EVERYTHING);
}

/* Refused where there was no memory for it. */
static void subscriber_answered(struct client *client, const struct vmibus_frame *command, const struct vmibus_frame *answer) {
    (void)command;
    client->phase = answer->ack.error == VMIBUS_ERROR_OK;
}

static const struct temper fast = {.name = "fast", .every_ms = 100, .act = act_subscriber, .answered = subscriber_answered};
static const struct temper slow = {
    .name = "slow", .every_ms = 50, .reads = 4096, .act = act_subscriber, .answered = subscriber_answered};
static const struct temper deaf = {.name = "deaf", .every_ms = 100, .deaf = true, .act = act_subscriber};

/* --- those that fight for leases -------------------------------------------------------------------- */

/* Acquire, type, release; each in another mode, all of them against each other. */
static void act_fighter(struct client *client) {
    struct vmibus_frame frame;

    if (client->n_pending || (client->phase == 0 && !choose_vm(client, false)))
        return;
    if (client->phase == 0) {
        lease(client, VMIBUS_LEASE_CLASS_INPUT, VMIBUS_LEASE_OPERATION_ACQUIRE,
              (enum vmibus_lease_mode)(VMIBUS_LEASE_MODE_FAIL + client->number % 3), client->number % 2 ? 200 : 0);
    } else if (client->phase < 4) {
        frame = client_command(client, VMIBUS_KIND_CMD_INPUT);
        frame.cmd_input = (struct vmibus_cmd_input){.token = client->token, .count = 1};
        frame.cmd_input.events[0] =
            (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = 30, .value = client->phase & 1};
        client_give(client, &frame, NULL, 0);
        client->phase++;
    } else {
        lease(client, VMIBUS_LEASE_CLASS_INPUT, VMIBUS_LEASE_OPERATION_RELEASE, VMIBUS_LEASE_MODE_FAIL, 0);
        client->phase = 0;
    }
}

static void fighter_answered(struct client *client, const struct vmibus_frame *command, const struct vmibus_frame *answer) {
    if (command->header.kind != VMIBUS_KIND_CMD_LEASE)
        client->phase = answer->ack.error ? 0 : client->phase;
    else if (took_lease(client, command, answer))
        client->phase = 1;
}

static const struct temper fighter = {.name = "fighter", .every_ms = 3, .act = act_fighter, .answered = fighter_answered};

/* Ends VMs, which come again. */
static void act_churner(struct client *client) {
    struct vmibus_frame frame;

    if (client->n_pending)
        return;
    if (client->phase == 0 && choose_vm(client, true)) {
        lease(client, VMIBUS_LEASE_CLASS_POWER, VMIBUS_LEASE_OPERATION_ACQUIRE, VMIBUS_LEASE_MODE_QUEUE, 1000);
    } else if (client->phase == 1) {
        frame = client_command(client, VMIBUS_KIND_CMD_POWER);
        frame.cmd_power = (struct vmibus_cmd_power){.token = client->token, .operation = VMIBUS_POWER_OPERATION_QUIT};
        client_give(client, &frame, NULL, 0);
        client->phase = 0;
    }
}

static void churner_answered(struct client *client, const struct vmibus_frame *command, const struct vmibus_frame *answer) {
    if (command->header.kind == VMIBUS_KIND_CMD_LEASE && took_lease(client, command, answer))
        client->phase = 1;
}

static const struct temper churner = {.name = "churner", .every_ms = 150, .act = act_churner, .answered = churner_answered};

/* --- those that write ------------------------------------------------------------------------------ */

#define WRITES_IN_A_ROW 16

/* The first write of an epoch sets the word; each later one counts it up, if it is what it has to be. */
static void count_word(struct client *client) {
    struct soak_vm *vm = &soak_vms[client->slot];
    bool first = vm->word_epoch != vm->epoch;
    struct vmibus_frame frame = write_command(client, word_gpa(client), sizeof(vm->word), first ? 0 : VMIBUS_MEMWRITE_EXPECT);
    uint64_t next = first ? 1 : vm->word + 1;

    memcpy(frame.cmd_memwrite.data, &vm->word, sizeof(vm->word));
    memcpy(frame.cmd_memwrite.data + (first ? 0 : sizeof(next)), &next, sizeof(next));
    client->number_given = next;
    client_give(client, &frame, NULL, 0);
}

static void word_answered(struct client *client, const struct vmibus_frame *command, const struct vmibus_ack *ack) {
    struct soak_vm *vm = &soak_vms[command->header.slot];

    if (ack->error == VMIBUS_ERROR_OK) {
        tally.writes++;
        vm->word = client->number_given;
        vm->word_epoch = command->cmd_memwrite.epoch;
    } else if (ack->reason == VMIBUS_REASON_TARGET_CHANGED && vm->word_epoch == command->cmd_memwrite.epoch) {
        fprintf(stderr, "the word of slot %u is not %llu: a write was lost, or made twice\n", command->header.slot,
                (unsigned long long)vm->word);
        tally.lost++;
        vm->word_epoch = 0;
    }
}

static void act_writer(struct client *client) {
    if (client->n_pending)
        return;
    if (client->phase == 0 && choose_vm(client, false))
        lease(client, VMIBUS_LEASE_CLASS_MEMWRITE, VMIBUS_LEASE_OPERATION_ACQUIRE, VMIBUS_LEASE_MODE_QUEUE, 0);
}

static void writer_answered(struct client *client, const struct vmibus_frame *command, const struct vmibus_frame *answer) {
    if (command->header.kind == VMIBUS_KIND_CMD_LEASE) {
        client->phase = took_lease(client, command, answer);
    } else {
        word_answered(client, command, &answer->ack);
        client->phase = answer->ack.error ? WRITES_IN_A_ROW + 1 : client->phase + 1;
    }
    if (client->phase > WRITES_IN_A_ROW) {
        lease(client, VMIBUS_LEASE_CLASS_MEMWRITE, VMIBUS_LEASE_OPERATION_RELEASE, VMIBUS_LEASE_MODE_FAIL, 0);
        client->phase = 0;
    } else if (client->phase) {
        count_word(client);
    }
}

static const struct temper writer = {.name = "writer", .every_ms = 2, .act = act_writer, .answered = writer_answered};

static void write_table(struct client *client) {
    struct {
        struct vmibus_write_extent extents[8];
        uint64_t octets[8];
    } tail = {};
    const struct vmibus_memwrite_source source = {.extents = 8};
    struct vmibus_frame frame = write_command(client, 0, sizeof(tail.octets), VMIBUS_MEMWRITE_TABLE);

    for (unsigned i = 0; i < 8; i++) {
        tail.extents[i] = (struct vmibus_write_extent){.gva = octets_gpa(client) + i * STUB_PAGE, .len = 8};
        tail.octets[i] = client->correlation;
    }
    memcpy(frame.cmd_memwrite.data, &source, sizeof(source));
    client_give(client, &frame, &tail, sizeof(tail));
}

static void write_payload(struct client *client) {
    struct vmibus_frame frame = write_command(client, octets_gpa(client), LONG, VMIBUS_MEMWRITE_SRC_PAYLOAD);
    static const uint8_t octets[LONG];

    client_give(client, &frame, octets, LONG);
}

static void write_buffer(struct client *client) {
    const struct vmibus_memwrite_source source = {.buffer = 1};
    struct vmibus_frame frame = write_command(client, octets_gpa(client), BUFFER_SIZE, VMIBUS_MEMWRITE_SRC_BUFFER);

    memcpy(frame.cmd_memwrite.data, &source, sizeof(source));
    client_give(client, &frame, NULL, 0);
}

static void use_buffer(struct client *client, enum vmibus_buffer_operation operation) {
    uint32_t slot = client->slot;
    struct vmibus_frame frame;

    client->slot = 0;
    frame = client_command(client, VMIBUS_KIND_BUFFER);
    client->slot = slot;
    frame.buffer = (struct vmibus_buffer){.size = BUFFER_SIZE, .buffer = 1, .operation = (uint8_t)operation};
    client_give(client, &frame, NULL, 0);
}

/* A table, a payload, a buffer, all of which others write too. */
static void act_bulk(struct client *client) {
    if (client->n_pending)
        return;
    if (client->phase == 0 && choose_vm(client, false))
        lease(client, VMIBUS_LEASE_CLASS_MEMWRITE, VMIBUS_LEASE_OPERATION_ACQUIRE, VMIBUS_LEASE_MODE_QUEUE, 0);
    else if (client->phase == 1) {
        use_buffer(client, VMIBUS_BUFFER_OPERATION_ALLOCATE);
        write_table(client);
        write_payload(client);
        write_buffer(client);
        use_buffer(client, VMIBUS_BUFFER_OPERATION_FREE);
        lease(client, VMIBUS_LEASE_CLASS_MEMWRITE, VMIBUS_LEASE_OPERATION_RELEASE, VMIBUS_LEASE_MODE_FAIL, 0);
        client->phase = 0;
    }
}

static void bulk_answered(struct client *client, const struct vmibus_frame *command, const struct vmibus_frame *answer) {
    if (command->header.kind == VMIBUS_KIND_CMD_LEASE)
        client->phase = took_lease(client, command, answer) ? 1 : client->phase;
    tally.writes += command->header.kind == VMIBUS_KIND_CMD_MEMWRITE && !answer->ack.error;
}

static const struct temper bulk = {.name = "bulk", .every_ms = 5, .act = act_bulk, .answered = bulk_answered};

/* --- those that write and read back ---------------------------------------------------------------- */

enum { PROOF_LEASE, PROOF_BUFFER, PROOF_WRITE, PROOF_READ, PROOF_END };

static uint64_t proof_gpa(const struct client *client) {
    return octets_gpa(client) + PROOF_OFFSET + 8 * client->number;
}

static void write_proof(struct client *client) {
    struct vmibus_frame frame = write_command(client, proof_gpa(client), sizeof(client->number_given), 0);

    client->number_given = client->correlation << 8 | client->number;
    memcpy(frame.cmd_memwrite.data, &client->number_given, sizeof(client->number_given));
    client_give(client, &frame, NULL, 0);
}

static void read_proof(struct client *client, uint64_t epoch) {
    struct vmibus_frame frame = client_command(client, VMIBUS_KIND_MEM_READ);

    frame.mem_read = (struct vmibus_mem_read){.gva = proof_gpa(client),
                                              .epoch = epoch,
                                              .len = sizeof(client->number_given),
                                              .buffer = 1,
                                              .flags = VMIBUS_MEMREAD_PHYSICAL};
    client_give(client, &frame, NULL, 0);
}

/* In the epoch that it was written in nobody else writes there. */
static void look_at_proof(struct client *client) {
    uint64_t number = 0;

    if (client->kept_fd < 0 || pread(client->kept_fd, &number, sizeof(number), 0) != sizeof(number))
        return;
    tally.proofs++;
    if (number == client->number_given)
        return;
    fprintf(stderr, "slot %u has %#llx where %#llx was written\n", client->slot, (unsigned long long)number,
            (unsigned long long)client->number_given);
    tally.lost++;
}

static void act_prover(struct client *client) {
    if (client->n_pending || client->phase != PROOF_LEASE || !choose_vm(client, false))
        return;
    lease(client, VMIBUS_LEASE_CLASS_MEMWRITE, VMIBUS_LEASE_OPERATION_ACQUIRE, VMIBUS_LEASE_MODE_QUEUE, 0);
}

static void end_proof(struct client *client) {
    client->phase = PROOF_END;
    client_drop_fd(client);
    use_buffer(client, VMIBUS_BUFFER_OPERATION_FREE);
    lease(client, VMIBUS_LEASE_CLASS_MEMWRITE, VMIBUS_LEASE_OPERATION_RELEASE, VMIBUS_LEASE_MODE_FAIL, 0);
}

/* A buffer, the write, the read into it; whatever is refused ends it. */
static void prover_answered(struct client *client, const struct vmibus_frame *command, const struct vmibus_frame *answer) {
    bool good = answer->ack.error == VMIBUS_ERROR_OK;

    if (client->phase == PROOF_END) {
        client->phase = client->n_pending ? PROOF_END : PROOF_LEASE;
    } else if (client->phase == PROOF_LEASE) {
        if (!took_lease(client, command, answer))
            return;
        client->phase = PROOF_BUFFER;
        client->keeps_fd = true;
        use_buffer(client, VMIBUS_BUFFER_OPERATION_ALLOCATE);
    } else if (!good || client->phase == PROOF_READ) {
        if (good)
            look_at_proof(client);
        end_proof(client);
    } else if (client->phase == PROOF_BUFFER) {
        client->phase = PROOF_WRITE;
        write_proof(client);
    } else {
        client->phase = PROOF_READ;
        tally.writes++;
        read_proof(client, command->cmd_memwrite.epoch);
    }
}

static const struct temper prover = {.name = "prover", .every_ms = 4, .act = act_prover, .answered = prover_answered};

/* --- those that look ------------------------------------------------------------------------------- */

static void act_watcher(struct client *client) {
    struct vmibus_frame frame;

    if (client->n_pending || (client->phase == 0 && !choose_vm(client, false)))
        return;
    frame = client_command(client, VMIBUS_KIND_WATCH);
    if (client->phase == 0)
        frame.watch = (struct vmibus_watch){.address = word_gpa(client),
                                            .len = 64,
                                            .flags = VMIBUS_WATCH_PHYSICAL,
                                            .operation = VMIBUS_WATCH_OPERATION_ADD};
    else
        frame.watch = (struct vmibus_watch){.watch = client->phase, .operation = VMIBUS_WATCH_OPERATION_REMOVE};
    client_give(client, &frame, NULL, 0);
}

static void watcher_answered(struct client *client, const struct vmibus_frame *command, const struct vmibus_frame *answer) {
    bool added = command->watch.operation == VMIBUS_WATCH_OPERATION_ADD && !answer->ack.error;

    client->phase = added ? (unsigned)answer->ack.value : 0;
}

static const struct temper watcher = {.name = "watcher", .every_ms = 300, .act = act_watcher, .answered = watcher_answered};

static void act_holder(struct client *client) {
    struct vmibus_frame frame;

    if (client->n_pending || (client->phase == 0 && !choose_vm(client, false)))
        return;
    frame = client_command(client, VMIBUS_KIND_CMD_VM);
    frame.cmd_vm.operation = client->phase ? VMIBUS_VM_OPERATION_LET_GO : VMIBUS_VM_OPERATION_HOLD;
    client->phase = !client->phase;
    client_give(client, &frame, NULL, 0);
}

static const struct temper holder = {.name = "holder", .every_ms = 40, .holds = true, .act = act_holder};

static void act_reader(struct client *client) {
    struct vmibus_frame frame;

    if (client->n_pending || (client->phase == 0 && !choose_vm(client, client->number & 1)))
        return;
    frame = client_command(client, client->phase ? VMIBUS_KIND_MEM_RELEASE : VMIBUS_KIND_MEM_ATTACH);
    if (client->phase)
        frame.mem_release.epoch = client->token;
    client_give(client, &frame, NULL, 0);
}

static void reader_answered(struct client *client, const struct vmibus_frame *command, const struct vmibus_frame *answer) {
    client->phase = command->header.kind == VMIBUS_KIND_MEM_ATTACH && !answer->ack.error;
    client->token = answer->ack.epoch;
}

static const struct temper reader = {
    .name = "reader", .every_ms = 10, .holds = true, .act = act_reader, .answered = reader_answered};
/* Holds for longer than most epochs of VMs that come and go, and for less than it may. */
static const struct temper keeper = {
    .name = "keeper", .every_ms = 1500, .holds = true, .act = act_reader, .answered = reader_answered};

static void act_asker(struct client *client) {
    static const enum vmibus_kind kinds[] = {VMIBUS_KIND_QUERY, VMIBUS_KIND_EXPLAIN, VMIBUS_KIND_MEM_QUERY};
    struct vmibus_frame frame;

    if (client->n_pending)
        return;
    client->slot = 0;
    frame = client_command(client, kinds[client->phase++ % 3]);
    if (frame.header.kind == VMIBUS_KIND_EXPLAIN)
        frame.explain.uid = UINT32_MAX;
    else
        frame.query.query = 1; /* the first field of both */
    client_give(client, &frame, "stub-0", frame.header.kind == VMIBUS_KIND_EXPLAIN ? 6 : 0);
}

static const struct temper asker = {.name = "asker", .every_ms = 5, .act = act_asker};

/* --- those that behave badly ------------------------------------------------------------------------ */

/* Comes, subscribes, asks for what it does not wait for, and goes. */
static void act_passer(struct client *client) {
    if (client->phase == 0) {
        subscribe(client, EVERYTHING);
        if (choose_vm(client, client->number & 1))
            lease(client, VMIBUS_LEASE_CLASS_POWER, VMIBUS_LEASE_OPERATION_ACQUIRE, VMIBUS_LEASE_MODE_QUEUE, 0);
    }
    if (client->phase++ == 2)
        client_disconnect(client);
}

static const struct temper passer = {.name = "passer", .every_ms = 10, .outlaw = true, .act = act_passer};

/* Half a frame, now and then the rest of it. */
static void act_half(struct client *client) {
    struct vmibus_frame frame;

    client->slot = 0;
    frame = client_command(client, VMIBUS_KIND_CMD_MEMWRITE);
    frame.header.tail_length = 100000;
    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_SRC_PAYLOAD;
    frame.cmd_memwrite.len = 100000;
    if (client->phase++ == 0)
        client_send(client, &frame, client->number & 1 ? 60 : sizeof(frame));
    else if (client->phase == 4)
        client_disconnect(client);
}

static const struct temper half = {.name = "half", .every_ms = 20, .outlaw = true, .act = act_half};

static void act_garbage(struct client *client) {
    uint8_t octets[512];

    for (size_t i = 0; i < sizeof(octets); i++)
        octets[i] = (uint8_t)random();
    client_send(client, octets, 1 + (size_t)random() % sizeof(octets));
}

static const struct temper garbage = {.name = "garbage", .every_ms = 20, .outlaw = true, .act = act_garbage};

const struct temper *temper_of(unsigned client) {
    static const struct temper *const all[] = {
        &fast, &fighter, &slow,    &writer, &fast, &bulk, &deaf, &fighter, &watcher, &holder, &writer,
        &fast, &passer,  &churner, &reader, &half, &slow, &prover, &asker, &keeper,  &garbage,
    };

    return all[client % (sizeof(all) / sizeof(all[0]))];
}
