/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/opener_scene.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

#define WAIT_MS 20000

static const char *build_directory(void) {
    return getenv("top_builddir") ? getenv("top_builddir") : ".";
}

/* --- the directory ----------------------------------------------------------------------------- */

void scene_copy_target(const struct scene *scene, const char *name, uid_t uid, mode_t mode) {
    char from[256], to[256];
    int in, out;
    struct stat st;

    snprintf(from, sizeof(from), "%s/tests/daemon/opener_target", build_directory());
    snprintf(to, sizeof(to), "%s/%s", scene->directory, name);
    in = open(from, O_RDONLY | O_CLOEXEC);
    ck_assert_msg(in >= 0, "%s is not there", from);
    out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    ck_assert_int_ge(out, 0);
    ck_assert_int_eq(fstat(in, &st), 0);
    for (off_t left = st.st_size; left > 0;) {
        /* Not copy_file_range(): the folder may be of another file system than the build. */
        ssize_t n = sendfile(out, in, NULL, (size_t)left);

        ck_assert_int_gt(n, 0);
        left -= n;
    }
    ck_assert_int_eq(fchown(out, uid, uid), 0);
    ck_assert_int_eq(fchmod(out, mode), 0);
    close(in);
    close(out);
}

static void touch(const char *path, uid_t uid) {
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, 65536), 0);
    ck_assert_int_eq(fchown(fd, uid, uid), 0);
    close(fd);
}

static void shm_path(const struct scene *scene, char path[static 128]) {
    snprintf(path, 128, "/dev/shm/%s", strrchr(scene->directory, '/') + 1);
}

void scene_init(struct scene *scene) {
    char path[128];

    *scene = (struct scene){.directory = "/tmp/vmibus-opener-XXXXXX", .log_fd = -1};
    if (geteuid() != 0)
        test_skip("it takes root to have processes of several users");
    ck_assert_ptr_nonnull(mkdtemp(scene->directory));
    ck_assert_int_eq(chmod(scene->directory, 0755), 0);
    snprintf(scene->socket, sizeof(scene->socket), "%s/opener.sock", scene->directory);
    snprintf(scene->config, sizeof(scene->config), "%s/vmibusd.conf", scene->directory);
    scene_copy_target(scene, "qemu-system-test", 0, 0755);
    snprintf(path, sizeof(path), "%s/disk", scene->directory);
    touch(path, TARGET_UID);
    shm_path(scene, path);
    touch(path, TARGET_UID);
    scene_configure(scene, "");
}

void scene_configure(const struct scene *scene, const char *more) {
    FILE *file = fopen(scene->config, "we");

    ck_assert_ptr_nonnull(file);
    fprintf(file, "[daemon]\nqueue-depth = 64\n\n[opener]\nsocket = %s\nusers = %d\nexecutables = %s/qemu-system-*\n%s", scene->socket,
            TARGET_UID, scene->directory, more);
    ck_assert_int_eq(fclose(file), 0);
    ck_assert_int_eq(chmod(scene->config, 0644), 0);
}

static void remove_all(const struct scene *scene) {
    DIR *list = opendir(scene->directory);
    struct dirent *entry;
    char path[128];

    shm_path(scene, path);
    unlink(path);
    ck_assert_ptr_nonnull(list);
    while ((entry = readdir(list)))
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(list), entry->d_name, 0);
    closedir(list);
    rmdir(scene->directory);
}

/* --- the program ------------------------------------------------------------------------------- */

void scene_spawn(struct scene *scene) {
    char program[256];
    int pair[2];

    snprintf(program, sizeof(program), "%s/vmibus-opend", build_directory());
    ck_assert_int_eq(pipe2(pair, O_CLOEXEC), 0);
    if (scene->log_fd >= 0)
        close(scene->log_fd);
    scene->log_fd = pair[0];
    scene->n_log = 0;
    scene->log[0] = '\0';
    scene->pid = fork();
    ck_assert_int_ge(scene->pid, 0);
    if (scene->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        unsetenv("JOURNAL_STREAM");
        dup2(pair[1], STDERR_FILENO);
        execl(program, program, "--config", scene->config, NULL);
        _exit(127);
    }
    close(pair[1]);
}

static bool read_log(struct scene *scene) {
    struct pollfd ready = {.fd = scene->log_fd, .events = POLLIN};
    ssize_t n;

    ck_assert_int_eq(poll(&ready, 1, (int)harness_scale(WAIT_MS)), 1);
    if (scene->n_log > sizeof(scene->log) / 2) {
        memmove(scene->log, scene->log + sizeof(scene->log) / 4, scene->n_log - sizeof(scene->log) / 4);
        scene->n_log -= sizeof(scene->log) / 4;
    }
    n = read(scene->log_fd, scene->log + scene->n_log, sizeof(scene->log) - 1 - scene->n_log);
    if (n > 0)
        scene->n_log += (size_t)n;
    scene->log[scene->n_log] = '\0';
    return n > 0;
}

void scene_await_log(struct scene *scene, const char *text) {
    while (!strstr(scene->log, text))
        ck_assert_msg(read_log(scene), "it ended before it said '%s', but: %s", text, scene->log);
}

void scene_start(struct scene *scene) {
    scene_spawn(scene);
    scene_await_log(scene, "serving at");
}

int scene_await_end(struct scene *scene) {
    int status;

    while (read_log(scene))
        ;
    ck_assert_int_eq(waitpid(scene->pid, &status, 0), scene->pid);
    scene->pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int scene_end(struct scene *scene, int signal) {
    ck_assert_int_eq(kill(scene->pid, signal), 0);
    return scene_await_end(scene);
}

size_t scene_count_fds(const struct scene *scene) {
    char path[64];
    size_t n = 0;
    DIR *list;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)scene->pid);
    list = opendir(path);
    ck_assert_ptr_nonnull(list);
    while (readdir(list))
        n++;
    closedir(list);
    return n;
}

void scene_deinit(struct scene *scene) {
    if (scene->pid) {
        ck_assert_int_eq(scene_end(scene, SIGTERM), 0);
        ck_assert_int_eq(access(scene->socket, F_OK), -1);
    }
    if (scene->log_fd >= 0)
        close(scene->log_fd);
    remove_all(scene);
}

/* --- targets ----------------------------------------------------------------------------------- */

struct opener_process process_of(pid_t pid) {
    struct opener_process process = {.pid = (uint32_t)pid};
    char path[64], text[1024], *at;
    FILE *file;
    size_t n;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    n = fread(text, 1, sizeof(text) - 1, file);
    text[n] = '\0';
    fclose(file);
    at = strrchr(text, ')');
    for (int field = 2; field < 22; field++)
        at = strchr(at, ' ') + 1;
    process.start_time = strtoull(at, NULL, 10);
    return process;
}

static void __attribute__((noreturn)) become(const struct scene *scene, const char *executable, uid_t uid, int input, int output,
                                             int foreign) {
    char disk[128], shm[128];

    snprintf(disk, sizeof(disk), "%s/disk", scene->directory);
    shm_path(scene, shm);
    dup2(input, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    if (foreign != 3)
        dup2(foreign, 3);
    if (uid != TARGET_UID) {
        /* It need not be able to have them; that it is asked for matters. */
        chmod(disk, 0666);
        chmod(shm, 0666);
    }
    if (setgroups(0, NULL) < 0 || setgid(uid) < 0 || setuid(uid) < 0)
        _exit(126);
    execl(executable, executable, disk, shm, NULL);
    _exit(127);
}

static void take_line(struct target *target, const char *line) {
    const struct {
        const char *name;
        struct opener_file *file;
    } files[] = {{"ram", &target->ram},   {"private", &target->private}, {"unmapped", &target->unmapped}, {"disk", &target->disk},
                 {"shm", &target->shm}, {"zero", &target->zero},       {"foreign", &target->foreign}};
    struct opener_file file;
    char name[16];

    if (sscanf(line, "%15s %u %u %" SCNu64, name, &file.device_major, &file.device_minor, &file.inode) != 4)
        return;
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
        if (strcmp(name, files[i].name) == 0)
            *files[i].file = file;
}

void target_start(struct target *target, const struct scene *scene, const char *executable, uid_t uid) {
    char path[256], line[256];
    bool ready = false;
    int input[2], output[2], foreign;
    FILE *told;

    snprintf(path, sizeof(path), "%s/%s", scene->directory, executable);
    foreign = memfd_create("foreign", 0);
    ck_assert_int_ge(foreign, 0);
    ck_assert_int_eq(ftruncate(foreign, 65536), 0);
    ck_assert_int_eq(pipe2(input, O_CLOEXEC), 0);
    ck_assert_int_eq(pipe2(output, O_CLOEXEC), 0);
    *target = (struct target){.input_fd = input[1]};
    target->pid = fork();
    ck_assert_int_ge(target->pid, 0);
    if (target->pid == 0)
        become(scene, path, uid, input[0], output[1], foreign);
    close(input[0]);
    close(output[1]);
    close(foreign);
    told = fdopen(output[0], "r");
    ck_assert_ptr_nonnull(told);
    while (!ready && fgets(line, sizeof(line), told)) {
        take_line(target, line);
        ready = strcmp(line, "ready\n") == 0;
    }
    fclose(told);
    ck_assert_msg(ready, "%s did not get ready", path);
    target->process = process_of(target->pid);
}

void target_stop(struct target *target) {
    close(target->input_fd);
    kill(target->pid, SIGKILL);
    waitpid(target->pid, NULL, 0);
}
