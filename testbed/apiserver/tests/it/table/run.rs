//! Sends the requests of a subject, one after the other, and keeps what comes back in its normal form.

use std::{collections::HashMap, io::Read, path::Path, time::Duration};

use anyhow::ensure;
use margay_testkit::shell::wait_for;
use serde_json::{Value, json};

use super::{
    normal::Names,
    subject::{Step, Subject},
};
use crate::client::{Client, Events, patch_type};

/// How long other parts of a cluster may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The answers to all steps.
pub(super) fn all(subject: &Subject, admin: &Client) -> Vec<Value> {
    prepare(subject, admin);
    let mut run = Run {
        subject,
        admin,
        kept: HashMap::new(),
        tokens: HashMap::new(),
        streams: HashMap::new(),
        names: Names::new(subject.owners),
        last: Value::Null,
    };
    subject.steps.iter().map(|step| run.step(step)).collect()
}

struct Run<'a> {
    subject: &'a Subject,
    admin: &'a Client,
    kept: HashMap<String, String>,
    tokens: HashMap<String, String>,
    streams: HashMap<String, Events>,
    names: Names,
    /// The answer to the step before.
    last: Value,
}

impl Run<'_> {
    fn step(&mut self, step: &Step) -> Value {
        let Some(wanted) = step.until else {
            let answer = self.ask(step);
            return self.finish(step, answer);
        };
        let what = format!("{}: {:?}", self.subject.name, step.does);
        let answer = wait_for(&what, PATIENCE, || {
            let answer = self.ask(step);
            ensure!(answer["code"] == wanted, "it answers {}, not {wanted}", answer["code"]);
            Ok(answer)
        });
        let answer = answer.unwrap_or_else(|e| panic!("{e:#}; before it came {:#?}", self.last));
        self.finish(step, answer)
    }

    /// The answer as it came.
    fn ask(&mut self, step: &Step) -> Value {
        let send = self.filled(&step.send);
        let (method, path) = send.split_once(' ').expect("method and path");
        if method == "READ" {
            let events = self.read_on(path, step.events);
            return json!({"events": events});
        }
        let body = step.body.as_ref().map(|b| self.filled(&b.to_string()));
        let body = body.or_else(|| step.text.clone()).unwrap_or_default();
        let media = step.media.clone().or_else(|| step.patch.as_deref().map(patch_type));
        let media = media.unwrap_or_else(|| "application/json".to_owned());
        let accept = step.accept.as_deref().unwrap_or("application/json");
        let headers =
            format!("Content-Type: {media}\r\nAccept: {accept}\r\nUser-Agent: table/1\r\nConnection: close\r\n");
        let client = self.client(step);
        let answer = client.open(method, path, &headers, &body);
        let (code, headers, mut reader) =
            answer.unwrap_or_else(|e| panic!("{}: {}: {e}", self.subject.name, step.does));
        let mut answer = json!({"code": code});
        let warnings: Vec<&str> = headers.lines().filter_map(warning).collect();
        if !warnings.is_empty() {
            answer["warnings"] = warnings.into();
        }
        if code == 200 && path.contains("watch=") {
            let name = step.opens.as_deref().unwrap_or("");
            self.streams.insert(name.to_owned(), Events { reader });
            if step.opens.is_none() {
                answer["events"] = self.read_on("", step.events);
            }
            return answer;
        }
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("body");
        answer["body"] = serde_json::from_str(&text).unwrap_or(Value::String(text));
        answer
    }

    fn finish(&mut self, step: &Step, answer: Value) -> Value {
        for (name, pointer) in &step.keep {
            let found = answer["body"].pointer(pointer);
            let found =
                found.unwrap_or_else(|| panic!("{}: {}: no {pointer} in {answer}", self.subject.name, step.does));
            let text = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
            self.kept.insert(name.clone(), text);
        }
        let mut answer = self.names.normal(answer);
        answer["step"] = step.does.clone().into();
        self.last.clone_from(&answer);
        answer
    }

    /// Events of an open stream, without bookmarks but the one that ends the initial events: others come by the clock.
    fn read_on(&mut self, name: &str, count: Option<usize>) -> Value {
        let stream = self.streams.get_mut(name).expect("opened before");
        let mut events = Vec::new();
        while count.is_none_or(|c| events.len() < c) {
            let Some(event) = stream.next() else { break };
            if event["type"] != "BOOKMARK" || event["object"]["metadata"]["annotations"].is_object() {
                events.push(event);
            }
        }
        events.into()
    }

    fn client(&mut self, step: &Step) -> Client {
        let account = match step.identity.as_deref() {
            None => return self.admin.clone(),
            Some("nobody") => return self.admin.with_token(None),
            Some("stranger") => return self.admin.with_token(Some("of-nobody")),
            Some(account) => account,
        };
        if !self.tokens.contains_key(account) {
            let (namespace, name) = account.split_once('/').expect("namespace/name");
            let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
            let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
            let review = self.admin.post(&path, &review).ok();
            let token = review["status"]["token"].as_str().expect("a token").to_owned();
            self.tokens.insert(account.to_owned(), token);
        }
        self.admin.with_token(Some(&self.tokens[account]))
    }

    fn filled(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.kept {
            text = text.replace(&format!("${{{name}}}"), value);
        }
        assert!(!text.contains("${"), "{}: nothing kept for {text}", self.subject.name);
        text
    }
}

fn warning(line: &str) -> Option<&str> {
    let (name, value) = line.split_once(':')?;
    name.eq_ignore_ascii_case("warning").then(|| value.trim())
}

/// A namespace with its default account, and definitions that are served.
fn prepare(subject: &Subject, admin: &Client) {
    let name = &subject.name;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    admin.post("/api/v1/namespaces", &namespace).ok();
    wait(admin, &format!("/api/v1/namespaces/{name}/serviceaccounts/default"));
    for crd in &subject.crds {
        let file = format!("../../deploy/crds/projectcalico.org_{crd}.yaml");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let definition: Value = serde_saphyr::from_str(&text).expect("YAML");
        let reply = admin.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition);
        assert!(matches!(reply.code, 201 | 409), "{crd}: {}", reply.body);
        wait(admin, &format!("/apis/projectcalico.org/v3/{crd}"));
    }
}

fn wait(client: &Client, path: &str) {
    wait_for(path, PATIENCE, || {
        let code = client.get(path).code;
        ensure!(code == 200, "it answers {code}");
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}"));
}
