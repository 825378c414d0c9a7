//! Messages that can go in a circle: a subscription's handler may publish what some subscription brings to a handler that may
//! publish …, and in the end what the first one matches.
//!
//! Tells about what the grants permit; whether a handler does it, nobody knows before. Fed by the subscriptions as they were read.
//! The search looks at each pair of a grant and a subscription at most twice, however many handlers share the grant, and keeps
//! no pair: 4,000 subscriptions whose handlers have 4,000 different grants are 16 million pairs in the search and as many in the
//! telling, most of which differ in the first level.

use std::collections::HashMap;

use super::subscription::Placed;
use super::{Named, broker};
use crate::control::config::model::{Handler, OnMessage, Protocol, PublishGrant, Subscription};
use crate::control::config::reader::Value;
use crate::message::{BrokerId, HOP_LIMIT};
use crate::topic::TopicFilter;

/// Circles that are told one by one.
const MAX_CIRCLES: usize = 10;

/// Subscriptions of one circle that are named.
const MAX_NAMED: usize = 8;

/// Warns of each circle once, at the topic of its first subscription.
pub(super) fn warn(subscriptions: &[(Placed, Value<'_>)], brokers: &[Named<'_, broker::Placed>]) {
    let acting: Vec<(&Subscription, &Handler, &Value<'_>)> = subscriptions
        .iter()
        .filter_map(|((subscription, _), topic)| Some((&**subscription, handler(subscription)?, topic)))
        .collect();
    let links = acting.iter().map(|(subscription, handler, _)| Link {
        broker: subscription.broker,
        filter: &subscription.topic,
        handler: &handler.name,
        grants: &handler.allow.publish,
    });
    let circles = Graph::of(links.collect()).circles();
    for circle in circles.iter().take(MAX_CIRCLES) {
        let on_it: Vec<_> = circle.iter().map(|place| acting[*place]).collect();
        let (.., topic) = on_it[0];
        topic.warn(sentence(&on_it, brokers), remedy(&on_it));
    }
    if let Some(first) = circles.get(MAX_CIRCLES) {
        let (.., topic) = acting[first[0]];
        let more = circles.len() - MAX_CIRCLES;
        topic.warn(
            format!("this and {} more circles of messages are not told", more - 1),
            "narrow the grants of the others",
        );
    }
}

fn sentence(circle: &[(&Subscription, &Handler, &Value<'_>)], brokers: &[Named<'_, broker::Placed>]) -> String {
    let mut way: Vec<String> = circle.iter().take(MAX_NAMED).map(|(one, ..)| format!("\"{}\"", one.name)).collect();
    if circle.len() > MAX_NAMED {
        way.push(format!("{} more", circle.len() - MAX_NAMED));
    }
    way.push(format!("\"{}\"", circle[0].0.name));
    let speaks = |id: BrokerId| {
        let known = brokers.iter().filter_map(|named| named.item.as_ref()).find(|(broker, _)| broker.id == id);
        known.map(|(broker, _)| (&broker.name, broker.protocol))
    };
    let uncounted =
        circle.iter().filter_map(|(one, ..)| speaks(one.broker)).find(|(_, speaks)| *speaks == Protocol::V311);
    let end = match uncounted {
        None => format!("it is stopped after {HOP_LIMIT} calls"),
        Some((name, _)) => format!("nothing stops it, since {name} speaks 3.1.1, which carries no count of calls"),
    };
    format!("a message can go in a circle by what its handlers may publish, {}: {end}", way.join(" -> "))
}

fn remedy(circle: &[(&Subscription, &Handler, &Value<'_>)]) -> String {
    let (_, first, _) = circle[0];
    let alone = circle.iter().all(|(_, handler, _)| handler.name == first.name);
    let or = if alone { "" } else { ", or of another on the way" };
    format!("narrow allow.publish of handlers.{}{or}", first.name)
}

fn handler(subscription: &Subscription) -> Option<&Handler> {
    match &subscription.on_message {
        Some(OnMessage::Handler(handler)) => Some(handler),
        Some(OnMessage::Log(_)) | None => None,
    }
}

/// Who can cause what. Its nodes are subscriptions, then handlers, then grants: a subscription calls its handler, which has
/// its grants, which reach the subscriptions that they overlap. Handlers and grants stand in between so that what many share is
/// looked at once.
struct Graph<'a> {
    links: Vec<Link<'a>>,
    /// The handler of each subscription, by place.
    called: Vec<usize>,
    /// The grants of each handler, by place.
    handlers: Vec<Vec<usize>>,
    grants: Vec<&'a PublishGrant>,
}

/// A subscription with a handler.
struct Link<'a> {
    broker: BrokerId,
    filter: &'a TopicFilter,
    handler: &'a str,
    /// The handler's.
    grants: &'a [PublishGrant],
}

impl<'a> Graph<'a> {
    fn of(links: Vec<Link<'a>>) -> Graph<'a> {
        let (mut handlers, mut grants): (Vec<Vec<usize>>, Vec<&PublishGrant>) = (Vec::new(), Vec::new());
        let (mut known, mut known_grants) = (HashMap::new(), HashMap::new());
        let mut called = Vec::new();
        for Link { handler, grants: own, .. } in &links {
            let place = *known.entry(*handler).or_insert_with(|| {
                let places = own.iter().map(|grant| {
                    *known_grants.entry((grant.broker, &grant.filter)).or_insert_with(|| {
                        grants.push(grant);
                        grants.len() - 1
                    })
                });
                handlers.push(places.collect());
                handlers.len() - 1
            });
            called.push(place);
        }
        Graph { links, called, handlers, grants }
    }

    fn nodes(&self) -> usize {
        self.links.len() + self.handlers.len() + self.grants.len()
    }

    /// The next node that this one leads to, and where to look for the one after it.
    fn next(&self, node: usize, from: usize) -> Option<(usize, usize)> {
        let (handlers, grants) = (self.links.len(), self.links.len() + self.handlers.len());
        if node < handlers {
            return (from == 0).then(|| (handlers + self.called[node], 1));
        }
        if node < grants {
            return self.handlers[node - handlers].get(from).map(|grant| (grants + grant, from + 1));
        }
        let PublishGrant { broker, filter } = self.grants[node - grants];
        let reaches = |link: &Link<'_>| link.broker == *broker && link.filter.overlaps(filter);
        let place = self.links[from..].iter().position(reaches)? + from;
        Some((place, place + 1))
    }

    /// A circle for each set of subscriptions that can all cause each other, a shortest one through the first of them, by the
    /// places of the subscriptions on it.
    fn circles(&self) -> Vec<Vec<usize>> {
        let component = self.components();
        let mut firsts: Vec<usize> = Vec::new();
        let mut seen = vec![false; self.nodes()];
        // On a circle there is its handler besides.
        let mut size = vec![0; self.nodes()];
        component.iter().for_each(|component| size[*component] += 1);
        for place in 0..self.links.len() {
            let component = component[place];
            if size[component] > 1 && !std::mem::replace(&mut seen[component], true) {
                firsts.push(place);
            }
        }
        firsts.into_iter().filter_map(|first| self.shortest(first, &component)).collect()
    }

    /// A shortest way from a subscription back to it, which does not leave its component.
    fn shortest(&self, first: usize, component: &[usize]) -> Option<Vec<usize>> {
        let mut came_from = vec![None; self.nodes()];
        let mut reached = std::collections::VecDeque::from([first]);
        while let Some(node) = reached.pop_front() {
            let mut from = 0;
            while let Some((next, after)) = self.next(node, from) {
                from = after;
                if component[next] != component[first] || came_from[next].is_some() {
                    continue;
                }
                came_from[next] = Some(node);
                if next == first {
                    let back =
                        std::iter::successors(came_from[first], |node| came_from[*node].filter(|_| *node != first));
                    let mut circle: Vec<usize> = back.filter(|node| *node < self.links.len()).collect();
                    circle.reverse();
                    return Some(circle);
                }
                reached.push_back(next);
            }
        }
        None
    }

    /// For each node the number of its strongly connected component (Tarjan's algorithm, without recursion).
    fn components(&self) -> Vec<usize> {
        const UNSEEN: usize = usize::MAX;
        let count = self.nodes();
        let (mut index, mut low, mut component) = (vec![UNSEEN; count], vec![0; count], vec![UNSEEN; count]);
        let (mut next_index, mut next_component) = (0, 0);
        let mut open: Vec<usize> = Vec::new();
        for root in 0..count {
            let mut path: Vec<(usize, usize)> = Vec::new();
            if index[root] == UNSEEN {
                path.push((root, 0));
            }
            while let Some((node, from)) = path.last_mut() {
                let node = *node;
                if index[node] == UNSEEN {
                    (index[node], low[node]) = (next_index, next_index);
                    next_index += 1;
                    open.push(node);
                }
                match self.next(node, *from) {
                    Some((next, after)) => {
                        *from = after;
                        if index[next] == UNSEEN {
                            path.push((next, 0));
                        } else if component[next] == UNSEEN {
                            low[node] = low[node].min(index[next]);
                        }
                    }
                    None => {
                        path.pop();
                        if let Some((parent, _)) = path.last() {
                            low[*parent] = low[*parent].min(low[node]);
                        }
                        if low[node] == index[node] {
                            while let Some(member) = open.pop() {
                                component[member] = next_component;
                                if member == node {
                                    break;
                                }
                            }
                            next_component += 1;
                        }
                    }
                }
            }
        }
        component
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    type Given = (u32, TopicFilter, usize);

    fn grants(given: &[Vec<(u32, String)>]) -> Vec<Vec<PublishGrant>> {
        let grant = |(broker, filter): &(u32, String)| PublishGrant {
            broker: BrokerId(*broker),
            filter: TopicFilter::new(filter.as_str()).expect("is a filter"),
        };
        given.iter().map(|grants| grants.iter().map(grant).collect()).collect()
    }

    fn circles(handlers: &[Vec<PublishGrant>], given: &[Given]) -> Vec<Vec<usize>> {
        let names: Vec<String> = (0..handlers.len()).map(|number| format!("h{number}")).collect();
        let links = given.iter().map(|(broker, filter, handler)| Link {
            broker: BrokerId(*broker),
            filter,
            handler: &names[*handler],
            grants: &handlers[*handler],
        });
        Graph::of(links.collect()).circles()
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["a", "b", "c", "+"]);
        let filter = (prop::collection::vec(level, 1..3), any::<bool>());
        filter.prop_map(|(levels, hash)| if hash { format!("{}/#", levels.join("/")) } else { levels.join("/") })
    }

    proptest! {
        /// The naive model: who reaches whom, by trying every way.
        #[test]
        fn circles_are_those_of_a_naive_search(
            handlers in prop::collection::vec(prop::collection::vec((0u32..2, filter()), 0..3), 1..5),
            given in prop::collection::vec((0u32..2, filter(), any::<prop::sample::Index>()), 0..9),
        ) {
            let handlers = grants(&handlers);
            let given: Vec<Given> = given
                .into_iter()
                .map(|(broker, filter, handler)| {
                    (broker, TopicFilter::new(filter).expect("is a filter"), handler.index(handlers.len()))
                })
                .collect();
            let leads = |from: usize, to: usize| {
                let (broker, filter, _) = &given[to];
                let grants = &handlers[given[from].2];
                grants.iter().any(|grant| grant.broker == BrokerId(*broker) && grant.filter.overlaps(filter))
            };
            let count = given.len();
            let mut reaches = vec![vec![false; count]; count];
            for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
                reaches[from][to] = leads(from, to);
            }
            for (by, from, to) in (0..count).flat_map(|by| (0..count).flat_map(move |from| (0..count).map(move |to| (by, from, to)))) {
                reaches[from][to] |= reaches[from][by] && reaches[by][to];
            }
            let mut expected: Vec<usize> = Vec::new();
            for place in (0..count).filter(|place| reaches[*place][*place]) {
                if !expected.iter().any(|first| reaches[*first][place] && reaches[place][*first]) {
                    expected.push(place);
                }
            }
            let circles = circles(&handlers, &given);
            let firsts: Vec<usize> = circles.iter().map(|circle| circle[0]).collect();
            prop_assert_eq!(firsts, expected);
            for circle in &circles {
                let mut once = circle.clone();
                once.sort_unstable();
                once.dedup();
                prop_assert_eq!(once.len(), circle.len(), "a circle meets each once: {:?}", circle);
                for (place, next) in circle.iter().zip(circle.iter().cycle().skip(1)) {
                    prop_assert!(leads(*place, *next), "{:?}", circle);
                }
            }
        }
    }

    #[test]
    fn a_circle_of_a_thousand_is_found_in_no_time() {
        const MANY: usize = 1_000;
        let reaches = |number| vec![(0, format!("line/{}/#", (number + 1) % MANY))];
        let handlers = grants(&(0..MANY).map(reaches).collect::<Vec<_>>());
        let filter = |number| TopicFilter::new(format!("line/{number}/+")).expect("is a filter");
        let given: Vec<Given> = (0..MANY).map(|number| (0, filter(number), number)).collect();
        let start = Instant::now();
        assert_eq!(circles(&handlers, &given), [(0..MANY).collect::<Vec<_>>()]);
        // Two looks at each of a million pairs, in a build without optimisation and beside other tests.
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }
}
