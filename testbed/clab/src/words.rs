//! Splits an `exec` line into words the way a shell would, without being one, and writes words for a shell.

/// Words of `line`: quotes and backslashes group, nothing is expanded. The error names the unclosed quote.
pub(crate) fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                quoted(&mut chars, c, word)?;
            }
            '\\' => {
                let escaped = chars.next().ok_or("ends in a backslash")?;
                word.get_or_insert_default().push(escaped);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(chars: &mut std::str::Chars<'_>, quote: char, word: &mut String) -> Result<(), String> {
    loop {
        match chars.next() {
            None => return Err(format!("has an unclosed {quote}")),
            Some(c) if c == quote => return Ok(()),
            Some('\\') if quote == '"' => match chars.next() {
                Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
                None => return Err(format!("has an unclosed {quote}")),
            },
            Some(c) => word.push(c),
        }
    }
}

/// `word` as a shell takes it whole: in quotes where it needs them.
#[must_use]
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("ip addr add 10.0.0.1/31 dev eth1", &["ip", "addr", "add", "10.0.0.1/31", "dev", "eth1"])]
    #[case(r#"vtysh -c 'show ip bgp' -c "a b""#, &["vtysh", "-c", "show ip bgp", "-c", "a b"])]
    #[case(r#"sh -c "echo \"x\" \n" a\ b '' "#, &["sh", "-c", "echo \"x\" \\n", "a b", ""])]
    #[case("", &[])]
    fn splits(#[case] line: &str, #[case] want: &[&str]) {
        assert_eq!(split(line).unwrap(), want);
    }

    #[test]
    fn a_quoted_word_is_one_word() {
        assert_eq!(
            quote("/run/margay-lab/two-racks/kubeconfig"),
            "/run/margay-lab/two-racks/kubeconfig"
        );
        assert_eq!(quote("/my labs"), "'/my labs'");
        for word in ["", "a b", "it's", "$HOME", "a\"b\\"] {
            assert_eq!(split(&quote(word)).unwrap(), [word]);
        }
    }

    #[test]
    fn unclosed_quotes_are_told() {
        assert_eq!(split("sh -c 'x").unwrap_err(), "has an unclosed '");
        assert!(split("x \\").is_err());
    }
}
