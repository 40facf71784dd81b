//! A node with a kernel of its own, as far as networks go, and its pods.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use margay_netlink::{Addr, Connection, Link, Netns, Op};
use serde_json::{Value, json};

use crate::agent::Agent;

pub(crate) struct Node {
    pub(crate) netns: Netns,
    pub(crate) agent: Agent,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) struct Pod {
    pub(crate) netns: Netns,
    pub(crate) container: &'static str,
}

/// What the plugin returned.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: i32,
    /// `Null` if it printed nothing.
    pub(crate) document: Value,
}

/// Addresses of the node itself, on its loopback.
pub(crate) const NODE_V4: &str = "192.0.2.10";
pub(crate) const NODE_V6: &str = "2001:db8::10";

impl Node {
    /// `None`, said aloud, without root; a failure in CI.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let netns = match Netns::create() {
            Ok(netns) => netns,
            Err(error) if std::env::var_os("CI").is_some() => panic!("{test}: {error}"),
            Err(error) => {
                println!("SKIPPED {test}: needs root: {error}");
                return None;
            }
        };
        let mut connection = Connection::open_in(&netns).expect("connects");
        connection.apply(&Op::SetUp(1, true)).expect("sets loopback up");
        for address in [NODE_V4, NODE_V6] {
            let network = address.parse::<IpAddr>().expect("an address").into();
            connection
                .apply(&Op::AddAddr(Addr::new(1, network).nodad()))
                .expect("adds");
        }
        let dir = tempfile::tempdir().expect("makes a directory");
        let agent = Agent::start(&dir.path().join("cni.sock"));
        Some(Self { netns, agent, dir })
    }

    pub(crate) fn pod(&self, container: &'static str) -> Pod {
        Pod {
            netns: Netns::create().expect("makes a namespace"),
            container,
        }
    }

    pub(crate) fn restart_agent(&mut self) {
        self.agent.kill();
        self.agent = Agent::start(&self.dir.path().join("cni.sock"));
    }

    pub(crate) fn queue_dir(&self) -> PathBuf {
        self.dir.path().join("dels")
    }

    pub(crate) fn queued(&self) -> usize {
        std::fs::read_dir(self.queue_dir()).map_or(0, Iterator::count)
    }

    pub(crate) fn config(&self) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "name": "margay",
            "type": "margay",
            "socket": self.dir.path().join("cni.sock"),
            "stateDir": self.queue_dir(),
        })
    }

    pub(crate) fn add(&self, pod: &Pod) -> Outcome {
        self.call("ADD", pod, self.config())
    }

    /// ADD that must work; its result.
    pub(crate) fn added(&self, pod: &Pod) -> Value {
        let outcome = self.add(pod);
        assert_eq!(outcome.status, 0, "{:#}", outcome.document);
        outcome.document
    }

    pub(crate) fn del(&self, pod: &Pod) -> Outcome {
        self.call("DEL", pod, self.config())
    }

    pub(crate) fn check(&self, pod: &Pod, result: &Value) -> Outcome {
        let mut config = self.config();
        config["prevResult"] = result.clone();
        self.call("CHECK", pod, config)
    }

    pub(crate) fn call(&self, command: &str, pod: &Pod, config: Value) -> Outcome {
        self.call_with(&variables(command, pod), &config.to_string())
    }

    pub(crate) fn call_with(&self, env: &[(String, String)], config: &str) -> Outcome {
        let run = || {
            let mut child = Command::new(env!("CARGO_BIN_EXE_margay-cni"))
                .env_clear()
                .envs(env.iter().cloned())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("starts");
            // Some calls end before they read it.
            let _ = child.stdin.take().expect("is piped").write_all(config.as_bytes());
            child.wait_with_output().expect("ends")
        };
        let output = self.netns.run(run).expect("enters");
        let text = String::from_utf8(output.stdout).expect("is text");
        let document = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).expect("prints one document")
        };
        Outcome {
            status: output.status.code().expect("exits"),
            document,
        }
    }

    pub(crate) fn links(&self) -> Vec<String> {
        let links = Connection::open_in(&self.netns)
            .expect("connects")
            .links()
            .expect("lists");
        let names = links.into_iter().map(|link| link.name);
        names.filter(|name| !innate().contains(name)).collect()
    }

    pub(crate) fn link(&self, name: &str) -> Link {
        Connection::open_in(&self.netns)
            .expect("connects")
            .link_by_name(name)
            .expect("is there")
    }

    pub(crate) fn change(&self, op: Op) {
        Connection::open_in(&self.netns)
            .expect("connects")
            .apply(&op)
            .expect("changes");
    }
}

impl Pod {
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd())
    }

    pub(crate) fn connection(&self) -> Connection {
        Connection::open_in(&self.netns).expect("connects")
    }

    pub(crate) fn links(&self) -> Vec<String> {
        let links = self.connection().links().expect("lists");
        let names = links.into_iter().map(|link| link.name);
        names.filter(|name| !innate().contains(name)).collect()
    }

    pub(crate) fn eth0(&self) -> Link {
        self.connection().link_by_name("eth0").expect("is there")
    }
}

impl Outcome {
    /// Code and message of a failure.
    pub(crate) fn error(&self) -> (u64, &str) {
        assert_eq!(self.status, 1, "{:#}", self.document);
        let code = self.document["code"].as_u64().expect("has a code");
        (code, self.document["msg"].as_str().expect("has a message"))
    }
}

pub(crate) fn variables(command: &str, pod: &Pod) -> Vec<(String, String)> {
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns0;K8S_POD_NAME=q1;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=u-1";
    [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", pod.container),
        ("CNI_NETNS", &pod.path()),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", args),
        ("CNI_PATH", "/opt/cni/bin"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// Links that every namespace is born with: some kernel modules make one in each.
fn innate() -> &'static [String] {
    static INNATE: OnceLock<Vec<String>> = OnceLock::new();
    INNATE.get_or_init(|| {
        let fresh = Netns::create().expect("makes a namespace");
        let links = Connection::open_in(&fresh).expect("connects").links().expect("lists");
        links.into_iter().map(|link| link.name).collect()
    })
}

/// Sends one datagram, never repeated, and returns where it seemed to come from.
pub(crate) fn datagram(from: &Netns, to: &Netns, address: &str) -> std::io::Result<IpAddr> {
    let target: IpAddr = address.parse().expect("an address");
    let receiver = to
        .run(|| UdpSocket::bind(SocketAddr::new(target, 7777)))
        .expect("enters")?;
    receiver.set_read_timeout(Some(Duration::from_secs(15)))?;
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sender = from.run(|| UdpSocket::bind(any)).expect("enters")?;
    sender.send_to(b"hello", (target, 7777))?;
    let (_, source) = receiver.recv_from(&mut [0; 16])?;
    Ok(source.ip())
}
