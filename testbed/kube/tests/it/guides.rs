//! Every command of the guides, typed.

use std::path::Path;

use margay_testkit::repository;

use super::harness::{Kube, PATIENCE, commands, section, wait};

#[test]
fn every_command_of_the_guides_works() {
    let Some(kube) = Kube::installed("guides::every_command_of_the_guides_works") else {
        return;
    };
    for command in commands(&section(
        "deploy/guides/bare-nodes.md",
        "## 2. The nodes, before Kubernetes",
    )) {
        // The address is there: the topology has done what the guide says.
        let repeated = command.replace("ip address add", "ip address replace");
        let done = kube.node("node2", &repeated);
        assert!(done.is_ok(), "{command}: {done:?}");
    }
    for (guide, from) in [
        ("bare-nodes.md", "## 4. Kubernetes"),
        ("trouble.md", "# When something does not work"),
    ] {
        for command in commands(&section(&format!("deploy/guides/{guide}"), from)) {
            wait(&command, PATIENCE, || {
                kube.try_sh(&command).map_err(|failed| failed.to_string())
            });
        }
    }
    let own = kube.sh("kubectl -n margay-system get pods -l app.kubernetes.io/name=margay-node -o name --field-selector spec.nodeName=node2");
    let sent = kube.sh(&format!(
        "kubectl -n margay-system exec {} -c margay-node -- ip route get 10.10.0.1",
        own.trim()
    ));
    assert!(
        sent.contains("src 10.10.0.2"),
        "what trouble.md says of own packets: {sent}"
    );
}

/// What the guide shows of routers' files is in files that the lab runs.
#[test]
fn the_routers_of_the_guide_are_those_of_the_lab() {
    let guide = std::fs::read_to_string(repository().join("deploy/guides/bare-nodes.md")).unwrap();
    for (language, file) in [("frr", "tor1.conf"), ("bird", "tor2.conf")] {
        let path = Path::new("testbed/topologies/kube").join(file);
        let real = std::fs::read_to_string(repository().join(&path)).unwrap();
        let real: Vec<&str> = real.lines().map(str::trim).collect();
        let (_, block) = guide
            .split_once(&format!("```{language}\n"))
            .expect("the guide shows it");
        let (block, _) = block.split_once("```").unwrap();
        for line in block.lines().map(str::trim).filter(|line| !line.is_empty()) {
            assert!(
                real.contains(&line),
                "{line:?} of the guide is not in {}",
                path.display()
            );
        }
    }
}
