/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The corpora of all targets but those that have something of their own in the place of the product's: test_corpus_alone.c. */
#include "fuzz/corpus.h"

CORPUS(audit_chain)
CORPUS(btf)
CORPUS(client)
CORPUS(config)
CORPUS(frames)
CORPUS(handover)
CORPUS(kallsyms)
CORPUS(link_to_bus)
CORPUS(link_to_memory)
CORPUS(manifest)
CORPUS(maps)
CORPUS(note)
CORPUS(opener)
CORPUS(opener_config)
CORPUS(pagewalk)
CORPUS(peers)
CORPUS(root)
CORPUS(scan)
CORPUS(sensor_peer)
CORPUS(shape)
#ifdef HAVE_JSON_C /* what sensors of hosts read of a monitor */
CORPUS(backends)
CORPUS(gpa2hva)
CORPUS(mtree)
CORPUS(ppm)
CORPUS(qmp)
CORPUS(registers)
CORPUS(stat)
CORPUS(vcpu_registers)
#endif

HARNESS_SUITE("corpora", HARNESS_QUICK)
