/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The one hash of chain and digests: SHA-256, by nettle.
 *
 * SHA-256, because whoever audits has it at hand everywhere (sha256sum, hashlib) and needs none of our code to check a file;
 * processors have instructions for it.  Nettle, because it is that and no more: it has no state of its own, no threads, no
 * configuration and no I/O, is kept by those who keep GnuTLS, and picks the processor's instructions by itself.
 */
#ifndef AUDIT_HASH_H
#define AUDIT_HASH_H

#include <stddef.h>
#include <stdint.h>

/** The hash (VMIBUS_AUDIT_HASH octets) of octets. Any thread. */
void hash_octets(const void *octets, size_t len, uint8_t *hash);

#endif
