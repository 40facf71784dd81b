//! A bare HTTP/1.1 client: a connection for each request, and what came back as it came.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;

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

/// A server on this machine's loopback, and the token it is asked with.
#[derive(Clone)]
pub(super) struct Client {
    port: u16,
    tls: Arc<rustls::ClientConfig>,
    token: Option<String>,
}

impl Client {
    /// Trusts every certificate of `ca_pem`.
    pub(super) fn new(port: u16, ca_pem: &str, token: &str) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(certificate.expect("PEM")).expect("root");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = tls
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            port,
            tls: Arc::new(tls),
            token: Some(token.to_owned()),
        }
    }

    /// The same server, asked with another token, or with none.
    pub(super) fn with_token(&self, token: Option<&str>) -> Self {
        Self {
            token: token.map(str::to_owned),
            ..self.clone()
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
        let headers = format!("Content-Type: {}\r\n", patch_type(kind));
        self.send("PATCH", path, &headers, &body.to_string())
    }

    /// With these further header lines.
    pub(super) fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let answer = self.open(method, path, &format!("Connection: close\r\n{headers}"), body);
        let (code, headers, mut reader) = answer.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("body");
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Reply { code, headers, body }
    }

    /// The events of a watch, as they come; `next` fails the test when none comes in time.
    pub(super) fn watch(&self, path: &str) -> Events {
        let (code, headers, reader) = self.open("GET", path, "", "").expect("answer");
        assert_eq!(code, 200, "{headers}");
        Events { reader }
    }

    /// The code, the header's lines, and the body as it comes.
    pub(super) fn open(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> io::Result<(u16, String, BufReader<Body>)> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port))?;
        tcp.set_read_timeout(Some(DEADLINE))?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1").expect("name");
        let connection = rustls::ClientConnection::new(self.tls.clone(), name).expect("TLS");
        let mut stream = rustls::StreamOwned::new(connection, tcp);
        let length = body.len();
        let token = self.token.iter().map(|t| format!("Authorization: Bearer {t}\r\n"));
        let headers = token.chain([headers.to_owned()]).collect::<String>();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes())?;
        let mut stream = BufReader::new(stream);
        let (code, headers) = read_head(&mut stream)?;
        let lower = headers.to_ascii_lowercase();
        let length = lower.lines().find_map(|l| l.strip_prefix("content-length:"));
        let framing = match length.and_then(|l| l.trim().parse().ok()) {
            Some(left) => Framing::Length { left },
            None if lower.contains("transfer-encoding: chunked") => Framing::Chunked { left: 0 },
            None => Framing::Close,
        };
        Ok((code, headers, BufReader::new(Body { stream, framing })))
    }
}

/// The media type of a kind of patch.
pub(super) fn patch_type(kind: &str) -> String {
    match kind {
        "json" => "application/json-patch+json".to_owned(),
        "apply" => "application/apply-patch+yaml".to_owned(),
        kind => format!("application/{kind}-patch+json"),
    }
}

/// A body without its framing.
pub(super) struct Body {
    stream: BufReader<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>,
    framing: Framing,
}

enum Framing {
    Length { left: usize },
    Chunked { left: usize },
    Close,
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.framing {
            Framing::Close => self.stream.read(into),
            Framing::Length { left } => {
                let most = into.len().min(*left);
                let read = self.stream.read(&mut into[..most])?;
                *left -= read;
                Ok(read)
            }
            Framing::Chunked { left } => {
                if *left == 0 {
                    let size = read_line(&mut self.stream)?;
                    *left = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
                    if *left == 0 {
                        self.framing = Framing::Length { left: 0 };
                        return Ok(0);
                    }
                }
                let most = into.len().min(*left);
                let read = self.stream.read(&mut into[..most])?;
                if read == 0 && most > 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *left -= read;
                if *left == 0 {
                    read_line(&mut self.stream)?;
                }
                Ok(read)
            }
        }
    }
}

/// A stream of one JSON object a line.
pub(super) struct Events {
    pub(super) reader: BufReader<Body>,
}

impl Events {
    /// The next event, or `None` at the end of the watch.
    pub(super) fn next(&mut self) -> Option<Value> {
        let line = read_line(&mut self.reader).expect("an event within the deadline");
        (!line.is_empty()).then(|| serde_json::from_str(&line).expect("JSON"))
    }

    /// `TYPE name` of the next event.
    pub(super) fn brief(&mut self) -> String {
        let event = self.next().expect("an event");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-");
        format!("{} {name}", event["type"].as_str().unwrap_or("?"))
    }
}

fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, String)> {
    let status = read_line(reader)?;
    let code = status.split(' ').nth(1).and_then(|c| c.parse().ok());
    let code = code.ok_or_else(|| io::Error::other(format!("status line {status:?}")))?;
    let mut headers = String::new();
    loop {
        let line = read_line(reader)?;
        if line.trim().is_empty() {
            return Ok((code, headers));
        }
        headers.push_str(&line);
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(line)
}
