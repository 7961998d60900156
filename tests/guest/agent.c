/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The agent: the one program that the test guest runs.
 *
 * It is PID 1 of a guest that a host-side test looks into and writes to from outside. It tells on
 * the serial port what is true inside, so that the test has something to compare with, and obeys
 * commands typed there. Linked statically, it needs only a kernel; busybox stands next to it for
 * the `exec` command.
 *
 * Every line is one fact: a word, then key=value fields. A value that may hold spaces is the last
 * field. Numbers are decimal, or hexadecimal with 0x; values of memory are 0x and sixteen digits.
 *
 *   KERNEL release=... la57=0|1 pti=0|1          what paging the kernel chose
 *   VMCOREINFO gpa=0x... len=...                 where the kernel keeps its note
 *   VAR pid= comm= gva= len=8 value= gpa=        a private variable, again at each change; the
 *                                                child has another value at the same gva
 *   BUF pid= gva= len= sum= gpa=                 a private buffer of 4 KiB pages, at each change
 *   HUGE pid= gva= len= value= gpa= thp=0|1      the same in a 2 MiB page (thp=0: there was none)
 *   ROVAR pid= gva= len=8 value= gpa=            a private page mapped read-only
 *   ABSENT pid= gva= len=                        mapped, but never touched: no page behind it
 *   SYSCTL kernel.panic=...                      the kernel variable panic_timeout, at each change
 *   INPUT dev=eventN name=...                    an input device, when it appears
 *   EVDEV dev=eventN type= code= value= usec=    an input event (all but the closing SYN_REPORT)
 *   READY uptime_ms=... pid=... child=...        everything above has been said once
 *
 * Commands, one per line; each answer ends with `OK command ...` or `ERR command reason`:
 *
 *   facts                 all the facts again
 *   ps                    PS pid= ppid= kthread=0|1 comm=   (one per process)
 *   tasks                 TASK pid= tgid= ppid= state= start= kthread=0|1 uid=R,E,S,F gid= nspid= comm=   (one per thread)
 *   fds PID               FD pid= fd= flags= pos= link=; LINK pid= name=exe|cwd link=
 *   hex FILE              HEX file= octets=                 (900 octets at most)
 *   crowd                 starts processes that have one of everything (processes.c); they say CROWD pid=
 *   kallsyms NAME...      KSYM addr=0x... type=T name=NAME  (every match)
 *   symbols               SYMBOLS count= sum= modules_count= modules_sum=   (all of /proc/kallsyms;
 *                         what is of no module nor of vmlinux, such as [bpf], is left out)
 *   pagemap PID GVA [N]   PAGE pid= gva= gpa=               (N pages; gpa=none when not present)
 *   maps PID, cat FILE    OUT line
 *   exec COMMAND          OUT line, of `busybox sh -c COMMAND`; OK exec status=N
 *   areas N               AREAS pid=   a process with N mappings, far apart, and one of each odd kind
 *   setvar VALUE          the agent itself changes its variable
 *   fill BYTE             the agent itself fills its buffer
 *   evdev on|off          whether EVDEV is printed (events are counted all the same)
 *   evcount               EVCOUNT dev=eventN count=N
 *   powerbutton off|ignore    what the ACPI button does (at first: off)
 *   kexec KERNEL INITRD   boots these files in place of itself, with the same command line
 *   poweroff, reboot, panic
 *
 * `vmibus.once` on the kernel command line makes the agent power off as soon as it is READY.
 *
 * The sum of the buffer is FNV-1a over its little-endian 64-bit words. That of symbols adds up FNV-1a
 * over the octets of `ADDRESS TYPE NAME`, or `ADDRESS TYPE NAME MODULE` where the type is made small.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

#define PAGE 4096UL
#define HUGE (2UL << 20)
#define BUF_LEN (128UL << 10)
#define POLL_MS 25
#define MAX_INPUTS 16
#define PF_KTHREAD 0x00200000UL

#define VAR_AGENT 0x7669627573a6e701ULL
#define VAR_CHILD 0x7669627573c41d02ULL
#define VAR_RO 0x766962757340ad03ULL
#define VAR_HUGE 0x766962757348e604ULL

/* One watched 64-bit variable and what was last told of it. */
struct var {
    volatile uint64_t *at;
    uint64_t told;
};

struct input {
    int fd;
    char dev[16];
    bool power;
    unsigned long count;
};

static int tty = STDOUT_FILENO;
static struct var var, rovar, huge;
static volatile uint64_t *buf;
static uint64_t buf_told;
static void *absent;
static pid_t child;
static int panic_fd = -1;
static char panic_told[32];
static struct input inputs[MAX_INPUTS];
static size_t n_inputs;
static bool evdev_printed = true;
static bool power_button_obeyed = true;

/* ---- saying things --------------------------------------------------------------------------- */

void say(const char *format, ...)
{
    char line[2048];
    va_list args;
    int len;

    va_start(args, format);
    len = vsnprintf(line, sizeof(line) - 1, format, args);
    va_end(args);
    if (len < 0)
        return;
    if ((size_t)len > sizeof(line) - 2)
        len = sizeof(line) - 2;
    line[len++] = '\n';
    for (int done = 0; done < len;) {
        ssize_t n = write(tty, line + done, len - done);

        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return;
        done += n > 0 ? n : 0;
    }
}

static long uptime_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool slurp(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t len = 0;
    ssize_t n;

    if (fd < 0)
        return false;
    while (len < size - 1 && (n = read(fd, text + len, size - 1 - len)) > 0)
        len += n;
    close(fd);
    if (len && text[len - 1] == '\n')
        len--;
    text[len] = 0;
    return true;
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    if (write(fd, text, strlen(text)) < 0)
        say("WARN write path=%s errno=%d", path, errno);
    close(fd);
}

/* ---- memory facts ---------------------------------------------------------------------------- */

/* The physical address behind an address of a process, as its page map tells; 0 when none. */
static uint64_t gpa_of(const char *pid, uint64_t gva)
{
    char path[64];
    uint64_t entry = 0;
    int fd;

    snprintf(path, sizeof(path), "/proc/%s/pagemap", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    if (pread(fd, &entry, sizeof(entry), gva / PAGE * sizeof(entry)) != sizeof(entry))
        entry = 0;
    close(fd);
    if (!(entry >> 63))
        return 0;
    return (entry & ((1ULL << 55) - 1)) * PAGE + gva % PAGE;
}

static uint64_t my_gpa(const volatile void *at)
{
    return gpa_of("self", (uintptr_t)at);
}

static uint64_t sum_of(const volatile uint64_t *words, size_t len)
{
    uint64_t sum = 0xcbf29ce484222325ULL;

    for (size_t i = 0; i < len / sizeof(*words); i++)
        sum = (sum ^ words[i]) * 0x100000001b3ULL;
    return sum;
}

static void tell_var(const char *comm)
{
    var.told = *var.at;
    say("VAR pid=%d comm=%s gva=0x%lx len=8 value=0x%016lx gpa=0x%lx", getpid(), comm,
        (unsigned long)var.at, var.told, my_gpa(var.at));
}

static void tell_rovar(void)
{
    rovar.told = *rovar.at;
    say("ROVAR pid=%d gva=0x%lx len=8 value=0x%016lx gpa=0x%lx", getpid(), (unsigned long)rovar.at,
        rovar.told, my_gpa(rovar.at));
}

/* Whether the kernel really gave a large page: the answer stands in smaps, as AnonHugePages. */
static bool is_thp(const volatile void *at)
{
    FILE *file = fopen("/proc/self/smaps", "re");
    char line[256];
    bool here = false, thp = false;
    unsigned long start, end, kib;

    if (!file)
        return false;
    while (fgets(line, sizeof(line), file)) {
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            here = (unsigned long)at >= start && (unsigned long)at < end;
        else if (here && sscanf(line, "AnonHugePages: %lu", &kib) == 1)
            thp = kib > 0;
    }
    fclose(file);
    return thp;
}

static void tell_huge(void)
{
    huge.told = *huge.at;
    say("HUGE pid=%d gva=0x%lx len=%lu value=0x%016lx gpa=0x%lx thp=%d", getpid(),
        (unsigned long)huge.at, HUGE, huge.told, my_gpa(huge.at), is_thp(huge.at));
}

static void tell_buf(void)
{
    buf_told = sum_of(buf, BUF_LEN);
    say("BUF pid=%d gva=0x%lx len=%lu sum=0x%016lx gpa=0x%lx", getpid(), (unsigned long)buf,
        BUF_LEN, buf_told, my_gpa(buf));
}

static bool read_panic(char *text, size_t size)
{
    ssize_t n = pread(panic_fd, text, size - 1, 0);

    if (n <= 0)
        return false;
    text[n] = 0;
    text[strcspn(text, "\n")] = 0;
    return true;
}

static void tell_panic(void)
{
    if (read_panic(panic_told, sizeof(panic_told)))
        say("SYSCTL kernel.panic=%s", panic_told);
}

/* What has changed since it was last told. */
static void watch_memory(void)
{
    char text[sizeof(panic_told)];

    if (*var.at != var.told)
        tell_var("vmibus-agent");
    if (*rovar.at != rovar.told)
        tell_rovar();
    if (*huge.at != huge.told)
        tell_huge();
    if (sum_of(buf, BUF_LEN) != buf_told)
        tell_buf();
    if (read_panic(text, sizeof(text)) && strcmp(text, panic_told) != 0)
        tell_panic();
}

static void *map_pages(size_t len)
{
    void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED) {
        say("WARN mmap errno=%d", errno);
        pause();
    }
    return at;
}

/* The child only watches its own copy of the variable. */
__attribute__((noreturn)) static void child_main(int told_fd)
{
    prctl(PR_SET_NAME, "vmibus-child");
    *var.at = VAR_CHILD;
    tell_var("vmibus-child");
    close(told_fd);
    for (;;) {
        poll(NULL, 0, POLL_MS);
        if (*var.at != var.told)
            tell_var("vmibus-child");
    }
}

/*
 * The variable is mapped before the fork and written by both after it: the same address, two pages,
 * both writable. Everything else is mapped after the fork: a page shared with a child would be
 * write-protected until the next copy-on-write. (For the same reason `exec` below never forks.)
 */
static void set_up_memory(void)
{
    int told[2];
    char *at;

    var.at = map_pages(PAGE);
    mlock((void *)var.at, PAGE);
    if (pipe2(told, O_CLOEXEC) < 0)
        say("WARN pipe errno=%d", errno);
    child = fork();
    if (child == 0) {
        close(told[0]);
        child_main(told[1]);
    }
    *var.at = VAR_AGENT;
    close(told[1]);
    if (read(told[0], &(char){0}, 1) < 0)
        say("WARN child errno=%d", errno);
    close(told[0]);

    buf = map_pages(BUF_LEN);
    madvise((void *)buf, BUF_LEN, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < BUF_LEN / sizeof(*buf); i++)
        buf[i] = 0xb0f0000000000000ULL + i;
    mlock((void *)buf, BUF_LEN);

    at = map_pages(2 * HUGE);
    huge.at = (void *)(((uintptr_t)at + HUGE - 1) & ~(HUGE - 1));
    madvise((void *)huge.at, HUGE, MADV_HUGEPAGE);
    *huge.at = VAR_HUGE;
    mlock((void *)huge.at, HUGE);

    rovar.at = map_pages(PAGE);
    *rovar.at = VAR_RO;
    mlock((void *)rovar.at, PAGE);
    mprotect((void *)rovar.at, PAGE, PROT_READ);

    absent = map_pages(PAGE);
    panic_fd = open("/proc/sys/kernel/panic", O_RDONLY | O_CLOEXEC);
}

static bool cpu_has(const char *flag)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[4096], *save, *word;
    bool found = false;

    if (!file)
        return false;
    while (!found && fgets(line, sizeof(line), file)) {
        if (strncmp(line, "flags", 5) != 0)
            continue;
        for (word = strtok_r(line, " \t\n", &save); word; word = strtok_r(NULL, " \t\n", &save))
            found |= strcmp(word, flag) == 0;
    }
    fclose(file);
    return found;
}

static void tell_kernel(void)
{
    struct utsname name;
    char text[64];
    unsigned long gpa, len;

    uname(&name);
    say("KERNEL release=%s la57=%d pti=%d", name.release, cpu_has("la57"), cpu_has("pti"));
    if (slurp("/sys/kernel/vmcoreinfo", text, sizeof(text)) &&
        sscanf(text, "%lx %lx", &gpa, &len) == 2)
        say("VMCOREINFO gpa=0x%lx len=%lu", gpa, len);
}

static void tell_memory(void)
{
    tell_var("vmibus-agent");
    tell_buf();
    tell_huge();
    tell_rovar();
    say("ABSENT pid=%d gva=0x%lx len=%lu", getpid(), (unsigned long)absent, PAGE);
    tell_panic();
}

/* ---- input devices --------------------------------------------------------------------------- */

static void tell_input(const struct input *input)
{
    char name[128] = "?";

    ioctl(input->fd, EVIOCGNAME(sizeof(name) - 1), name);
    say("INPUT dev=%s name=%s", input->dev, name);
}

/* Opens the devices that are not open yet. */
static void find_inputs(void)
{
    DIR *dir = opendir("/dev/input");
    struct dirent *entry;

    while (dir && (entry = readdir(dir)) && n_inputs < MAX_INPUTS) {
        struct input *input = &inputs[n_inputs];
        char name[128] = "";
        bool known = false;

        if (strncmp(entry->d_name, "event", 5) != 0 || strlen(entry->d_name) >= sizeof(input->dev))
            continue;
        for (size_t i = 0; i < n_inputs; i++)
            known |= strcmp(inputs[i].dev, entry->d_name) == 0;
        if (known)
            continue;
        input->fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (input->fd < 0)
            continue;
        strcpy(input->dev, entry->d_name);
        input->count = 0;
        ioctl(input->fd, EVIOCSCLOCKID, &(int){CLOCK_MONOTONIC});
        ioctl(input->fd, EVIOCGNAME(sizeof(name) - 1), name);
        input->power = strcmp(name, "Power Button") == 0;
        n_inputs++;
        tell_input(input);
    }
    if (dir)
        closedir(dir);
}

/*
 * The drivers of PS/2 ports bind in a kernel thread: being loaded does not mean that the mouse is
 * there. READY must not come before it, or the first event of a test would be lost.
 */
static void await_serio(void)
{
    long deadline = uptime_ms() + 10000;
    bool bound;

    do {
        DIR *dir = opendir("/sys/bus/serio/devices");
        struct dirent *entry;

        bound = true;
        while (dir && (entry = readdir(dir))) {
            char path[512];

            snprintf(path, sizeof(path), "/sys/bus/serio/devices/%s/driver", entry->d_name);
            if (entry->d_name[0] != '.' && access(path, F_OK) < 0)
                bound = false;
        }
        if (dir)
            closedir(dir);
        if (!bound)
            poll(NULL, 0, 5);
    } while (!bound && uptime_ms() < deadline);
}

/* Passes on what a device says; false when the device has gone. */
static bool read_input(struct input *input)
{
    struct input_event events[64];
    ssize_t n;

    while ((n = read(input->fd, events, sizeof(events))) > 0) {
        for (size_t i = 0; i < n / sizeof(events[0]); i++) {
            const struct input_event *ev = &events[i];

            if (ev->type == EV_SYN && ev->code == SYN_REPORT)
                continue;
            input->count++;
            if (evdev_printed)
                say("EVDEV dev=%s type=%u code=%u value=%d usec=%lld", input->dev, ev->type,
                    ev->code, ev->value, ev->input_event_sec * 1000000LL + ev->input_event_usec);
            if (input->power && power_button_obeyed && ev->type == EV_KEY &&
                ev->code == KEY_POWER) {
                say("POWEROFF reason=button");
                tcdrain(tty);
                reboot(RB_POWER_OFF);
            }
        }
    }
    return n < 0 && (errno == EAGAIN || errno == EINTR);
}

/* ---- commands -------------------------------------------------------------------------------- */

static void out_file(const char *command, const char *path)
{
    FILE *file = fopen(path, "re");
    char line[1024];

    if (!file) {
        say("ERR %s %s", command, strerror(errno));
        return;
    }
    while (fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = 0;
        say("OUT %s", line);
    }
    fclose(file);
    say("OK %s", command);
}

static void cmd_facts(char *args)
{
    (void)args;
    tell_kernel();
    tell_memory();
    for (size_t i = 0; i < n_inputs; i++)
        tell_input(&inputs[i]);
    say("OK facts");
}

static void cmd_ps(char *args)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;

    (void)args;
    while (dir && (entry = readdir(dir))) {
        char path[300], text[1024], *comm, *end;
        unsigned long flags;
        int ppid;

        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
        if (!slurp(path, text, sizeof(text)))
            continue; /* it has just ended */
        comm = strchr(text, '(');
        end = strrchr(text, ')');
        if (!comm || !end || sscanf(end + 2, "%*c %d %*d %*d %*d %*d %lu", &ppid, &flags) != 2)
            continue;
        *end = 0;
        say("PS pid=%s ppid=%d kthread=%d comm=%s", entry->d_name, ppid, !!(flags & PF_KTHREAD),
            comm + 1);
    }
    if (dir)
        closedir(dir);
    say("OK ps");
}

static void cmd_kallsyms(char *args)
{
    char *names[16], *save = NULL, line[512], symbol[256], type;
    FILE *file = fopen("/proc/kallsyms", "re");
    unsigned long addr, found = 0;
    size_t n = 0;

    for (char *name = strtok_r(args, " ", &save); name && n < 16; name = strtok_r(NULL, " ", &save))
        names[n++] = name;
    while (file && fgets(line, sizeof(line), file)) {
        const char *at = strchr(line, ' ');

        /* Cheap test first: there are some 200,000 lines, and emulation is slow. */
        for (size_t i = 0; at && at[1] && i < n; i++) {
            if (strncmp(at + 3, names[i], strlen(names[i])) != 0)
                continue;
            if (sscanf(line, "%lx %c %255s", &addr, &type, symbol) != 3 || strcmp(symbol, names[i]))
                continue;
            say("KSYM addr=0x%lx type=%c name=%s", addr, type, symbol);
            found++;
        }
    }
    if (file)
        fclose(file);
    say("OK kallsyms found=%lu", found);
}

static uint64_t sum_of_text(const char *text)
{
    uint64_t sum = 0xcbf29ce484222325ULL;

    for (; *text; text++)
        sum = (sum ^ (uint8_t)*text) * 0x100000001b3ULL;
    return sum;
}

static void cmd_symbols(char *args)
{
    unsigned long count[2] = {0}, sum[2] = {0};
    char line[1024];
    FILE *file = fopen("/proc/kallsyms", "re");

    (void)args;
    while (file && fgets(line, sizeof(line), file)) {
        char *module = strchr(line, '\t');
        bool of_module = module != NULL;

        line[strcspn(line, "\n")] = 0;
        if (of_module) {
            if (strncmp(module, "\t[__builtin_", 12) == 0 || strcmp(module, "\t[bpf]") == 0)
                continue;
            line[17] = tolower((unsigned char)line[17]);
            module[0] = ' ';
            memmove(module + 1, module + 2, strlen(module + 2) + 1);
            line[strlen(line) - 1] = 0;
        }
        count[of_module]++;
        sum[of_module] += sum_of_text(line);
    }
    if (file)
        fclose(file);
    say("SYMBOLS count=%lu sum=0x%016lx modules_count=%lu modules_sum=0x%016lx", count[0], sum[0],
        count[1], sum[1]);
    say("OK symbols");
}

static void cmd_pagemap(char *args)
{
    char pid[16];
    unsigned long gva, pages = 1;

    if (sscanf(args, "%15s %lx %lu", pid, &gva, &pages) < 2) {
        say("ERR pagemap usage: pagemap PID GVA [PAGES]");
        return;
    }
    for (; pages; pages--, gva += PAGE) {
        uint64_t gpa = gpa_of(pid, gva);

        if (gpa)
            say("PAGE pid=%s gva=0x%lx gpa=0x%lx", pid, gva, gpa);
        else
            say("PAGE pid=%s gva=0x%lx gpa=none", pid, gva);
    }
    say("OK pagemap");
}

static void cmd_maps(char *args)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%.20s/maps", args);
    out_file("maps", path);
}

static void cmd_cat(char *args)
{
    out_file("cat", args);
}

/* posix_spawn shares the address space until the exec: no page becomes copy-on-write by it. */
static void cmd_exec(char *args)
{
    char *argv[] = {"busybox", "sh", "-c", args, NULL};
    char *envp[] = {"PATH=/bin", "HOME=/", "TERM=dumb", NULL};
    posix_spawn_file_actions_t actions;
    char line[1024];
    int out[2], err, status = 0;
    FILE *file;
    pid_t pid;

    if (pipe2(out, O_CLOEXEC) < 0) {
        say("ERR exec %s", strerror(errno));
        return;
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_adddup2(&actions, out[1], 2);
    err = posix_spawn(&pid, "/bin/busybox", &actions, NULL, argv, envp);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    file = fdopen(out[0], "r");
    while (!err && file && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = 0;
        say("OUT %s", line);
    }
    if (file)
        fclose(file);
    if (err) {
        say("ERR exec %s", strerror(err));
        return;
    }
    waitpid(pid, &status, 0);
    say("OK exec status=%d", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/* A page of a file; it keeps its name, or not. */
static void map_file(const char *path, bool gone)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0 || ftruncate(fd, 2 * PAGE) < 0)
        say("WARN areas path=%s errno=%d", path, errno);
    mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, PAGE);
    if (gone)
        unlink(path);
    close(fd);
}

/* One of each kind that /proc/PID/maps has a name of its own for. */
static void map_oddities(void)
{
    int memfd = memfd_create("a memory", MFD_CLOEXEC), segment = shmget(IPC_PRIVATE, PAGE, IPC_CREAT | 0600);

    mkdir("/areas", 0700);
    mkdir("/areas/of directories", 0700);
    map_file("/areas/of directories/a\nb\tc\\d", false);
    map_file("/areas/gone", true);
    map_file("/dev/areas", false);
    mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, memfd, 0);
    shmat(segment, NULL, 0);
    shmctl(segment, IPC_RMID, NULL);
    mmap((void *)0x10000, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    /* With five levels above what four can address; else nearby. */
    mmap((void *)(1UL << 52), PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void map_many(unsigned long n)
{
    static const int rights[] = {PROT_READ, PROT_READ | PROT_WRITE, PROT_NONE};

    for (unsigned long i = 0; i < n; i++) {
        uintptr_t at = 0x100000000000 + (i / 100) * (1UL << 39) + i * (i % 3 ? 1 : 17) * PAGE;

        mmap((void *)at, PAGE, rights[i % 3], MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    }
}

static void cmd_areas(char *args)
{
    unsigned long n = strtoul(args, NULL, 0);
    int done[2];
    char byte;
    pid_t pid;

    if (pipe2(done, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
        say("ERR areas errno=%d", errno);
        return;
    }
    if (pid == 0) {
        prctl(PR_SET_NAME, "areas", 0, 0, 0);
        map_oddities();
        map_many(n);
        close(done[1]);
        for (;;)
            pause();
    }
    close(done[1]);
    while (read(done[0], &byte, 1) < 0 && errno == EINTR)
        ;
    close(done[0]);
    say("AREAS pid=%d", pid);
    say("OK areas");
}

static void cmd_setvar(char *args)
{
    *var.at = strtoull(args, NULL, 0);
    say("OK setvar");
}

static void cmd_fill(char *args)
{
    memset((void *)buf, strtol(args, NULL, 0), BUF_LEN);
    say("OK fill");
}

static void cmd_evdev(char *args)
{
    evdev_printed = strcmp(args, "off") != 0;
    say("OK evdev");
}

static void cmd_evcount(char *args)
{
    (void)args;
    for (size_t i = 0; i < n_inputs; i++)
        say("EVCOUNT dev=%s count=%lu", inputs[i].dev, inputs[i].count);
    say("OK evcount");
}

static void cmd_powerbutton(char *args)
{
    power_button_obeyed = strcmp(args, "ignore") != 0;
    say("OK powerbutton");
}

static void cmd_poweroff(char *args)
{
    (void)args;
    say("OK poweroff");
    tcdrain(tty);
    reboot(RB_POWER_OFF);
}

static void cmd_reboot(char *args)
{
    (void)args;
    say("OK reboot");
    tcdrain(tty);
    reboot(RB_AUTOBOOT);
}

/* The new kernel gets going by itself once OK is said; ERR tells what it was that failed. */
static void cmd_kexec(char *args)
{
    char *initrd_path = args + strcspn(args, " "), cmdline[2048];
    int kernel, initrd;

    if (*initrd_path)
        *initrd_path++ = 0;
    kernel = open(args, O_RDONLY | O_CLOEXEC);
    initrd = open(initrd_path, O_RDONLY | O_CLOEXEC);
    if (kernel < 0 || initrd < 0 || !slurp("/proc/cmdline", cmdline, sizeof(cmdline))) {
        say("ERR kexec open errno=%d", errno);
    } else {
        cmdline[strcspn(cmdline, "\n")] = 0;
        if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(cmdline) + 1, cmdline, 0UL) < 0) {
            say("ERR kexec load errno=%d", errno);
        } else {
            say("OK kexec");
            tcdrain(tty);
            reboot(RB_KEXEC);
            say("WARN kexec errno=%d", errno);
        }
    }
    close(kernel);
    close(initrd);
}

static void cmd_panic(char *args)
{
    (void)args;
    say("OK panic");
    tcdrain(tty);
    put("/proc/sysrq-trigger", "c");
}

static const struct {
    const char *name;
    void (*run)(char *args);
} commands[] = {
    {"facts", cmd_facts},
    {"ps", cmd_ps},
    {"tasks", cmd_tasks},
    {"fds", cmd_fds},
    {"hex", cmd_hex},
    {"crowd", cmd_crowd},
    {"kallsyms", cmd_kallsyms},
    {"symbols", cmd_symbols},
    {"pagemap", cmd_pagemap},
    {"maps", cmd_maps},
    {"cat", cmd_cat},
    {"exec", cmd_exec},
    {"areas", cmd_areas},
    {"setvar", cmd_setvar},
    {"fill", cmd_fill},
    {"evdev", cmd_evdev},
    {"evcount", cmd_evcount},
    {"powerbutton", cmd_powerbutton},
    {"poweroff", cmd_poweroff},
    {"reboot", cmd_reboot},
    {"kexec", cmd_kexec},
    {"panic", cmd_panic},
};

static void obey(char *line)
{
    char *args = line + strcspn(line, " ");

    if (*args)
        *args++ = 0;
    while (*args == ' ')
        args++;
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(line, commands[i].name) == 0) {
            commands[i].run(args);
            return;
        }
    }
    if (*line)
        say("ERR %s unknown command", line);
}

/* Gathers typed characters and obeys every full line. */
static void read_commands(void)
{
    static char line[4096];
    static size_t len;
    char typed[256];
    ssize_t n = read(tty, typed, sizeof(typed));

    for (ssize_t i = 0; i < n; i++) {
        if (typed[i] != '\n' && typed[i] != '\r') {
            if (len < sizeof(line) - 1)
                line[len++] = typed[i];
            continue;
        }
        line[len] = 0;
        len = 0;
        obey(line);
    }
}

/* ---- coming up ------------------------------------------------------------------------------- */

static void mount_one(const char *type, const char *at)
{
    mkdir(at, 0755);
    if (mount(type, at, type, 0, NULL) < 0 && errno != EBUSY)
        say("WARN mount at=%s errno=%d", at, errno);
}

static void open_tty(void)
{
    struct termios raw;
    int fd = open("/dev/ttyS0", O_RDWR | O_NOCTTY | O_CLOEXEC);

    if (fd < 0)
        return;
    tty = fd;
    if (tcgetattr(tty, &raw) == 0) {
        cfmakeraw(&raw);
        tcsetattr(tty, TCSANOW, &raw);
    }
}

/* /etc/modules has them in order: a path, then the parameters. */
static void load_modules(void)
{
    FILE *file = fopen("/etc/modules", "re");
    char line[512];

    while (file && fgets(line, sizeof(line), file)) {
        char *params;
        int fd;

        line[strcspn(line, "\n")] = 0;
        params = line + strcspn(line, " ");
        if (*params)
            *params++ = 0;
        fd = open(line, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, params, 0) < 0 && errno != EEXIST))
            say("WARN module path=%s errno=%d", line, errno);
        if (fd >= 0)
            close(fd);
    }
    if (file)
        fclose(file);
}

static void come_up(void)
{
    mount_one("devtmpfs", "/dev");
    mount_one("proc", "/proc");
    mount_one("sysfs", "/sys");
    mount_one("tmpfs", "/tmp");
    klogctl(8, NULL, 1); /* the console is ours; the kernel still writes there if it panics */
    open_tty();
    put("/proc/sys/kernel/kptr_restrict", "0");
    put("/proc/sys/kernel/sysrq", "1");
    /* A guest of 512 MiB or less has large pages switched off. */
    put("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
    load_modules();
    await_serio();
}

static bool once(void)
{
    char text[2048];

    return slurp("/proc/cmdline", text, sizeof(text)) && strstr(text, "vmibus.once");
}

int main(int argc, char **argv)
{
    int hotplug;

    if (argc > 1 && getpid() != 1 && strcmp(argv[1], "crowd") == 0) {
        open_tty();
        crowd_main();
    }
    prctl(PR_SET_NAME, "vmibus-agent");
    if (getpid() == 1)
        come_up();
    hotplug = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    inotify_add_watch(hotplug, "/dev/input", IN_CREATE);
    find_inputs();
    tell_kernel();
    set_up_memory();
    tell_memory();
    say("READY uptime_ms=%ld pid=%d child=%d", uptime_ms(), getpid(), child);
    if (once()) {
        tcdrain(tty);
        reboot(RB_POWER_OFF);
    }

    for (;;) {
        struct pollfd fds[MAX_INPUTS + 2] = {
            {.fd = tty, .events = POLLIN},
            {.fd = hotplug, .events = POLLIN},
        };
        size_t polled = n_inputs;
        char ignored[1024];

        for (size_t i = 0; i < polled; i++)
            fds[i + 2] = (struct pollfd){.fd = inputs[i].fd, .events = POLLIN};
        if (poll(fds, polled + 2, POLL_MS) > 0) {
            if (fds[0].revents)
                read_commands();
            for (size_t i = polled; i-- > 0;) {
                if (!fds[i + 2].revents || read_input(&inputs[i]))
                    continue;
                close(inputs[i].fd);
                inputs[i] = inputs[--n_inputs];
            }
            if (fds[1].revents && read(hotplug, ignored, sizeof(ignored)) > 0)
                find_inputs();
        }
        watch_memory();
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ; /* orphans of exec end up here */
    }
}
