/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tells AddressSanitizer which of our own free memory may not be touched, and what holds pointers; without it, nothing. */
#ifndef UTIL_POISON_H
#define UTIL_POISON_H

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#define POISON_IS_SEEN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISON_IS_SEEN 1
#endif
#endif
#ifndef POISON_IS_SEEN
#define POISON_IS_SEEN 0
#endif

#if POISON_IS_SEEN

#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>

static inline void poison(void *memory, size_t size) {
    ASAN_POISON_MEMORY_REGION(memory, size);
}

static inline void unpoison(void *memory, size_t size) {
    ASAN_UNPOISON_MEMORY_REGION(memory, size);
}

/* What is pointed to from there is no leak: a mapping is not searched by itself. */
static inline void root_begin(const void *memory, size_t size) {
    __lsan_register_root_region(memory, size);
}

static inline void root_end(const void *memory, size_t size) {
    __lsan_unregister_root_region(memory, size);
}

#else

static inline void poison(void *memory, size_t size) {
    (void)memory;
    (void)size;
}

static inline void unpoison(void *memory, size_t size) {
    (void)memory;
    (void)size;
}

static inline void root_begin(const void *memory, size_t size) {
    (void)memory;
    (void)size;
}

static inline void root_end(const void *memory, size_t size) {
    (void)memory;
    (void)size;
}

#endif

#endif
