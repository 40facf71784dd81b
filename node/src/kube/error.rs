//! What went wrong between us and the API server, in the terms callers decide by.

use std::time::Duration;

/// An error of the Kubernetes API, classified by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The object (or the whole resource type) does not exist: HTTP 404.
    #[error("not found: {0}")]
    NotFound(String),
    /// An object of that name exists already: HTTP 409, reason AlreadyExists.
    #[error("already exists: {0}")]
    AlreadyExists(String),
    /// The resourceVersion or uid sent is not the current one: HTTP 409, reason Conflict.
    #[error("changed by somebody else meanwhile: {0}")]
    Conflict(String),
    /// The resourceVersion asked for is too old to watch from: HTTP 410. List again.
    #[error("resourceVersion expired: {0}")]
    Expired(String),
    /// The credentials are missing, expired or may not do this: HTTP 401 and 403.
    #[error("not permitted: {0}")]
    Forbidden(String),
    /// The server refuses the object as it stands: HTTP 400 and 422.
    #[error("refused as invalid: {0}")]
    Invalid(String),
    /// The server asks for patience: HTTP 429, or 503 where it says when to come back. Worth trying again, but not before.
    #[error("API server busy, HTTP {code}: {reason}")]
    Busy {
        /// The HTTP status.
        code: u16,
        /// What the server said.
        reason: String,
        /// How long to stay away.
        after: Duration,
    },
    /// No useful answer came: no connection, a timeout or 5xx. Worth trying again.
    #[error("API server unreachable: {0}")]
    Unreachable(String),
    /// The answer was not what the API promises.
    #[error("answer not understood: {0}")]
    Malformed(String),
}

impl ApiError {
    /// True when the same request may succeed later without anything being changed by us.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::Busy { .. } | Self::Conflict(_) | Self::Expired(_)
        )
    }

    /// How long the server wants to be left alone, where it says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { after, .. } => Some(*after),
            _ => None,
        }
    }

    /// True when the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }

    pub(crate) fn from_status(status: &kube::core::Status) -> Self {
        let text = if status.message.is_empty() {
            status.reason.clone()
        } else {
            status.message.clone()
        };
        match (status.code, status.reason.as_str()) {
            (404, _) => Self::NotFound(text),
            (409, "AlreadyExists") => Self::AlreadyExists(text),
            (409, _) => Self::Conflict(text),
            (410, _) => Self::Expired(text),
            (401 | 403, _) => Self::Forbidden(text),
            (400 | 405 | 415 | 422, _) => Self::Invalid(text),
            (code, _) => {
                let told = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                Self::from_refusal(code, text, (told > 0).then(|| u64::from(told)))
            }
        }
    }

    /// An answer of 429 or 5xx. `told` is in seconds.
    pub(crate) fn from_refusal(code: u16, reason: String, told: Option<u64>) -> Self {
        match told.or_else(|| (code == 429).then_some(1)) {
            Some(seconds) => Self::Busy {
                code,
                reason,
                // A proxy on the way may say anything.
                after: Duration::from_secs(seconds).min(LONGEST_WAIT),
            },
            None => Self::Unreachable(format!("HTTP {code}: {reason}")),
        }
    }
}

const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) => Self::from_status(status),
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => Self::Malformed(error.to_string()),
            kube::Error::BuildRequest(_) | kube::Error::HttpError(_) => Self::Invalid(error.to_string()),
            kube::Error::Auth(_) => Self::Forbidden(chain(&error)),
            // Its own words say nothing; the reason is inside.
            kube::Error::Service(inner) => match inner.downcast_ref::<Refusal>() {
                Some(refusal) => Self::from_refusal(refusal.code, refusal.text.clone(), Some(refusal.after)),
                None => Self::Unreachable(chain(inner.as_ref())),
            },
            _ => Self::Unreachable(chain(&error)),
        }
    }
}

/// An answer whose head says when to come back: kube's own errors keep an answer's body only.
#[derive(Debug, thiserror::Error)]
#[error("HTTP {code}: {text}")]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) text: String,
    /// In seconds.
    pub(crate) after: u64,
}

/// The error with its causes: hyper's outermost message never says which connection failed or why.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, reason: &str) -> kube::core::Status {
        kube::core::Status::failure("the message", reason).with_code(code)
    }

    #[test]
    fn the_two_kinds_of_409_differ() {
        assert!(matches!(
            ApiError::from_status(&status(409, "AlreadyExists")),
            ApiError::AlreadyExists(_)
        ));
        assert!(matches!(
            ApiError::from_status(&status(409, "Conflict")),
            ApiError::Conflict(_)
        ));
    }

    #[test]
    fn server_trouble_is_retryable_and_bad_requests_are_not() {
        assert!(ApiError::from_status(&status(503, "")).is_retryable());
        assert!(ApiError::from_status(&status(429, "TooManyRequests")).is_retryable());
        assert!(!ApiError::from_status(&status(422, "Invalid")).is_retryable());
        assert!(!ApiError::from_status(&status(403, "Forbidden")).is_retryable());
    }

    #[test]
    fn a_server_that_says_when_is_taken_at_its_word_within_reason() {
        let after = |code, told| ApiError::from_refusal(code, String::new(), told).retry_after();
        assert_eq!(after(503, Some(7)), Some(Duration::from_secs(7)));
        assert_eq!(after(503, None), None);
        assert_eq!(after(429, None), Some(Duration::from_secs(1)));
        assert_eq!(after(429, Some(86_400)), Some(Duration::from_secs(60)));
        assert_eq!(ApiError::Conflict(String::new()).retry_after(), None);
    }
}
