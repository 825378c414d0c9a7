//! `[handlers.NAME.config]`: any TOML table, as the JSON that the handler gets.

use serde_json::{Map, Number, Value as Json};
use toml::de::DeValue;

use crate::control::config::reader::Value;
use crate::control::config::secret::Secret;

/// The table as JSON: strings interpolated, dates and times as strings. Problems never show its values, which may be
/// secrets of the handler; what interpolations stand for is put into `secrets`.
pub(super) fn object(value: &Value<'_>, secrets: &mut Vec<Secret>) -> Option<Map<String, Json>> {
    let value = value.clone().secret();
    if !matches!(value.raw(), DeValue::Table(_)) {
        value.table("[handlers.NAME.config]", |_| ());
        return None;
    }
    let entries = value.named_entries("[handlers.NAME.config]").into_iter();
    Some(entries.filter_map(|(key, value)| Some((key.to_owned(), json(&value, secrets)?))).collect())
}

fn json(value: &Value<'_>, secrets: &mut Vec<Secret>) -> Option<Json> {
    match value.raw() {
        DeValue::String(_) => value.text().map(|text| {
            if text.hidden {
                secrets.push(Secret::new(text.value.clone()));
            }
            Json::String(text.value)
        }),
        DeValue::Boolean(flag) => Some(Json::Bool(*flag)),
        DeValue::Datetime(time) => Some(Json::String(time.to_string())),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
            if number.is_none() {
                value.error("does not fit into 64 bits (TOML 1.0, integer)", "use a smaller number, or a string");
            }
            number.map(Json::from)
        }
        DeValue::Float(number) => {
            let number = number.as_str().parse().ok().and_then(Number::from_f64);
            if number.is_none() {
                value.error("JSON has no infinity and no NaN", "use a finite number, or a string");
            }
            number.map(Json::Number)
        }
        DeValue::Array(_) => {
            let items = value.items("[]")?;
            Some(Json::Array(items.iter().filter_map(|item| json(item, secrets)).collect()))
        }
        DeValue::Table(_) => object(value, secrets).map(Json::Object),
    }
}
