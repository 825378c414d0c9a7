//! What the configuration calls handlers for, against what their plugins export.
//!
//! Pure. Asked at the start, before each change, and by `tidegate check`, once plugins are loaded.

use std::fmt;
use std::sync::Arc;

use super::plugin::Exports;
use crate::control::config::model::{Config, OnMessage, ScheduleAction};

/// Who calls a handler for what its plugin does not export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotExported {
    /// Who.
    pub caller: Caller,
    /// The handler's name.
    pub handler: Arc<str>,
}

/// Who calls a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A subscription, for its messages.
    Subscription {
        /// Its place in the configuration.
        place: usize,
        /// Its name.
        name: Arc<str>,
    },
    /// A subscription, for its `silence`.
    Silence {
        /// Its place in the configuration.
        place: usize,
        /// Its name.
        name: Arc<str>,
    },
    /// A schedule.
    Schedule {
        /// Its place in the configuration.
        place: usize,
        /// Its name.
        name: Arc<str>,
    },
}

impl NotExported {
    /// What is wrong, as a clause.
    pub fn problem(&self) -> String {
        let handler = &self.handler;
        match &self.caller {
            Caller::Subscription { name, .. } => {
                format!("the subscription {name} calls the handler {handler}, whose plugin does not export on-message")
            }
            Caller::Silence { name, .. } => {
                format!("the silence of {name} runs the handler {handler}, whose plugin does not export on-schedule")
            }
            Caller::Schedule { name, .. } => {
                format!("the schedule {name} runs the handler {handler}, whose plugin does not export on-schedule")
            }
        }
    }

    /// What to do.
    pub fn remedy(&self) -> &'static str {
        match self.caller {
            Caller::Subscription { .. } => {
                "use another handler, or build the plugin for the world message-handler or full-handler"
            }
            Caller::Silence { .. } => "remove silence, or build the plugin for the world full-handler",
            Caller::Schedule { .. } => {
                "use another handler, or build the plugin for the world schedule-handler or full-handler"
            }
        }
    }
}

impl std::error::Error for NotExported {}

impl fmt::Display for NotExported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.problem(), self.remedy())
    }
}

/// All of them, in the order of the configuration. `exports` knows what the plugin of a handler exports, unless it has errors.
pub fn not_exported(config: &Config, exports: impl Fn(&str) -> Option<Exports>) -> Vec<NotExported> {
    let mut found = Vec::new();
    for (place, subscription) in config.subscriptions.iter().enumerate() {
        let Some(OnMessage::Handler(handler)) = &subscription.on_message else { continue };
        let Some(exports) = exports(&handler.name) else { continue };
        let (handler, name) = (&handler.name, &subscription.name);
        if !exports.on_message {
            let caller = Caller::Subscription { place, name: Arc::clone(name) };
            found.push(NotExported { caller, handler: Arc::clone(handler) });
        }
        if subscription.silence.is_some() && !exports.on_schedule {
            let caller = Caller::Silence { place, name: Arc::clone(name) };
            found.push(NotExported { caller, handler: Arc::clone(handler) });
        }
    }
    for (place, schedule) in config.schedules.iter().enumerate() {
        let ScheduleAction::Handler(handler) = &schedule.action else { continue };
        if exports(handler).is_some_and(|exports| !exports.on_schedule) {
            let caller = Caller::Schedule { place, name: Arc::clone(&schedule.name) };
            found.push(NotExported { caller, handler: Arc::clone(handler) });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config::load_text;

    #[test]
    fn each_call_of_what_is_not_exported_is_told() {
        let text = "brokers.b.address = \"a\"\n\
            [handlers.h]\nplugin = \"h.wasm\"\n\
            [[subscriptions]]\nname = \"in\"\nbroker = \"b\"\ntopic = \"t\"\non-message = \"h\"\nsilence = \"5m\"\n\
            [[schedules]]\nname = \"s\"\nevery = \"1s\"\non-schedule = \"h\"\n\
            [[schedules]]\nname = \"p\"\nevery = \"1s\"\npublish = { broker = \"b\", topic = \"t\" }\n";
        let config = load_text(std::path::Path::new("/nowhere/tidegate.toml"), text, "").expect("is good").config;
        let check = |exports: Option<(bool, bool)>, expected: &[&str]| {
            let exports = exports.map(|(on_message, on_schedule)| Exports { on_message, on_schedule });
            let found: Vec<String> = not_exported(&config, |_| exports).iter().map(NotExported::problem).collect();
            assert_eq!(found, expected);
        };
        let message = "the subscription in calls the handler h, whose plugin does not export on-message";
        let silence = "the silence of in runs the handler h, whose plugin does not export on-schedule";
        let schedule = "the schedule s runs the handler h, whose plugin does not export on-schedule";
        check(Some((true, true)), &[]);
        check(None, &[]);
        check(Some((true, false)), &[silence, schedule]);
        check(Some((false, true)), &[message]);
    }
}
