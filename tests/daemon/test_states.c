/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whole daemons' states that versions have written, tests/fixtures/handover/DAEMON-N: each is taken completely, for ever, and
 * the newest is what this version writes.  Beside each file, DAEMON-N.fds tells what its descriptors were, a line for each in
 * their order, for which stand-ins are made:
 *
 *      listener            a socket that listens
 *      socket WHO          a stream whose other end is somebody's of states.h
 *      memory SIZE SEALS   a memory file
 *
 * What is the machine's in a file is put right before it is taken: who the peers are by the kernel's word, the memory file that
 * a context refers to, and times that have passed since.
 *
 * VMIBUS_WRITE_STATES=DIRECTORY writes both daemons' as this version would, under the next free number.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "daemon/states.h"
#include "fuzz/world.h"
#include "harness.h"
#include "util/clock.h"
#include "util/lies.h"

#define PATH 64
#define ENTRIES 4096
#define UNKNOWN_TAG 60000u
#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) /* that every kernel has */

/* Whose the peers in the files are: nobody's, as whom a test goes on if it may. */
#define NOBODY_UID 2125290238u
#define NOBODY_GID 2125290239u

static const char *const daemons[] = {[STATE_OF_BUS] = "vmibusd", [STATE_OF_MEMORY] = "vmibus-memd"};
static const char *const people[] = {"bus", "control", "sensor", "newcomer", "waiter"};

static bool was_root;

static void become_nobody(void) {
    was_root = geteuid() == 0;
    if (!was_root)
        return;
    ck_assert_int_eq(setgroups(0, NULL), 0);
    ck_assert_int_eq(setegid(NOBODY_GID), 0);
    ck_assert_int_eq(seteuid(NOBODY_UID), 0);
    (void)prctl(PR_SET_DUMPABLE, 1); /* or its own /proc is not its own any more */
}

static void become_root(void) {
    if (!was_root)
        return;
    ck_assert_int_eq(seteuid(0), 0);
    ck_assert_int_eq(setegid(0), 0);
    (void)prctl(PR_SET_DUMPABLE, 1);
}

#define AS_NOBODY .setup = become_nobody, .teardown = become_root

/* --- records ------------------------------------------------------------------------------------- */

struct head {
    uint16_t tag, reserved;
    uint32_t length;
};

/* A record: where it stands by the tags that lead to it, and its octets, which are records again if it is a container. */
struct entry {
    char path[PATH];
    uint8_t *octets;
    size_t length;
    bool is_container;
};

struct entries {
    struct entry all[ENTRIES];
    size_t n;
};

/* Nothing tells values from records: those that are records from end to end, of which one has octets, are taken for records. */
static bool is_container(const uint8_t *octets, size_t length) {
    bool has_octets = false;
    struct head head;

    while (length >= sizeof(head)) {
        memcpy(&head, octets, sizeof(head));
        if (head.reserved || head.length > length - sizeof(head))
            return false;
        has_octets = has_octets || head.length;
        octets += sizeof(head) + head.length;
        length -= sizeof(head) + head.length;
    }
    return length == 0 && has_octets;
}

static void list_records(struct entries *entries, const char *path, uint8_t *octets, size_t length) {
    struct head head;

    for (size_t at = 0; at < length; at += sizeof(head) + head.length) {
        struct entry *entry = &entries->all[entries->n++];

        ck_assert_uint_lt(entries->n, ENTRIES);
        memcpy(&head, octets + at, sizeof(head));
        snprintf(entry->path, sizeof(entry->path), "%s/%u", path, head.tag);
        entry->octets = octets + at + sizeof(head);
        entry->length = head.length;
        entry->is_container = is_container(entry->octets, entry->length);
        if (entry->is_container)
            list_records(entries, entry->path, entry->octets, entry->length);
    }
}

static void list_all(struct entries *entries, uint8_t *octets, size_t size) {
    entries->n = 0;
    list_records(entries, "", octets + sizeof(struct handover_header), size - sizeof(struct handover_header));
}

static bool is_among(const char *path, const char *const *paths) {
    for (; *paths; paths++)
        if (strcmp(path, *paths) == 0)
            return true;
    return false;
}

/* --- files --------------------------------------------------------------------------------------- */

static const char *path_of(enum state_of of, unsigned number, const char *ending) {
    static char path[4096];
    const char *top = getenv("top_srcdir");

    snprintf(path, sizeof(path), "%s/tests/fixtures/handover/%s-%u%s", top ? top : ".", daemons[of], number, ending);
    return path;
}

static unsigned newest(enum state_of of) {
    unsigned number = 0;

    while (access(path_of(of, number + 1, ""), R_OK) == 0)
        number++;
    if (number == 0)
        test_skip("%s is not there: set top_srcdir", path_of(of, 1, ""));
    return number;
}

static int stand_in_for_memory(size_t size, unsigned seals) {
    int fd = memfd_create("stand-in", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static int stand_in_for_socket(const char *name) {
    int sockets[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets), 0);
    for (unsigned i = 0; i < N_WHO; i++)
        if (strcmp(name, people[i]) == 0) {
            stream_open_consume_fd(&states_streams[i], sockets[1]);
            return sockets[0];
        }
    ck_abort_msg("nobody is called %s", name);
}

static int stand_in(const char *line) {
    unsigned seals;
    char name[32];
    size_t size;

    if (sscanf(line, "memory %zu %u", &size, &seals) == 2)
        return stand_in_for_memory(size, seals);
    if (sscanf(line, "socket %31s", name) == 1)
        return stand_in_for_socket(name);
    ck_assert_str_eq(line, "listener\n");
    return fuzz_listen_nowhere();
}

static void read_descriptors(struct state *state, const char *path) {
    FILE *file = fopen(path, "re");
    char line[128];

    ck_assert_ptr_nonnull(file);
    state->fds = calloc(64, sizeof(int));
    while (fgets(line, sizeof(line), file))
        state->fds[state->n_fds++] = stand_in(line);
    fclose(file);
}

/* --- what is the machine's ----------------------------------------------------------------------- */

static const char *const deadlines[] = {"/3/2/6", "/18/2/6", NULL};
static const char *const objects[] = {"/2/3/21/38", "/17/3/21/38", NULL};

static void replace_number(struct state *state, uint32_t old, uint32_t number) {
    for (size_t i = sizeof(struct handover_header); i + sizeof(old) <= state->n_octets; i++)
        if (memcmp(state->octets + i, &old, sizeof(old)) == 0)
            memcpy(state->octets + i, &number, sizeof(number));
}

/* The file that an object of a context is, by the descriptor that the same record names. */
static void put_object_right(const struct state *state, const struct entry *object) {
    struct entries members = {};
    uint32_t place = UINT32_MAX, minor_number;
    uint64_t inode;
    struct stat st;

    list_records(&members, "", object->octets, object->length);
    for (size_t i = 0; i < members.n; i++)
        if (strcmp(members.all[i].path, "/20") == 0)
            memcpy(&place, members.all[i].octets, sizeof(place));
    ck_assert_uint_lt(place, state->n_fds);
    ck_assert_int_eq(fstat(state->fds[place], &st), 0);
    inode = st.st_ino;
    minor_number = minor(st.st_dev);
    for (size_t i = 0; i < members.n; i++)
        if (strcmp(members.all[i].path, "/3") == 0)
            memcpy(members.all[i].octets, &minor_number, sizeof(minor_number));
        else if (strcmp(members.all[i].path, "/4") == 0)
            memcpy(members.all[i].octets, &inode, sizeof(inode));
}

static void put_right(struct state *state) {
    const uint64_t later = clock_now() + UINT64_C(3600) * NS_PER_S;
    static struct entries entries;

    if (geteuid() != NOBODY_UID) {
        replace_number(state, NOBODY_UID, geteuid());
        replace_number(state, NOBODY_GID, getegid());
    }
    list_all(&entries, state->octets, state->n_octets);
    for (size_t i = 0; i < entries.n; i++) {
        const struct entry *entry = &entries.all[i];

        if (is_among(entry->path, deadlines))
            memcpy(entry->octets, &later, sizeof(later));
        else if (is_among(entry->path, objects))
            put_object_right(state, entry);
    }
    lies_agree(state->octets, state->n_octets);
}

static void read_state(enum state_of of, unsigned number, struct state *state) {
    int fd = open(path_of(of, number, ""), O_RDONLY | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    *state = (struct state){};
    state->octets = lies_read_consume_fd(fd, &state->n_octets);
    read_descriptors(state, path_of(of, number, ".fds"));
    put_right(state);
}

/* --- the same records ---------------------------------------------------------------------------- */

/* What the kernel, the clock and chance say: processes, times (of frames too), the names of sessions, files. */
static const char *const varying[] = {
    "/1/2/10/7", "/1/2/11/2", "/1/2/13/2", "/1/2/16", "/2/3/11", "/2/3/21/38/3", "/2/3/21/38/4", "/3/2/2/3", "/3/2/3/1",
    "/3/2/3/2/4/2", "/3/2/3/2/8/20/1/2", "/3/2/6", "/17/3/21/38/3", "/17/3/21/38/4", "/18/2/2/3", "/18/2/6", NULL,
};

static const char *const nothing[] = {NULL};

/* vmibus-memd's link, which is written by who goes on with it. */
static const char *const links[] = {"/19", NULL};

/* What a peer could become, and its groups: another's where a test cannot be nobody. */
static const char *const principals[] = {"/3/2/2/4", "/3/2/2/5", "/3/2/2/6", "/3/2/2/7", "/3/2/2/8", "/18/2/2/4", "/18/2/2/5",
                                         "/18/2/2/6", "/18/2/2/7", "/18/2/2/8", NULL};

static bool is_below(const char *path, const char *const *paths) {
    for (; *paths; paths++) {
        size_t length = strlen(*paths);

        if (strncmp(path, *paths, length) == 0 && (path[length] == '/' || path[length] == '\0'))
            return true;
    }
    return false;
}

static void forget(struct entries *entries, const char *const *paths) {
    size_t n = 0;

    for (size_t i = 0; i < entries->n; i++)
        if (!is_below(entries->all[i].path, paths))
            entries->all[n++] = entries->all[i];
    entries->n = n;
}

/* The same records, of the same values but where they vary; @a without: those that need not be there. */
static void assert_same(const struct state *one, const struct state *other, const char *const *except,
                        const char *const *without) {
    static struct entries ones, others;
    char differ[2048] = "";

    list_all(&ones, one->octets, one->n_octets);
    list_all(&others, other->octets, other->n_octets);
    forget(&ones, without);
    forget(&others, without);
    for (size_t i = 0; i < ones.n && i < others.n; i++) {
        const struct entry *a = &ones.all[i], *b = &others.all[i];

        ck_assert_msg(strcmp(a->path, b->path) == 0, "record %zu is %s, was %s", i, b->path, a->path);
        ck_assert_msg(a->is_container == b->is_container || is_among(a->path, except), "%s is a value, or records", a->path);
        if (a->is_container)
            continue;
        ck_assert_msg(a->length == b->length, "%s has %zu octets, had %zu", a->path, b->length, a->length);
        if (memcmp(a->octets, b->octets, a->length) != 0 && !is_among(a->path, except) && strlen(differ) + PATH < sizeof(differ))
            snprintf(differ + strlen(differ), PATH, " %s", a->path);
    }
    ck_assert_msg(!*differ, "other values are in%s", differ);
    ck_assert_uint_eq(ones.n, others.n);
}

/* --- files that were written --------------------------------------------------------------------- */

static void each_is_taken_whole(enum state_of of) {
    for (unsigned number = newest(of); number > 0; number--) {
        struct state state, again;

        read_state(of, number, &state);
        ck_assert_int_eq(states_open(of, &state, state.octets, state.n_octets), 0);
        states_save(&again);
        states_close();
        assert_same(&state, &again, nothing, links);
        state_deinit(&again);
        state_deinit(&state);
    }
}

/* Nothing of it is lost: what is written again at once is the same. */
TEST(test_p12_state_of_each_version_of_vmibusd_is_taken_whole, AS_NOBODY) {
    each_is_taken_whole(STATE_OF_BUS);
}

TEST(test_p12_state_of_each_version_of_memd_is_taken_whole, AS_NOBODY) {
    each_is_taken_whole(STATE_OF_MEMORY);
}

/* The answer to what was said half by the process before. */
static struct vmibus_ack answer_to_the_half(void) {
    struct vmibus_frame frame;
    const uint8_t *tail;

    states_dispatch();
    stream_receive(&states_streams[CONTROL]);
    while (stream_next(&states_streams[CONTROL], &frame, &tail))
        if (frame.header.kind == VMIBUS_KIND_ACK && frame.header.correlation == STATES_CORRELATION)
            return frame.ack;
    ck_abort_msg("there is no answer");
}

TEST(test_p07_half_a_frame_to_an_earlier_vmibusd_is_finished, AS_NOBODY) {
    for (unsigned number = newest(STATE_OF_BUS); number > 0; number--) {
        struct state state;

        read_state(STATE_OF_BUS, number, &state);
        ck_assert_int_eq(states_open(STATE_OF_BUS, &state, state.octets, state.n_octets), 0);
        states_go_on();
        stream_put(&states_streams[CONTROL], "-site", 5, NULL, 0);
        ck_assert_uint_eq(answer_to_the_half().command, VMIBUS_KIND_SUBSCRIBE);
        for (unsigned i = CONTROL; i < N_WHO; i++) {
            stream_receive(&states_streams[i]);
            ck_assert_msg(!states_streams[i].ended, "%s is thrown out", people[i]);
        }
        states_close();
        state_deinit(&state);
    }
}

static uint64_t value_written(const struct state *state) {
    for (size_t i = 0; i < state->n_fds; i++) {
        uint64_t value;
        struct stat st;

        if (fstat(state->fds[i], &st) == 0 && S_ISREG(st.st_mode) && st.st_size == STATES_RAM &&
            pread(state->fds[i], &value, sizeof(value), STATES_WRITTEN_AT) == sizeof(value))
            return value;
    }
    ck_abort_msg("there is no RAM");
}

/* By a fence, in a context and by a session that another process was told of. */
TEST(test_p05_half_a_write_to_an_earlier_memd_is_finished, AS_NOBODY) {
    for (unsigned number = newest(STATE_OF_MEMORY); number > 0; number--) {
        const struct vmibus_frame frame = states_half_write();
        struct vmibus_ack ack;
        struct state state;

        read_state(STATE_OF_MEMORY, number, &state);
        ck_assert_int_eq(states_open(STATE_OF_MEMORY, &state, state.octets, state.n_octets), 0);
        states_go_on();
        stream_put(&states_streams[CONTROL], (const uint8_t *)&frame + STATES_HALF, sizeof(frame) - STATES_HALF, NULL, 0);
        stream_put(&states_streams[BUS], "-site", 5, NULL, 0);
        for (unsigned i = 0; i < 1000 && value_written(&state) == 0; i++) {
            states_dispatch();
            (void)usleep(10000);
        }
        ack = answer_to_the_half();
        ck_assert_msg(ack.error == VMIBUS_ERROR_OK, "error %u, reason %u", ack.error, ack.reason);
        ck_assert_uint_eq(value_written(&state), STATES_WRITTEN);
        for (unsigned i = BUS; i < WAITER; i++) {
            stream_receive(&states_streams[i]);
            ck_assert_msg(!states_streams[i].ended, "%s is thrown out", people[i]);
        }
        states_close();
        state_deinit(&state);
    }
}

/* --- what this version writes -------------------------------------------------------------------- */

static void drain(int fd) {
    char octets[4096];

    while (recv(fd, octets, sizeof(octets), MSG_DONTWAIT) > 0)
        ;
}

/* Whose other end a socket has: an octet tells. */
static const char *find_owner(int fd) {
    char octet = 0;

    ck_assert_int_eq(send(fd, &octet, 1, MSG_DONTWAIT | MSG_NOSIGNAL), 1);
    for (unsigned i = 0; i < N_WHO; i++)
        if (states_streams[i].fd >= 0 && recv(states_streams[i].fd, &octet, 1, MSG_DONTWAIT) == 1)
            return people[i];
    ck_abort_msg("a socket is nobody's");
}

static void describe(FILE *file, int fd) {
    socklen_t length = sizeof(int);
    int listens = 0;
    struct stat st;

    ck_assert_int_eq(fstat(fd, &st), 0);
    if (S_ISREG(st.st_mode))
        fprintf(file, "memory %jd %d\n", (intmax_t)st.st_size, fcntl(fd, F_GET_SEALS) & SEALS);
    else if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens)
        fputs("listener\n", file);
    else
        fprintf(file, "socket %s\n", find_owner(fd));
}

static FILE *create(const char *path) {
    FILE *file = fopen(path, "wxe");

    ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
    return file;
}

static void write_files(enum state_of of, unsigned number, const struct state *state, const char *directory) {
    char path[4096];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s-%u", directory, daemons[of], number);
    file = create(path);
    ck_assert_uint_eq(fwrite(state->octets, 1, state->n_octets, file), state->n_octets);
    fclose(file);
    strcat(path, ".fds");
    file = create(path);
    for (unsigned i = 0; i < N_WHO; i++)
        drain(states_streams[i].fd);
    for (size_t i = 0; i < state->n_fds; i++)
        describe(file, state->fds[i]);
    fclose(file);
}

static void write_if_wanted(enum state_of of) {
    const char *directory = getenv("VMIBUS_WRITE_STATES");
    struct state state;
    unsigned number = 1;

    if (!directory)
        return;
    while (access(path_of(of, number, ""), F_OK) == 0)
        number++;
    states_make(of, &state);
    become_root(); /* whose the directory is */
    write_files(of, number, &state, directory);
    become_nobody();
    state_deinit(&state);
}

static void newest_is_written(enum state_of of) {
    struct state state, made;

    write_if_wanted(of);
    read_state(of, newest(of), &state);
    for (unsigned i = 0; i < N_WHO; i++)
        stream_close(&states_streams[i]);
    states_make(of, &made);
    assert_same(&state, &made, varying, geteuid() == NOBODY_UID ? nothing : principals);
    state_deinit(&made);
    state_deinit(&state);
}

/* One that is red: HACKING.md, "Adding things". */
TEST(what_is_written_by_vmibusd_is_in_the_newest_file, AS_NOBODY) {
    newest_is_written(STATE_OF_BUS);
}

TEST(what_is_written_by_memd_is_in_the_newest_file, AS_NOBODY) {
    newest_is_written(STATE_OF_MEMORY);
}

/* --- other versions ------------------------------------------------------------------------------ */

struct text {
    uint8_t octets[1 << 16];
    size_t length;
};

static void append(struct text *text, const void *octets, size_t length) {
    ck_assert_uint_le(text->length + length, sizeof(text->octets));
    memcpy(text->octets + text->length, octets, length);
    text->length += length;
}

static void append_unknown(struct text *text) {
    const struct head head = {.tag = UNKNOWN_TAG, .length = 5};

    append(text, &head, sizeof(head));
    append(text, "later", 5);
}

/* What another version might have written in the place of a value. */
typedef void (*value_fn)(struct text *text, const uint8_t *octets, size_t length);

static void as_it_is(struct text *text, const uint8_t *octets, size_t length) {
    append(text, octets, length);
}

static bool is_small_number(const uint8_t *octets, size_t length) {
    uint64_t number = 0;

    if (length == sizeof(number))
        memcpy(&number, octets, length);
    return number && number <= UINT32_MAX; /* 0 is left out where it is a number */
}

static void as_shorter_number(struct text *text, const uint8_t *octets, size_t length) {
    append(text, octets, is_small_number(octets, length) ? 4 : length);
}

static void as_longer_number(struct text *text, const uint8_t *octets, size_t length) {
    append(text, octets, length);
    if (is_small_number(octets, length))
        append(text, "\0\0\0\0\0\0\0", 8);
}

/* Records anew, each value as another version has it, and if wanted with unknown records before and behind those of each. */
static void rewrite(struct text *text, const uint8_t *octets, size_t length, value_fn value, bool with_unknown) {
    struct head head;

    if (with_unknown)
        append_unknown(text);
    for (size_t at = 0; at < length; at += sizeof(head) + head.length) {
        const uint8_t *inner = octets + at + sizeof(head);
        struct head *written = (struct head *)(void *)(text->octets + text->length), again;
        size_t begun;

        memcpy(&head, octets + at, sizeof(head));
        again = head;
        append(text, &head, sizeof(head));
        begun = text->length;
        if (is_container(inner, head.length))
            rewrite(text, inner, head.length, value, with_unknown);
        else
            value(text, inner, head.length);
        again.length = (uint32_t)(text->length - begun);
        memcpy(written, &again, sizeof(again));
    }
    if (with_unknown)
        append_unknown(text);
}

/* As another version would have written it, it is taken, and nothing is lost. */
static void other_version_is_taken(enum state_of of, value_fn value, bool with_unknown) {
    const size_t begin = sizeof(struct handover_header);
    struct state state, again;
    static struct text text;

    read_state(of, newest(of), &state);
    text.length = 0;
    append(&text, state.octets, begin);
    rewrite(&text, state.octets + begin, state.n_octets - begin, value, with_unknown);
    ck_assert_uint_ne(text.length, state.n_octets);
    ((struct handover_header *)(void *)text.octets)->length = text.length - begin;
    lies_agree(text.octets, text.length);
    ck_assert_int_eq(states_open(of, &state, text.octets, text.length), 0);
    states_save(&again);
    states_close();
    assert_same(&state, &again, nothing, links);
    state_deinit(&again);
    state_deinit(&state);
}

TEST(unknown_records_of_a_later_version_are_skipped, .iterations = 2, AS_NOBODY) {
    other_version_is_taken((enum state_of)_i, as_it_is, true);
}

TEST(longer_numbers_of_a_later_version_are_taken, .iterations = 2, AS_NOBODY) {
    other_version_is_taken((enum state_of)_i, as_longer_number, false);
}

TEST(shorter_numbers_of_an_earlier_version_are_taken, .iterations = 2, AS_NOBODY) {
    other_version_is_taken((enum state_of)_i, as_shorter_number, false);
}

HARNESS_SUITE("states that versions have written", HARNESS_QUICK)
