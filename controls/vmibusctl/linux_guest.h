/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What every verb that looks into a Linux guest does around its own work: finds the VM, attaches to its RAM, opens its
 * kernel, holds it still if asked to, and afterwards looks whether what it read was of one epoch.
 *
 * A verb collects what it shows, calls linux_guest_let_go(), and only then prints: a slow terminal must not keep a
 * guest standing.
 */
#ifndef VMIBUSCTL_LINUX_GUEST_H
#define VMIBUSCTL_LINUX_GUEST_H

#include <json.h>

#include <vmibus/guest_linux.h>

#include "guest_memory.h"
#include "json_list.h"
#include "roster.h"
#include "standstill.h"

/** Entries that a verb shows: what is collected before it is printed has a bound. */
#define LINUX_GUEST_ENTRIES_MAX (1u << 18)

/** The options that linux_guest_begin() understands, for the table of a verb. */
#define LINUX_GUEST_OPTIONS                                                                 \
    {"quiesce", NULL, "hold the guest still meanwhile: an exact picture"},                  \
    {"mediated", NULL, "read through the memory authority also where RAM descriptors are given"}

/** Reads that a verb may take: a second where RAM is mapped, and half a minute where the authority reads. */
#define LINUX_GUEST_READS_MAX (UINT64_C(16) << 20)
#define LINUX_GUEST_READS_MEDIATED_MAX (UINT64_C(1) << 20)

struct linux_guest {
    struct vmibusctl *ctl;
    struct roster roster;
    struct vm *vm;                      /**< of the roster; gone if the VM went away meanwhile */
    struct guest_memory memory;
    struct vmibus_linux *kernel;
    struct vmibus_endpoint endpoint;
    char name[VMIBUS_NAME_BOUND + 1];
    struct standstill standstill;
};

/**
 * Begins to look into a guest.
 * @param vm_word the VM as the user named it
 * @param guest   filled; to be ended by linux_guest_end() whatever this returns
 * @return a status, after having said what was wrong
 */
int linux_guest_begin(struct vmibusctl *ctl, const struct arguments *arguments, const char *vm_word, struct linux_guest *guest);

/** Lets the guest go on, if it was held. Harmless otherwise. Returns a status, after having said what was wrong. */
int linux_guest_let_go(struct linux_guest *guest);

/**
 * Ends it: lets the guest go on, looks whether the epoch is still the same, frees everything.
 * @param status of the verb's work, whose troubles have been said
 * @return @a status, or what went wrong here
 */
int linux_guest_end(struct linux_guest *guest, int status);

/**
 * Says why something about the guest's kernel did not work.
 * @param r    what a function of vmibus/guest_linux.h returned, not 0
 * @param what what was attempted, such as "the symbols cannot be read"
 * @return a status
 */
int linux_guest_report(const struct linux_guest *guest, int r, const char *what);

/** The status that stands for what a function of vmibus/guest_linux.h returned, not 0. */
int linux_guest_status(int r);

/** Says on stderr how far a picture can be trusted, unless nothing speaks against it. */
void linux_guest_say_picture(const struct linux_guest *guest, const struct vmibus_linux_picture *picture);

/** The names of the picture's flags, as an array: what the key "picture" holds. */
struct json_object *linux_guest_picture_json(const struct vmibus_linux_picture *picture);

/** Gives each object of a list the key "picture", prints the list and frees it; says the picture on stderr as well. */
void linux_guest_print_json(const struct linux_guest *guest, struct json_list *list, const struct vmibus_linux_picture *picture);

#endif
