/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "json_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame_json.h"
#include "report.h"

struct json_list {
    FILE *stream;   /* writes to text: a line for each object, which JSON has no newlines in */
    char *text;
    size_t length;
};

static void end_without_memory(void) {
    fputs("vmibusctl: out of memory\n", stderr);
    exit(STATUS_FAILED);
}

struct json_list *json_list_new(void) {
    struct json_list *list = calloc(1, sizeof(*list));

    if (list)
        list->stream = open_memstream(&list->text, &list->length);
    if (!list || !list->stream)
        end_without_memory();
    return list;
}

struct json_list *json_list_free(struct json_list *list) {
    if (!list)
        return NULL;
    if (list->stream)
        fclose(list->stream);
    free(list->text);
    free(list);
    return NULL;
}

void json_list_add(struct json_list *list, struct json_object *object) {
    frame_json_write(list->stream, object);
    json_object_put(object);
    if (ferror(list->stream))
        end_without_memory();
}

static void close_stream(struct json_list *list) {
    if (fclose(list->stream) != 0)
        end_without_memory();
    list->stream = NULL;
}

void json_list_print(struct json_list *list, const char *key, struct json_object *value) {
    const char *member = json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN), *end;

    close_stream(list);
    putchar('[');
    for (const char *at = list->text; *at; at = end + 1) {
        end = strchr(at, '\n');
        if (at != list->text)
            putchar(',');
        fwrite(at, 1, (size_t)(end - at) - 1, stdout); /* without its brace */
        printf(",\"%s\":%s}", key, member);
    }
    fputs("]\n", stdout);
}
