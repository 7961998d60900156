/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "audit/chain_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "util/fds.h"

VMIBUS_SYSCALLS("fdatasync ftruncate getdents64 openat")

void chain_file_name(char *name, const char *writer, uint64_t segment) {
    snprintf(name, CHAIN_NAME, "%.15s.%08" PRIu64 ".chain", writer, segment);
}

uint64_t chain_file_number(const char *name, const char *writer) {
    size_t len = strlen(writer);
    char again[CHAIN_NAME];
    uint64_t number;

    if (strncmp(name, writer, len) != 0 || name[len] != '.')
        return 0;
    number = strtoull(name + len + 1, NULL, 10);
    chain_file_name(again, writer, number);
    return strcmp(again, name) == 0 ? number : 0;
}

int chain_find_files(struct chain *chain) {
    int fd = openat(chain->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!directory) {
        int r = -errno;

        fd_close(fd);
        return r;
    }
    while ((entry = readdir(directory))) {
        uint64_t number = chain_file_number(entry->d_name, chain->options.writer);

        if (!number)
            continue;
        chain->segment = number > chain->segment ? number : chain->segment;
        chain->oldest = !chain->oldest || number < chain->oldest ? number : chain->oldest;
    }
    closedir(directory);
    return 0;
}

/*
 * Whether the process lacks something, or the disk fails: then nothing is known of the file.  Going on without what is in it would
 * make a chain that looks forged.
 */
static bool is_unknown(int error) {
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == EIO;
}

/* A file in memory, read-only. NULL: it cannot be (errno), or is empty (0); then what is found of it is in *foundp. */
static void *map_file(int fd, size_t *sizep, enum chain_found *foundp) {
    struct stat st;
    void *memory;

    *foundp = CHAIN_DAMAGED;
    if (fd < 0 || fstat(fd, &st) < 0)
        return NULL;
    *foundp = CHAIN_TORN;
    errno = 0;
    if (st.st_size == 0)
        return NULL;
    *foundp = CHAIN_DAMAGED;
    *sizep = (size_t)st.st_size;
    memory = mmap(NULL, *sizep, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

int chain_open_file(const struct chain *chain, uint64_t segment, int flags) {
    char name[CHAIN_NAME];

    chain_file_name(name, chain->options.writer, segment);
    return openat(chain->directory, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
}

/*
 * Reads a file to its end; @a n receives how many commands it has, @a last the kind of its last record. fd: as chain_open_file()
 * gave it, right before. 0, or a negative errno: nothing is known of the file.
 */
static int scan(const struct chain *chain, int fd, struct chain_reader *reader, enum chain_found *found, uint64_t *n,
                uint16_t *last) {
    struct chain_item item;
    size_t size = 0;
    void *memory = map_file(fd, &size, found);

    *reader = (struct chain_reader){};
    *n = 0;
    *last = 0;
    if (!memory)
        return is_unknown(errno) ? -errno : 0;
    *found = chain_reader_init(reader, memory, size);
    while (*found == CHAIN_RECORD && (*found = chain_reader_next(reader, &item)) == CHAIN_RECORD) {
        *n += chain_has_command(item.record.kind);
        *last = item.record.kind;
        chain->options.seen(chain->options.context, &item);
    }
    munmap(memory, size);
    return 0;
}

/* Goes on at the end of the newest file. What is after it is cut off. */
static int go_on(struct chain *chain, const struct chain_reader *reader, int fd) {
    chain->options.start.cut = reader->size - reader->offset;
    if (chain->options.start.cut && (ftruncate(fd, (off_t)reader->offset) < 0 || fdatasync(fd) < 0))
        return -errno;
    chain->fd = fd;
    chain->open = chain->segment;
    chain->offset = reader->offset;
    chain->outdated = reader->header.version < VMIBUS_CHAIN_VERSION;
    chain->batch = reader->batch + 2; /* a torn one may have had the next number */
    return 0;
}

/* The chain goes on after the newest record, in whichever file that is. */
static void take_end(struct chain *chain, const struct chain_reader *reader) {
    if (reader->sequence <= chain->sequence)
        return;
    chain->sequence = reader->sequence;
    memcpy(chain->hash, reader->hash, sizeof(chain->hash));
}

/*
 * The newest file, and those before it as far as they are needed.  A file without a header was never begun, and is begun
 * again.  Of one that is damaged what is good is believed: the chain goes on from there in the next file.
 */
int chain_take_files(struct chain *chain) {
    int fd = chain_open_file(chain, chain->segment, O_RDWR);
    struct chain_reader reader;
    enum chain_found found;
    uint64_t n, total;
    uint16_t last;
    int r = scan(chain, fd, &reader, &found, &total, &last);

    take_end(chain, &reader);
    for (uint64_t segment = chain->segment; r == 0 && total < chain->options.scan && segment-- > chain->oldest; total += n) {
        struct chain_reader before;
        enum chain_found of_older;
        int older = chain_open_file(chain, segment, O_RDONLY);
        uint16_t kind;

        r = scan(chain, older, &before, &of_older, &n, &kind);
        take_end(chain, &before);
        fd_close(older);
    }
    if (r < 0) {
        fd_close(fd);
        return r;
    }
    r = -1;
    chain->options.start.damaged = found == CHAIN_DAMAGED;
    if (reader.sequence && found != CHAIN_DAMAGED && last != VMIBUS_CHAIN_END)
        r = go_on(chain, &reader, fd);
    else if (!reader.sequence && found == CHAIN_TORN && fd >= 0 && ftruncate(fd, 0) == 0)
        chain->segment--; /* it is made anew, with its number */
    if (r)
        fd_close(fd);
    return 0;
}
