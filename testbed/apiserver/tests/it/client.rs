//! A bare HTTP client: a connection for each request, and what came back as it came.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;

use super::support::TOKEN;

const DEADLINE: Duration = Duration::from_secs(20);

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) code: u16,
    pub(super) headers: String,
    pub(super) body: Value,
}

impl Reply {
    pub(super) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// The object, or a panic that shows what was said instead.
    pub(super) fn ok(self) -> Value {
        assert!(self.code < 300, "{} {}", self.code, self.body);
        self.body
    }
}

/// HTTP/1.1 with a connection for each request.
#[derive(Clone)]
pub(super) struct Client {
    port: u16,
    tls: Arc<rustls::ClientConfig>,
}

type Stream = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

impl Client {
    pub(super) fn new(port: u16, ca_pem: &str) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("PEM"))
            .expect("root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = tls
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            port,
            tls: Arc::new(tls),
        }
    }

    pub(super) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "", "")
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, "Content-Type: application/json\r\n", &body.to_string())
    }

    pub(super) fn put(&self, path: &str, body: &Value) -> Reply {
        self.send("PUT", path, "Content-Type: application/json\r\n", &body.to_string())
    }

    pub(super) fn delete(&self, path: &str, body: &Value) -> Reply {
        self.send("DELETE", path, "Content-Type: application/json\r\n", &body.to_string())
    }

    /// `kind` is `merge`, `strategic-merge`, `json` or `apply`.
    pub(super) fn patch(&self, kind: &str, path: &str, body: &Value) -> Reply {
        let media = match kind {
            "json" => "application/json-patch+json".to_owned(),
            "apply" => "application/apply-patch+yaml".to_owned(),
            kind => format!("application/{kind}-patch+json"),
        };
        self.send("PATCH", path, &format!("Content-Type: {media}\r\n"), &body.to_string())
    }

    /// With these further header lines.
    pub(super) fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let authorization = format!("Authorization: Bearer {TOKEN}\r\n{headers}");
        self.anonymous(method, path, &authorization, body)
    }

    pub(super) fn anonymous(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let mut reader = self.open(method, path, &format!("Connection: close\r\n{headers}"), body);
        let (code, headers) = read_head(&mut reader);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("body");
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Reply { code, headers, body }
    }

    /// The events of a watch, as they come; `next` fails the test when none comes in time.
    pub(super) fn watch(&self, path: &str) -> Events {
        let mut reader = self.open("GET", path, &format!("Authorization: Bearer {TOKEN}\r\n"), "");
        let (code, headers) = read_head(&mut reader);
        assert_eq!(code, 200, "{headers}");
        Events { reader }
    }

    fn open(&self, method: &str, path: &str, headers: &str, body: &str) -> BufReader<Stream> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).expect("connect");
        tcp.set_read_timeout(Some(DEADLINE)).expect("timeout");
        let name = ServerName::try_from("127.0.0.1").expect("name");
        let connection = rustls::ClientConnection::new(self.tls.clone(), name).expect("TLS");
        let mut stream = rustls::StreamOwned::new(connection, tcp);
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).expect("request");
        BufReader::new(stream)
    }
}

/// A chunked stream of one JSON object a line; each chunk is one line.
pub(super) struct Events {
    reader: BufReader<Stream>,
}

impl Events {
    /// The next event, or `None` at the end of the watch.
    pub(super) fn next(&mut self) -> Option<Value> {
        let size = read_line(&mut self.reader);
        let size = usize::from_str_radix(size.trim(), 16).expect("chunk size");
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).expect("chunk within the deadline");
        (size > 0).then(|| serde_json::from_slice(&chunk).expect("JSON"))
    }

    /// `TYPE name` of the next event.
    pub(super) fn brief(&mut self) -> String {
        let event = self.next().expect("an event");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-");
        format!("{} {name}", event["type"].as_str().unwrap_or("?"))
    }
}

fn read_head(reader: &mut BufReader<Stream>) -> (u16, String) {
    let status = read_line(reader);
    let code = status
        .split(' ')
        .nth(1)
        .and_then(|c| c.parse().ok())
        .unwrap_or_else(|| panic!("status line {status:?}"));
    let mut headers = String::new();
    loop {
        let line = read_line(reader);
        if line.trim().is_empty() {
            return (code, headers);
        }
        headers.push_str(&line);
    }
}

fn read_line(reader: &mut BufReader<Stream>) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line within the deadline");
    line
}
