//! The fields of a node definition, and how those of a node, its group, its kind and the defaults combine.

use std::collections::BTreeMap;

use crate::fault::Findings;
use crate::schema;
use crate::yaml::{Mark, Yaml};

/// A text and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) mark: Mark,
    pub(crate) value: String,
}

/// One node definition as written: `topology.defaults`, `topology.kinds.*`, `topology.groups.*` or `topology.nodes.*`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layer {
    texts: BTreeMap<&'static str, Text>,
    lists: BTreeMap<&'static str, Vec<Text>>,
    maps: BTreeMap<&'static str, BTreeMap<String, Text>>,
}

enum Shape {
    Text,
    List,
    Map,
}

/// How a field that works is written.
fn shape(name: &str) -> Shape {
    match name {
        "exec" | "binds" | "daemons" => Shape::List,
        "env" | "labels" | "sysctls" => Shape::Map,
        _ => Shape::Text,
    }
}

impl Layer {
    /// Reads the definition at `path`; what is wrong with it goes to `findings`.
    pub(crate) fn read(yaml: &Yaml, path: &str, findings: &mut Findings) -> Layer {
        let mut layer = Layer::default();
        for (name, _, value) in schema::NODE.read(yaml, path, findings) {
            let field = format!("{path}.{name}");
            match name {
                "extras" => layer.read_extras(value, &field, findings),
                _ => layer.read_field(name, &shape(name), value, &field, findings),
            }
        }
        layer
    }

    fn read_extras(&mut self, yaml: &Yaml, path: &str, findings: &mut Findings) {
        for (name, _, frr) in schema::EXTRAS.read(yaml, path, findings) {
            let path = format!("{path}.{name}");
            for (name, _, value) in schema::FRR.read(frr, &path, findings) {
                self.read_field(name, &shape(name), value, &format!("{path}.{name}"), findings);
            }
        }
    }

    fn read_field(&mut self, name: &'static str, shape: &Shape, value: &Yaml, field: &str, findings: &mut Findings) {
        match shape {
            Shape::Text => match value.text() {
                Some(text) => {
                    self.texts.insert(
                        name,
                        Text {
                            mark: value.mark,
                            value: text,
                        },
                    );
                }
                None => findings.fault(value.mark, field, format!("is {}; write a single value", value.kind())),
            },
            Shape::List => {
                let Some(items) = value.items() else {
                    findings.fault(value.mark, field, format!("is {}; write a list", value.kind()));
                    return;
                };
                let list = self.lists.entry(name).or_default();
                for item in items {
                    match item.text() {
                        Some(text) => list.push(Text {
                            mark: item.mark,
                            value: text,
                        }),
                        None => findings.fault(item.mark, field, format!("has {} as an item; write text", item.kind())),
                    }
                }
            }
            Shape::Map => {
                let Some(entries) = value.entries() else {
                    findings.fault(value.mark, field, format!("is {}; write a mapping", value.kind()));
                    return;
                };
                let map = self.maps.entry(name).or_default();
                for (key, item) in entries {
                    match item.text() {
                        Some(text) => {
                            map.insert(
                                key.name.clone(),
                                Text {
                                    mark: item.mark,
                                    value: text,
                                },
                            );
                        }
                        None => findings.fault(
                            item.mark,
                            format!("{field}.{}", key.name),
                            format!("is {}; write a single value", item.kind()),
                        ),
                    }
                }
            }
        }
    }

    /// A field of this layer alone.
    pub(crate) fn text(&self, name: &str) -> Option<&Text> {
        self.texts.get(name)
    }
}

/// The layers that make up one node, most specific first: node, group, kind, defaults.
pub(crate) struct Layers<'a>(pub(crate) Vec<&'a Layer>);

impl Layers<'_> {
    /// The most specific value.
    pub(crate) fn text(&self, name: &str) -> Option<&Text> {
        self.0.iter().find_map(|l| l.texts.get(name))
    }

    /// Every layer's items, those of the defaults first, as containerlab runs `exec`.
    pub(crate) fn list(&self, name: &str) -> Vec<&Text> {
        self.0
            .iter()
            .rev()
            .filter_map(|l| l.lists.get(name))
            .flatten()
            .collect()
    }

    /// The most specific layer's items.
    pub(crate) fn nearest_list(&self, name: &str) -> Option<&[Text]> {
        self.0.iter().find_map(|l| l.lists.get(name)).map(Vec::as_slice)
    }

    /// Every layer's entries; the most specific wins a key.
    pub(crate) fn map(&self, name: &str) -> BTreeMap<String, Text> {
        let mut merged = BTreeMap::new();
        for map in self.0.iter().rev().filter_map(|l| l.maps.get(name)) {
            merged.extend(map.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        merged
    }
}

/// `; did you mean "x"?` when a known name is near, else the known names.
pub(crate) fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let near = known
        .iter()
        .map(|k| (distance(name, k), *k))
        .min()
        // Of a short name two letters are most of it.
        .filter(|(d, k)| *d * 3 <= k.len().max(3));
    match near {
        Some((_, k)) => format!("; did you mean {k:?}?"),
        None => format!("; known here: {}", known.join(", ")),
    }
}

/// Edit distance of two short names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse;

    #[test]
    fn the_most_specific_layer_wins_and_lists_add_up() {
        let mut findings = Findings::default();
        let mut read = |text: &str| Layer::read(&parse(text).unwrap(), "x", &mut findings);
        let defaults = read("{kind: linux, image: a, exec: [one], env: {A: 1, B: 1}}");
        let node = read("{image: b, exec: [two], env: {B: 2}}");
        assert!(findings.faults.is_empty());
        let layers = Layers(vec![&node, &defaults]);
        assert_eq!(layers.text("kind").unwrap().value, "linux");
        assert_eq!(layers.text("image").unwrap().value, "b");
        assert_eq!(
            layers.list("exec").iter().map(|t| t.value.as_str()).collect::<Vec<_>>(),
            ["one", "two"]
        );
        let env = layers.map("env");
        assert_eq!((env["A"].value.as_str(), env["B"].value.as_str()), ("1", "2"));
    }

    #[test]
    fn wrong_fields_are_told() {
        let mut findings = Findings::default();
        Layer::read(
            &parse("{imagee: a, exec: x, stages: {}, ports: [1:1], env: {A: [1]}}").unwrap(),
            "n",
            &mut findings,
        );
        let told: Vec<String> = findings
            .faults
            .iter()
            .map(|f| format!("{}: {}", f.field, f.message))
            .collect();
        assert_eq!(
            told,
            [
                "n.imagee: unknown field; did you mean \"image\"?",
                "n.stages: not supported: nodes start all at once here; order commands in exec instead",
                "n.exec: is a single value; write a list",
                "n.env.A: is a list; write a single value",
            ]
        );
        assert_eq!(findings.warnings.len(), 1);
    }
}
