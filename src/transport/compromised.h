/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What whoever has taken over the parser of frames can do, for tests of what that is: in a build with
 * --enable-compromised-parser a peer's frame is a list of system calls, which are made in the thread of the loop, with all rights
 * that the process has, and answered with their results.  No other build has any of this.
 *
 *   frame   kind COMPROMISED_KIND; its tail is a struct compromised_program, its calls, its patches, its data
 *   answer  the same kind; its tail is the calls' results (int64_t each; negative errno), then the data as it is afterwards
 */
#ifndef TRANSPORT_COMPROMISED_H
#define TRANSPORT_COMPROMISED_H

#ifdef HAVE_COMPROMISED_PARSER

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

/** A kind that no definition of the wire has. */
#define COMPROMISED_KIND 0x7ffe

struct compromised_program {
    uint32_t n_calls;
    uint32_t n_patches;
    uint32_t n_data; /**< octets */
    uint32_t padding;
};

/** How an argument is meant. */
enum compromised_argument {
    COMPROMISED_NUMBER,
    COMPROMISED_DATA,   /**< the address of data + value */
    COMPROMISED_RESULT, /**< the result of call number value, which was before */
};

struct compromised_call {
    uint64_t number;
    uint64_t arguments[6];
    uint8_t meanings[8]; /**< of arguments: enum compromised_argument */
};

/** At data + at there is the address of data + to, as structures want it. */
struct compromised_patch {
    uint32_t at;
    uint32_t to;
};

/** What is wanted on the command line and in the log: that this is no build for use. */
#define COMPROMISED_WARNING                                                                                                   \
    "THIS vmibusd WAS BUILT TO BE TAKEN OVER (--enable-compromised-parser): whoever may connect can execute what he likes in it"

/** From now on such frames are obeyed, in this process. */
void compromised_enable(void);

/** True: it was such a frame, and has been answered at the socket @a fd. */
bool compromised_obey(int fd, const struct vmibus_frame *frame, const void *tail);

#else

#define compromised_obey(fd, frame, tail) false

#endif

#endif
