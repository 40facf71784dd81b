//! Network namespaces with real routers in them.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use margay_netlink::{Addr, Connection, Netns, Route, RouteFilter, VethSpec};
use serde_json::Value;
use tempfile::TempDir;

/// Route protocol number of the speaker under test.
pub(crate) const PROTOCOL: u8 = 77;

const FRR: &str = "/usr/lib/frr";
const PATIENCE: Duration = Duration::from_secs(40);

/// Whether a kernel test can run; if not, it says so, or fails where it must run.
pub(crate) fn can_run(test: &str, tools: &[&str]) -> bool {
    let root = fs::read_to_string("/proc/self/status")
        .is_ok_and(|s| s.lines().any(|l| l.split_whitespace().take(3).eq(["Uid:", "0", "0"])));
    let mut missing: Vec<String> = tools
        .iter()
        .filter(|t| !Path::new(t).exists())
        .map(|t| (*t).to_owned())
        .collect();
    if !root {
        missing.push("root".to_owned());
    }
    if missing.is_empty() {
        return true;
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{test} needs {}",
        missing.join(", ")
    );
    println!("SKIPPED {test}: needs {}", missing.join(", "));
    false
}

/// One kernel test at a time: routers that race for two processors make timers lie.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a condition; `what` and the last state seen are the failure's text.
#[track_caller]
pub(crate) fn wait_for<T: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> (bool, T)) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (done, seen) = look();
        if done {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{what} did not happen within {PATIENCE:?}; last seen: {seen:#?}"
        );
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// A process that dies with its owner.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(netns: &Netns, command: &mut Command, log: &Path) -> Process {
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log file");
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a descriptor"))
            .stderr(file);
        let child = netns.run(|| command.spawn()).expect("a thread in the namespace");
        Process(child.unwrap_or_else(|e| panic!("cannot start {command:?}: {e}")))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let done = Command::new("kill").args(["-s", name, &self.id().to_string()]).status();
        assert!(done.is_ok_and(|s| s.success()), "cannot signal {}", self.id());
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        wait_for("the end of the process", || {
            status = self.0.try_wait().expect("a child");
            (status.is_some(), self.0.id())
        });
        status.expect("waited for")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A speaker's namespace (`margay`) between those of an FRR and a BIRD router.
///
/// margay 10.0.1.2, fd00:1::2 — 10.0.1.1, fd00:1::1 FRR (AS 65201);
/// margay 10.0.2.2, fd00:2::2 — 10.0.2.1, fd00:2::1 BIRD (AS 65202).
pub(crate) struct Lab {
    pub(crate) margay: Netns,
    pub(crate) frr: Netns,
    pub(crate) bird: Netns,
    dir: TempDir,
    _turn: MutexGuard<'static, ()>,
}

pub(crate) fn net(s: &str) -> IpNetwork {
    s.parse().expect("a prefix")
}

impl Lab {
    pub(crate) fn new() -> Lab {
        let turn = turn();
        let dir = tempfile::Builder::new()
            .prefix("margay-bgp-")
            .tempdir()
            .expect("a directory");
        let make = || Netns::create().expect("a namespace");
        let lab = Lab {
            margay: make(),
            frr: make(),
            bird: make(),
            dir,
            _turn: turn,
        };
        for netns in [&lab.margay, &lab.frr, &lab.bird] {
            let mut netlink = open(netns);
            let lo = netlink.link_by_name("lo").expect("loopback");
            netlink
                .apply(&margay_netlink::Op::SetUp(lo.index, true))
                .expect("loopback up");
        }
        lab.join("frr0", &lab.frr, 1);
        lab.join("bird0", &lab.bird, 2);
        lab
    }

    fn join(&self, name: &str, other: &Netns, number: u8) {
        let mut ours = open(&self.margay);
        let spec = VethSpec {
            name,
            peer_name: "margay0",
            peer_netns: Some(other),
            mac: None,
            peer_mac: None,
            mtu: None,
            up: true,
        };
        let link = ours.create_veth(&spec).expect("a veth");
        let mut theirs = open(other);
        let peer = theirs.link_by_name("margay0").expect("the peer");
        theirs
            .apply(&margay_netlink::Op::SetUp(peer.index, true))
            .expect("the peer up");
        for (netlink, index, host) in [(&mut ours, link.index, 2), (&mut theirs, peer.index, 1)] {
            for addr in [format!("10.0.{number}.{host}/24"), format!("fd00:{number}::{host}/64")] {
                let addr = Addr::new(index, net(&addr)).nodad();
                netlink.apply(&margay_netlink::Op::AddAddr(addr)).expect("an address");
            }
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("a file");
        path
    }

    /// zebra and bgpd; both 10.99.0.0/24 and fd00:99::/64 are announced over one IPv4 session.
    pub(crate) fn start_frr(&self) -> [Process; 2] {
        let dir = self.path("frr");
        if !dir.exists() {
            fs::create_dir(&dir).expect("a directory");
            set_mode(self.dir.path(), 0o755);
            let done = Command::new("chown").arg("frr:frr").arg(&dir).status();
            assert!(done.is_ok_and(|s| s.success()), "chown to frr");
        }
        for (name, text) in [("zebra.conf", "hostname tor1\n"), ("bgpd.conf", FRR_CONFIG)] {
            fs::write(dir.join(name), text).expect("a file");
            // The daemons are not root.
            set_mode(&dir.join(name), 0o644);
        }
        let start = |daemon: &str| {
            let mut command = Command::new(format!("{FRR}/{daemon}"));
            command
                .args(["-u", "frr", "-g", "frr", "-f"])
                .arg(dir.join(format!("{daemon}.conf")))
                .arg("-i")
                .arg(dir.join(format!("{daemon}.pid")))
                .arg("-z")
                .arg(dir.join("zserv.api"))
                .arg("--vty_socket")
                .arg(&dir)
                .args(["--log", "stdout"]);
            Process::start(&self.frr, &mut command, &self.path(&format!("{daemon}.log")))
        };
        let zebra = start("zebra");
        wait_for("zebra's socket", || (dir.join("zserv.api").exists(), zebra.id()));
        [zebra, start("bgpd")]
    }

    /// BIRD; 10.99.0.0/24 over an IPv4 session, fd00:99::/64 over an IPv6 one.
    pub(crate) fn start_bird(&self, recover: bool) -> Process {
        let config = self.write("bird.conf", BIRD_CONFIG);
        let mut command = Command::new("/usr/sbin/bird");
        command
            .arg("-f")
            .arg("-c")
            .arg(config)
            .arg("-s")
            .arg(self.path("bird.ctl"));
        if recover {
            command.arg("-R");
        }
        Process::start(&self.bird, &mut command, &self.path("bird.log"))
    }

    pub(crate) fn start_bgpd(&self, config: &str) -> Process {
        let config = self.write(
            "bgpd.yaml",
            &config.replace("@CONTROL@", &self.path("bgp.sock").display().to_string()),
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_margay-bgpd"));
        command
            .arg("--config")
            .arg(config)
            .env("RUST_LOG", "margay_bgp=debug,info");
        Process::start(&self.margay, &mut command, &self.path("margay-bgpd.log"))
    }

    pub(crate) fn vtysh(&self, command: &str) -> String {
        run(Command::new("vtysh")
            .arg("--vty_socket")
            .arg(self.path("frr"))
            .args(["-c", command]))
    }

    pub(crate) fn birdc(&self, command: &str) -> String {
        run(Command::new("birdc")
            .arg("-s")
            .arg(self.path("bird.ctl"))
            .args(command.split(' ')))
    }

    /// What the control socket answers; null while it does not.
    pub(crate) fn ask(&self, word: &str) -> Value {
        use std::io::{Read, Write};
        let mut text = String::new();
        let done = std::os::unix::net::UnixStream::connect(self.path("bgp.sock")).and_then(|mut socket| {
            socket.write_all(format!("{word}\n").as_bytes())?;
            socket.read_to_string(&mut text)
        });
        done.ok()
            .and_then(|_| serde_json::from_str(&text).ok())
            .unwrap_or(Value::Null)
    }

    /// Waits until every peer of margay-bgpd is established.
    pub(crate) fn wait_established(&self, count: usize) {
        wait_for("all sessions", || {
            let peers = self.ask("peers");
            let up = peers
                .as_array()
                .map_or(0, |p| p.iter().filter(|p| p["state"] == "Established").count());
            (up == count, peers)
        });
    }

    /// Next hops of the speaker's route to a prefix in the kernel, sorted.
    pub(crate) fn next_hops(&self, prefix: &str) -> Vec<String> {
        hops(&self.margay, PROTOCOL, prefix)
    }
}

/// Next hops of a route of one protocol, sorted.
pub(crate) fn hops(netns: &Netns, protocol: u8, prefix: &str) -> Vec<String> {
    let routes = routes(netns, protocol);
    let route = routes.into_iter().find(|r| r.dst == net(prefix));
    let mut hops: Vec<String> = route
        .into_iter()
        .flat_map(|r| r.next_hops)
        .filter_map(|h| h.via)
        .map(|v: IpAddr| v.to_string())
        .collect();
    hops.sort();
    hops
}

/// All routes of one protocol.
pub(crate) fn routes(netns: &Netns, protocol: u8) -> Vec<Route> {
    let filter = RouteFilter {
        protocol: Some(protocol),
        ..RouteFilter::default()
    };
    open(netns).routes(filter).expect("routes")
}

pub(crate) fn open(netns: &Netns) -> Connection {
    netns
        .run(Connection::open)
        .expect("a thread in the namespace")
        .expect("a netlink socket")
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
}

fn run(command: &mut Command) -> String {
    match command.output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        Err(error) => format!("{command:?}: {error}"),
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in ["margay-bgpd.log", "bgpd.log", "zebra.log", "bird.log"] {
                if let Ok(text) = fs::read_to_string(self.path(log)) {
                    let lines: Vec<&str> = text.lines().collect();
                    println!(
                        "--- the end of {log}\n{}",
                        lines[lines.len().saturating_sub(60)..].join("\n")
                    );
                }
            }
        }
    }
}

const FRR_CONFIG: &str = "\
hostname tor1
debug bgp neighbor-events
router bgp 65201
 bgp router-id 10.0.1.1
 no bgp ebgp-requires-policy
 no bgp network import-check
 timers bgp 3 9
 neighbor 10.0.1.2 remote-as 65301
 neighbor 10.0.1.2 timers connect 1
 address-family ipv4 unicast
  network 10.99.0.0/24
 exit-address-family
 address-family ipv6 unicast
  neighbor 10.0.1.2 activate
  network fd00:99::/64
 exit-address-family
";

const BIRD_CONFIG: &str = "\
router id 10.0.2.1;
log stderr all;
debug protocols { states };
protocol device {}
protocol static own4 { ipv4; route 10.99.0.0/24 blackhole; }
protocol static own6 { ipv6; route fd00:99::/64 blackhole; }
protocol kernel kernel4 { ipv4 { import none; export where source = RTS_BGP; }; }
protocol kernel kernel6 { ipv6 { import none; export where source = RTS_BGP; }; }
template bgp margay {
  local as 65202;
  hold time 9;
  connect retry time 1;
  connect delay time 1;
  error wait time 1, 2;
  graceful restart on;
}
protocol bgp margay4 from margay {
  neighbor 10.0.2.2 as 65301;
  ipv4 { import all; export where source = RTS_STATIC; };
}
protocol bgp margay6 from margay {
  neighbor fd00:2::2 as 65301;
  ipv6 { import all; export where source = RTS_STATIC; };
}
";
