/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 *   [qom-list, for another display than the first] -> add-fd -> screendump -> remove-fd -> check -> [PNG on the worker]
 *
 * QEMU truncates what it opens by /dev/fdset, so a bound cannot be sealed in beforehand (measured, 7.2); what it
 * writes is its own memory's affair until it is checked here.
 */
#include "screen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "png.h"
#include "vm.h"

VMIBUS_SYSCALLS("memfd_create openat")

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

struct screenshot {
    TAILQ_ENTRY(screenshot) link;
    struct screenshots *list; /* that it is in; NULL: none */
    struct vm *vm;            /* NULL: nobody waits */
    uint64_t id;
    uint32_t head;
    uint8_t format; /* enum vmibus_image_format */
    int fd;         /* what QEMU writes, later the image */
    uint64_t octets;
    int64_t fdset;
    enum vmibus_error error;
    enum vmibus_reason reason;
    uint64_t value;
};

static void start_next(struct vm *vm);

static void enlist(struct screenshot *screenshot, struct screenshots *list) {
    if (screenshot->list)
        TAILQ_REMOVE(screenshot->list, screenshot, link);
    screenshot->list = list;
    if (list)
        TAILQ_INSERT_TAIL(list, screenshot, link);
}

static void screenshot_free(struct screenshot *screenshot) {
    enlist(screenshot, NULL);
    if (screenshot->fd >= 0)
        close(screenshot->fd);
    free(screenshot);
}

static void fail(struct screenshot *screenshot, enum vmibus_error error, enum vmibus_reason reason, uint64_t value) {
    screenshot->error = error;
    screenshot->reason = reason;
    screenshot->value = value;
}

static void fail_errno(struct screenshot *screenshot, int code) {
    fail(screenshot, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, (uint64_t)code);
}

/* Answers, if anybody waits, and frees. */
static void finish(struct screenshot *screenshot) {
    struct vm *vm = screenshot->vm;
    const struct vmibus_ack ack = {
        .error = (uint16_t)screenshot->error,
        .reason = (uint16_t)screenshot->reason,
        .command = VMIBUS_KIND_SCREENSHOT,
        .value = screenshot->value,
        .count = screenshot->error ? 0 : screenshot->octets,
    };

    if (vm) {
        vm->screen.n_waiting--;
        vm->qemu->api->complete_with(vm->qemu->host, screenshot->id, &ack, NULL, 0, &screenshot->fd, !screenshot->error);
    }
    screenshot_free(screenshot);
}

/* --- the image ------------------------------------------------------------------------------- */

/* Makes sealed memory of octets, in place of the pixmap. 0 or a negative errno. */
static int keep_image(struct screenshot *screenshot, const uint8_t *image, size_t len) {
    int fd = memfd_create("vmibus-screen", MFD_CLOEXEC | MFD_ALLOW_SEALING), r = 0;

    if (fd < 0)
        return -errno;
    for (size_t done = 0; r == 0 && done < len;) {
        ssize_t n = pwrite(fd, image + done, len - done, (off_t)done);

        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || errno != EINTR)
            r = n == 0 ? -EIO : -errno;
    }
    if (r == 0 && fcntl(fd, F_ADD_SEALS, SEALS) < 0)
        r = -errno;
    if (r < 0) {
        close(fd);
        return r;
    }
    close(screenshot->fd);
    screenshot->fd = fd;
    screenshot->octets = len;

    return 0;
}

static int convert(struct screenshot *screenshot, const uint8_t *ppm) {
    uint32_t width, height;
    const uint8_t *pixels = png_find_pixels(ppm, screenshot->octets, &width, &height);
    uint8_t *image;
    size_t len;
    int r;

    if (!pixels)
        return -EBADMSG;
    if (screenshot->format != VMIBUS_IMAGE_FORMAT_PNG)
        return 0;
    image = png_encode(pixels, width, height, &len);
    if (!image)
        return -ENOMEM;
    r = keep_image(screenshot, image, len);
    free(image);

    return r;
}

/* On the worker: nobody can change or cut what is sealed. */
static void make_image(void *data) {
    struct screenshot *screenshot = data;
    size_t len = screenshot->octets;
    void *ppm = mmap(NULL, len, PROT_READ, MAP_SHARED, screenshot->fd, 0);
    int r;

    if (ppm == MAP_FAILED) {
        fail_errno(screenshot, errno);
        return;
    }
    r = convert(screenshot, ppm);
    if (r < 0)
        fail_errno(screenshot, -r);
    munmap(ppm, len);
}

static void image_made(void *data) {
    finish(data);
}

/* Seals what QEMU wrote. 0 or a negative errno: -EBUSY, it keeps it mapped for writing. */
static int take_over(struct screenshot *screenshot) {
    struct stat status;

    if (fcntl(screenshot->fd, F_ADD_SEALS, SEALS) < 0 || fstat(screenshot->fd, &status) < 0)
        return -errno;
    screenshot->octets = (uint64_t)status.st_size;
    if (screenshot->octets == 0)
        return -EBADMSG;

    return screenshot->octets > SCREEN_OCTETS_BOUND ? -EFBIG : 0;
}

/* QEMU is done with it, well or badly: the next one may be taken. */
static void leave_qemu(struct screenshot *screenshot) {
    struct vm *vm = screenshot->vm;
    bool good = !screenshot->error;
    int r = good ? take_over(screenshot) : 0;

    vm->screen.current = NULL;
    if (good && r == 0) {
        enlist(screenshot, &vm->qemu->pictures);
        r = vm->qemu->api->work(vm->qemu->host, make_image, image_made, screenshot);
    }
    /* Once it is given to the worker it is not ours to look at. */
    if (r < 0)
        fail_errno(screenshot, -r);
    if (!good || r < 0)
        finish(screenshot);
    start_next(vm);
}

/* --- what QEMU is asked ---------------------------------------------------------------------- */

static void fail_by_reply(struct screenshot *screenshot, const struct monitor_reply *reply) {
    /* QEMU 7.2, ui/console.c: without a graphics device there is no console. */
    if (reply->outcome == MONITOR_ERROR && strstr(reply->error_text, "no console"))
        fail(screenshot, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_NO_PROVIDER, VMIBUS_GROUP_SCREEN);
    else
        fail_errno(screenshot, reply->outcome == MONITOR_ERROR ? EPERM : reply->outcome == MONITOR_LOST ? ETIMEDOUT : EBADMSG);
}

/* Gives a command; arguments may be NULL for want of memory. */
static void ask(struct screenshot *screenshot, const char *command, json_object *arguments, int fd, monitor_reply_fn reply) {
    struct vm *vm = screenshot->vm;
    int r = arguments ? qmp_execute_with_fd(vm->qmp, command, arguments, fd, reply, screenshot) : -ENOMEM;

    if (r < 0) {
        fail_errno(screenshot, -r);
        leave_qemu(screenshot);
    }
}

static void on_removed(void *userdata, const struct monitor_reply *reply) {
    (void)reply;
    leave_qemu(userdata);
}

/* Whatever came of it, QEMU has no more use for its descriptor. */
static void take_back(struct screenshot *screenshot, const struct monitor_reply *reply) {
    json_object *arguments;

    if (reply->outcome == MONITOR_LOST) {
        leave_qemu(screenshot);
        return;
    }
    arguments = json_object_new_object();
    json_object_object_add(arguments, "fdset-id", json_object_new_int64(screenshot->fdset));
    ask(screenshot, "remove-fd", arguments, -1, on_removed);
}

static void on_dumped(void *userdata, const struct monitor_reply *reply) {
    struct screenshot *screenshot = userdata;

    if (reply->outcome != MONITOR_RETURN)
        fail_by_reply(screenshot, reply);
    take_back(screenshot, reply);
}

static void dump(struct screenshot *screenshot, const char *device) {
    json_object *arguments = json_object_new_object();
    char path[48];

    snprintf(path, sizeof(path), "/dev/fdset/%lld", (long long)screenshot->fdset);
    json_object_object_add(arguments, "filename", json_object_new_string(path));
    if (device) {
        json_object_object_add(arguments, "device", json_object_new_string(device));
        json_object_object_add(arguments, "head", json_object_new_int64(screenshot->head));
    }
    ask(screenshot, "screendump", arguments, -1, on_dumped);
}

/* Graphics devices by their types' names (QEMU 7.2, hw/display). */
static bool is_graphics(const char *type) {
    return strstr(type, "VGA") || strstr(type, "vga") || strstr(type, "gpu") || strstr(type, "qxl") ||
           strstr(type, "bochs-display") || strstr(type, "ramfb");
}

static void on_devices(void *userdata, const struct monitor_reply *reply) {
    struct screenshot *screenshot = userdata;
    size_t n = reply->outcome == MONITOR_RETURN && json_object_is_type(reply->value, json_type_array)
                   ? json_object_array_length(reply->value)
                   : 0;

    for (size_t i = 0; i < n; i++) {
        json_object *child = json_object_array_get_idx(reply->value, i);
        const char *name = monitor_string(child, "name"), *type = monitor_string(child, "type");

        if (name && type && is_graphics(type)) {
            dump(screenshot, name);
            return;
        }
    }
    if (reply->outcome != MONITOR_RETURN)
        fail_by_reply(screenshot, reply);
    else
        fail(screenshot, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, screenshot->head);
    take_back(screenshot, reply);
}

/* Another display than the first has to be named by its device. */
static void find_device(struct screenshot *screenshot) {
    json_object *arguments = json_object_new_object();

    json_object_object_add(arguments, "path", json_object_new_string("/machine/peripheral"));
    ask(screenshot, "qom-list", arguments, -1, on_devices);
}

static void on_added(void *userdata, const struct monitor_reply *reply) {
    struct screenshot *screenshot = userdata;
    json_object *fdset =
        reply->outcome == MONITOR_RETURN ? monitor_member(reply->value, "fdset-id", json_type_int) : NULL;

    if (!fdset) {
        fail_by_reply(screenshot, reply);
        leave_qemu(screenshot);
        return;
    }
    screenshot->fdset = json_object_get_int64(fdset);
    if (screenshot->head)
        find_device(screenshot);
    else
        dump(screenshot, NULL);
}

/* QEMU takes a descriptor only if it is open exactly as it would open it: for writing alone. */
static int open_for_writing(int fd) {
    char path[32];
    int writing;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    writing = open(path, O_WRONLY | O_CLOEXEC);

    return writing < 0 ? -errno : writing;
}

static void start_next(struct vm *vm) {
    struct screenshot *screenshot = TAILQ_FIRST(&vm->screen.waiting);
    int writing;

    if (vm->screen.current || !screenshot)
        return;
    enlist(screenshot, NULL);
    vm->screen.current = screenshot;
    screenshot->fd = memfd_create("vmibus-screen", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    writing = screenshot->fd < 0 ? -errno : open_for_writing(screenshot->fd);
    if (writing < 0) {
        fail_errno(screenshot, -writing);
        leave_qemu(screenshot);
        return;
    }
    ask(screenshot, "add-fd", json_object_new_object(), writing, on_added);
    close(writing);
}

int screen_execute(struct vm *vm, const struct vmibus_sensor_command *command) {
    const struct vmibus_screenshot *asked = &command->frame->screenshot;
    struct screenshot *screenshot;

    if (!machine_is_usable(&vm->machine)) {
        machine_complete(&vm->machine, command->id, VMIBUS_KIND_SCREENSHOT, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, ENOTCONN, 0);
        return 0;
    }
    if (vm->screen.n_waiting >= SCREEN_WAITING_BOUND) {
        machine_complete(&vm->machine, command->id, VMIBUS_KIND_SCREENSHOT, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_COMMANDS,
                    SCREEN_WAITING_BOUND, vm->screen.n_waiting);
        return 0;
    }
    screenshot = calloc(1, sizeof(*screenshot));
    if (!screenshot)
        return -ENOMEM;
    *screenshot = (struct screenshot){.vm = vm, .id = command->id, .head = asked->head, .format = asked->format, .fd = -1};
    enlist(screenshot, &vm->screen.waiting);
    vm->screen.n_waiting++;
    start_next(vm);

    return 0;
}

/* --- coming and going ------------------------------------------------------------------------ */

void screen_init(struct vm *vm) {
    vm->screen = (struct screen){0};
    TAILQ_INIT(&vm->screen.waiting);
}

void screen_deinit(struct vm *vm) {
    struct screenshot *screenshot;

    while ((screenshot = TAILQ_FIRST(&vm->screen.waiting)))
        screenshot_free(screenshot);
    if (vm->screen.current)
        screenshot_free(vm->screen.current);
    vm->screen.current = NULL;
    vm->screen.n_waiting = 0;
    TAILQ_FOREACH(screenshot, &vm->qemu->pictures, link)
    if (screenshot->vm == vm)
        screenshot->vm = NULL;
}

void screen_forget(struct vm *vm) {
    screen_deinit(vm);
    screen_init(vm);
}

void screen_jobs_deinit(struct qemu *qemu) {
    while (TAILQ_FIRST(&qemu->pictures))
        screenshot_free(TAILQ_FIRST(&qemu->pictures));
}
