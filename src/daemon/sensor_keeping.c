/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sensor_keeping.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "host/sensor_host.h"
#include "util/fds.h"
#include "util/handover.h"

#define FDS_MAX 4096u

/* Records of the file; never reused, and others than those of vmibusd and vmibus-memd. */
enum {
    KEPT_OCTETS = 33,
    KEPT_FD = 34, /* in their order */
};

void sensor_keeping_deinit(struct sensor_keeping *keeping) {
    int *fds = (int *)(uintptr_t)keeping->state.fds;

    fds_close(fds, keeping->state.n_fds);
    free(fds);
    free((void *)(uintptr_t)keeping->state.octets);
    *keeping = (struct sensor_keeping){};
}

const struct vmibus_sensor_saved *sensor_keeping_state(const struct sensor_keeping *keeping) {
    return keeping->has_state ? &keeping->state : NULL;
}

/* Room for both. 0 or -ENOMEM: whoever asked deinitializes it. */
static int begin(struct sensor_keeping *keeping, const void *octets, size_t n_octets, size_t n_fds) {
    void *copy = malloc(n_octets + 1);
    int *fds = calloc(n_fds + 1, sizeof(*fds));

    keeping->state = (struct vmibus_sensor_saved){.octets = copy, .fds = fds};
    keeping->has_state = true;
    if (!copy || !fds)
        return -ENOMEM;
    if (n_octets)
        memcpy(copy, octets, n_octets);
    keeping->state.n_octets = n_octets;
    return 0;
}

static void add_consume_fd(struct sensor_keeping *keeping, int fd) {
    ((int *)(uintptr_t)keeping->state.fds)[keeping->state.n_fds++] = fd;
}

int sensor_keeping_take(struct sensor_keeping *keeping, struct vmibus_sensor_host *host) {
    struct vmibus_sensor_saved given;
    int r;

    sensor_keeping_deinit(keeping);
    if (sensor_host_save(host, &given) < 0)
        return 0;
    r = begin(keeping, given.octets, given.n_octets, given.n_fds);
    for (size_t i = 0; r == 0 && i < given.n_fds; i++) {
        int fd = fd_dup(given.fds[i]);

        r = fd < 0 ? fd : 0;
        if (r == 0)
            add_consume_fd(keeping, fd);
    }
    if (r < 0)
        sensor_keeping_deinit(keeping);
    return r;
}

int sensor_keeping_give(const struct sensor_keeping *keeping, const char *product, uint32_t timeout_ms) {
    struct handover_writer writer = {};
    uint8_t token[HANDOVER_TOKEN];
    _cleanup_fd_ int state = -1;
    int r;

    if (!keeping->has_state)
        return 0;
    if (getrandom(token, sizeof(token), 0) != sizeof(token))
        return -errno;
    handover_put(&writer, KEPT_OCTETS, keeping->state.octets, keeping->state.n_octets);
    for (size_t i = 0; i < keeping->state.n_fds; i++)
        handover_put_fd(&writer, KEPT_FD, keeping->state.fds[i]);
    r = state = handover_seal(&writer, token, product);
    if (r >= 0)
        r = service_keep_handover(state, writer.fds, writer.n_fds, timeout_ms);
    if (r < 0)
        service_forget_handover(writer.n_fds);
    handover_writer_deinit(&writer);
    return r < 0 ? r : 0;
}

static int restore(struct sensor_keeping *keeping, struct handover *handover) {
    struct handover_records records = handover_all(handover);
    struct handover_record record;
    int r = handover_find(records, KEPT_OCTETS, &record) ? 0 : -EBADMSG;

    if (r == 0)
        r = begin(keeping, record.octets, record.length, handover->n_fds < FDS_MAX ? handover->n_fds : FDS_MAX);
    while (r == 0 && handover_next(&records, &record)) {
        int fd = record.tag == KEPT_FD ? handover_take_fd(&record) : -1;

        if (fd >= 0 && keeping->state.n_fds < FDS_MAX)
            add_consume_fd(keeping, fd);
        else
            fd_close(fd);
    }
    return r < 0 ? r : handover->error;
}

int sensor_keeping_restore(struct sensor_keeping *keeping, struct service_fds *given) {
    struct handover handover = {};
    size_t n_handed = given->n_handed;
    int r;

    if (given->state < 0)
        return -ENOENT;
    r = handover_open(&handover, given->state, given->handed, n_handed);
    given->handed = NULL;
    given->n_handed = 0;
    if (r == 0)
        r = restore(keeping, &handover);
    if (r < 0)
        sensor_keeping_deinit(keeping);
    handover_close(&handover);
    service_forget_handover(n_handed);
    return r;
}
