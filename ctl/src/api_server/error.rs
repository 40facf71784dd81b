//! Why an API server did not do what it was asked, and what to do.

use std::error::Error;
use std::time::Duration;

use super::kubeconfig::Context;

/// An answer that is none, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    /// Nobody answers there.
    #[error("no answer from {context}: {why}. Is it up, and the right one? --context chooses another")]
    Unreachable {
        /// Whom it was asked of.
        context: String,
        /// What happened.
        why: String,
    },
    /// The API server does not know who asks.
    #[error("{context} does not take these credentials{why}: log in again, or choose another with --context")]
    Unauthorized {
        /// Whom it was asked of.
        context: String,
        /// What it says of them.
        why: String,
    },
    /// Who asks may not.
    #[error("{0}. deploy/README.md says which rights margayctl needs")]
    Forbidden(String),
    /// The API server does not have it.
    #[error("{0}")]
    NotFound(String),
    /// The API server answers with an error of its own.
    #[error("{context} answers {code}: {message}")]
    Failed {
        /// Whom it was asked of.
        context: String,
        /// The status.
        code: u16,
        /// What it says.
        message: String,
    },
    /// Anything else, as it was told.
    #[error("{0}")]
    Other(String),
}

impl ApiError {
    /// What kube's client met.
    pub(super) fn of(error: &kube::Error, context: &Context) -> Self {
        let context = context.to_string();
        match error {
            kube::Error::Api(status) => {
                let told = |otherwise: &str| match status.message.as_str() {
                    "" => otherwise.to_owned(),
                    message => message.to_owned(),
                };
                match status.code {
                    401 => Self::Unauthorized {
                        context,
                        why: told("")
                            .strip_prefix("Unauthorized")
                            .map_or_else(|| format!(" ({})", told("Unauthorized")), str::to_owned),
                    },
                    403 => Self::Forbidden(told("this is forbidden")),
                    404 => Self::NotFound(told("there is no such thing")),
                    code => Self::Failed {
                        context,
                        code,
                        message: told("without a reason"),
                    },
                }
            }
            kube::Error::Auth(error) => Self::Unauthorized {
                context,
                why: format!(" ({})", innermost(error)),
            },
            kube::Error::SerdeError(error) => Self::Other(format!(
                "this margayctl does not understand what {context} answers: {error}"
            )),
            error => Self::Unreachable {
                context,
                why: innermost(error),
            },
        }
    }

    /// It let somebody wait for too long.
    pub(super) fn late(context: &Context, patience: Duration) -> Self {
        Self::Unreachable {
            context: context.to_string(),
            why: format!("nothing came within {} s", patience.as_secs()),
        }
    }
}

/// The cause of all others: the rest says which layer of the client met it.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
