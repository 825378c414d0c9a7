//! The running gateway as the HTTP API operates it.

use super::operations::{Answer, Keys, Operations};
use crate::control::admin::resource::{
    Broker, DeadLetterCount, DeadLetterList, Handler, KvEntry, KvList, KvTotals, OutboxView, Publication, Published,
    Purged, ReloadReport, Reloaded, Schedule, ScheduleRun, Setting, Status, Subscription, WholeDeadLetter,
};
use crate::control::live::{Edit, KvPage, KvSet, LetterPage, Letters, Live, Refusal, RefusalKind, Trigger};
use crate::path::router::explain::{Explanation, explain};
use crate::path::router::select::Facts;
use crate::topic::TopicName;

impl Operations for Live {
    fn status(&self) -> Status {
        Live::status(self)
    }

    fn brokers(&self) -> Vec<Broker> {
        Live::brokers(self)
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        Live::subscriptions(self)
    }

    fn handlers(&self) -> Vec<Handler> {
        Live::handlers(self)
    }

    fn settings(&self) -> Vec<Setting> {
        Live::settings(self)
    }

    fn export(&self) -> String {
        self.running().loaded.shown.export.clone()
    }

    fn explain(&self, broker: Option<&str>, topic: &TopicName, facts: Facts<'_>) -> Result<Vec<Explanation>, Refusal> {
        let running = self.running();
        if let Some(name) = broker {
            let routes = running.broker(name)?.session.routes();
            return Ok(vec![explain(&routes.table, topic, facts)]);
        }
        let all = running.brokers.iter().map(|broker| explain(&broker.session.routes().table, topic, facts));
        Ok(all.collect())
    }

    fn reload_configuration(&self, dry_run: bool) -> Answer<'_, ReloadReport> {
        Box::pin(Live::reload_configuration(self, Trigger::Command, dry_run))
    }

    fn change(&self, edit: Edit) -> Answer<'_, Vec<String>> {
        Box::pin(async move { Live::change(self, edit).await.map(|changed| changed.warnings) })
    }

    fn subscribe(&self, keys: Keys, force: bool) -> Answer<'_, (String, Vec<String>)> {
        let live = self.clone();
        whole(async move { live.subscribe(keys, force).await.map(|(changed, name)| (name, changed.warnings)) })
    }

    fn connect<'a>(&'a self, broker: &'a str) -> Answer<'a, ()> {
        Box::pin(async move { Live::connect(self, broker).await.map(|_| ()) })
    }

    fn disconnect<'a>(&'a self, broker: &'a str) -> Answer<'a, ()> {
        Box::pin(async move { Live::disconnect(self, broker).await.map(|_| ()) })
    }

    fn reset_session<'a>(&'a self, broker: &'a str) -> Answer<'a, ()> {
        Box::pin(Live::reset_session(self, broker))
    }

    fn publish(&self, publication: Publication) -> Answer<'_, Published> {
        let live = self.clone();
        whole(async move { live.publish(publication).await })
    }

    fn pause<'a>(&'a self, handler: &'a str) -> Answer<'a, ()> {
        Box::pin(Live::pause(self, handler))
    }

    fn resume<'a>(&'a self, handler: &'a str) -> Answer<'a, ()> {
        Box::pin(Live::resume(self, handler))
    }

    fn reload<'a>(&'a self, handler: &'a str) -> Answer<'a, Reloaded> {
        Box::pin(Live::reload(self, handler))
    }

    fn outboxes(&self) -> Vec<OutboxView> {
        Live::outboxes(self)
    }

    fn purge_outbox<'a>(&'a self, broker: &'a str) -> Answer<'a, Purged> {
        let (live, broker) = (self.clone(), broker.to_owned());
        whole(async move { live.purge_outbox(&broker).await })
    }

    fn dead_letters(&self, page: LetterPage) -> Answer<'_, DeadLetterList> {
        Box::pin(Live::dead_letters(self, page))
    }

    fn dead_letter(&self, id: u64) -> Answer<'_, WholeDeadLetter> {
        Box::pin(Live::dead_letter(self, id))
    }

    fn retry_dead_letters(&self, which: Letters) -> Answer<'_, DeadLetterCount> {
        let live = self.clone();
        whole(async move { live.retry_dead_letters(which).await })
    }

    fn clear_dead_letters(&self, which: Letters) -> Answer<'_, DeadLetterCount> {
        let live = self.clone();
        whole(async move { live.clear_dead_letters(which).await })
    }

    fn kv(&self) -> Vec<KvTotals> {
        Live::kv(self)
    }

    fn kv_list(&self, handler: &str, page: KvPage) -> Result<KvList, Refusal> {
        Live::kv_list(self, handler, page)
    }

    fn kv_get(&self, handler: &str, key: &str) -> Result<KvEntry, Refusal> {
        Live::kv_get(self, handler, key)
    }

    fn kv_set(&self, set: KvSet) -> Answer<'_, ()> {
        Box::pin(Live::kv_set(self, set))
    }

    fn kv_delete<'a>(&'a self, handler: &'a str, key: &'a str) -> Answer<'a, ()> {
        Box::pin(Live::kv_delete(self, handler, key))
    }

    fn schedules(&self) -> Vec<Schedule> {
        Live::schedules(self)
    }

    fn run_schedule<'a>(&'a self, name: &'a str) -> Answer<'a, ScheduleRun> {
        Box::pin(Live::run_schedule(self, name))
    }
}

/// What several steps make is done to its end, also where the client does not wait for it: half of it would stay.
fn whole<T: Send + 'static>(work: impl Future<Output = Result<T, Refusal>> + Send + 'static) -> Answer<'static, T> {
    let task = tokio::spawn(work);
    Box::pin(async move {
        let cut = |_| Refusal::new(RefusalKind::Stopping, "the request was cut short", "see the daemon's log");
        task.await.map_err(cut)?
    })
}
