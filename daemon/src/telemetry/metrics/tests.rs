//! The page of metrics: that it is documented, and that what is gone leaves nothing on it.

use std::time::UNIX_EPOCH;

use super::*;
use crate::message::Qos;
use crate::path::dead_letter::Reason;
use crate::path::handler::CallResult;
use crate::path::outbox::DropReason;
use crate::path::receipt::Outcome;
use crate::path::schedule::RunResult;
use crate::path::session::Holder;
use crate::store::FaultKind;

/// What the page about metrics must name, with every value of labels that the code chooses.
#[test]
fn the_documentation_names_every_family_and_label_value() {
    let page = include_str!("../../../../docs/metrics.md");
    let metrics = Metrics::new().expect("families are well formed");
    metrics.broker("plant");
    metrics.subscription("plant", "inputs");
    metrics.handler("celsius");
    metrics.schedule("stats");
    metrics.kv("celsius");
    metrics.admin();
    let families = metrics.registry.gather();
    let names = families.iter().map(|family| family.name()).filter(|name| !name.starts_with("process_"));
    let values = (Outcome::ALL.iter().map(|outcome| outcome.label()))
        .chain(ConnectResult::ALL.iter().map(|result| result.label()))
        .chain(DisconnectReason::ALL.iter().map(|reason| reason.label()))
        .chain(CallResult::ALL.iter().map(|result| result.label()))
        .chain([RunResult::Skipped.label()])
        .chain(ReloadResult::ALL.iter().map(|result| result.label()))
        .chain(Reason::ALL.iter().map(|reason| reason.label()))
        .chain(DropReason::ALL.iter().map(|reason| reason.label()))
        .chain(AdminRefusal::ALL.iter().map(|reason| reason.label()))
        .chain(FaultKind::ALL.iter().map(|kind| kind.label()));
    let missing: Vec<_> = names.chain(values).filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert_eq!(missing, [""; 0], "not in docs/metrics.md");
}

#[test]
fn labels_stand_at_the_place_that_counts_them() {
    let metrics = Metrics::new().expect("families are well formed");
    let plant = metrics.broker("plant");
    DisconnectReason::ALL.into_iter().for_each(|reason| plant.disconnect(reason));
    let page = String::from_utf8(metrics.render().expect("renders")).expect("UTF-8");
    for reason in DisconnectReason::ALL {
        let sample = format!("disconnects_total{{broker=\"plant\",reason=\"{}\"}} 1\n", reason.label());
        assert!(page.contains(&sample), "{sample} is not in\n{page}");
    }
    let celsius = metrics.handler("celsius");
    for (count, reason) in (1..).zip(Reason::ALL) {
        (0..count).for_each(|_| celsius.dead_letter(reason));
    }
    let page = String::from_utf8(metrics.render().expect("renders")).expect("UTF-8");
    for (count, reason) in (1..).zip(Reason::ALL) {
        let sample = format!("dead_letters_total{{handler=\"celsius\",reason=\"{}\"}} {count}\n", reason.label());
        assert!(page.contains(&sample), "{sample} is not in\n{page}");
    }
    for (count, result) in (1..).zip(ReloadResult::ALL) {
        (0..count).for_each(|_| celsius.reload(result));
    }
    let page = String::from_utf8(metrics.render().expect("renders")).expect("UTF-8");
    for (count, result) in (1..).zip(ReloadResult::ALL) {
        let sample = format!("reloads_total{{handler=\"celsius\",result=\"{}\"}} {count}\n", result.label());
        assert!(page.contains(&sample), "{sample} is not in\n{page}");
    }
    let admin = metrics.admin();
    for (count, reason) in (1..).zip(AdminRefusal::ALL) {
        (0..count).for_each(|_| admin.refused(reason));
    }
    let page = String::from_utf8(metrics.render().expect("renders")).expect("UTF-8");
    for (count, reason) in (1..).zip(AdminRefusal::ALL) {
        let sample = format!("tidegate_admin_refused_total{{reason=\"{}\"}} {count}\n", reason.label());
        assert!(page.contains(&sample), "{sample} is not in\n{page}");
    }
}

#[test]
fn what_is_forgotten_leaves_no_child_and_starts_at_zero_when_it_comes_again() {
    let metrics = Metrics::new().expect("families are well formed");
    let page = || String::from_utf8(metrics.render().expect("renders")).expect("UTF-8");
    let bare = page();
    let samples = |page: &str, name: &str| page.lines().filter(|line| line.contains(name)).count();
    let certificates = |meters: &BrokerMeters| {
        let end = Some(UNIX_EPOCH + std::time::Duration::from_secs(1));
        Holder::ALL.into_iter().for_each(|holder| meters.certificate_expires(holder, end));
    };
    let fill = || {
        let (plant, mill) = (metrics.broker("plant"), metrics.broker("mill"));
        [&plant, &mill].into_iter().for_each(|meters| {
            certificates(meters);
            meters.received(Qos::AtLeastOnce);
        });
        metrics.subscription("plant", "inputs").set(1.0);
        metrics.subscription("plant", "others").set(1.0);
        metrics.subscription("mill", "inputs").set(1.0);
        metrics.handler("celsius").call(CallResult::Trap);
        metrics.schedule("stats").ran(CallResult::Trap);
        metrics.handler("kelvin").call(CallResult::Trap);
        ["celsius", "kelvin"].iter().for_each(|handler| metrics.kv(handler).keys.set(1));
    };
    fill();
    let full = page();
    metrics.forget_subscription("plant", "others");
    assert_eq!(samples(&page(), "others"), 0);
    metrics.forget_broker("plant");
    metrics.forget_handler("celsius");
    metrics.forget_schedule("stats");
    metrics.forget_kv("celsius");
    let left = page();
    for name in ["\"plant\"", "\"celsius\"", "\"stats\""] {
        assert!(samples(&full, name) > 0, "{full}");
        assert_eq!(samples(&left, name), 0, "{left}");
    }
    for name in ["\"mill\"", "\"kelvin\""] {
        assert!(samples(&full, name) > 0);
        assert_eq!(samples(&left, name), samples(&full, name), "{name}");
    }
    metrics.forget_broker("mill");
    metrics.forget_handler("kelvin");
    metrics.forget_kv("kelvin");
    let own =
        |page: &str| page.lines().filter(|line| line.starts_with("tidegate_")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(own(&page()), own(&bare));
    assert_eq!(metrics.broker("plant").counts().received, 0);
    assert!(metrics.handler("celsius").calls().iter().all(|(_, count)| *count == 0));
    metrics.forget_broker("nobody");
}

#[test]
fn counts_can_be_read() {
    let metrics = Metrics::new().expect("families are well formed");
    let plant = metrics.broker("plant");
    Qos::ALL.into_iter().for_each(|qos| plant.received(qos));
    plant.finished(Outcome::Filtered);
    plant.published(Qos::AtLeastOnce);
    plant.published(Qos::AtMostOnce);
    let counts = plant.counts();
    assert_eq!((counts.received, counts.published, counts.in_progress), (3, 2, 2));
    let seen: Vec<_> = counts.finished.into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(seen, [(Outcome::Filtered, 1)]);
    let celsius = metrics.handler("celsius");
    celsius.call(CallResult::Memory);
    let seen: Vec<_> = celsius.calls().into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(seen, [(CallResult::Memory, 1)]);
}

#[test]
fn every_family_is_well_formed_and_prefixed() {
    let metrics = Metrics::new().expect("families are well formed");
    metrics.broker("plant").received(Qos::AtLeastOnce);
    metrics.handler("celsius").call(CallResult::Ok);
    let page = String::from_utf8(metrics.render().expect("renders")).expect("UTF-8");
    assert!(page.contains("tidegate_messages_received_total{broker=\"plant\",qos=\"1\"} 1"), "{page}");
    assert!(page.contains("tidegate_handler_calls_total{handler=\"celsius\",result=\"ok\"} 1"), "{page}");
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("tidegate_") || line.starts_with("process_"), "{line}");
    }
}
