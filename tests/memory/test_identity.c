/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a memory context is of: what takes its place under the same name, pid or address is not written to unnoticed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"
#include "memory/fixture.h"

static struct fixture fx;
static const uint8_t eight[8] = {1, 2, 3, 4, 5, 6, 7, 8};

/* Another file takes the name of the VM's: the VM still has the first, and gets the write. */
TEST(test_p06_file_of_the_same_name, .iterations = 2) {
    static uint8_t source[8192] = {9};
    char other[80], octets[16] = {};
    int fd;

    fixture_init(&fx, VM_SHM);
    fixture_ready(&fx);
    snprintf(other, sizeof(other), "%s-other", vm_shm_path());
    fd = open(other, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, RAM_SIZE + ROM_SIZE), 0);
    ck_assert_int_eq(rename(other, vm_shm_path()), 0);
    assert_ok(do_write(&fx, DATA_GVA, _i ? source : eight, _i ? sizeof(source) : 8, 0));
    ck_assert_uint_eq(fx.vm.ram[DATA_GPA], _i ? 9 : 1);
    ck_assert_int_eq(pread(fd, octets, sizeof(octets), DATA_GPA), sizeof(octets));
    ck_assert_int_eq(octets[0], 0);
    close(fd);
    fixture_deinit(&fx);
}

/* Other private memory takes the place of the RAM: the canary is read through the same mapping, right before the write. */
TEST(test_p06_other_memory_at_the_same_address, .iterations = 2) {
    static uint8_t source[8192] = {9};

    fixture_init(&fx, VM_PRIVATE);
    fixture_ready(&fx);
    ck_assert_ptr_eq(mmap(fx.vm.ram, RAM_SIZE + ROM_SIZE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                     fx.vm.ram);
    /* Even one that looks like the guest's translates, so that nothing but the canary is left to tell. */
    memset(fx.vm.ram + PGD_GPA, 0, PAGE);
    struct vmibus_ack *ack = do_write(&fx, DATA_GPA, _i ? source : eight, _i ? sizeof(source) : 8, VMIBUS_MEMWRITE_PHYSICAL);
    assert_refused(ack, VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_CANARY);
    ck_assert_uint_eq(fx.vm.ram[DATA_GPA], 0);
    fixture_deinit(&fx);
}

/* The endpoint's slot has another occupant: neither the old generation nor the old epoch means it. */
TEST(test_p06_slot_with_another_occupant) {
    struct vmibus_frame frame;

    fixture_init(&fx, VM_SEALED);
    fixture_ready(&fx);
    frame = write_frame(&fx, DATA_GVA, eight, 8, 0);
    link_close(&fx, fx.generation);
    link_open(&fx, fx.generation + 1, "vm");
    fixture_ready(&fx);
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE);
    frame.header.generation = fx.generation;
    frame.cmd_memwrite.token = fx.token;
    ck_assert_uint_ne(submit(&fx.control, &frame, NULL, NULL)->error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(fx.vm.ram[DATA_GPA], 0);
    fixture_deinit(&fx);
}

HARNESS_SUITE("memory: identity", HARNESS_QUICK)
