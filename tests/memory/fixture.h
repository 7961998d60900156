/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A memory authority with a bus, a sensor, a control and a VM that are made up: the VM is a stretch of
 * RAM with page tables in it, the bus and the clients write down what they are told.
 */
#ifndef TESTS_MEMORY_FIXTURE_H
#define TESTS_MEMORY_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <vmibus/protocol.h>

#include "memory/authority.h"
#include "memory/opener.h"
#include "policy/policy.h"
#include "util/audit.h"
#include "util/ledger.h"
#include "util/loop.h"

#define PAGE UINT64_C(4096)
#define MIB (UINT64_C(1) << 20)

/** Where the made-up kernel lies. */
#define RAM_SIZE (8 * MIB)
#define PGD_GPA UINT64_C(0x1000)
#define NOTE_GPA UINT64_C(0x10000)
#define DATA_GPA UINT64_C(0x200000)
#define KERNEL_GVA UINT64_C(0xffffffff82000000)   /* its top page table */
#define DATA_GVA UINT64_C(0xffffffff83000000)     /* 1 MiB of writable pages at DATA_GPA, in order */
#define SCATTER_GVA UINT64_C(0xffffffff84000000)  /* 16 writable pages at DATA_GPA + 2 MiB, backwards */
#define READ_ONLY_GVA UINT64_C(0xffffffff85000000)
#define OUTSIDE_GVA UINT64_C(0xffffffff86000000)  /* maps what is no RAM */
#define ROM_GVA UINT64_C(0xffffffff87000000)      /* maps the ROM range */
#define RESERVED_GVA UINT64_C(0xffffffff88000000) /* an entry with reserved bits */
#define EMPTY_GVA UINT64_C(0xffffffff89000000)    /* nothing */
#define LARGE_GVA UINT64_C(0xffffffff8a000000)    /* a large page over 4 MiB to 6 MiB */
#define ROM_GPA UINT64_C(0xfffc0000)
#define ROM_SIZE (4 * PAGE)
#define OUTSIDE_GPA UINT64_C(0x40000000)

/* --- the VM ------------------------------------------------------------------------------------ */

/** Stretches of made-up RAM. */
struct vm {
    int fd;             /**< -1: private memory */
    uint8_t *ram;       /**< RAM_SIZE octets, mapped here */
    uint8_t *rom;       /**< ROM_SIZE octets, in the same object behind the RAM */
    uint64_t next_table;
    uint8_t levels;
};

/** How the RAM is made. */
enum vm_kind {
    VM_SEALED,      /**< memfd sealed against shrinking */
    VM_UNSEALED,    /**< memfd */
    VM_PRIVATE,     /**< private anonymous memory of this process */
    VM_SHM,         /**< named file in /dev/shm, unlinked by vm_deinit() */
};

void vm_init(struct vm *vm, enum vm_kind kind, uint8_t levels);
void vm_deinit(struct vm *vm);

/** Name of the file of a VM_SHM. */
const char *vm_shm_path(void);

/** Maps a page of the guest. @a flags: bits of the last entry besides the address. */
void vm_map(struct vm *vm, uint64_t gva, uint64_t gpa, uint64_t flags, unsigned level);

/** Gives pages of the RAM back to the host: they read as zeros, and are not there. */
void vm_forget(struct vm *vm, uint64_t gpa, uint64_t len);

/** Host blocks of 512 octets that the RAM file takes. */
uint64_t vm_blocks(const struct vm *vm);

/* --- the bus and the clients ------------------------------------------------------------------- */

#define FRAMES_MAX 64

/** Frames written down, with a copy of their tails. */
/** Octets that regions of clients have. */
#define FIXTURE_MEMORY (1 << 20)

struct journal {
    size_t n;
    struct vmibus_frame frames[FRAMES_MAX];
    void *tails[FRAMES_MAX];
    int fds[VMIBUS_FDS_PER_FRAME];  /**< of the last frame that had some: duplicates */
    size_t n_fds;
};

struct client {
    struct fixture *fixture;
    struct authority_client *handle;
    uint8_t session[16];
    struct principal principal;
    struct account *account;
    struct region region;
    struct journal journal;
    size_t n_retired;       /**< MEM_RETIRED, which the journal leaves out */
    uint64_t retired;       /**< epoch of the last one */
    size_t n_disconnected;
    bool unidentified;      /**< a sensor's layouts come without its word which VM it is */
    bool silent;            /**< answers are not written down */
};

struct fixture {
    struct loop *loop;
    struct ledger ledger;
    struct ledger memory_ledger;    /**< of what clients' regions hold */
    struct account *memory_account;
    struct arena arena;
    struct pool regions;
    struct policy *policy;
    struct audit audit;
    int audit_fd;
    struct opener opener;           /**< opener_local(), for tests to change */
    struct authority *authority;
    struct journal link;
    struct client sensor;
    struct client control;
    struct vm vm;
    uint64_t epoch;                 /**< of the last MEMCTX */
    uint64_t token;                 /**< issued last */
    uint64_t correlation;
    uint32_t slot;
    uint64_t generation;
    char name[64];                  /**< that the bus gave the endpoint */
};

/** How long an epoch that ended may be held; to be changed before fixture_init(). */
extern uint32_t fixture_retire_ms;

/** Whether small writes into shared RAM go to a worker too; to be changed before fixture_init(). */
extern bool fixture_small_writes_on_worker;

/** Makes everything up to an occupied endpoint in slot 1, named "vm". */
void fixture_init(struct fixture *fixture, enum vm_kind kind);

/** The same without a VM and without an endpoint. */
void fixture_init_empty(struct fixture *fixture);

/** The same with 5 paging levels and other choices. */
void fixture_init_levels(struct fixture *fixture, enum vm_kind kind, uint8_t levels);

/** Layout and root proposed and accepted, and a token issued to the control. */
void fixture_ready(struct fixture *fixture);

/** Tears everything down; the ledger asserts that nothing is left. */
void fixture_deinit(struct fixture *fixture);

/** Adds a client. @a uid and @a pid as its principal. */
void client_init(struct client *client, struct fixture *fixture, enum vmibus_role role, uid_t uid,
                 pid_t pid);
void client_deinit(struct client *client);

/** Gives everybody capabilities on all endpoints; the first call ends that root may do everything. */
void fixture_grant(struct fixture *fixture, uint32_t uid, uint32_t capabilities);

/* --- saying things ----------------------------------------------------------------------------- */

void link_open(struct fixture *fixture, uint64_t generation, const char *name);
void link_close(struct fixture *fixture, uint64_t generation);
void link_issue(struct fixture *fixture, const struct client *client, uint64_t token,
                uint64_t expires);
void link_revoke(struct fixture *fixture, uint64_t token);
void link_session_closed(struct fixture *fixture, const struct client *client);

/** A frame to the fixture's endpoint. */
struct vmibus_frame frame_make(struct fixture *fixture, enum vmibus_kind kind);

/** Sends a frame and returns the ACK, waiting for a worker if need be. */
struct vmibus_ack *submit(struct client *client, struct vmibus_frame *frame, const void *tail,
                          const int *fds);

/** Sends a frame and does not wait. */
void submit_only(struct client *client, struct vmibus_frame *frame, const void *tail,
                 const int *fds);

/** Dispatches until the client has n answers in all. */
void wait_answers(struct client *client, size_t n);

/** Dispatches until the bus has heard n frames in all. */
void wait_link(struct fixture *fixture, size_t n);

/** The layout of the fixture's VM, by address in this process if it has no descriptor or @a by_process. */
struct vmibus_ack *propose_layout(struct fixture *fixture, bool by_process);

/** The root of the fixture's VM, as it is. */
struct vmibus_frame root_frame(struct fixture *fixture);
struct vmibus_ack *propose_root(struct fixture *fixture);

/** A write with its source in the frame, or behind it if it is longer or a flag says so. */
struct vmibus_frame write_frame(struct fixture *fixture, uint64_t gva, const void *source,
                                size_t len, uint32_t flags);
struct vmibus_ack *do_write(struct fixture *fixture, uint64_t gva, const void *source, size_t len,
                            uint32_t flags);

/** Last frame of a kind that the bus heard, or NULL. */
struct vmibus_frame *last_of(struct journal *journal, enum vmibus_kind kind);

/** How many of a kind. */
size_t count_of(const struct journal *journal, enum vmibus_kind kind);

/** Whether octets all have a value. One look, where an assertion per octet would take seconds. */
bool is_filled(const uint8_t *octets, uint8_t value, size_t len);

/** Start time of a process. */
uint64_t start_time_of(pid_t pid);

/* --- writes that fail -------------------------------------------------------------------------- */

/** Instead of a descriptor: this process's memory, by process_vm_writev(2); the offset is an address. */
#define FD_OWN_PROCESS (-2)

/**
 * What the program's pwrite(2) and process_vm_writev(2) do instead, if it is not NULL; pwrite_really() writes. Also
 * called on workers.
 */
extern ssize_t (*pwrite_hook)(int fd, const void *buffer, size_t len, off_t offset);

ssize_t pwrite_really(int fd, const void *buffer, size_t len, off_t offset);

/** Lets pwrite(2) wait, from now on, until pwrite_release(). */
void pwrite_block(void);
void pwrite_release(void);

#define assert_refused(ack, expected_error, expected_reason)                                       \
    do {                                                                                           \
        const struct vmibus_ack *ack_refused = (ack);                                              \
        ck_assert_uint_eq(ack_refused->error, expected_error);                                     \
        ck_assert_uint_eq(ack_refused->reason, expected_reason);                                   \
        ck_assert_uint_eq(ack_refused->count, 0);                                                  \
    } while (0)

#define assert_ok(ack) ck_assert_uint_eq((ack)->error, VMIBUS_ERROR_OK)

#endif
