//! The running gateway as the HTTP API operates it.

use super::operations::{Answer, Keys, Operations};
use crate::control::admin::resource::{Broker, Handler, Publication, Published, Setting, Status, Subscription};
use crate::control::live::{Edit, Live, Refusal, RefusalKind};
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
}

/// What several steps make is done to its end, also where the client does not wait for it: half of it would stay.
fn whole<T: Send + 'static>(work: impl Future<Output = Result<T, Refusal>> + Send + 'static) -> Answer<'static, T> {
    let task = tokio::spawn(work);
    Box::pin(async move {
        let cut = |_| Refusal::new(RefusalKind::Stopping, "the request was cut short", "see the daemon's log");
        task.await.map_err(cut)?
    })
}
