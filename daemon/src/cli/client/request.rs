//! What is asked of the daemon: method, path with its query, body.
//!
//! Made by the commands, so that tests can look at it; sent by the client.

use std::time::Duration;

use hyper::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// Where the API is.
const ROOT: &str = "/api/v1";

/// All but what RFC 3986 §2.3 calls unreserved.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How long the answer to a question may take.
const READING: Duration = Duration::from_secs(10);

/// How long a change may take: a broker is connected, a plugin compiled. The daemon itself gives up after 60 s.
const CHANGING: Duration = Duration::from_secs(75);

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub method: Method,
    /// With its query.
    pub path: String,
    /// JSON.
    pub body: Option<Value>,
}

impl Request {
    /// Reads a resource, named by the segments of its path.
    pub fn get(segments: &[&str]) -> Request {
        Request::new(Method::GET, segments, None)
    }

    /// Adds to a collection, or does something.
    pub fn post(segments: &[&str], body: Option<Value>) -> Request {
        Request::new(Method::POST, segments, body)
    }

    /// Puts a resource where its path says.
    pub fn put(segments: &[&str], body: Value) -> Request {
        Request::new(Method::PUT, segments, Some(body))
    }

    /// Changes a resource by a merge patch (RFC 7396).
    pub fn patch(segments: &[&str], body: Value) -> Request {
        Request::new(Method::PATCH, segments, Some(body))
    }

    /// Removes a resource.
    pub fn delete(segments: &[&str]) -> Request {
        Request::new(Method::DELETE, segments, None)
    }

    fn new(method: Method, segments: &[&str], body: Option<Value>) -> Request {
        let segments = segments.iter().map(|segment| format!("/{}", utf8_percent_encode(segment, &RESERVED)));
        Request { method, path: std::iter::once(ROOT.to_owned()).chain(segments).collect(), body }
    }

    /// Adds a parameter, if there is a value.
    pub fn query(mut self, key: &str, value: Option<&str>) -> Request {
        if let Some(value) = value {
            self.path.push(if self.path.contains('?') { '&' } else { '?' });
            self.path.push_str(key);
            self.path.push('=');
            self.path.extend(utf8_percent_encode(value, &RESERVED));
        }
        self
    }

    /// The media type of the body.
    pub fn content_type(&self) -> &'static str {
        if self.method == Method::PATCH { "application/merge-patch+json" } else { "application/json" }
    }

    /// How long the answer may take.
    pub fn patience(&self) -> Duration {
        if self.changes() { CHANGING } else { READING }
    }

    /// Whether it is a change, which may have been made although no answer came.
    pub fn changes(&self) -> bool {
        self.method != Method::GET
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::admin::limits::REQUEST_TIME;

    #[test]
    fn names_and_values_cannot_break_out_of_their_place() {
        let path = |request: Request| request.path;
        assert_eq!(path(Request::get(&["brokers"])), "/api/v1/brokers");
        assert_eq!(path(Request::get(&["subscriptions", "a:b/+/#?x"])), "/api/v1/subscriptions/a%3Ab%2F%2B%2F%23%3Fx");
        let both = Request::get(&["received"]).query("broker", Some("ä&b=c")).query("last", None);
        assert_eq!(path(both.query("topic", Some("a/#"))), "/api/v1/received?broker=%C3%A4%26b%3Dc&topic=a%2F%23");
    }

    #[test]
    fn a_change_may_take_longer_than_the_daemon_works_on_it() {
        assert!(Request::post(&["publish"], None).patience() > REQUEST_TIME);
        assert!(!Request::get(&["status"]).changes());
    }
}
