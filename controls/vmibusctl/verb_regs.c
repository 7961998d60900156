/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl regs: what the vCPUs hold. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "frame_json.h"
#include "report.h"
#include "roster.h"
#include "units.h"

#define ALL_VCPUS UINT32_MAX

struct shown {
    const char *name;
    size_t offset;
};

#define SHOWN(name) {#name, offsetof(struct vmibus_vcpu_registers, name)}

static const struct shown lines[][4] = {
    {SHOWN(rax), SHOWN(rbx), SHOWN(rcx), SHOWN(rdx)}, {SHOWN(rsi), SHOWN(rdi), SHOWN(rbp), SHOWN(rsp)},
    {SHOWN(r8), SHOWN(r9), SHOWN(r10), SHOWN(r11)},   {SHOWN(r12), SHOWN(r13), SHOWN(r14), SHOWN(r15)},
    {SHOWN(rip), SHOWN(rflags), SHOWN(efer), {}},     {SHOWN(cr0), SHOWN(cr2), SHOWN(cr3), SHOWN(cr4)},
    {{"fs", offsetof(struct vmibus_vcpu_registers, fs_base)},
     {"gs", offsetof(struct vmibus_vcpu_registers, gs_base)},
     {"gdt", offsetof(struct vmibus_vcpu_registers, gdt_base)},
     {"idt", offsetof(struct vmibus_vcpu_registers, idt_base)}},
};

static void print_vcpu(const struct vmibus_vcpu_registers *registers) {
    printf("vCPU %" PRIu32 ": privilege level %u, cs %04x%s\n", registers->vcpu, registers->cpl, registers->cs,
           registers->halted ? ", halted" : "");
    for (size_t line = 0; line < sizeof(lines) / sizeof(lines[0]); line++) {
        for (size_t i = 0; i < 4 && lines[line][i].name; i++) {
            uint64_t value;

            memcpy(&value, (const char *)registers + lines[line][i].offset, sizeof(value));
            printf("%s%6s 0x%016" PRIx64, i ? "  " : "  ", lines[line][i].name, value);
        }
        putchar('\n');
    }
}

static int print(const struct vmibusctl *ctl, const struct vmibus_message *reply) {
    struct vmibus_vcpu_registers registers;
    size_t length = reply->frame.header.tail_length;

    if (length == 0 || length % sizeof(registers))
        return report_failure("the answer holds no registers");
    if (ctl->json) {
        frame_json_print(frame_json_records(vmibus_record_describe("vcpu_registers"), reply->tail, length));
        return STATUS_OK;
    }
    for (size_t at = 0; at < length; at += sizeof(registers)) {
        memcpy(&registers, (const char *)reply->tail + at, sizeof(registers));
        print_vcpu(&registers);
    }
    return STATUS_OK;
}

static int ask(struct vmibusctl *ctl, const struct vm *vm, uint32_t vcpu) {
    struct vmibus_message reply;
    struct vmibus_frame frame;
    int r;

    vmibus_command_init(&frame, VMIBUS_KIND_REGISTERS, &vm->endpoint);
    frame.registers.vcpu = vcpu;
    r = vmibus_call(ctl->bus, &frame, NULL, 0, &reply);
    r = r ? report_refusal(ctl, r, &reply, "cannot read the registers of %s", printable(vm->name)) : print(ctl, &reply);
    vmibus_message_deinit(&reply);
    return r;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    const char *text = arguments_get(arguments, "vcpu");
    uint64_t vcpu = ALL_VCPUS;
    struct roster roster = {};
    struct vm *vm;
    int r;

    if (text && !units_parse_number(text, UINT32_MAX - 1, &vcpu))
        return vmibusctl_usage("--vcpu", text, "it is the number of a vCPU, from 0");
    r = roster_fetch(ctl, &roster);
    if (r == STATUS_OK)
        r = roster_lookup(&roster, arguments->words[0], &vm);
    if (r == STATUS_OK)
        r = ask(ctl, vm, (uint32_t)vcpu);
    roster_deinit(&roster);
    return r;
}

static const struct option_description options[] = {
    {"vcpu", "N", "only this one, from 0"},
    {},
};

const struct verb verb_regs = {
    .name = "regs",
    .synopsis = "VM",
    .summary = "show the registers of the vCPUs",
    .min_words = 1,
    .max_words = 1,
    .options = options,
    .run = run,
};
