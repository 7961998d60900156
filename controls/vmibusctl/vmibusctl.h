/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmibusctl: what its verbs share.
 *
 * A verb is one file verb_<name>.c with a struct verb, listed in vmibusctl.c.  Its run() returns the
 * exit status, after having said on stderr what was wrong.
 */
#ifndef VMIBUSCTL_VMIBUSCTL_H
#define VMIBUSCTL_VMIBUSCTL_H

#include <vmibus/client.h>

#include "arguments.h"

/** Exit statuses. The bus's refusals follow STATUS_REFUSED, by enum vmibus_error. */
enum status {
    STATUS_OK = 0,
    STATUS_FAILED = 1,          /**< this side failed: a file, memory, an answer that makes no sense */
    STATUS_USAGE = 2,           /**< the command line is wrong */
    STATUS_NO_CONNECTION = 3,   /**< there is no bus, or it went away */
    STATUS_NO_VM = 4,           /**< there is no such VM, as far as the caller may see */
    STATUS_HOLE = 5,            /**< monitor: a delivery number was left out */
    STATUS_NOT_FOUND = 6,       /**< what was asked for is not in the guest: a match, a process, a symbol */
    STATUS_NOT_INTACT = 7,      /**< audit verify: the chain is not what its writer wrote, or commands are missing */
    STATUS_REFUSED = 10,
};

/** One run of the program. */
struct vmibusctl {
    const char *socket;     /**< --socket, or NULL */
    bool json;              /**< --json */
    struct vmibus *bus;     /**< connected by vmibusctl_connect(), freed by main */
};

/** A verb. */
struct verb {
    const char *name;
    const char *synopsis;   /**< its words, as help shows them */
    const char *summary;
    size_t min_words;
    size_t max_words;
    const struct option_description *options;   /**< its own, besides --json, --socket and --help */
    int (*run)(struct vmibusctl *ctl, const struct arguments *arguments);
};

extern const struct verb verb_add, verb_remove;
extern const struct verb verb_audit, verb_dmesg, verb_dump, verb_explain, verb_files, verb_hold, verb_info, verb_key, verb_lease, verb_list,
    verb_maps, verb_modules, verb_monitor, verb_mouse, verb_power, verb_ps, verb_read, verb_regs, verb_screenshot, verb_search,
    verb_sockets, verb_stats, verb_symbols, verb_top, verb_translate, verb_type, verb_watch, verb_write;

/** Connects, or says why not. Returns a status. */
int vmibusctl_connect(struct vmibusctl *ctl);

/** Says that a word or the value of an option is wrong, and what would be right. Returns STATUS_USAGE. */
int vmibusctl_usage(const char *what, const char *value, const char *expected);

#endif
