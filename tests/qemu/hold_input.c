/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A command for `vmibusctl lease VM input`: holds a key and a button down under the lease that was lent to it, until it is
 * killed.  With the word "expire", SIGTERM has it renew the lease for one millisecond only, and not end.
 */
#include <inttypes.h>
#include <linux/input-event-codes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <vmibus/client.h>

static const struct vmibus_input_event held[] = {
    {.type = VMIBUS_INPUT_TYPE_KEY, .code = KEY_A, .value = 1},
    {.type = VMIBUS_INPUT_TYPE_KEY, .code = BTN_LEFT, .value = 1},
};

static int renew_when_told(struct vmibus *bus, const struct vmibus_endpoint *endpoint, uint64_t token, const sigset_t *signals) {
    int number;

    sigwait(signals, &number);
    return vmibus_lease_renew(bus, endpoint, VMIBUS_LEASE_CLASS_INPUT, token, 1);
}

int main(int argc, char **argv) {
    const char *vm = getenv("VMIBUS_LEASE_VM"), *token_text = getenv("VMIBUS_LEASE_INPUT");
    struct vmibus_endpoint endpoint;
    struct vmibus *bus;
    bool expires = argc > 1 && strcmp(argv[1], "expire") == 0;
    sigset_t signals;
    uint64_t token;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    if (expires)
        sigprocmask(SIG_BLOCK, &signals, NULL);
    if (!vm || !token_text || sscanf(vm, "%" SCNu32 ":%" SCNu64, &endpoint.slot, &endpoint.generation) != 2)
        return 2;
    token = strtoull(token_text, NULL, 10);
    if (vmibus_connect(&bus, NULL, "hold-input") != 0)
        return 3;
    if (vmibus_input(bus, &endpoint, token, held, 2, NULL) != 0)
        return 4;
    if (expires && renew_when_told(bus, &endpoint, token, &signals) != 0)
        return 5;
    for (;;)
        pause();
}
