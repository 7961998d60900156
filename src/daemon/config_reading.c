/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/config_reading.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

int reading_complain(struct reading *reading, const char *format, ...) {
    va_list arguments;

    if (!reading->failed) {
        va_start(arguments, format);
        vsnprintf(reading->error->text, sizeof(reading->error->text), format, arguments);
        va_end(arguments);
    }
    reading->failed = true;
    return 0; /* the parser counts the line */
}

bool reading_parse_number(const char *text, uint64_t maximum, uint64_t *value) {
    char *end;

    errno = 0;
    *value = strtoull(text, &end, 0);
    return !errno && end != text && *end == '\0' && *text != '-' && *value <= maximum;
}

int reading_set_string(struct reading *reading, char **setting, const char *value) {
    if (!*value)
        return reading_complain(reading, "the value is empty");
    return config_set_string(setting, value) == 0 ? 1 : reading_complain(reading, "out of memory");
}

int reading_set_number(struct reading *reading, const char *name, uint32_t *setting, const char *value, uint32_t minimum,
                      uint32_t maximum) {
    uint64_t number;

    if (!reading_parse_number(value, maximum, &number) || number < minimum)
        return reading_complain(reading, "%s = %s: a number from %u to %u is wanted", name, value, minimum, maximum);
    *setting = (uint32_t)number;
    return 1;
}
