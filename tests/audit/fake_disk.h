/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk (audit/disk.h) that does a job when the test says so, and fails as it says. */
#ifndef TESTS_AUDIT_FAKE_DISK_H
#define TESTS_AUDIT_FAKE_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "audit/disk.h"

/* What a write of so many octets did, all in all. */
extern uint64_t fake_disk_writes;

/* The job under way; NULL: none. */
const struct disk_job *fake_disk_job(void);

/* Does it, and tells. error: a negative errno instead, after @a partly octets of a write. */
void fake_disk_do(int error, size_t partly);

#endif
