/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a daemon gives up once it is set up, so that whoever takes it over has little of it: system calls (seccomp(2)), files
 * (landlock(7)), new privileges (no_new_privs), being looked into by others of its user (PR_SET_DUMPABLE).
 *
 *   System calls  are those that the program's files and the modules in it say they make (<vmibus/syscalls.h>), and
 *                 sandbox_basis.c.  Any other ends the process with its name on standard error, and a service manager starts it
 *                 anew.  Nothing more becomes executable, no namespace is made, no socket but of the unix family, no process but
 *                 where `fork` is declared; no signal goes to another process, and no limit of one is changed, but by kill(2).
 *   Files         are those below the paths that are given.  What is open stays open, and sockets can be connected to; those
 *                 that are not files (unix(7), abstract) only if that is wanted.
 *                 Landlock takes from a process what ptrace(2) would let it see of others, /proc/PID/mem and maps among it: who
 *                 opens such cannot have it.
 *
 * What the kernel or the build does not have is told and left out, unless it is required.
 */
#ifndef DAEMON_SANDBOX_H
#define DAEMON_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>

/** The key `sandbox` of a configuration. */
enum sandbox_wish {
    SANDBOX_NO,
    SANDBOX_YES,        /**< as far as can be had */
    SANDBOX_REQUIRE,    /**< or the daemon does not start */
};

/** Sanitizers make system calls of their own, which nobody says: their builds have none unless told. */
#ifdef VMIBUS_SANITIZED
#define SANDBOX_DEFAULT SANDBOX_NO
#else
#define SANDBOX_DEFAULT SANDBOX_YES
#endif

enum sandbox_access {
    SANDBOX_READ = 1,   /**< read files and folders */
    SANDBOX_WRITE = 2,  /**< read, write, make and remove */
    SANDBOX_REMOVE = 4, /**< remove files in the folder */
};

/** A file or folder that stays within reach, with all below it. One that is not there is passed over. */
struct sandbox_path {
    const char *path;   /**< NULL: none */
    unsigned access;    /**< of enum sandbox_access */
};

/** Takes yes, no, require. False: it is none of them. */
bool sandbox_parse(const char *value, enum sandbox_wish *wish);

/**
 * Nothing that is executed gains privileges, and no other process of the same user looks into this one.
 * @param open_to_user  it stays so: for a process that has no more rights than whoever started it
 * @return 0 or a negative errno
 */
int sandbox_close_process(bool open_to_user);

/** Has the C library load what it looks users and groups up with, for who does so again later: nothing can be loaded then. */
void sandbox_load_lookup(void);

/**
 * Takes all files but those that are given out of reach, for this thread and those that it starts: before any is started.
 * @param abstract  sockets that are no files stay within reach (without Linux 6.12 they always do)
 * @return 0, also if the kernel cannot and it is not required (it is told), or a negative errno (told)
 */
int sandbox_limit_files(enum sandbox_wish wish, const struct sandbox_path *paths, size_t n_paths, bool abstract);

/**
 * Takes all system calls out of reach but those that are declared, for all threads: when all modules are loaded.
 * @return as sandbox_limit_files()
 */
int sandbox_limit_syscalls(enum sandbox_wish wish);

#endif
