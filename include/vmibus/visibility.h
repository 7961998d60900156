/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which functions are public.
 *
 * The libraries are compiled with hidden visibility; what is marked here, and listed in the version
 * script of its library, is what a program can link to.
 */
#ifndef VMIBUS_VISIBILITY_H
#define VMIBUS_VISIBILITY_H

#if defined(__GNUC__) || defined(__clang__)
#define VMIBUS_PUBLIC __attribute__((__visibility__("default")))
#else
#define VMIBUS_PUBLIC
#endif

#endif
