//! `${VAR:=default}` expansion of a topology file's text, as containerlab does it before it reads the YAML: by a8m/envsubst,
//! which is told to leave alone what is not set, and names that begin with a digit.

/// What cannot be expanded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unclosed {
    /// The line (from 1) that has a `${` without its `}`.
    pub(crate) line: u64,
}

/// Replaces references to variables:
///
/// | | set | empty | not set |
/// |---|---|---|---|
/// | `$A`, `${A}` | value | `$A` | `$A` |
/// | `${A:-d}`, `${A:=d}` | value | d | d |
/// | `${A-d}`, `${A=d}` | value | `$A` | d |
/// | `${A+d}`, `${A:+d}` | d | d | nothing |
///
/// `d` is text, or `$B` alone. `$$` is a `$` that begins nothing; `$1`, `$(`, `$_` and `${#A}` stay as they are, so that most
/// shell snippets survive; of `${A%x}` and the like only the variable is left.
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, Unclosed> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let unclosed = || Unclosed {
            line: 1 + text[..text.len() - tail.len()].matches('\n').count() as u64,
        };
        rest = if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some(inner) = tail.strip_prefix('{') {
            if inner.starts_with(|c: char| c.is_ascii_digit()) {
                out.push_str("${");
                inner
            } else {
                let line = inner.split(['\n', '\r']).next().unwrap_or_default();
                let end = line.find('}').ok_or_else(unclosed)?;
                out.push_str(&braced(&line[..end], &lookup));
                &inner[end + 1..]
            }
        } else {
            let name = &tail[..name_len(tail)];
            match name.is_empty() || name == "_" || name.starts_with(|c: char| c.is_numeric()) {
                true => {
                    out.push('$');
                    tail
                }
                false => {
                    out.push_str(&plain(name, &lookup));
                    &tail[name.len()..]
                }
            }
        };
    }
    out.push_str(rest);
    Ok(out)
}

/// The value of `$name`; a reference to what is unset or empty stays.
fn plain(name: &str, lookup: &impl Fn(&str) -> Option<String>) -> String {
    lookup(name)
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| format!("${name}"))
}

/// What `${inner}` becomes.
fn braced(inner: &str, lookup: &impl Fn(&str) -> Option<String>) -> String {
    let (name, rest) = inner.split_at(name_len(inner));
    if name.is_empty() || name == "_" {
        return format!("${{{inner}}}");
    }
    let (operator, word) = match rest.strip_prefix(':').unwrap_or(rest) {
        after if after.starts_with(['-', '=', '+']) => rest.split_at(rest.len() - after.len() + 1),
        _ => ("", ""),
    };
    // An operator without a word is none.
    if word.is_empty() {
        return plain(name, lookup);
    }
    let default = || match word.strip_prefix('$') {
        Some(other) if !other.is_empty() && name_len(other) == other.len() => plain(other, lookup),
        _ => word.to_owned(),
    };
    let value = lookup(name);
    match operator {
        "+" | ":+" => value.map(|_| default()).unwrap_or_default(),
        ":-" | ":=" => value.filter(|value| !value.is_empty()).unwrap_or_else(default),
        _ if value.is_some() => plain(name, lookup),
        _ => default(),
    }
}

fn name_len(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, Unclosed> {
        expand(text, |name| match name {
            "IMG" => Some("frr".into()),
            "BAR" => Some("bar".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[rstest::rstest]
    #[case("image: ${IMG}", "image: frr")]
    #[case("image: $IMG:8", "image: frr:8")]
    #[case("$IMG$BAR ${IMG}s", "frrbar frrs")]
    #[case("${NONE:=linux}", "linux")]
    #[case("${EMPTY:=linux}/${EMPTY=linux}", "linux/$EMPTY")]
    #[case("${EMPTY:-a}${NONE-b}", "ab")]
    #[case("${NONE:=http://localhost:8080/a_b}", "http://localhost:8080/a_b")]
    #[case("${NONE:=$BAR} ${NONE-$EMPTY} ${NONE:-a$BAR}", "bar $EMPTY a$BAR")]
    #[case("${IMG+set} ${IMG:+set} ${EMPTY+set} ${EMPTY:+set}", "set set set set")]
    #[case("[${NONE+set}${NONE:+set}]", "[]")]
    #[case("${IMG+$BAR} ${IMG+} ${NONE:=}", "bar frr $NONE")]
    #[case("$$BAR $${BAR} $$$BAR $$$${BAR}", "$BAR ${BAR} $bar $${BAR}")]
    #[case("echo $NONE ${NONE} $EMPTY $(date) $ 5$", "echo $NONE $NONE $EMPTY $(date) $ 5$")]
    #[case("$1 ${1} ${1:-x} $_ ${_} ${#IMG} $? ${@}", "$1 ${1} ${1:-x} $_ ${_} ${#IMG} $? ${@}")]
    #[case("${IMG#f} ${IMG%%.*} ${NONE%x}", "frr frr $NONE")]
    fn expands_as_containerlab_does(#[case] text: &str, #[case] want: &str) {
        assert_eq!(expanded(text).unwrap(), want);
    }

    #[rstest::rstest]
    #[case("${", 1)]
    #[case("a: 1\nb: ${IMG\nc: }", 2)]
    #[case("# ${IMG:=x", 1)]
    fn a_brace_that_is_not_closed_on_its_line_is_told(#[case] text: &str, #[case] line: u64) {
        assert_eq!(expanded(text), Err(Unclosed { line }));
    }
}
