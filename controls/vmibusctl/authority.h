/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The lease that a destructive verb needs: lent by `vmibusctl lease`, given by --token, or taken for
 * the call.
 */
#ifndef VMIBUSCTL_AUTHORITY_H
#define VMIBUSCTL_AUTHORITY_H

#include "roster.h"

/** Under what a command is given. */
struct authority {
    const struct vm *vm;
    enum vmibus_lease_class lease_class;
    uint64_t token;
    bool taken;         /**< by authority_take(): given back by authority_release() */
};

/**
 * Finds or takes the lease of a class.
 * @param token what --token says, or NULL; 0 is no lease, and none is taken
 * @return a status, after having said what was wrong
 */
int authority_take(struct vmibusctl *ctl, const struct vm *vm, enum vmibus_lease_class lease_class, const char *token,
                   struct authority *authority);

/** Acquires the lease, whatever was lent. Returns a status, after having said what was wrong. */
int authority_acquire(struct vmibusctl *ctl, const struct vm *vm, enum vmibus_lease_class lease_class, enum vmibus_lease_mode mode,
                      uint32_t ttl_ms, struct authority *authority);

/** Gives back what was taken. */
void authority_release(struct vmibusctl *ctl, struct authority *authority);

/** The name of the environment variable that lends a class's token, in buffer of at least 32 octets. Returns buffer. */
char *authority_variable(enum vmibus_lease_class lease_class, char *buffer);

/** The value of VMIBUS_LEASE_VM that names an endpoint, in buffer of at least 40 octets. Returns buffer. */
char *authority_vm(const struct vmibus_endpoint *endpoint, char *buffer);

#endif
