/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sensor interface: how an adapter tells the bus about virtual machines and executes commands.
 *
 * A sensor is a loadable module that exports one `struct vmibus_sensor_module` named
 * vmibus_sensor_module, or a static one that an embedder hands to the bus.  It never links against the
 * bus: everything it may ask comes in a table of functions, so the same module runs in the bus's
 * process or in one of its own, where each call becomes a message.
 *
 * Threads: every function of the module is called on one thread, the host's loop.  Nothing that blocks
 * may run there: a sensor gives blocking work to work().  Every function of the host is called on the
 * loop's thread only.
 *
 * Nothing here answers at once what another process would have to say: outcomes arrive by callback.
 * Endpoints are handles of the host; a handle stays valid until the sensor withdrew it or
 * endpoint_vanished() returned, whatever happens to the VM.
 */
#ifndef VMIBUS_SENSOR_H
#define VMIBUS_SENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>
#include <vmibus/visibility.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Rises when a member changes its meaning; members are only ever appended, struct_size tells how many are there. */
#define VMIBUS_SENSOR_ABI 1

struct vmibus_sensor_host;
struct vmibus_sensor_endpoint;
struct vmibus_sensor_source;
struct vmibus_sensor_timer;

/** One setting of the sensor's configuration section. */
struct vmibus_sensor_option {
    const char *key;
    const char *value;
};

/** A VM as a sensor introduces it. */
struct vmibus_sensor_offer {
    const char *name;       /**< 1 to VMIBUS_NAME_BOUND octets */
    uint8_t uuid[16];       /**< zeros if there is none */
    uint32_t pid;           /**< host process, 0 if none */
    uint64_t start_time;    /**< its start time: proc(5), stat field 22 */
    uint32_t groups;        /**< VMIBUS_GROUP_ bits provided for this VM */
};

/** A proposed RAM layout. */
struct vmibus_sensor_layout {
    uint32_t pid;           /**< process whose address space the locations are in; 0: objects are given in fds */
    uint64_t start_time;    /**< its start time */
    const struct vmibus_layout_range *ranges;
    size_t n_ranges;
    const int *fds;         /**< read-write descriptors of the RAM objects, where the sensor owns the RAM; duplicated */
    size_t n_fds;
};

/** The RAM of an endpoint, for reading; descriptors belong to the host and live until detach() or the handle's end. */
struct vmibus_sensor_ram {
    uint64_t epoch;
    const struct vmibus_ram_range *ranges;
    size_t n_ranges;
    const int *fds;     /**< of the objects; /proc/PID/mem for one that is private to the process: offsets are addresses then */
    size_t n_fds;
    int pagemap_fd;     /**< /proc/PID/pagemap, where an object is private; -1: none is. See vmibus_guest_ram_new_unmapped() */
};

/** A command to execute. */
struct vmibus_sensor_command {
    uint64_t id;                        /**< names the command to complete() */
    const struct vmibus_frame *frame;   /**< header and body; valid during the call only */
    const void *tail;                   /**< header.tail_length octets; valid during the call only */
};

/** What a sensor keeps while its host is started anew. */
struct vmibus_sensor_saved {
    const void *octets;     /**< in the sensor's own format, which an older and a newer one must be able to read */
    size_t n_octets;
    const int *fds;
    size_t n_fds;
};

/** What the host offers.  All functions return 0 or a negative errno unless they say otherwise. */
struct vmibus_sensor_api {
    uint32_t struct_size;
    uint32_t abi;

    /** Tells the sensor's state; @a message is a sentence for people, or NULL. */
    int (*announce)(struct vmibus_sensor_host *host, enum vmibus_sensor_state state, const char *message);

    /** Introduces a VM. @a userdata comes back with everything that concerns it. -E2BIG, -EINVAL: bad name. */
    int (*offer)(struct vmibus_sensor_host *host, const struct vmibus_sensor_offer *offer, void *userdata,
                 struct vmibus_sensor_endpoint **endpointp);

    /** The VM is gone; invalidates the handle. Commands not completed are answered GONE. */
    void (*withdraw)(struct vmibus_sensor_endpoint *endpoint, enum vmibus_reason reason);

    /**
     * Publishes an UP event. Kind and body are the sensor's, the rest of the header is the bus's; timestamp 0: now.  -E2BIG: the
     * tail is longer than the tail bound that WELCOME tells.
     */
    int (*publish)(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_frame *frame, const void *tail, size_t tail_length);

    /**
     * Answers a command, once. Stamps that are 0 are filled in. An unknown id is ignored: the command was already answered GONE.
     */
    void (*complete)(struct vmibus_sensor_host *host, uint64_t id, const struct vmibus_ack *ack);

    /** Proposes a layout: layout_result() tells what the memory authority says. Begins a new epoch if accepted. */
    int (*layout)(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_sensor_layout *layout);

    /** Proposes a kernel root of an epoch, or says why there is none (cr3 = 0, reason): root_result() tells the verdict. */
    int (*root)(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_mem_root *root);

    /** Ends the current epoch. */
    int (*end_epoch)(struct vmibus_sensor_endpoint *endpoint, enum vmibus_reason reason);

    /** Memory is being copied elsewhere (@a busy), or no more: writes are refused meanwhile. */
    int (*memory_busy)(struct vmibus_sensor_endpoint *endpoint, bool busy, enum vmibus_reason reason);

    /** Asks for read-only RAM descriptors of an epoch (0: the current one): attached() brings them. */
    int (*attach)(struct vmibus_sensor_endpoint *endpoint, uint64_t epoch);

    /** Gives them back. */
    int (*detach)(struct vmibus_sensor_endpoint *endpoint, uint64_t epoch);

    /** Calls @a callback while @a fd (borrowed) has one of the epoll events. */
    int (*watch_fd)(struct vmibus_sensor_host *host, int fd, uint32_t events,
                    void (*callback)(void *userdata, uint32_t events), void *userdata,
                    struct vmibus_sensor_source **sourcep);

    /** Changes the events waited for. */
    int (*change_fd)(struct vmibus_sensor_source *source, uint32_t events);

    /** Stops watching; the callback is not called again. Takes NULL. Call it before closing the descriptor. */
    void (*unwatch_fd)(struct vmibus_sensor_source *source);

    /** Makes a timer, not armed. */
    int (*timer_new)(struct vmibus_sensor_host *host, void (*callback)(void *userdata), void *userdata,
                     struct vmibus_sensor_timer **timerp);

    /** Arms it once, @a delay_ns nanoseconds from now; 0 disarms. */
    void (*timer_set)(struct vmibus_sensor_timer *timer, uint64_t delay_ns);

    /** Frees it. Takes NULL. */
    void (*timer_free)(struct vmibus_sensor_timer *timer);

    /**
     * Runs @a work on the sensor's worker thread, in order, then @a done on the loop.  stop() waits for work that runs and
     * calls done() for none that did not finish.
     */
    int (*work)(struct vmibus_sensor_host *host, void (*work)(void *data), void (*done)(void *data), void *data);

    /** CLOCK_MONOTONIC in nanoseconds. */
    uint64_t (*now)(void);

    /**
     * Answers a command with data: as complete(), with a tail of at most the tail bound that WELCOME tells, and descriptors, which
     * are duplicated.  Both are charged to who asked; what that may not have is answered QUOTA or PRESSURE instead.  With an
     * error in @a ack, neither is passed on.
     * @return 0; -E2BIG: too long a tail or too many descriptors, and the command is still to be answered
     */
    int (*complete_with)(struct vmibus_sensor_host *host, uint64_t id, const struct vmibus_ack *ack, const void *tail,
                         size_t tail_length, const int *fds, size_t n_fds);

    /**
     * Says which groups (VMIBUS_GROUP_ bits) the sensor provides for an endpoint that appeared, or changes what it offered;
     * commands of these come from then on, perhaps before this returns.  For one that only appeared, 0 takes it back; it does
     * not keep the endpoint there if all it provides is WATCH.  -ENODEV: the endpoint is gone; -EINVAL: nothing of one's own.
     */
    int (*provide)(struct vmibus_sensor_endpoint *endpoint, uint32_t groups);

    /**
     * Tells what was learnt of a VM after it was offered: UUID or process, which it had none of; what is known does not change.
     * If it turns out to be another endpoint's VM, the younger of the two endpoints is removed, and the older has both's providers.
     * -ENODEV: the endpoint is gone; -EINVAL: it is another sensor's.
     */
    int (*identify)(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_sensor_offer *what);

    /**
     * What this sensor's save() gave before the host was started anew; for start() alone, after which it is gone.  The
     * descriptors are the host's: duplicate what is to stay.  -ENOENT: there is nothing, begin as ever.
     */
    int (*saved)(struct vmibus_sensor_host *host, struct vmibus_sensor_saved *state);
};

/** Whether the host has a function, which may have been appended after it was built. */
#define VMIBUS_SENSOR_API_HAS(api, member) \
    ((api)->struct_size >= offsetof(struct vmibus_sensor_api, member) + sizeof((api)->member) && (api)->member)

/** What a sensor is. */
struct vmibus_sensor_module {
    uint32_t struct_size;   /**< sizeof(struct vmibus_sensor_module) */
    uint32_t abi;           /**< VMIBUS_SENSOR_ABI */
    const char *name;       /**< at most 31 octets, the manifest's name */
    uint32_t groups;        /**< VMIBUS_GROUP_ bits it can provide */
    uint32_t fallback;      /**< those that it provides only where nobody else does */

    /** Starts an instance; -EINVAL with announce(FAILED, …) for options it cannot use. */
    int (*start)(struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api,
                 const struct vmibus_sensor_option *options, size_t n_options, void **instancep);

    /** Ends it: withdraws nothing by itself, closes everything; the host withdraws what is left. */
    void (*stop)(void *instance);

    /**
     * Executes a command of the groups it provides: CMD_INPUT, CMD_POWER, CMD_VM, INPUT_RELEASE, SCREENSHOT, REGISTERS, WATCH.
     * See takes_monitors for CMD_MONITOR.  WATCH with GO_ON, for which nobody waits, says that the watch's last WATCH_CHANGED has
     * left the bus.
     * 0: accepted, complete() or complete_with() follows, now or later.  A negative errno answers it with IO.
     */
    int (*execute)(void *instance, void *userdata, const struct vmibus_sensor_command *command);

    /** The command is not wanted any more. It is still to be completed. May be NULL. */
    void (*cancel)(void *instance, void *userdata, uint64_t id);

    /** Which kinds (VMIBUS_KIND_BIT) somebody subscribes to now. May be NULL. */
    void (*demand)(void *instance, void *userdata, uint64_t kinds);

    /** The authority's verdict on layout(): error 0 and the new epoch, or why not. May be NULL. */
    void (*layout_result)(void *instance, void *userdata, uint64_t epoch, enum vmibus_error error, enum vmibus_reason reason);

    /** The authority's verdict on root(). May be NULL. */
    void (*root_result)(void *instance, void *userdata, uint64_t epoch, enum vmibus_error error, enum vmibus_reason reason);

    /** RAM, or why not (ram NULL). May be NULL. */
    void (*attached)(void *instance, void *userdata, const struct vmibus_sensor_ram *ram, enum vmibus_error error,
                     enum vmibus_reason reason);

    /**
     * For sensors that add to what others offer: an endpoint of another sensor is here.  What is stored in @a userdatap comes
     * back with everything that concerns it.  NULL: the sensor wants none.
     */
    void (*endpoint_appeared)(void *instance, struct vmibus_sensor_endpoint *endpoint, const struct vmibus_sensor_offer *offer,
                              void **userdatap);

    /** It is gone; the handle ends with the return. */
    void (*endpoint_vanished)(void *instance, void *userdata);

    /**
     * A memctx of an endpoint, offered or appeared, was published, or ended (state NONE): the authority may end an epoch by
     * itself. May be NULL.
     */
    void (*memctx_changed)(void *instance, void *userdata, const struct vmibus_memctx *memctx);

    /**
     * Nobody holds the memory context of this epoch any more, which began with a layout() of this sensor and has ended: RAM
     * objects that were given with it may be used for something else.  Once for each such epoch, after its layout_result();
     * not for a VM that was withdrawn.  Descriptors and mappings that were given out stay where they are: see
     * vmibus-sensor(7).  May be NULL.
     */
    void (*retired)(void *instance, void *userdata, uint64_t epoch);

    /**
     * For which of the groups that it offers on an endpoint the sensor is the active provider from now on: commands of the others
     * go to somebody else, and so does what is told of them.  It is for all of them until this says otherwise.  Whoever becomes
     * active for MEMORY reads the layout and proposes it; the same one keeps its epoch.  Two endpoints that turned out to be one
     * VM are one handle's from here on, with another memory: what was known of epochs is void.  May be NULL.
     */
    void (*active)(void *instance, void *userdata, uint32_t groups);

    /**
     * Whether execute() takes CMD_MONITOR, which concerns no endpoint yet: userdata is NULL then, and the tail is NAME=PATH or
     * NAME, without a NUL at its end.
     */
    bool takes_monitors;

    /**
     * The host is about to be started anew: what the next instance is to know, which gets it by saved().  stop() follows, and
     * nothing is undone by it: keys stay down and guests held still, for the next one goes on with them.  What is stored in
     * @a state stays the sensor's, until stop().  It may be called without being followed by a restart.  -ENOTSUP, or NULL:
     * nothing can be kept; then keys are released and holds are ended before.
     */
    int (*save)(void *instance, struct vmibus_sensor_saved *state);

    /**
     * The bus has taken an endpoint that the sensor offered, perhaps before offer() returns.  @a kept: it is the one that the
     * sensor had before a restart, whose holds and keys go on as save() left them.  Else nobody wants these any more: a guest
     * that saved() says is held goes on, and keys are released.  May be NULL.
     */
    void (*offered)(void *instance, void *userdata, bool kept);
};

#ifdef __cplusplus
}
#endif

#endif
