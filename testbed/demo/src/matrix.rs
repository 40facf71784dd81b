//! Connectivity matrices: what is expected (a committed file), what was seen, and the cells that differ.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::Path};

use anyhow::{Context, Result, bail};
use comfy_table::{ContentArrangement, Table, presets::UTF8_BORDERS_ONLY};

/// What a cell says of one source and one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The exchange succeeds and the server sees the source's own address.
    Allow,
    /// No exchange.
    Deny,
    /// Not asked.
    Skip,
}

/// Who may reach whom, read from a file: a header `from TARGET…`, then one line a source with a word a target.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// `name:port` of each column.
    pub targets: Vec<String>,
    /// Source name and one cell per target.
    pub rows: Vec<(String, Vec<Expected>)>,
}

impl Expectation {
    /// Reads a committed expectation. Lines starting with `#` are comments.
    ///
    /// # Errors
    /// If the file cannot be read, a line has the wrong number of cells, or a word is none of `allow`, `deny`, `-`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lines = text
            .lines()
            .enumerate()
            .filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#'));
        let (_, header) = lines.next().context("no header line `from TARGET…`")?;
        let mut header = header.split_whitespace();
        if header.next() != Some("from") {
            bail!("the header line starts with `from`, then names the targets");
        }
        let targets: Vec<String> = header.map(str::to_owned).collect();
        let mut rows = Vec::new();
        for (number, line) in lines {
            let mut words = line.split_whitespace();
            let source = words.next().unwrap_or_default().to_owned();
            let cells = words
                .map(|word| match word {
                    "allow" => Ok(Expected::Allow),
                    "deny" => Ok(Expected::Deny),
                    "-" => Ok(Expected::Skip),
                    other => bail!("line {}: {other:?} is none of allow, deny, -", number + 1),
                })
                .collect::<Result<Vec<_>>>()?;
            if cells.len() != targets.len() {
                bail!(
                    "line {}: {} cells for {} targets",
                    number + 1,
                    cells.len(),
                    targets.len()
                );
            }
            rows.push((source, cells));
        }
        if rows.is_empty() || targets.is_empty() {
            bail!("no cells: an empty expectation proves nothing");
        }
        Ok(Self { targets, rows })
    }
}

/// What was seen over one address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The server answered and saw one of the source's own addresses.
    Allowed,
    /// The server answered but saw a foreign address: something translated it.
    Translated(IpAddr),
    /// No exchange; the reason as the prober gave it.
    Denied(String),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed => f.write_str("allow"),
            Self::Translated(seen) => write!(f, "allow, but as {seen}"),
            Self::Denied(_) => f.write_str("deny"),
        }
    }
}

/// Everything that was seen: (source, target) → one result per address family, in the order they were asked.
pub type Observation = BTreeMap<(String, String), Vec<(&'static str, Seen)>>;

/// A cell that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OddCell {
    /// Source name.
    pub source: String,
    /// Target as `name:port`.
    pub target: String,
    /// What should be and what was, in words.
    pub what: String,
}

impl fmt::Display for OddCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}: {}", self.source, self.target, self.what)
    }
}

/// Every cell of `expected` that `seen` contradicts; a cell that was never asked is odd too.
#[must_use]
pub fn odd_cells(expected: &Expectation, seen: &Observation) -> Vec<OddCell> {
    let mut odd = Vec::new();
    for (source, cells) in &expected.rows {
        for (target, cell) in expected.targets.iter().zip(cells) {
            let mut report = |what: String| {
                odd.push(OddCell {
                    source: source.clone(),
                    target: target.clone(),
                    what,
                });
            };
            if *cell == Expected::Skip {
                continue;
            }
            let Some(results) = seen.get(&(source.clone(), target.clone())).filter(|r| !r.is_empty()) else {
                report("was not asked".to_owned());
                continue;
            };
            for (family, result) in results {
                match (cell, result) {
                    (Expected::Allow, Seen::Allowed) | (Expected::Deny, Seen::Denied(_)) | (Expected::Skip, _) => {}
                    (Expected::Allow, Seen::Denied(why)) => {
                        report(format!("{family}: expected allow, saw deny ({why})"))
                    }
                    (Expected::Allow, Seen::Translated(address)) => {
                        report(format!(
                            "{family}: allowed, but the server saw {address} and not the source's address"
                        ));
                    }
                    (Expected::Deny, Seen::Allowed | Seen::Translated(_)) => {
                        report(format!("{family}: expected deny, saw {result}"));
                    }
                }
            }
        }
    }
    odd
}

/// The matrix as a person reads it: what was seen, odd cells marked with `!`.
#[must_use]
pub fn table(expected: &Expectation, seen: &Observation) -> String {
    let odd: Vec<_> = odd_cells(expected, seen)
        .into_iter()
        .map(|cell| (cell.source, cell.target))
        .collect();
    let mut table = Table::new();
    table
        .load_style(UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(std::iter::once("from \\ to".to_owned()).chain(expected.targets.iter().cloned()));
    for (source, cells) in &expected.rows {
        let mut row = vec![source.clone()];
        for (target, cell) in expected.targets.iter().zip(cells) {
            let key = (source.clone(), target.clone());
            let mark = if odd.contains(&key) { "! " } else { "" };
            row.push(match seen.get(&key) {
                Some(results) if *cell != Expected::Skip => format!("{mark}{}", cell_text(results)),
                _ => format!("{mark}-"),
            });
        }
        table.add_row(row);
    }
    table.to_string()
}

fn cell_text(results: &[(&'static str, Seen)]) -> String {
    let first = results.first().map(|(_, seen)| seen.to_string()).unwrap_or_default();
    if results.iter().all(|(_, seen)| seen.to_string() == first) {
        // `·` lets the few that pass stand out among the many that do not.
        return if first == "deny" { "·".to_owned() } else { first };
    }
    results
        .iter()
        .map(|(family, seen)| format!("{family} {seen}"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# who reaches whom\nfrom a:1 b:2\nx allow deny\ny - allow\n";

    fn seen(cells: &[(&str, &str, Seen)]) -> Observation {
        cells
            .iter()
            .map(|(source, target, seen)| {
                (
                    ((*source).to_owned(), (*target).to_owned()),
                    vec![("IPv4", seen.clone())],
                )
            })
            .collect()
    }

    fn as_expected() -> Vec<(&'static str, &'static str, Seen)> {
        vec![
            ("x", "a:1", Seen::Allowed),
            ("x", "b:2", Seen::Denied("timed out".into())),
            ("y", "b:2", Seen::Allowed),
        ]
    }

    #[test]
    fn nothing_is_odd_when_all_is_as_expected() {
        let expected = Expectation::parse(FILE).unwrap();
        assert_eq!(odd_cells(&expected, &seen(&as_expected())), []);
    }

    #[test]
    fn every_way_to_differ_is_named() {
        let expected = Expectation::parse(FILE).unwrap();
        for (index, instead, words) in [
            (
                0,
                Seen::Denied("timed out".into()),
                "x → a:1: IPv4: expected allow, saw deny (timed out)",
            ),
            (
                0,
                Seen::Translated("10.0.0.9".parse().unwrap()),
                "x → a:1: IPv4: allowed, but the server saw 10.0.0.9",
            ),
            (1, Seen::Allowed, "x → b:2: IPv4: expected deny, saw allow"),
            (
                2,
                Seen::Denied("refused".into()),
                "y → b:2: IPv4: expected allow, saw deny (refused)",
            ),
        ] {
            let mut cells = as_expected();
            cells[index].2 = instead;
            let odd = odd_cells(&expected, &seen(&cells));
            assert_eq!(odd.len(), 1);
            assert!(odd[0].to_string().starts_with(words), "{}", odd[0]);
        }
        let unasked = odd_cells(&expected, &seen(&as_expected()[..2]));
        assert_eq!(unasked[0].to_string(), "y → b:2: was not asked");
    }

    #[test]
    fn a_file_that_proves_nothing_is_refused() {
        for (text, words) in [
            ("", "no header"),
            ("a b\n", "starts with `from`"),
            ("from a:1\n", "proves nothing"),
            ("from a:1\nx allow deny\n", "line 2: 2 cells for 1 targets"),
            ("from a:1\nx maybe\n", "line 2: \"maybe\""),
        ] {
            let error = format!("{:#}", Expectation::parse(text).unwrap_err());
            assert!(error.contains(words), "{text:?} gave {error}");
        }
    }

    #[test]
    fn the_table_marks_what_is_odd() {
        let expected = Expectation::parse(FILE).unwrap();
        let mut cells = as_expected();
        cells[1].2 = Seen::Allowed;
        let table = table(&expected, &seen(&cells));
        assert!(table.contains("! allow"), "{table}");
    }
}
