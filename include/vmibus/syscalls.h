/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The system calls that a source file makes, said in it: a daemon of vmibus allows what is said by the files of which it and the
 * sensors in it consist, and nothing else.
 *
 *     VMIBUS_SYSCALLS("socket connect sendmsg")
 *
 * stands once in a file, after its includes.  It becomes an ELF note of the object, so linking gathers what belongs together, and a
 * module that is loaded brings its own.  Names are those of the kernel's table, not the C library's functions: open(3) makes
 * openat, accept(3) accept.  What any program may do (memory, threads, time, reading and writing what is open) need not be said:
 * src/daemon/sandbox_basis.c has it.  A name that this machine has not is passed over; a system call that is newer than libseccomp
 * is said by its number.
 */
#ifndef VMIBUS_SYSCALLS_H
#define VMIBUS_SYSCALLS_H

/** The section and owner of the notes, and their type. */
#define VMIBUS_SYSCALLS_SECTION ".note.vmibus.syscalls"
#define VMIBUS_SYSCALLS_OWNER "vmibus"
#define VMIBUS_SYSCALLS_TYPE 1

/* elf(5): lengths of owner and contents, type, both padded to 4 octets. */
#define VMIBUS_SYSCALLS(names)                                                                                              \
    __asm__(".pushsection " VMIBUS_SYSCALLS_SECTION ",\"a\",%note\n"                                                        \
            "    .balign 4\n"                                                                                               \
            "    .long 2f - 1f, 4f - 3f, 1\n"                                                                               \
            "1:  .asciz \"" VMIBUS_SYSCALLS_OWNER "\"\n"                                                                    \
            "2:  .balign 4\n"                                                                                               \
            "3:  .asciz \"" names "\"\n"                                                                                    \
            "4:  .balign 4\n"                                                                                               \
            ".popsection\n");

#endif
