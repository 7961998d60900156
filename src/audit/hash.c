/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "audit/hash.h"

#include <nettle/sha2.h>

#include <vmibus/audit.h>

_Static_assert(SHA256_DIGEST_SIZE == VMIBUS_AUDIT_HASH, "a hash has its place");

void hash_octets(const void *octets, size_t len, uint8_t *hash) {
    struct sha256_ctx context;

    sha256_init(&context);
    sha256_update(&context, len, octets);
    sha256_digest(&context, SHA256_DIGEST_SIZE, hash);
}
