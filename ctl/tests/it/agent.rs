//! An agent's control socket that answers from a committed file.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use crate::transcript::it;

/// The answers of `fixtures/agents/NAME.json` by their paths.
///
/// A string `@N` in an answer becomes the time N seconds ago, `@N as Go prints it` the same in the form of Calico's IPAM.
pub(crate) fn answers(name: &str) -> Value {
    let text = fs::read_to_string(it().join("fixtures/agents").join(format!("{name}.json"))).unwrap();
    let mut answers: Value = serde_json::from_str(&text).unwrap();
    set_times(&mut answers);
    answers
}

/// Serves them at `socket` until the process ends.
pub(crate) fn serve(name: &str, socket: &Path) {
    let answers = answers(name);
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let answers = answers.clone();
            thread::spawn(move || answer(stream.unwrap(), &answers));
        }
    });
}

/// Accepts connections at `socket` and never says a word.
pub(crate) fn serve_silence(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            held.push(stream);
        }
    });
}

fn answer(mut stream: UnixStream, answers: &Value) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        let mut header = String::new();
        while reader.read_line(&mut header).unwrap_or(0) > 0 && header != "\r\n" {
            header.clear();
        }
        let path = request
            .strip_prefix("GET ")
            .and_then(|rest| rest.split(' ').next())
            .unwrap();
        let (status, body) = match answers.get(path) {
            Some(body) => ("200 OK", body.clone()),
            None => ("404 Not Found", json!({"message": "this agent does not know it"})),
        };
        let body = body.to_string();
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        if stream.write_all(format!("{head}{body}").as_bytes()).is_err() {
            return;
        }
    }
}

fn set_times(value: &mut Value) {
    match value {
        Value::String(text) => {
            let Some(time) = text.strip_prefix('@') else { return };
            let (seconds, go) = match time.strip_suffix(" as Go prints it") {
                Some(seconds) => (seconds, true),
                None => (time, false),
            };
            let Ok(seconds) = seconds.parse::<i64>() else { return };
            let time = Timestamp::now() - seconds.seconds();
            *text = if go {
                time.strftime("%Y-%m-%d %H:%M:%S%.9f +0000 UTC").to_string()
            } else {
                time.to_string()
            };
        }
        Value::Array(items) => items.iter_mut().for_each(set_times),
        Value::Object(fields) => fields.values_mut().for_each(set_times),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
