/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * task_image: a kernel of a test's own making, with tasks, open files and sockets: RAM with page tables, BTF, symbols. It stands
 * in for src/guest/linux/kernel.c and kallsyms.c.
 *
 * Members lie where they lie in a Linux 6.1 of Debian. Whatever a test wants to be wrong, it writes by image_put().
 */
#ifndef TESTS_GUEST_LIB_TASK_IMAGE_H
#define TESTS_GUEST_LIB_TASK_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guest/linux/kernel.h"

#define IMAGE_LEN (UINT64_C(16) << 20)

/** Where the kernel maps RAM; a process maps the page at IMAGE_USER to IMAGE_USER_GPA. */
#define IMAGE_BASE UINT64_C(0xffff888000000000)
#define IMAGE_USER UINT64_C(0x400000)

/* Where members lie. */
#define TASK_STATE 24
#define TASK_FLAGS 44
#define TASK_TASKS 2192
#define TASK_MM 2272
#define TASK_EXIT_STATE 2308
#define TASK_PID 2416
#define TASK_TGID 2420
#define TASK_REAL_PARENT 2432
#define TASK_THREAD_PID 2520
#define TASK_THREAD_NODE 2608
#define TASK_START 2784
#define TASK_REAL_CRED 2952
#define TASK_EXECUTIONS 3240
#define TASK_COMM 2976
#define TASK_FS 3040
#define TASK_FILES 3048
#define TASK_SIGNAL 3072
#define TASK_SIZE 9792
#define CRED_UID 8
#define PID_LEVEL 4
#define PID_NUMBERS 96
#define MM_PGD 72
#define MM_ARG_START 312
#define SIGNAL_THREAD_HEAD 16
#define FILES_FDT 32
#define FDTABLE_MAX 0
#define FDTABLE_FD 8
#define FDTABLE_CLOSE 16
#define FILE_INODE 32
#define FILE_FLAGS 64
#define FILE_POSITION 104
#define FILE_PRIVATE 200
#define INODE_MODE 0
#define INODE_SB 40
#define INODE_NUMBER 64
#define SUPER_MAGIC 96
#define SOCK_DADDR 0
#define SOCK_SADDR 4
#define SOCK_DPORT 12
#define SOCK_NUM 14
#define SOCK_FAMILY 16
#define SOCK_STATE 18
#define SOCK_NODE 104
#define SOCK_TYPE 514
#define SOCK_UID 560
#define SOCK_SOCKET 624
#define SOCK_NET 48
#define SOCK_WAITING 141
#define NET_LIST 0
#define NET_TCP 64
#define NET_UDP (NET_TCP + 16)
#define NET_UNIX 136
#define NET_INUM 48
#define UTS_NAME 4
#define CLOCK_SHIFT 20
#define CLOCK_NANOSECONDS 24
#define CLOCK_BASE 32
#define CLOCK_SECONDS 112
#define CLOCK_TO_WALL 144
#define CLOCK_TO_BOOT 152
#define SOCKET_INODE_NUMBER (128 + INODE_NUMBER)

/** Most symbols that a test gives. */
#define IMAGE_SYMBOLS 16

struct image {
    struct vmibus_linux kernel; /**< to be given to the functions under test */
    uint8_t *memory;            /**< IMAGE_LEN octets */
    uint64_t used;
    uint64_t init_task;
    uint64_t process_root;      /**< cr3 of every process */
    uint64_t user_gpa;          /**< of the page at IMAGE_USER */
    uint64_t counters;          /**< total_forks, and 8 octets behind it nr_threads */
    uint64_t listening, connected, datagrams, locals; /**< tables of sockets, IMAGE_CHAINS each */
    size_t reads;
    void (*before_read)(struct image *image, uint64_t gpa); /**< to change things underfoot */
    struct {
        const char *name;
        uint64_t gva;           /**< 0: there is no such symbol */
    } symbols[IMAGE_SYMBOLS];   /**< besides those of tasks and sockets, or in their place */
    size_t n_symbols;
    size_t n_calls;             /**< of linux_read() and linux_symbol() so far */
    size_t fail_at;             /**< the number of the call, from 1, that fails; 0: none */
    int failure;                /**< ... with this */
};

#define IMAGE_CHAINS 512u

/** Makes a kernel with its first task and empty tables of sockets. NULL where there is no memory. */
struct image *image_new(void);

/** The same without one of the members that the kernel describes: the first of them is 0. */
struct image *image_new_without(size_t member);

/** Whether there is such a member; of which structure it is. */
bool image_member(size_t member, const char **structure, const char **name);

/** Gives the kernel a symbol, or takes it away (0). */
void image_symbol(struct image *image, const char *name, uint64_t gva);

/** Puts text there. Returns its address. */
uint64_t image_text(struct image *image, const char *text);

/** A memfd that cannot shrink, with what is in its memory: RAM as a guest's. The caller's; negative: an errno. */
int image_memfd(const struct image *image);

/** Frees it. Takes and returns NULL. */
struct image *image_free(struct image *image);

/** Takes zeroed memory of the kernel. Returns its address. Aborts when there is no more. */
uint64_t image_take(struct image *image, size_t len);

/** Writes a number of so many octets. */
void image_put(struct image *image, uint64_t gva, uint64_t value, size_t size);

/** Reads 8 octets. */
uint64_t image_get(const struct image *image, uint64_t gva);

/** Adds a process with an address space, one thread, credentials, a pid; it is the last in the list. Returns its task_struct. */
uint64_t image_process(struct image *image, uint32_t pid, uint32_t ppid_task_pid, const char *comm);

/** Adds a thread to a process. */
uint64_t image_thread(struct image *image, uint64_t leader, uint32_t tid, const char *comm);

/** Puts an entry behind the last one of a list. */
void image_append(struct image *image, uint64_t head, uint64_t node);

/** Gives a process a table of open files with room for @a max_fds. Returns where the first pointer lies. */
uint64_t image_table(struct image *image, uint64_t task, uint32_t max_fds);

/** Makes an open file of a file system with a magic number. */
uint64_t image_file(struct image *image, uint64_t inode, uint16_t mode, uint64_t magic);

/** Makes a sock with a socket and inode, in a chain of a table. Returns its address. */
uint64_t image_sock(struct image *image, uint64_t table, uint32_t chain, uint32_t stride, uint64_t inode);

#endif
