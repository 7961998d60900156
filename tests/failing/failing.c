/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Definitions in the place of the C library's, which count, fail, or go on to it.
 *
 * The memory functions are found by other names than their own: looking a symbol up allocates.
 */
#undef _FORTIFY_SOURCE
#include "failing.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

static __thread struct {
    bool armed;
    enum failing_way way;
    unsigned int n, at;
    int error;
    char name[48];
} state;

void failing_arm(enum failing_way way, unsigned int n) {
    memset(&state, 0, sizeof(state));
    state.way = way;
    state.at = n;
    state.armed = true;
}

unsigned int failing_disarm(void) {
    state.armed = false;
    return state.n;
}

int failing_error(void) {
    return state.error;
}

const char *failing_name(void) {
    return state.name;
}

/* Whether this call is the one. */
__attribute__((noinline)) static bool is_the_one(const char *name, enum failing_way way, int error) {
    if (state.way != way || ++state.n != state.at)
        return false;
    /* Whoever looks at the name afterwards must not count. */
    state.armed = false;
    state.error = error;
    snprintf(state.name, sizeof(state.name), "%s() #%u", name, state.n);
    if (getenv("VMIBUS_FAILING_TRACE")) {
        void *frames[24];

        fprintf(stderr, "%s:\n", state.name);
        backtrace_symbols_fd(frames, backtrace(frames, 24), STDERR_FILENO);
    }
    state.armed = true;
    errno = error;
    return true;
}

/* AddressSanitizer calls before it is ready for a frame with an array. */
static bool is_due(const char *name, enum failing_way way, int error) {
    return state.armed && is_the_one(name, way, error);
}

static bool fails(const char *name, int error) {
    return is_due(name, FAILING_ERROR, error);
}

/* What is left of a length that is read or written. */
static size_t shortened(const char *name, size_t len) {
    return len > 1 && is_due(name, FAILING_SHORT, EAGAIN) ? 1 : len;
}

static void *next(const char *name) {
    bool armed = state.armed;
    void *function;

    state.armed = false;
    function = dlsym(RTLD_NEXT, name);
    state.armed = armed;
    if (!function)
        abort();
    return function;
}

/* The C library's function of a name, looked up once. */
#define NEXT(name) \
    ({ \
        static __typeof__(&name) next_; \
        if (!next_) \
            next_ = (__typeof__(&name))next(#name); \
        next_; \
    })

/* --- memory ------------------------------------------------------------------------------------ */

#ifdef VMIBUS_SANITIZED
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif

void *REAL(malloc)(size_t size);
void *REAL(calloc)(size_t n, size_t size);
void *REAL(realloc)(void *memory, size_t size);

PUBLIC void *malloc(size_t size) {
    return fails("malloc", ENOMEM) ? NULL : REAL(malloc)(size);
}

PUBLIC void *calloc(size_t n, size_t size) {
    return fails("calloc", ENOMEM) ? NULL : REAL(calloc)(n, size);
}

PUBLIC void *realloc(void *memory, size_t size) {
    return fails("realloc", ENOMEM) ? NULL : REAL(realloc)(memory, size);
}

PUBLIC void *reallocarray(void *memory, size_t n, size_t size) {
    size_t octets;

    if (fails("reallocarray", ENOMEM))
        return NULL;
    if (__builtin_mul_overflow(n, size, &octets)) {
        errno = ENOMEM;
        return NULL;
    }
    return REAL(realloc)(memory, octets);
}

PUBLIC char *strdup(const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = fails("strdup", ENOMEM) ? NULL : REAL(malloc)(size);

    return copy ? memcpy(copy, text, size) : NULL;
}

PUBLIC void *mmap(void *where, size_t len, int protection, int flags, int fd, off_t offset) {
    return fails("mmap", ENOMEM) ? MAP_FAILED : NEXT(mmap)(where, len, protection, flags, fd, offset);
}

/* --- descriptors ------------------------------------------------------------------------------- */

/* Whether open() is given a mode. */
static bool has_mode(int flags) {
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;
}

#define MODE_OF(flags) \
    ({ \
        mode_t mode_ = 0; \
        if (has_mode(flags)) { \
            va_list arguments_; \
            va_start(arguments_, flags); \
            mode_ = va_arg(arguments_, mode_t); \
            va_end(arguments_); \
        } \
        mode_; \
    })

PUBLIC int open(const char *path, int flags, ...) {
    mode_t mode = MODE_OF(flags);

    return fails("open", EMFILE) ? -1 : NEXT(open)(path, flags, mode);
}

PUBLIC int openat(int directory, const char *path, int flags, ...) {
    mode_t mode = MODE_OF(flags);

    return fails("openat", EMFILE) ? -1 : NEXT(openat)(directory, path, flags, mode);
}

/* What open() and openat() become where the flags are no constant. */
int __open_2(const char *path, int flags);
int __openat_2(int directory, const char *path, int flags);

PUBLIC int __open_2(const char *path, int flags) {
    return open(path, flags, 0);
}

PUBLIC int __openat_2(int directory, const char *path, int flags) {
    return openat(directory, path, flags, 0);
}

PUBLIC int fcntl(int fd, int command, ...) {
    va_list arguments;
    void *argument;

    va_start(arguments, command);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    return fails("fcntl", command == F_DUPFD_CLOEXEC ? EMFILE : EPERM) ? -1 : NEXT(fcntl)(fd, command, argument);
}

/* TYPE NAME(PARAMETERS), called with ARGUMENTS, fails with ERROR. */
#define FAILING(name, parameters, arguments, error) \
    PUBLIC int name parameters { \
        return fails(#name, error) ? -1 : NEXT(name) arguments; \
    }

#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

FAILING(socket, (int domain, int type, int protocol), (domain, type, protocol), EMFILE)
FAILING(socketpair, (int domain, int type, int protocol, int fds[2]), (domain, type, protocol, fds), EMFILE)
FAILING(accept4, (int fd, struct sockaddr *address, socklen_t *len, int flags), (fd, address, len, flags), EMFILE)
FAILING(epoll_create1, (int flags), (flags), EMFILE)
FAILING(eventfd, (unsigned int count, int flags), (count, flags), EMFILE)
FAILING(timerfd_create, (int clock, int flags), (clock, flags), EMFILE)
FAILING(signalfd, (int fd, const sigset_t *mask, int flags), (fd, mask, flags), EMFILE)
FAILING(memfd_create, (const char *name, unsigned int flags), (name, flags), EMFILE)
FAILING(dup, (int fd), (fd), EMFILE)

FAILING(epoll_ctl, (int fd, int what, int of, struct epoll_event *event), (fd, what, of, event), ENOSPC)
FAILING(timerfd_settime, (int fd, int flags, const struct itimerspec *time, struct itimerspec *before), (fd, flags, time, before), EINVAL)

/* --- sockets ----------------------------------------------------------------------------------- */

FAILING(bind, (int fd, const struct sockaddr *address, socklen_t len), (fd, address, len), EACCES)
FAILING(listen, (int fd, int backlog), (fd, backlog), EOPNOTSUPP)
FAILING(connect, (int fd, const struct sockaddr *address, socklen_t len), (fd, address, len), EACCES)
FAILING(getsockopt, (int fd, int level, int option, void *value, socklen_t *len), (fd, level, option, value, len), ENOPROTOOPT)
FAILING(setsockopt, (int fd, int level, int option, const void *value, socklen_t len), (fd, level, option, value, len), ENOPROTOOPT)

PUBLIC ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    return fails("sendmsg", EPIPE) ? -1 : NEXT(sendmsg)(fd, message, flags);
}

PUBLIC ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    return fails("recvmsg", ECONNRESET) ? -1 : NEXT(recvmsg)(fd, message, flags);
}

/* --- files ------------------------------------------------------------------------------------- */

FAILING(fstat, (int fd, struct stat *status), (fd, status), EIO)
FAILING(stat, (const char *path, struct stat *status), (path, status), EIO)
FAILING(lstat, (const char *path, struct stat *status), (path, status), EIO)
FAILING(fsync, (int fd), (fd), EIO)
FAILING(fdatasync, (int fd), (fd), EIO)
FAILING(ftruncate, (int fd, off_t size), (fd, size), ENOSPC)
FAILING(fchmod, (int fd, mode_t mode), (fd, mode), EPERM)
FAILING(flock, (int fd, int how), (fd, how), ENOLCK)
FAILING(mkdir, (const char *path, mode_t mode), (path, mode), ENOSPC)
FAILING(mkdirat, (int directory, const char *path, mode_t mode), (directory, path, mode), ENOSPC)
FAILING(unlink, (const char *path), (path), EROFS)
FAILING(unlinkat, (int directory, const char *path, int flags), (directory, path, flags), EROFS)
FAILING(rename, (const char *from, const char *to), (from, to), ENOSPC)
FAILING(renameat, (int from, const char *name, int to, const char *as), (from, name, to, as), ENOSPC)

/* posix_fallocate() answers the errno itself. */
PUBLIC int posix_fallocate(int fd, off_t offset, off_t len) {
    return fails("posix_fallocate", ENOSPC) ? ENOSPC : NEXT(posix_fallocate)(fd, offset, len);
}

PUBLIC ssize_t read(int fd, void *octets, size_t len) {
    return fails("read", EIO) ? -1 : NEXT(read)(fd, octets, shortened("read", len));
}

PUBLIC ssize_t pread(int fd, void *octets, size_t len, off_t offset) {
    return fails("pread", EIO) ? -1 : NEXT(pread)(fd, octets, shortened("pread", len), offset);
}

PUBLIC ssize_t write(int fd, const void *octets, size_t len) {
    return fails("write", ENOSPC) ? -1 : NEXT(write)(fd, octets, shortened("write", len));
}

PUBLIC ssize_t pwrite(int fd, const void *octets, size_t len, off_t offset) {
    return fails("pwrite", ENOSPC) ? -1 : NEXT(pwrite)(fd, octets, shortened("pwrite", len), offset);
}

PUBLIC ssize_t pwritev2(int fd, const struct iovec *pieces, int n, off_t offset, int flags) {
    return fails("pwritev2", ENOSPC) ? -1 : NEXT(pwritev2)(fd, pieces, n, offset, flags);
}

PUBLIC ssize_t getrandom(void *octets, size_t len, unsigned int flags);
PUBLIC ssize_t getrandom(void *octets, size_t len, unsigned int flags) {
    return fails("getrandom", ENOSYS) ? -1 : NEXT(getrandom)(octets, len, flags);
}

/* What read() and pread() become where the compiler knows the size of what is read to. */
ssize_t __read_chk(int fd, void *octets, size_t len, size_t size);
ssize_t __pread_chk(int fd, void *octets, size_t len, off_t offset, size_t size);

PUBLIC ssize_t __read_chk(int fd, void *octets, size_t len, size_t size) {
    if (len > size)
        abort();
    return read(fd, octets, len);
}

PUBLIC ssize_t __pread_chk(int fd, void *octets, size_t len, off_t offset, size_t size) {
    if (len > size)
        abort();
    return pread(fd, octets, len, offset);
}

/* --- threads ----------------------------------------------------------------------------------- */

#include <pthread.h>

/* pthread_create() answers the errno itself. */
PUBLIC int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *), void *context) {
    return fails("pthread_create", EAGAIN) ? EAGAIN : NEXT(pthread_create)(thread, attributes, function, context);
}
