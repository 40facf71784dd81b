//! The pod runner against the lab's API server, with a plugin of the test's own in place of Margay's.

mod sidecars;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::harness::{TestLab, wait};
use margay_testkit::{needs, programs};

const LIMIT: Duration = Duration::from_secs(30);

/// Makes a veth with an address out of 10.200.0.0/24; DELs are counted in a file, and CHECKs in another.
const PLUGIN: &str = r#"#!/bin/sh
cat >/dev/null
host=veth$(echo "$CNI_CONTAINERID" | cut -c1-8)
case $CNI_COMMAND in
ADD)
    [ ! -e /run/refuse ] || { echo '{"code":11,"msg":"not yet","details":"the test says so"}'; exit 1; }
    # Pods are attached side by side; no two may get one address.
    exec 9>/run/last.lock; flock 9
    n=$(($(cat /run/last 2>/dev/null || echo 1) + 1)); echo $n >/run/last
    exec 9>&-
    ip link add "$host" type veth peer name eth0 netns "$(basename "$CNI_NETNS")"
    nsenter --net="$CNI_NETNS" sh -c "ip link set eth0 up; ip address add 10.200.0.$n/32 dev eth0; ip route add default dev eth0"
    ip link set "$host" up; ip route add "10.200.0.$n" dev "$host"
    echo 1 >"/proc/sys/net/ipv4/conf/$host/proxy_arp"
    echo "{\"cniVersion\":\"1.1.0\",\"ips\":[{\"address\":\"10.200.0.$n/32\"}]}" ;;
CHECK) echo "$CNI_CONTAINERID" >>/run/checked ;;
DEL) ip link del "$host" 2>/dev/null; echo "$CNI_CONTAINERID" >>/run/deleted ;;
esac
"#;

/// Installs the plugin when told so; else says that it is ready, to whoever asks.
const AGENT: &str = r#"#!/usr/bin/perl
if ($ARGV[0] eq "install-cni") {
    system("mkdir -p /opt/cni/bin /etc/cni/net.d && ln -sfn $ARGV[2] /opt/cni/bin/margay") == 0 or die;
    open(my $list, ">", "/etc/cni/net.d/10-test.conflist") or die $!;
    print $list '{"cniVersion":"1.1.0","name":"test","plugins":[{"type":"margay"}]}';
    exit 0;
}
use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1:9099", Listen => 9, ReuseAddr => 1) or die $!;
while (my $client = $server->accept) {
    while (<$client>) { last if /^\r?$/ }
    print $client "HTTP/1.1 200 OK\r\n\r\nready";
    close $client;
}
"#;

const TOPOLOGY: &str = r#"
name: pods
topology:
  nodes:
    n1:
      kind: linux
      image: alpine
      labels: {margay.io/kubernetes-node: "true", node-labels.margay.io/disk: fast, annotations.margay.io/a.b/c: d}
      exec: ["ip address add 10.7.0.1/24 dev eth1"]
    peer: {kind: linux, image: alpine}
  links: [{endpoints: ["n1:eth1", "peer:eth1"]}]
"#;

/// A lab with a cluster whose agent, controller and plugin are the test's own.
struct PodLab {
    lab: TestLab,
    kubeconfig: String,
}

impl PodLab {
    /// With an API server of its own.
    fn up() -> PodLab {
        let mut this = Self::deployed("pods", TOPOLOGY);
        this.cluster_up();
        this.kubeconfig = this.inspected_kubeconfig();
        this
    }

    /// Without a cluster yet.
    fn deployed(name: &str, topology: &str) -> PodLab {
        let lab = TestLab::of_text(name, topology);
        let bin = lab.dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for (name, target) in [
            ("margay-lab", programs::path("margay-lab")),
            ("margay-agnhost", programs::path("margay-agnhost")),
        ] {
            let copied = Command::new("cp").arg(target).arg(bin.join(name)).status().unwrap();
            assert!(copied.success());
        }
        script(&bin.join("margay-cni"), PLUGIN);
        script(&bin.join("margay-controller"), "#!/bin/sh\nexec sleep 3600\n");
        script(&bin.join("margay-node"), AGENT);
        let crds = lab.dir.path().join("deploy/crds");
        fs::create_dir_all(&crds).unwrap();
        let crd = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
                   metadata: {name: things.example.org}\nspec:\n  group: example.org\n  scope: Cluster\n  \
                   names: {plural: things, singular: thing, kind: Thing}\n  versions:\n    - name: v1\n      served: true\n      \
                   storage: true\n      schema: {openAPIV3Schema: {type: object}}\n";
        fs::write(crds.join("thing.yaml"), crd).unwrap();
        let this = PodLab {
            lab,
            kubeconfig: String::new(),
        };
        this.run(&["deploy", "-t", &this.lab.file]);
        this
    }

    fn inspected_kubeconfig(&self) -> String {
        let inspected = self.run(&["inspect", "-t", &self.lab.file, "-o", "json"]);
        let inspected: Value = serde_json::from_str(&inspected).unwrap();
        inspected["kubeconfig"].as_str().unwrap().to_owned()
    }

    fn cluster_up(&self) {
        let deploy = self.lab.dir.path().join("deploy");
        self.run(&[
            "cluster",
            "up",
            "-t",
            &self.lab.file,
            "--deploy",
            deploy.to_str().unwrap(),
        ]);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.lab.command(args);
        command.env("MARGAY_BIN_DIR", self.lab.dir.path().join("bin"));
        command
    }

    fn run(&self, args: &[&str]) -> String {
        let out = self.command(args).output().unwrap();
        assert!(
            out.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    }

    fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        let out = Command::new("kubectl")
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if out.status.success() {
            Ok(text(&out.stdout))
        } else {
            Err(text(&out.stderr))
        }
    }

    fn apply(&self, manifest: &str) {
        let file = self.lab.dir.path().join("manifest.yaml");
        fs::write(&file, manifest).unwrap();
        self.kubectl(&["apply", "-f", file.to_str().unwrap()]).unwrap();
    }

    fn pod(&self, name: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", "pod", name, "-o", "json"]).unwrap()).unwrap()
    }

    fn wait_ready(&self, name: &str) {
        self.kubectl(&["wait", "pod", name, "--for=condition=Ready", "--timeout=30s"])
            .unwrap();
    }

    /// Pids of `margay-lab kubelet` on the host.
    fn kubelets(&self) -> Vec<String> {
        let labs = self.lab.labs.to_str().unwrap().to_owned();
        let entries = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok());
        entries
            .filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                line.contains(" kubelet ") && line.contains(&labs)
            })
            .collect()
    }
}

/// A process of its own writes the file: what another test's thread forks meanwhile would hold it open for writing, and
/// such a file cannot be run.
fn script(path: &Path, text: &str) {
    let write = r#"printf %s "$1" >"$2" && chmod 755 "$2""#;
    let written = Command::new("sh").args(["-c", write, "sh", text]).arg(path).status();
    assert!(written.unwrap().success());
}

fn agnhost(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  terminationGracePeriodSeconds: 5\n  \
         containers:\n    - name: c\n      image: registry.k8s.io/e2e-test-images/agnhost:2.53\n      \
         args: [netexec, --http-port=80]\n      readinessProbe: {{httpGet: {{path: /healthz, port: 80}}, periodSeconds: 1}}\n{more}---\n"
    )
}

#[test]
fn a_pod_lives_as_its_object_says() {
    if !needs::root_and("a_pod_lives_as_its_object_says", &["/usr/bin/perl", "/usr/bin/nsenter"]) {
        return;
    }
    let pods = PodLab::up();
    let node: Value = serde_json::from_str(&pods.kubectl(&["get", "node", "n1", "-o", "json"]).unwrap()).unwrap();
    assert_eq!(node["metadata"]["labels"]["disk"], "fast");
    assert_eq!(node["metadata"]["annotations"]["a.b/c"], "d");
    assert_eq!(node["status"]["addresses"][0]["address"], "10.7.0.1");

    let sidecar = "    - {name: side, image: 'agnhost:2', args: [netexec, --http-port=81, --udp-port=-1], \
                   readinessProbe: {tcpSocket: {port: 81}}}\n";
    let other = "apiVersion: v1\nkind: Pod\nmetadata: {name: strange, namespace: default}\nspec:\n  containers: [{name: c, image: 'nginx:1'}]\n---\n\
                 apiVersion: v1\nkind: Pod\nmetadata: {name: once, namespace: default}\nspec:\n  restartPolicy: Never\n  \
                 initContainers: [{name: i, image: busybox, command: ['true']}]\n  \
                 containers: [{name: c, image: busybox, command: [sh, -c, 'exit 3']}]\n---\n\
                 apiVersion: v1\nkind: Pod\nmetadata: {name: host, namespace: default}\nspec:\n  hostNetwork: true\n  \
                 containers: [{name: c, image: agnhost, args: [netexec, --http-port=7070, --udp-port=-1]}]\n---\n\
                 apiVersion: v1\nkind: Pod\nmetadata: {name: crash, namespace: default}\nspec:\n  \
                 containers: [{name: c, image: busybox, command: ['false']}]\n";
    pods.apply(&(agnhost("web", sidecar) + other));
    pods.wait_ready("web");
    pods.wait_ready("host");
    let web = pods.pod("web");
    assert_eq!(web["spec"]["nodeName"], "n1", "bound by the scheduler");
    assert_eq!(web["status"]["hostIP"], "10.7.0.1");
    let ip = web["status"]["podIP"].as_str().unwrap().to_owned();
    assert!(ip.starts_with("10.200.0."), "{ip}");
    // Two containers share localhost, not their processes.
    let both = ["exec", "-t", &pods.lab.file, "--pod", "default/web", "-c", "side", "--"];
    let agnhost_bin = pods.lab.dir.path().join("bin/margay-agnhost");
    let agnhost_bin = agnhost_bin.to_str().unwrap();
    let probe = pods.run(&[&both[..], &[agnhost_bin, "probe", "127.0.0.1:80", "127.0.0.1:81"]].concat());
    assert_eq!(probe.matches("\"seen\":\"127.0.0.1\"").count(), 2, "{probe}");
    let seen = pods.run(&[&both[..], &["sh", "-c", "hostname; ps ax | grep -c '[n]etexec'"]].concat());
    assert_eq!(seen, "web\n1\n");
    let code = pods
        .command(&[&both[..], &["sh", "-c", "exit 9"]].concat())
        .status()
        .unwrap()
        .code();
    assert_eq!(code, Some(9));

    wait("the strange image is named", LIMIT, || {
        let pod = pods.pod("strange");
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let told = waiting["message"].as_str().unwrap_or_default().contains("\"nginx:1\"");
        if told && waiting["reason"] == "ImagePullBackOff" {
            Ok(())
        } else {
            Err(pod["status"].to_string())
        }
    });
    wait("the pod that never restarts has failed", LIMIT, || {
        let pod = pods.pod("once");
        let code = &pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"];
        if pod["status"]["phase"] == "Failed" && *code == 3 {
            Ok(())
        } else {
            Err(pod["status"].to_string())
        }
    });
    wait("the container that keeps failing is held back", LIMIT, || {
        let pod = pods.pod("crash");
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
        if *waiting == "CrashLoopBackOff" {
            Ok(())
        } else {
            Err(pod["status"].to_string())
        }
    });
    assert_eq!(pods.pod("host")["status"]["podIP"], "10.7.0.1");

    // A runner that is killed leaves its pods alone; the next one adopts them.
    let before = pods.pod("web")["status"]["containerStatuses"].clone();
    for pid in pods.kubelets() {
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    }
    wait("the runner is gone", LIMIT, || {
        if pods.kubelets().is_empty() {
            Ok(())
        } else {
            Err("alive".into())
        }
    });
    pods.run(&[&both[..], &[agnhost_bin, "connect", "127.0.0.1:80"]].concat());
    // An object that goes while nobody looks is ended by the next runner.
    pods.kubectl(&["delete", "pod", "once", "--grace-period=0", "--force"])
        .unwrap();
    pods.cluster_up();
    wait("the next runner adopts both containers", LIMIT, || {
        let log = fs::read_to_string(pods.lab.labs.join("pods/log/n1.kubelet.log")).unwrap();
        let adopted = log
            .lines()
            .filter(|line| line.contains("adopted") && line.contains("default/web"));
        if adopted.count() == 2 { Ok(()) } else { Err(log) }
    });
    pods.wait_ready("web");
    assert_eq!(
        pods.pod("web")["status"]["containerStatuses"],
        before,
        "adopted, not restarted"
    );
    let asked = |file: &str| {
        let lines = format!("sort /run/{file} 2>/dev/null");
        let told = pods.run(&["exec", "-t", &pods.lab.file, "n1", "--", "sh", "-c", &lines]);
        told.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    wait("the deleted pod's network is taken away, twice", LIMIT, || {
        let deleted = asked("deleted");
        match deleted.as_slice() {
            [first, second] if first == second => Ok(()),
            _ => Err(format!("{deleted:?}")),
        }
    });
    assert!(
        asked("checked").contains(&asked("deleted")[0]),
        "the runtime asks CHECK for what it attached"
    );

    // Deletion ends processes, network and object, in that order; a killed process comes back.
    let kill = [
        "exec",
        "-t",
        &pods.lab.file,
        "--pod",
        "default/web",
        "-c",
        "c",
        "--",
        "sh",
        "-c",
        "kill -9 2",
    ];
    // The container's end takes the command that brought it about along.
    pods.command(&kill).status().unwrap();
    wait("the container is restarted", LIMIT, || {
        let status = pods.pod("web")["status"].clone();
        let again =
            status["containerStatuses"][0]["restartCount"] == 1 && status["containerStatuses"][0]["ready"] == true;
        if again { Ok(()) } else { Err(status.to_string()) }
    });
    pods.kubectl(&["delete", "pod", "web", "strange", "host", "crash", "--timeout=30s"])
        .unwrap();
    let links = pods.run(&["exec", "-t", &pods.lab.file, "n1", "--", "ip", "-o", "link"]);
    assert!(!links.contains("veth"), "{links}");
    assert_eq!(
        pods.run(&["exec", "-t", &pods.lab.file, "n1", "--", "ls", "/run/netns"]),
        ""
    );
    assert!(
        fs::read_dir(pods.lab.labs.join("pods/nodes/n1/pods"))
            .unwrap()
            .next()
            .is_none()
    );

    // A plugin that asks for patience is asked again.
    pods.run(&["exec", "-t", &pods.lab.file, "n1", "--", "touch", "/run/refuse"]);
    pods.apply(&agnhost("late", ""));
    wait("the refusal is told", LIMIT, || {
        let events = pods.kubectl(&["get", "events", "-o", "json"])?;
        if events.contains("not yet: the test says so") {
            Ok(())
        } else {
            Err(events)
        }
    });
    pods.run(&["exec", "-t", &pods.lab.file, "n1", "--", "rm", "/run/refuse"]);
    pods.wait_ready("late");

    pods.run(&["cluster", "down", "-t", &pods.lab.file]);
    assert!(pods.kubelets().is_empty());
    let left = pods.run(&[
        "exec",
        "-t",
        &pods.lab.file,
        "n1",
        "--",
        "sh",
        "-c",
        "ps ax | grep -c '[n]etexec'; true",
    ]);
    assert_eq!(left, "0\n");
}

/// With a kubeconfig given, the lab's nodes join that cluster through a relay; nothing of it is started here.
#[test]
fn a_given_api_server_is_used_unchanged() {
    if !needs::root_and(
        "a_given_api_server_is_used_unchanged",
        &["/usr/bin/perl", "/usr/bin/nsenter"],
    ) {
        return;
    }
    let given = PodLab::up();
    let topology = TOPOLOGY.replace("name: pods", "name: guest").replace("n1:", "guest1:");
    let mut guest = PodLab::deployed("guest", &topology);
    let deploy = guest.lab.dir.path().join("deploy");
    let up = [
        "cluster",
        "up",
        "-t",
        &guest.lab.file,
        "--deploy",
        deploy.to_str().unwrap(),
        "--kubeconfig",
    ];
    guest.run(&[&up[..], &[&given.kubeconfig]].concat());
    guest.kubeconfig = guest.inspected_kubeconfig();
    assert_eq!(guest.kubeconfig, given.kubeconfig);
    let started: Vec<_> = guest
        .lab
        .processes()
        .into_iter()
        .filter(|line| line.contains("control-plane"))
        .collect();
    assert!(started.is_empty(), "{started:?}");
    given.apply(&agnhost("abroad", "").replace("spec:\n", "spec:\n  nodeName: guest1\n"));
    given.wait_ready("abroad");
    assert_eq!(given.pod("abroad")["status"]["hostIP"], "10.7.0.1");
    given.kubectl(&["delete", "pod", "abroad", "--timeout=30s"]).unwrap();
    guest.lab.destroy();
    assert!(guest.lab.processes().is_empty(), "{:?}", guest.lab.processes());
    given
        .kubectl(&["get", "node", "guest1"])
        .expect("the given API server goes on");
}
