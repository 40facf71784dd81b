//! `margayctl status`: the sum of all, then what is wrong, and every row for those who ask for them.

mod agents;
mod endpoints;
mod problems;
mod summary;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::bgp::sessions;
use super::ipam::{blocks, pools};
use crate::fleet::Fleet;
use crate::output::{Format, Output};

use problems::Problem;
use summary::Summary;

/// Rows of problems that a person reads at once.
const MOST_PROBLEMS: usize = 20;

/// How all is. With `all`, every row too; with `check`, what is down makes the answer a failure.
pub(super) fn status(fleet: &Fleet, format: Format, now: Timestamp, all: bool, check: bool) -> Output {
    let problems = problems::problems(fleet);
    let summary = Summary::of(fleet, &problems);
    let down = problems.iter().any(|problem| problem.down);
    Output {
        text: match format {
            Format::Json => json(fleet, &summary, &problems),
            Format::Table => text(fleet, &summary, &problems, now, all),
        },
        warnings: Vec::new(),
        complete: fleet.is_complete() && !(check && down),
    }
}

fn text(fleet: &Fleet, summary: &Summary, problems: &[Problem], now: Timestamp, all: bool) -> String {
    let mut sections = vec![summary.to_string()];
    if !problems.is_empty() {
        let most = if all { usize::MAX } else { MOST_PROBLEMS };
        sections.push(format!("Problems\n{}", problems::table(problems, most)));
    }
    if all {
        let pools = pools(fleet).map(|pools| ("Pools", pools.to_string()));
        let tables = [
            ("Agents", agents::agents(fleet, now).to_string()),
            ("Sessions", sessions(fleet, now).to_string()),
        ];
        let more = [
            ("Blocks", blocks(fleet).to_string()),
            ("Endpoints", endpoints::endpoints(fleet).to_string()),
        ];
        let tables = tables.into_iter().chain(pools).chain(more);
        sections.extend(tables.map(|(title, table)| format!("{title}\n{table}")));
    } else {
        sections.push("--all shows every agent, session, block and endpoint.\n".to_owned());
    }
    sections.join("\n")
}

fn json(fleet: &Fleet, summary: &Summary, problems: &[Problem]) -> String {
    let fields = Map::from_iter([
        ("summary".to_owned(), summary.json()),
        (
            "problems".to_owned(),
            problems.iter().map(Problem::json).collect::<Value>(),
        ),
    ]);
    fleet.json(fields)
}
