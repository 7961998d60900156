/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: what vmibus-opend(8) and its asker take from each other.  The first octet of the input says how many descriptors came
 * with it.  What is accepted is of its size and says one thing only; an answer is one to its request.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/target.h"
#include "memory/opener_protocol.h"

static void require(int good) {
    if (!good)
        abort();
}

static void check_request(const struct opener_request *request, size_t len, size_t n_fds) {
    require(len == sizeof(*request) && request->id != 0);
    require(request->verb >= OPENER_MAPS && request->verb <= OPENER_MEMORY_TO_READ);
    require(n_fds == (request->verb == OPENER_TIGHTEN));
    if (request->verb == OPENER_TIGHTEN)
        require(request->pid == 0 && request->mode <= 0777);
    else
        require(request->pid > 0 && request->pid <= INT_MAX && request->start_time > 0 && request->mode == 0);
    if (request->verb == OPENER_FILE)
        require(request->inode > 0 && (request->flags == O_RDONLY || request->flags == O_RDWR));
    else
        require(request->inode == 0 && request->flags == 0);
}

static void check_answers(const uint8_t *octets, size_t len, size_t n_fds, const struct opener_request *request) {
    struct opener_answer answer = opener_answer_to(request, -ENOENT), again;

    require(opener_answer_parse(&answer, sizeof(answer), 0, request, &again) == 0 && again.result == -ENOENT);
    require(opener_answer_parse(&answer, sizeof(answer), 1, request, &again) < 0);
    if (opener_answer_parse(octets, len, n_fds, request, &answer) < 0)
        return;
    require(len == sizeof(answer) && answer.id == request->id && answer.verb == request->verb && answer.result <= 0);
    require(n_fds == (answer.result == 0 && answer.verb != OPENER_TIGHTEN));
}

FUZZ_TARGET(opener) {
    struct opener_request request = {.verb = OPENER_FILE, .id = 1};
    size_t n_fds, len;
    uint8_t *octets;

    if (size < 1)
        return 0;
    n_fds = data[0] % 3;
    len = size - 1;
    /* Of its own, at no alignment, and no octet longer. */
    octets = malloc(len + 1);
    require(octets != NULL);
    memcpy(octets + 1, data + 1, len);
    if (opener_request_parse(octets + 1, len, n_fds, &request) == 0)
        check_request(&request, len, n_fds);
    check_answers(octets + 1, len, n_fds, &request);
    free(octets);
    return 0;
}
