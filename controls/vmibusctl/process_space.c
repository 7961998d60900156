/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "process_space.h"

#include <inttypes.h>
#include <string.h>

#include <vmibus/guest_linux.h>

#include "linux_guest.h"
#include "report.h"
#include "units.h"

int process_space_check(const struct arguments *arguments) {
    if (!arguments_get(arguments, "pid"))
        return STATUS_OK;
    if (arguments_get(arguments, "cr3"))
        return vmibusctl_usage("--pid", NULL, "give --pid or --cr3: both say which page tables are meant");
    if (arguments_get(arguments, "physical"))
        return vmibusctl_usage("--pid", NULL, "a physical address needs no page tables: give --pid or --physical");
    return STATUS_OK;
}

static int explain(const struct guest_memory *memory, const struct vmibus_linux *kernel, int r) {
    report_failure("%s: %s.", printable(memory->vm->name), printable(r < 0 ? strerror(-r) : vmibus_linux_why(kernel)));
    return linux_guest_status(r);
}

static int take_root(struct guest_memory *memory, const struct vmibus_linux_task *task) {
    const char *name = printable(memory->vm->name);

    if (task->flags & VMIBUS_LINUX_TASK_KERNEL)
        return report_failure("process %u of %s is a thread of the kernel, and has no address space of its own: leave out --pid.",
                              task->pid, name);
    if (task->cr3 == 0)
        return report_failure("process %u of %s has no address space any more.", task->pid, name);
    memory->root.cr3 = task->cr3;
    return STATUS_OK;
}

int process_space_enter(const char *pid, struct guest_memory *memory) {
    const struct vmibus_memctx *memctx = &memory->vm->memctx.memctx;
    struct vmibus_linux_task task;
    struct vmibus_linux *kernel;
    uint64_t number;
    int r;

    if (!pid)
        return STATUS_OK;
    if (!units_parse_number(pid, UINT32_MAX, &number) || number == 0)
        return vmibusctl_usage("--pid", pid, "it is the number of a process, as `vmibusctl ps` shows it");
    if (memctx->note == 0) {
        report_failure("%s does not describe itself as Linux does, so its processes are not known: give --cr3.",
                       printable(memory->vm->name));
        return STATUS_REFUSED + VMIBUS_ERROR_UNSUPPORTED;
    }
    r = vmibus_linux_new(&kernel, &memory->reader, &memory->root, memctx->note);
    if (r)
        return guest_memory_report(memory, r, memctx->note, NULL);
    vmibus_linux_set_budget(kernel, memory->mediated ? LINUX_GUEST_READS_MEDIATED_MAX : LINUX_GUEST_READS_MAX);
    r = vmibus_linux_find_task(kernel, (uint32_t)number, &task);
    r = r ? explain(memory, kernel, r) : take_root(memory, &task);
    vmibus_linux_free(kernel);
    return r;
}

int process_space_find(struct vmibusctl *ctl, const struct vm *vm, const char *pid, uint64_t *cr3) {
    struct guest_memory memory = {};
    int r = guest_memory_attach(ctl, vm, false, NULL, false, &memory);

    if (r == STATUS_OK)
        r = process_space_enter(pid, &memory);
    *cr3 = memory.root.cr3;
    guest_memory_detach(&memory);
    return r;
}
