/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz/player.h"

#include <string.h>

#include "fuzz/world.h"

/* --- the book of leases ---------------------------------------------------------------------------- */

static bool is_of(const struct book_entry *entry, const struct vmibus_header *vm, unsigned lease_class) {
    return entry->slot == vm->slot && entry->generation == vm->generation && entry->lease_class == lease_class;
}

bool book_has_ended(const struct book *book, const struct vmibus_header *vm, enum vmibus_lease_class lease_class, uint64_t token) {
    for (unsigned i = 0; i < book->n; i++)
        if (is_of(&book->entries[i], vm, lease_class) && book->entries[i].token == token)
            return book->entries[i].ended;
    return true; /* nobody was ever given it */
}

static void book_add(struct book *book, const struct vmibus_header *vm, unsigned lease_class, uint64_t token) {
    for (unsigned i = 0; i < book->n; i++)
        if (is_of(&book->entries[i], vm, lease_class) && book->entries[i].token == token)
            fuzz_fail("peers", "a token was given twice");
    if (book->n < BOOK_TOKENS)
        book->entries[book->n++] = (struct book_entry){
            .slot = vm->slot, .lease_class = (uint8_t)lease_class, .generation = vm->generation, .token = token};
}

/* Ends all up to a token: whoever got a higher one got it when those below were over. */
static void book_end(struct book *book, const struct vmibus_header *vm, unsigned lease_class, uint64_t last) {
    for (unsigned i = 0; i < book->n; i++)
        if (is_of(&book->entries[i], vm, lease_class) && book->entries[i].token <= last)
            book->entries[i].ended = true;
}

/* --- what it is told ----------------------------------------------------------------------------- */

static void hear_lease(struct player *player, const struct vmibus_frame *frame) {
    const struct vmibus_lease *lease = &frame->lease;
    uint64_t last = lease->state == VMIBUS_LEASE_STATE_HELD ? lease->token - 1 : lease->token;

    if (lease->token)
        book_end(player->book, &frame->header, lease->lease_class, last);
}

/* What was answered is in the low octets of the correlation: class and operation. */
static void hear_answer(struct player *player, const struct vmibus_frame *frame) {
    uint64_t number = frame->header.correlation >> 8;
    unsigned lease_class = frame->header.correlation & 15, operation = frame->header.correlation >> 4 & 15;

    if (number < player->first || number > player->correlation)
        fuzz_fail("peers", "an answer to what was not asked on this connection");
    if (number < PLAYER_COMMANDS && player->answered[number]++)
        fuzz_fail("peers", "a second answer");
    if (frame->ack.command != VMIBUS_KIND_CMD_LEASE || frame->ack.error != VMIBUS_ERROR_OK || lease_class >= CLASSES)
        return;
    if (operation == VMIBUS_LEASE_OPERATION_ACQUIRE) {
        book_add(player->book, &frame->header, lease_class, frame->ack.token);
        player->tokens[lease_class][1] = player->tokens[lease_class][0];
        player->tokens[lease_class][0] = frame->ack.token;
    }
}

void player_hear(struct player *player) {
    struct vmibus_frame frame;
    const uint8_t *tail;

    if (player->deaf)
        return;
    stream_receive(&player->stream);
    while (stream_next(&player->stream, &frame, &tail)) {
        if (frame.header.delivery != ++player->delivery)
            fuzz_fail("peers", "there is a hole in the deliveries");
        if (frame.header.kind == VMIBUS_KIND_ACK)
            hear_answer(player, &frame);
        else if (frame.header.kind == VMIBUS_KIND_LEASE)
            hear_lease(player, &frame);
        else if (frame.header.kind == VMIBUS_KIND_MEMCTX)
            player->epoch = frame.memctx.epoch;
    }
}

/* --- what it does -------------------------------------------------------------------------------- */

static void prepare(struct player *player, struct vmibus_frame *frame) {
    frame->header.correlation = ++player->correlation << 8;
    if (frame->header.kind == VMIBUS_KIND_CMD_LEASE)
        frame->header.correlation |= (uint64_t)(frame->cmd_lease.operation << 4) | frame->cmd_lease.lease_class;
}

void player_connect_consume_fd(struct player *player, int fd) {
    struct vmibus_frame hello = fuzz_hello(VMIBUS_ROLE_CONTROL, VMIBUS_CHANNEL_BUS);

    stream_open_consume_fd(&player->stream, fd);
    player->delivery = 0;
    player->n_half = 0;
    player->first = player->correlation + 1;
    stream_say(&player->stream, &hello, NULL, 0);
}

void player_disconnect(struct player *player) {
    stream_close(&player->stream);
}

void player_give(struct player *player, struct vmibus_frame *frame, const void *tail, size_t tail_length) {
    stream_put(&player->stream, player->half, player->n_half, NULL, 0);
    player->n_half = 0;
    prepare(player, frame);
    stream_say(&player->stream, frame, tail, tail_length);
}

void player_begin(struct player *player, struct vmibus_frame *frame, size_t n) {
    if (player->n_half)
        return;
    prepare(player, frame);
    stream_put(&player->stream, frame, n, NULL, 0);
    player->n_half = sizeof(*frame) - n;
    memcpy(player->half, (const uint8_t *)frame + n, player->n_half);
}
