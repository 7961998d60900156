/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "linux_guest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "frame_json.h"
#include "report.h"

/* --- beginning and ending --------------------------------------------------------------------------- */

int linux_guest_let_go(struct linux_guest *guest) {
    return standstill_end(&guest->standstill);
}

static int refuse_other_systems(const struct linux_guest *guest) {
    report_failure("%s does not describe itself as Linux does: its root was found without a VMCOREINFO note, so this works for "
                   "reading by address only.", printable(guest->name));
    return STATUS_REFUSED + VMIBUS_ERROR_UNSUPPORTED;
}

static int open_linux(struct linux_guest *guest) {
    uint64_t note = guest->vm->memctx.memctx.note;
    int r = vmibus_linux_new(&guest->kernel, &guest->memory.reader, &guest->memory.root, note);

    if (r == 0) {
        vmibus_linux_set_budget(guest->kernel, guest->memory.mediated ? LINUX_GUEST_READS_MEDIATED_MAX : LINUX_GUEST_READS_MAX);
        return STATUS_OK;
    }
    if (r == VMIBUS_GUEST_UNPROVEN) {
        report_failure("the note at 0x%" PRIx64 " of %s is not of the kernel that runs there.", note, printable(guest->name));
        return STATUS_REFUSED + VMIBUS_ERROR_TRANSLATION;
    }
    return guest_memory_report(&guest->memory, r, note, NULL);
}

static int begin(struct vmibusctl *ctl, const struct arguments *arguments, struct linux_guest *guest) {
    int r;

    guest->endpoint = guest->vm->endpoint;
    memcpy(guest->name, guest->vm->name, sizeof(guest->name));
    r = guest_memory_attach(ctl, guest->vm, false, NULL, arguments_get(arguments, "mediated"), &guest->memory);
    if (r)
        return r;
    if (guest->vm->memctx.memctx.note == 0)
        return refuse_other_systems(guest);
    if (arguments_get(arguments, "quiesce"))
        r = standstill_begin(ctl, guest->vm, &guest->standstill);
    return r ? r : open_linux(guest);
}

int linux_guest_begin(struct vmibusctl *ctl, const struct arguments *arguments, const char *vm_word, struct linux_guest *guest) {
    int r;

    *guest = (struct linux_guest){.ctl = ctl};
    r = roster_fetch(ctl, &guest->roster);
    if (r == STATUS_OK)
        r = roster_lookup(&guest->roster, vm_word, &guest->vm);
    return r == STATUS_OK ? begin(ctl, arguments, guest) : r;
}

int linux_guest_end(struct linux_guest *guest, int status) {
    int r = linux_guest_let_go(guest);

    status = status ? status : r;
    if (guest->kernel) {
        r = guest_memory_check_epoch(guest->ctl, &guest->roster, &guest->memory);
        status = r ? r : status;
    }
    guest->kernel = vmibus_linux_free(guest->kernel);
    guest_memory_detach(&guest->memory);
    roster_deinit(&guest->roster);
    return status;
}

/* --- saying things ------------------------------------------------------------------------------------ */

int linux_guest_status(int r) {
    if (r < 0)
        return STATUS_FAILED;
    return r == VMIBUS_GUEST_NOT_FOUND ? STATUS_NOT_FOUND : STATUS_REFUSED + VMIBUS_ERROR_TRANSLATION;
}

int linux_guest_report(const struct linux_guest *guest, int r, const char *what) {
    const char *why = r < 0 ? strerror(-r) : vmibus_linux_why(guest->kernel);

    report_failure("%s: %s: %s.", printable(guest->name), what, printable(why));
    return linux_guest_status(r);
}

void linux_guest_say_picture(const struct linux_guest *guest, const struct vmibus_linux_picture *picture) {
    bool ended = picture->flags & VMIBUS_LINUX_ENDED, steady = picture->flags & VMIBUS_LINUX_STEADY;

    if (ended && steady && picture->n_broken == 0)
        return;
    fprintf(stderr, "vmibusctl: %s: ", printable(guest->name));
    if (picture->flags & VMIBUS_LINUX_BOUNDED)
        fputs("there is more than the bound of what is shown. ", stderr);
    else if (!ended)
        fputs("the list broke off. ", stderr);
    else if (!steady)
        fputs("this changed while it was read. ", stderr);
    if (picture->n_broken)
        fprintf(stderr, "%" PRIu64 " could not be read, or not wholly. ", picture->n_broken);
    fputs("--quiesce takes an exact picture.\n", stderr);
}

struct json_object *linux_guest_picture_json(const struct vmibus_linux_picture *picture) {
    static const char *const names[] = {"ENDED", "STEADY", "BOUNDED"};
    struct json_object *array = json_object_new_array();

    for (unsigned bit = 0; bit < sizeof(names) / sizeof(names[0]); bit++)
        if (picture->flags >> bit & 1)
            json_object_array_add(array, json_object_new_string(names[bit]));
    return array;
}

void linux_guest_print_json(const struct linux_guest *guest, struct json_list *list, const struct vmibus_linux_picture *picture) {
    struct json_object *flags = linux_guest_picture_json(picture);

    json_list_print(list, "picture", flags);
    json_object_put(flags);
    json_list_free(list);
    linux_guest_say_picture(guest, picture);
}
