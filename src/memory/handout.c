/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/handout.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/protocol.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/* Who brought a file of a user of its own has no process to open it by: this one has to be able to read it by its mode. */
static mode_t tight_mode(const struct stat *st, bool from_process) {
    return from_process || st->st_uid == geteuid() ? HANDOUT_MODE : HANDOUT_MODE | S_IRGRP | S_IROTH;
}

int handout_tighten(const struct opener *opener, int fd, bool from_process) {
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_nlink != 0 || (st.st_mode & (S_IRWXG | S_IRWXO)) == 0)
        return 0;
    (void)opener->tighten(opener, fd, tight_mode(&st, from_process) & st.st_mode);
    return 0;
}

/*
 * The group's bits count for everybody: where an access control list exists they are its mask, and
 * one without them grants nothing to anybody but the owner (acl(5)).
 */
static uint16_t foreign_refusal(const struct stat *st) {
    if ((st->st_mode & (S_IWGRP | S_IWOTH)) == 0)
        return VMIBUS_REASON_NONE;
    return st->st_nlink == 0 ? VMIBUS_REASON_REOPENABLE : VMIBUS_REASON_NAMED_FILE;
}

/* Such a file nobody can change any more by what he opens, whatever its mode: also not cut it short. */
static bool is_write_sealed(int fd) {
    int seals = fcntl(fd, F_GET_SEALS);

    return seals >= 0 && (seals & F_SEAL_SHRINK) && (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE));
}

int handout_refusal_to_foreign(int fd, uint16_t *reason) {
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    *reason = is_write_sealed(fd) ? VMIBUS_REASON_NONE : foreign_refusal(&st);
    return 0;
}

int handout_refusal(int fd, const struct principal *receiver, uint32_t capabilities,
                    uint16_t *reason) {
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (is_write_sealed(fd))
        *reason = VMIBUS_REASON_NONE;
    else if (receiver->is_privileged || principal_can_be(receiver, 0) || principal_can_be(receiver, st.st_uid))
        *reason = capabilities & VMIBUS_CAP_RAM_FD_OWNER ? VMIBUS_REASON_NONE
                                                         : VMIBUS_REASON_REOPENABLE;
    else
        *reason = foreign_refusal(&st);
    return 0;
}
