//! What Tidegate promises, on the built binary with real brokers, and with scripted ones where no real one shows it. The files
//! follow the way of a message; each test's name is the promise that it holds.

mod session_acknowledgements;
mod session_broker_away;
mod session_broker_restarts;
mod session_by_command;
mod session_login_refused;
mod session_payloads;
mod session_poisoned;
mod session_properties;
mod session_qos;
mod session_source_lost;
mod session_subscriptions;
mod session_tls;
mod session_tls_failures;
mod session_watchdogs;
mod session_web_socket;

mod broker_connect;
mod broker_facts;
mod broker_overlap;
mod broker_reconnect;
mod broker_retained;
mod broker_status;
mod broker_traffic;

mod dispatch_all;
mod dispatch_best_match;
mod dispatch_log_action;
mod dispatch_loop;
mod dispatch_order_per_topic;
mod dispatch_parallel_limit;
mod dispatch_share;
mod dispatch_when;

mod handler_failures_stay_apart;
mod handler_grants;
mod handler_hostile;
mod handler_isolation;
mod handler_limits;
mod handler_log;
mod handler_overload;
mod handler_retry;
mod handler_samples;

mod dead_letters;
mod dead_letters_page;
mod kept_letters;
mod kept_retry;

mod kv_conflicts;
mod kv_memory;
mod kv_safety;

mod outbox_acknowledgement;
mod outbox_backpressure;
mod outbox_bridges;
mod outbox_disk;
mod outbox_limits;

mod park_pause;
mod park_quarantine;

mod fault_all_with_one_failing;
mod fault_bridges_full;
mod fault_broker_killed;
mod fault_connection_cut;
mod fault_daemon_frozen;
mod fault_daemon_killed;
mod fault_daemon_stopped;
mod fault_direction_dropped;
mod fault_disk_full;
mod fault_handler_fails;
mod fault_kv_counter;
mod fault_overload;
mod fault_reload_configuration;
mod fault_reload_storm;
mod fault_retry_and_kill;
mod fault_session_lost;
mod fault_socket_stalled;
mod fault_target_down;
mod fault_target_down_on_disk;

mod reload_canary;
mod reload_plugin;
mod reload_refusals;
mod reload_verdicts;
mod schedule_handler;
mod schedule_publish;
mod schedule_silence;

mod native_conformance;
mod native_faults;
mod native_plugins;

mod admin_limits;
mod admin_schemathesis;
mod admin_socket;
mod admin_topics;

mod control_check;
mod control_demo;
mod control_explain;
mod control_run;
mod control_stop;
mod control_topic_match;

mod operator_added;
mod operator_brokers;
mod operator_check_connect;
mod operator_dead_letters;
mod operator_guide;
mod operator_handlers;
mod operator_import;
mod operator_kv;
mod operator_outbox;
mod operator_pause;
mod operator_publish;
mod operator_recv;
mod operator_schedules;
mod operator_subscriptions;

mod reload_configuration;

mod store_full;
mod store_state;

mod delivery_page;

mod telemetry_certificates;
mod telemetry_health;
mod telemetry_log;
mod telemetry_metrics;
mod telemetry_received;
mod telemetry_trace;
