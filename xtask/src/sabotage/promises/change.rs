//! Promises of handlers that misbehave, of new versions of plugins, and of the configuration.

use super::{CALLS, Edit, INSTANCE, LOST, Promise, Row};

const ARCHIVE: &str = "daemon/src/path/handler/archive/mod.rs";
const CANARY: &str = "daemon/src/path/handler/canary.rs";
const CHOICE: &str = "daemon/src/path/handler/archive/choice.rs";
const CALL_STATE: &str = "daemon/src/path/handler/host/call.rs";
const RELOAD: &str = "daemon/src/control/live/reload.rs";
const STAGES: &str = "daemon/src/gateway/stages.rs";
const RUNNING: &str = "daemon/src/path/handler/running.rs";
const WASM_LIMITS: &str = "daemon/src/path/handler/wasm/limits.rs";
/// Another one.
const RELOAD_STORM: &str = "fault_reload_storm::nothing_is_lost_and_each_version_runs_while_plugins_are_replaced::on_5";

/// All of them.
pub(super) const PROMISES: &[Promise] = &[
    Promise {
        name: "take-what-is-published-past-max-publishes-for-all",
        sentence: "a call that publishes more than it may has failed, whatever it returns",
        edits: &[Edit {
            file: CALL_STATE,
            old: "exceeded.map_or(Ok(publishes), Err)",
            new: "exceeded.map_or(Ok(publishes.clone()), |_| Ok(publishes))",
        }],
        rows: &[Row {
            test: "handler_limits::a_call_over_max_publishes_that_returns_ok_publishes_nothing",
            red: "all calls end with the result limit",
        }],
    },
    Promise {
        name: "give-handlers-all-the-memory-that-they-ask-for",
        sentence: "an instance has max-memory at most",
        edits: &[Edit {
            file: WASM_LIMITS,
            old: "self.memory.grow(current, desired, self.max_memory)",
            new: "self.memory.grow(current, desired, self.max_memory.saturating_mul(4))",
        }],
        rows: &[Row {
            test: "handler_limits::a_handler_has_max_memory_and_not_a_page_more",
            red: "a page more than max-memory",
        }],
    },
    Promise {
        name: "let-init-run-for-ever",
        sentence: "init has the call deadline, and gives its thread back after a tick",
        edits: &[Edit {
            file: INSTANCE,
            old: "store.set_max_component_handles(MAX_HANDLES);\n        store.set_epoch_deadline(1);",
            new: "store.set_max_component_handles(MAX_HANDLES);\n        store.set_epoch_deadline(1 << 40);",
        }],
        rows: &[Row {
            test: "handler_hostile::hostile_plugins_are_refused_in_a_sentence_while_neighbours_work",
            red: "no answer within|nothing came of it within|messages: not within",
        }],
    },
    Promise {
        name: "let-a-handler-keep-its-thread",
        sentence: "a handler that computes gives its thread back after a tick",
        edits: &[Edit {
            file: INSTANCE,
            old: "Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))",
            new: "Ok(UpdateDeadline::Continue(1))",
        }],
        rows: &[Row {
            test: "handler_failures_stay_apart::a_handler_in_an_endless_loop_holds_up_no_other",
            red: "40 messages",
        }],
    },
    Promise {
        name: "restart-with-a-refused-version",
        sentence: "a version that was refused leaves the one that ran, also after a restart",
        edits: &[Edit {
            file: CHOICE,
            old: "(Some(_), Some(_)) => &[Source::File, Source::Copy],",
            new: "(Some(_), Some(_)) => &[Source::File],",
        }],
        rows: &[Row {
            test: "reload_plugin::a_version_that_is_refused_leaves_the_old_one_also_after_a_kill",
            red: "the daemon ended at start",
        }],
    },
    Promise {
        name: "record-before-copy",
        sentence: "the record of a handler's versions names only what is on the disk",
        edits: &[Edit {
            file: ARCHIVE,
            old: "        if self.copy(handler, file.hash()).is_err() {\n",
            new: "        let mut early = before.clone();\n        early.activate(file.hash(), plugin);\n        \
                  durable::replace(&folder.join(RECORD), &early.text())?;\n        \
                  if self.copy(handler, file.hash()).is_err() {\n",
        }],
        rows: &[Row {
            test: "reload_plugin::a_version_that_cannot_be_kept_does_not_run_and_is_tried_again_by_command",
            red: "the daemon ended at start",
        }],
    },
    Promise {
        name: "a-swap-drops-what-waits",
        sentence: "a new version of a plugin gets what waits for its handler",
        edits: &[Edit {
            file: RUNNING,
            old: "        self.0.queue.version_changed();\n        before.plugin.hash()\n",
            new: "        self.0.queue.version_changed();\n        self.0.queue.clear();\n        before.plugin.hash()\n",
        }],
        rows: &[
            Row {
                test: "reload_plugin::a_file_that_is_renamed_into_place_runs_from_then_on_and_no_message_is_lost_or_overtaken::on_5",
                red: "messages",
            },
            Row { test: RELOAD_STORM, red: LOST },
        ],
    },
    Promise {
        name: "failed-calls-remember",
        sentence: "a call that fails on a version on trial remembers nothing",
        edits: &[Edit {
            file: CALLS,
            old: "(Err(_), Some(_)) => None,",
            new: "(Err(_), Some(grant)) => {\n                if let Some(ready) = grant.kv.ready(kv, grant.quota) {\n                    ready.apply();\n                }\n                None\n            }",
        }],
        rows: &[Row {
            test: "reload_canary::what_a_failed_call_on_trial_remembered_and_published_is_undone::on_5",
            red: "\"2 1\"",
        }],
    },
    Promise {
        name: "trials-quarantine",
        sentence: "a call that fails on a version on trial says nothing of quarantine",
        edits: &[Edit {
            file: CALLS,
            old: "self.say_failed_on_trial(trial, &job, &error);",
            new: "self.say_failed_on_trial(trial, &job, &error);\n                turn.shows(sign(&error, true), || error.to_string());",
        }],
        rows: &[Row {
            test: "reload_canary::a_version_that_fails_on_trial_is_rolled_back_and_no_message_is_lost_or_overtaken::on_5",
            red: "400 messages",
        }],
    },
    Promise {
        name: "judged-from-the-first-call",
        sentence: "a version on trial is judged from its 20th call on",
        edits: &[Edit {
            file: CANARY,
            old: "pub const JUDGED_FROM: u32 = 20;",
            new: "pub const JUDGED_FROM: u32 = 1;",
        }],
        rows: &[Row {
            test: "reload_canary::a_version_that_fails_on_trial_is_rolled_back_and_no_message_is_lost_or_overtaken::on_5",
            red: "1 of 1 calls on trial failed",
        }],
    },
    Promise {
        name: "keep-half-of-a-reload",
        sentence: "a reload that fails changes nothing",
        edits: &[Edit {
            file: STAGES,
            old: "        let difference = Difference::between(Some(&self.loaded), &loaded);\n",
            new: "        let difference = Difference::between(Some(&self.loaded), &loaded);
        self.shared.received.limit(loaded.config.received);\n",
        }],
        rows: &[Row {
            test: "reload_configuration::a_reload_that_fails_changes_nothing_and_says_why",
            red: "left == right",
        }],
    },
    Promise {
        name: "ignore-what-needs-a-restart",
        sentence: "a reload that only a restart can make changes nothing, and says so",
        edits: &[Edit { file: RELOAD, old: "if !fixed.is_empty() {", new: "if fixed.len() > 99 {" }],
        rows: &[Row {
            test: "reload_configuration::a_reload_that_fails_changes_nothing_and_says_why",
            red: "cannot change while the daemon runs",
        }],
    },
    Promise {
        name: "reconnect-what-did-not-change",
        sentence: "a broker whose settings stay keeps its connection through a reload",
        edits: &[Edit {
            file: STAGES,
            old: "None if difference.routes.contains(&broker.name) => {
                    self.route(&broker.name, &queues);",
            new: "None if difference.routes.contains(&broker.name) => {
                    self.reconnect(broker, &queues).await;",
        }],
        rows: &[Row { test: "reload_configuration::only_what_differs_changes::on_5", red: "gateway-plant" }],
    },
    Promise {
        name: "keep-a-removed-subscription",
        sentence: "what is subscribed is what is configured, also after a reload",
        edits: &[Edit {
            file: STAGES,
            old: "None if difference.routes.contains(&broker.name) => {
                    self.route(&broker.name, &queues);",
            new: "None if difference.routes.contains(&broker.name) => {",
        }],
        rows: &[Row { test: "reload_configuration::only_what_differs_changes::on_5", red: "the record of plant has" }],
    },
    Promise {
        name: "serve-before-outboxes",
        sentence: "what is parked and comes back at the start is published to brokers that come with it",
        edits: &[
            Edit {
                file: STAGES,
                old: ".filter(comes).for_each(|broker| self.open(broker));",
                new: ".filter(comes).for_each(drop);",
            },
            Edit {
                file: STAGES,
                old: "        let limit = self.shared.parks.limit(broker.id);
        let routes",
                new: "        std::thread::sleep(Duration::from_millis(100));
        self.open(broker);
        let limit = self.shared.parks.limit(broker.id);
        let routes",
            },
        ],
        rows: &[Row {
            test: "park_pause::a_stop_while_messages_come_back_leaves_none_unacknowledged::on_5",
            red: "messages are missing",
        }],
    },
    Promise {
        name: "end-brokers-before-handlers",
        sentence: "what a handler's last call publishes reaches a broker that is removed together with it",
        edits: &[Edit {
            file: STAGES,
            old: "        removed.clone().filter_map(|(name, _)| self.brokers.get(name)).for_each(|stage| stage.session.take_nothing());",
            new: "        for (name, _) in removed.clone() {
            self.remove(name).await;
        }",
        }],
        rows: &[
            Row {
                test: "reload_configuration::what_a_handlers_last_call_publishes_reaches_a_broker_that_is_removed::on_5",
                red: "not within|collect",
            },
            Row {
                test: "reload_configuration::the_dead_letter_of_a_handlers_last_call_reaches_a_broker_that_is_removed::on_5",
                red: "not within|collect",
            },
        ],
    },
    Promise {
        name: "pass-over-what-is-parked-of-a-new-broker",
        sentence: "what came from a broker that is not configured any more stays parked until that is configured again",
        edits: &[Edit {
            file: STAGES,
            old: ".for_each(|handler| handler.queue().look_again(&names));",
            new: ".for_each(drop);",
        }],
        rows: &[Row {
            test: "park_pause::what_came_from_a_broker_that_is_not_configured_stays_parked_until_it_is_again::on_5",
            red: "1 messages: not within",
        }],
    },
    Promise {
        name: "reconnect-before-handlers-serve",
        sentence: "a handler that is changed does not wait for another broker that is connected anew",
        edits: &[Edit {
            file: STAGES,
            old: "Some(BrokerChange::Reconnected) => self.limit(broker),",
            new: "Some(BrokerChange::Reconnected) => self.reconnect(broker, &queues).await,",
        }],
        rows: &[Row {
            test: "reload_configuration::a_changed_handler_serves_while_another_broker_is_waited_for::on_5",
            red: "1 messages: not within",
        }],
    },
    Promise {
        name: "remove-what-was-connected-before",
        sentence: "a broker that is not connected is not removed by a reload while messages in memory wait for it",
        edits: &[Edit {
            file: RELOAD,
            old: "    if let Err(refusal) = leaves_nothing_behind(stages, &difference) {",
            new: "    if let Some(refusal) = None::<Refusal> {",
        }],
        rows: &[Row {
            test: "reload_configuration::a_broker_that_is_lost_while_a_reload_is_prepared_is_not_removed_while_something_waits_for_it",
            red: "Some(0) ",
        }],
    },
];
