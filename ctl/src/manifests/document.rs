//! One object of a manifest file.

use std::sync::Arc;

use margay_api::slim;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::{MessageFormatter, Options, Spanned, UserMessageFormatter};

use super::read::File;
use super::{ManifestError, Place};

/// A document of a YAML or JSON stream, not parsed yet.
pub(super) struct Document<'a> {
    file: Arc<str>,
    /// Lines of the file above `text`.
    above: usize,
    text: &'a str,
}

/// An object and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Located {
    pub(super) place: Place,
    pub(super) object: Object,
}

/// What a manifest describes.
#[derive(Debug, Clone)]
pub(super) enum Object {
    Namespace(slim::Namespace),
    Pod(slim::Pod),
    Node(slim::Node),
    NetworkPolicy(slim::NetworkPolicy),
    /// A kind that policy evaluation does not read.
    Other {
        kind: String,
        name: String,
    },
}

/// The file's documents. A line that starts with `---` begins a new one; it can stand nowhere else.
pub(super) fn split(file: &File) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut above) = (0, 0);
    let (mut offset, mut line) = (0, 0);
    let mut push = |start, end, above| {
        documents.push(Document {
            file: Arc::clone(&file.name),
            above,
            text: &file.text[start..end],
        });
    };
    for text in file.text.split_inclusive('\n') {
        let marker = text
            .strip_prefix("---")
            .is_some_and(|rest| rest.trim_start().len() < rest.len());
        if (marker || text == "---") && offset > start {
            push(start, offset, above);
            (start, above) = (offset, line);
        }
        offset += text.len();
        line += 1;
    }
    push(start, file.text.len(), above);
    documents
}

/// What every object starts with. All fields may be missing so that the message can say which one is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    metadata: Option<HeaderMetadata>,
}

#[derive(Default, Deserialize)]
struct HeaderMetadata {
    name: Option<String>,
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct List {
    /// Absent in a kind of one object whose name merely ends so.
    items: Option<Vec<Spanned<Value>>>,
}

impl Document<'_> {
    /// The objects in it: none in an empty document, several in a List.
    pub(super) fn parse(&self) -> Result<Vec<Located>, ManifestError> {
        if self.is_blank() {
            return Ok(Vec::new());
        }
        let start = self.place(self.first_line());
        let header: Option<Header> = self.read(self.text)?;
        let Some(header) = header else {
            return Ok(Vec::new());
        };
        if header.kind.as_deref().is_some_and(|kind| kind.ends_with("List"))
            && let Some(items) = self.read::<List>(self.text)?.items
        {
            return items
                .into_iter()
                .map(|item| {
                    let line = usize::try_from(item.referenced.line()).unwrap_or(1);
                    let place = self.place(line);
                    let header = value::<Header>(&item.value).map_err(|why| place.invalid(why))?;
                    let object = object(&place, &header, &From::Value(&item.value))?;
                    Ok(Located { place, object })
                })
                .collect();
        }
        let object = object(&start, &header, &From::Text(self))?;
        Ok(vec![Located { place: start, object }])
    }

    fn is_blank(&self) -> bool {
        self.text.lines().all(is_filler)
    }

    /// The line, within the document, of its first content.
    fn first_line(&self) -> usize {
        self.text.lines().position(|line| !is_filler(line)).unwrap_or(0) + 1
    }

    fn place(&self, line: usize) -> Place {
        Place {
            file: Arc::clone(&self.file),
            line: self.above + line,
        }
    }

    fn read<T: DeserializeOwned>(&self, text: &str) -> Result<T, ManifestError> {
        serde_saphyr::from_str_with_options(text, options()).map_err(|error| self.explain(&error))
    }

    /// Moves an error's line from the document to the file.
    fn explain(&self, error: &serde_saphyr::Error) -> ManifestError {
        let error = error.without_snippet();
        let message = UserMessageFormatter.format_message(error);
        let Some(location) = error.location() else {
            return self.place(self.first_line()).invalid(message);
        };
        let line = usize::try_from(location.line()).unwrap_or(1);
        self.place(line)
            .invalid(format!("column {}: {message}", location.column()))
    }
}

/// Whether a line holds nothing of an object.
fn is_filler(line: &str) -> bool {
    let line = line.trim_end();
    line.trim_start().is_empty() || line.trim_start().starts_with('#') || line == "---" || line == "..."
}

/// YAML as the API server's tools read it: `y` and `on` are strings, and a number or `true` is none.
fn options() -> Options {
    serde_saphyr::options! {
        strict_booleans: true,
        no_schema: true,
        with_snippet: false,
    }
}

/// Where an object is parsed from: text keeps the lines for messages.
enum From<'a> {
    Text(&'a Document<'a>),
    Value(&'a Value),
}

impl From<'_> {
    /// Reads what `subject` names. A fault is told with the field, which only a read of the parsed value knows.
    fn read<T: DeserializeOwned>(&self, place: &Place, subject: &str) -> Result<T, ManifestError> {
        let fault = |place: &Place, why: String| place.invalid(format!("{subject}: {why}"));
        match self {
            Self::Text(document) => document.read(document.text).map_err(|error| {
                let parsed = document.read::<Value>(document.text).ok();
                match (&error, parsed.and_then(|parsed| value::<T>(&parsed).err())) {
                    (ManifestError::Invalid { place, .. }, Some(why)) => fault(place, why),
                    _ => error,
                }
            }),
            Self::Value(item) => value(item).map_err(|why| fault(place, why)),
        }
    }
}

/// Reads `item`, or says which field keeps it from being one.
fn value<T: DeserializeOwned>(item: &Value) -> Result<T, String> {
    serde_path_to_error::deserialize(item).map_err(|error| {
        let path = error.path().to_string();
        format!("{path}: {}", error.into_inner())
    })
}

/// Reads the kinds that policy evaluation needs.
fn object(place: &Place, header: &Header, from: &From<'_>) -> Result<Object, ManifestError> {
    let missing = |field: &str| {
        place.invalid(format!(
            "no {field}: every object needs apiVersion, kind and metadata.name"
        ))
    };
    let version = header.api_version.as_deref().ok_or_else(|| missing("apiVersion"))?;
    let kind = header.kind.as_deref().ok_or_else(|| missing("kind"))?;
    let metadata = header.metadata.as_ref();
    let name = metadata
        .and_then(|metadata| metadata.name.as_deref())
        .filter(|name| !name.is_empty())
        .ok_or_else(|| missing("metadata.name"))?;
    let namespace = metadata.and_then(|metadata| metadata.namespace.as_deref());
    let full_name = namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
    let subject = format!("{kind} {full_name}");
    Ok(match (version, kind) {
        ("v1", "Namespace") => Object::Namespace(from.read(place, &subject)?),
        ("v1", "Pod") => Object::Pod(from.read(place, &subject)?),
        ("v1", "Node") => Object::Node(from.read(place, &subject)?),
        ("networking.k8s.io/v1", "NetworkPolicy") => {
            let policy = from.read(place, &subject)?;
            if let Some(path) = unknown_field(&from.read(place, &subject)?) {
                return Err(place.invalid(format!("{subject}: unknown field {path}")));
            }
            Object::NetworkPolicy(policy)
        }
        (_, kind) if decides_traffic(kind) => {
            return Err(place.invalid(format!(
                "{kind} {name} ({version}) cannot be evaluated: only NetworkPolicy of networking.k8s.io/v1 can. \
                 Leave it out to see what the others decide"
            )));
        }
        _ => Object::Other {
            kind: kind.to_owned(),
            name: full_name,
        },
    })
}

/// The first field of a policy's spec that the API does not have: a rule with a misspelt `from` would allow everybody.
fn unknown_field(policy: &Value) -> Option<String> {
    let mut unknown = Vec::new();
    let parsed: Result<slim::NetworkPolicy, _> =
        serde_ignored::deserialize(policy, |path| unknown.push(path.to_string()));
    parsed.ok()?;
    unknown
        .into_iter()
        .find(|path| path.starts_with("spec."))
        .map(|path| as_kubernetes_writes(&path))
}

/// `spec.ingress.0.?.from` as `spec.ingress[0].from`: serde_ignored writes `?` for the inside of an Option.
fn as_kubernetes_writes(path: &str) -> String {
    let mut written = String::new();
    for part in path.split('.').filter(|part| *part != "?") {
        if part.parse::<usize>().is_ok() {
            written.push_str(&format!("[{part}]"));
        } else {
            written.push_str(if written.is_empty() { "" } else { "." });
            written.push_str(part);
        }
    }
    written
}

/// Kinds that must not be passed over: the verdict without them would be another.
fn decides_traffic(kind: &str) -> bool {
    kind.ends_with("NetworkPolicy") && !kind.starts_with("Staged")
}
