//! A fake agent: answers as told, remembers what it was asked.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use margay_cni::host::{GATEWAY_V4, GATEWAY_V6, HOST_MAC};
use margay_cni::protocol::{Answer, Attached, Request, frame};
use margay_cni::queue::Queue;

pub(crate) const ROUTE_PROTOCOL: u8 = 177;

pub(crate) struct Agent {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    attached: Attached,
    /// Instead of the usual answer to anything but a DEL.
    instead: Option<Answer>,
    /// Where DELs go that cannot be finished now.
    dels: Option<Queue>,
    asked: Vec<Request>,
    stop: bool,
}

impl Agent {
    pub(crate) fn start(path: &Path) -> Self {
        // A killed agent leaves its socket behind.
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).expect("listens");
        let state = Arc::new(Mutex::new(State {
            attached: attached(&["10.244.0.5/32", "fd00:10:244::5/128"]),
            instead: None,
            dels: None,
            asked: Vec::new(),
            stop: false,
        }));
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("accepts");
                if shared.lock().expect("whole").stop {
                    return;
                }
                serve(&mut stream, &shared);
            }
        });
        Self {
            path: path.to_owned(),
            state,
            thread: Some(thread),
        }
    }

    /// Stops listening; the socket stays, as after a kill.
    pub(crate) fn kill(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.state.lock().expect("whole").stop = true;
        UnixStream::connect(&self.path).expect("is listening");
        thread.join().expect("ends");
    }

    pub(crate) fn will_attach(&self, attached: Attached) {
        self.state.lock().expect("whole").attached = attached;
    }

    pub(crate) fn will_answer(&self, answer: Option<Answer>) {
        self.state.lock().expect("whole").instead = answer;
    }

    /// From now on DELs are written down to be finished later, as when the API server is away.
    pub(crate) fn will_queue_dels(&self, queue: Queue) {
        self.state.lock().expect("whole").dels = Some(queue);
    }

    /// What was asked since the last call.
    pub(crate) fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().expect("whole").asked)
    }

    /// The same as names.
    pub(crate) fn asked_names(&self) -> Vec<&'static str> {
        let name = |request: &Request| match request {
            Request::Add(_) => "Add",
            Request::Del(_) => "Del",
            Request::Check(_) => "Check",
            Request::Status => "Status",
        };
        self.asked().iter().map(name).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn attached(addresses: &[&str]) -> Attached {
    Attached {
        interface: "mgy16ff9610a79".into(),
        host_mac: HOST_MAC.to_string(),
        addresses: addresses.iter().map(|text| text.parse().expect("a network")).collect(),
        gateway_v4: GATEWAY_V4,
        gateway_v6: GATEWAY_V6,
        mtu: 1450,
        route_protocol: ROUTE_PROTOCOL,
    }
}

fn serve(stream: &mut UnixStream, state: &Mutex<State>) {
    let mut received = Vec::new();
    let mut chunk = [0; 1024];
    while frame::complete(&received).expect("short").is_none() {
        let count = stream.read(&mut chunk).expect("reads");
        if count == 0 {
            return;
        }
        received.extend_from_slice(&chunk[..count]);
    }
    let (version, request) = frame::decode_request(&received).expect("is a request");
    let mut state = state.lock().expect("whole");
    let answer = match (&request, &state.instead) {
        (Request::Del(_), _) => Answer::Done,
        (_, Some(instead)) => instead.clone(),
        (Request::Add(_) | Request::Check(_), None) => Answer::Attached(state.attached.clone()),
        (Request::Status, None) => Answer::Done,
    };
    if let (Request::Del(del), Some(queue)) = (&request, &state.dels) {
        queue.push(del).expect("is written");
    }
    state.asked.push(request);
    stream
        .write_all(&frame::encode_answer(version, &answer))
        .expect("writes");
}
