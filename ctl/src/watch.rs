//! Asking again and again, and showing the newest answer alone.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use jiff::Timestamp;

use crate::output::{Format, Output};

/// Prints answers until somebody interrupts it or stops reading. A failure is shown in an answer's place.
pub(crate) async fn watch(
    every: Duration,
    format: Format,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Output>,
) -> anyhow::Result<()> {
    let mut turns = tokio::time::interval(every);
    // An answer that took long is no reason to ask twice at once.
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let text = match ask().await {
            Ok(output) => {
                let warnings = output.warnings.iter().map(|warning| format!("warning: {warning}\n"));
                (output.text, warnings.collect())
            }
            Err(error) => (String::new(), format!("error: {error:#}\n")),
        };
        match show(&text, every, format) {
            // The reader has seen enough, as `head` has.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            result => result?,
        }
    }
}

/// Shows an answer and what there is to say of it.
fn show((text, words): &(String, String), every: Duration, format: Format) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if stdout.is_terminal() {
        let size = rustix::termios::tcgetwinsize(&stdout).ok();
        let size = size.map(|size| (usize::from(size.ws_row), usize::from(size.ws_col)));
        let now = Timestamp::now().strftime("%H:%M:%S UTC");
        let head = format!("every {} s, at {now}; Ctrl-C ends it\n\n", every.as_secs());
        let shown = fitting(&format!("{head}{words}{text}"), size);
        // From the upper left corner on, each line and the rest of the screen cleared: nothing flickers.
        let cleared = shown.replace('\n', "\x1b[K\n");
        write!(stdout, "\x1b[H{cleared}\x1b[J")?;
    } else {
        io::stderr().write_all(words.as_bytes())?;
        stdout.write_all(text.as_bytes())?;
        if format == Format::Table {
            stdout.write_all(b"\n")?;
        }
    }
    stdout.flush()
}

/// As many lines as a terminal of so many rows and columns shows at once; the last says how many more there are.
fn fitting(text: &str, size: Option<(usize, usize)>) -> String {
    let Some((rows, columns)) = size.filter(|(rows, columns)| *rows > 1 && *columns > 0) else {
        return text.to_owned();
    };
    let height = |line: &str| line.chars().count().div_ceil(columns).max(1);
    let lines: Vec<&str> = text.lines().collect();
    // The cursor stands below the last line.
    let room = rows - 1;
    if lines.iter().map(|line| height(line)).sum::<usize>() <= room {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut taken = 0;
    for (index, line) in lines.iter().enumerate() {
        taken += height(line);
        if taken >= room {
            shown.push_str(&format!("… {} more lines\n", lines.len() - index));
            break;
        }
        shown.push_str(&format!("{line}\n"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::fitting;

    #[test]
    fn what_does_not_fit_is_counted() {
        let text = "one\ntwo\nthree\nfour\n";
        assert_eq!(fitting(text, None), text);
        assert_eq!(fitting(text, Some((5, 80))), text);
        assert_eq!(fitting(text, Some((4, 80))), "one\ntwo\n… 2 more lines\n");
        assert_eq!(fitting(text, Some((0, 0))), text);
    }

    #[test]
    fn long_lines_take_several_rows() {
        let text = "0123456789\nb\nc\n";
        assert_eq!(fitting(text, Some((5, 5))), text);
        assert_eq!(fitting(text, Some((4, 5))), "0123456789\n… 2 more lines\n");
    }
}
