//! The form of a file of requests.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use serde_json::Value;

/// Requests about one subject, in a namespace of that name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subject {
    /// The file's name without its end.
    #[serde(skip)]
    pub(super) name: String,
    /// Definitions of ours that it needs, as files of `deploy/crds` without their group and end.
    #[serde(default)]
    pub(super) crds: Vec<String>,
    /// `metadata.managedFields` are part of the answers.
    #[serde(default)]
    pub(super) owners: bool,
    pub(super) steps: Vec<Step>,
}

/// One request. `${name}` in it stands for what an earlier one kept under that name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    /// What it shows; unique in its file.
    pub(super) does: String,
    /// Method and path, with the query. `READ name` reads on from a stream.
    pub(super) send: String,
    #[serde(default)]
    pub(super) body: Option<Value>,
    /// A body that is sent as it stands here.
    #[serde(default)]
    pub(super) text: Option<String>,
    /// Of a PATCH: `merge`, `strategic-merge`, `json` or `apply`.
    #[serde(default)]
    pub(super) patch: Option<String>,
    /// Media type of the body, where it is neither JSON nor a patch.
    #[serde(default, rename = "type")]
    pub(super) media: Option<String>,
    #[serde(default)]
    pub(super) accept: Option<String>,
    /// Who asks: `nobody`, `stranger` (a token that nobody issued) or a service account, `namespace/name`. The cluster's
    /// administrator when absent.
    #[serde(default, rename = "as")]
    pub(super) identity: Option<String>,
    /// Parts of the answer that later steps use: a name, and a JSON pointer into the body.
    #[serde(default)]
    pub(super) keep: BTreeMap<String, String>,
    /// Asks again until this code comes: what other parts of a cluster do takes its time.
    #[serde(default)]
    pub(super) until: Option<u16>,
    /// Leaves the answer's stream open under this name.
    #[serde(default)]
    pub(super) opens: Option<String>,
    /// How many events are read; all to the stream's end when absent.
    #[serde(default)]
    pub(super) events: Option<usize>,
    /// Messages for people are compared, too: ours read these.
    #[serde(default)]
    pub(super) words: bool,
}

impl Subject {
    /// Every file of `folder`, by name; those that `MARGAY_TABLE_ONLY` names when it is set.
    pub(super) fn all(folder: &Path) -> Vec<Self> {
        let only = std::env::var("MARGAY_TABLE_ONLY").unwrap_or_default();
        let files = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut files: Vec<_> = files.map(|f| f.expect("file").path()).collect();
        files.retain(|f| f.extension().is_some_and(|e| e == "yaml") && !f.ends_with("deviations.yaml"));
        files.sort();
        let subjects = files.iter().map(|f| Self::read(f));
        let chosen = |s: &Self| only.is_empty() || only.split(',').any(|o| o == s.name);
        subjects.filter(chosen).collect()
    }

    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("readable");
        let mut subject: Self = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let name = path.file_stem().and_then(|n| n.to_str()).expect("a name");
        subject.name = name.to_owned();
        let mut seen = std::collections::BTreeSet::new();
        for step in &subject.steps {
            assert!(seen.insert(&step.does), "{name}: two steps are called {:?}", step.does);
        }
        subject
    }
}
