/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a bus counts, in the words of monitoring: OpenMetrics, or the text format of Prometheus, from which it differs in
 * the names of counters and in its end.  Each call asks the bus anew, over a connection of its own, so that a bus that was
 * started again needs nothing here.
 */
#ifndef METRICS_EXPOSITION_H
#define METRICS_EXPOSITION_H

#include <stdbool.h>
#include <stdio.h>

#include <vmibus/client.h>

/** How it is written. */
enum exposition_format {
    EXPOSITION_OPENMETRICS, /**< OpenMetrics 1.0 */
    EXPOSITION_PROMETHEUS,  /**< the text format, version 0.0.4: what node_exporter's textfile collector reads */
};

/**
 * Asks the bus for everything, and writes it.
 * @param socket as for vmibus_connect()
 * @return 0; an enum vmibus_error, or a negative errno: nothing of the bus is known, and what was written says vmibus_up 0
 */
int exposition_write(FILE *stream, const char *socket, enum exposition_format format);

#endif
