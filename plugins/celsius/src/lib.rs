//! Converts JSON readings from Celsius to Fahrenheit: `{"c": 21.5}` on `T` becomes `{"f": 70.7}` on `T/fahrenheit`.

use serde::{Deserialize, Serialize};
use tidegate_sdk::{Message, Outgoing, Result, publish};

#[derive(Deserialize)]
struct Reading {
    c: f64,
}

#[derive(Serialize)]
struct Converted {
    f: f64,
}

fn handle(message: &Message) -> Result {
    let Reading { c } = message.json()?;
    let topic = format!("{}/fahrenheit", message.topic);
    publish(Outgoing::json(topic, &Converted { f: fahrenheit(c) })?.qos(message.qos))?;
    Ok(())
}

/// To hundredths of a degree: what lies beyond is noise of binary fractions.
fn fahrenheit(celsius: f64) -> f64 {
    ((celsius * 1.8 + 32.0) * 100.0).round() / 100.0
}

tidegate_sdk::handler!(handle);

#[cfg(test)]
mod tests {
    use tidegate_sdk::testing::{call, message};
    use tidegate_sdk::{Qos, reject};

    use super::*;

    #[track_caller]
    fn check(payload: &str, expected: Result<&str>) {
        let mut reading = message("kitchen", payload);
        reading.qos = Qos::AtLeastOnce;
        let outcome = call(handle, &reading);
        let converted = |payload| Outgoing::new("kitchen/fahrenheit", payload).qos(Qos::AtLeastOnce);
        assert_eq!(outcome.sent().first().cloned(), expected.clone().ok().map(converted));
        assert_eq!(outcome.result, expected.map(|_| ()));
    }

    #[test]
    fn a_reading_is_converted() {
        check(r#"{"c": 21.5}"#, Ok(r#"{"f":70.7}"#));
        check(r#"{"c": -40, "device": 3}"#, Ok(r#"{"f":-40.0}"#));
        check(r#"{"c": 0.1}"#, Ok(r#"{"f":32.18}"#));
    }

    #[test]
    fn anything_else_is_rejected() {
        check("warm", Err(reject("unexpected payload: expected value at line 1 column 1")));
        check("{}", Err(reject("unexpected payload: missing field `c` at line 1 column 2")));
    }
}
