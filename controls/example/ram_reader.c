/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A control that reads a guest by itself: it is given read-only descriptors of the RAM, and walks the
 * guest's page tables through them.
 *
 *     ram-reader VM text GVA LEN            print kernel memory as text
 *     ram-reader VM word CR3 GVA            print 8 octets of an address space
 *     ram-reader VM process GVA WORD        find the address spaces that hold WORD at GVA; print their cr3
 *     ram-reader VM reopen UID              as that user, try to reopen the descriptors for writing
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vmibus/client.h>
#include <vmibus/guest.h>
#include <vmibus/names.h>

#define PAGE 4096u

/* What the bus told of the VM, and what it gave. */
struct view {
    struct vmibus *bus;
    const char *name;
    struct vmibus_endpoint endpoint;
    struct vmibus_memctx memctx;
    struct vmibus_attachment *attachment;
    struct vmibus_guest_ram *ram;
    struct vmibus_guest_reader reader;
};

/* --- the bus ----------------------------------------------------------------------------------- */

static void heard(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    struct view *view = userdata;

    (void)bus;
    if (message->frame.header.kind != VMIBUS_KIND_MEMCTX)
        return;
    view->endpoint.slot = message->frame.header.slot;
    view->endpoint.generation = message->frame.header.generation;
    view->memctx = message->frame.memctx;
}

/* The memctx is retained: it has been replayed when the subscription is acknowledged. */
static int learn(struct view *view) {
    int r;

    vmibus_set_handler(view->bus, heard, view);
    r = vmibus_subscribe(view->bus, view->name, VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX));
    if (r == 0)
        r = vmibus_dispatch(view->bus);
    if (r == 0 && view->memctx.state != VMIBUS_MEMCTX_STATE_READY) {
        fprintf(stderr, "ram-reader: %s: no memory context is ready\n", view->name);
        return -ENOENT;
    }
    return r;
}

static int attach(struct view *view) {
    const struct vmibus_attachment *attachment;
    int r = vmibus_attach(view->bus, &view->endpoint, view->memctx.epoch, &view->attachment, NULL);

    if (r)
        return r;
    attachment = view->attachment;
    if (attachment->n_fds == 0) {
        fprintf(stderr, "ram-reader: %s: no descriptors are given: %s %s\n", view->name, vmibus_reason_doc(attachment->reason),
                vmibus_reason_remedy(attachment->reason) ? vmibus_reason_remedy(attachment->reason) : "");
        return -EACCES;
    }
    r = vmibus_guest_ram_new(&view->ram, attachment->ranges, attachment->n_ranges, attachment->fds, attachment->n_fds);
    if (r == 0)
        view->reader = vmibus_guest_ram_reader(view->ram);
    return r;
}

/* --- reading ----------------------------------------------------------------------------------- */

static struct vmibus_guest_root root_of(const struct view *view, uint64_t cr3) {
    return (struct vmibus_guest_root){.cr3 = cr3 ? cr3 : view->memctx.cr3, .levels = view->memctx.levels};
}

/* What was read counts only if the epoch was current before and still is after: look at its page, twice. */
static int read_guest(struct view *view, uint64_t cr3, uint64_t gva, void *buffer, size_t len) {
    struct vmibus_guest_root root = root_of(view, cr3);
    int r = -ESTALE;

    if (vmibus_epoch_is_current(view->attachment))
        r = vmibus_guest_read(&view->reader, &root, gva, buffer, len, NULL, NULL);
    return vmibus_epoch_is_current(view->attachment) ? r : -ESTALE;
}

static int print_text(struct view *view, uint64_t gva, size_t len) {
    char text[PAGE];
    int r;

    if (len > sizeof(text))
        len = sizeof(text);
    r = read_guest(view, 0, gva, text, len);
    for (size_t i = 0; r == 0 && i < len && text[i]; i++)
        putchar(isprint((unsigned char)text[i]) ? text[i] : ' ');
    putchar('\n');
    return r;
}

static int read_word(struct view *view, uint64_t cr3, uint64_t gva, uint64_t *word) {
    return read_guest(view, cr3, gva, word, sizeof(*word));
}

/*
 * A process's top table shares the kernel's upper half.  So a page of RAM whose last entry is the kernel root's may be one, and
 * is if it translates the address to the word.
 */
static bool is_process_root(struct view *view, uint64_t gpa, uint64_t kernel_entry, uint64_t gva, uint64_t word) {
    const uint64_t volatile_bits = 0x60; /* accessed, dirty */
    uint64_t entry, found;

    if (gpa == view->memctx.cr3 || vmibus_guest_ram_read(view->ram, gpa + PAGE - sizeof(entry), &entry, sizeof(entry)))
        return false;
    if ((entry | volatile_bits) != (kernel_entry | volatile_bits))
        return false;
    return read_word(view, gpa, gva, &found) == 0 && found == word;
}

static int print_processes(struct view *view, uint64_t gva, uint64_t word) {
    uint64_t gpa = 0, len, entry;
    int r, n = 0;

    r = vmibus_guest_ram_read(view->ram, view->memctx.cr3 + PAGE - sizeof(entry), &entry, sizeof(entry));
    while (r == 0 && (r = vmibus_guest_ram_next_data(view->ram, &gpa, &len)) == 0) {
        for (uint64_t end = gpa + len; gpa < end; gpa += PAGE)
            if (is_process_root(view, gpa, entry, gva, word)) {
                printf("0x%" PRIx64 "\n", gpa);
                n++;
            }
    }
    if (!vmibus_epoch_is_current(view->attachment))
        return -ESTALE;
    if (r != VMIBUS_GUEST_NOT_FOUND)
        return r;
    return n ? 0 : VMIBUS_GUEST_NOT_FOUND;
}

/* --- trying to write --------------------------------------------------------------------------- */

static void report(const char *what, bool succeeded) {
    printf("%s: %s\n", what, succeeded ? "SUCCEEDED, which it must not" : strerror(errno));
}

static int try_to_write(const struct view *view, uid_t uid) {
    bool leaked = false;

    if (setgroups(0, NULL) < 0 || setgid(uid) < 0 || setuid(uid) < 0) {
        perror("ram-reader: setuid");
        return 1;
    }
    /* Without this /proc/self would be closed for another reason than the one on trial. */
    prctl(PR_SET_DUMPABLE, 1);
    for (size_t i = 0; i < view->attachment->n_fds; i++) {
        int fd = view->attachment->fds[i], again;
        char path[64];
        void *mapping;

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        again = open(path, O_RDWR | O_CLOEXEC);
        report("reopen for writing", again >= 0);
        leaked |= again >= 0;
        mapping = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        report("map shared and writable", mapping != MAP_FAILED);
        leaked |= mapping != MAP_FAILED;
        mapping = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
        if (mapping != MAP_FAILED) {
            bool writable = mprotect(mapping, PAGE, PROT_READ | PROT_WRITE) == 0;

            report("make a read-only mapping writable", writable);
            leaked |= writable;
        }
    }
    return leaked;
}

static int try_as(const struct view *view, uid_t uid) {
    pid_t child = fork();
    int status;

    if (child < 0)
        return -errno;
    if (child == 0) {
        int failed = try_to_write(view, uid);

        fflush(stdout);
        _exit(failed);
    }
    if (waitpid(child, &status, 0) < 0)
        return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

/* --- main -------------------------------------------------------------------------------------- */

static int usage(void) {
    fputs("usage: ram-reader VM text GVA LEN | word CR3 GVA | process GVA WORD | reopen UID\n", stderr);
    return 2;
}

static int act(struct view *view, int argc, char **argv) {
    const char *verb = argv[2];
    uint64_t first = strtoull(argv[3], NULL, 0), second = argc > 4 ? strtoull(argv[4], NULL, 0) : 0;
    uint64_t word;
    int r;

    if (strcmp(verb, "text") == 0)
        return print_text(view, first, (size_t)second);
    if (strcmp(verb, "process") == 0)
        return print_processes(view, first, second);
    if (strcmp(verb, "reopen") == 0)
        return try_as(view, (uid_t)first);
    r = read_word(view, first, second, &word);
    if (r == 0)
        printf("0x%016" PRIx64 "\n", word);
    return r;
}

int main(int argc, char **argv) {
    static const char *const verbs[] = {"text", "word", "process", "reopen"};
    struct view view = {};
    bool known = false;
    int r;

    for (size_t i = 0; argc > 3 && i < sizeof(verbs) / sizeof(verbs[0]); i++)
        known |= strcmp(argv[2], verbs[i]) == 0;
    if (!known)
        return usage();
    view.name = argv[1];
    r = vmibus_connect(&view.bus, NULL, "ram-reader");
    if (r == 0)
        r = learn(&view);
    if (r == 0)
        r = attach(&view);
    if (r == 0)
        r = act(&view, argc, argv);
    if (r < 0)
        fprintf(stderr, "ram-reader: %s: %s\n", view.name, strerror(-r));
    else if (r > 0)
        fprintf(stderr, "ram-reader: %s: refused or not there (%d)\n", view.name, r);
    vmibus_guest_ram_free(view.ram);
    vmibus_release(view.attachment);
    vmibus_free(view.bus);
    return r ? EXIT_FAILURE : EXIT_SUCCESS;
}
