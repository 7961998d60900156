/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pictures and registers, from monitors that the test plays: well, badly and in bad faith.  Time is the test's.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake_qemu.h"
#include "mock_host.h"
#include "qemu/png.h"
#include "qemu/qemu.h"
#include "qemu/screen.h"
#include "machine/vcpu_registers.h"

#define NS_PER_MS UINT64_C(1000000)
#define PICTURE "P6\n2 2\n255\nabcdefghijkl"

static struct fake_qemu *fake;
static struct mock_host *host;
static struct vmibus_sensor_endpoint *vm;

static void settle(void) {
    do
        mock_host_settle(host);
    while (fake_serve(fake));
}

static void pass(unsigned int ms) {
    for (unsigned int i = 0; i < ms; i += 10) {
        mock_host_advance(host, 10 * NS_PER_MS);
        settle();
    }
}

static void begin(void) {
    char option[128];
    const char *const options[] = {option, NULL};

    fake = fake_new();
    fake->picture = PICTURE;
    fake->picture_len = strlen(PICTURE);
    snprintf(option, sizeof(option), "monitor.one=%s", fake->path);
    host = mock_host_new(&vmibus_qemu_sensor);
    mock_host_own_time(host);
    ck_assert_int_eq(mock_host_start(host, options), 0);
    pass(20);
    vm = mock_host_endpoint(host, "one");
    ck_assert_ptr_nonnull(vm);
}

static void end(void) {
    host = mock_host_free(host);
    fake = fake_free(fake);
}

static uint64_t shoot(enum vmibus_image_format format, uint32_t head) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_SCREENSHOT},
                                 .screenshot = {.head = head, .format = (uint8_t)format}};

    return mock_host_execute(host, vm, &frame, NULL, 0);
}

static const struct mock_record *answer_to(uint64_t id) {
    const struct mock_record *record;

    for (size_t i = 0; (record = mock_host_record(host, MOCK_COMPLETE, i)); i++)
        if (record->id == id)
            return record;
    return NULL;
}

static void expect(uint64_t id, enum vmibus_error error, enum vmibus_reason reason, uint64_t value) {
    const struct mock_record *answer = answer_to(id);

    ck_assert_ptr_nonnull(answer);
    ck_assert_uint_eq(answer->ack.error, error);
    ck_assert_uint_eq(answer->ack.reason, reason);
    ck_assert_uint_eq(answer->ack.value, value);
    ck_assert_uint_eq(answer->n_fds, 0);
    ck_assert_uint_eq(answer->ack.count, 0);
}

static const struct mock_record *expect_picture(uint64_t id) {
    const struct mock_record *answer = answer_to(id);
    struct stat status;

    ck_assert_ptr_nonnull(answer);
    ck_assert_uint_eq(answer->ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(answer->n_fds, 1);
    ck_assert_int_eq(fstat(answer->fds[0], &status), 0);
    ck_assert_uint_eq((uint64_t)status.st_size, answer->ack.count);
    ck_assert_int_eq(fcntl(answer->fds[0], F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
    return answer;
}

/* --- pictures -------------------------------------------------------------------------------- */

TEST(test_a_pixmap_is_what_qemu_wrote, .setup = begin, .teardown = end) {
    uint64_t id = shoot(VMIBUS_IMAGE_FORMAT_PPM, 0);
    const struct mock_record *answer;
    char octets[64];

    settle();
    answer = expect_picture(id);
    ck_assert_uint_eq(answer->ack.count, strlen(PICTURE));
    ck_assert_int_eq(pread(answer->fds[0], octets, sizeof(octets), 0), (ssize_t)strlen(PICTURE));
    ck_assert_mem_eq(octets, PICTURE, strlen(PICTURE));
    ck_assert_uint_eq(fake_count(fake, "\"add-fd\""), 1);
    ck_assert_uint_eq(fake_count(fake, "fdset\\/7\""), 1);
    ck_assert_uint_eq(fake_count(fake, "\"remove-fd\""), 1);
}

TEST(test_p11_qemu_is_never_asked_for_png, .setup = begin, .teardown = end) {
    uint64_t id = shoot(VMIBUS_IMAGE_FORMAT_PNG, 0);
    const struct mock_record *answer;
    char octets[8];

    settle();
    answer = expect_picture(id);
    ck_assert_int_eq(pread(answer->fds[0], octets, sizeof(octets), 0), (ssize_t)sizeof(octets));
    ck_assert_mem_eq(octets, "\x89PNG\r\n\x1a\n", 8);
    ck_assert_uint_eq(fake_count(fake, "png"), 0);
    ck_assert_uint_eq(fake_count(fake, "format"), 0);
}

TEST(test_one_is_taken_at_a_time_and_some_may_wait, .setup = begin, .teardown = end) {
    const struct mock_record *refusal;

    fake->hold = "screendump";
    for (size_t i = 0; i < SCREEN_WAITING_BOUND; i++)
        shoot(VMIBUS_IMAGE_FORMAT_PNG, 0);
    settle();
    ck_assert_uint_eq(fake_count(fake, "\"add-fd\""), 1);
    ck_assert_uint_eq(mock_host_count(host, MOCK_COMPLETE), 0);
    refusal = answer_to(shoot(VMIBUS_IMAGE_FORMAT_PNG, 0));
    ck_assert_uint_eq(refusal->ack.error, VMIBUS_ERROR_PRESSURE);
    ck_assert_uint_eq(refusal->ack.reason, VMIBUS_REASON_LIMIT_COMMANDS);
    ck_assert_uint_eq(refusal->ack.value, SCREEN_WAITING_BOUND);
}

TEST(test_p09_a_monitor_that_never_answers_fails_them_all, .setup = begin, .teardown = end) {
    uint64_t first, second;

    fake->hold = "screendump";
    first = shoot(VMIBUS_IMAGE_FORMAT_PNG, 0);
    second = shoot(VMIBUS_IMAGE_FORMAT_PNG, 0);
    pass(6000);
    expect(first, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, ETIMEDOUT);
    expect(second, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, ENOTCONN);
}

TEST(test_p09_what_is_no_picture_is_refused, .setup = begin, .teardown = end) {
    static const char *const pictures[] = {
        "",
        "P6",
        "P5\n2 2\n255\nabcdefghijkl",
        "P6\n2 2\n255\nabcdefghijk",
        "P6\n2 2\n255\nabcdefghijklm",
        "P6\n0 2\n255\n",
        "P6\n16385 1\n255\n",
        "P6\n4294967296 1\n255\nabc",
        "P6\n-1 2\n255\nabcdef",
        "P6\n2 2\n65535\nabcdefghijklabcdefghijkl",
        "P6\n# a comment\n2 2\n255\nabcdefghijkl",
    };

    for (size_t i = 0; i < sizeof(pictures) / sizeof(pictures[0]); i++) {
        uint64_t id;

        fake->picture = pictures[i];
        fake->picture_len = strlen(pictures[i]);
        id = shoot(i % 2 ? VMIBUS_IMAGE_FORMAT_PPM : VMIBUS_IMAGE_FORMAT_PNG, 0);
        settle();
        expect(id, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, EBADMSG);
    }
    ck_assert_uint_eq(fake_count(fake, "\"remove-fd\""), sizeof(pictures) / sizeof(pictures[0]));
}

/* Makes the file long, without filling it. */
static void stretch(const char *text, bool executed) {
    if (strstr(text, "screendump") && executed)
        ck_assert_int_eq(ftruncate(fake->fd, (off_t)SCREEN_OCTETS_BOUND + 1), 0);
}

TEST(test_p09_a_picture_that_is_too_long_is_refused, .setup = begin, .teardown = end) {
    uint64_t id;

    fake->watch = stretch;
    id = shoot(VMIBUS_IMAGE_FORMAT_PNG, 0);
    settle();
    expect(id, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, EFBIG);
}

static void *mapped;

static void keep_mapped(const char *text, bool executed) {
    char path[32];
    int fd;

    if (!strstr(text, "screendump") || !executed)
        return;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fake->fd);
    fd = open(path, O_RDWR | O_CLOEXEC);
    mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(mapped, MAP_FAILED);
    close(fd);
}

TEST(test_p09_a_picture_that_could_still_change_is_refused, .setup = begin, .teardown = end) {
    uint64_t id;

    fake->watch = keep_mapped;
    id = shoot(VMIBUS_IMAGE_FORMAT_PNG, 0);
    settle();
    expect(id, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, EBUSY);
    munmap(mapped, 4096);
}

TEST(test_a_descriptor_that_stays_at_qemu_writes_nothing_any_more, .setup = begin, .teardown = end) {
    uint64_t id = shoot(VMIBUS_IMAGE_FORMAT_PPM, 0);

    settle();
    expect_picture(id);
    ck_assert_int_eq(write(fake->fd, "x", 1), -1);
    ck_assert_int_eq(ftruncate(fake->fd, 0), -1);
}

TEST(test_what_qemu_refuses_is_told, .setup = begin, .teardown = end) {
    static const char *const commands[] = {"add-fd", "screendump"};

    for (size_t i = 0; i < 2; i++) {
        uint64_t id;

        fake->refuse = commands[i];
        id = shoot(VMIBUS_IMAGE_FORMAT_PNG, 0);
        settle();
        expect(id, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, EPERM);
    }
    ck_assert_uint_eq(fake_count(fake, "\"remove-fd\""), 1);
}

TEST(test_another_display_is_named_by_its_device, .setup = begin, .teardown = end) {
    uint64_t id = shoot(VMIBUS_IMAGE_FORMAT_PNG, 1);

    settle();
    expect(id, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 1);
    fake->peripherals = "[{\"name\": \"type\", \"type\": \"string\"}, {\"name\": \"disk0\", \"type\": \"child<virtio-blk-pci>\"},"
                        " {\"name\": \"video0\", \"type\": \"child<virtio-gpu-pci>\"}]";
    id = shoot(VMIBUS_IMAGE_FORMAT_PNG, 1);
    settle();
    expect_picture(id);
    ck_assert_uint_eq(fake_count(fake, "\"device\":\"video0\",\"head\":1"), 1);
    fake->peripherals = "[1, null, {}, {\"name\": 1, \"type\": []}]";
    id = shoot(VMIBUS_IMAGE_FORMAT_PNG, 2);
    settle();
    expect(id, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 2);
    ck_assert_uint_eq(fake_count(fake, "\"remove-fd\""), 3);
}

TEST(test_a_vm_that_goes_meanwhile_leaves_nothing, .setup = begin, .teardown = end) {
    fake->hold = "screendump";
    shoot(VMIBUS_IMAGE_FORMAT_PNG, 0);
    shoot(VMIBUS_IMAGE_FORMAT_PNG, 0);
    settle();
    fake_hang_up(fake);
    fake_close(fake);
    pass(500);
    ck_assert_uint_eq(mock_host_count(host, MOCK_COMPLETE), 2);
}

/* --- registers ------------------------------------------------------------------------------- */

static uint64_t ask(uint32_t vcpu) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_REGISTERS}, .registers = {.vcpu = vcpu}};

    return mock_host_execute(host, vm, &frame, NULL, 0);
}

static char *recording(const char *name) {
    const char *top = getenv("VMIBUS_SOURCE_DIR");
    char path[4096], *text = calloc(1, 1 << 16);
    FILE *file;

    snprintf(path, sizeof(path), "%s/tests/fixtures/qemu/%s.registers.txt", top ? top : ".", name);
    file = fopen(path, "re");
    ck_assert_msg(file != NULL, "cannot open %s", path);
    ck_assert_uint_gt(fread(text, 1, (1 << 16) - 1, file), 0);
    fclose(file);
    return text;
}

TEST(test_registers_of_a_real_machine, .setup = begin, .teardown = end) {
    char *text = recording("pc-4608M-numa2");
    struct vmibus_vcpu_registers told[2];
    const struct mock_record *answer;
    uint64_t id;

    fake->registers = text;
    id = ask(UINT32_MAX);
    settle();
    answer = answer_to(id);
    ck_assert_uint_eq(answer->ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(answer->ack.count, 2);
    ck_assert_uint_eq(answer->tail_length, sizeof(told));
    memcpy(told, answer->tail, sizeof(told));
    ck_assert_uint_eq(told[0].rax, UINT64_C(0x18e9f5f800ebc800));
    ck_assert_uint_eq(told[0].r9, UINT64_C(0x314e000e));
    ck_assert_uint_eq(told[0].r15, UINT64_C(0x03b9aca000000000));
    ck_assert_uint_eq(told[0].rip, UINT64_C(0xffffffffb2f5773d));
    ck_assert_uint_eq(told[0].rflags, 2);
    ck_assert_uint_eq(told[0].cs, 0x10);
    ck_assert_uint_eq(told[0].fs_base, 0);
    ck_assert_uint_eq(told[0].gs_base, UINT64_C(0xff3f2db08d800000));
    ck_assert_uint_eq(told[0].gdt_base, UINT64_C(0xfffffe0000001000));
    ck_assert_uint_eq(told[0].idt_base, UINT64_C(0xfffffe0000000000));
    ck_assert_uint_eq(told[0].cr2, UINT64_C(0x4cc470));
    ck_assert_uint_eq(told[0].cr3, UINT64_C(0x1078000));
    ck_assert_uint_eq(told[0].efer, 0xd01);
    ck_assert_uint_eq(told[0].halted, 0);
    ck_assert_uint_eq(told[1].vcpu, 1);
    ck_assert_uint_eq(told[1].halted, 1);
    ck_assert_uint_eq(told[1].cr3, UINT64_C(0x2a10000));
    id = ask(1);
    settle();
    answer = answer_to(id);
    ck_assert_uint_eq(answer->ack.count, 1);
    ck_assert_mem_eq(answer->tail, &told[1], sizeof(told[1]));
    id = ask(2);
    settle();
    expect(id, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 2);
    free(text);
}

TEST(test_registers_outside_long_mode, .setup = begin, .teardown = end) {
    struct vmibus_vcpu_registers told;
    uint64_t id;

    fake->registers = "CPU#0\r\nEAX=00000001 EBX=00000002 ECX=00000003 EDX=00000663\r\n"
                      "ESI=00000000 EDI=00000000 EBP=00000000 ESP=00006f08\r\n"
                      "EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0\r\n"
                      "CS =f000 ffff0000 0000ffff 00009b00\r\nFS =0000 00000000 0000ffff 00009300\r\n"
                      "GDT=     00000000 0000ffff\r\nCR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000\r\n"
                      "EFER=0000000000000000\r\n";
    id = ask(0);
    settle();
    ck_assert_uint_eq(answer_to(id)->tail_length, sizeof(told));
    memcpy(&told, answer_to(id)->tail, sizeof(told));
    ck_assert_uint_eq(told.rdx, 0x663);
    ck_assert_uint_eq(told.rip, 0xfff0);
    ck_assert_uint_eq(told.cs, 0xf000);
}

TEST(test_p09_registers_that_are_not_understood_are_refused, .setup = begin, .teardown = end) {
    static const char *const texts[] = {
        "",
        "no registers here",
        "CPU#0\r\n",
        "CPU#0\r\nRAX=1 RIP=2\r\n",                                          /* no CR3 */
        "CPU#0\r\nRAX=1\r\nRIP=2\r\nCR3=3\r\nCPU#1\r\nRAX=1\r\n",             /* cut */
        "CPU#0\r\nRAX=12345678123456781\r\nRIP=2\r\nCR3=3\r\n",               /* too long */
        "CPU#0\r\nRAX=\r\nRIP=2\r\nCR3=3\r\n",
        "CPU#0\r\nRAX=1\r\nRIP=2 CPL=100\r\nCR3=3\r\n",                       /* over an octet */
        "CPU#0\r\nRAX=1\r\nRIP=2\r\nCR3=3\r\nFS =0000\r\n",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        uint64_t id;

        fake->registers = texts[i];
        id = ask(UINT32_MAX);
        settle();
        expect(id, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, EBADMSG);
    }
}

TEST(test_p08_more_vcpus_than_there_is_room_for_are_refused) {
    static const char text[] = "CPU#0\nRAX=1\nRIP=2\nCR3=3\nCPU#1\nRAX=1\nRIP=2\nCR3=3\n";
    struct vmibus_vcpu_registers room[2];

    ck_assert_uint_eq(vcpu_registers_parse(text, sizeof(text) - 1, room, 2), 2);
    ck_assert_uint_eq(vcpu_registers_parse(text, sizeof(text) - 1, room, 1), 0);
}

TEST(test_registers_need_a_monitor, .setup = begin, .teardown = end) {
    uint64_t id;

    fake_hang_up(fake);
    fake_close(fake);
    mock_host_settle(host);
    id = ask(0);
    expect(id, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, ENOTCONN);
    expect(shoot(VMIBUS_IMAGE_FORMAT_PNG, 0), VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, ENOTCONN);
}

HARNESS_SUITE("qemu-screen", HARNESS_QUICK)
