/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A process in whose name tests of vmibus-opend(8) open things: it maps files of every kind, and tells of each as
 *
 *     NAME DEVICE-MAJOR DEVICE-MINOR INODE
 *
 * then "ready", and stays until its standard input ends. Usage: opener_target DISK-FILE SHM-FILE; descriptor 3 is a memory file of
 * somebody else.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define SIZE (64 * 1024)
#define FOREIGN_FD 3

static void tell(const char *name, int fd) {
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        exit(EXIT_FAILURE);
    printf("%s %u %u %lu\n", name, major(st.st_dev), minor(st.st_dev), (unsigned long)st.st_ino);
}

static void map(int fd, int flags) {
    char *octets = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, flags, fd, 0);

    if (octets == MAP_FAILED)
        exit(EXIT_FAILURE);
    octets[0] = 'R';
}

static int make(const char *name) {
    int fd = memfd_create(name, MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, SIZE) < 0)
        exit(EXIT_FAILURE);
    return fd;
}

int main(int argc, char **argv) {
    int ram = make("ram"), private = make("private"), unmapped = make("unmapped");
    int disk = argc > 2 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;
    int shm = argc > 2 ? open(argv[2], O_RDWR | O_CLOEXEC) : -1;
    int zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
    char octet;

    prctl(PR_SET_DUMPABLE, 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    map(ram, MAP_SHARED);
    map(private, MAP_PRIVATE);
    map(disk, MAP_SHARED);
    map(shm, MAP_SHARED);
    map(zero, MAP_PRIVATE);
    map(FOREIGN_FD, MAP_SHARED);
    tell("ram", ram);
    tell("private", private);
    tell("unmapped", unmapped);
    tell("disk", disk);
    tell("shm", shm);
    tell("zero", zero);
    tell("foreign", FOREIGN_FD);
    puts("ready");
    fflush(stdout);
    return read(STDIN_FILENO, &octet, 1) < 0;
}
