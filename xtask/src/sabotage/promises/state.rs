//! Promises of what is on the disk: dead letters, what handlers remember, and the park.

use super::{CALLS, Edit, OUTBOXES, Promise, Row};

const FILE: &str = "daemon/src/store/tables.rs";
const GATE: &str = "daemon/src/path/dispatch/gate.rs";
const KEEP: &str = "daemon/src/path/dead_letter/keep.rs";
const KV: &str = "daemon/src/path/kv/mod.rs";
const LETTERS: &str = "daemon/src/path/outbox/dead_letter.rs";
const PARK: &str = "daemon/src/path/park/mod.rs";
const PARKING: &str = "daemon/src/path/dispatch/parking.rs";
const STORE_QUEUE: &str = "daemon/src/store/queue.rs";

/// All of them.
pub(super) const PROMISES: &[Promise] = &[
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
                red: "what is not safe is not acknowledged|what was sent when the disk was full",
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
];
