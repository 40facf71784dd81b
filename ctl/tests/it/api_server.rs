//! An API server that knows one cluster, and runs commands in pods as far as margayctl asks for them.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::http::HeaderValue;

use crate::agent;
use crate::transcript::it;

/// Objects in one answer to a list, whatever is asked for: so that there is more than one page.
const PAGE: usize = 2;

/// Serves `fixtures/cluster/NAME.json` until the process ends, and returns its URL.
///
/// `lists` has objects by the path of their collection, `forbidden` the paths that are refused, `pods` what comes of a
/// command in a pod: answers of an `agent`, or words of a `failure`, or a `refusal` before it starts.
pub(crate) fn serve(name: &str) -> String {
    let text = fs::read_to_string(it().join("fixtures/cluster").join(format!("{name}.json"))).unwrap();
    let cluster: Value = serde_json::from_str(&text).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let cluster = cluster.clone();
            thread::spawn(move || answer(stream.unwrap(), &cluster));
        }
    });
    url
}

fn answer(stream: TcpStream, cluster: &Value) {
    let target = target(&stream);
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query: Vec<(String, String)> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), decoded(value)))
        .collect();
    if let Some((pods, "exec")) = path.rsplit_once('/') {
        let (collection, pod) = pods.rsplit_once('/').unwrap();
        return exec(stream, cluster, collection, pod, &query);
    }
    let forbidden = cluster["forbidden"]
        .as_array()
        .is_some_and(|paths| paths.contains(&json!(path)));
    let (code, body) = match cluster["lists"].get(path) {
        _ if forbidden => (
            403,
            refusal(
                403,
                &format!("{} is forbidden: you may not", path.rsplit('/').next().unwrap()),
            ),
        ),
        Some(items) => (200, page(items, &query)),
        None => (404, refusal(404, "the server could not find the requested resource")),
    };
    respond(stream, code, &body);
}

/// The path and query that a request asks for, which stays to be read.
fn target(stream: &TcpStream) -> String {
    let mut head = [0; 4096];
    let mut seen = 0;
    while seen == 0 || !head[..seen].windows(4).any(|end| end == b"\r\n\r\n") {
        seen = stream.peek(&mut head).unwrap();
    }
    let head = String::from_utf8_lossy(&head[..seen]);
    head.split(' ').nth(1).unwrap().to_owned()
}

fn page(items: &Value, query: &[(String, String)]) -> Value {
    let of = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let selected = |item: &&Value| {
        let Some((label, value)) = of("labelSelector").and_then(|selector| selector.split_once('=')) else {
            return true;
        };
        item["metadata"]["labels"][label] == value
    };
    let items: Vec<&Value> = items.as_array().unwrap().iter().filter(selected).collect();
    let start: usize = of("continue").map_or(0, |token| token.parse().unwrap());
    let end = items.len().min(start + PAGE);
    let token = if end < items.len() {
        end.to_string()
    } else {
        String::new()
    };
    json!({"metadata": {"continue": token}, "items": items[start..end]})
}

fn refusal(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message})
}

fn respond(mut stream: TcpStream, code: u16, body: &Value) {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).unwrap();
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {code} .\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // Who has seen enough may have gone.
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

/// Plays the command: the kubelet's protocol v5 on a WebSocket, a channel's number before each message.
fn exec(stream: TcpStream, cluster: &Value, collection: &str, pod: &str, query: &[(String, String)]) {
    let part = &cluster["pods"][pod];
    let container = ("container".to_owned(), "margay-node".to_owned());
    assert!(query.contains(&container), "{query:?}");
    assert!(cluster["lists"].get(collection).is_some(), "{collection}");
    if let Some(message) = part["refusal"]["message"].as_str() {
        let code = u16::try_from(part["refusal"]["code"].as_u64().unwrap()).unwrap();
        return respond(stream, code, &refusal(code, message));
    }
    #[expect(clippy::result_large_err, reason = "the library's own type")]
    let accept = |_: &Request, mut response: Response| {
        let protocol = HeaderValue::from_static("v5.channel.k8s.io");
        response.headers_mut().insert("sec-websocket-protocol", protocol);
        Ok(response)
    };
    let mut socket = tungstenite::accept_hdr(stream, accept).unwrap();
    let mut send = |channel: u8, text: &str| {
        let message = [&[channel], text.as_bytes()].concat();
        socket.send(Message::binary(message)).unwrap();
    };
    if part["silent"] == true {
        thread::park();
    }
    let status = match part["failure"].as_str() {
        Some(words) => {
            send(2, words);
            json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated with exit code 1"})
        }
        None => {
            send(1, &raw(part["agent"].as_str().unwrap(), query));
            json!({"status": "Success"})
        }
    };
    send(3, &status.to_string());
    let _ = socket.close(None);
    let _ = socket.flush();
}

/// What `margayctl raw` prints where this agent is.
fn raw(name: &str, query: &[(String, String)]) -> String {
    let words: Vec<&str> = query
        .iter()
        .filter(|(key, _)| key == "command")
        .map(|(_, value)| value.as_str())
        .collect();
    let socket = ["margayctl", "--socket", "/run/margay/control.sock", "--timeout"];
    assert_eq!(words[..4], socket);
    assert_eq!(words[5], "raw");
    let answers = agent::answers(name);
    words[6..].iter().map(|path| format!("{}\n", answers[path])).collect()
}

/// Undoes the percent-encoding of a query.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}
