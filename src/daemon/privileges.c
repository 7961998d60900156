/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/privileges.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t join(uint32_t low, uint32_t high) {
    return (uint64_t)high << 32 | low;
}

/*
 * The kernel may know of more capabilities than the headers that this was built with. It takes CAP_SETPCAP; without, the callers'
 * no_new_privs is what keeps an executed program from gaining any.
 */
static void bound(uint64_t kept) {
    for (unsigned capability = 0; capability < 64 && prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
        if (!(kept & PRIVILEGE(capability)))
            (void)prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
}

/* Whether the process has these and no other. */
static bool is_just(const struct __user_cap_data_struct *data, uint64_t kept) {
    return join(data[0].permitted, data[1].permitted) == kept && join(data[0].effective, data[1].effective) == kept &&
           join(data[0].inheritable, data[1].inheritable) == 0;
}

/* capset(2); the C library has no function for it. A service manager may forbid it where there is nothing to give up. */
int privileges_keep(uint64_t wanted, uint64_t *missing) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
    uint64_t kept;

    if (syscall(SYS_capget, &header, data) < 0)
        return -errno;
    kept = wanted & join(data[0].permitted, data[1].permitted);
    *missing = wanted & ~kept;
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    bound(kept);
    if (is_just(data, kept))
        return 0;
    for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
        data[i] = (struct __user_cap_data_struct){
            .effective = (uint32_t)(kept >> (32 * i)),
            .permitted = (uint32_t)(kept >> (32 * i)),
        };
    return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

bool privileges_any(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};

    return syscall(SYS_capget, &header, data) < 0 || data[0].permitted || data[1].permitted;
}
