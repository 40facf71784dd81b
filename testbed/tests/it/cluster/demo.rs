//! `make demo` and `make demo-down` as commands: who may run them, what they compare, what they leave.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Output},
};

use margay_apiserver::{Config, Server};
use margay_demo::host::HostState;

use super::lab::ClusterLab;
use margay_testkit::{needs, programs, repository};

/// `nobody`: any user but root.
const NOBODY: u32 = 65534;

#[test]
fn who_is_not_root_is_told_first() {
    if !needs::root("who_is_not_root_is_told_first") {
        return;
    }
    // Somewhere that anybody may read.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(repository().join("Makefile"), dir.path().join("Makefile")).unwrap();
    let demo = dir.path().join("margay-demo");
    let copied = Command::new("cp")
        .arg(programs::path("margay-demo"))
        .arg(&demo)
        .status();
    assert!(copied.unwrap().success());
    for (program, arguments) in [(demo.as_path(), ["run"]), (Path::new("make"), ["demo"])] {
        let mut command = Command::new(program);
        let output = command
            .args(arguments)
            .current_dir(dir.path())
            // As from a shell, also where a make runs this test.
            .env_remove("MAKELEVEL")
            .env_remove("MAKEFLAGS")
            .env_remove("MFLAGS")
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .unwrap();
        let words = [output.stdout.clone(), output.stderr.clone()].concat();
        let words = String::from_utf8_lossy(&words);
        assert!(!output.status.success(), "{words}");
        let first = words.lines().find(|line| !line.is_empty()).unwrap_or_default();
        assert!(first.contains("needs root"), "{program:?}: {words}");
    }
}

/// What a run that failed had noted of the host says nothing of the host that the next one finds.
#[test]
fn the_host_is_looked_at_anew_where_no_lab_is() {
    if !needs::root("the_host_is_looked_at_anew_where_no_lab_is") {
        return;
    }
    let lab = ClusterLab::empty("anew");
    let before = lab.shell.labs_dir.clone().unwrap().with_extension("before.json");
    fs::write(&before, r#"{"links": ["long-gone"]}"#).unwrap();
    let topology = before.with_file_name("faulty.clab.yml");
    fs::write(
        &topology,
        "name: two-racks\ntopology: {nodes: {a: {kind: linux, image: nobody/knows}}}\n",
    )
    .unwrap();
    let output = lab.demo(&["run", "--topology", topology.to_str().unwrap()]);
    assert!(!output.status.success(), "no program is known for the image");
    let noted = fs::read_to_string(&before).unwrap();
    assert!(!noted.contains("long-gone"), "{noted}");
    HostState::kept(&before).unwrap().expect("the host as it is now");
}

/// With an API server given, the demo runs against it as often as wanted, and takes back what it put there and no more.
#[test]
fn a_given_api_server_gets_back_what_it_had() {
    if !needs::root("a_given_api_server_gets_back_what_it_had") {
        return;
    }
    let mut lab = ClusterLab::empty("given");
    let dir = lab.shell.labs_dir.clone().unwrap().with_file_name("given");
    fs::create_dir(&dir).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::start(Config::new(vec![listener], "given")).unwrap();
    let kubeconfig = dir.join("kubeconfig");
    fs::write(
        &kubeconfig,
        server.kubeconfig(&format!("https://{}", server.addresses()[0])),
    )
    .unwrap();
    lab.shell.kubeconfig = Some(kubeconfig);
    // Strangers that never become ready, and a pool and a block of theirs.
    let crds = repository().join("deploy/crds");
    lab.shell.kubectl(&["apply", "-f", crds.to_str().unwrap()]).unwrap();
    lab.apply("strangers.yaml");
    let before = objects(&lab);

    for round in ["first", "second"] {
        let output = lab.demo(&["run"]);
        assert!(output.status.success(), "the {round} run: {}", words(&output));
    }
    let during = objects(&lab);
    for object in ["Node node1", "IPPool pods-v4", "NetworkPolicy payments"] {
        assert!(
            during.iter().any(|line| line.starts_with(object)),
            "{object} is not in {during:#?}"
        );
    }
    // A run with another API server would replace the lab and leave this one as it is.
    let given = lab.shell.kubeconfig.take();
    let output = lab.demo(&["run"]);
    assert!(!output.status.success(), "{}", words(&output));
    assert!(words(&output).contains("uses the API server of"), "{}", words(&output));
    lab.shell.kubeconfig = given;
    let output = lab.demo(&["down"]);
    assert!(output.status.success(), "{}", words(&output));
    assert_eq!(objects(&lab), before);

    // Where others have what the demo would change, it changes nothing.
    lab.shell.kubectl(&["create", "namespace", "payments"]).unwrap();
    let before = objects(&lab);
    let output = lab.demo(&["run"]);
    assert!(!output.status.success());
    assert!(words(&output).contains("namespace/payments"), "{}", words(&output));
    assert_eq!(objects(&lab), before);
}

/// Kind, name and namespace of everything on the API server but Events, which go by themselves.
fn objects(lab: &ClusterLab) -> Vec<String> {
    let verbs = lab
        .shell
        .kubectl(&["api-resources", "--verbs=list", "-o", "name"])
        .unwrap();
    let kinds: Vec<&str> = verbs.lines().filter(|kind| !kind.starts_with("events")).collect();
    let columns = "custom-columns=KIND:.kind,NAME:.metadata.name,NAMESPACE:.metadata.namespace";
    let get = [
        "get",
        "-A",
        "--no-headers",
        "--ignore-not-found",
        "-o",
        columns,
        &kinds.join(","),
    ];
    let lines = lab.shell.kubectl(&get).unwrap();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    lines.lines().map(words).collect()
}

fn words(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|stream| String::from_utf8_lossy(stream).into_owned())
        .concat()
}
