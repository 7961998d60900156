/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See task_image.h. */
#include "task_image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fake_btf.h"
#include "guest/linux/btf.h"

#define PAGE UINT64_C(4096)

/* Page tables at the beginning: the kernel's three levels, and four of the processes. */
#define KERNEL_TOP (1 * PAGE)
#define KERNEL_MIDDLE (2 * PAGE)
#define KERNEL_LOW (3 * PAGE)
#define PROCESS_TOP (4 * PAGE)
#define USER_GPA (8 * PAGE)
#define FIRST_FREE (9 * PAGE)

/* --- what the kernel object does ----------------------------------------------------------------------------------- */

static struct image *image_of(const struct vmibus_linux *kernel) {
    return (struct image *)((uintptr_t)kernel - offsetof(struct image, kernel));
}

static int read_memory(void *context, uint64_t gpa, void *buffer, size_t len) {
    struct image *image = context;

    image->reads++;
    if (image->before_read)
        image->before_read(image, gpa);
    if (gpa > IMAGE_LEN || len > IMAGE_LEN - gpa)
        return VMIBUS_GUEST_OUTSIDE_RAM;
    memcpy(buffer, image->memory + gpa, len);
    return 0;
}

/* Whether this call is the one that fails. */
static bool fails(const struct vmibus_linux *kernel) {
    struct image *image = image_of(kernel);

    return ++image->n_calls == image->fail_at;
}

int linux_read(const struct vmibus_linux *kernel, uint64_t gva, void *buffer, size_t len) {
    if (fails(kernel))
        return image_of(kernel)->failure;
    return vmibus_guest_read(&kernel->reader, &kernel->root, gva, buffer, len, NULL, NULL);
}

int linux_symbol(struct vmibus_linux *kernel, const char *name, uint64_t *gva) {
    const struct image *image = image_of(kernel);

    *gva = 0;
    if (fails(kernel))
        return image->failure;
    for (size_t i = 0; i < image->n_symbols; i++)
        if (strcmp(name, image->symbols[i].name) == 0) {
            *gva = image->symbols[i].gva;
            return *gva ? 0 : VMIBUS_GUEST_NOT_FOUND;
        }
    if (strcmp(name, "init_task") == 0)
        *gva = image->init_task;
    else if (strcmp(name, "tcp_hashinfo") == 0)
        *gva = IMAGE_BASE + FIRST_FREE;
    else if (strcmp(name, "udp_table") == 0)
        *gva = IMAGE_BASE + FIRST_FREE + 128;
    else if (strcmp(name, "unix_socket_table") == 0)
        *gva = image->locals;
    else if (strcmp(name, "total_forks") == 0)
        *gva = image->counters;
    else if (strcmp(name, "nr_threads") == 0)
        *gva = image->counters + 8;
    return *gva ? 0 : VMIBUS_GUEST_NOT_FOUND;
}

/* What follows a key in the note. */
static const char *find_line(const struct vmibus_linux *kernel, const char *key) {
    const char *line = strstr(kernel->note_text, key);

    return line && line[strlen(key)] == '=' ? line + strlen(key) + 1 : NULL;
}

bool linux_note_symbol(const struct vmibus_linux *kernel, const char *name, uint64_t *gva) {
    char key[80];
    const char *value;

    snprintf(key, sizeof(key), "SYMBOL(%s)", name);
    value = find_line(kernel, key);
    *gva = value ? strtoull(value, NULL, 16) : 0;
    return value;
}

bool linux_note_number(const struct vmibus_linux *kernel, const char *key, uint32_t *number) {
    const char *value = find_line(kernel, key);

    *number = value ? (uint32_t)strtoul(value, NULL, 10) : 0;
    return value;
}

/* --- its layouts ------------------------------------------------------------------------------------------------------ */

/* A member of a structure; where a name begins with a structure's, both stand in the same one. */
struct member {
    const char *structure;
    uint32_t structure_size;
    const char *name;
    uint32_t offset;
    const char *type; /* "1", "2", "4", "8" octets, "list", or an earlier structure */
};

static const struct member members[] = {
    {"list", 16, "next", 0, "8"},
    {"list", 16, "prev", 8, "8"},
    {"in6", 16, "low", 0, "8"},
    {"task_struct", TASK_SIZE, "__state", TASK_STATE, "4"},
    {"task_struct", TASK_SIZE, "flags", TASK_FLAGS, "4"},
    {"task_struct", TASK_SIZE, "tasks", TASK_TASKS, "list"},
    {"task_struct", TASK_SIZE, "mm", TASK_MM, "8"},
    {"task_struct", TASK_SIZE, "exit_state", TASK_EXIT_STATE, "4"},
    {"task_struct", TASK_SIZE, "pid", TASK_PID, "4"},
    {"task_struct", TASK_SIZE, "tgid", TASK_TGID, "4"},
    {"task_struct", TASK_SIZE, "real_parent", TASK_REAL_PARENT, "8"},
    {"task_struct", TASK_SIZE, "thread_pid", TASK_THREAD_PID, "8"},
    {"task_struct", TASK_SIZE, "thread_node", TASK_THREAD_NODE, "list"},
    {"task_struct", TASK_SIZE, "start_boottime", TASK_START, "8"},
    {"task_struct", TASK_SIZE, "real_cred", TASK_REAL_CRED, "8"},
    {"task_struct", TASK_SIZE, "comm", TASK_COMM, "list"},
    {"task_struct", TASK_SIZE, "fs", TASK_FS, "8"},
    {"task_struct", TASK_SIZE, "files", TASK_FILES, "8"},
    {"task_struct", TASK_SIZE, "self_exec_id", TASK_EXECUTIONS, "8"},
    {"task_struct", TASK_SIZE, "signal", TASK_SIGNAL, "8"},
    {"cred", 176, "uid", CRED_UID, "4"},
    {"cred", 176, "gid", CRED_UID + 4, "4"},
    {"cred", 176, "euid", CRED_UID + 16, "4"},
    {"upid", 16, "nr", 0, "4"},
    {"pid", 112, "level", PID_LEVEL, "4"},
    {"pid", 112, "numbers", PID_NUMBERS, "upid"},
    {"mm_struct", 1096, "pgd", MM_PGD, "8"},
    {"mm_struct", 1096, "arg_start", MM_ARG_START, "8"},
    {"mm_struct", 1096, "arg_end", MM_ARG_START + 8, "8"},
    {"mm_struct", 1096, "env_start", MM_ARG_START + 16, "8"},
    {"mm_struct", 1096, "env_end", MM_ARG_START + 24, "8"},
    {"mm_struct", 1096, "exe_file", 944, "8"},
    {"signal_struct", 1112, "thread_head", SIGNAL_THREAD_HEAD, "list"},
    {"path", 16, "mnt", 0, "8"},
    {"path", 16, "dentry", 8, "8"},
    {"fs_struct", 56, "pwd", 40, "path"},
    {"files_struct", 704, "fdt", FILES_FDT, "8"},
    {"fdtable", 56, "max_fds", FDTABLE_MAX, "4"},
    {"fdtable", 56, "fd", FDTABLE_FD, "8"},
    {"fdtable", 56, "close_on_exec", FDTABLE_CLOSE, "8"},
    {"file", 232, "f_inode", FILE_INODE, "8"},
    {"file", 232, "f_flags", FILE_FLAGS, "4"},
    {"file", 232, "f_pos", FILE_POSITION, "8"},
    {"file", 232, "private_data", FILE_PRIVATE, "8"},
    {"inode", 632, "i_mode", INODE_MODE, "2"},
    {"inode", 632, "i_sb", INODE_SB, "8"},
    {"inode", 632, "i_ino", INODE_NUMBER, "8"},
    {"super_block", 1472, "s_magic", SUPER_MAGIC, "8"},
    {"socket_alloc", 768, "socket", 0, "list"},
    {"socket_alloc", 768, "vfs_inode", 128, "inode"},
    {"possible_net", 8, "net", 0, "8"},
    {"sock_common", 136, "skc_daddr", SOCK_DADDR, "4"},
    {"sock_common", 136, "skc_rcv_saddr", SOCK_SADDR, "4"},
    {"sock_common", 136, "skc_dport", SOCK_DPORT, "2"},
    {"sock_common", 136, "skc_num", SOCK_NUM, "2"},
    {"sock_common", 136, "skc_family", SOCK_FAMILY, "2"},
    {"sock_common", 136, "skc_state", SOCK_STATE, "1"},
    {"sock_common", 136, "skc_net", SOCK_NET, "possible_net"},
    {"sock_common", 136, "skc_v6_daddr", 56, "in6"},
    {"sock_common", 136, "skc_v6_rcv_saddr", 72, "in6"},
    {"sock_common", 136, "skc_node", SOCK_NODE, "list"},
    {"sock_common", 136, "skc_nulls_node", SOCK_NODE, "list"},
    {"sock", 776, "sk_type", SOCK_TYPE, "2"},
    {"sock", 776, "sk_uid", SOCK_UID, "4"},
    {"sock", 776, "sk_socket", SOCK_SOCKET, "8"},
    {"inet_hashinfo", 80, "ehash", 0, "8"},
    {"inet_hashinfo", 80, "ehash_mask", 16, "4"},
    {"inet_hashinfo", 80, "lhash2_mask", 60, "4"},
    {"inet_hashinfo", 80, "lhash2", 64, "8"},
    {"inet_ehash_bucket", 8, "chain", 0, "8"},
    {"inet_listen_hashbucket", 16, "nulls_head", 8, "8"},
    {"udp_hslot", 16, "head", 0, "8"},
    {"udp_table", 24, "hash", 0, "8"},
    {"udp_table", 24, "mask", 16, "4"},
    {"unix_sock", 1024, "addr", 776, "8"},
    {"unix_sock", 1024, "peer", 864, "8"},
    {"unix_address", 128, "len", 4, "4"},
    {"unix_address", 128, "name", 8, "1"},
    {"inet_timewait_sock", 248, "tw_substate", SOCK_WAITING, "1"},
    {"ns_common", 24, "inum", 16, "4"},
    {"death_row", 16, "hashinfo", 0, "8"},
    {"netns_ipv4", 24, "tcp_death_row", 0, "death_row"},
    {"netns_ipv4", 24, "udp_table", 16, "8"},
    {"unix_table", 16, "buckets", 8, "8"},
    {"netns_unix", 16, "table", 0, "unix_table"},
    {"net", 256, "list", NET_LIST, "list"},
    {"net", 256, "ns", 32, "ns_common"},
    {"net", 256, "ipv4", NET_TCP, "netns_ipv4"},
    {"net", 256, "unx", 128, "netns_unix"},
    {"uts_namespace", 400, "name", UTS_NAME, "8"},
    {"seqcount_raw_spinlock", 4, "sequence", 0, "4"},
    {"tk_read_base", 56, "shift", CLOCK_SHIFT, "4"},
    {"tk_read_base", 56, "xtime_nsec", CLOCK_NANOSECONDS, "8"},
    {"tk_read_base", 56, "base", CLOCK_BASE, "8"},
    {"timekeeper", 280, "tkr_mono", 0, "tk_read_base"},
    {"timekeeper", 280, "xtime_sec", CLOCK_SECONDS, "8"},
    {"timekeeper", 280, "offs_real", CLOCK_TO_WALL, "8"},
    {"timekeeper", 280, "offs_boot", CLOCK_TO_BOOT, "8"},
};

#define N_MEMBERS (sizeof(members) / sizeof(members[0]))

/* Ids of types: the integers first, then structures in the order of the table. */
static uint32_t id_of(const char *type, const char *const *names, const uint32_t *ids, size_t n) {
    switch (type[0]) {
    case '8':
        return 1;
    case '4':
        return 2;
    case '2':
        return 3;
    case '1':
        return 4;
    default:
        break;
    }
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], type) == 0)
            return ids[i];
    abort();
}

static struct btf *make_btf(size_t without) {
    static struct fake_btf fake;
    const char *names[N_MEMBERS];
    uint32_t ids[N_MEMBERS];
    char why[BTF_WHY_BOUND];
    struct btf *btf;
    void *octets;
    size_t n = 0, len;

    fake_btf_begin(&fake, 1, 0);
    fake_btf_int(&fake, "u64", 8, 64);
    fake_btf_int(&fake, "u32", 4, 32);
    fake_btf_int(&fake, "u16", 2, 16);
    fake_btf_int(&fake, "u8", 1, 8);
    for (size_t i = 0; i < N_MEMBERS; i++) {
        if (n == 0 || strcmp(names[n - 1], members[i].structure) != 0) {
            names[n] = members[i].structure;
            ids[n++] = fake_btf_type(&fake, members[i].structure, FAKE_STRUCT, 0, members[i].structure_size);
        }
        if (i != without)
            fake_btf_member(&fake, members[i].name, id_of(members[i].type, names, ids, n), members[i].offset * 8);
    }
    octets = fake_btf_octets(&fake, &len);
    if (btf_new(&btf, NULL, octets, len, why) != 0) {
        fprintf(stderr, "the image's BTF: %s\n", why);
        abort();
    }
    return btf;
}

/* --- its memory ------------------------------------------------------------------------------------------------------- */

static void put_entry(struct image *image, uint64_t table, uint64_t index, uint64_t entry) {
    memcpy(image->memory + table + 8 * index, &entry, sizeof(entry));
}

/* RAM in pages of 2 MiB for the kernel; one page for processes, which have the kernel's half too. */
static void make_tables(struct image *image) {
    const uint64_t top = IMAGE_BASE >> 39 & 511;

    put_entry(image, KERNEL_TOP, top, KERNEL_MIDDLE | 7);
    put_entry(image, PROCESS_TOP, top, KERNEL_MIDDLE | 7);
    put_entry(image, KERNEL_MIDDLE, 0, KERNEL_LOW | 7);
    for (uint64_t i = 0; i < IMAGE_LEN >> 21; i++)
        put_entry(image, KERNEL_LOW, i, i << 21 | 0x87);
    for (uint64_t level = 0; level < 3; level++)
        put_entry(image, PROCESS_TOP + level * PAGE, level == 2 ? IMAGE_USER >> 21 & 511 : 0,
                  (PROCESS_TOP + (level + 1) * PAGE) | 7);
    put_entry(image, PROCESS_TOP + 3 * PAGE, 0, USER_GPA | 7);
    image->process_root = PROCESS_TOP;
    image->user_gpa = USER_GPA;
}

uint64_t image_take(struct image *image, size_t len) {
    uint64_t at = image->used;

    if (len > IMAGE_LEN - at - 64)
        abort();
    image->used = (at + len + 63) / 64 * 64;
    return IMAGE_BASE + at;
}

void image_put(struct image *image, uint64_t gva, uint64_t value, size_t size) {
    if (gva - IMAGE_BASE > IMAGE_LEN - size)
        abort();
    memcpy(image->memory + (gva - IMAGE_BASE), &value, size);
}

uint64_t image_get(const struct image *image, uint64_t gva) {
    uint64_t value;

    if (gva - IMAGE_BASE > IMAGE_LEN - sizeof(value))
        abort();
    memcpy(&value, image->memory + (gva - IMAGE_BASE), sizeof(value));
    return value;
}

static void make_list(struct image *image, uint64_t head) {
    image_put(image, head, head, 8);
    image_put(image, head + 8, head, 8);
}

void image_append(struct image *image, uint64_t head, uint64_t node) {
    uint64_t last = image_get(image, head + 8);

    image_put(image, node, head, 8);
    image_put(image, node + 8, last, 8);
    image_put(image, last, node, 8);
    image_put(image, head + 8, node, 8);
}

static void make_socket_tables(struct image *image) {
    uint64_t tcp = image_take(image, 128), udp = image_take(image, 64);

    image->connected = image_take(image, (size_t)8 * IMAGE_CHAINS);
    image->listening = image_take(image, (size_t)16 * IMAGE_CHAINS);
    image->datagrams = image_take(image, (size_t)16 * IMAGE_CHAINS);
    image->locals = image_take(image, (size_t)8 * IMAGE_CHAINS);
    image_put(image, tcp, image->connected, 8);
    image_put(image, tcp + 16, IMAGE_CHAINS - 1, 4);
    image_put(image, tcp + 60, IMAGE_CHAINS - 1, 4);
    image_put(image, tcp + 64, image->listening, 8);
    image_put(image, udp, image->datagrams, 8);
    image_put(image, udp + 16, IMAGE_CHAINS - 1, 4);
    for (uint64_t i = 0; i < IMAGE_CHAINS; i++) {
        image_put(image, image->connected + 8 * i, 2 * i + 1, 8);
        image_put(image, image->listening + 16 * i + 8, 2 * i + 1, 8);
    }
}

bool image_member(size_t member, const char **structure, const char **name) {
    if (member >= N_MEMBERS)
        return false;
    *structure = members[member].structure;
    *name = members[member].name;
    return true;
}

void image_symbol(struct image *image, const char *name, uint64_t gva) {
    size_t at = 0;

    while (at < image->n_symbols && strcmp(image->symbols[at].name, name) != 0)
        at++;
    if (at == IMAGE_SYMBOLS)
        abort();
    image->symbols[at].name = name;
    image->symbols[at].gva = gva;
    image->n_symbols += at == image->n_symbols;
}

uint64_t image_text(struct image *image, const char *text) {
    uint64_t gva = image_take(image, strlen(text) + 1);

    memcpy(image->memory + (gva - IMAGE_BASE), text, strlen(text) + 1);
    return gva;
}

struct image *image_new(void) {
    return image_new_without(SIZE_MAX);
}

struct image *image_new_without(size_t member) {
    struct image *image = calloc(1, sizeof(*image));

    if (!image)
        return NULL;
    image->memory = calloc(1, IMAGE_LEN);
    if (!image->memory) {
        free(image);
        return NULL;
    }
    image->used = FIRST_FREE;
    image->kernel.reader = (struct vmibus_guest_reader){.read = read_memory, .context = image};
    image->kernel.root = (struct vmibus_guest_root){.cr3 = KERNEL_TOP, .levels = 4};
    image->kernel.btf = make_btf(member);
    make_tables(image);
    make_socket_tables(image);
    image->init_task = image_take(image, TASK_SIZE);
    image->counters = image_take(image, 16);
    make_list(image, image->init_task + TASK_TASKS);
    return image;
}

int image_memfd(const struct image *image) {
    int fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return -errno;
    if (pwrite(fd, image->memory, IMAGE_LEN, 0) == (ssize_t)IMAGE_LEN && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0)
        return fd;
    close(fd);
    return -EIO;
}

struct image *image_free(struct image *image) {
    if (!image)
        return NULL;
    btf_free(image->kernel.btf);
    free(image->kernel.task_layout);
    free(image->kernel.file_layout);
    free(image->kernel.socket_layout);
    free(image->kernel.path_layout);
    free(image->memory);
    free(image);
    return NULL;
}

/* --- its tasks -------------------------------------------------------------------------------------------------------- */

static uint64_t make_task(struct image *image, uint32_t pid, uint32_t tgid, const char *comm) {
    uint64_t task = image_take(image, TASK_SIZE), pids = image_take(image, 128), cred = image_take(image, 176);

    image_put(image, task + TASK_STATE, 1, 4);
    image_put(image, task + TASK_PID, pid, 4);
    image_put(image, task + TASK_TGID, tgid, 4);
    image_put(image, task + TASK_START, pid * UINT64_C(1000000), 8);
    image_put(image, task + TASK_THREAD_PID, pids, 8);
    image_put(image, task + TASK_REAL_CRED, cred, 8);
    image_put(image, cred + CRED_UID, 1000 + pid, 4);
    image_put(image, cred + CRED_UID + 4, 2000 + pid, 4);
    image_put(image, cred + CRED_UID + 16, 3000 + pid, 4);
    image_put(image, pids + PID_NUMBERS, pid, 4);
    for (size_t i = 0; i < 16 && comm[i]; i++)
        image_put(image, task + TASK_COMM + i, (uint8_t)comm[i], 1);
    return task;
}

static uint64_t find_task(const struct image *image, uint32_t pid) {
    uint64_t head = image->init_task + TASK_TASKS;

    for (uint64_t node = image_get(image, head); node != head; node = image_get(image, node))
        if ((uint32_t)image_get(image, node - TASK_TASKS + TASK_PID) == pid)
            return node - TASK_TASKS;
    return image->init_task;
}

uint64_t image_process(struct image *image, uint32_t pid, uint32_t ppid, const char *comm) {
    uint64_t task = make_task(image, pid, pid, comm), mm = image_take(image, 1096), signal = image_take(image, 1112);

    image_put(image, task + TASK_REAL_PARENT, find_task(image, ppid), 8);
    image_put(image, task + TASK_MM, mm, 8);
    image_put(image, mm + MM_PGD, IMAGE_BASE + PROCESS_TOP, 8);
    image_put(image, task + TASK_SIGNAL, signal, 8);
    make_list(image, signal + SIGNAL_THREAD_HEAD);
    image_append(image, signal + SIGNAL_THREAD_HEAD, task + TASK_THREAD_NODE);
    image_append(image, image->init_task + TASK_TASKS, task + TASK_TASKS);
    return task;
}

uint64_t image_thread(struct image *image, uint64_t leader, uint32_t tid, const char *comm) {
    uint64_t task = make_task(image, tid, (uint32_t)image_get(image, leader + TASK_PID), comm);
    uint64_t signal = image_get(image, leader + TASK_SIGNAL);

    image_put(image, task + TASK_REAL_PARENT, image_get(image, leader + TASK_REAL_PARENT), 8);
    image_put(image, task + TASK_MM, image_get(image, leader + TASK_MM), 8);
    image_put(image, task + TASK_SIGNAL, signal, 8);
    image_append(image, signal + SIGNAL_THREAD_HEAD, task + TASK_THREAD_NODE);
    return task;
}

uint64_t image_table(struct image *image, uint64_t task, uint32_t max_fds) {
    uint64_t files = image_take(image, 704), table = image_take(image, 56);
    uint64_t fds = image_take(image, (size_t)8 * max_fds), closed = image_take(image, max_fds / 8 + 8);

    image_put(image, task + TASK_FILES, files, 8);
    image_put(image, files + FILES_FDT, table, 8);
    image_put(image, table + FDTABLE_MAX, max_fds, 4);
    image_put(image, table + FDTABLE_FD, fds, 8);
    image_put(image, table + FDTABLE_CLOSE, closed, 8);
    return fds;
}

uint64_t image_file(struct image *image, uint64_t number, uint16_t mode, uint64_t magic) {
    uint64_t file = image_take(image, 232), inode = image_take(image, 632), super = image_take(image, 1472);

    image_put(image, file + FILE_INODE, inode, 8);
    image_put(image, inode + INODE_MODE, mode, 2);
    image_put(image, inode + INODE_NUMBER, number, 8);
    image_put(image, inode + INODE_SB, super, 8);
    image_put(image, super + SUPER_MAGIC, magic, 8);
    return file;
}

/* In a table with chains of 16 octets of TCP, the pointer comes second. */
uint64_t image_sock(struct image *image, uint64_t table, uint32_t chain, uint32_t stride, uint64_t number) {
    uint64_t sock = image_take(image, 1024), socket = image_take(image, 768);
    uint64_t head = table + (uint64_t)chain * stride + (table == image->listening ? 8 : 0), first = image_get(image, head);

    image_put(image, sock + SOCK_SOCKET, socket, 8);
    image_put(image, socket + SOCKET_INODE_NUMBER, number, 8);
    image_put(image, sock + SOCK_FAMILY, table == image->locals ? 1 : 2, 2);
    image_put(image, sock + SOCK_NODE, first, 8);
    image_put(image, sock + SOCK_NODE + 8, head, 8);
    if (first && !(first & 1))
        image_put(image, first + 8, sock + SOCK_NODE, 8);
    image_put(image, head, sock + SOCK_NODE, 8);
    return sock;
}
