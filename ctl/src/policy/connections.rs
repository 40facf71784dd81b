//! Connections to judge, one JSON object a line.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, bail};
use margay_felix::verdict::{Connection, Peer, Protocol};
use serde_json::{Map, Value};

/// One line of the input.
pub(super) struct Line {
    /// The line's fields, to be repeated in the answer.
    pub(super) fields: Map<String, Value>,
    /// What it asks.
    pub(super) connection: Connection,
    /// `file:line` for messages.
    pub(super) place: String,
}

/// Fields that say something.
const FIELDS: [&str; 4] = ["from", "to", "protocol", "port"];

/// A warning for each other field, once: it may be a comment, or a wrong word for one of ours.
pub(super) fn warnings(lines: &[Line]) -> Vec<String> {
    let mut told = BTreeSet::new();
    let mut warnings = Vec::new();
    for line in lines {
        for field in line.fields.keys().filter(|field| !FIELDS.contains(&field.as_str())) {
            if told.insert(field) {
                let place = &line.place;
                warnings.push(format!(
                    "{place}: field {field} is repeated but has no say: {} do",
                    FIELDS.join(", ")
                ));
            }
        }
    }
    warnings
}

/// Reads all lines of a file, or of standard input for `-`. Blank lines are skipped.
pub(super) fn load(path: &Path) -> anyhow::Result<Vec<Line>> {
    let (name, text) = if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("standard input")?;
        ("standard input".to_owned(), text)
    } else {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).with_context(|| name.clone())?;
        (name, text)
    };
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            let place = format!("{name}:{}", index + 1);
            let (fields, connection) = parse(line).with_context(|| place.clone())?;
            Ok(Line {
                fields,
                connection,
                place,
            })
        })
        .collect()
}

/// The connection that the command line describes.
pub(super) fn one(from: &str, to: &str, port: Option<&str>) -> anyhow::Result<Line> {
    let mut fields = Map::from_iter([("from".to_owned(), from.into()), ("to".to_owned(), to.into())]);
    let port = port.context("--port: give the destination's, as 443/tcp, or icmp")?;
    let (number, name) = match port.split_once('/') {
        Some((number, name)) => (Some(number), name),
        None if port.eq_ignore_ascii_case("icmp") => (None, port),
        None => (Some(port), "tcp"),
    };
    fields.insert("protocol".to_owned(), name.to_ascii_uppercase().into());
    if let Some(number) = number {
        // What is no number is told by its text.
        let number = number.parse::<u64>().map_or_else(|_| number.into(), Value::from);
        fields.insert("port".to_owned(), number);
    }
    let connection = connection(&fields).with_context(|| format!("--from {from} --to {to} --port {port}"))?;
    Ok(Line {
        fields,
        connection,
        place: format!("--from {from} --to {to}"),
    })
}

fn parse(line: &str) -> anyhow::Result<(Map<String, Value>, Connection)> {
    let fields: Map<String, Value> = match serde_json::from_str(line) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => bail!("a connection is a JSON object with from, to, protocol and port"),
        Err(error) => bail!("not JSON from column {} on", error.column()),
    };
    let connection = connection(&fields)?;
    Ok((fields, connection))
}

fn connection(fields: &Map<String, Value>) -> anyhow::Result<Connection> {
    Ok(Connection {
        from: peer(fields, "from")?,
        to: peer(fields, "to")?,
        protocol: protocol(fields)?,
    })
}

fn peer(fields: &Map<String, Value>, field: &str) -> anyhow::Result<Peer> {
    match fields.get(field) {
        Some(Value::String(text)) => text.parse().with_context(|| field.to_owned()),
        Some(other) => bail!("{field}: {other} is not a string: write \"namespace/pod\" or \"address\""),
        None => bail!("no {field}: write \"namespace/pod\" or \"address\""),
    }
}

fn protocol(fields: &Map<String, Value>) -> anyhow::Result<Protocol> {
    let name = match fields.get("protocol") {
        None | Some(Value::Null) => "TCP".to_owned(),
        Some(Value::String(name)) => name.to_ascii_uppercase(),
        Some(other) => bail!("protocol: {other} is not a string: write \"TCP\", \"UDP\", \"SCTP\" or \"ICMP\""),
    };
    let constructor = match name.as_str() {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        "ICMP" => {
            return match fields.get("port") {
                None | Some(Value::Null) => Ok(Protocol::Icmp),
                Some(_) => bail!("port: ICMP has none"),
            };
        }
        _ => bail!("protocol: {name:?} is not known: write \"TCP\", \"UDP\", \"SCTP\" or \"ICMP\""),
    };
    let port = match fields.get("port") {
        None | Some(Value::Null) => bail!("no port: {name} needs the destination's, from 1 to 65535"),
        Some(value) => value
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0)
            .with_context(|| format!("port: {value} is not a number from 1 to 65535"))?,
    };
    Ok(constructor(port))
}

#[cfg(test)]
mod tests {
    use margay_felix::verdict::{Peer, Protocol};

    use super::{one, parse};

    #[test]
    fn the_command_line_describes_one() {
        for (port, expected) in [
            ("443/tcp", Protocol::Tcp(443)),
            ("443", Protocol::Tcp(443)),
            ("53/UDP", Protocol::Udp(53)),
            ("9/sctp", Protocol::Sctp(9)),
            ("ICMP", Protocol::Icmp),
        ] {
            let line = one("a/b", "192.0.2.1", Some(port)).expect("a connection");
            assert_eq!(line.connection.protocol, expected, "{port}");
            assert_eq!(line.connection.from, Peer::pod("a", "b"));
        }
        for (from, port, expected) in [
            (
                "a/b",
                Some("https"),
                r#"--from a/b --to a/c --port https: port: "https" is not a number from 1 to 65535"#,
            ),
            (
                "a/b",
                Some("8/icmp"),
                "--from a/b --to a/c --port 8/icmp: port: ICMP has none",
            ),
            (
                "a/b",
                Some("tcp/443"),
                r#"--from a/b --to a/c --port tcp/443: protocol: "443" is not known: write "TCP", "UDP", "SCTP" or "ICMP""#,
            ),
            (
                "b",
                Some("80"),
                r#"--from b --to a/c --port 80: from: "b" is neither namespace/pod nor an IP address"#,
            ),
            ("a/b", None, "--port: give the destination's, as 443/tcp, or icmp"),
        ] {
            let error = one(from, "a/c", port).err().map(|error| format!("{error:#}"));
            assert_eq!(error.as_deref(), Some(expected));
        }
    }

    #[test]
    fn protocol_defaults_to_tcp_and_icmp_has_no_port() {
        let protocol = |line| {
            parse(line)
                .map(|(_, connection)| connection.protocol)
                .map_err(|error| format!("{error:#}"))
        };
        assert_eq!(
            protocol(r#"{"from":"a/b","to":"::1","port":80}"#),
            Ok(Protocol::Tcp(80))
        );
        assert_eq!(
            protocol(r#"{"from":"a/b","to":"::1","protocol":"udp","port":53}"#),
            Ok(Protocol::Udp(53))
        );
        assert_eq!(
            protocol(r#"{"from":"a/b","to":"::1","protocol":"ICMP"}"#),
            Ok(Protocol::Icmp)
        );
    }

    #[test]
    fn other_fields_are_kept() {
        let (fields, connection) = parse(r#"{"id":7,"from":"a/b","to":"10.0.0.1","port":80}"#).expect("a connection");
        assert_eq!(fields["id"], 7);
        assert_eq!(connection.from, Peer::pod("a", "b"));
        assert_eq!(connection.to, Peer::Address("10.0.0.1".parse().expect("an address")));
    }

    #[test]
    fn faults_name_the_field_and_the_way_out() {
        let cases = [
            ("80", "a connection is a JSON object with from, to, protocol and port"),
            (
                r#"{"to":"a/b","port":80}"#,
                r#"no from: write "namespace/pod" or "address""#,
            ),
            (
                r#"{"from":"b","to":"a/b","port":80}"#,
                r#"from: "b" is neither namespace/pod nor an IP address"#,
            ),
            (
                r#"{"from":"a/b","to":7,"port":80}"#,
                r#"to: 7 is not a string: write "namespace/pod" or "address""#,
            ),
            (
                r#"{"from":"a/b","to":"a/c"}"#,
                "no port: TCP needs the destination's, from 1 to 65535",
            ),
            (
                r#"{"from":"a/b","to":"a/c","port":0}"#,
                "port: 0 is not a number from 1 to 65535",
            ),
            (
                r#"{"from":"a/b","to":"a/c","port":"http"}"#,
                r#"port: "http" is not a number from 1 to 65535"#,
            ),
            (
                r#"{"from":"a/b","to":"a/c","protocol":"ICMP","port":8}"#,
                "port: ICMP has none",
            ),
            (
                r#"{"from":"a/b","to":"a/c","protocol":"HTTP","port":8}"#,
                r#"protocol: "HTTP" is not known: write "TCP", "UDP", "SCTP" or "ICMP""#,
            ),
        ];
        for (line, expected) in cases {
            let error = parse(line).err().map(|error| format!("{error:#}"));
            assert_eq!(error.as_deref(), Some(expected), "{line}");
        }
    }
}
