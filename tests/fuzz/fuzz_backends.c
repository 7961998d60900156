/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: query-memdev and query-memory-devices, JSON, one after the other.  What is taken has names that can be
 * shown to people and found again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "fuzz/target.h"
#include "machine/backends.h"

static json_object *next_value(struct json_tokener *tokener, const char **at, size_t *len) {
    json_object *value = json_tokener_parse_ex(tokener, *at, (int)*len);
    size_t used = json_tokener_get_parse_end(tokener);

    *at += used;
    *len -= used;
    json_tokener_reset(tokener);

    return value;
}

static void check(const struct backends *backends) {
    for (size_t i = 0; i < backends->n_backends; i++) {
        struct backend *backend = &backends->list[i];

        if (backends_find(backends, backend->name) != backend)
            abort();
        for (const char *c = backend->name; *c; c++)
            if (*c <= ' ' || *c > '~')
                abort();
        if (backend_locate(backend, 0, 1, 0x1000) && backend->location != 0x1000)
            abort();
    }
}

FUZZ_TARGET(backends) {
    struct json_tokener *tokener = json_tokener_new();
    const char *at = (const char *)data;
    struct backends backends = {0};
    json_object *memdevs, *devices;

    memdevs = next_value(tokener, &at, &size);
    devices = next_value(tokener, &at, &size);
    if (backends_take(&backends, memdevs) == 0) {
        check(&backends);
        backends_take_devices(&backends, devices);
        check(&backends);
    }
    backends_deinit(&backends);
    json_object_put(memdevs);
    json_object_put(devices);
    json_tokener_free(tokener);

    return 0;
}
