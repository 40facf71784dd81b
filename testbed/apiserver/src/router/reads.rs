//! Lists and watches.

use std::time::Duration;

use serde_json::json;

use super::{Answer, call::Call, options};
use crate::{
    catalog::Origin,
    registry::{Filter, Paging},
    request::{Shape, shape},
    selector::{FieldSelector, LabelSelector},
    status::{ApiError, Result},
    watch::{self, Watch},
};

/// Watches end after this long when the client names no time.
const WATCH_TIMEOUT: Duration = Duration::from_secs(30 * 60);

impl Call<'_> {
    pub(super) fn list(&self) -> Result<Answer> {
        options::list(&self.query)?;
        let version = self.query.number("resourceVersion")?;
        let exact = self.query.get("resourceVersionMatch") == Some("Exact");
        let paging = Paging {
            limit: self.query.number("limit")?.and_then(|l| usize::try_from(l).ok()),
            token: self.query.get("continue").map(str::to_owned),
            exact_revision: version.filter(|_| exact),
        };
        let page = self.shared.registry.list(&self.resource, &self.filter()?, &paging)?;
        let mut metadata = json!({"resourceVersion": page.revision.to_string()});
        if let Some((token, left)) = page.next {
            metadata["continue"] = token.into();
            let selects = ["labelSelector", "fieldSelector"]
                .iter()
                .any(|s| self.query.get(s).is_some());
            if !selects {
                metadata["remainingItemCount"] = left.into();
            }
        } else if self.resource.origin == Origin::Custom && shape(&self.head.headers)? == Shape::Plain {
            metadata["continue"] = "".into();
        }
        Ok(Answer::json(200, self.shaped_list(page.items, metadata)?))
    }

    pub(super) fn watch(&self) -> Result<Answer> {
        options::list(&self.query)?;
        let version = self.query.number("resourceVersion");
        // An error without a reason in Kubernetes.
        let version = version.map_err(|e| ApiError::new(500, "", e.message))?;
        let initial = self.query.flag("sendInitialEvents");
        // No version, or "0", starts with what there is now; so does a request for the initial events.
        let since = version.filter(|v| *v != 0 && !initial);
        let seconds = self.query.number("timeoutSeconds")?;
        let request = Watch {
            resource: self.resource.clone(),
            filter: self.filter()?,
            bookmarks: self.query.flag("allowWatchBookmarks"),
            mark_initial: initial && self.query.flag("allowWatchBookmarks"),
            timeout: seconds.map_or(WATCH_TIMEOUT, Duration::from_secs),
            bookmark_interval: self.shared.bookmark_interval,
            cut_after: self.asker.cut_after,
            cut: self.shared.cut.subscribe(),
        };
        let render = self.render()?;
        match self.shared.registry.watch(&self.resource, since) {
            Ok((objects, subscription)) => Ok(Answer::stream(watch::start(request, objects, subscription, render))),
            Err(error) => Ok(Answer::stream(watch::failed(&error))),
        }
    }

    pub(super) fn filter(&self) -> Result<Filter> {
        Ok(Filter {
            namespace: self.target.namespace.clone(),
            labels: LabelSelector::parse(self.query.get("labelSelector").unwrap_or_default())?,
            fields: FieldSelector::parse(
                self.query.get("fieldSelector").unwrap_or_default(),
                &self.resource.field_labels,
            )?,
        })
    }
}
