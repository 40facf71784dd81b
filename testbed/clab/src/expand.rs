//! `${VAR:=default}` expansion of a topology file's text, as containerlab does it before it reads the YAML.

/// Replaces `$VAR`, `${VAR}`, `${VAR:=default}`, `${VAR=default}`, `${VAR:-default}` and `${VAR-default}`.
/// With `:` an empty variable counts as unset. An unset variable without a default stays as it is written, so that
/// shell snippets in `exec` survive.
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        let (replacement, used) = reference(tail, &lookup);
        match replacement {
            Some(value) => out.push_str(&value),
            None => out.push_str(&tail[..used]),
        }
        rest = &tail[used..];
    }
    out.push_str(rest);
    out
}

/// Reads the reference at the start of `tail` (which begins with `$`): its value, if it has one, and its length.
fn reference(tail: &str, lookup: &impl Fn(&str) -> Option<String>) -> (Option<String>, usize) {
    let body = &tail[1..];
    if let Some(inner) = body.strip_prefix('{') {
        let Some(end) = inner.find('}') else { return (None, 1) };
        let inner = &inner[..end];
        let name = &inner[..name_len(inner)];
        if name.is_empty() {
            return (None, 1);
        }
        let value = match &inner[name.len()..] {
            "" => lookup(name),
            op if op.starts_with(":=") || op.starts_with(":-") => Some(
                lookup(name)
                    .filter(|v| !v.is_empty())
                    .unwrap_or_else(|| op[2..].to_owned()),
            ),
            op if op.starts_with('=') || op.starts_with('-') => {
                Some(lookup(name).unwrap_or_else(|| op[1..].to_owned()))
            }
            _ => None,
        };
        return (value, end + 3);
    }
    let len = name_len(body);
    if len == 0 {
        return (None, 1);
    }
    (lookup(&body[..len]), len + 1)
}

fn name_len(text: &str) -> usize {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts {
        return 0;
    }
    text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("image: ${IMG}", "image: frr")]
    #[case("image: $IMG:8", "image: frr:8")]
    #[case("${NONE:=linux}", "linux")]
    #[case("${EMPTY:=linux}/${EMPTY=linux}", "linux/")]
    #[case("${EMPTY:-a}${NONE-b}", "ab")]
    #[case("echo $NONE ${NONE} $(date) $ 5$", "echo $NONE ${NONE} $(date) $ 5$")]
    #[case("${IMG#f}", "${IMG#f}")]
    #[case("${", "${")]
    fn expands(#[case] text: &str, #[case] want: &str) {
        let got = expand(text, |name| match name {
            "IMG" => Some("frr".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        });
        assert_eq!(got, want);
    }
}
