/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The system calls of the C library itself, which every program makes wherever it allocates, starts a thread, waits, tells the
 * time, or reads and writes what it has open.  None of them reaches anything that is not open.
 */
#include <vmibus/syscalls.h>

VMIBUS_SYSCALLS(
    /* memory */
    "brk mmap munmap mremap mprotect madvise "
    /* descriptors that are open */
    "read write readv writev pread64 pwrite64 preadv pwritev lseek close fstat newfstatat statx fcntl "
    /* threads, locks, the ends of both; where vDSO and rseq do not do it */
    "futex futex_waitv clone clone3 set_robust_list get_robust_list rseq set_tid_address membarrier sched_yield sched_getaffinity "
    "exit exit_group restart_syscall "
    /* signals: abort, raise, handlers */
    "rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack tgkill "
    /* time and chance, where the vDSO falls back */
    "clock_gettime clock_getres gettimeofday time getcpu getrandom "
    /* who it is; limits of its stacks and descriptors */
    "getpid gettid getppid getuid geteuid getgid getegid prlimit64 uname "
    /* waiting for what is open */
    "poll ppoll "
    /* C library's notes about itself: names of threads and of mappings */
    "prctl")
