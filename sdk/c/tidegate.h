/*
 * Tidegate: the C ABI of native plugins, version 1.
 *
 * A native plugin is a shared library that Tidegate loads and calls for each MQTT message of the subscriptions that name its handler, for
 * schedules, or for both. This header is all that it needs: C11 or C++17, nothing to link. A whole plugin:
 *
 *     #include "tidegate.h"
 *
 *     static const tg_host *host;
 *
 *     static tg_status on_message(void *state, tg_call *call, const tg_message *message) {
 *         (void)state;
 *         if (message->payload.len == 0) {
 *             return tg_reject(host, call, "the payload is empty");
 *         }
 *         tg_outgoing copy = tg_publish_to(tg_text("copies/all"), message->payload);
 *         copy.qos = message->qos;
 *         return tg_check(host, call, host->publish(call, &copy));
 *     }
 *
 *     static const tg_plugin plugin = {
 *         sizeof(tg_plugin), TG_MINOR, TG_LITERAL("copier"), TG_LITERAL("1.0"), NULL, on_message, NULL, NULL,
 *     };
 *
 *     TG_EXPORT const tg_plugin *tidegate_plugin_v1(const tg_host *table) {
 *         host = table;
 *         return &plugin;
 *     }
 *
 *     cc -std=c11 -Wall -O2 -fPIC -shared -o copier.so copier.c
 *
 * What to know before writing one:
 *
 * Trust     A native plugin is part of the daemon's process. It has no sandbox: a crash is the daemon's crash. What can be WebAssembly
 *           should be; native code is for hardware, libraries and files.
 *
 * Effects   What a call publishes and writes to kv is held back until it returns TG_OK, and then takes effect in one moment; on every
 *           other status it is dropped. Where another call changed what this one read in kv, it is called again at once with the same
 *           message. So a call may be made more than once for a message: what a plugin does elsewhere must bear that.
 *
 * Threads   Each instance of a handler has one state and one thread: create, every call and destroy are made there, never two at once. A
 *           handler with `instances = 4` has four of them at the same time, and so has a library that several handlers use. Two
 *           instances may meet also with `instances = 1`: after a fault, at a reload and on trial, the new one begins before the old one
 *           has ended. So guard what is static, and what is outside of the process. Host functions may be called on that thread alone,
 *           with the tg_call that the running callback was given.
 *
 * Time      A callback must return within the handler's `call-deadline`. One that does not cannot be ended: it is counted, its effects
 *           are dropped, another instance takes its place on another thread, and the handler is quarantined. Its state is destroyed on
 *           its own thread if it ever returns. What the call was given stays valid until then.
 *
 * Memory    Nobody frees what the other side made. What a plugin gets, in arguments or from host functions, is the daemon's and valid
 *           until the running callback returns, unless another end is named: copy what should last. What a plugin gives to a
 *           host function is copied before that returns. What it gives in tg_plugin lives as long as the process: make it static.
 *
 * Unwinding No exception, panic or longjmp may leave a callback: that ends the process. Catch it, and return TG_PANIC.
 *
 * Unload    A library is never unloaded. A new version is loaded beside the old one, with statics of its own. C++ must be compiled with
 *           -fno-gnu-unique: otherwise static variables of inline functions and templates are shared by all versions, and with others'
 *           plugins. When the process ends, destructors of the library run only if no thread is in its code any more.
 *
 * Versions  A major version of this ABI is an entry point of its own. Within it, minor versions append fields to structs, and change nothing
 *           else. Every struct that may grow begins with its size: whoever makes it sets it to sizeof, and whoever reads it takes what
 *           lies beyond as zero. So a plugin runs on daemons that are older or newer than its header. Before using what a
 *           later minor version appended, ask TG_HAS. What is called reserved must be zero.
 */
#ifndef TIDEGATE_H
#define TIDEGATE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The version of the ABI: another one has another entry point. */
#define TG_MAJOR 1u
/** How often fields were appended since. */
#define TG_MINOR 0u

/** Before the definition of the entry point: makes it visible, with its plain name. */
#ifdef __cplusplus
#define TG_EXPORT extern "C" __attribute__((visibility("default")))
#else
#define TG_EXPORT __attribute__((visibility("default")))
#endif

/** Whether the maker of `*object`, a `type`, knew this field. The fields of version 1.0 are always there. */
#define TG_HAS(object, type, field) ((object)->size >= offsetof(type, field) + sizeof((object)->field))

/* ---- How calls end ------------------------------------------------------------------------------------------------------- */

/** How a callback or a host function ended. Always one of the numbers below; take others as a failure. */
typedef int32_t tg_status;

/** It did what was asked. */
#define TG_OK ((tg_status)0)

/* What callbacks return beside it. Say why with set_error before. */

/** The same message or run may work later: the daemon calls again, within the handler's `retry`. */
#define TG_RETRY ((tg_status)1)
/** It will never work: it is not tried again, and becomes a dead letter. */
#define TG_REJECT ((tg_status)2)
/** The code has failed, such as by an exception that nothing caught. Counts as a trap does: the daemon destroys the state, makes a new one,
 *  and tries again as for TG_RETRY. */
#define TG_PANIC ((tg_status)3)

/* What host functions return beside it. last_error says more. */

/** The handler's grants do not permit it, or the call is `create`. */
#define TG_DENIED ((tg_status)16)
/** Not a topic name: empty, too long, or with a wildcard. */
#define TG_INVALID_TOPIC ((tg_status)17)
/** It can never fit into `max-publish-bytes`, into the properties of a message, or into `allow.kv`. */
#define TG_TOO_LARGE ((tg_status)18)
/** There is no room for it: this call has used up `max-publishes` or `max-publish-bytes`, or `allow.kv` is full now. */
#define TG_QUOTA ((tg_status)19)
/** No broker is configured with this name; or the publish names none, and on a schedule the handler has no `default-broker`. */
#define TG_UNKNOWN_BROKER ((tg_status)20)
/** Too much waits for this broker already. Reserved: not returned yet. */
#define TG_OUTBOX_FULL ((tg_status)21)
/** There is no such key. Not a failure: last_error says nothing of it. */
#define TG_NOT_FOUND ((tg_status)22)
/** The daemon's store has failed, or too much waits to be written. */
#define TG_UNAVAILABLE ((tg_status)23)
/** An argument is not what this header asks for: a null pointer, a size that is too small, text that is not UTF-8, an unknown number. */
#define TG_INVALID ((tg_status)24)
/** Something else: see last_error. */
#define TG_OTHER ((tg_status)25)

/* ---- Values ---------------------------------------------------------------------------------------------------------------- */

/**
 * Bytes that somebody else owns. Where they are text, they are UTF-8, and no zero byte follows them: print them with "%.*s".
 *
 * Where a value may be absent, a null `ptr` says that it is; an empty one has another `ptr` and the `len` 0. Elsewhere both are empty.
 * Never grows.
 */
typedef struct tg_bytes {
    const char *ptr;
    size_t len;
} tg_bytes;

/** Two texts: a user property (MQTT 5 section 3.3.2.3.7), or a field of a log line. Never grows. */
typedef struct tg_pair {
    tg_bytes key;
    tg_bytes value;
} tg_pair;

/** The MQTT 5 properties of a message. All zero but the size: none of them. */
typedef struct tg_properties {
    uint32_t size;
    /** Seconds left when the message arrived, or to set on the way out; only where has_message_expiry is not 0. */
    uint32_t message_expiry;
    uint8_t has_message_expiry;
    /** The payload is declared to be UTF-8. */
    uint8_t utf8_payload;
    uint8_t reserved[6];
    /** Text or absent: the MIME type of the payload. */
    tg_bytes content_type;
    /** Text or absent: where an answer is expected. */
    tg_bytes response_topic;
    /** Or absent: tells the asker which request an answer belongs to. */
    tg_bytes correlation_data;
    /** In order; keys may repeat. May be null where there are none. */
    const tg_pair *user;
    size_t user_count;
} tg_properties;

/* Quality of service (MQTT 5 section 4.3). */
#define TG_AT_MOST_ONCE ((uint8_t)0)
#define TG_AT_LEAST_ONCE ((uint8_t)1)
#define TG_EXACTLY_ONCE ((uint8_t)2)

/** A message that matched a subscription of the handler. */
typedef struct tg_message {
    uint32_t size;
    /** Which try of this message it is, from 1. It begins at 1 again when the broker sends the message again, after a lost connection or a
     *  restart. */
    uint32_t attempt;
    /** When the daemon received it: nanoseconds since the Unix epoch (CLOCK_REALTIME). */
    uint64_t received;
    /** As received on the wire: never TG_EXACTLY_ONCE. */
    uint8_t qos;
    /** A retained message replayed by the broker. */
    uint8_t retain;
    /** The broker may have sent it before. */
    uint8_t dup;
    uint8_t reserved[5];
    /** Text: the name of the configured broker that it came from. */
    tg_bytes broker;
    /** Text: the name of the subscription that won. */
    tg_bytes subscription;
    /** Text. */
    tg_bytes topic;
    /** Any bytes, also none. */
    tg_bytes payload;
    /** Texts: the topic levels that the subscription's wildcards matched, in order. What `#` matched is one entry, empty for the parent
     *  level itself. */
    const tg_bytes *captures;
    size_t capture_count;
    /** Null on a 3.1.1 session. */
    const tg_properties *properties;
} tg_message;

/** A message to publish: make it with tg_publish_to. */
typedef struct tg_outgoing {
    uint32_t size;
    uint8_t qos;
    /** The broker keeps it for later subscribers. */
    uint8_t retain;
    uint8_t reserved[2];
    /** Text. */
    tg_bytes topic;
    /** Any bytes, also none. */
    tg_bytes payload;
    /** Text: the name of a configured broker. Absent: the broker that the message came from; on silence that of the silent subscription; on a
     *  schedule the handler's `default-broker`. */
    tg_bytes broker;
    /** Or null. Sent where the target broker's session speaks MQTT 5. */
    const tg_properties *properties;
} tg_outgoing;

/* What made a run due. */
#define TG_SCHEDULE 0u
#define TG_SILENCE 1u

/** What a handler runs for without a message. */
typedef struct tg_run {
    uint32_t size;
    /** TG_SCHEDULE, or TG_SILENCE: nothing came for a subscription for as long as its `silence` says. */
    uint32_t trigger;
    /** When it was due: nanoseconds since the Unix epoch. It runs a little later. */
    uint64_t due;
    /** Text: the name of the schedule, or of the silent subscription. */
    tg_bytes name;
} tg_run;

/** Readings of the machine, at most a second old. */
typedef struct tg_readings {
    /** Set it to sizeof(tg_readings) before the call: no more is written. */
    uint32_t size;
    /** Percent over all cores, since the reading before. */
    uint32_t cpu_load;
    /** Bytes; with free_memory they are all of the memory. */
    uint64_t used_memory;
    uint64_t free_memory;
    /** Seconds since the machine started. */
    uint64_t uptime;
    /** Texts; "unknown" where the machine does not tell, or not to the daemon's user. */
    tg_bytes model;
    tg_bytes serial_number;
    tg_bytes os_version;
} tg_readings;

/* ---- What a plugin may ask of the daemon ------------------------------------------------------------------------------------ */

/** The call in progress. Valid until the callback that was given it returns, on its thread alone. */
typedef struct tg_call tg_call;

/* Levels of log lines: each step; for finding a fault; what happens seldom, and should; wrong and mended; wrong and not mended. Numbers
 * above count as TG_ERROR. */
#define TG_TRACE 0u
#define TG_DEBUG 1u
#define TG_INFO 2u
#define TG_WARN 3u
#define TG_ERROR 4u

/** For kv_set: the key stays until it is set again or deleted. */
#define TG_FOREVER UINT64_MAX
/** For set_error: the daemon decides when to try again. */
#define TG_ANY_DELAY UINT64_MAX

/** The daemon's functions. The table lives as long as the process, and is the same for all plugins and handlers. */
typedef struct tg_host {
    uint32_t size;
    /** TG_MINOR, as the daemon knows it. */
    uint32_t minor;

    /** Whether a line of this level would be kept: 0 or 1. Ask before formatting a line that is seldom kept. */
    uint32_t (*log_enabled)(tg_call *call, uint32_t level);

    /** Writes a line to the daemon's log, with the handler's name added there. Keep the text constant and put what varies into fields, which
     *  may be null where there are none. Lines past the handler's rate limit are counted and dropped. */
    void (*log)(tg_call *call, uint32_t level, tg_bytes message, const tg_pair *fields, size_t field_count);

    /** Holds a publish back until the call returns TG_OK; then they leave in the order of these calls.
     *  TG_DENIED: `allow.publish` does not grant it, or this is `create`. TG_INVALID_TOPIC, TG_TOO_LARGE, TG_QUOTA, TG_UNKNOWN_BROKER,
     *  TG_INVALID, TG_OTHER. After TG_QUOTA, and after TG_TOO_LARGE for what alone exceeds `max-publish-bytes`, the call
     *  fails by this limit, whatever it returns. TG_TOO_LARGE are also properties of more than 65,535 bytes, which the call survives. */
    tg_status (*publish)(tg_call *call, const tg_outgoing *message);

    /* kv: what the handler remembers, shared by its instances. It survives a restart, a new version and a change of the configuration.
     * `allow.kv` grants it, and says how large all of it may be. A call sees its own writes. In `create` it may be read, not written.
     * All of them return TG_UNAVAILABLE, TG_INVALID, and TG_OTHER: no grant, a write in `create`, or more than 10,000 keys in one call. */

    /** Gives the value of a key. TG_NOT_FOUND: it has none, and `*value` is absent. TG_TOO_LARGE: the key is longer than 512 bytes. */
    tg_status (*kv_get)(tg_call *call, tg_bytes key, tg_bytes *value);

    /** Sets a key. After `ttl_ms` milliseconds it is absent again; TG_FOREVER: never. Each time it is set decides that anew.
     *  TG_QUOTA: `allow.kv` is full. TG_TOO_LARGE: the key is longer than 512 bytes, or the entry alone larger than `allow.kv`. */
    tg_status (*kv_set)(tg_call *call, tg_bytes key, tg_bytes value, uint64_t ttl_ms);

    /** Deletes a key. TG_OK also where there is none. */
    tg_status (*kv_delete)(tg_call *call, tg_bytes key);

    /** Gives the keys that start with `prefix` and come after `after` (absent: from the first), ordered by their bytes: at most `limit` of
     *  them, and at most 1,000. For the next page, give the last one as `after`. */
    tg_status (*kv_keys)(tg_call *call, tg_bytes prefix, tg_bytes after, uint32_t limit, const tg_bytes **keys, size_t *key_count);

    /* config: the handler's `[handlers.NAME.config]` table, which does not change while an instance lives. */

    /** Gives a value: a string as it is, anything else as JSON. TG_NOT_FOUND: there is none, and `*value` is absent. */
    tg_status (*config_get)(tg_call *call, tg_bytes key, tg_bytes *value);

    /** Gives the whole table as JSON: "{}" where there is none. */
    tg_bytes (*config_json)(tg_call *call);

    /** Reads the machine. TG_DENIED: `allow.system` does not grant it. TG_INVALID. */
    tg_status (*system_read)(tg_call *call, tg_readings *readings);

    /** Says why the callback is going to return another status than TG_OK, and for TG_RETRY after how many milliseconds to try again at the
     *  earliest. The last one counts; TG_OK forgets it. */
    void (*set_error)(tg_call *call, tg_bytes words, uint64_t after_ms);

    /** Says in words why the last host function of this call that failed did. Empty where none did; TG_NOT_FOUND is no failure. */
    tg_bytes (*last_error)(tg_call *call);
} tg_host;

/* ---- What the daemon asks of a plugin --------------------------------------------------------------------------------------- */

/** A plugin. Lives as long as the process and never changes: make it `static const`. */
typedef struct tg_plugin {
    uint32_t size;
    /** TG_MINOR, as the plugin's header has it. */
    uint32_t minor;
    /** Texts for people, in logs and listings. */
    tg_bytes name;
    tg_bytes version;

    /** Begins an instance: checks its configuration, and sets `*state`, which is null before, to whatever the calls should get. Any status
     *  but TG_OK refuses the plugin, with the words of set_error; then `destroy` is not called. May be null. */
    tg_status (*create)(tg_call *call, void **state);

    /** Handles a message. Null: the handler takes none. */
    tg_status (*on_message)(void *state, tg_call *call, const tg_message *message);

    /** Runs on schedules and on silence. Null: the handler does not. One of on_message and on_schedule must be there. */
    tg_status (*on_schedule)(void *state, tg_call *call, const tg_run *run);

    /** Ends an instance whose `create` returned TG_OK. No host function may be called. May be null. */
    void (*destroy)(void *state);
} tg_plugin;

/** The one symbol that a plugin exports. Called once in a process that has loaded the library, before all else, on any thread: in the daemon's,
 *  and before that in one that only tries whether it loads, and ends. Keep `host`. A plugin that returns null is refused. */
__attribute__((visibility("default"))) const tg_plugin *tidegate_plugin_v1(const tg_host *host);

/* ---- Conveniences: compiled into the plugin ---------------------------------------------------------------------------------- */

/** The initialiser of a tg_bytes, of a string literal. */
#define TG_LITERAL(text) { (text), sizeof(text) - 1 }

/** The bytes of a string that ends in a zero byte; of a null pointer, an absent value. */
static inline tg_bytes tg_text(const char *text) {
    tg_bytes bytes;
    bytes.ptr = text;
    bytes.len = text == NULL ? 0 : strlen(text);
    return bytes;
}

/** So many bytes from here. */
static inline tg_bytes tg_of(const void *ptr, size_t len) {
    tg_bytes bytes;
    bytes.ptr = (const char *)ptr;
    bytes.len = len;
    return bytes;
}

/** Whether both are the same bytes. */
static inline int tg_equal(tg_bytes a, tg_bytes b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/** A message to publish: QoS 0, not retained, without properties, to the broker that the handled message came from. */
static inline tg_outgoing tg_publish_to(tg_bytes topic, tg_bytes payload) {
    tg_outgoing outgoing;
    memset(&outgoing, 0, sizeof outgoing);
    outgoing.size = (uint32_t)sizeof outgoing;
    outgoing.topic = topic;
    outgoing.payload = payload;
    return outgoing;
}

/** Rejects the message in these words: `return tg_reject(host, call, "no such device");` */
static inline tg_status tg_reject(const tg_host *host, tg_call *call, const char *words) {
    host->set_error(call, tg_text(words), TG_ANY_DELAY);
    return TG_REJECT;
}

/** Asks for the message again in these words, not before so many milliseconds, or TG_ANY_DELAY. */
static inline tg_status tg_retry(const tg_host *host, tg_call *call, const char *words, uint64_t after_ms) {
    host->set_error(call, tg_text(words), after_ms);
    return TG_RETRY;
}

/** What a callback should return after a host function ended so: TG_OK, or with that function's words a retry where it may work later, else a
 *  rejection. */
static inline tg_status tg_check(const tg_host *host, tg_call *call, tg_status status) {
    switch (status) {
    case TG_OK:
        return TG_OK;
    case TG_NOT_FOUND:
        return tg_reject(host, call, "there is no such key");
    case TG_QUOTA:
    case TG_UNAVAILABLE:
    case TG_OUTBOX_FULL:
        host->set_error(call, host->last_error(call), TG_ANY_DELAY);
        return TG_RETRY;
    default:
        host->set_error(call, host->last_error(call), TG_ANY_DELAY);
        return TG_REJECT;
    }
}

#ifdef __cplusplus
}
#endif

#endif /* TIDEGATE_H */
