//! The JSONPath of printer columns: fields, indices, `[*]` and `[?(@.a=="b")]`.

use serde_json::Value;

/// The value at `path`; several are joined into a list.
pub(super) fn find(object: &Value, path: &str) -> Option<Value> {
    let mut found = vec![object];
    let mut many = false;
    let mut rest = path
        .trim()
        .trim_start_matches('{')
        .trim_end_matches('}')
        .trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (inside, after) = after.split_once(']')?;
            found = bracket(&found, inside, &mut many);
            rest = after;
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            // A backslash keeps the dot of a name such as metadata.annotations.example\.com/key.
            let mut end = end;
            while end > 0 && end < rest.len() && rest.as_bytes()[end - 1] == b'\\' {
                end = rest[end + 1..].find(['.', '[']).map_or(rest.len(), |e| end + 1 + e);
            }
            let name = rest[..end].replace("\\.", ".");
            found = found.iter().filter_map(|v| v.get(&name)).collect();
            rest = &rest[end..];
        }
    }
    match (found.as_slice(), many) {
        ([], _) => None,
        ([one], false) => Some((*one).clone()),
        (several, _) => Some(several.iter().map(|v| (*v).clone()).collect()),
    }
}

fn bracket<'a>(values: &[&'a Value], inside: &str, many: &mut bool) -> Vec<&'a Value> {
    let items = values.iter().filter_map(|v| v.as_array()).flatten();
    if inside == "*" {
        *many = true;
        return items.collect();
    }
    if let Some(test) = inside.strip_prefix("?(@.").and_then(|t| t.strip_suffix(')')) {
        let Some((field, wanted)) = test.split_once("==") else {
            return Vec::new();
        };
        let wanted = wanted.trim().trim_matches(['"', '\'']);
        return items.filter(|i| i[field.trim()].as_str() == Some(wanted)).collect();
    }
    if let Ok(index) = inside.parse::<i64>() {
        let at = |list: &&'a Value| {
            let list = list.as_array()?;
            list.get(usize::try_from(if index < 0 { index + list.len() as i64 } else { index }).ok()?)
        };
        return values.iter().filter_map(at).collect();
    }
    let name = inside.trim_matches(['"', '\'']);
    values.iter().filter_map(|v| v.get(name)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_as_crds_use_them() {
        let object = json!({
            "metadata": {"annotations": {"example.com/a": "x"}},
            "spec": {"list": ["a", "b"]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
        });
        assert_eq!(find(&object, ".spec.list[1]"), Some(json!("b")));
        assert_eq!(find(&object, ".spec.list[*]"), Some(json!(["a", "b"])));
        assert_eq!(
            find(&object, ".status.conditions[?(@.type==\"Ready\")].status"),
            Some(json!("True"))
        );
        assert_eq!(find(&object, ".metadata.annotations.example\\.com/a"), Some(json!("x")));
        assert_eq!(
            find(&object, ".metadata.annotations['example.com/a']"),
            Some(json!("x"))
        );
        assert_eq!(find(&object, ".spec.missing.more"), None);
    }
}
