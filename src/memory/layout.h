/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Proving a RAM layout: what a sensor says is checked against the mappings of the process that it
 * names, every object is opened once, and sizes, seals and modes are looked at.  What comes out is a
 * memory context that is not published yet.
 *
 * With process 0 the sensor gives the objects itself and the locations are offsets in them.
 */
#ifndef MEMORY_LAYOUT_H
#define MEMORY_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "memory/memctx.h"
#include "memory/opener.h"
#include "util/ledger.h"

/** What a sensor proposes. */
struct layout_proposal {
    struct opener_process process;              /**< pid 0: the objects are in fds */
    const struct vmibus_layout_range *ranges;
    size_t n_ranges;
    const int *fds;                             /**< borrowed; opened anew */
    size_t n_fds;
    struct account *account;                    /**< pays for the descriptors */
};

/**
 * Proves a layout. It may block as long as the opener does.
 * @param memctxp receives the context, owned by the caller
 * @param ack     a refusal is written into it; its value is the guest-physical address of the range, a bound, or an errno
 * @return 0; the enum vmibus_error of the refusal: VALIDATION (malformed), UNSUPPORTED with
 *         LAYOUT_UNPROVEN (it does not agree, or lies in files that are not memory), QUOTA, PRESSURE,
 *         GONE (no such process), IO (what could not be opened); or -ENOMEM
 */
int layout_prove(struct memctx **memctxp, const struct opener *opener,
                 const struct layout_proposal *proposal, struct vmibus_ack *ack);

#endif
