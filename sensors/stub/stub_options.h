/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Options of the stub sensor: what vmibus-sensor-stub(7) lists, parsed and bounded. */
#ifndef STUB_OPTIONS_H
#define STUB_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/sensor.h>

#define STUB_VMS_MAXIMUM 1024u
#define STUB_MS_MAXIMUM 86400000u
#define STUB_MESSAGE_BOUND 256

enum stub_bootstrap {
    STUB_BOOTSTRAP_OK,
    STUB_BOOTSTRAP_SLOW,
    STUB_BOOTSTRAP_FAIL,
    STUB_BOOTSTRAP_FLAKY
};
enum stub_root { STUB_ROOT_PROVEN, STUB_ROOT_NONE, STUB_ROOT_WRONG };
enum stub_layout { STUB_LAYOUT_OK, STUB_LAYOUT_OVERLAP, STUB_LAYOUT_BEYOND };
enum stub_execute { STUB_EXECUTE_OK, STUB_EXECUTE_SLOW, STUB_EXECUTE_HANG, STUB_EXECUTE_FAIL };

struct stub_options {
    uint32_t vms;
    uint64_t ram;          /**< octets per VM */
    uint32_t state;        /**< enum vmibus_vm_state at start */
    uint32_t bootstrap;    /**< enum stub_bootstrap */
    uint32_t boot_ms;      /**< from power-on to the kernel's root */
    uint32_t root;         /**< enum stub_root */
    uint32_t layout;       /**< enum stub_layout */
    uint32_t execute;      /**< enum stub_execute */
    uint32_t release;      /**< enum stub_execute, for INPUT_RELEASE */
    uint32_t execute_ms;   /**< how long slow execution takes */
    uint32_t shutdown_ms;  /**< from POWERDOWN to SHUTDOWN */
    uint32_t respawn_ms;   /**< from QUIT to the next offer; 0: never */
    uint32_t heartbeat_ms; /**< between repeated LIFECYCLE events; 0: none */
};

/**
 * Parses options over their defaults.
 * @param message receives a sentence that names the option at fault
 * @return 0 or -EINVAL
 */
int stub_options_parse(struct stub_options *options, const struct vmibus_sensor_option *given,
                       size_t n_given, char message[STUB_MESSAGE_BOUND]);

#endif
