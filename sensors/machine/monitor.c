/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "monitor.h"

#include <string.h>

bool monitor_is_ready(const struct monitor *monitor) {
    return monitor && monitor->ops->is_ready(monitor);
}

int monitor_execute(struct monitor *monitor, const char *command, json_object *arguments, monitor_reply_fn reply,
                    void *userdata) {
    return monitor->ops->execute(monitor, command, arguments, reply, userdata);
}

int monitor_execute_human(struct monitor *monitor, const char *line, monitor_reply_fn reply, void *userdata) {
    return monitor->ops->execute_human(monitor, line, reply, userdata);
}

void monitor_linger(struct monitor *monitor, int timeout_ms) {
    monitor->ops->linger(monitor, timeout_ms);
}

json_object *monitor_member(json_object *object, const char *key, enum json_type type) {
    json_object *member;

    if (!object || !json_object_is_type(object, json_type_object) ||
        !json_object_object_get_ex(object, key, &member) || !json_object_is_type(member, type))
        return NULL;

    return member;
}

static const char *whole_string(json_object *string, size_t *lenp) {
    const char *text = json_object_get_string(string);
    size_t len = (size_t)json_object_get_string_len(string);

    if (!text || strlen(text) != len)
        return NULL;
    if (lenp)
        *lenp = len;

    return text;
}

const char *monitor_string(json_object *object, const char *key) {
    json_object *member = monitor_member(object, key, json_type_string);

    return member ? whole_string(member, NULL) : NULL;
}

bool monitor_boolean(json_object *object, const char *key, bool *valuep) {
    json_object *member = monitor_member(object, key, json_type_boolean);

    if (!member)
        return false;
    *valuep = json_object_get_boolean(member);

    return true;
}

const char *monitor_text(const struct monitor_reply *reply, size_t *lenp) {
    if (reply->outcome != MONITOR_RETURN || !json_object_is_type(reply->value, json_type_string))
        return NULL;

    return whole_string(reply->value, lenp);
}
