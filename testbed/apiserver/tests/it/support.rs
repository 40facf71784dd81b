//! A server for one test, and a server in a process of its own that can be killed.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use margay_apiserver::{Config, Limits, Server};

pub(super) use super::client::Client;

pub(super) const TOKEN: &str = "test-token";

/// A server in memory with these limits, and a client of it.
pub(super) fn start_with(limits: Limits) -> (Server, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let server = Server::start(Config {
        limits,
        ..Config::new(vec![listener], TOKEN)
    })
    .expect("server");
    let client = Client::new(server.addresses()[0].port(), server.ca_pem(), TOKEN);
    (server, client)
}

pub(super) fn start() -> (Server, Client) {
    start_with(Limits::default())
}

/// This test binary again, as a server that ends only by a kill.
pub(super) struct Child {
    process: std::process::Child,
    pub(super) client: Client,
}

impl Child {
    pub(super) fn start(dir: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "server_in_a_process_of_its_own", "--nocapture", "--ignored"])
            .env("MARGAY_APISERVER_DIR", dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("child");
        let lines = BufReader::new(process.stdout.take().expect("stdout")).lines();
        let port = lines
            .map(|l| l.expect("line"))
            .find_map(|l| l.split_once("listening on ").and_then(|(_, p)| p.trim().parse().ok()))
            .expect("the child says where it listens");
        let ca = std::fs::read_to_string(dir.join("ca.crt")).expect("authority");
        Self {
            process,
            client: Client::new(port, &ca, TOKEN),
        }
    }

    pub(super) fn kill(&mut self) {
        self.process.kill().expect("kill -9");
        self.process.wait().expect("wait");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The body of the child.
pub(super) fn serve_until_killed() {
    let dir = std::env::var_os("MARGAY_APISERVER_DIR")
        .map(std::path::PathBuf::from)
        .expect("only for a parent test");
    let port: u16 = std::env::var("MARGAY_APISERVER_PORT")
        .ok()
        .and_then(|p| p.parse().ok())
        .unwrap_or(0);
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("loopback");
    let config = Config {
        state_file: Some(dir.join("state")),
        tls_dir: Some(dir.clone()),
        ..Config::new(vec![listener], TOKEN)
    };
    let server = Server::start(config).expect("server");
    let port = server.addresses()[0].port();
    std::fs::write(
        dir.join("kubeconfig"),
        server.kubeconfig(&format!("https://127.0.0.1:{port}")),
    )
    .expect("kubeconfig");
    println!("listening on {port}");
    loop {
        std::thread::park();
    }
}
