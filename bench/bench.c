/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define NS_PER_US 1e3
#define QUIET 1.5 /* what a benchmark before this one may have left in the load average */

/* --- where it runs ------------------------------------------------------------------------------- */

int bench_place(bool pinned) {
    static cpu_set_t all;
    static bool known;
    cpu_set_t one;
    int last = 0;

    if (!known && sched_getaffinity(0, sizeof(all), &all) < 0)
        return -errno;
    known = true;
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &all))
            last = i;
    CPU_SET(last, &one);
    return sched_setaffinity(0, sizeof(all), pinned ? &one : &all) < 0 ? -errno : 0;
}

uint64_t bench_now(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- statistics ---------------------------------------------------------------------------------- */

static int compare_samples(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static int compare_values(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double bench_percentile(uint64_t *samples, size_t n, double percent) {
    size_t position = (size_t)((double)n * percent / 100);

    qsort(samples, n, sizeof(*samples), compare_samples);
    return (double)samples[position < n ? position : n - 1];
}

double bench_median(double *values, size_t n) {
    qsort(values, n, sizeof(*values), compare_values);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static double median_of_copy(const double *values, size_t n) {
    double *copy = malloc(n * sizeof(*copy)), result = 0;

    if (copy) {
        memcpy(copy, values, n * sizeof(*copy));
        result = bench_median(copy, n);
    }
    free(copy);
    return result;
}

double bench_ratio(const struct bench_lane *over, const struct bench_lane *under, bool p99) {
    double *ratios = malloc(over->n_blocks * sizeof(*ratios)), result = 0;

    if (ratios) {
        for (size_t i = 0; i < over->n_blocks; i++)
            ratios[i] = p99 ? over->p99[i] / under->p99[i] : over->p50[i] / under->p50[i];
        result = bench_median(ratios, over->n_blocks);
    }
    free(ratios);
    return result;
}

/* --- sampling ------------------------------------------------------------------------------------ */

static int lane_block(struct bench_lane *lane, uint64_t *samples, size_t block, size_t n) {
    int r = lane->sample(lane->context, samples, n);

    if (r < 0) {
        fprintf(stderr, "%s: %s\n", lane->name, strerror(-r));
        return r;
    }
    lane->p50[block] = bench_percentile(samples, n, 50);
    lane->p99[block] = bench_percentile(samples, n, 99);
    lane->n_blocks = block + 1;
    return 0;
}

int bench_interleave(struct bench_lane *lanes, size_t n_lanes, size_t blocks, size_t n) {
    uint64_t *samples = calloc(n, sizeof(*samples));
    int r = samples ? 0 : -ENOMEM;

    for (size_t i = 0; r == 0 && i < n_lanes; i++) {
        lanes[i].p50 = calloc(blocks, sizeof(double));
        lanes[i].p99 = calloc(blocks, sizeof(double));
        r = lanes[i].p50 && lanes[i].p99 ? lane_block(&lanes[i], samples, 0, n) : -ENOMEM;
    }
    /* What was warmed up is overwritten; who begins changes, so that no lane always follows the same one. */
    for (size_t block = 0; r == 0 && block < blocks; block++)
        for (size_t i = 0; r == 0 && i < n_lanes; i++)
            r = lane_block(&lanes[(block + i) % n_lanes], samples, block, n);
    free(samples);
    return r;
}

void bench_lanes_free(struct bench_lane *lanes, size_t n_lanes) {
    for (size_t i = 0; i < n_lanes; i++) {
        free(lanes[i].p50);
        free(lanes[i].p99);
        lanes[i].p50 = lanes[i].p99 = NULL;
    }
}

/* --- saying -------------------------------------------------------------------------------------- */

void bench_tell(struct bench *bench, double value, const char *unit, enum bench_relation relation, double target,
                const char *format, ...) {
    struct bench_figure *figure = &bench->figures[bench->n_figures];
    va_list arguments;

    if (bench->n_figures == BENCH_FIGURES)
        return;
    bench->n_figures++;
    *figure = (struct bench_figure){.value = value, .unit = unit, .relation = relation, .target = target};
    va_start(arguments, format);
    vsnprintf(figure->name, sizeof(figure->name), format, arguments);
    va_end(arguments);
}

void bench_tell_lanes(struct bench *bench, const char *mode, const struct bench_lane *lanes, size_t n_lanes) {
    for (size_t i = 0; i < n_lanes; i++) {
        bench_tell(bench, median_of_copy(lanes[i].p50, lanes[i].n_blocks) / NS_PER_US, "us", BENCH_TOLD, 0, "%s, %s p50", mode,
                   lanes[i].name);
        bench_tell(bench, median_of_copy(lanes[i].p99, lanes[i].n_blocks) / NS_PER_US, "us", BENCH_TOLD, 0, "%s, %s p99", mode,
                   lanes[i].name);
    }
}

void bench_skip(struct bench *bench, const char *what, const char *why) {
    printf("%s: SKIP %s: %s\n", bench->name, what, why);
}

static bool is_met(const struct bench_figure *figure) {
    switch (figure->relation) {
    case BENCH_AT_MOST:
        return figure->value <= figure->target;
    case BENCH_AT_LEAST:
        return figure->value >= figure->target;
    case BENCH_BELOW:
        return figure->value < figure->target;
    default:
        return true;
    }
}

static const char *relation_text(enum bench_relation relation) {
    static const char *const texts[] = {
        [BENCH_TOLD] = "",
        [BENCH_AT_MOST] = "at most",
        [BENCH_AT_LEAST] = "at least",
        [BENCH_BELOW] = "below",
    };

    return texts[relation];
}

static void print_table(const struct bench *bench) {
    for (size_t i = 0; i < bench->n_figures; i++) {
        const struct bench_figure *figure = &bench->figures[i];

        printf("%-62s %12.2f %-4s", figure->name, figure->value, figure->unit);
        if (figure->relation)
            printf("  %s %g: %s", relation_text(figure->relation), figure->target, is_met(figure) ? "met" : "MISSED");
        putchar('\n');
    }
}

/* Names hold nothing that JSON would want escaped. */
static int write_json(const struct bench *bench) {
    FILE *file = fopen(bench->json, "we");

    if (!file)
        return -errno;
    fprintf(file, "{\"benchmark\": \"%s\", \"quick\": %s, \"figures\": [", bench->name, bench->quick ? "true" : "false");
    for (size_t i = 0; i < bench->n_figures; i++) {
        const struct bench_figure *figure = &bench->figures[i];

        fprintf(file, "%s\n  {\"name\": \"%s\", \"value\": %.4f, \"unit\": \"%s\"", i ? "," : "", figure->name, figure->value,
                figure->unit);
        if (figure->relation)
            fprintf(file, ", \"relation\": \"%s\", \"target\": %g, \"met\": %s", relation_text(figure->relation), figure->target,
                    is_met(figure) ? "true" : "false");
        fputc('}', file);
    }
    fprintf(file, "\n]}\n");
    return fclose(file) ? -errno : 0;
}

/* --- beginning and ending ------------------------------------------------------------------------ */

int bench_begin(struct bench *bench, const char *name, int argc, char **argv) {
    double load;

    *bench = (struct bench){.name = name, .build = getenv("top_builddir")};
    if (!bench->build)
        bench->build = ".";
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0)
            bench->quick = true;
        else if (strcmp(argv[i], "--qemu") == 0)
            bench->qemu = true;
        else if (strcmp(argv[i], "--json") == 0 && i + 1 < argc)
            bench->json = argv[++i];
        else if (strcmp(argv[i], "--build") == 0 && i + 1 < argc)
            bench->build = argv[++i];
        else {
            fprintf(stderr, "Usage: %s [--quick] [--qemu] [--json FILE] [--build DIRECTORY]\n", name);
            return 2;
        }
    }
    setlinebuf(stdout);
    /* So that what else runs on the machine gets in between as little as can be; everything that is started inherits it. */
    if (setpriority(PRIO_PROCESS, 0, -20) < 0)
        printf("%s: runs at ordinary priority (%s): other load will show in the figures\n", name, strerror(errno));
    if (getloadavg(&load, 1) == 1 && load > QUIET)
        printf("%s: load average %.1f: others run here too, and show in every p99\n", name, load);
    return 0;
}

int bench_end(struct bench *bench, int result) {
    int r;

    print_table(bench);
    if (result < 0) {
        fprintf(stderr, "%s: could not measure: %s\n", bench->name, strerror(-result));
        return 1;
    }
    r = bench->json ? write_json(bench) : 0;
    if (r < 0)
        fprintf(stderr, "%s: %s cannot be written: %s\n", bench->name, bench->json, strerror(-r));
    return r < 0;
}

int bench_pinned_and_not(const char *name, int argc, char **argv, int (*measure)(struct bench *bench, bool pinned)) {
    struct bench bench;
    int r = bench_begin(&bench, name, argc, argv);

    if (r)
        return r;
    r = measure(&bench, true);
    if (r == 0)
        r = measure(&bench, false);
    return bench_end(&bench, r);
}
