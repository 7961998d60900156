/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmibusctl lease: holds a lease while a command runs, and lends it the connection.
 *
 * While it runs, nothing is read or written here: the connection is the command's.  Afterwards it is
 * taken back and the lease given back; where the command left half a frame behind, or somebody of its
 * kin still speaks, the connection is shut down, which ends the lease as well.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vmibus/names.h>

#include "authority.h"
#include "child.h"
#include "report.h"
#include "units.h"

#define RECLAIM_MS 2000

struct lending {
    const struct authority *authority;
    int fd;
};

/* In the child: the connection, and what it holds, in its environment. */
static void give(void *context) {
    const struct lending *lending = context;
    const struct authority *authority = lending->authority;
    char variable[32], value[40];

    fcntl(lending->fd, F_SETFD, 0);
    snprintf(value, sizeof(value), "%d", lending->fd);
    setenv("VMIBUS_LENT_FD", value, 1);
    setenv("VMIBUS_LEASE_VM", authority_vm(&authority->vm->endpoint, value), 1);
    snprintf(value, sizeof(value), "%" PRIu64, authority->token);
    setenv(authority_variable(authority->lease_class, variable), value, 1);
}

static void take_back(struct vmibusctl *ctl, struct authority *authority, int fd) {
    if (vmibus_reclaim(ctl->bus, RECLAIM_MS) == 0)
        authority_release(ctl, authority);
    shutdown(fd, SHUT_RDWR);
}

/*
 * With the last memory channel of a session its leases end.  Where the memory authority has a process of its own the borrowers
 * open and close one each; this one is there all along.
 */
static void hold_memory_channel(struct vmibusctl *ctl) {
    struct vmibus_frame frame;

    if (vmibus_get_welcome(ctl->bus)->memory != VMIBUS_MEMORY_LOCATION_SOCKET)
        return;
    vmibus_command_init(&frame, VMIBUS_KIND_MEM_QUERY, NULL);
    frame.mem_query.query = VMIBUS_MEMORY_QUERY_HOLDERS;
    (void)vmibus_call(ctl->bus, &frame, NULL, 0, NULL); /* without it a borrower may lose the lease, and is told so */
}

static int lend(struct vmibusctl *ctl, struct authority *authority, char **command) {
    int fd = vmibus_dup_fd(ctl->bus), status;
    struct lending lending = {.authority = authority, .fd = fd};

    if (fd < 0)
        return report_failure("the connection cannot be lent: %s", strerror(-fd));
    hold_memory_channel(ctl);
    roster_unsubscribe(ctl);
    status = child_run(command, give, &lending);
    take_back(ctl, authority, fd);
    close(fd);
    return status;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    const char *mode_text = arguments_get(arguments, "mode"), *ttl_text = arguments_get(arguments, "ttl");
    int lease_class = vmibus_lease_class_from_name(arguments->words[1]);
    int mode = mode_text ? vmibus_lease_mode_from_name(mode_text) : VMIBUS_LEASE_MODE_FAIL;
    struct authority authority = {};
    struct roster roster = {};
    uint64_t ttl_ms = 0;
    struct vm *vm;
    int r;

    if (lease_class <= 0 || lease_class >= ROSTER_CLASSES)
        return vmibusctl_usage("lease class", arguments->words[1], "it is input, power or memwrite");
    if (mode <= 0)
        return vmibusctl_usage("--mode", mode_text, "it is fail, queue or preempt");
    if (ttl_text && !units_parse_number(ttl_text, UINT32_MAX, &ttl_ms))
        return vmibusctl_usage("--ttl", ttl_text, "it is a number of milliseconds, 0 for as long as the policy allows");
    r = roster_fetch(ctl, &roster);
    if (r == STATUS_OK)
        r = roster_lookup(&roster, arguments->words[0], &vm);
    if (r == STATUS_OK)
        r = authority_acquire(ctl, vm, (enum vmibus_lease_class)lease_class, (enum vmibus_lease_mode)mode, (uint32_t)ttl_ms,
                              &authority);
    if (r == STATUS_OK)
        r = lend(ctl, &authority, arguments->words + 2);
    roster_deinit(&roster);
    return r;
}

static const struct option_description options[] = {
    {"mode", "MODE", "when it is held: fail (default), queue, or preempt a lower rank"},
    {"ttl", "MS", "time to live in milliseconds; 0 (default): until CMD ends, as far as the policy allows"},
    {},
};

const struct verb verb_lease = {
    .name = "lease",
    .synopsis = "VM CLASS -- CMD [ARGUMENTS]",
    .summary = "hold a lease (input, power or memwrite) while a command runs, which may use it",
    .min_words = 3,
    .max_words = SIZE_MAX,
    .options = options,
    .run = run,
};
