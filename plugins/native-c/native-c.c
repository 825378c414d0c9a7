/*
 * Counts messages for each topic, and publishes the count with each: a native plugin in C.
 *
 * Owns: the counts, which the daemon remembers (`allow.kv`). Reading, adding and writing back needs no lock: where two calls meet, one of them
 * is made again. On a schedule it publishes how many topics and messages there are.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tidegate.h"

/* The longest number, a sign and the zero byte. */
#define NUMBER 24

/* Keys that are listed at once. */
#define PAGE 500u

static const tg_host *host;

/* What an instance keeps. */
typedef struct counter {
    /* Counts go to PREFIX/TOPIC, sums to PREFIX. */
    size_t prefix_len;
    char prefix[];
} counter;

/* A number as the daemon keeps it; 0 is said to be none. */
static int read_number(tg_bytes text, uint64_t *number) {
    *number = 0;
    if (text.len == 0 || text.len >= NUMBER) {
        return 0;
    }
    for (size_t place = 0; place < text.len; place++) {
        if (text.ptr[place] < '0' || text.ptr[place] > '9') {
            return 0;
        }
        *number = *number * 10 + (uint64_t)(text.ptr[place] - '0');
    }
    return 1;
}

/* The count of a topic: 0 where there is none yet. */
static tg_status read_count(tg_call *call, tg_bytes topic, uint64_t *count) {
    tg_bytes value;
    tg_status status = host->kv_get(call, topic, &value);
    *count = 0;
    if (status == TG_NOT_FOUND) {
        return TG_OK;
    }
    if (status != TG_OK) {
        return tg_check(host, call, status);
    }
    return read_number(value, count) ? TG_OK : tg_reject(host, call, "what is remembered of this topic is no count");
}

static tg_status create(tg_call *call, void **state) {
    tg_bytes prefix;
    if (host->config_get(call, tg_text("prefix"), &prefix) == TG_NOT_FOUND) {
        prefix = tg_text("count");
    }
    /* Without the grant no message could ever be counted. */
    const tg_bytes *keys;
    size_t key_count;
    tg_status status = host->kv_keys(call, tg_text(""), tg_text(NULL), 1, &keys, &key_count);
    if (status != TG_OK) {
        return tg_check(host, call, status);
    }
    /* What the daemon gave is gone when this returns. */
    counter *made = malloc(sizeof *made + prefix.len);
    if (made == NULL) {
        return tg_reject(host, call, "there is no memory left");
    }
    made->prefix_len = prefix.len;
    memcpy(made->prefix, prefix.ptr, prefix.len);
    *state = made;
    return TG_OK;
}

static void destroy(void *state) {
    free(state);
}

/* Publishes to PREFIX/TOPIC, or to PREFIX where the topic is absent. The daemon copies both, so what is made here ends here. */
static tg_status publish(const counter *self, tg_call *call, tg_bytes topic, tg_bytes payload, uint8_t qos) {
    size_t len = self->prefix_len + (topic.ptr == NULL ? 0 : 1 + topic.len);
    char *name = malloc(len + 1);
    if (name == NULL) {
        return tg_retry(host, call, "there is no memory left", TG_ANY_DELAY);
    }
    memcpy(name, self->prefix, self->prefix_len);
    if (topic.ptr != NULL) {
        name[self->prefix_len] = '/';
        memcpy(name + self->prefix_len + 1, topic.ptr, topic.len);
    }
    tg_outgoing outgoing = tg_publish_to(tg_of(name, len), payload);
    outgoing.qos = qos;
    tg_status status = tg_check(host, call, host->publish(call, &outgoing));
    free(name);
    return status;
}

static tg_status on_message(void *state, tg_call *call, const tg_message *message) {
    uint64_t count;
    tg_status status = read_count(call, message->topic, &count);
    if (status != TG_OK) {
        return status;
    }
    char text[NUMBER];
    int len = snprintf(text, sizeof text, "%" PRIu64, count + 1);
    tg_bytes number = tg_of(text, (size_t)len);

    status = host->kv_set(call, message->topic, number, TG_FOREVER);
    if (status != TG_OK) {
        return tg_check(host, call, status);
    }
    if (host->log_enabled(call, TG_DEBUG)) {
        tg_pair fields[] = {{tg_text("topic"), message->topic}, {tg_text("count"), number}};
        host->log(call, TG_DEBUG, tg_text("counted"), fields, sizeof fields / sizeof *fields);
    }
    return publish(state, call, message->topic, number, message->qos);
}

static tg_status on_schedule(void *state, tg_call *call, const tg_run *run) {
    uint64_t topics = 0, messages = 0;
    tg_bytes after = tg_text(NULL);
    const tg_bytes *keys;
    size_t key_count;
    (void)run;
    do {
        tg_status status = host->kv_keys(call, tg_text(""), after, PAGE, &keys, &key_count);
        if (status != TG_OK) {
            return tg_check(host, call, status);
        }
        for (size_t place = 0; place < key_count; place++) {
            uint64_t count;
            status = read_count(call, keys[place], &count);
            if (status != TG_OK) {
                return status;
            }
            topics++;
            messages += count;
            after = keys[place];
        }
    } while (key_count == PAGE);

    char text[64 + 2 * NUMBER];
    int len = snprintf(text, sizeof text, "{\"topics\":%" PRIu64 ",\"messages\":%" PRIu64 "}", topics, messages);
    return publish(state, call, tg_text(NULL), tg_of(text, (size_t)len), TG_AT_LEAST_ONCE);
}

static const tg_plugin plugin = {
    .size = sizeof(tg_plugin),
    .minor = TG_MINOR,
    .name = TG_LITERAL("native-c"),
    .version = TG_LITERAL("0.1.0"),
    .create = create,
    .on_message = on_message,
    .on_schedule = on_schedule,
    .destroy = destroy,
};

TG_EXPORT const tg_plugin *tidegate_plugin_v1(const tg_host *table) {
    host = table;
    return &plugin;
}
