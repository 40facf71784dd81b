//! A list, page by page.

use kube::core::params::ListParams;
use serde::de::DeserializeOwned;

use super::decode::{Odd, Page};
use super::{ApiError, ObjectKey, Salvage, Source};

/// Objects on one page.
const PAGE: u32 = 500;

/// As far as a list has come.
pub(super) struct Listing<T> {
    items: Vec<T>,
    bad: Vec<(ObjectKey, String)>,
    /// Of the next page.
    token: Option<String>,
    /// All on one page: where pages expire faster than they are read.
    whole: bool,
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            bad: Vec::new(),
            token: None,
            whole: false,
        }
    }
}

/// What one more page makes of a list.
pub(super) enum Turned<T> {
    /// There are more.
    Page(Listing<T>),
    /// That was the last.
    Whole {
        /// What was understood.
        items: Vec<T>,
        /// What was not.
        bad: Vec<(ObjectKey, String)>,
        /// Of the collection.
        version: String,
    },
}

impl<T: DeserializeOwned> Listing<T> {
    /// Asks for the next page. On an error, the list to go on with: a page that fails does not cost those before it.
    pub(super) async fn turn(mut self, source: &Source, salvage: Salvage<T>) -> Result<Turned<T>, (ApiError, Self)> {
        let params = ListParams {
            limit: (!self.whole).then_some(PAGE),
            continue_token: self.token.clone(),
            ..source.list_params()
        };
        let page: Page<T> = match source.api.list_page(&source.resource, &params).await {
            Ok(page) => page,
            Err(error) => {
                let next = self.after(&error);
                return Err((error, next));
            }
        };
        for item in page.items {
            match item.object {
                Ok(object) => self.items.push(object),
                Err(Odd { why, value }) => {
                    let (resource, object) = (source.resource.full_name(), item.meta.key());
                    tracing::warn!(%resource, %object, error = %why, "object not understood");
                    self.bad.push((object, why));
                    self.items.extend(salvage(&value));
                }
            }
        }
        if let Some(token) = page.metadata.more() {
            self.token = Some(token.to_owned());
            return Ok(Turned::Page(self));
        }
        Ok(Turned::Whole {
            items: self.items,
            bad: self.bad,
            version: page.metadata.version().to_owned(),
        })
    }

    fn after(self, error: &ApiError) -> Self {
        match error {
            ApiError::Expired(_) => Self {
                whole: self.token.is_some() || self.whole,
                ..Self::default()
            },
            error if error.is_retryable() => self,
            _ => Self::default(),
        }
    }
}
