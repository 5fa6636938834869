//! PURE: what the headers of an answer say about the next request (RFC 9110).
//!
//! Bound: a server may ask for at most [`RETRY_AFTER_MAX`] of silence.

use std::time::{Duration, SystemTime};

use http::header::{DATE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The longest wait that a server may ask for; a mistake there must not end the source.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// A date of the answer stands for one state only if it is older than the answer by this: dates
/// have seconds, and the state may have changed again within the same one (section 8.8.2.2).
const LAST_MODIFIED_AGE_MIN: Duration = Duration::from_secs(1);

/// What makes the same request conditional when it is sent again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Validators {
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

impl Validators {
    /// Those of an answer, as far as they can be relied on.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let modified = date(headers, &LAST_MODIFIED);
        let age = date(headers, &DATE)
            .zip(modified)
            .and_then(|(answered, modified)| answered.duration_since(modified).ok());
        let is_settled = age.is_some_and(|age| age >= LAST_MODIFIED_AGE_MIN);
        let last_modified = headers.get(LAST_MODIFIED).filter(|_| is_settled);
        Self { etag: headers.get(ETAG).cloned(), last_modified: last_modified.cloned() }
    }

    /// Whether a request with them is unconditional all the same.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Makes a request conditional; a server that knows entity tags ignores the date (section
    /// 13.1.3).
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        let conditions = [(IF_NONE_MATCH, &self.etag), (IF_MODIFIED_SINCE, &self.last_modified)];
        for (name, value) in conditions {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
    }
}

/// The wait that `Retry-After` asks for, in seconds or as a date, at most [`RETRY_AFTER_MAX`].
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(asked.min(RETRY_AFTER_MAX))
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, text)| (name.clone(), text.parse().unwrap())).collect()
    }

    #[test]
    fn an_answer_makes_the_next_request_conditional() {
        let (early, late) = ("Sun, 06 Nov 1994 08:49:36 GMT", "Sun, 06 Nov 1994 08:49:37 GMT");
        let both = [(ETAG, "W/\"7\""), (LAST_MODIFIED, early), (DATE, late)];
        let mut request = HeaderMap::new();
        Validators::of(&headers(&both)).apply(&mut request);
        assert_eq!(request, headers(&[(IF_NONE_MATCH, "W/\"7\""), (IF_MODIFIED_SINCE, early)]));
        // A date that may still change within its second, or that nothing compares to.
        let unsettled: [&[(HeaderName, &str)]; 5] = [
            &[(LAST_MODIFIED, late), (DATE, late)],
            &[(LAST_MODIFIED, late), (DATE, early)],
            &[(LAST_MODIFIED, early)],
            &[(LAST_MODIFIED, "yesterday"), (DATE, late)],
            &[(DATE, late)],
        ];
        for pairs in unsettled {
            assert!(Validators::of(&headers(pairs)).is_empty(), "{pairs:?}");
        }
    }

    #[test]
    fn the_wait_asked_for_is_bounded() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let cases = [
            ("0", Some(0)),
            ("7", Some(7)),
            ("86400", Some(60)),
            ("18446744073709551615", Some(60)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("Sat, 06 Nov 2094 08:49:27 GMT", Some(60)),
            ("-1", None),
            ("soon", None),
        ];
        for (text, expected) in cases {
            let asked = retry_after(&headers(&[(RETRY_AFTER, text)]), now);
            assert_eq!(asked, expected.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
