/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which memory backends are RAM, by the monitor's answers: real ones first, then some that lie.
 */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "machine/backends.h"

#define MIB (UINT64_C(1) << 20)

/* Takes a list of backends; returns what that says. */
static int take(struct backends *backends, const char *text) {
    json_object *list = json_tokener_parse(text);
    int r;

    *backends = (struct backends){0};
    r = backends_take(backends, list);
    json_object_put(list);
    return r;
}

static int take_devices(struct backends *backends, const char *text) {
    json_object *list = json_tokener_parse(text);
    int r = backends_take_devices(backends, list);

    json_object_put(list);
    return r;
}

/* --- real answers ------------------------------------------------------------------------------ */

/* A recording holds what query-memdev said in its first line, and query-memory-devices in its second. */
static char *fixture(const char *name) {
    const char *top = getenv("VMIBUS_SOURCE_DIR");
    char path[512], *text = calloc(1, 8192);
    FILE *file;

    snprintf(path, sizeof(path), "%s/tests/fixtures/qemu/firmware/%s.memory.txt", top ? top : ".", name);
    file = fopen(path, "re");
    if (!file)
        test_skip("%s is missing: set VMIBUS_SOURCE_DIR", path);
    ck_assert_uint_lt(fread(text, 1, 8191, file), 8191);
    fclose(file);
    return text;
}

static const struct {
    const char *name;
    const char *ram[3], *other[2];
} recordings[] = {
    {"q35-512M", {"ram0"}, {}},
    {"pc-512M-private", {"pc.ram"}, {}},
    {"microvm-512M", {"ram0"}, {}},
    {"pc-4608M-numa2", {"node0", "node1"}, {}},
    {"q35-512M-dimm", {"ram0", "mem1"}, {}},
    {"q35-512M-virtio-mem", {"ram0"}, {"mem1"}},
    {"q35-512M-nvdimm", {"ram0"}, {"mem1"}},
    {"q35-512M-virtio-pmem", {"ram0"}, {"mem1"}},
};

TEST(test_p12_real_answers, .iterations = (int)(sizeof(recordings) / sizeof(*recordings))) {
    char *text = fixture(recordings[_i].name), *second = strchr(text, '\n');
    struct backends backends;

    ck_assert_ptr_nonnull(second);
    *second++ = '\0';
    ck_assert_int_eq(take(&backends, text), 0);
    ck_assert_int_eq(take_devices(&backends, second), 0);
    for (int i = 0; i < 3 && recordings[_i].ram[i]; i++) {
        const struct backend *backend = backends_find(&backends, recordings[_i].ram[i]);

        ck_assert_ptr_nonnull(backend);
        ck_assert(backend->is_ram);
        ck_assert_uint_ge(backend->size, 128 * MIB);
    }
    for (int i = 0; i < 2 && recordings[_i].other[i]; i++) {
        const struct backend *backend = backends_find(&backends, recordings[_i].other[i]);

        ck_assert_ptr_nonnull(backend);
        ck_assert(!backend->is_ram);
    }
    backends_deinit(&backends);
    free(text);
}

/* --- kinds of devices -------------------------------------------------------------------------- */

TEST(test_p12_only_plugged_memory_is_ram) {
    static const struct {
        const char *device;
        bool is_ram;
    } devices[] = {
        {"{\"type\":\"dimm\",\"data\":{\"memdev\":\"/objects/m\",\"size\":1}}", true},
        {"{\"type\":\"virtio-mem\",\"data\":{\"memdev\":\"/objects/m\",\"size\":2097152}}", true},
        {"{\"type\":\"virtio-mem\",\"data\":{\"memdev\":\"/objects/m\",\"size\":0}}", false},
        {"{\"type\":\"nvdimm\",\"data\":{\"memdev\":\"/objects/m\",\"size\":1}}", false},
        {"{\"type\":\"virtio-pmem\",\"data\":{\"memdev\":\"/objects/m\",\"size\":1}}", false},
        {"{\"type\":\"sgx-epc\",\"data\":{\"memdev\":\"/objects/m\",\"size\":1}}", false},
        {"{\"type\":\"something\",\"data\":{\"memdev\":\"/objects/m\"}}", false},
        {"{\"type\":\"hv-balloon\",\"data\":{\"max-size\":1}}", true},
        {"{\"type\":\"nvdimm\",\"data\":{\"memdev\":\"/objects/other\",\"size\":1}}", true},
    };

    for (size_t i = 0; i < sizeof(devices) / sizeof(*devices); i++) {
        struct backends backends;
        char text[256];

        ck_assert_int_eq(take(&backends, "[{\"id\":\"m\",\"size\":4096}]"), 0);
        snprintf(text, sizeof(text), "[%s]", devices[i].device);
        ck_assert_int_eq(take_devices(&backends, text), 0);
        ck_assert_msg(backends.list[0].is_ram == devices[i].is_ram, "%s", devices[i].device);
        backends_deinit(&backends);
    }
}

/* Two devices with one backend: whichever says that it is no RAM is believed. */
TEST(test_p12_a_doubt_stays) {
    struct backends backends;

    ck_assert_int_eq(take(&backends, "[{\"id\":\"m\",\"size\":4096}]"), 0);
    ck_assert_int_eq(take_devices(&backends, "[{\"type\":\"nvdimm\",\"data\":{\"memdev\":\"/objects/m\"}},"
                                             "{\"type\":\"dimm\",\"data\":{\"memdev\":\"/objects/m\"}}]"),
                     0);
    ck_assert(!backends.list[0].is_ram);
    backends_deinit(&backends);
}

/* --- names ------------------------------------------------------------------------------------- */

TEST(test_names_of_regions) {
    struct backends backends;

    ck_assert_int_eq(take(&backends, "[{\"id\":\"r_a.m-0\",\"size\":1},{\"size\":7},{\"id\":\"\",\"size\":7},"
                                     "{\"id\":\"pc.ram\",\"size\":2}]"),
                     0);
    ck_assert_uint_eq(backends.n_backends, 2);
    ck_assert_ptr_eq(backends_find(&backends, "r_a.m-0"), &backends.list[0]);
    ck_assert_ptr_eq(backends_find(&backends, "/objects/pc.ram"), &backends.list[1]);
    ck_assert_ptr_null(backends_find(&backends, "pc.ra"));
    ck_assert_ptr_null(backends_find(&backends, "pc.ram2"));
    ck_assert_ptr_null(backends_find(&backends, ""));
    ck_assert_ptr_null(backends_find(&backends, "/objects/"));
    ck_assert_ptr_null(backends_find(&backends, "/objects//objects/pc.ram"));
    backends_deinit(&backends);
}

static const struct {
    const char *text;
    int outcome;
} lies[] = {
    {"null", BACKENDS_MALFORMED},
    {"{}", BACKENDS_MALFORMED},
    {"[]", BACKENDS_NONE},
    {"[{\"size\":1}]", BACKENDS_NONE},
    {"[7]", BACKENDS_MALFORMED},
    {"[{\"id\":\"m\"}]", BACKENDS_MALFORMED},
    {"[{\"id\":\"m\",\"size\":-1}]", BACKENDS_MALFORMED},
    {"[{\"id\":\"m\",\"size\":\"1\"}]", BACKENDS_MALFORMED},
    {"[{\"id\":\"m\",\"size\":1},{\"id\":\"m\",\"size\":1}]", BACKENDS_MALFORMED},
    /* what QEMU never allows in an id could be anything on a terminal */
    {"[{\"id\":\"m\\u001b[2J\",\"size\":1}]", BACKENDS_MALFORMED},
    {"[{\"id\":\"/objects/m\",\"size\":1}]", BACKENDS_MALFORMED},
    {"[{\"id\":\"m m\",\"size\":1}]", BACKENDS_MALFORMED},
};

TEST(test_p12_lies_are_refused, .iterations = (int)(sizeof(lies) / sizeof(*lies))) {
    struct backends backends;

    ck_assert_int_eq(take(&backends, lies[_i].text), lies[_i].outcome);
    ck_assert_ptr_null(backends.list);
}

TEST(test_p12_lies_about_devices_are_refused) {
    static const char *const texts[] = {"null", "{}", "[7]", "[{}]", "[{\"type\":\"dimm\"}]", "[{\"data\":{}}]",
                                        "[{\"type\":\"virtio-mem\",\"data\":{\"memdev\":\"/objects/m\"}}]",
                                        "[{\"type\":\"virtio-mem\",\"data\":{\"size\":-1}}]"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        struct backends backends;

        ck_assert_int_eq(take(&backends, "[{\"id\":\"m\",\"size\":4096}]"), 0);
        ck_assert_msg(take_devices(&backends, texts[i]) == BACKENDS_MALFORMED, "%s", texts[i]);
        backends_deinit(&backends);
    }
}

TEST(test_p09_lists_are_bounded) {
    json_object *list = json_object_new_array();
    struct backends backends = {0};

    for (int i = 0; i <= BACKENDS_BOUND; i++)
        json_object_array_add(list, json_object_new_object());
    ck_assert_int_eq(backends_take(&backends, list), BACKENDS_TOO_MANY);
    ck_assert_int_eq(backends_take_devices(&backends, list), BACKENDS_TOO_MANY);
    json_object_put(list);
}

/* --- places ------------------------------------------------------------------------------------ */

TEST(test_p12_a_backend_lies_in_one_piece) {
    struct backend backend = {.name = "m", .size = 0x10000, .is_ram = true};

    ck_assert(backend_locate(&backend, 0x4000, 0x1000, 0x7000004000));
    ck_assert_uint_eq(backend.location, 0x7000000000);
    ck_assert(backend_locate(&backend, 0, 0x10000, 0x7000000000));
    ck_assert(!backend_locate(&backend, 0x4000, 0x1000, 0x7000005000));
    ck_assert(!backend_locate(&backend, 0xf000, 0x2000, 0x700000f000));
    ck_assert(!backend_locate(&backend, UINT64_MAX, 2, 0x7000000000));
    backend.is_located = false;
    ck_assert(!backend_locate(&backend, 0x4000, 0x1000, 0x3000));
    ck_assert(!backend_locate(&backend, 0, 0x1000, UINT64_MAX - 0xfff));
    ck_assert(!backend.is_located);
}

HARNESS_SUITE("qemu: memory backends", HARNESS_QUICK)
