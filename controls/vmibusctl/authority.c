/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "authority.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/names.h>

#include "report.h"
#include "units.h"

char *authority_variable(enum vmibus_lease_class lease_class, char *buffer) {
    snprintf(buffer, 32, "VMIBUS_LEASE_%s", vmibus_lease_class_name(lease_class));
    return buffer;
}

char *authority_vm(const struct vmibus_endpoint *endpoint, char *buffer) {
    snprintf(buffer, 40, "%" PRIu32 ":%" PRIu64, endpoint->slot, endpoint->generation);
    return buffer;
}

/* The token that the lender of the connection holds on this very endpoint, 0 if none. */
static uint64_t lent_token(const struct vmibusctl *ctl, const struct vm *vm, enum vmibus_lease_class lease_class) {
    char buffer[40];
    const char *lent_vm = getenv("VMIBUS_LEASE_VM");
    const char *text = getenv(authority_variable(lease_class, buffer));
    uint64_t token;

    if (!vmibus_is_lent(ctl->bus) || !lent_vm || !text || strcmp(lent_vm, authority_vm(&vm->endpoint, buffer)) != 0)
        return 0;
    return units_parse_number(text, UINT64_MAX, &token) ? token : 0;
}

/* Who stands in the way. */
static void tell_holder(const struct vm *vm, enum vmibus_lease_class lease_class) {
    const struct vmibus_frame *lease = &vm->leases[lease_class];

    if (lease->header.kind && lease->lease.state == VMIBUS_LEASE_STATE_HELD)
        fprintf(stderr, "The lease is held by process %" PRIu32 " of user %" PRIu32 ", rank %" PRIu32 ".\n",
                lease->lease.holder_pid, lease->lease.holder_uid, lease->lease.rank);
}

int authority_acquire(struct vmibusctl *ctl, const struct vm *vm, enum vmibus_lease_class lease_class, enum vmibus_lease_mode mode,
                      uint32_t ttl_ms, struct authority *authority) {
    struct vmibus_message reply;
    int r;

    *authority = (struct authority){.vm = vm, .lease_class = lease_class};
    r = vmibus_lease_acquire(ctl->bus, &vm->endpoint, lease_class, mode, ttl_ms, &authority->token, &reply);
    authority->taken = r == 0;
    if (r) {
        r = report_refusal(ctl, r, &reply, "cannot take the %s lease of %s", vmibus_lease_class_name(lease_class),
                           printable(vm->name));
        tell_holder(vm, lease_class);
    }
    vmibus_message_deinit(&reply);
    return r;
}

int authority_take(struct vmibusctl *ctl, const struct vm *vm, enum vmibus_lease_class lease_class, const char *token,
                   struct authority *authority) {
    *authority = (struct authority){.vm = vm, .lease_class = lease_class};
    if (token && !units_parse_number(token, UINT64_MAX, &authority->token))
        return vmibusctl_usage("--token", token, "a fencing token is a number");
    if (!token)
        authority->token = lent_token(ctl, vm, lease_class);
    if (token || authority->token)
        return STATUS_OK;
    return authority_acquire(ctl, vm, lease_class, VMIBUS_LEASE_MODE_FAIL, 0, authority);
}

void authority_release(struct vmibusctl *ctl, struct authority *authority) {
    if (authority->taken)
        vmibus_lease_release(ctl->bus, &authority->vm->endpoint, authority->lease_class, authority->token);
    authority->taken = false;
}
