//! Promises of messages: acknowledgements, order, outboxes, queues and sessions.

use super::{CALLS, Edit, INSTANCE, LOST, OUTBOXES, Promise, Row};

const ACK: &str = "daemon/src/path/session/ack.rs";
const ADMISSION: &str = "daemon/src/path/outbox/admission.rs";
const FEEDER: &str = "daemon/src/path/session/feeder.rs";
const HELD: &str = "daemon/src/path/dispatch/held.rs";
const KEPT_OUTBOX: &str = "daemon/src/path/outbox/keep.rs";
const LANES: &str = "daemon/src/path/dispatch/lanes.rs";
const LINK: &str = "daemon/src/path/session/link.rs";
const OUTBOX: &str = "daemon/src/path/outbox/queue.rs";
const POLLER: &str = "daemon/src/path/session/poller.rs";
const QUEUE: &str = "daemon/src/path/dispatch/queue.rs";
const RECEIPT: &str = "daemon/src/path/receipt.rs";
const RING: &str = "daemon/src/path/session/ring.rs";
const ROUTER: &str = "daemon/src/path/router/mod.rs";
/// A row whose name is long.
const FAULT_ALL: &str =
    "fault_all_with_one_failing::a_handler_that_always_rejects_is_called_once_and_harms_no_other::on_5";

/// All of them.
pub(super) const PROMISES: &[Promise] = &[
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
];
