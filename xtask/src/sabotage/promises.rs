//! What the daemon promises of delivery, how each promise is broken, and which scenarios must notice.
//!
//! Data alone, fed to the rest of `sabotage`. A promise of `docs/delivery.md` belongs here when a scenario claims to hold
//! it. An edit is the smallest that breaks its promise and nothing else; a test below finds those that the sources have left
//! behind.

/// One promise.
pub struct Promise {
    /// What the sabotage does, as a name.
    pub name: &'static str,
    /// The promise that it breaks.
    pub sentence: &'static str,
    /// How.
    pub edits: &'static [Edit],
    /// The scenarios that must fail, each of them.
    pub rows: &'static [Row],
}

/// A scenario that must notice.
pub struct Row {
    /// Its name.
    pub test: &'static str,
    /// Words of its failure: it must fail over this and nothing else. Where it may notice in several ways, with `|` between them.
    pub red: &'static str,
}

impl Row {
    /// Whether it is of the fault bench, where what is lost shows only once nothing has come for a minute.
    pub fn is_long(&self) -> bool {
        self.test.starts_with("fault_")
    }
}

/// A change of one file.
#[derive(Clone, Copy)]
pub struct Edit {
    /// From the top of the repository.
    pub file: &'static str,
    /// What stands there, exactly once.
    pub old: &'static str,
    /// What stands there instead.
    pub new: &'static str,
}

const ACK: &str = "daemon/src/path/session/ack.rs";
const ADMISSION: &str = "daemon/src/path/outbox/admission.rs";
const ARCHIVE: &str = "daemon/src/path/handler/archive/mod.rs";
const CALLS: &str = "daemon/src/path/handler/instance.rs";
const CANARY: &str = "daemon/src/path/handler/canary.rs";
const CHOICE: &str = "daemon/src/path/handler/archive/choice.rs";
const CALL_STATE: &str = "daemon/src/path/handler/host/call.rs";
const FEEDER: &str = "daemon/src/path/session/feeder.rs";
const FILE: &str = "daemon/src/store/tables.rs";
const GATE: &str = "daemon/src/path/dispatch/gate.rs";
const HELD: &str = "daemon/src/path/dispatch/held.rs";
const INSTANCE: &str = "daemon/src/path/handler/wasm/instance.rs";
const KEEP: &str = "daemon/src/path/dead_letter/keep.rs";
const KEPT_OUTBOX: &str = "daemon/src/path/outbox/keep.rs";
const KV: &str = "daemon/src/path/kv/mod.rs";
const LANES: &str = "daemon/src/path/dispatch/lanes.rs";
const LINK: &str = "daemon/src/path/session/link.rs";
const LETTERS: &str = "daemon/src/path/outbox/dead_letter.rs";
const OUTBOX: &str = "daemon/src/path/outbox/queue.rs";
const OUTBOXES: &str = "daemon/src/path/outbox/mod.rs";
const PARK: &str = "daemon/src/path/park/mod.rs";
const PARKING: &str = "daemon/src/path/dispatch/parking.rs";
const POLLER: &str = "daemon/src/path/session/poller.rs";
const RELOAD: &str = "daemon/src/control/live/reload.rs";
const STAGES: &str = "daemon/src/gateway/stages.rs";
const STORE_QUEUE: &str = "daemon/src/store/queue.rs";
const QUEUE: &str = "daemon/src/path/dispatch/queue.rs";
const RECEIPT: &str = "daemon/src/path/receipt.rs";
const RING: &str = "daemon/src/path/session/ring.rs";
const ROUTER: &str = "daemon/src/path/router/mod.rs";
const RUNNING: &str = "daemon/src/path/handler/running.rs";
const WASM_LIMITS: &str = "daemon/src/path/handler/wasm/limits.rs";

/// What a row of the fault bench says of outputs that do not come.
const LOST: &str = "lost:|stands still before";

/// A row whose name is long.
const FAULT_ALL: &str =
    "fault_all_with_one_failing::a_handler_that_always_rejects_is_called_once_and_harms_no_other::on_5";

/// Another one.
const RELOAD_STORM: &str = "fault_reload_storm::nothing_is_lost_and_each_version_runs_while_plugins_are_replaced::on_5";

/// All of them.
pub const PROMISES: &[Promise] = &[
    Promise {
        name: "acknowledge-on-receipt",
        sentence: "a message is acknowledged only once what it caused is safe",
        edits: &[Edit {
            file: POLLER,
            old: "let token = Some(AckToken::new(right, hand));",
            new: "let token = AckToken::new(right, hand);\n        token.settle();\n        let token = Some(token);",
        }],
        rows: &[
            Row {
                test: "outbox_acknowledgement::a_daemon_killed_in_mid_stream_loses_nothing_and_keeps_the_order::on_5",
                red: "the missing messages",
            },
            Row { test: "fault_daemon_killed::nothing_is_lost_and_each_topic_stays_in_order::on_5", red: "lost:" },
        ],
    },
    Promise {
        name: "acknowledge-out-of-order",
        sentence: "acknowledgements leave in the order in which the messages came",
        edits: &[
            Edit {
                file: RING,
                old: "if self.unwritten >= self.window.messages || !self.slots.front()?.settled {",
                new: "if self.unwritten >= self.window.messages {",
            },
            // What was told stays in its place, told apart by its identifier, until all before it was.
            Edit {
                file: RING,
                old: "        let slot = self.slots.pop_front()?;
        self.packets.remove(&slot.received.packet);
        self.first += 1;
        self.bytes -= slot.received.weight + MESSAGE_OVERHEAD;
        self.unwritten += 1;
        Some(slot.received)",
                new: "        let untold = |slot: &&Slot| slot.settled && self.packets.contains(&slot.received.packet);
        let received = self.slots.iter().find(untold)?.received;
        self.packets.remove(&received.packet);
        let told = |slot: &mut Slot| slot.settled && !self.packets.contains(&slot.received.packet);
        while let Some(slot) = self.slots.pop_front_if(told) {
            self.first += 1;
            self.bytes -= slot.received.weight + MESSAGE_OVERHEAD;
        }
        self.unwritten += 1;
        Some(received)",
            },
        ],
        rows: &[
            Row {
                test: "session_acknowledgements::acknowledgements_leave_in_the_order_of_arrival::on_5",
                red: "acknowledged in the order of arrival",
            },
            Row { test: "fault_daemon_stopped::nothing_is_lost_and_nothing_runs_twice::on_5", red: "which came first" },
        ],
    },
    Promise {
        name: "acknowledge-before-the-targets-puback",
        sentence: "a message is acknowledged only once the target broker has acknowledged what was published for it",
        edits: &[Edit {
            file: OUTBOXES,
            old: "match self.offer(effects, Owner::Call(completion), accepted) {",
            new: "self.finish(Owner::Call(completion), End::Delivered, &PublishEnd::Delivered(Qos::AtMostOnce));
        match self.offer(effects, Owner::Command(oneshot::channel().0), accepted) {",
        }],
        rows: &[
            Row {
                test: "outbox_acknowledgement::an_input_stays_unacknowledged_while_the_target_broker_is_down::on_5",
                red: "nothing is final",
            },
            Row { test: "fault_daemon_killed::nothing_is_lost_and_each_topic_stays_in_order::on_3_1_1", red: "lost:" },
        ],
    },
    Promise {
        name: "acknowledge-once-the-target-was-sent-it",
        sentence: "what is on its way to the target counts as delivered only with the target's acknowledgement",
        edits: &[Edit {
            file: FEEDER,
            old: "            Ok(()) => Attempt::Sent,
            Err(NoRoom) => {
                core.outboxes.put_back",
            new: "            Ok(()) => {
                core.outboxes.delivered(core.id, entry, qos);
                Attempt::Sent
            }
            Err(NoRoom) => {
                core.outboxes.put_back",
        }],
        rows: &[
            Row {
                test: "session_acknowledgements::no_acknowledgement_leaves_before_that_of_the_output_came::on_3_1_1",
                red: "the daemon sent",
            },
            Row { test: "fault_connection_cut::nothing_is_lost_and_each_topic_stays_in_order::on_3_1_1", red: "lost:" },
        ],
    },
    Promise {
        name: "acknowledge-with-the-first-of-several-calls",
        sentence: "with dispatch = \"all\" a message is acknowledged only once every call is final",
        edits: &[Edit {
            file: RECEIPT,
            old: "if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {\n            self.receipt.conclude(",
            new: "if self.open.swap(0, Ordering::AcqRel) > 0 {\n            self.receipt.conclude(",
        }],
        rows: &[
            Row {
                test: "dispatch_all::no_acknowledgement_leaves_before_the_last_call_is_final::on_5",
                red: "before the output of slow came PubAck",
            },
            Row { test: FAULT_ALL, red: "acknowledged before their outputs" },
        ],
    },
    Promise {
        name: "leave-what-failed-unacknowledged",
        sentence: "a message whose call failed for good is acknowledged, and holds up nothing behind it",
        edits: &[Edit {
            file: RECEIPT,
            old: "!matches!(self, Outcome::Returned | Outcome::DroppedShutdown)",
            new: "!matches!(self, Outcome::Returned | Outcome::DroppedShutdown | Outcome::DeadLetter)",
        }],
        rows: &[Row {
            test: "outbox_acknowledgement::what_failed_is_acknowledged_and_does_not_come_again::on_5",
            red: "messages received from plant",
        }],
    },
    Promise {
        name: "acknowledge-what-a-stop-leaves",
        sentence: "what a stop does not finish stays with the broker",
        edits: &[Edit {
            file: RECEIPT,
            old: "!matches!(self, Outcome::Returned | Outcome::DroppedShutdown)",
            new: "!matches!(self, Outcome::Returned)",
        }],
        rows: &[
            Row {
                test: "control_stop::what_comes_during_a_stop_stays_with_the_broker::on_5",
                red: "what came before the stop is acknowledged, and only that",
            },
            Row { test: "fault_daemon_stopped::nothing_is_lost_and_nothing_runs_twice::on_5", red: "lost:" },
        ],
    },
    Promise {
        name: "acknowledge-before-the-commit",
        sentence: "a message whose publish goes to an outbox on disk is acknowledged only once that is synced",
        edits: &[Edit {
            file: KEPT_OUTBOX,
            old: "        if !self.journal.write(batch, rows) {",
            new: "        if let Some(store) = self.journal.store() {
            store.submit_later(rows);
            self.admission.synced(batch, changes);
        } else {",
        }],
        rows: &[Row {
            test: "outbox_disk::what_is_acknowledged_is_on_the_disk_when_the_daemon_is_killed::on_5",
            red: "the missing messages",
        }],
    },
    Promise {
        name: "write-before-memory-is-safe",
        sentence: "what a call writes is written once its publishes to brokers in memory are safe",
        edits: &[Edit {
            file: ADMISSION,
            old: "        let settled = batch.open == 0;",
            new: "        let settled = batch.open == 0 || batch.writes.is_some();",
        }],
        rows: &[Row {
            test: "outbox_disk::what_is_for_a_broker_in_memory_is_safe_before_anything_is_written::on_5",
            red: "the other is not safe yet",
        }],
    },
    Promise {
        name: "drop-when-the-outbox-is-full",
        sentence: "a full outbox makes calls wait, and drops nothing",
        edits: &[Edit {
            file: ADMISSION,
            old: "            if let Some(full) = self.rejects(&demand).filter(|_| terms.mode == Mode::Rejectable) {",
            new: "            if !behind {
                return Offered::Purged(tag);
            }
            if let Some(full) = self.rejects(&demand).filter(|_| terms.mode == Mode::Rejectable) {",
        }],
        rows: &[
            Row { test: "outbox_limits::calls_wait_while_the_outbox_is_full::on_5", red: "a call waits: not within" },
            Row {
                test: "fault_target_down::a_full_outbox_holds_the_source_broker_back::on_5",
                red: "inputs are final whose outputs wait|nothing moves: not within",
            },
        ],
    },
    Promise {
        name: "let-a-full-outbox-grow",
        sentence: "an outbox holds no more than its limits",
        edits: &[Edit {
            file: ADMISSION,
            old: "        if messages == 0 {\n            None",
            new: "        if messages < usize::MAX {\n            None",
        }],
        rows: &[Row {
            test: "outbox_limits::calls_wait_while_the_outbox_is_full::on_5",
            red: "a call waits: not within",
        }],
    },
    Promise {
        name: "keep-what-is-too-old",
        sentence: "what is older than max-age and not on its way is dropped",
        edits: &[Edit {
            file: ADMISSION,
            old: "        Some(slot.outbox.oldest_unsent()?.1? + slot.limits.max_age?)",
            new: "        slot.outbox.oldest_unsent()?.1.filter(|_| false)",
        }],
        rows: &[Row {
            test: "outbox_limits::what_is_too_old_goes_while_its_broker_is_away::on_5",
            red: "messages from plant reach their end: not within",
        }],
    },
    Promise {
        name: "drop-when-the-queue-is-full",
        sentence: "QoS 1 messages wait beyond a handler's full queue",
        edits: &[Edit {
            file: LANES,
            old: "if place.delivery == Delivery::Droppable {",
            new: "if place.delivery == Delivery::Droppable || place.delivery == Delivery::Kept {",
        }],
        rows: &[Row {
            test: "handler_overload::messages_with_qos_1_wait_beyond_the_queue::on_5",
            red: "300 messages: not within",
        }],
    },
    Promise {
        name: "dispatch-a-copy-twice",
        sentence: "a message that a broker sends in several copies for overlapping topics is handled once",
        edits: &[Edit {
            file: ROUTER,
            old: "domains.retain(|places| counts(places));",
            new: "domains.retain(|places| counts(places) || true);",
        }],
        rows: &[
            Row {
                test: "broker_overlap::partly_overlapping_filters_run_one_handler_once_but_on_3_1_1::on_mosquitto_5",
                red: "each is handled once",
            },
            Row {
                test: "fault_handler_fails::each_message_has_its_effect_once_and_in_order::on_5",
                red: "each message is handled to its end once",
            },
        ],
    },
    Promise {
        name: "forget-the-unstarted-of-a-lost-connection",
        sentence: "what was taken in before a connection was lost is handled when the broker has forgotten the session",
        edits: &[Edit {
            file: ACK,
            old: "let fate = if session_present { Fate::Returned } else { Fate::Open };",
            new: "let fate = if session_present { Fate::Returned } else { Fate::Returned };",
        }],
        rows: &[
            Row {
                test: "session_acknowledgements::a_message_that_was_not_started_is_handled_when_the_session_is_gone::on_5",
                red: "the daemon sends a packet",
            },
            Row { test: "fault_session_lost::what_was_delivered_has_its_output_once::on_5", red: "lost:" },
        ],
    },
    Promise {
        name: "run-the-unstarted-that-come-again",
        sentence: "what was taken in and not begun before a connection was lost is left to a broker that sends it again",
        edits: &[Edit {
            file: ACK,
            old: "let fate = if session_present { Fate::Returned } else { Fate::Open };",
            new: "let fate = if session_present { Fate::Open } else { Fate::Open };",
        }],
        rows: &[Row {
            test: "session_acknowledgements::a_message_that_was_not_started_is_left_to_a_resumed_session::on_5",
            red: "what was begun is published twice, what was not is published once",
        }],
    },
    Promise {
        name: "forget-what-a-lost-target-was-sent",
        sentence: "what was sent to a target and not acknowledged is sent again on its next connection",
        edits: &[Edit {
            file: OUTBOX,
            old: "(entry.state, entry.tried) = (State::Unsent, true);",
            new: "entry.tried = true;",
        }],
        rows: &[
            Row {
                test: "outbox_bridges::a_target_broker_that_restarts_gets_everything_in_order::on_5",
                red: "the missing messages",
            },
            Row { test: "fault_socket_stalled::a_target_that_stalls_is_given_up_and_nothing_is_lost", red: LOST },
            Row {
                test: "fault_direction_dropped::a_target_that_is_heard_or_hears_in_one_direction_alone_loses_nothing",
                red: LOST,
            },
        ],
    },
    Promise {
        name: "wait-for-ever-for-a-silent-broker",
        sentence: "a connection of which nothing comes any more is given up with its keep alive",
        edits: &[Edit {
            file: LINK,
            old: "                if !self.heard {",
            new: "                if !self.heard && self.connecting {",
        }],
        rows: &[
            Row {
                test: "session_watchdogs::each_silence_has_its_deadline_its_sentence_and_its_count",
                red: "the broker does not answer pings",
            },
            Row {
                test: "fault_socket_stalled::a_source_that_stalls_is_given_up_and_nothing_is_lost",
                red: "the daemon connects again: not within",
            },
            Row {
                test: "fault_direction_dropped::a_source_that_is_heard_or_hears_in_one_direction_alone_loses_nothing",
                red: "the daemon connects again: not within",
            },
        ],
    },
    Promise {
        name: "take-a-packet-identifier-for-a-message",
        sentence: "what comes again on another connection is handled again, whatever came with its packet identifier before",
        edits: &[Edit {
            file: POLLER,
            old: "let token = Some(AckToken::new(right, hand));",
            new: "static TAKEN: std::sync::Mutex<std::collections::BTreeSet<(String, u16)>> =
            std::sync::Mutex::new(std::collections::BTreeSet::new());
        let came = (self.connection.core.broker.name.to_string(), arrival.packet);
        let first = TAKEN.lock().is_ok_and(|mut taken| taken.insert(came));
        let token = AckToken::new(right, hand);
        if arrival.dup && !first {
            return token.settle();
        }
        let token = Some(token);",
        }],
        rows: &[
            Row {
                test: "session_acknowledgements::a_message_that_was_not_started_is_left_to_a_resumed_session::on_5",
                red: "the daemon sends a packet",
            },
            Row { test: "fault_broker_killed::nothing_is_lost_and_each_topic_stays_in_order::on_5", red: LOST },
        ],
    },
    Promise {
        name: "publish-in-another-order",
        sentence: "publishes leave in the order in which their messages came",
        edits: &[Edit {
            file: OUTBOX,
            old: "        let place = self.unsent()?;
        self.cursor = place + 1;",
            new: "        let unsent = self.unsent()?;
        let next_is_unsent = self.entries.get(unsent + 1).is_some_and(|entry| entry.state == State::Unsent);
        let place = if next_is_unsent { unsent + 1 } else { unsent };
        self.cursor = unsent;",
        }],
        rows: &[Row {
            test: "outbox_bridges::more_publishes_than_the_outbox_holds_wait_and_leave_in_order",
            red: "each once, in order",
        }],
    },
    Promise {
        name: "publish-twice",
        sentence: "what a call publishes once leaves once while no connection is lost",
        edits: &[Edit {
            file: ADMISSION,
            old: "        for Publish { broker, message } in publishes {
            self.touch(broker);",
            new: "        let publishes: Vec<Publish> = publishes
            .into_iter()
            .flat_map(|publish| [Publish { broker: publish.broker, message: publish.message.clone() }, publish])
            .collect();
        for Publish { broker, message } in publishes {
            self.touch(broker);",
        }],
        rows: &[Row {
            test: "outbox_bridges::bridges_in_both_directions_do_not_wait_for_each_other::on_5",
            red: "each once, in order",
        }],
    },
    Promise {
        name: "spread-a-topic-over-instances",
        sentence: "messages of one topic reach a handler in the order in which they came",
        edits: &[Edit {
            file: QUEUE,
            old: "        let shard = (topic % self.shards as u64) as usize;",
            new: "        let number = |sum: u64, byte: &u8| sum.wrapping_mul(31).wrapping_add(u64::from(*byte));
        let topic = message.payload.iter().fold(topic, number);
        let shard = (topic % self.shards as u64) as usize;",
        }],
        rows: &[Row {
            test: "dispatch_order_per_topic::each_topic_stays_in_order_under_load_with_several_instances::on_5",
            red: "each once, in order",
        }],
    },
    Promise {
        name: "give-up-at-the-first-failure",
        sentence: "a call that failed is made again, as often as retry says",
        edits: &[Edit {
            file: "daemon/src/path/dispatch/retry.rs",
            old: "        if calls > retry.max {",
            new: "        if calls > 0 {",
        }],
        rows: &[Row {
            test: "handler_retry::a_message_is_handled_again_and_only_its_topic_waits::on_5",
            red: "4 messages: not within",
        }],
    },
    Promise {
        name: "pass-a-message-that-is-called-again",
        sentence: "the later messages of a topic wait for one that is to be called again",
        edits: &[Edit { file: HELD, old: "if self.topics.is_empty() { None }", new: "if true { None }" }],
        rows: &[
            Row {
                test: "handler_retry::a_message_is_handled_again_and_only_its_topic_waits::on_5",
                red: "right: [\"free\", \"bad\", \"behind\", \"last\"]",
            },
            Row {
                test: "fault_handler_fails::each_message_has_its_effect_once_and_in_order::on_3_1_1",
                red: "out of order:",
            },
        ],
    },
    Promise {
        name: "publish-what-a-failed-call-held-back",
        sentence: "a call that does not return ok publishes nothing",
        edits: &[Edit {
            file: INSTANCE,
            old: "            (Ok(Err(failure)), Ok(_)) => Err(returned_error(&self.host, failure)),",
            new: "            (Ok(Err(_)), Ok(publishes)) => Ok(publishes),",
        }],
        rows: &[Row {
            test: "handler_failures_stay_apart::a_handler_that_rejects_is_called_again",
            red: "a failed call publishes nothing",
        }],
    },
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
            red: "no answer within|messages: not within",
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
        name: "acknowledge-before-the-dead-letter-is-safe",
        sentence: "a message that failed is acknowledged only once its dead letter is",
        edits: &[Edit {
            file: LETTERS,
            old: "match self.offer(publishes.into(), Owner::Letter { end, cause }, || {}) {",
            new: "drop(cause);
        end.safe();
        match self.offer(publishes.into(), Owner::Command(tokio::sync::oneshot::channel().0), || {}) {",
        }],
        rows: &[Row {
            test: "dead_letters::a_message_is_acknowledged_once_its_dead_letter_is::on_5",
            red: "before the dead letter came PubAck(1)",
        }],
    },
    Promise {
        name: "forget-the-dead-letter",
        sentence: "a message that failed for good becomes a dead letter",
        edits: &[Edit {
            file: CALLS,
            old: "        let input = Input { message, subscription, attempts: tries.begun(), again };
        self.post(self.dead_letters.of_call(input, part, error, given_up)).await;",
            new: "        drop((message, subscription, tries, again, error, given_up));
        part.end(Outcome::DroppedFailed);",
        }],
        rows: &[
            Row {
                test: "dead_letters::a_message_that_is_rejected_becomes_a_dead_letter_and_the_others_go_on::on_5",
                red: "left: (2.0, 0.0)",
            },
            Row {
                test: "kept_letters::a_message_that_fails_for_good_is_kept_whole_and_survives::on_5",
                red: "left: (2.0, 0.0)",
            },
        ],
    },
    Promise {
        name: "ack-before-letter-kept",
        sentence: "a message that failed is acknowledged only once it is on the disk",
        edits: &[Edit {
            file: KEEP,
            old: "                    store.submit(rows, move || {
                        if let Some(again) = again {
                            again.removed(Outcome::DeadLetter);
                        }
                        end.safe();
                    });",
            new: "                    drop(again);
                    end.safe();
                    store.submit_later(rows);",
        }],
        rows: &[Row {
            test: "kept_letters::what_is_acknowledged_is_kept_when_the_daemon_is_killed::on_5",
            red: "what was acknowledged is kept",
        }],
    },
    Promise {
        name: "retry-forgets-before-effects",
        sentence: "a dead letter that is retried stays in the store until what comes of it is safe",
        edits: &[Edit {
            file: "daemon/src/control/live/retry.rs",
            old: "Record::Parked(message) | Record::DeadLetter(message, _) => self.handle(&message, again),",
            new: "Record::Parked(message) | Record::DeadLetter(message, _) => {
                self.kept.store().submit(vec![again.removal()], || {});
                self.handle(&message, again)
            }",
        }],
        rows: &[Row {
            test: "kept_retry::one_whose_effects_are_not_safe_is_still_there_when_the_daemon_is_killed::on_5",
            red: "its output was not acknowledged",
        }],
    },
    Promise {
        name: "make-a-dead-letter-of-a-dead-letter",
        sentence: "a dead letter never begets another",
        edits: &[Edit {
            file: "daemon/src/path/dead_letter/mod.rs",
            old: "if self.places.is_dead_letter(message) {",
            new: "if self.places.is_dead_letter(message) && message.hops == u8::MAX {",
        }],
        rows: &[Row {
            test: "dead_letters::a_dead_letter_never_begets_another::on_5",
            red: "messages received from plant",
        }],
    },
    Promise {
        name: "kv-before-publish",
        sentence: "what a call remembers is safe only once what it published is",
        edits: &[Edit {
            file: OUTBOXES,
            old: "        match self.offer(effects, Owner::Call(completion), accepted) {",
            new: "        if let Some(commit) = &effects.commit {
            drop(self.commit(Box::new(Commit { rows: commit.rows.clone(), ..Commit::default() }), || {}));
        }
        match self.offer(effects, Owner::Call(completion), accepted) {",
        }],
        rows: &[
            Row {
                test: "kv_safety::what_is_remembered_with_a_publish_is_written_after_the_targets_acknowledgement::on_5",
                red: "the daemon sends a packet",
            },
            Row {
                test: "fault_kv_counter::the_count_is_that_of_the_outputs_after_kills::on_5",
                red: "counts without an output",
            },
        ],
    },
    Promise {
        name: "skip-sync",
        sentence: "what is told as written is on the disk, also after a crash",
        edits: &[Edit {
            file: FILE,
            old: "set_durability(Durability::Immediate)",
            new: "set_durability(Durability::None)",
        }],
        rows: &[
            Row {
                test: "kv_safety::what_is_remembered_with_a_publish_is_written_after_the_targets_acknowledgement::on_5",
                red: "what is safe is remembered",
            },
            Row {
                test: "fault_kv_counter::the_count_is_that_of_the_outputs_after_kills::on_3_1_1",
                red: "acknowledged messages are counted",
            },
        ],
    },
    Promise {
        name: "done-before-sync",
        sentence: "nothing is told as written before it is on the disk",
        edits: &[Edit {
            file: STORE_QUEUE,
            old: "                self.changed(waiting);
                return Some(group);",
            new: "                self.changed(waiting);
                let mut group = group;
                for submission in &mut group.submissions {
                    mem::replace(&mut submission.done, Box::new(|| {}))();
                }
                return Some(group);",
        }],
        rows: &[
            Row {
                test: "store_full::nothing_is_acknowledged_while_the_disk_is_full::on_5",
                red: "what is not safe is not acknowledged",
            },
            Row { test: "fault_disk_full::nothing_is_lost_and_it_goes_on_by_itself::on_disk_5", red: "lost:" },
        ],
    },
    Promise {
        name: "skip-kv-validation",
        sentence: "a call whose reads another one changed has no effect, and is run again",
        edits: &[Edit {
            file: KV,
            old: "let conflicts = transaction.conflicts(&memory.mirror, quota, now());",
            new: "let conflicts = transaction.conflicts(&memory.mirror, quota, now()) && false;",
        }],
        rows: &[Row { test: "kv_conflicts::two_instances_lose_no_increment_of_one_key", red: "each sum comes once" }],
    },
    Promise {
        name: "let-messages-go-in-a-circle",
        sentence: "a message that went through 16 handlers goes through no other",
        edits: &[Edit {
            file: CALLS,
            old: "if job.message.hops >= HOP_LIMIT {",
            new: "if job.message.hops == u8::MAX && job.message.hops >= HOP_LIMIT {",
        }],
        rows: &[Row {
            test: "dispatch_loop::a_message_that_goes_in_a_circle_is_stopped_and_acknowledged",
            red: r#""queued", "call-begins""#,
        }],
    },
    Promise {
        name: "ack-before-parked",
        sentence: "a message for a paused handler is acknowledged only once it is on the disk",
        edits: &[
            Edit {
                file: PARK,
                old: "batch.messages.push(Writing { part: job.part, weight, called });",
                new: "job.part.end(Outcome::Parked);\n        batch.messages.push(Writing { weight, called });",
            },
            Edit { file: PARK, old: "struct Writing {\n    part: Part,\n", new: "struct Writing {\n" },
            Edit {
                file: PARK,
                old: "use crate::path::receipt::{Outcome, Part, Progress, Receipt};",
                new: "use crate::path::receipt::{Outcome, Progress, Receipt};",
            },
            Edit {
                file: PARK,
                old: "            messages.into_iter().for_each(|message| message.part.end(Outcome::Parked));\n",
                new: "",
            },
        ],
        rows: &[Row {
            test: "park_pause::a_daemon_killed_while_a_handler_is_paused_loses_nothing_and_it_stays_paused::on_5",
            red: "the rest is parked|the missing messages",
        }],
    },
    Promise {
        name: "new-ones-overtake-the-park",
        sentence: "what comes for a handler that is resumed waits until it has got what was parked",
        edits: &[Edit {
            file: GATE,
            old: "Mode::Open => self.lanes.push(place, held),\n            Mode::Parking | Mode::Replaying =>",
            new: "Mode::Open | Mode::Replaying => self.lanes.push(place, held),\n            Mode::Parking =>",
        }],
        rows: &[Row {
            test: "park_pause::what_comes_for_a_paused_handler_is_acknowledged_and_comes_back_in_order_before_what_is_new::on_5",
            red: "came before",
        }],
    },
    Promise {
        name: "restart-with-a-refused-version",
        sentence: "a version that was refused leaves the one that ran, also after a restart",
        edits: &[Edit {
            file: CHOICE,
            old: "if tried || record.refused(file).is_some() => &[Source::Copy, Source::File],",
            new: "if tried || record.refused(file).is_some() => &[Source::File],",
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
            old: "        if !is_there || !before.keeps(file.hash()) {\n",
            new: "        let mut early = before.clone();\n        early.activate(file.hash(), plugin);\n        \
                  durable::replace(&folder.join(RECORD), &early.text())?;\n        \
                  if !is_there || !before.keeps(file.hash()) {\n",
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
        name: "two-trials",
        sentence: "a quarantined handler gets one message to show whether it works again",
        edits: &[Edit {
            file: PARKING,
            old: "let most = if trial { 1 } else { usize::MAX };",
            new: "let most = usize::MAX;",
        }],
        rows: &[Row {
            test: "park_quarantine::a_failing_handler_is_left_alone_for_longer_and_longer_until_one_trial_succeeds::on_5",
            red: "one call for each trial|the handler stays quarantined",
        }],
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
        rows: &[Row { test: "reload_configuration::a_reload_that_fails_changes_nothing_and_says_why", red: "kept" }],
    },
    Promise {
        name: "ignore-what-needs-a-restart",
        sentence: "a reload that only a restart can make changes nothing, and says so",
        edits: &[Edit { file: RELOAD, old: "if !fixed.is_empty() {", new: "if fixed.len() > 99 {" }],
        rows: &[Row {
            test: "reload_configuration::a_reload_that_fails_changes_nothing_and_says_why",
            red: "the configuration is reloaded",
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
                red: "collect|message|purged",
            },
            Row {
                test: "reload_configuration::the_dead_letter_of_a_handlers_last_call_reaches_a_broker_that_is_removed::on_5",
                red: "collect|message|purged",
            },
        ],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;
    use crate::shell::root;

    #[test]
    fn each_edit_fits_the_sources_once() {
        let mut misfits = Vec::new();
        for promise in PROMISES {
            assert!(!promise.edits.is_empty(), "{}", promise.name);
            let mut seen = BTreeSet::new();
            for edit in promise.edits {
                let text = fs::read_to_string(root().join(edit.file)).expect(edit.file);
                match edit.apply(&text) {
                    Ok(edited) => assert_ne!(text, edited, "{}: an edit that changes nothing", promise.name),
                    Err(error) => misfits.push(format!("{}: {error}", promise.name)),
                }
                assert!(seen.insert(edit.old), "{}", promise.name);
            }
        }
        assert!(misfits.is_empty(), "{}", misfits.join("\n"));
    }

    #[test]
    fn each_row_is_a_scenario() {
        for Row { test: path, red } in PROMISES.iter().flat_map(|promise| promise.rows) {
            let mut path = path.split("::");
            let file = root()
                .join("tests/scenarios")
                .join(path.next().expect("splits into one at least"))
                .with_extension("rs");
            let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let test = path.next().expect("a test of the file");
            assert!(text.contains(&format!("fn {test}(")), "{}: {test}", file.display());
            assert!(!red.is_empty(), "{test}");
        }
    }

    #[test]
    fn each_promise_has_a_name_of_its_own_and_a_row_that_is_quick() {
        assert!(PROMISES.iter().all(|promise| promise.rows.iter().any(|row| !row.is_long())), "for --quick");
        let names: BTreeSet<_> = PROMISES.iter().map(|promise| promise.name).collect();
        assert_eq!(names.len(), PROMISES.len());
    }
}
