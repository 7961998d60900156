/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An array of JSON objects that are kept as text until they are printed. A guest decides how many there are: a tree of them would
 * take some kilobytes each. Where there is no memory, the program ends.
 */
#ifndef VMIBUSCTL_JSON_LIST_H
#define VMIBUSCTL_JSON_LIST_H

#include <json.h>

struct json_list;

struct json_list *json_list_new(void);

/** Frees it. Takes and returns NULL. */
struct json_list *json_list_free(struct json_list *list);

/** Adds an object that has members, and puts it. */
void json_list_add(struct json_list *list, struct json_object *object);

/** Prints the array on one line; each object has one more member, @a key. Nothing can be added afterwards. */
void json_list_print(struct json_list *list, const char *key, struct json_object *value);

#endif
