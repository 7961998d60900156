/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The measuring harness: where a program runs, how it samples, what it says.
 *
 * A figure that has a target is always a ratio against a floor, or a count: absolute times are printed
 * for people and are compared with nothing.  What is compared is measured in interleaved blocks of one
 * run, so that whatever else the machine does hits both sides; a ratio is the median of the blocks'
 * ratios.
 *
 * A program ends with an error if it could not measure, never because a figure missed its target.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_FIGURES 128

/** How a figure relates to its target. */
enum bench_relation {
    BENCH_TOLD,     /**< no target */
    BENCH_AT_MOST,
    BENCH_AT_LEAST,
    BENCH_BELOW,
};

struct bench_figure {
    char name[80];
    double value;
    const char *unit;
    enum bench_relation relation;
    double target;
};

struct bench {
    const char *name;
    const char *build;      /**< the build directory */
    const char *json;       /**< file to write figures to, NULL: none */
    bool quick;
    bool qemu;
    struct bench_figure figures[BENCH_FIGURES];
    size_t n_figures;
};

/** Takes @a n samples, in nanoseconds. 0 or a negative errno. */
typedef int (*bench_sample_fn)(void *context, uint64_t *samples, size_t n);

/** One of the things that are compared. */
struct bench_lane {
    const char *name;
    bench_sample_fn sample;
    void *context;
    double *p50;            /**< of each block, ns */
    double *p99;
    size_t n_blocks;
};

/** Reads the command line. 0: go on; else the exit status. */
int bench_begin(struct bench *bench, const char *name, int argc, char **argv);

/** Prints the table, writes the file. Returns the exit status. @a result: 0 or a negative errno of the measurement. */
int bench_end(struct bench *bench, int result);

/** All of a benchmark that is measured twice, with every process pinned to one CPU and not. Returns the exit status. */
int bench_pinned_and_not(const char *name, int argc, char **argv, int (*measure)(struct bench *bench, bool pinned));

/** Adds a figure; the name is formatted. */
void bench_tell(struct bench *bench, double value, const char *unit, enum bench_relation relation, double target,
                const char *format, ...) __attribute__((format(printf, 6, 7)));

/** Says visibly that something could not be measured, and why. */
void bench_skip(struct bench *bench, const char *what, const char *why);

/** Puts this process, and what it starts from now on, on one CPU (@a pinned) or on all it began with. 0 or a negative errno. */
int bench_place(bool pinned);

/** CLOCK_MONOTONIC in nanoseconds. */
uint64_t bench_now(void);

/**
 * Warms every lane up, then takes @a blocks blocks of @a n samples of each, in turns.
 * @return 0 or a negative errno; bench_lanes_free() either way
 */
int bench_interleave(struct bench_lane *lanes, size_t n_lanes, size_t blocks, size_t n);

/** Frees what the lanes gathered. */
void bench_lanes_free(struct bench_lane *lanes, size_t n_lanes);

/** Median of @a n values; sorts them. */
double bench_median(double *values, size_t n);

/** The value below which @a percent of @a n samples lie; sorts them. */
double bench_percentile(uint64_t *samples, size_t n, double percent);

/** Median over the blocks of the ratio of two lanes, of p50 or p99. */
double bench_ratio(const struct bench_lane *over, const struct bench_lane *under, bool p99);

/** Tells p50 and p99 of each lane in microseconds, as "MODE NAME p50". */
void bench_tell_lanes(struct bench *bench, const char *mode, const struct bench_lane *lanes, size_t n_lanes);

#endif
