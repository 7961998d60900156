/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bed: a real QEMU guest for a test, and the test's own independent view of it.
 *
 * The guest is started by tests/guest/run-guest and runs tests/guest/agent.c, which tells facts on
 * the serial port and obeys commands typed there (its header lists both). The product gets a QMP
 * socket of its own; the test has a second monitor, its oracle, so that it never has to ask the
 * code under test what is true.
 *
 * A guest belongs to the process (and the thread) that started it, and ends with it however that
 * ends, SIGKILL included; its directory goes with it too. All waiting is poll(2) with a deadline.
 *
 * Functions return 0 or a negative errno, unless they say otherwise: -ETIMEDOUT when the time is
 * up, -EPIPE when QEMU has gone, -EREMOTEIO when QEMU answered with an error; bed_error() says
 * more.
 * None is thread-safe; one thread per bed.
 *
 * Environment: VMIBUS_SOURCE_DIR is the source tree, in which tests/guest is (also a compile-time
 * macro; else looked for above the program and the working directory); VMIBUS_BED_DIR is where the
 * initrd is kept (default: ${TMPDIR:-/tmp}/vmibus-bed-UID).
 */
#ifndef VMIBUS_TESTS_BED_H
#define VMIBUS_TESTS_BED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct json_object;

/** Where guest memory lives. */
enum bed_ram {
    BED_RAM_MEMFD,   /* memory-backend-memfd,share=on */
    BED_RAM_SHM,     /* memory-backend-file,share=on on a named file in /dev/shm: bed->shm */
    BED_RAM_PRIVATE, /* memory-backend-ram: anonymous, private to QEMU */
    BED_RAM_CUSTOM,  /* the extra arguments say it */
};

/** What to start. Zero and NULL are the defaults, so `{0}` is a plain guest. */
struct bed_options {
    const char *machine;      /* "q35" */
    const char *cpu;          /* "max": 5-level paging; "qemu64": 4-level */
    const char *memory;       /* "512M"; slots= and maxmem= may follow after commas */
    const char *smp;          /* "1" */
    const char *accel;        /* "tcg" */
    const char *name;         /* "guest" */
    const char *append;       /* more kernel command line: "" */
    const char *flavour;      /* the newest kernel of it: "amd64"; "cloud-amd64", "rt-amd64" */
    const char *const *extra; /* more QEMU arguments, NULL-terminated: none */
    enum bed_ram ram;
    bool boot_files;          /* the guest has its kernel and initrd as /boot/kernel and /boot/initrd */
    bool firmware_only;       /* no Linux: QEMU and its firmware, up in a fraction of a second */
};

/** A running guest. The fields may be read, not written. */
struct bed {
    pid_t pid;       /* QEMU: a child of the process that called bed_start(), in its own group */
    int pid_fd;      /* pidfd of it, readable when it has ended */
    int serial_fd;   /* the serial port; use bed_serial_send() and bed_wait_serial() */
    int oracle_fd;   /* the test's monitor; use bed_qmp(), bed_hmp() and bed_wait_event() */
    char *directory; /* made for this bed, removed with it; a test may put files there */
    char *qmp;       /* path of the product's QMP socket: nobody has connected to it yet */
    char *accel;     /* the accelerator in use */
    char *kernel;    /* the kernel image; NULL with firmware_only */
    char *shm;       /* BED_RAM_SHM: path of the memory file; else NULL */
    struct bed_private *private;
};

/**
 * Says whether a guest can be had here. Builds the initrd if need be (some seconds, once).
 *
 * @param firmware_only  whether a guest without Linux would do
 * @param reason         where to put why not: a static string, to show with the skip; may be NULL
 */
bool bed_available(bool firmware_only, const char **reason);

/** The same for a guest with a kernel of a flavour, as in struct bed_options. */
bool bed_flavour_available(const char *flavour, const char **reason);

/**
 * Starts a guest. On return QEMU runs, its sockets accept and the oracle answers; the guest itself
 * is still booting: `bed_wait_serial(bed, "READY", ...)`.
 *
 * @param out      where to put the bed; end it with bed_stop()
 * @param options  what to start; NULL for the defaults
 */
int bed_start(struct bed **out, const struct bed_options *options);

/**
 * Kills QEMU, reaps it, removes the directory and the memory file, frees the bed.
 *
 * @param bed  may be NULL
 * @return NULL
 */
struct bed *bed_stop(struct bed *bed);

/** For __attribute__((cleanup(bed_stop_pointer))). */
void bed_stop_pointer(struct bed **bed);

/** What the last failed call knows to say; after a failed bed_start(), pass NULL. Never NULL. */
const char *bed_error(const struct bed *bed);

/* ---- serial port ----------------------------------------------------------------------------- */

/**
 * Waits for a line on the serial port that begins with a prefix. Lines are taken in order: those
 * before the match are passed over, and the next wait goes on after it. Everything stays in the
 * history of the port.
 *
 * @param prefix      how the line begins
 * @param timeout_ms  how long at most
 * @param line        where to put the line without its end, to be freed; may be NULL
 */
int bed_wait_serial(struct bed *bed, const char *prefix, int timeout_ms, char **line);

/**
 * Waits like bed_wait_serial() for a fact: the line's first word, and key=value fields that must
 * all be in it.
 *
 * @param word    the first word, such as "VAR"
 * @param fields  such as "comm=vmibus-child value=0x0000000000000001"; may be ""
 */
int bed_wait_fact(struct bed *bed, const char *word, const char *fields, int timeout_ms,
                  char **line);

/**
 * Finds the newest line said so far that has this word and these fields, without waiting and
 * without moving on.
 *
 * @return 0, or -ENOENT
 */
int bed_last_fact(struct bed *bed, const char *word, const char *fields, char **line);

/** Types a command for the agent; the end of the line is added. */
int bed_serial_send(struct bed *bed, const char *command);

/**
 * Types a command and waits for its `OK` or `ERR`.
 *
 * @param command     such as "kallsyms panic_timeout"
 * @param timeout_ms  how long at most
 * @param reply       where to put the lines up to and with the OK, each ended by a newline, to be
 *                    freed; facts that came meanwhile are among them. May be NULL
 * @return 0; -EREMOTEIO for ERR
 */
int bed_ask(struct bed *bed, const char *command, int timeout_ms, char **reply);

/**
 * Reads a number out of a fact: the value of key= in a line (or in the first line that has it).
 *
 * @return 0; -ENOENT when there is no such key, -EINVAL when it is no number
 */
int bed_field(const char *line, const char *key, uint64_t *value);

/** The agent's sum of the buffer, for what a test expects it to be. @param len  in bytes */
uint64_t bed_sum(const void *bytes, size_t len);

/* ---- the oracle ------------------------------------------------------------------------------ */

/**
 * Executes a QMP command on the test's monitor.
 *
 * @param command    such as "query-status"
 * @param arguments  a JSON object as text; NULL for none
 * @param result     where to put the `return` value, a reference of the caller's; may be NULL
 */
int bed_qmp(struct bed *bed, const char *command, const char *arguments,
            struct json_object **result);

/**
 * Executes a human monitor command on the test's monitor. These never fail for QMP: what went
 * wrong stands in the text.
 *
 * @param command  such as "gva2gpa 0x..." (of the current CR3: stop the guest first)
 * @param text     where to put the answer, to be freed; may be NULL
 */
int bed_hmp(struct bed *bed, const char *command, char **text);

/**
 * Waits for a QMP event. Events are kept from the start of the guest; the one that matches is taken
 * out, with all before it.
 *
 * @param name   such as "RESET"
 * @param event  where to put the whole event, a reference of the caller's; may be NULL
 */
int bed_wait_event(struct bed *bed, const char *name, int timeout_ms, struct json_object **event);

/** Forgets the events so far. */
void bed_drop_events(struct bed *bed);

/**
 * Opens the memfd of QEMU's RAM, for reading.
 *
 * @param len  octets of RAM; another memfd is not taken for it
 * @return a descriptor, the caller's; -ENOENT: QEMU has none of that size; or another negative errno
 */
int bed_open_ram(const struct bed *bed, uint64_t len);

/**
 * Waits for QEMU to end by itself, and reaps it.
 *
 * @param status  where to put its wait status; may be NULL
 */
int bed_wait_exit(struct bed *bed, int timeout_ms, int *status);

#endif
