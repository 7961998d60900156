/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/epoch_page.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "memory/object.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("fchmod fstatfs ftruncate memfd_create")

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define MODE 0400
#define SIZE_SEALS (F_SEAL_GROW | F_SEAL_SHRINK)

void epoch_page_init(struct epoch_page *page) {
    *page = (struct epoch_page){.fd = -1};
}

void epoch_page_deinit(struct epoch_page *page) {
    epoch_page_end(page);
    if (page->shown)
        munmap(page->shown, EPOCH_PAGE_SIZE);
    fd_close(page->fd);
    charge_release(&page->descriptor);
    account_unref(page->account);
    epoch_page_init(page);
}

static int map_consume_fd(struct epoch_page *page, int fd) {
    void *shown = mmap(NULL, EPOCH_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (shown == MAP_FAILED) {
        int r = -errno;

        fd_close(fd);
        return r;
    }
    page->shown = shown;
    page->fd = fd;
    return 0;
}

/* The mapping comes first: the seal lets no other one follow. */
static int seal(const struct epoch_page *page, bool kept) {
    int others = F_SEAL_SEAL | (kept ? 0 : F_SEAL_FUTURE_WRITE);

    if (fchmod(page->fd, MODE) < 0 || fcntl(page->fd, F_ADD_SEALS, SIZE_SEALS | others) < 0)
        return -errno;
    return 0;
}

static int make(struct epoch_page *page, bool kept) {
    int fd = memfd_create("vmibus-epoch", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int r;

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, EPOCH_PAGE_SIZE) < 0) {
        r = -errno;
        fd_close(fd);
        return r;
    }
    r = map_consume_fd(page, fd);
    return r < 0 ? r : seal(page, kept);
}

int epoch_page_make(struct epoch_page *page, bool kept, struct account *account) {
    int r = charge_take(&page->descriptor, account, RESOURCE_FDS, 1);

    if (r)
        return r;
    page->account = account_ref(account);
    r = make(page, kept);
    if (r < 0)
        epoch_page_deinit(page);
    return r;
}

/* Whether a descriptor that was kept is what was given to be kept: nothing else may be written into. */
static bool is_ours(int fd) {
    struct statfs fs;
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 || (seals & SIZE_SEALS) != SIZE_SEALS || (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)))
        return false;
    if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0 || fs.f_type != TMPFS_MAGIC)
        return false;
    return S_ISREG(st.st_mode) && st.st_nlink == 0 && st.st_size == EPOCH_PAGE_SIZE && st.st_uid == geteuid() &&
           (st.st_mode & ~(mode_t)S_IFMT) == MODE && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
}

static int take_dup_fd(struct epoch_page *page, int fd) {
    if (epoch_page_is_there(page) || !is_ours(fd))
        return -EBADF;
    fd = fd_dup(fd);
    return fd < 0 ? fd : map_consume_fd(page, fd);
}

int epoch_page_end_fd(int fd) {
    struct epoch_page page;
    int r;

    epoch_page_init(&page);
    r = take_dup_fd(&page, fd);
    epoch_page_deinit(&page);
    return r;
}

int epoch_page_resume_dup_fd(struct epoch_page *page, int fd, uint64_t epoch, uint64_t generation) {
    int r = take_dup_fd(page, fd);

    /* It is there already, whether it can be paid for or not. */
    if (r == 0 && page->account)
        (void)charge_take(&page->descriptor, page->account, RESOURCE_FDS, 1);
    if (r < 0 || (epoch && __atomic_load_n(&page->shown->epoch, __ATOMIC_SEQ_CST) == epoch))
        return r;
    epoch_page_end(page);
    if (epoch)
        epoch_page_begin(page, epoch, generation);
    return 0;
}

void epoch_page_begin(struct epoch_page *page, uint64_t epoch, uint64_t generation) {
    struct vmibus_epoch_page *shown = page->shown;

    if (!shown)
        return;
    __atomic_store_n(&shown->epoch, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&shown->generation, generation, __ATOMIC_RELAXED);
    __atomic_store_n(&shown->changes, shown->changes + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&shown->epoch, epoch, __ATOMIC_SEQ_CST);
}

void epoch_page_end(struct epoch_page *page) {
    struct vmibus_epoch_page *shown = page->shown;

    /* Before anything else happens for the epoch's end, as every other processor sees it. */
    if (shown && __atomic_exchange_n(&shown->epoch, 0, __ATOMIC_SEQ_CST))
        __atomic_store_n(&shown->changes, shown->changes + 1, __ATOMIC_RELAXED);
}

int epoch_page_open(const struct epoch_page *page) {
    return ram_object_reopen(page->fd, O_RDONLY);
}
