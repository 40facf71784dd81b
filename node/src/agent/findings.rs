//! What is found about the node's surroundings that a person must fix.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// Something to fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// CamelCase reason of the Event.
    pub reason: &'static str,
    /// What happened and the way out.
    pub message: String,
}

/// The findings of now, by who looks.
pub type Board = BTreeMap<&'static str, Finding>;

/// Where findings are put. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Findings(Arc<watch::Sender<Board>>);

impl Default for Findings {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Board::new())))
    }
}

impl Findings {
    /// What `who` finds now; nothing when all is well.
    pub fn set(&self, who: &'static str, finding: Option<Finding>) {
        self.0.send_if_modified(|board| {
            let before = match finding.clone() {
                Some(finding) => board.insert(who, finding),
                None => board.remove(who),
            };
            before != finding
        });
    }

    /// To hear of changes.
    pub fn subscribe(&self) -> watch::Receiver<Board> {
        self.0.subscribe()
    }
}
