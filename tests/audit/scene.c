/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scene.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"
#include "util/clock.h"

void scene_init(struct scene *scene, uint64_t capacity) {
    *scene = (struct scene){.capacity = capacity, .uid = 1000};
    /* Memory is as good a disk for this as any, and quick. */
    strcpy(scene->path, "/dev/shm/vmibus-audit.XXXXXX");
    if (!mkdtemp(scene->path)) {
        strcpy(scene->path, "/tmp/vmibus-audit.XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(scene->path));
    }
    scene->directory = open(scene->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    scene->log_fd = memfd_create("log", MFD_CLOEXEC);
    ck_assert_int_ge(scene->log_fd, 0);
    scene->options = (struct recorder_options){
        .directory = scene->directory,
        .writer = "bus",
        .digest_bound = 4096,
        .segment_bytes = 1u << 20,
        .commit_ms = 1,
        .patience_ms = 10000,
    };
}

void scene_begin(struct scene *scene) {
    ck_assert_int_eq(loop_new(&scene->loop), 0);
    ck_assert_int_eq(audit_init(&scene->audit, scene->log_fd, scene->capacity, ++scene->incarnation), 0);
    scene->options.loop = scene->loop;
    scene->options.audit = &scene->audit;
    ck_assert_int_eq(recorder_init(&scene->recorder, &scene->options), 0);
}

static void forget(struct scene *scene) {
    audit_deinit(&scene->audit);
    scene->loop = loop_free(scene->loop);
}

void scene_end(struct scene *scene) {
    recorder_deinit(&scene->recorder);
    forget(scene);
}

/* What is under way gets done; what waits in memory is forgotten. */
void scene_crash(struct scene *scene) {
    struct chain *chain = &scene->recorder.chain;
    struct disk_job job;

    disk_free(chain->disk, 10000, &job);
    loop_timer_cancel(&chain->commit_timer);
    loop_timer_cancel(&chain->retry_timer);
    loop_timer_cancel(&chain->patience_timer);
    loop_deferred_cancel(&chain->soon);
    close(chain->fd);
    close(chain->directory);
    for (size_t i = 0; i < 2; i++)
        munmap(chain->buffers[i].octets, CHAIN_BUFFER);
    journal_deinit(&scene->recorder.journal);
    scene->recorder = (struct recorder){};
    forget(scene);
}

void scene_deinit(struct scene *scene) {
    DIR *directory = fdopendir(dup(scene->directory));
    struct dirent *entry;

    while ((entry = readdir(directory)))
        (void)unlinkat(scene->directory, entry->d_name, 0);
    closedir(directory);
    close(scene->directory);
    close(scene->log_fd);
    rmdir(scene->path);
}

uint64_t scene_intent(struct scene *scene, uint64_t correlation) {
    struct vmibus_audit_record record = {
        .kind = VMIBUS_KIND_CMD_MEMWRITE, .uid = scene->uid, .pid = 42, .slot = 1, .generation = 7, .correlation = correlation};

    record.received = clock_now();
    audit_set_name(&record, "web1");
    return audit_begin(&scene->audit, &record);
}

uint64_t scene_command(struct scene *scene, uint64_t correlation) {
    uint64_t sequence = scene_intent(scene, correlation);

    audit_finish(&scene->audit, sequence, &(struct vmibus_ack){.count = 8, .finished = clock_now()});
    return sequence;
}

void scene_settle(struct scene *scene) {
    const struct chain *chain = &scene->recorder.chain;

    while (chain->durable + 1 < chain->sequence)
        ck_assert_int_ge(loop_dispatch(scene->loop, 10000), 0);
}

struct verify_result scene_verify(const struct scene *scene) {
    struct verify_result result;

    ck_assert_int_eq(verify_chain(scene->directory, &(struct verify_options){.writer = "bus"}, &result), 0);
    return result;
}

uint8_t *scene_load(const struct scene *scene, uint64_t segment, size_t *size) {
    char name[CHAIN_NAME];
    uint8_t *octets;
    struct stat st;
    int fd;

    chain_file_name(name, "bus", segment);
    fd = openat(scene->directory, name, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    *size = (size_t)st.st_size;
    octets = malloc(*size + 1);
    ck_assert_int_eq(read(fd, octets, *size), (ssize_t)*size);
    close(fd);
    return octets;
}

void scene_store(const struct scene *scene, uint64_t segment, const uint8_t *octets, size_t size) {
    char name[CHAIN_NAME];
    int fd;

    chain_file_name(name, "bus", segment);
    fd = openat(scene->directory, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, octets, size), (ssize_t)size);
    close(fd);
}
