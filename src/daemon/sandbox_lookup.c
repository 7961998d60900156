/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looking users and groups up again when a configuration is read anew: by files, or by modules that ask services (nss(5)). */
#include <grp.h>
#include <pwd.h>

#include <vmibus/syscalls.h>

#include "daemon/sandbox.h"

/* The modules are not ours: what those of systemd, sssd and nscd were seen to do. */
VMIBUS_SYSCALLS("openat socket connect sendto recvfrom sendmsg recvmsg sendmmsg getsockopt setsockopt getpeername getsockname "
                "getdents64 readlink readlinkat access faccessat faccessat2 statfs fstatfs epoll_create1 epoll_ctl epoll_wait "
                "epoll_pwait timerfd_create timerfd_settime eventfd2 sysinfo getresuid getresgid gettid ioctl")

/* What is not found is asked of every module. */
void sandbox_load_lookup(void) {
    (void)getpwnam("vmibus-nobody");
    (void)getgrnam("vmibus-nobody");
}
