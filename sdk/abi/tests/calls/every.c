/*
 * Calls every function of tg_host with arguments of its own, and checks every answer: for the test that both sides mean the same by each.
 * What the answers must be is in calls.rs.
 */
#include "tidegate.h"

static const tg_host *host;

/* Rejects with the line where something is not as it should be. */
#define TEXT(line) #line
#define LINE(line) TEXT(line)
#define CHECK(what)                                                          \
    do {                                                                     \
        if (!(what)) {                                                       \
            return tg_reject(host, call, "every.c:" LINE(__LINE__));         \
        }                                                                    \
    } while (0)

static int is(tg_bytes bytes, const char *text) {
    return bytes.ptr != NULL && tg_equal(bytes, tg_text(text));
}

static int instances;

static tg_status create(tg_call *call, void **state) {
    tg_bytes value;
    CHECK(*state == NULL);
    CHECK(host->config_get(call, tg_text("unit"), &value) == TG_OK && is(value, "F"));
    CHECK(host->config_get(call, tg_text("none"), &value) == TG_NOT_FOUND && value.ptr == NULL);
    CHECK(is(host->config_json(call), "{\"unit\":\"F\"}"));
    instances++;
    *state = &instances;
    return TG_OK;
}

static tg_status use_kv(tg_call *call) {
    tg_bytes value;
    const tg_bytes *keys;
    size_t key_count;
    CHECK(host->kv_get(call, tg_text("a"), &value) == TG_OK && is(value, "1"));
    CHECK(host->kv_get(call, tg_text("b"), &value) == TG_NOT_FOUND && value.ptr == NULL);
    CHECK(host->kv_set(call, tg_text("b"), tg_text("2"), TG_FOREVER) == TG_OK);
    CHECK(host->kv_set(call, tg_text("c"), tg_of("3+", 1), 250) == TG_OK);
    CHECK(host->kv_keys(call, tg_text(""), tg_text(NULL), 10, &keys, &key_count) == TG_OK && key_count == 3);
    CHECK(is(keys[0], "a") && is(keys[1], "b") && is(keys[2], "c"));
    CHECK(host->kv_keys(call, tg_text("c"), tg_text("a"), 1, &keys, &key_count) == TG_OK && key_count == 1);
    CHECK(host->kv_delete(call, tg_text("a")) == TG_OK);
    return TG_OK;
}

static tg_status use_properties(tg_call *call, const tg_message *message) {
    const tg_properties *given = message->properties;
    CHECK(given != NULL && given->size == sizeof *given && is(given->content_type, "text/plain"));
    CHECK(given->response_topic.ptr == NULL && is(given->correlation_data, "id"));
    CHECK(given->has_message_expiry && given->message_expiry == 7 && !given->utf8_payload);
    CHECK(given->user_count == 1 && is(given->user[0].key, "k") && is(given->user[0].value, "v"));

    tg_pair user[2] = {{tg_text("x"), tg_text("1")}, {tg_text("x"), tg_text("")}};
    tg_properties properties;
    memset(&properties, 0, sizeof properties);
    properties.size = sizeof properties;
    properties.utf8_payload = 1;
    properties.response_topic = tg_text("answers");
    properties.user = user;
    properties.user_count = 2;
    tg_outgoing outgoing = tg_publish_to(tg_text("out"), tg_text("payload"));
    outgoing.qos = TG_EXACTLY_ONCE;
    outgoing.retain = 1;
    outgoing.broker = tg_text("cloud");
    outgoing.properties = &properties;
    return tg_check(host, call, host->publish(call, &outgoing));
}

static tg_status on_message(void *state, tg_call *call, const tg_message *message) {
    CHECK(state == &instances && message->size == sizeof *message && TG_HAS(message, tg_message, properties));
    if (is(message->topic, "fail")) {
        tg_outgoing outgoing = tg_publish_to(message->topic, message->payload);
        return tg_check(host, call, host->publish(call, &outgoing));
    }
    if (is(message->topic, "retry")) {
        return tg_retry(host, call, "later", 1500);
    }
    CHECK(is(message->broker, "test") && is(message->subscription, "all") && is(message->payload, "x"));
    CHECK(message->attempt == 3 && message->received == 5000000000u && message->qos == TG_AT_LEAST_ONCE);
    CHECK(message->retain == 0 && message->dup == 1);
    CHECK(message->capture_count == 2 && is(message->captures[0], "b") && is(message->captures[1], ""));
    CHECK(host->log_enabled(call, TG_DEBUG) == 0 && host->log_enabled(call, TG_WARN) == 1);
    tg_pair field = {tg_text("topic"), message->topic};
    host->log(call, TG_WARN, tg_text("a line"), &field, 1);
    host->log(call, TG_ERROR, tg_text("another"), NULL, 0);
    tg_status status = use_kv(call);
    return status != TG_OK ? status : use_properties(call, message);
}

static tg_status on_schedule(void *state, tg_call *call, const tg_run *run) {
    tg_readings readings;
    CHECK(state == &instances && run->size == sizeof *run && is(run->name, "hourly") && run->due == 9);
    CHECK(run->trigger == TG_SILENCE);
    readings.size = sizeof readings;
    CHECK(host->system_read(call, &readings) == TG_OK && readings.size == sizeof readings);
    CHECK(readings.cpu_load == 5 && readings.used_memory == 100 && readings.free_memory == 200 && readings.uptime == 300);
    CHECK(is(readings.model, "box") && is(readings.serial_number, "7") && is(readings.os_version, "Test 1"));
    return TG_OK;
}

static void destroy(void *state) {
    if (state == &instances) {
        instances--;
    }
}

/* How many instances there are. */
TG_EXPORT int count_instances(void) {
    return instances;
}

static const tg_plugin plugin = {
    sizeof(tg_plugin), TG_MINOR, TG_LITERAL("every"), TG_LITERAL("1.0"), create, on_message, on_schedule, destroy,
};

TG_EXPORT const tg_plugin *tidegate_plugin_v1(const tg_host *table) {
    host = table;
    return table->size >= sizeof *table && table->minor == TG_MINOR ? &plugin : NULL;
}
