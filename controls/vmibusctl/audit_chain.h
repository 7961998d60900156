/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl audit: the chain of a writer, shown, verified and followed. It is read by what the daemon reads it by (src/audit). */
#ifndef VMIBUSCTL_AUDIT_CHAIN_H
#define VMIBUSCTL_AUDIT_CHAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "vmibusctl.h"

struct audit_chain_options {
    const struct vmibusctl *ctl;
    const char *path;           /**< the directory */
    const char *writer;         /**< NULL: "bus" */
    const char *head_text;      /**< of verify: hexadecimal, or NULL */
    uint64_t count;             /**< the last so many records; 0: all, of tail 10 */
    bool only_commands;
};

/** These return a status. */
int audit_chain_show(const struct audit_chain_options *options);
int audit_chain_verify(const struct audit_chain_options *options);
int audit_chain_tail(const struct audit_chain_options *options);

#endif
