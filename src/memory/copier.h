/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copying ahead of a long write what it is about to overwrite, so that it can be undone.
 *
 * A thread copies piece after piece while the writer writes those that are copied.  The writer waits for
 * no thread that has not run yet: a piece that nobody has begun it copies itself, so with one processor
 * all is as if there were no second thread.  What a failed write leaves is put back from the last piece
 * to the first; so it does not matter that a piece which overlaps one before it may be copied while that
 * one is being overwritten.
 *
 * One write at a time.  Every function is the writer's.
 */
#ifndef MEMORY_COPIER_H
#define MEMORY_COPIER_H

#include <stddef.h>
#include <stdint.h>

#include "memory/write.h"

/** Writes of fewer octets are not worth a second thread. */
#define COPIER_WORTH (256u << 10)

/** Octets that a copier has room for; who writes more brings room of its own. */
#define COPIER_ROOM (1u << 20)

/** Starts a thread. 0 or a negative errno. */
int copier_new(struct copier **copierp);

/** Ends it. Takes and returns NULL. */
struct copier *copier_free(struct copier *copier);

/** COPIER_ROOM octets, which stay resident: fresh memory would cost more than copying. */
uint8_t *copier_room(struct copier *copier);

/** Begins to copy the pieces of a write, which is planned and stays as it is until copier_end(). */
void copier_begin(struct copier *copier, const struct write *write);

/**
 * Sees to it that a piece is copied. Pieces are asked for in order.
 * @return 0, or what memory_read_range() says of it
 */
int copier_wait(struct copier *copier, size_t piece);

/** Nothing is copied any more. */
void copier_end(struct copier *copier);

#endif
