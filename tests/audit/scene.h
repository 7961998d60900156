/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A recorder on an intents log and a directory of a test's own. */
#ifndef TESTS_AUDIT_SCENE_H
#define TESTS_AUDIT_SCENE_H

#include <stdint.h>

#include "audit/recorder.h"
#include "audit/verify.h"
#include "util/audit.h"
#include "util/loop.h"

struct scene {
    char path[64];          /* of the directory */
    int directory;
    int log_fd;             /* a memfd */
    uint64_t capacity;
    uint32_t incarnation;
    uint32_t uid;           /* whose the commands are */
    struct loop *loop;
    struct audit audit;
    struct recorder recorder;
    struct recorder_options options; /* taken by scene_begin() */
};

/* A new directory, an empty log; nothing is recorded yet. */
void scene_init(struct scene *scene, uint64_t capacity);

/* Removes all of it. */
void scene_deinit(struct scene *scene);

/* A writer begins, with the next incarnation. */
void scene_begin(struct scene *scene);

/* It ends as it should. */
void scene_end(struct scene *scene);

/* It is gone as by SIGKILL: what was not written is not. */
void scene_crash(struct scene *scene);

/* A command that was executed. Its sequence. */
uint64_t scene_command(struct scene *scene, uint64_t correlation);

/* Only its beginning. */
uint64_t scene_intent(struct scene *scene, uint64_t correlation);

/* Dispatches until everything that was recorded so far is on the disk. */
void scene_settle(struct scene *scene);

/* Verifies the chain, which must be there. */
struct verify_result scene_verify(const struct scene *scene);

/* The octets of a file of the chain; the caller frees them. */
uint8_t *scene_load(const struct scene *scene, uint64_t segment, size_t *size);

/* Replaces them. */
void scene_store(const struct scene *scene, uint64_t segment, const uint8_t *octets, size_t size);

#endif
