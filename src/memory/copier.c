/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/copier.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "memory/reader.h"
#include "util/thread.h"

/* A piece takes microseconds, falling asleep and waking up more: so often somebody looks before that. */
#define LOOKS 64u

struct copier {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool stopping;
    const struct write *write;  /* NULL: none */
    size_t next;                /* the first piece that nobody has begun */
    size_t working;             /* the piece that the thread copies; SIZE_MAX: none */
    int result;                 /* of the piece that could not be copied: none after it is begun here */
    uint8_t room[COPIER_ROOM];
};

#define NOTHING SIZE_MAX

static int copy_piece(const struct write *write, size_t index) {
    const struct write_piece *piece = &write->pieces[index];

    return memory_read_range(write->memctx, piece->range, piece->skip, write->copy + piece->at, piece->len);
}

/* --- the thread; all under mutex ---------------------------------------------------------------- */

static bool has_work(const struct copier *copier) {
    return copier->write && copier->result == 0 && copier->next < copier->write->n_pieces;
}

static void work_once(struct copier *copier) {
    const struct write *write = copier->write;
    size_t index = copier->next++;
    int r;

    copier->working = index;
    pthread_mutex_unlock(&copier->mutex);
    r = copy_piece(write, index);
    pthread_mutex_lock(&copier->mutex);
    copier->working = NOTHING;
    copier->result = r;
    if (r)
        copier->next = index; /* the writer comes upon it by itself */
    pthread_cond_broadcast(&copier->changed);
}

static void *work(void *data) {
    struct copier *copier = data;

    pthread_mutex_lock(&copier->mutex);
    while (!copier->stopping) {
        if (has_work(copier))
            work_once(copier);
        else
            pthread_cond_wait(&copier->changed, &copier->mutex);
    }
    pthread_mutex_unlock(&copier->mutex);
    return NULL;
}

static void release(struct copier *copier) {
    pthread_cond_destroy(&copier->changed);
    pthread_mutex_destroy(&copier->mutex);
    free(copier);
}

int copier_new(struct copier **copierp) {
    struct copier *copier = calloc(1, sizeof(*copier));
    int r;

    if (!copier)
        return -ENOMEM;
    pthread_mutex_init(&copier->mutex, NULL);
    pthread_cond_init(&copier->changed, NULL);
    copier->working = NOTHING;
    r = thread_start(&copier->thread, work, copier);
    if (r < 0) {
        release(copier);
        return r;
    }
    *copierp = copier;
    return 0;
}

struct copier *copier_free(struct copier *copier) {
    if (!copier)
        return NULL;
    pthread_mutex_lock(&copier->mutex);
    copier->stopping = true;
    pthread_cond_broadcast(&copier->changed);
    pthread_mutex_unlock(&copier->mutex);
    pthread_join(copier->thread, NULL);
    release(copier);
    return NULL;
}

uint8_t *copier_room(struct copier *copier) {
    return copier->room;
}

/* --- the writer --------------------------------------------------------------------------------- */

void copier_begin(struct copier *copier, const struct write *write) {
    pthread_mutex_lock(&copier->mutex);
    copier->write = write;
    copier->next = 0;
    copier->result = 0;
    pthread_cond_broadcast(&copier->changed);
    pthread_mutex_unlock(&copier->mutex);
}

/* Waits, under mutex, until the thread does not copy that piece. */
static void wait_for(struct copier *copier, size_t piece) {
    for (unsigned i = 0; i < LOOKS && copier->working == piece; i++) {
        pthread_mutex_unlock(&copier->mutex);
        sched_yield();
        pthread_mutex_lock(&copier->mutex);
    }
    while (copier->working == piece)
        pthread_cond_wait(&copier->changed, &copier->mutex);
}

int copier_wait(struct copier *copier, size_t piece) {
    const struct write *write;
    bool copied;

    pthread_mutex_lock(&copier->mutex);
    write = copier->write;
    wait_for(copier, piece);
    copied = copier->next > piece;
    if (!copied)
        copier->next = piece + 1;
    pthread_mutex_unlock(&copier->mutex);
    return copied ? 0 : copy_piece(write, piece);
}

void copier_end(struct copier *copier) {
    pthread_mutex_lock(&copier->mutex);
    copier->write = NULL;
    while (copier->working != NOTHING)
        pthread_cond_wait(&copier->changed, &copier->mutex);
    pthread_mutex_unlock(&copier->mutex);
}
