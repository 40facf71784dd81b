//! One TCP exchange per target: connect, ask `/clientip` over HTTP, and read which source address the server saw.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// What one exchange came to. Serialized as one line of JSON by `margay-agnhost probe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The address and port that was asked.
    pub target: SocketAddr,
    /// The source address the server says it saw; absent when there was no answer.
    pub seen: Option<IpAddr>,
    /// Why there was no answer.
    pub error: Option<String>,
}

/// Asks every target at once; `timeout` bounds each whole exchange. Results are in the order of `targets`.
#[must_use]
pub fn exchange_all(targets: &[SocketAddr], timeout: Duration) -> Vec<Outcome> {
    let asked: Vec<_> = targets
        .iter()
        .map(|&target| (target, thread::spawn(move || exchange(target, timeout))))
        .collect();
    asked
        .into_iter()
        .map(|(target, asked)| {
            let (seen, error) = match asked.join() {
                Ok(Ok(seen)) => (Some(seen), None),
                Ok(Err(error)) => (None, Some(error)),
                Err(_) => (None, Some("the probe failed".to_owned())),
            };
            Outcome { target, seen, error }
        })
        .collect()
}

fn exchange(target: SocketAddr, timeout: Duration) -> Result<IpAddr, String> {
    let deadline = Instant::now() + timeout;
    let mut stream = TcpStream::connect_timeout(&target, timeout).map_err(|e| format!("connect: {e}"))?;
    let request = format!("GET /clientip HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    stream.set_write_timeout(Some(timeout)).map_err(|e| e.to_string())?;
    stream.write_all(request.as_bytes()).map_err(|e| format!("send: {e}"))?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left)).map_err(|e| e.to_string())?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(e) => return Err(format!("receive: {e}")),
        }
        if answer.len() > 64 * 1024 {
            return Err("the answer is longer than any /clientip answer".to_owned());
        }
    }
    seen_address(&String::from_utf8_lossy(&answer))
}

/// The address in an HTTP answer whose body is `ADDRESS:PORT`, as agnhost's `/clientip` gives it.
fn seen_address(answer: &str) -> Result<IpAddr, String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is no HTTP")?;
    if head.split_whitespace().nth(1) != Some("200") {
        return Err(format!("HTTP answered {:?}", head.lines().next().unwrap_or_default()));
    }
    let seen: SocketAddr = body
        .trim()
        .parse()
        .map_err(|_| format!("/clientip answered {body:?}"))?;
    // A dual-stack listener reports IPv4 peers as mapped addresses.
    Ok(seen.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_address_the_server_saw() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n10.1.2.3:40000";
        assert_eq!(seen_address(answer), Ok("10.1.2.3".parse().unwrap()));
        let mapped = "HTTP/1.1 200 OK\r\n\r\n[::ffff:10.1.2.3]:40000";
        assert_eq!(seen_address(mapped), Ok("10.1.2.3".parse().unwrap()));
        let six = "HTTP/1.1 200 OK\r\n\r\n[fd00::9]:1";
        assert_eq!(seen_address(six), Ok("fd00::9".parse().unwrap()));
    }

    #[test]
    fn anything_else_is_no_answer() {
        assert!(seen_address("HTTP/1.1 404 Not Found\r\n\r\n10.1.2.3:1").is_err());
        assert!(seen_address("HTTP/1.1 200 OK\r\n\r\nhello").is_err());
        assert!(seen_address("10.1.2.3:1").is_err());
    }

    #[test]
    fn a_closed_port_is_an_error_and_keeps_the_order() {
        let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = open.local_addr().unwrap();
        drop(open);
        let outcomes = exchange_all(&[target], Duration::from_millis(200));
        assert_eq!(outcomes[0].target, target);
        assert!(outcomes[0].error.is_some());
    }
}
