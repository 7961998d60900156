/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The shapes of memory that a real QEMU gives its guests: each is published exactly, and what is left out is accounted for.
 */
#include "harness.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "layout_check.h"

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1024) * KIB)

#define ARGUMENTS 24
#define BACKENDS 12

#define FILE_OF_RAM "/dev/shm/vmibus-test-layout"
#define MEMFD(id, size) "-object", "memory-backend-memfd,id=" id ",share=on,size=" size
#define RAM(id, size) "-object", "memory-backend-ram,id=" id ",size=" size

/* What of QEMU's own count of memory is not in the layout. */
#define VGA (128 * KIB)  /* 0xa0000: the card's memory lies before it */
#define QBOOT (64 * KIB) /* microvm: the firmware lies before 0xf0000 */

struct shape {
    const char *name;
    const char *machine; /* with memory-backend=, where one is named */
    const char *memory;
    const char *smp;
    enum bed_ram ram; /* MEMFD: the extra arguments say it */
    const char *extra[ARGUMENTS];
    const char *backends[BACKENDS]; /* that are RAM */
    uint64_t hidden;                /* octets that a device's memory lies before */
    uint64_t refused;               /* octets that QEMU counts as memory, and that are no RAM */
    size_t objects;                 /* files; private memory counts once */
    bool mediated;                  /* no descriptors: private memory, or too many files */
    bool no_shadow;                 /* the firmware makes nothing read-only */
    uint64_t split;                 /* where RAM below 4 GiB ends, if there is some above */
    bool above;                     /* DIMMs lie above 4 GiB */
    const char *needs;              /* a path without which it is skipped */
    bool makes_file;                /* FILE_OF_RAM: its name goes when QEMU has opened it */
    unsigned int huge_pages;        /* of 2 MiB that it needs */
};

static const struct shape shapes[] = {
    {.name = "q35, 512M, memfd",
     .machine = "q35,memory-backend=m",
     .memory = "512M",
     .extra = {MEMFD("m", "512M")},
     .backends = {"m"},
     .hidden = VGA,
     .objects = 1},
    {.name = "q35, 2560M: no split",
     .machine = "q35,memory-backend=m",
     .memory = "2560M",
     .extra = {MEMFD("m", "2560M")},
     .backends = {"m"},
     .hidden = VGA,
     .objects = 1},
    {.name = "q35, 3G: split at 2G",
     .machine = "q35,memory-backend=m",
     .memory = "3G",
     .extra = {MEMFD("m", "3G")},
     .backends = {"m"},
     .hidden = VGA,
     .objects = 1,
     .split = UINT64_C(0x80000000)},
    {.name = "q35, 2500M, max-ram-below-4g=1537M",
     .machine = "q35,memory-backend=m,max-ram-below-4g=1537M",
     .memory = "2500M",
     .extra = {MEMFD("m", "2500M")},
     .backends = {"m"},
     .hidden = VGA,
     .objects = 1,
     .split = 1537 * MIB},
    {.name = "pc, 3500M: no split",
     .machine = "pc,memory-backend=m",
     .memory = "3500M",
     .extra = {MEMFD("m", "3500M")},
     .backends = {"m"},
     .hidden = VGA,
     .objects = 1},
    {.name = "pc, 4G: split at 3G",
     .machine = "pc,memory-backend=m",
     .memory = "4G",
     .extra = {MEMFD("m", "4G")},
     .backends = {"m"},
     .hidden = VGA,
     .objects = 1,
     .split = UINT64_C(0xc0000000)},
    {.name = "pc 3.1: regions named by path",
     .machine = "pc-i440fx-3.1,memory-backend=m",
     .memory = "256M",
     .extra = {MEMFD("m", "256M")},
     .backends = {"m"},
     .hidden = VGA,
     .objects = 1},
    {.name = "pc, -m 256: no backend named",
     .machine = "pc",
     .memory = "256M",
     .backends = {"pc.ram"},
     .hidden = VGA,
     .objects = 1,
     .mediated = true},
    {.name = "q35, private backend",
     .machine = "q35,memory-backend=m",
     .memory = "512M",
     .extra = {RAM("m", "512M")},
     .backends = {"m"},
     .hidden = VGA,
     .objects = 1,
     .mediated = true},
    {.name = "q35, private file",
     .machine = "q35,memory-backend=m",
     .memory = "128M",
     .extra = {"-object", "memory-backend-file,id=m,size=128M,share=off,mem-path=" FILE_OF_RAM},
     .backends = {"m"},
     .hidden = VGA,
     .objects = 1,
     .mediated = true,
     .makes_file = true},
    {.name = "q35, file in /dev/shm",
     .machine = "q35",
     .memory = "128M",
     .ram = BED_RAM_SHM,
     .backends = {"ram0"},
     .hidden = VGA,
     .objects = 1},
    {.name = "q35, huge pages",
     .machine = "q35,memory-backend=m",
     .memory = "32M",
     .extra = {MEMFD("m", "32M,hugetlb=on,hugetlbsize=2M")},
     .backends = {"m"},
     .hidden = VGA,
     .objects = 1,
     .huge_pages = 16},
    {.name = "microvm",
     .machine = "microvm,pcie=on,memory-backend=m",
     .memory = "256M",
     .extra = {MEMFD("m", "256M")},
     .backends = {"m"},
     .hidden = QBOOT,
     .objects = 1,
     .no_shadow = true},
    {.name = "microvm, -m 256: no backend named",
     .machine = "microvm,pcie=on",
     .memory = "256M",
     .backends = {"microvm.ram"},
     .hidden = QBOOT,
     .objects = 1,
     .mediated = true,
     .no_shadow = true},
    {.name = "pc, two NUMA nodes across the split",
     .machine = "pc",
     .memory = "4608M",
     .smp = "2",
     .extra = {MEMFD("a", "2304M"), MEMFD("b", "2304M"), "-numa", "node,memdev=a,cpus=0", "-numa", "node,memdev=b,cpus=1"},
     .backends = {"a", "b"},
     .hidden = VGA,
     .objects = 2,
     .split = UINT64_C(0xc0000000)},
    {.name = "q35, three NUMA nodes: memfd, private, file",
     .machine = "q35",
     .memory = "384M",
     .smp = "3",
     .extra = {MEMFD("a", "128M"), RAM("b", "128M"), "-object",
               "memory-backend-file,id=c,size=128M,share=on,mem-path=" FILE_OF_RAM, "-numa",
               "node,memdev=a,cpus=0", "-numa", "node,memdev=b,cpus=1", "-numa", "node,memdev=c,cpus=2"},
     .backends = {"a", "b", "c"},
     .hidden = VGA,
     .objects = 3,
     .mediated = true,
     .makes_file = true},
    {.name = "q35, DIMMs from the start, one read-only",
     .machine = "q35,memory-backend=m",
     .memory = "256M,slots=3,maxmem=4G",
     .extra = {MEMFD("m", "256M"), MEMFD("a", "128M"), "-device", "pc-dimm,memdev=a", "-object",
               "memory-backend-file,id=b,size=128M,share=on,readonly=on,mem-path=" FILE_OF_RAM, "-device",
               "pc-dimm,memdev=b"},
     .backends = {"m", "a", "b"},
     .hidden = VGA,
     .objects = 3,
     .above = true,
     .makes_file = true},
    {.name = "q35, nvdimm: storage is no RAM",
     .machine = "q35,memory-backend=m,nvdimm=on",
     .memory = "256M,slots=2,maxmem=4G",
     .extra = {MEMFD("m", "256M"), "-object",
               "memory-backend-file,id=n,size=128M,share=on,mem-path=" FILE_OF_RAM, "-device", "nvdimm,memdev=n"},
     .backends = {"m"},
     .hidden = VGA,
     .refused = 128 * MIB,
     .objects = 1,
     .makes_file = true},
    {.name = "q35, virtio-pmem: storage is no RAM",
     .machine = "q35,memory-backend=m",
     .memory = "256M,slots=2,maxmem=4G",
     .extra = {MEMFD("m", "256M"), "-object",
               "memory-backend-file,id=n,size=128M,share=on,mem-path=" FILE_OF_RAM, "-device",
               "virtio-pmem-pci,memdev=n"},
     .backends = {"m"},
     .hidden = VGA,
     .refused = 128 * MIB,
     .objects = 1,
     .makes_file = true},
    {.name = "q35, virtio-mem with nothing plugged",
     .machine = "q35,memory-backend=m",
     .memory = "256M,maxmem=4G",
     .extra = {MEMFD("m", "256M"), MEMFD("v", "1G,reserve=off"), "-device",
               "virtio-mem-pci,memdev=v,requested-size=256M"},
     .backends = {"m"},
     .hidden = VGA,
     .objects = 1},
    {.name = "q35, a backend of 1 GiB behind a BAR above 4 GiB",
     .machine = "q35,memory-backend=m",
     .memory = "256M",
     .extra = {MEMFD("m", "256M"), MEMFD("s", "1G"), "-device", "ivshmem-plain,memdev=s"},
     .backends = {"m"},
     .hidden = VGA,
     .objects = 1},
    {.name = "q35, large video memory",
     .machine = "q35,memory-backend=m",
     .memory = "256M",
     .extra = {MEMFD("m", "256M"), "-device", "VGA,vgamem_mb=256"},
     .backends = {"m"},
     .hidden = VGA,
     .objects = 1},
    {.name = "q35, firmware in flash",
     .machine = "q35,memory-backend=m,pflash0=f",
     .memory = "256M",
     .extra = {MEMFD("m", "256M"), "-blockdev",
               "driver=file,filename=/usr/share/seabios/bios-256k.bin,node-name=f,read-only=on"},
     .backends = {"m"},
     .hidden = VGA,
     .objects = 1,
     .needs = "/usr/share/seabios/bios-256k.bin"},
    {.name = "q35, system management mode",
     .machine = "q35,memory-backend=m,smm=on",
     .memory = "256M",
     .extra = {MEMFD("m", "256M"), "-global", "mch.extended-tseg-mbytes=16"},
     .backends = {"m"},
     .hidden = VGA,
     .objects = 1},
};

#define N_SHAPES ((int)(sizeof(shapes) / sizeof(*shapes)))

static struct scene scene;

static unsigned int free_huge_pages(void) {
    FILE *file = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "re");
    unsigned int pages = 0;

    if (!file)
        return 0;
    if (fscanf(file, "%u", &pages) != 1)
        pages = 0;
    fclose(file);
    return pages;
}

static void need(const struct shape *shape) {
    const char *reason;

    if (!bed_available(true, &reason))
        test_skip("%s", reason);
    if (shape->needs && access(shape->needs, R_OK) < 0)
        test_skip("%s: there is no %s", shape->name, shape->needs);
    if (free_huge_pages() < shape->huge_pages)
        test_skip("%s: there are not %u free huge pages of 2 MiB; see /proc/sys/vm/nr_hugepages", shape->name,
                  shape->huge_pages);
}

static void start_with(const struct shape *shape, const char *const *extra) {
    const struct bed_options options = {.firmware_only = true,
                                        .machine = shape->machine,
                                        .memory = shape->memory,
                                        .smp = shape->smp,
                                        .extra = extra,
                                        .ram = shape->ram ? shape->ram : BED_RAM_CUSTOM};
    struct bed *bed;
    int r;

    r = bed_start(&bed, &options);
    if (shape->makes_file)
        unlink(FILE_OF_RAM);
    ck_assert_msg(r == 0, "%s: %s", shape->name, bed_error(NULL));
    layout_settle(bed, !shape->no_shadow);
    scene_begin(&scene, bed);
    scene_take_leases(&scene);
    layout_wait(&scene);
}

/* Iteration after iteration in a process of its own: a file left behind by one must not be in the way of the next. */
TEST(test_p12_shapes, .iterations = N_SHAPES, .timeout = 120) {
    const struct shape *shape = &shapes[_i];
    struct layout_sum sum;
    uint64_t told;

    need(shape);
    start_with(shape, shape->extra);
    told = layout_of_qemu(scene.bed);
    sum = layout_check(&scene, shape->backends);
    printf("%s: %zu ranges of %zu objects%s; %" PRIu64 " KiB of the %" PRIu64 " that QEMU counts, %" PRIu64
           " hidden and %" PRIu64 " refused; %" PRIu64 " read-only\n",
           shape->name, sum.n_ranges, sum.n_objects, sum.handed ? "" : ", mediated", sum.ram / KIB, told / KIB,
           shape->hidden / KIB, shape->refused / KIB, sum.read_only / KIB);
    ck_assert_uint_eq(sum.ram, told - shape->hidden - shape->refused);
    ck_assert_uint_eq(sum.n_objects, shape->objects);
    ck_assert_int_eq(sum.handed, !shape->mediated);
    ck_assert_int_eq(sum.high != 0, shape->split != 0 || shape->above);
    if (shape->split)
        ck_assert_uint_eq(sum.low_end, shape->split);
    ck_assert_uint_eq(scene.n_ends, 0);
    scene_end(&scene);
    bed_stop(scene.bed);
}

/* --- more files than fit into an answer -------------------------------------------------------- */

#define NODES (VMIBUS_FDS_PER_FRAME + 1)

TEST(test_p12_more_files_than_descriptors, .timeout = 120) {
    static char objects[NODES][80], nodes[NODES][32], names[NODES][8];
    static struct shape shape = {.name = "q35, seventeen NUMA nodes", .machine = "q35", .memory = "272M"};
    static const char *extra[4 * NODES + 1], *backends[NODES + 1];
    struct layout_sum sum;

    need(&shape);
    for (int i = 0; i < NODES; i++) {
        snprintf(names[i], sizeof(names[i]), "n%d", i);
        snprintf(objects[i], sizeof(objects[i]), "memory-backend-memfd,id=n%d,share=on,size=16M", i);
        snprintf(nodes[i], sizeof(nodes[i]), "node,memdev=n%d", i);
        extra[4 * i] = "-object";
        extra[4 * i + 1] = objects[i];
        extra[4 * i + 2] = "-numa";
        extra[4 * i + 3] = nodes[i];
        backends[i] = names[i];
    }
    start_with(&shape, extra);
    sum = layout_check(&scene, backends);
    ck_assert_uint_eq(sum.n_objects, NODES);
    ck_assert(!sum.handed);
    ck_assert_uint_eq(sum.ram, layout_of_qemu(scene.bed) - VGA);
    scene_end(&scene);
    bed_stop(scene.bed);
}

HARNESS_SUITE("qemu: shapes of memory", HARNESS_QUICK)
