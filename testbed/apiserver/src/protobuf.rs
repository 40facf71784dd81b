//! Bodies in the Kubernetes protobuf envelope, which newer kubectls use for `kubectl create namespace` and the like.
//! Only the messages of `builtin/protobuf.txt` are understood.

use std::{collections::BTreeMap, sync::LazyLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{
    status::{ApiError, Result},
    time,
};

/// The object in an envelope: `k8s\0`, then `runtime.Unknown` with the kind and the message.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value> {
    let wrong = || ApiError::bad_request("the body is not a Kubernetes protobuf message");
    let envelope = fields(bytes.strip_prefix(b"k8s\0").ok_or_else(wrong)?).ok_or_else(wrong)?;
    let part = |number| envelope.iter().find(|(n, _)| *n == number).and_then(|(_, w)| w.bytes());
    let names = fields(part(1).unwrap_or_default()).ok_or_else(wrong)?;
    let name = |number| {
        let found = names.iter().find(|(n, _)| *n == number).and_then(|(_, w)| w.bytes());
        String::from_utf8_lossy(found.unwrap_or_default()).into_owned()
    };
    let (version, kind) = (name(1), name(2));
    if !MESSAGES.contains_key(kind.as_str()) {
        let why = format!("the lab's API server does not read {kind} in protobuf: send JSON, as kubectl apply -f does");
        return Err(ApiError::new(415, "UnsupportedMediaType", why));
    }
    let mut object = message(&kind, part(2).unwrap_or_default()).ok_or_else(wrong)?;
    object["apiVersion"] = version.into();
    object["kind"] = kind.into();
    Ok(object)
}

type Message = BTreeMap<u64, (&'static str, &'static str)>;

static MESSAGES: LazyLock<BTreeMap<&'static str, Message>> = LazyLock::new(|| {
    let mut messages: BTreeMap<&str, Message> = BTreeMap::new();
    let mut current = "";
    let lines = include_str!("builtin/protobuf.txt")
        .lines()
        .filter(|l| !l.starts_with('#'));
    for word in lines.flat_map(str::split_whitespace) {
        if let Some(name) = word.strip_prefix('%') {
            current = name;
        } else if let Some((number, field)) = word.split_once(':') {
            let known = messages.entry(current).or_default();
            known.insert(
                number.parse().unwrap_or_default(),
                field.split_once('=').unwrap_or((field, "")),
            );
        }
    }
    messages
});

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) => None,
        }
    }
}

fn message(name: &str, bytes: &[u8]) -> Option<Value> {
    let table = MESSAGES.get(name)?;
    let mut object = Map::new();
    for (number, wire) in fields(bytes)? {
        let Some((field, kind)) = table.get(&number) else {
            continue;
        };
        let list = kind.strip_prefix('[').and_then(|k| k.strip_suffix(']'));
        match (*kind, list, wire) {
            (_, Some(item), Wire::Bytes(bytes)) => {
                let item = if item.is_empty() {
                    text(bytes)?.into()
                } else {
                    message(item, bytes)?
                };
                object
                    .entry(*field)
                    .or_insert_with(|| json!([]))
                    .as_array_mut()?
                    .push(item);
            }
            ("m" | "B", None, Wire::Bytes(bytes)) => {
                let (key, value) = entry(bytes)?;
                let value = if *kind == "B" {
                    STANDARD.encode(value)
                } else {
                    text(value)?
                };
                object
                    .entry(*field)
                    .or_insert_with(|| json!({}))
                    .as_object_mut()?
                    .insert(key, value.into());
            }
            // Go writes empty strings and zero times that JSON leaves out.
            ("" | "t", None, Wire::Bytes([])) => {}
            ("", None, Wire::Bytes(bytes)) => drop(object.insert((*field).into(), text(bytes)?.into())),
            ("t", None, Wire::Bytes(bytes)) => {
                if let Some((_, Wire::Number(seconds))) = fields(bytes)?.into_iter().find(|(n, _)| *n == 1) {
                    object.insert((*field).into(), time::format(seconds as i64).into());
                }
            }
            ("i", None, Wire::Number(n)) => drop(object.insert((*field).into(), (n as i64).into())),
            ("b", None, Wire::Number(n)) => drop(object.insert((*field).into(), (n != 0).into())),
            (name, None, Wire::Bytes(bytes)) => drop(object.insert((*field).into(), message(name, bytes)?)),
            _ => return None,
        }
    }
    Some(Value::Object(object))
}

fn entry(bytes: &[u8]) -> Option<(String, &[u8])> {
    let parts = fields(bytes)?;
    let part = |number| {
        parts
            .iter()
            .find(|(n, _)| *n == number)
            .and_then(|(_, w)| w.bytes())
            .unwrap_or_default()
    };
    Some((text(part(1))?, part(2)))
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// The fields of a message in order; `None` when it is cut short or uses a wire type that the API does not.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Wire<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let wire = match tag & 7 {
            0 => Wire::Number(varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (content, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Wire::Bytes(content)
            }
            _ => return None,
        };
        found.push((tag >> 3, wire));
    }
    Some(found)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_as_kubectl_sends_it() {
        // TypeMeta {v1, Namespace}; Namespace {metadata {name "demo", namespace ""}, spec {}, status {phase ""}}.
        let body = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x10\x0a\x08\x0a\x04demo\x1a\x00\x12\x00\x1a\x02\x0a\x00\x1a\x00\"\x00";
        let object = decode(body).expect("decodes");
        assert_eq!(
            object,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}, "spec": {}})
        );
        assert!(decode(&body[..30]).is_err());
        assert_eq!(
            decode(b"k8s\0\x0a\x0b\x0a\x02v1\x12\x05Event")
                .expect_err("not in the table")
                .code,
            415
        );
    }
}
