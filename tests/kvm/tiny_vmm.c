/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "kvm/tiny_vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PML4 0x1000
#define PDPT_LOW 0x2000
#define PDPT_HIGH 0x3000
#define PAGE_DIRECTORY 0x4000
#define READ_ONLY_DIRECTORY 0x5000
#define CODE 0x10000

#define PRESENT 1u
#define WRITABLE 2u
#define LARGE 0x80u

static void put_entry(struct tiny_vmm *vmm, uint64_t table, unsigned index, uint64_t value) {
    memcpy(vmm->ram + table + index * sizeof(value), &value, sizeof(value));
}

static const uint8_t copying_guest[] = {
    0x48, 0x8b, 0x04, 0x25, 0x00, 0x00, 0x02, 0x00, /* mov rax, [0x20000] */
    0x48, 0x89, 0x04, 0x25, 0x08, 0x00, 0x02, 0x00, /* mov [0x20008], rax */
    0x48, 0xff, 0x04, 0x25, 0x10, 0x00, 0x02, 0x00, /* inc qword [0x20010] */
    0xeb, 0xe6,                                     /* jmp to the beginning */
};

static void build_guest(struct tiny_vmm *vmm, const uint8_t *code, size_t size) {
    put_entry(vmm, PML4, 0, PDPT_LOW | PRESENT | WRITABLE);
    put_entry(vmm, PML4, 511, PDPT_HIGH | PRESENT | WRITABLE);
    put_entry(vmm, PDPT_LOW, 0, PAGE_DIRECTORY | PRESENT | WRITABLE);
    put_entry(vmm, PDPT_LOW, 1, READ_ONLY_DIRECTORY | PRESENT | WRITABLE);
    put_entry(vmm, PDPT_HIGH, 510, PAGE_DIRECTORY | PRESENT | WRITABLE);
    put_entry(vmm, PAGE_DIRECTORY, 0, 0 | PRESENT | WRITABLE | LARGE);
    put_entry(vmm, READ_ONLY_DIRECTORY, 0, 0 | PRESENT | LARGE);
    memcpy(vmm->ram + CODE, code, size);
}

/* 64-bit mode from the first instruction (Intel SDM volume 3, 10.8.5). */
static int enter_long_mode(struct tiny_vmm *vmm) {
    const struct kvm_segment code = {.selector = 8, .limit = 0xffffffff, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
    const struct kvm_segment data = {.selector = 16, .limit = 0xffffffff, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    struct kvm_regs registers = {.rip = CODE, .rflags = 2};
    struct kvm_sregs special;

    if (ioctl(vmm->vcpu, KVM_GET_SREGS, &special) < 0)
        return -errno;
    special.cr3 = PML4;
    special.cr4 = 0x20;         /* PAE */
    special.cr0 = 0x80000001;   /* PG, PE */
    special.efer = 0x500;       /* LME, LMA */
    special.cs = code;
    special.ds = special.es = special.fs = special.gs = special.ss = data;
    if (ioctl(vmm->vcpu, KVM_SET_SREGS, &special) < 0 || ioctl(vmm->vcpu, KVM_SET_REGS, &registers) < 0)
        return -errno;
    return 0;
}

static void interrupted(int signal) {
    (void)signal;
}

static void *run_vcpu(void *argument) {
    struct tiny_vmm *vmm = argument;
    struct kvm_run *run = vmm->run;

    while (!__atomic_load_n(&run->immediate_exit, __ATOMIC_ACQUIRE))
        if (ioctl(vmm->vcpu, KVM_RUN, 0) == 0 || errno != EINTR) {
            __atomic_store_n(&vmm->failed, true, __ATOMIC_RELEASE);
            break;
        }
    return NULL;
}

static const char *make_vm(struct tiny_vmm *vmm, const uint8_t *code, size_t size_of_code) {
    struct kvm_userspace_memory_region region = {.memory_size = TINY_RAM};
    int size;

    vmm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (vmm->kvm < 0)
        return "/dev/kvm cannot be opened";
    vmm->vm = ioctl(vmm->kvm, KVM_CREATE_VM, 0);
    vmm->ram = mmap(NULL, TINY_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (vmm->vm < 0 || vmm->ram == MAP_FAILED)
        return "/dev/kvm makes no VM";
    region.userspace_addr = (uint64_t)(uintptr_t)vmm->ram;
    if (ioctl(vmm->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return "/dev/kvm takes no memory";
    vmm->vcpu = ioctl(vmm->vm, KVM_CREATE_VCPU, 0);
    size = ioctl(vmm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (vmm->vcpu < 0 || size < 0)
        return "/dev/kvm makes no vCPU";
    vmm->run_size = (size_t)size;
    vmm->run = mmap(NULL, vmm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vmm->vcpu, 0);
    if (vmm->run == MAP_FAILED)
        return "the vCPU's state cannot be mapped";
    build_guest(vmm, code, size_of_code);
    return enter_long_mode(vmm) < 0 ? "the vCPU does not enter 64-bit mode" : NULL;
}

const char *tiny_vmm_start_code(struct tiny_vmm *vmm, const uint8_t *code, size_t size) {
    const struct sigaction action = {.sa_handler = interrupted};
    const char *failure;

    *vmm = (struct tiny_vmm){.kvm = -1, .vm = -1, .vcpu = -1, .ram = MAP_FAILED, .run = MAP_FAILED};
    failure = make_vm(vmm, code, size);
    sigaction(SIGUSR1, &action, NULL);
    if (!failure && pthread_create(&vmm->thread, NULL, run_vcpu, vmm) != 0)
        failure = "no thread for the vCPU";
    if (failure) {
        tiny_vmm_stop(vmm);
        return failure;
    }
    vmm->running = true;
    return NULL;
}

const char *tiny_vmm_start(struct tiny_vmm *vmm) {
    return tiny_vmm_start_code(vmm, copying_guest, sizeof(copying_guest));
}

void tiny_vmm_stop(struct tiny_vmm *vmm) {
    if (vmm->running) {
        struct kvm_run *run = vmm->run;

        __atomic_store_n(&run->immediate_exit, 1, __ATOMIC_RELEASE);
        pthread_kill(vmm->thread, SIGUSR1);
        pthread_join(vmm->thread, NULL);
        vmm->running = false;
    }
    if (vmm->run != MAP_FAILED)
        munmap(vmm->run, vmm->run_size);
    if (vmm->vcpu >= 0)
        close(vmm->vcpu);
    if (vmm->vm >= 0)
        close(vmm->vm);
    if (vmm->kvm >= 0)
        close(vmm->kvm);
    if (vmm->ram != MAP_FAILED)
        munmap(vmm->ram, TINY_RAM);
}

uint64_t tiny_vmm_peek(const struct tiny_vmm *vmm, uint64_t gva) {
    return __atomic_load_n((const uint64_t *)(const void *)(vmm->ram + (gva - TINY_KERNEL_BASE)), __ATOMIC_ACQUIRE);
}
