/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nothing writable leaves: may a receiver have a read-only descriptor of a RAM file?
 *
 * Whoever holds a descriptor can open its file anew through /proc/self/fd, read-write if the inode's
 * mode and owner let them (Linux fs/namei.c, do_open(): the inode decides, not the descriptor).  So
 * the mode must forbid it to the receiver.  An inode without a name (memfd, O_TMPFILE, unlinked) is
 * ours to tighten: whoever works with it has it open already.  A named one is not: its owner could not
 * open it again.
 *
 * Some need not heed the mode: the owner's uid can undo it, root and whoever has capabilities over files goes past it.
 * They receive a descriptor only by the policy's explicit word, VMIBUS_CAP_RAM_FD_OWNER.  Which uids a receiver can take
 * on and which capabilities it can raise is known from when it connected (policy/principal.h).
 *
 * A file that is sealed against shrinking and writing (F_SEAL_WRITE, F_SEAL_FUTURE_WRITE) nobody can change: it
 * goes to anybody.  A mount that is read-only proves nothing, because the same file system may be mounted
 * elsewhere.
 */
#ifndef MEMORY_HANDOUT_H
#define MEMORY_HANDOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "memory/opener.h"
#include "policy/principal.h"

/** The mode that a nameless RAM file is given: its owner, who could change it anyway, can go on opening it. */
#define HANDOUT_MODE 0600

/**
 * Takes the mode of a nameless file back to HANDOUT_MODE, if it gives anybody but the owner anything.
 * Of another user, and brought along instead of found in a process, it stays readable: that is how it is opened for readers.
 * A named one, or one that cannot be changed, is left as it is: handout_refusal() tells.
 * @param from_process it was found in the process that the layout is of
 * @return 0 or what fstat(2) says
 */
int handout_tighten(const struct opener *opener, int fd, bool from_process);

/**
 * Why a receiver may not have the file, looked up anew.
 * @param fd           any descriptor of the file
 * @param capabilities VMIBUS_CAP_ bits of the receiver
 * @param reason       VMIBUS_REASON_NONE (it may), REOPENABLE or NAMED_FILE
 * @return 0 or what fstat(2) says
 */
int handout_refusal(int fd, const struct principal *receiver, uint32_t capabilities,
                    uint16_t *reason);

/** The same for a receiver that is neither root nor the owner, nor in any group that matters. */
int handout_refusal_to_foreign(int fd, uint16_t *reason);

#endif
