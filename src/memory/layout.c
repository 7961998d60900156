/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory/answer.h"
#include "memory/handout.h"
#include "memory/maps.h"
#include "memory/private.h"
#include "util/fds.h"
#include "util/refusal.h"

#define GPA_MAX (UINT64_C(1) << 52) /* no processor has more physical address bits */
#define IN_PROCESS UINT16_C(0xffff)
#define RANGE_FLAGS (VMIBUS_RANGE_READ_ONLY | VMIBUS_RANGE_ALIAS)

/* A proof under way. */
struct proof {
    const struct opener *opener;
    const struct layout_proposal *proposal;
    struct vmibus_ack *ack;
    struct memctx *memctx;
    struct maps maps;
    int memory_error;       /* why /proc/PID/mem could not be opened */
    bool needs_memory;      /* something can be reached through the process only */
    size_t capacity;        /* of ranges and addresses */
};

static int refuse(struct proof *proof, enum vmibus_error error, enum vmibus_reason reason,
                  uint64_t value) {
    return answer_refuse(proof->ack, error, reason, value);
}

static int refuse_unproven(struct proof *proof, uint64_t gpa) {
    return refuse(proof, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_LAYOUT_UNPROVEN, gpa);
}

/* An errno of the host: lack of memory stays fatal, a process that is gone has its own word. */
static int refuse_errno(struct proof *proof, int r) {
    if (r == -ENOMEM)
        return r;
    if (r == -ESRCH)
        return refuse(proof, VMIBUS_ERROR_GONE, VMIBUS_REASON_EXIT, 0);
    return refuse(proof, VMIBUS_ERROR_IO, VMIBUS_REASON_LAYOUT_UNPROVEN, (uint64_t)-r);
}

/* --- the shape --------------------------------------------------------------------------------- */

static bool is_aligned(uint64_t value) {
    return value % MEMCTX_PAGE == 0;
}

static bool range_is_sound(const struct vmibus_layout_range *range, uint64_t lowest) {
    uint64_t end;

    if (range->len == 0 || !is_aligned(range->gpa) || !is_aligned(range->len) ||
        !is_aligned(range->location) || (range->flags & ~RANGE_FLAGS))
        return false;
    if (__builtin_add_overflow(range->gpa, range->len, &end) || end > GPA_MAX ||
        range->gpa < lowest)
        return false;
    return !__builtin_add_overflow(range->location, range->len, &end) && end <= INT64_MAX;
}

static bool object_is_sound(const struct layout_proposal *proposal, uint16_t object) {
    return proposal->process.pid ? object == IN_PROCESS : object < proposal->n_fds;
}

static int check_shape(struct proof *proof) {
    const struct layout_proposal *proposal = proof->proposal;
    uint64_t lowest = 0;

    if (proposal->n_ranges == 0 || proposal->n_ranges > MEMCTX_RANGES_MAX)
        return refuse(proof, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH, MEMCTX_RANGES_MAX);
    if (proposal->process.pid ? proposal->n_fds != 0 : proposal->n_fds == 0)
        return refuse(proof, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FDS, proposal->n_fds);
    for (size_t i = 0; i < proposal->n_ranges; i++) {
        const struct vmibus_layout_range *range = &proposal->ranges[i];

        if (!range_is_sound(range, lowest) || !object_is_sound(proposal, range->object))
            return refuse(proof, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, range->gpa);
        lowest = range->gpa + range->len;
    }
    return 0;
}

/* --- objects ----------------------------------------------------------------------------------- */

static int add_object(struct proof *proof, struct ram_object **objectp) {
    struct memctx *memctx = proof->memctx;

    if (memctx->n_objects == MEMCTX_OBJECTS_MAX)
        return refuse(proof, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH, MEMCTX_OBJECTS_MAX);
    *objectp = &memctx->objects[memctx->n_objects++];
    ram_object_init(*objectp);
    return 0;
}

static bool is_file_named(const struct opener_file *file, const struct maps_entry *entry) {
    return file->inode == entry->inode && file->device_major == entry->device_major &&
           file->device_minor == entry->device_minor;
}

/* The object behind a mapping: its file if it is shared, else the process's private memory, apart by the file behind it. */
static int find_object(struct proof *proof, const struct maps_entry *entry, uint16_t *index) {
    struct memctx *memctx = proof->memctx;
    bool is_file = entry->shared && entry->inode != 0;
    struct ram_object *object;
    int r;

    for (size_t i = 0; i < memctx->n_objects; i++) {
        object = &memctx->objects[i];
        if (object->is_file == is_file && is_file_named(&object->file, entry)) {
            *index = (uint16_t)i;
            return 0;
        }
    }
    r = add_object(proof, &object);
    if (r)
        return r;
    object->is_file = is_file;
    object->file = (struct opener_file){
        .device_major = entry->device_major,
        .device_minor = entry->device_minor,
        .inode = entry->inode,
    };
    *index = (uint16_t)(memctx->n_objects - 1);
    return 0;
}

/* --- ranges ------------------------------------------------------------------------------------ */

static int reserve_range(struct proof *proof) {
    struct memctx *memctx = proof->memctx;
    struct vmibus_ram_range *ranges;
    uint64_t *addresses;
    size_t capacity;

    if (memctx->n_ranges == MEMCTX_RANGES_MAX)
        return refuse(proof, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH, MEMCTX_RANGES_MAX);
    if (memctx->n_ranges < proof->capacity)
        return 0;
    capacity = proof->capacity ? proof->capacity * 2 : 16;
    ranges = reallocarray(memctx->ranges, capacity, sizeof(*ranges));
    if (!ranges)
        return -ENOMEM;
    memctx->ranges = ranges;
    addresses = reallocarray(memctx->addresses, capacity, sizeof(*addresses));
    if (!addresses)
        return -ENOMEM;
    memctx->addresses = addresses;
    proof->capacity = capacity;
    return 0;
}

/* Whether a piece goes on where the last range ends, in the guest, in its object and in the process. */
static bool continues_last(const struct memctx *memctx, const struct vmibus_ram_range *piece,
                           uint64_t address) {
    const struct vmibus_ram_range *last;

    if (memctx->n_ranges == 0)
        return false;
    last = &memctx->ranges[memctx->n_ranges - 1];
    return last->object == piece->object && last->flags == piece->flags &&
           last->gpa + last->len == piece->gpa && last->offset + last->len == piece->offset &&
           (address == 0 || memctx->addresses[memctx->n_ranges - 1] + last->len == address);
}

static int add_range(struct proof *proof, const struct vmibus_ram_range *piece, uint64_t address) {
    struct memctx *memctx = proof->memctx;
    int r;

    if (continues_last(memctx, piece, address)) {
        memctx->ranges[memctx->n_ranges - 1].len += piece->len;
        return 0;
    }
    r = reserve_range(proof);
    if (r)
        return r;
    memctx->ranges[memctx->n_ranges] = *piece;
    memctx->addresses[memctx->n_ranges++] = address;
    return 0;
}

/* Guest RAM is readable plain memory, and what the process itself may not write is read-only. */
static bool mapping_may_be_ram(const struct maps_entry *entry) {
    return entry && entry->readable && !entry->special;
}

static int resolve_in_mapping(struct proof *proof, const struct vmibus_layout_range *range,
                              uint64_t done, uint64_t *taken) {
    uint64_t address = range->location + done;
    const struct maps_entry *entry = maps_find(&proof->maps, address);
    struct vmibus_ram_range piece = {.gpa = range->gpa + done, .len = range->len - done};
    int r;

    if (!mapping_may_be_ram(entry))
        return refuse_unproven(proof, range->gpa + done);
    if (piece.len > entry->end - address)
        piece.len = entry->end - address;
    r = find_object(proof, entry, &piece.object);
    if (r)
        return r;
    /* Of private memory without a file the offset is the address here, and is made relative once all are known. */
    piece.offset = address;
    if (entry->inode != 0 &&
        __builtin_add_overflow(entry->offset, address - entry->start, &piece.offset))
        return refuse_unproven(proof, range->gpa + done);
    piece.flags = range->flags & VMIBUS_RANGE_READ_ONLY;
    if (!entry->writable)
        piece.flags = VMIBUS_RANGE_READ_ONLY;
    *taken = piece.len;
    return add_range(proof, &piece, address);
}

static int resolve_in_process(struct proof *proof) {
    for (size_t i = 0; i < proof->proposal->n_ranges; i++) {
        const struct vmibus_layout_range *range = &proof->proposal->ranges[i];
        uint64_t taken;

        for (uint64_t done = 0; done < range->len; done += taken) {
            int r = resolve_in_mapping(proof, range, done, &taken);

            if (r)
                return r;
        }
    }
    return 0;
}

static int resolve_given(struct proof *proof) {
    for (size_t i = 0; i < proof->proposal->n_ranges; i++) {
        const struct vmibus_layout_range *range = &proof->proposal->ranges[i];
        struct vmibus_ram_range piece = {
            .gpa = range->gpa,
            .len = range->len,
            .offset = range->location,
            .object = range->object,
            .flags = range->flags & VMIBUS_RANGE_READ_ONLY,
        };
        int r = add_range(proof, &piece, 0);

        if (r)
            return r;
    }
    return 0;
}

/* --- opening ----------------------------------------------------------------------------------- */

/*
 * Whether the sensor's own descriptor does for writing. What it shares with us, it can change meanwhile: an offset, which nobody
 * here uses, and O_APPEND, which would send a write to the file's end; a file that cannot grow refuses that one.
 */
static bool can_be_shared(int given) {
    int flags = fcntl(given, F_GETFL), seals = fcntl(given, F_GET_SEALS);

    return flags >= 0 && (flags & O_ACCMODE) == O_RDWR && seals >= 0 && seals & F_SEAL_GROW;
}

/* A description of our own, where the file lets us; it may be another user's, and tightened since it was first proposed. */
static int open_object(int given) {
    int fd = ram_object_reopen(given, O_RDWR);

    if (fd != -EACCES && fd != -EPERM && fd != -EROFS)
        return fd;
    return can_be_shared(given) ? fd_dup(given) : ram_object_reopen(given, O_RDONLY);
}

static int open_given(struct proof *proof) {
    const struct layout_proposal *proposal = proof->proposal;

    for (size_t i = 0; i < proposal->n_fds; i++) {
        struct ram_object *object;
        struct stat st;
        int fd, r;

        r = add_object(proof, &object);
        if (r)
            return r;
        if (fstat(proposal->fds[i], &st) < 0)
            return refuse_errno(proof, -errno);
        if (!S_ISREG(st.st_mode)) /* opening anything else could have effects */
            return refuse(proof, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FDS, i);
        fd = open_object(proposal->fds[i]);
        if (fd < 0)
            return refuse_errno(proof, fd);
        r = ram_object_consume_fd(object, fd, NULL);
        if (r == -EMEDIUMTYPE)
            return refuse(proof, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_BAD_FDS, i);
        if (r < 0)
            return refuse_errno(proof, r);
    }
    return 0;
}

static int open_file(struct proof *proof, struct ram_object *object) {
    const struct opener *opener = proof->opener;
    const struct opener_process *process = &proof->proposal->process;
    int fd, r;

    fd = opener->open_file(opener, process, &object->file, O_RDWR);
    if (fd == -EACCES || fd == -EPERM || fd == -EROFS)
        fd = opener->open_file(opener, process, &object->file, O_RDONLY);
    if (fd == -EMEDIUMTYPE)
        return refuse_unproven(proof, 0);
    if (fd < 0)
        return refuse_errno(proof, fd);
    r = ram_object_consume_fd(object, fd, &object->file);
    if (r == -ESTALE || r == -EMEDIUMTYPE)
        return refuse_unproven(proof, 0);
    return r < 0 ? refuse_errno(proof, r) : 0;
}

/* A private mapping shows its file where it was not written to, so the file must be memory too. */
static int open_private_file(struct proof *proof, struct ram_object *object) {
    const struct opener *opener = proof->opener;
    int fd, r;

    fd = opener->open_file(opener, &proof->proposal->process, &object->file, O_RDONLY);
    if (fd == -EMEDIUMTYPE)
        return refuse_unproven(proof, 0);
    if (fd < 0)
        return refuse_errno(proof, fd);
    r = ram_object_consume_fd(object, fd, &object->file);
    object->is_file = false;
    object->sealed = false; /* what the process sees is another memory */
    if (r == -ESTALE || r == -EMEDIUMTYPE)
        return refuse_unproven(proof, 0);
    return r < 0 ? refuse_errno(proof, r) : 0;
}

static bool is_anonymous(const struct ram_object *object) {
    return !object->is_file && object->file.inode == 0;
}

static int open_files(struct proof *proof) {
    struct memctx *memctx = proof->memctx;

    for (size_t i = 0; i < memctx->n_objects; i++) {
        struct ram_object *object = &memctx->objects[i];
        int r = 0;

        if (object->is_file)
            r = open_file(proof, object);
        else if (!is_anonymous(object))
            r = open_private_file(proof, object);
        if (r)
            return r;
        if (!object->is_file || object->huge || !object->writable)
            proof->needs_memory = true;
    }
    return 0;
}

/*
 * The address space is opened before its mappings are read: if the process executes another program in
 * between, the mappings are the new one's and the descriptor reaches a dead address space, never the
 * other way round.
 */
static int open_process(struct proof *proof) {
    const struct opener *opener = proof->opener;
    const struct opener_process *process = &proof->proposal->process;
    struct memctx *memctx = proof->memctx;
    _cleanup_fd_ int maps_fd = -1;
    int r;

    memctx->process_fd = opener->open_process(opener, process);
    if (memctx->process_fd < 0) {
        r = memctx->process_fd;
        memctx->process_fd = -1;
        return refuse_errno(proof, r);
    }
    memctx->memory_fd = opener->open_memory(opener, process);
    if (memctx->memory_fd < 0) {
        proof->memory_error = memctx->memory_fd;
        memctx->memory_fd = -1;
    }
    maps_fd = opener->open_maps(opener, process);
    if (maps_fd < 0)
        return refuse_errno(proof, maps_fd);
    r = maps_read(&proof->maps, maps_fd);
    if (r == -EBADMSG || r == -EFBIG)
        return refuse_unproven(proof, 0);
    return r < 0 ? refuse_errno(proof, r) : 0;
}

/* Private memory can be reached through the process only; read-only and huge files can be done without. */
static int settle_memory(struct proof *proof) {
    struct memctx *memctx = proof->memctx;

    if (!proof->needs_memory) {
        memctx->memory_fd = fd_close(memctx->memory_fd);
        return 0;
    }
    for (size_t i = 0; i < memctx->n_objects; i++) {
        int r;

        if (memctx->objects[i].is_file)
            continue;
        r = memctx->memory_fd < 0 ? proof->memory_error : private_open(memctx, proof->opener);
        return r < 0 ? refuse_errno(proof, r) : 0;
    }
    return 0;
}

/* --- what the ranges say about their objects --------------------------------------------------- */

static void settle_private_offsets(struct memctx *memctx) {
    for (size_t i = 0; i < memctx->n_ranges; i++) {
        struct ram_object *object = &memctx->objects[memctx->ranges[i].object];

        if (is_anonymous(object) && (object->base == 0 || memctx->ranges[i].offset < object->base))
            object->base = memctx->ranges[i].offset;
    }
    for (size_t i = 0; i < memctx->n_ranges; i++)
        memctx->ranges[i].offset -= memctx->objects[memctx->ranges[i].object].base; /* 0 of files */
}

static int settle_process_ranges(struct memctx *memctx) {
    if (memctx->pagemap_fd < 0)
        return 0;
    memctx->process_ranges = reallocarray(NULL, memctx->n_ranges, sizeof(*memctx->ranges));
    if (!memctx->process_ranges)
        return -ENOMEM;
    for (size_t i = 0; i < memctx->n_ranges; i++) {
        memctx->process_ranges[i] = memctx->ranges[i];
        if (!memctx->objects[memctx->ranges[i].object].is_file)
            memctx->process_ranges[i].offset = memctx->addresses[i];
    }
    return 0;
}

static int check_sizes(struct proof *proof) {
    struct memctx *memctx = proof->memctx;
    struct stat st;

    for (size_t i = 0; i < memctx->n_ranges; i++) {
        const struct vmibus_ram_range *range = &memctx->ranges[i];
        struct ram_object *object = &memctx->objects[range->object];
        uint64_t end;

        if (!object->is_file)
            continue;
        if (__builtin_add_overflow(range->offset, range->len, &end))
            return refuse_unproven(proof, range->gpa);
        if (fstat(object->fd, &st) < 0)
            return refuse_errno(proof, -errno);
        if (st.st_size < 0 || end > (uint64_t)st.st_size)
            return refuse_unproven(proof, range->gpa);
        if (end > object->extent)
            object->extent = end;
    }
    return 0;
}

/* --- aliases ----------------------------------------------------------------------------------- */

static int compare_in_object(const void *a, const void *b) {
    const struct vmibus_ram_range *const *left = a, *const *right = b;

    if ((*left)->object != (*right)->object)
        return (*left)->object < (*right)->object ? -1 : 1;
    if ((*left)->offset != (*right)->offset)
        return (*left)->offset < (*right)->offset ? -1 : 1;
    return (*left)->gpa < (*right)->gpa ? -1 : 1;
}

static bool overlaps(const struct vmibus_ram_range *before, const struct vmibus_ram_range *after) {
    return before && before->object == after->object &&
           before->offset + before->len > after->offset;
}

/* Of two that overlap the higher in the guest is the alias, so what is unmarked is disjoint. */
static void mark_aliases(struct vmibus_ram_range **sorted, size_t n) {
    struct vmibus_ram_range *kept = NULL;

    for (size_t i = 0; i < n; i++) {
        struct vmibus_ram_range *range = sorted[i];

        if (!overlaps(kept, range)) {
            kept = range;
        } else if (range->gpa < kept->gpa) {
            kept->flags |= VMIBUS_RANGE_ALIAS;
            kept = range;
        } else {
            range->flags |= VMIBUS_RANGE_ALIAS;
        }
    }
}

static int settle_aliases(struct memctx *memctx) {
    struct vmibus_ram_range **sorted = calloc(memctx->n_ranges, sizeof(*sorted));

    if (!sorted)
        return -ENOMEM;
    for (size_t i = 0; i < memctx->n_ranges; i++)
        sorted[i] = &memctx->ranges[i];
    qsort(sorted, memctx->n_ranges, sizeof(*sorted), compare_in_object);
    mark_aliases(sorted, memctx->n_ranges);
    free(sorted);
    for (size_t i = 0; i < memctx->n_ranges; i++)
        if (!(memctx->ranges[i].flags & VMIBUS_RANGE_ALIAS))
            memctx->ram_size += memctx->ranges[i].len;
    return 0;
}

/* --- what can be done with it ------------------------------------------------------------------ */

static bool is_written_through_file(const struct ram_object *object) {
    return object->is_file && object->writable && !object->huge;
}

/* Whether there is a way to write all that is not read-only to the guest. */
static bool can_be_written(const struct memctx *memctx) {
    if (memctx->memory_fd >= 0)
        return true;
    for (size_t i = 0; i < memctx->n_ranges; i++)
        if (!(memctx->ranges[i].flags & VMIBUS_RANGE_READ_ONLY) &&
            !is_written_through_file(&memctx->objects[memctx->ranges[i].object]))
            return false;
    return true;
}

static int settle_access(struct proof *proof) {
    struct memctx *memctx = proof->memctx;
    bool handed = memctx->n_objects <= MEMCTX_OBJECTS_GIVEN, sealed = true;
    uint16_t reason;
    int r;

    for (size_t i = 0; i < memctx->n_objects; i++) {
        struct ram_object *object = &memctx->objects[i];

        sealed = sealed && object->is_file && object->sealed;
        if (!object->is_file) {
            handed = false;
            continue;
        }
        r = handout_tighten(proof->opener, object->fd, proof->proposal->process.pid != 0);
        if (r == 0)
            r = handout_refusal_to_foreign(object->fd, &reason);
        if (r)
            return refuse_errno(proof, r);
        handed = handed && reason == VMIBUS_REASON_NONE;
        ram_object_map(object);
    }
    memctx->access = (uint8_t)((handed ? VMIBUS_ACCESS_FD : VMIBUS_ACCESS_MEDIATED) |
                               (can_be_written(memctx) ? VMIBUS_ACCESS_WRITE : 0) |
                               (sealed ? VMIBUS_ACCESS_SEALED : 0));
    return 0;
}

static int charge_descriptors(struct proof *proof) {
    struct memctx *memctx = proof->memctx;
    struct account *account = proof->proposal->account;
    uint64_t n = (memctx->process_fd >= 0) + (uint64_t)(memctx->memory_fd >= 0) +
                 (uint64_t)(memctx->pagemap_fd >= 0) + (uint64_t)(memctx->maps_fd >= 0) + (uint64_t)(memctx->zeros_fd >= 0);
    int r;

    for (size_t i = 0; i < memctx->n_objects; i++)
        n += memctx->objects[i].fd >= 0;
    r = charge_take(&memctx->descriptors, account, RESOURCE_FDS, n);
    if (r)
        return refusal_of_charge(proof->ack, r, account, RESOURCE_FDS);
    memctx->account = account_ref(account);
    return 0;
}

/* --- all of it --------------------------------------------------------------------------------- */

static int locate(struct proof *proof) {
    int r;

    if (!proof->proposal->process.pid) {
        r = open_given(proof);
        return r ? r : resolve_given(proof);
    }
    r = open_process(proof);
    if (!r)
        r = resolve_in_process(proof);
    if (!r)
        r = open_files(proof);
    return r ? r : settle_memory(proof);
}

/* Room was made for the most objects there can be; a context lives long and has few. */
static void keep_what_is_used(struct memctx *memctx) {
    struct ram_object *objects = reallocarray(memctx->objects, memctx->n_objects, sizeof(*objects));

    if (objects)
        memctx->objects = objects;
}

static int prove(struct proof *proof) {
    struct memctx *memctx = proof->memctx;
    int r;

    memctx->process = proof->proposal->process;
    memctx->own_process = memctx->process.pid == (uint32_t)getpid();
    memctx->objects = calloc(MEMCTX_OBJECTS_MAX, sizeof(*memctx->objects));
    if (!memctx->objects)
        return -ENOMEM;
    r = locate(proof);
    if (!r)
        r = charge_descriptors(proof);
    if (r)
        return r;
    settle_private_offsets(memctx);
    r = check_sizes(proof);
    if (!r)
        r = settle_aliases(memctx);
    if (!r)
        r = settle_access(proof);
    if (!r)
        r = settle_process_ranges(memctx);
    if (!r)
        keep_what_is_used(memctx);
    return r;
}

int layout_prove(struct memctx **memctxp, const struct opener *opener,
                 const struct layout_proposal *proposal, struct vmibus_ack *ack) {
    struct proof proof = {.opener = opener, .proposal = proposal, .ack = ack};
    int r;

    r = check_shape(&proof);
    if (r)
        return r;
    r = memctx_new(&proof.memctx);
    if (r)
        return r;
    r = prove(&proof);
    maps_deinit(&proof.maps);
    if (r) {
        memctx_unref(proof.memctx);
        return r;
    }
    *memctxp = proof.memctx;
    return 0;
}
