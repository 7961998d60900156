/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libvmibus-guest: a Linux kernel as it describes itself in its own RAM.
 *
 * Symbols come from kallsyms, layouts of structures from BTF, both read from the guest; no profile of the
 * kernel is needed.  Everything read is hostile: each list, tree, name and count is bounded, and what
 * contradicts itself is refused with an outcome of enum vmibus_guest_result.
 *
 * Symbols and layouts are read once, when they are first asked for: a kernel's text and BTF do not change
 * within an epoch.  Everything else is read anew with each call.  The guest runs meanwhile, so each picture of a list says how
 * far it can be trusted (struct vmibus_linux_picture); whoever needs an exact one holds the guest still around the call.
 *
 * visit_*() shows each entry of something that changes.  What a visitor is given is valid during its call only, and if it returns
 * false the visit ends, which is no failure: the picture then has no ENDED.  read_*() reads one thing, find_*() looks for one of
 * many.  On failure what is filled is undefined, and a picture counts for nothing.  "An outcome of reading" is one of
 * vmibus_guest_read().
 *
 * No function logs, exits, writes to a guest or touches what the guest never touched.  An object is used by one thread at a
 * time, and ends with its epoch: what was read counts only if the epoch is current afterwards.
 */
#ifndef VMIBUS_GUEST_LINUX_H
#define VMIBUS_GUEST_LINUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/guest.h>
#include <vmibus/visibility.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A Linux kernel in guest RAM. */
struct vmibus_linux;

/**
 * Opens a kernel. Reads the note; everything else is read when it is first asked for.
 * @param linuxp   receives the kernel, NULL on failure
 * @param reader   how to read guest-physical memory; copied, its context must outlive the kernel
 * @param root     the kernel's own root, as in a memctx
 * @param note_gpa where its VMCOREINFO note lies, as in a memctx
 * @return 0; VMIBUS_GUEST_UNPROVEN: there is no such note, or its tables contradict the root; OUTSIDE_RAM, TRUNCATED; or a
 *         negative errno
 */
VMIBUS_PUBLIC int vmibus_linux_new(struct vmibus_linux **linuxp, const struct vmibus_guest_reader *reader,
                                   const struct vmibus_guest_root *root, uint64_t note_gpa);

/** Frees it. Takes and returns NULL. */
VMIBUS_PUBLIC struct vmibus_linux *vmibus_linux_free(struct vmibus_linux *kernel);

/**
 * Sets how many reads of the guest may be made from now on by all calls on this kernel together, a page each, until it is set
 * anew; without it there is no such bound.  Each list, tree, name and count has a bound of its own, but a guest can make each entry
 * of the longest list lead to the longest name.  When it is spent, a visit ends as if the rest could not be read, and
 * what returns an outcome returns one that is not 0, such as VMIBUS_GUEST_UNFINISHED.
 */
VMIBUS_PUBLIC void vmibus_linux_set_budget(struct vmibus_linux *kernel, uint64_t reads);

/**
 * How the last call on this kernel that did not return 0 came about: a sentence for people, without an end. Never NULL; valid until
 * the next call on the kernel.
 */
VMIBUS_PUBLIC const char *vmibus_linux_why(const struct vmibus_linux *kernel);

/** How far a picture of something that changes can be trusted. */
enum vmibus_linux_picture_flags {
    VMIBUS_LINUX_ENDED = 1u << 0,   /**< the list or tree ended as it should, nothing in it contradicted itself */
    VMIBUS_LINUX_STEADY = 1u << 1,  /**< what holds it together was read again afterwards, and was the same */
    VMIBUS_LINUX_BOUNDED = 1u << 2, /**< it was longer than the bound: there is more */
};

/** What a visit of a list comes to. */
struct vmibus_linux_picture {
    uint64_t n_seen;    /**< entries that were visited */
    uint64_t n_broken;  /**< entries that could not be read, or made no sense, and were left out; or shown without what could not */
    uint32_t flags;     /**< enum vmibus_linux_picture_flags; ENDED | STEADY: nothing speaks against it */
};

/* --- symbols, modules ------------------------------------------------------------------------------------------ */

/** Longest name of a module with its NUL (Linux include/linux/moduleparam.h, MODULE_NAME_LEN). */
#define VMIBUS_LINUX_MODULE_NAME_SIZE 64

/** A symbol. */
struct vmibus_linux_symbol {
    uint64_t gva;           /**< address; a per-CPU variable of vmlinux may have a small number instead */
    uint64_t size;          /**< octets up to the next symbol of vmlinux, or as the module's table says; 0: not known */
    const char *name;       /**< printable if of vmlinux; any octets if of a module */
    const char *module;     /**< name of its module; NULL: vmlinux */
    char type;              /**< letter as of nm(1); of a module always a small one */
};

/** Takes a symbol, which is valid during the call. Returns whether the visit goes on. */
typedef bool (*vmibus_linux_symbol_fn)(void *context, const struct vmibus_linux_symbol *symbol);

/**
 * Visits the symbols of vmlinux by rising address, then those of each module. All of vmlinux's are decoded when they are first
 * asked for (kallsyms, in some 10 ms and 60 octets each); looking up one takes below a microsecond then.
 * @param name    only those of this name, of which there may be several; NULL: all
 * @param visit   called for each
 * @param picture how far that of the modules can be trusted; an entry is a module; may be NULL
 * @return 0, also if none has that name; UNPROVEN: kallsyms cannot be decoded; or a negative errno
 */
VMIBUS_PUBLIC int vmibus_linux_visit_symbols(struct vmibus_linux *kernel, const char *name, vmibus_linux_symbol_fn visit,
                                             void *context, struct vmibus_linux_picture *picture);

/** The address of the first symbol of vmlinux with that name. 0; NOT_FOUND; else as vmibus_linux_visit_symbols(). */
VMIBUS_PUBLIC int vmibus_linux_find_symbol(struct vmibus_linux *kernel, const char *name, uint64_t *gva);

/**
 * The symbol that an address belongs to: the last one of vmlinux, or of the module that the address lies in, at or before it; of
 * several at one address the first.
 * @param symbol filled; its texts are valid until the next call on the kernel
 * @return 0; NOT_FOUND: the address is neither of vmlinux nor of a module; an outcome of reading; else as
 *         vmibus_linux_visit_symbols()
 */
VMIBUS_PUBLIC int vmibus_linux_symbol_at(struct vmibus_linux *kernel, uint64_t gva, struct vmibus_linux_symbol *symbol);

/** States of modules (Linux include/linux/module.h, enum module_state). */
enum vmibus_linux_module_state {
    VMIBUS_LINUX_MODULE_LIVE = 0,
    VMIBUS_LINUX_MODULE_COMING = 1,     /**< its init runs */
    VMIBUS_LINUX_MODULE_GOING = 2,
    VMIBUS_LINUX_MODULE_UNFORMED = 3,   /**< being put together: /proc/modules does not show it */
};

/** A module of the kernel. */
struct vmibus_linux_module {
    uint64_t module;        /**< where its struct module lies */
    uint64_t base;          /**< where its text lies */
    uint64_t text_size;     /**< octets that lie together from there: text alone since 6.4, before that also data */
    uint64_t size;          /**< octets of all its parts, as in /proc/modules */
    uint32_t references;    /**< uses, by modules and otherwise */
    uint32_t state;         /**< enum vmibus_linux_module_state */
    char name[VMIBUS_LINUX_MODULE_NAME_SIZE]; /**< ends with NUL; any octets */
};

/** Takes a module, which is valid during the call. Returns whether the visit goes on. */
typedef bool (*vmibus_linux_module_fn)(void *context, const struct vmibus_linux_module *module);

/**
 * Visits the modules, the last loaded first. Unformed ones are left out.
 * @param picture how far it can be trusted
 * @return 0, UNPROVEN (no symbols or layouts, or no list of modules), or a negative errno
 */
VMIBUS_PUBLIC int vmibus_linux_visit_modules(struct vmibus_linux *kernel, vmibus_linux_module_fn visit, void *context,
                                             struct vmibus_linux_picture *picture);

/* --- facts, clocks, log ---------------------------------------------------------------------------------------- */

/** Octets of a line that the kernel was started with, its NUL included: more than any x86 kernel takes. */
#define VMIBUS_LINUX_COMMAND_LINE_SIZE 4096

/** Parts of the facts that could be read. */
enum vmibus_linux_facts_flags {
    VMIBUS_LINUX_HAS_BANNER = 1u << 0,
    VMIBUS_LINUX_HAS_BUILD_ID = 1u << 1,
    VMIBUS_LINUX_HAS_NAMES = 1u << 2,       /**< host_name, domain_name */
    VMIBUS_LINUX_HAS_COMMAND_LINE = 1u << 3,
    VMIBUS_LINUX_HAS_CLOCKS = 1u << 4,      /**< boot_time, uptime */
};

/** What a kernel is and when it began. Texts end with NUL; they may hold any octets but the release. */
struct vmibus_linux_facts {
    uint32_t flags;         /**< enum vmibus_linux_facts_flags */
    char release[65];       /**< as of uname -r, always there */
    char banner[512];       /**< as its log begins: /proc/version, and what a distribution adds; no newline */
    uint8_t build_id[20];   /**< of vmlinux, build_id_len octets */
    uint8_t build_id_len;
    char host_name[65];     /**< of the first namespace */
    char domain_name[65];
    char command_line[VMIBUS_LINUX_COMMAND_LINE_SIZE]; /**< as /proc/cmdline; what is longer is cut */
    uint64_t boot_time;     /**< nanoseconds from 1970 to the guest's boot: exact, by its wall clock as that is set */
    /**
     * nanoseconds from boot, as /proc/uptime, to when the guest last advanced its clocks. That is at most a tick ago (1 to 10 ms)
     * where one of its processors is busy, and up to some seconds where all are idle: it is never too much.
     */
    uint64_t uptime;
};

/** Reads the facts; those that cannot be read are left out of flags. Returns 0 or a negative errno. */
VMIBUS_PUBLIC int vmibus_linux_read_facts(struct vmibus_linux *kernel, struct vmibus_linux_facts *facts);

/** A record of the kernel's log. */
struct vmibus_linux_record {
    uint64_t sequence;      /**< its number since boot; what is missing in a row could not be read */
    uint64_t time;          /**< nanoseconds by the kernel's local clock, about those since boot */
    uint32_t caller;        /**< thread id, or processor with bit 31; 0 where the kernel keeps none */
    uint8_t facility;       /**< as of syslog(3), not shifted */
    uint8_t level;          /**< 0 emergency to 7 debug */
    const char *text;       /**< len octets and a NUL; any octets, newlines too */
    size_t len;
};

/** Takes a record, which is valid during the call. Returns whether the visit goes on. */
typedef bool (*vmibus_linux_record_fn)(void *context, const struct vmibus_linux_record *record);

/**
 * Visits the records in the kernel's log, the oldest first. Kernels since 5.10.
 * @param picture how far it can be trusted: without STEADY, records came or went meanwhile
 * @return 0; UNPROVEN: the note does not describe the log, or the log makes no sense; or a negative errno
 */
VMIBUS_PUBLIC int vmibus_linux_visit_log(struct vmibus_linux *kernel, vmibus_linux_record_fn visit, void *context,
                                         struct vmibus_linux_picture *picture);

/* --- processes, threads, their files, sockets ------------------------------------------------------------------ */

/** Octets of a task's name, its NUL included (Linux include/linux/sched.h, TASK_COMM_LEN). */
#define VMIBUS_LINUX_COMM_SIZE 16

/** Levels of pid namespaces below the first one (Linux include/linux/pid_namespace.h, MAX_PID_NS_LEVEL). */
#define VMIBUS_LINUX_NESTED_MAX 32

/** What a task is. */
enum vmibus_linux_task_flags {
    VMIBUS_LINUX_TASK_KERNEL = 1u << 0,     /**< a thread of the kernel */
    VMIBUS_LINUX_TASK_THREAD = 1u << 1,     /**< a thread other than the one that stands for its process */
    VMIBUS_LINUX_TASK_IDS_UNKNOWN = 1u << 2, /**< what holds uid, euid and gid could not be read */
    VMIBUS_LINUX_TASK_NESTED_UNKNOWN = 1u << 3, /**< what holds the pids in namespaces could not be read */
    VMIBUS_LINUX_TASK_CR3_UNKNOWN = 1u << 4, /**< it has an address space of its own, but its root could not be read */
};

/** A process, or a thread of one. */
struct vmibus_linux_task {
    uint64_t task;          /**< where its task_struct lies */
    uint64_t mm;            /**< where its mm_struct lies; 0: it has no address space of its own (kernel thread, zombie) */
    uint64_t cr3;           /**< the top page table of that address space, the kernel's half of it; 0 without one */
    uint64_t start_time;    /**< nanoseconds after boot, time in suspension included, in the first time namespace */
    uint64_t executions;    /**< programs that it has executed, and those it was forked from before: rises with each execve(2) */
    uint32_t pid;           /**< in the first pid namespace; of a thread, its tid */
    uint32_t tgid;          /**< pid of the process */
    uint32_t ppid;          /**< of the parent process, 0 if it has none */
    uint32_t uid;           /**< real, in the first user namespace */
    uint32_t euid;
    uint32_t gid;
    uint32_t flags;         /**< enum vmibus_linux_task_flags */
    char state;             /**< R S D T t X Z P I as ps(1) shows it; '?' unknown */
    char comm[VMIBUS_LINUX_COMM_SIZE]; /**< its name, ends with NUL; any octets */
    uint8_t n_nested;       /**< namespaces below the first that it has a pid in */
    uint32_t nested[VMIBUS_LINUX_NESTED_MAX]; /**< ... these, from the outermost to the innermost */
};

/** Takes a task, which is valid during the call. Returns whether the visit goes on. */
typedef bool (*vmibus_linux_task_fn)(void *context, const struct vmibus_linux_task *task);

/**
 * Visits the processes in the order of the kernel's list (that of their creation), each followed by its threads if these
 * are wanted. The idle tasks (pid 0) are none.
 * @param threads whether threads other than the first of each process are visited
 * @param visit   called for each
 * @param picture how far it can be trusted; if the visit was ended by @a visit, without ENDED
 * @return 0, UNPROVEN (no symbols or layouts, or the list cannot be found), or a negative errno
 */
VMIBUS_PUBLIC int vmibus_linux_visit_tasks(struct vmibus_linux *kernel, bool threads, vmibus_linux_task_fn visit, void *context,
                                           struct vmibus_linux_picture *picture);

/**
 * Visits processes, for a caller who knows most of them from an earlier visit.
 * @param known  called for each first, with what its task_struct says by itself: ids, cr3, ppid and nested are not read
 *               yet.  True: the caller has seen to this one, and @a visit is not called for it
 * @param visit  called for each other; as for vmibus_linux_visit_tasks(), also the rest
 */
VMIBUS_PUBLIC int vmibus_linux_visit_unknown_tasks(struct vmibus_linux *kernel, vmibus_linux_task_fn known,
                                                   vmibus_linux_task_fn visit, void *context,
                                                   struct vmibus_linux_picture *picture);

/**
 * Finds a process, or else a thread, by its pid in the first namespace.
 * @return 0; NOT_FOUND: there is none; CHANGED: not found, but the list changed while it was read; else as
 *         vmibus_linux_visit_tasks()
 */
VMIBUS_PUBLIC int vmibus_linux_find_task(struct vmibus_linux *kernel, uint32_t pid, struct vmibus_linux_task *task);

/** What changes when tasks come or go. */
struct vmibus_linux_census {
    uint64_t forks;         /**< tasks, threads too, that were ever made */
    uint64_t threads;       /**< those that there are, but for the idle ones */
};

/**
 * Counts: two numbers that the kernel keeps, read in a fraction of the time that a visit takes. Equal ones before and after say
 * that no task began or ended between; a list of tasks may be behind them for some nanoseconds.
 * @return 0; UNPROVEN: the kernel's symbols do not tell; else an outcome of reading or a negative errno
 */
VMIBUS_PUBLIC int vmibus_linux_count_tasks(struct vmibus_linux *kernel, struct vmibus_linux_census *census);

/**
 * Reads how many programs a task that was seen has executed by this time: executions of struct vmibus_linux_task, and nothing else,
 * so that looking at many costs little. Of one that has ended it is any number.
 * @return 0; an outcome of reading; UNPROVEN; or a negative errno
 */
VMIBUS_PUBLIC int vmibus_linux_read_executions(struct vmibus_linux *kernel, uint64_t task, uint64_t *executions);

/**
 * Reads the command line of a process: arguments that end with NUL each, as /proc/PID/cmdline.
 * @param text receives up to @a size octets
 * @param len  receives how many; what is longer is cut
 * @return 0; NOT_FOUND: it has no address space; NOT_PRESENT or another outcome of a page walk: a page that holds the rest is
 *         not in memory, and @a text has what comes before it; CHANGED: the task has ended; UNPROVEN; or a negative errno
 */
VMIBUS_PUBLIC int vmibus_linux_read_arguments(struct vmibus_linux *kernel, const struct vmibus_linux_task *task, char *text,
                                              size_t size, size_t *len);

/** Reads the environment that a process was started with, as /proc/PID/environ. Else as vmibus_linux_read_arguments(). */
VMIBUS_PUBLIC int vmibus_linux_read_environment(struct vmibus_linux *kernel, const struct vmibus_linux_task *task, char *text,
                                                size_t size, size_t *len);

/** Longest path with its NUL, as in Linux include/uapi/linux/limits.h. */
#define VMIBUS_LINUX_PATH_SIZE 4096

/**
 * Reads the path of the program that a process executes, as /proc/PID/exe.
 * @param path room for VMIBUS_LINUX_PATH_SIZE octets; ends with NUL
 * @return 0; NOT_FOUND: it has no address space; CHANGED: the task has ended; else an outcome of reading, UNPROVEN, or a
 *         negative errno
 */
VMIBUS_PUBLIC int vmibus_linux_read_program(struct vmibus_linux *kernel, const struct vmibus_linux_task *task, char *path);

/** Reads the path of the directory that a process works in, as /proc/PID/cwd. Else as vmibus_linux_read_program(). */
VMIBUS_PUBLIC int vmibus_linux_read_directory(struct vmibus_linux *kernel, const struct vmibus_linux_task *task, char *path);

/** What an open file is. */
enum vmibus_linux_file_kind {
    VMIBUS_LINUX_FILE_PATH = 0,     /**< a file, device, directory: its name is a path */
    VMIBUS_LINUX_FILE_SOCKET = 1,   /**< socket:[INODE] */
    VMIBUS_LINUX_FILE_PIPE = 2,     /**< pipe:[INODE] */
    VMIBUS_LINUX_FILE_ANONYMOUS = 3, /**< anon_inode:NAME */
    VMIBUS_LINUX_FILE_NAMESPACE = 4, /**< a file of nsfs or another kernel file system without names: TYPE:[INODE] */
};

/** An open file of a process. */
struct vmibus_linux_file {
    uint64_t file;          /**< where its struct file lies */
    uint64_t inode;         /**< number of its inode */
    uint64_t position;
    uint64_t socket;        /**< SOCKET: where its struct socket lies */
    uint32_t fd;
    uint32_t flags;         /**< O_ flags as in /proc/PID/fdinfo, O_CLOEXEC included */
    uint16_t mode;          /**< type and rights of its inode (S_IFMT and below) */
    uint8_t kind;           /**< enum vmibus_linux_file_kind */
    bool named;             /**< whether the name could be read */
    char name[VMIBUS_LINUX_PATH_SIZE]; /**< as the link in /proc/PID/fd; "" if it could not be read */
};

/** Takes an open file, which is valid during the call. Returns whether the visit goes on. */
typedef bool (*vmibus_linux_file_fn)(void *context, const struct vmibus_linux_file *file);

/**
 * Visits the open files of a process by rising descriptor.
 * @param picture how far it can be trusted
 * @return 0; NOT_FOUND: it has no table of files (a zombie); CHANGED: the task has ended; UNPROVEN; an outcome of reading; or a
 *         negative errno
 */
VMIBUS_PUBLIC int vmibus_linux_visit_files(struct vmibus_linux *kernel, const struct vmibus_linux_task *task,
                                           vmibus_linux_file_fn visit, void *context, struct vmibus_linux_picture *picture);

/** What a socket speaks. */
enum vmibus_linux_socket_kind {
    VMIBUS_LINUX_SOCKET_TCP = 0,
    VMIBUS_LINUX_SOCKET_UDP = 1,
    VMIBUS_LINUX_SOCKET_UNIX = 2,
};

/** States of sockets (Linux include/net/tcp_states.h). */
enum vmibus_linux_socket_state {
    VMIBUS_LINUX_SOCKET_ESTABLISHED = 1,
    VMIBUS_LINUX_SOCKET_SYN_SENT = 2,
    VMIBUS_LINUX_SOCKET_SYN_RECV = 3,
    VMIBUS_LINUX_SOCKET_FIN_WAIT1 = 4,
    VMIBUS_LINUX_SOCKET_FIN_WAIT2 = 5,
    VMIBUS_LINUX_SOCKET_TIME_WAIT = 6,
    VMIBUS_LINUX_SOCKET_CLOSE = 7,
    VMIBUS_LINUX_SOCKET_CLOSE_WAIT = 8,
    VMIBUS_LINUX_SOCKET_LAST_ACK = 9,
    VMIBUS_LINUX_SOCKET_LISTEN = 10,
    VMIBUS_LINUX_SOCKET_CLOSING = 11,
};

/** Octets of a name of a Unix socket (Linux include/uapi/linux/un.h). */
#define VMIBUS_LINUX_UNIX_NAME_MAX 108

/** A socket. */
struct vmibus_linux_socket {
    uint64_t sock;          /**< where its struct sock lies, or what stands for one (a request, TIME_WAIT) */
    uint64_t inode;         /**< number of its inode, 0 if it has none: nobody has it open any more, or yet */
    uint64_t peer;          /**< UNIX: where the struct sock lies that it is connected to; 0 if none */
    uint32_t uid;           /**< of whoever made it; 0 without an inode */
    uint32_t pid;           /**< a process that has it open; 0: none is known */
    uint32_t fd;            /**< ... as this descriptor */
    uint32_t n_owners;      /**< descriptors, of all processes, that it is open as */
    uint32_t net_namespace; /**< inode number of its network namespace, as in /proc/PID/ns/net; 0: not known */
    uint16_t family;        /**< AF_INET 2, AF_INET6 10, AF_UNIX 1 */
    uint16_t local_port;
    uint16_t remote_port;
    uint16_t type;          /**< SOCK_STREAM 1, SOCK_DGRAM 2, SOCK_SEQPACKET 5 */
    uint8_t kind;           /**< enum vmibus_linux_socket_kind */
    uint8_t state;          /**< enum vmibus_linux_socket_state */
    uint8_t local[16];      /**< address in network order; of AF_INET the first 4 octets */
    uint8_t remote[16];
    uint8_t name_len;       /**< UNIX: octets of its name, 0 if it has none */
    char name[VMIBUS_LINUX_UNIX_NAME_MAX]; /**< a path, or a NUL and an abstract name; does not end with NUL */
};

/** Takes a socket, which is valid during the call. Returns whether the visit goes on. */
typedef bool (*vmibus_linux_socket_fn)(void *context, const struct vmibus_linux_socket *socket);

/**
 * Visits the TCP and UDP sockets of IPv4 and IPv6 that have a port, and the Unix ones, of all network namespaces, whether or not a
 * process has them open: by the tables that the kernel finds them by. Owners are looked up in the files of all
 * processes.
 * @param picture how far it can be trusted; a bucket of a table counts as no entry
 * @return 0, UNPROVEN, or a negative errno
 */
VMIBUS_PUBLIC int vmibus_linux_visit_sockets(struct vmibus_linux *kernel, vmibus_linux_socket_fn visit, void *context,
                                             struct vmibus_linux_picture *picture);

/* --- address spaces -------------------------------------------------------------------------------------------- */

/** What may be done in a mapping, and who sees it. */
enum vmibus_linux_mapping_flags {
    VMIBUS_LINUX_MAPPING_READ = 1u << 0,
    VMIBUS_LINUX_MAPPING_WRITE = 1u << 1,
    VMIBUS_LINUX_MAPPING_EXECUTE = 1u << 2,
    VMIBUS_LINUX_MAPPING_SHARED = 1u << 3, /**< 's' in /proc/PID/maps: what is written is seen by others */
};

/** A mapping of an address space: a line of /proc/PID/maps. */
struct vmibus_linux_mapping {
    uint64_t start;         /**< guest-virtual */
    uint64_t end;           /**< the first address behind it */
    uint64_t offset;        /**< octets from the beginning of the file; 0 without a file */
    uint64_t inode;         /**< number of the file's inode; 0 without a file */
    uint32_t device_major;  /**< of the file system that the inode is of */
    uint32_t device_minor;
    uint32_t flags;         /**< enum vmibus_linux_mapping_flags */
    uint64_t area;          /**< where its struct vm_area_struct lies */
    uint64_t file;          /**< where its struct file lies; 0 without a file */
    /**
     * As in /proc/PID/maps: a path, maybe with " (deleted)" behind it, "[heap]", "[stack]", "[vdso]", ...; "" if it has none; any
     * octets but NUL, where /proc writes a newline as \012. NULL: it has one that could not be read. The path is that in the
     * file's own mount namespace, from its topmost mount.
     */
    const char *name;
};

/** Takes a mapping, which is valid during the call. Returns whether the visit goes on. */
typedef bool (*vmibus_linux_mapping_fn)(void *context, const struct vmibus_linux_mapping *mapping);

/**
 * Visits the mappings of a process's address space by rising address.
 * @param visit   called for each
 * @param picture how far it can be trusted: STEADY, if a second walk found the same areas, as many as the kernel counts;
 *                n_broken counts mappings that were left out, and names that could not be read
 * @return 0; NOT_FOUND: it has none of its own (kernel thread, zombie); CHANGED: the task has ended, or has another address space
 *         since; UNPROVEN: no symbols or layouts, or there is no address space where its mm is; or a negative errno
 */
VMIBUS_PUBLIC int vmibus_linux_visit_mappings(struct vmibus_linux *kernel, const struct vmibus_linux_task *task,
                                              vmibus_linux_mapping_fn visit, void *context,
                                              struct vmibus_linux_picture *picture);

#ifdef __cplusplus
}
#endif

#endif
