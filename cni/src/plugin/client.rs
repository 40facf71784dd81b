//! The plugin's end of the protocol.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use crate::protocol::{Answer, Attached, Failure, Request, code, frame};

/// Asks the agent. `Err`: it could not be reached or did not answer, and may or may not have acted.
pub(super) fn ask(socket: &Path, request: &Request) -> Result<Answer, Failure> {
    let mut stream = UnixStream::connect(socket).map_err(|error| not_running(socket, &error))?;
    converse(&mut stream, request).map_err(|error| {
        let msg = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("the agent did not answer within {} s", request.patience().as_secs())
            }
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "the agent closed the connection without an answer (did it restart?)".to_owned()
            }
            _ => format!("talking to the agent on {} failed: {error}", socket.display()),
        };
        Failure::try_again(msg, LOGS)
    })
}

/// The answer to a request for an attachment.
pub(super) fn attached(answer: Answer) -> Result<Attached, Failure> {
    match answer {
        Answer::Attached(attached) => Ok(attached),
        Answer::Error(failure) => Err(from_agent(failure)),
        Answer::Done => Err(Failure::new(
            code::DECODE,
            "the agent's answer does not fit the request",
            LOGS,
        )),
    }
}

/// The agent's error as the runtime gets it: what may work later says so by its code.
pub(super) fn from_agent(failure: Failure) -> Failure {
    if failure.retryable {
        Failure {
            code: code::TRY_AGAIN,
            ..failure
        }
    } else {
        failure
    }
}

const LOGS: &str = "See the log of the agent on this node (kubectl -n margay-system logs ds/margay-node).";

const START: &str = "Start margay-node on this node \
                     (kubectl -n margay-system get pods -l app.kubernetes.io/name=margay-node -o wide).";

fn converse(stream: &mut UnixStream, request: &Request) -> io::Result<Answer> {
    let deadline = Instant::now() + request.patience();
    stream.set_write_timeout(Some(request.patience()))?;
    stream.write_all(&frame::encode_request(request))?;
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    let invalid = |error: frame::FrameError| io::Error::new(io::ErrorKind::InvalidData, error);
    loop {
        if let Some(length) = frame::complete(&received).map_err(invalid)? {
            return frame::decode_answer(&received[..length]).map_err(invalid);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => received.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn not_running(socket: &Path, error: &io::Error) -> Failure {
    let path = socket.display();
    let msg = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("the agent is not running: nothing listens on {path}")
        }
        _ => format!("the agent cannot be reached on {path}: {error}"),
    };
    Failure::try_again(msg, START)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_out_name_what_is_deployed() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/margay.yaml");
        let manifest = std::fs::read_to_string(path).expect("is there");
        let after = |text: &str, before: &str| {
            let (_, rest) = text.split_once(before).expect("names it");
            rest.split([' ', ')']).next().unwrap_or_default().to_owned()
        };
        for text in [LOGS, START] {
            assert!(
                manifest.contains(&format!("\n  namespace: {}\n", after(text, "-n "))),
                "{text}"
            );
        }
        assert!(manifest.contains("kind: DaemonSet"));
        assert!(manifest.contains(&format!("\n  name: {}\n", after(LOGS, "ds/"))));
        let label = after(START, "-l ").replace('=', ": ");
        assert!(manifest.contains(&format!("matchLabels:\n      {label}\n")), "{label}");
    }
}
