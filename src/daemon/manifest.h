/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A sensor's manifest, NAME.sensor beside its module: what it is, before its code is loaded. */
#ifndef DAEMON_MANIFEST_H
#define DAEMON_MANIFEST_H

#include <stdint.h>

#include "daemon/config.h"

struct manifest {
    char name[32];
    char kind[16];
    char module[256];   /**< file name, in the manifest's directory */
    char needs[256];    /**< what it needs on the host, for people */
    uint32_t provides;  /**< VMIBUS_GROUP_ bits */
    uint32_t fallback;
    bool keeps_state;   /**< it is given the option state-directory */
};

/** Reads the manifest of a sensor. 0, -ENOENT, -EINVAL with @a error filled, or another negative errno. */
int manifest_read(struct manifest *manifest, const char *directory, const char *sensor, struct config_error *error);

#endif
