/*
 * Tests native-c.c without a daemon: it plays the daemon's part.
 *
 *     cc -std=c11 -g -fsanitize=address,undefined -I sdk/c -o test plugins/native-c/native-c.c plugins/native-c/test.c && ./test
 *
 * All that the plugin gets lies in memory of its own that is freed when the callback returns, so that the sanitizer sees whatever is kept too
 * long.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tidegate.h"

#define CHECK(what)                                                             \
    do {                                                                        \
        if (!(what)) {                                                          \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);  \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

#define MOST 4096

/* What the handler remembers, in the order of its keys. */
typedef struct entry {
    char key[32];
    char value[32];
} entry;

/* The daemon. */
struct tg_call {
    entry kv[1200];
    size_t kv_count;
    const char *prefix;
    /* What all of kv ends with. */
    tg_status refusal;
    /* The last publish, and how many there were. */
    char topic[64];
    char payload[64];
    uint8_t qos;
    size_t publishes;
    char error[64];
    size_t lines;
    /* What was given to the plugin. */
    void *given[MOST];
    size_t given_count;
};

static void *give(tg_call *call, size_t len) {
    void *given = malloc(len == 0 ? 1 : len);
    CHECK(given != NULL && call->given_count < MOST);
    call->given[call->given_count++] = given;
    return given;
}

static tg_bytes give_text(tg_call *call, const char *text) {
    size_t len = strlen(text);
    return tg_of(memcpy(give(call, len), text, len), len);
}

/* The end of a callback. */
static void take_back(tg_call *call) {
    while (call->given_count > 0) {
        free(call->given[--call->given_count]);
    }
}

static void keep(char *place, size_t size, tg_bytes bytes) {
    CHECK(bytes.len < size);
    if (bytes.len > 0) {
        memcpy(place, bytes.ptr, bytes.len);
    }
    place[bytes.len] = 0;
}

static entry *find(tg_call *call, tg_bytes key) {
    for (size_t place = 0; place < call->kv_count; place++) {
        if (tg_equal(tg_text(call->kv[place].key), key)) {
            return &call->kv[place];
        }
    }
    return NULL;
}

static uint32_t log_enabled(tg_call *call, uint32_t level) {
    (void)call;
    return level >= TG_DEBUG;
}

static void write_line(tg_call *call, uint32_t level, tg_bytes message, const tg_pair *fields, size_t field_count) {
    CHECK(level == TG_DEBUG && tg_equal(message, tg_text("counted")) && field_count == 2);
    CHECK(tg_equal(fields[0].key, tg_text("topic")) && tg_equal(fields[1].key, tg_text("count")));
    call->lines++;
}

static tg_status publish(tg_call *call, const tg_outgoing *message) {
    CHECK(message->size == sizeof *message && message->broker.ptr == NULL && message->properties == NULL);
    keep(call->topic, sizeof call->topic, message->topic);
    keep(call->payload, sizeof call->payload, message->payload);
    call->qos = message->qos;
    call->publishes++;
    return TG_OK;
}

static tg_status kv_get(tg_call *call, tg_bytes key, tg_bytes *value) {
    entry *found = find(call, key);
    *value = found == NULL ? tg_text(NULL) : give_text(call, found->value);
    return call->refusal != TG_OK ? call->refusal : found == NULL ? TG_NOT_FOUND : TG_OK;
}

static tg_status kv_set(tg_call *call, tg_bytes key, tg_bytes value, uint64_t ttl_ms) {
    entry *found = find(call, key);
    CHECK(ttl_ms == TG_FOREVER);
    if (found == NULL) {
        CHECK(call->kv_count < sizeof call->kv / sizeof *call->kv);
        found = &call->kv[call->kv_count++];
        keep(found->key, sizeof found->key, key);
    }
    keep(found->value, sizeof found->value, value);
    return call->refusal;
}

static tg_status kv_keys(tg_call *call, tg_bytes prefix, tg_bytes after, uint32_t limit, const tg_bytes **keys, size_t *count) {
    size_t place = after.ptr == NULL ? 0 : (size_t)(find(call, after) - call->kv) + 1;
    size_t len = call->kv_count - place < limit ? call->kv_count - place : limit;
    tg_bytes *listed = give(call, len * sizeof *listed);
    CHECK(prefix.len == 0);
    for (size_t next = 0; next < len; next++) {
        listed[next] = give_text(call, call->kv[place + next].key);
    }
    *keys = listed;
    *count = len;
    return call->refusal;
}

static tg_status config_get(tg_call *call, tg_bytes key, tg_bytes *value) {
    CHECK(tg_equal(key, tg_text("prefix")));
    *value = call->prefix == NULL ? tg_text(NULL) : give_text(call, call->prefix);
    return call->prefix == NULL ? TG_NOT_FOUND : TG_OK;
}

static void set_error(tg_call *call, tg_bytes words, uint64_t after_ms) {
    CHECK(after_ms == TG_ANY_DELAY);
    keep(call->error, sizeof call->error, words);
}

static tg_bytes last_error(tg_call *call) {
    return give_text(call, "in words");
}

static const tg_host table = {
    .size = sizeof(tg_host),
    .minor = TG_MINOR,
    .log_enabled = log_enabled,
    .log = write_line,
    .publish = publish,
    .kv_get = kv_get,
    .kv_set = kv_set,
    .kv_keys = kv_keys,
    .config_get = config_get,
    .set_error = set_error,
    .last_error = last_error,
};

static tg_status message(const tg_plugin *plugin, void *state, tg_call *call, const char *topic) {
    tg_message made;
    memset(&made, 0, sizeof made);
    made.size = sizeof made;
    made.qos = TG_AT_LEAST_ONCE;
    made.topic = give_text(call, topic);
    tg_status status = plugin->on_message(state, call, &made);
    take_back(call);
    return status;
}

static tg_status run(const tg_plugin *plugin, void *state, tg_call *call) {
    tg_run made = {sizeof made, TG_SCHEDULE, 0, give_text(call, "sums")};
    tg_status status = plugin->on_schedule(state, call, &made);
    take_back(call);
    return status;
}

static void *start(const tg_plugin *plugin, tg_call *call) {
    void *state = NULL;
    CHECK(plugin->create(call, &state) == TG_OK && state != NULL);
    take_back(call);
    return state;
}

static void each_message_adds_one_to_its_topic(const tg_plugin *plugin) {
    static tg_call call;
    void *state = start(plugin, &call);
    CHECK(message(plugin, state, &call, "a") == TG_OK && message(plugin, state, &call, "b/c") == TG_OK);
    CHECK(strcmp(call.topic, "count/b/c") == 0 && strcmp(call.payload, "1") == 0);
    CHECK(message(plugin, state, &call, "a") == TG_OK);
    CHECK(strcmp(call.topic, "count/a") == 0 && strcmp(call.payload, "2") == 0 && call.qos == TG_AT_LEAST_ONCE);
    CHECK(call.publishes == 3 && call.lines == 3);
    plugin->destroy(state);
}

static void a_run_publishes_the_sums_of_all_pages(const tg_plugin *plugin) {
    static tg_call call;
    call.prefix = "sums/of/all";
    void *state = start(plugin, &call);
    for (int topic = 0; topic < 1001; topic++) {
        char name[16];
        snprintf(name, sizeof name, "t/%04d", topic);
        CHECK(message(plugin, state, &call, name) == TG_OK);
    }
    CHECK(message(plugin, state, &call, "t/0000") == TG_OK);
    CHECK(run(plugin, state, &call) == TG_OK && strcmp(call.topic, "sums/of/all") == 0);
    CHECK(strcmp(call.payload, "{\"topics\":1001,\"messages\":1002}") == 0);
    plugin->destroy(state);
}

static void without_the_grant_it_does_not_start(const tg_plugin *plugin) {
    static tg_call call;
    void *state = NULL;
    call.refusal = TG_OTHER;
    CHECK(plugin->create(&call, &state) == TG_REJECT && state == NULL && strcmp(call.error, "in words") == 0);
    take_back(&call);
}

static void what_the_store_cannot_do_now_is_tried_again(const tg_plugin *plugin) {
    static tg_call call;
    void *state = start(plugin, &call);
    call.refusal = TG_UNAVAILABLE;
    CHECK(message(plugin, state, &call, "a") == TG_RETRY && strcmp(call.error, "in words") == 0);
    call.refusal = TG_TOO_LARGE;
    CHECK(message(plugin, state, &call, "a") == TG_REJECT && call.publishes == 0);
    plugin->destroy(state);
}

static void what_is_no_count_is_told(const tg_plugin *plugin) {
    static tg_call call;
    void *state = start(plugin, &call);
    CHECK(kv_set(&call, tg_text("a"), tg_text("many"), TG_FOREVER) == TG_OK);
    CHECK(message(plugin, state, &call, "a") == TG_REJECT && run(plugin, state, &call) == TG_REJECT);
    CHECK(strcmp(call.error, "what is remembered of this topic is no count") == 0 && call.publishes == 0);
    plugin->destroy(state);
}

int main(void) {
    const tg_plugin *plugin = tidegate_plugin_v1(&table);
    CHECK(plugin->size == sizeof *plugin && tg_equal(plugin->name, tg_text("native-c")));
    each_message_adds_one_to_its_topic(plugin);
    a_run_publishes_the_sums_of_all_pages(plugin);
    without_the_grant_it_does_not_start(plugin);
    what_the_store_cannot_do_now_is_tried_again(plugin);
    what_is_no_count_is_told(plugin);
    return 0;
}
