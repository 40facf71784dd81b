//! Sidecars: init containers that run as long as their pod.

use super::{LIMIT, PodLab, wait};
use margay_testkit::needs;

/// `served` has a sidecar that its init container and its container use, to the end; `job` one that ends with its work.
const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: served, namespace: default}
spec:
  terminationGracePeriodSeconds: 20
  initContainers:
    - name: side
      image: agnhost
      restartPolicy: Always
      args: [netexec, --http-port=82, --udp-port=-1]
      startupProbe: {tcpSocket: {port: 82}, periodSeconds: 1}
    - {name: ask, image: busybox, command: [perl, -MIO::Socket::INET, -e, 'exit !IO::Socket::INET->new("127.0.0.1:82")']}
  containers:
    - name: main
      image: busybox
      command:
        - perl
        - -MIO::Socket::INET
        - -e
        - |
          $SIG{TERM} = sub {
            sleep 2; # Whoever else is told to end now is gone after this.
            open(my $told, ">", "/root/told") or die;
            print $told IO::Socket::INET->new("127.0.0.1:82") ? "served" : "alone";
            close $told;
            exit 0;
          };
          sleep 1 while 1;
---
apiVersion: v1
kind: Pod
metadata: {name: job, namespace: default}
spec:
  restartPolicy: Never
  initContainers:
    - {name: side, image: agnhost, restartPolicy: Always, args: [netexec, --http-port=83, --udp-port=-1]}
  containers: [{name: main, image: busybox, command: ['true']}]
"#;

#[test]
fn sidecars_run_from_their_turn_to_the_pods_end() {
    let test = "sidecars_run_from_their_turn_to_the_pods_end";
    if !needs::root_and(test, &["/usr/bin/perl", "/usr/bin/nsenter"]) {
        return;
    }
    let pods = PodLab::up();
    pods.apply(PODS);
    pods.wait_ready("served");
    let side = || pods.pod("served")["status"]["initContainerStatuses"][0].clone();
    assert!(
        side()["state"]["running"].is_object() && side()["started"] == true,
        "{}",
        side()
    );
    let asked = &pods.pod("served")["status"]["initContainerStatuses"][1];
    assert_eq!(
        (&asked["state"]["terminated"]["exitCode"], &asked["restartCount"]),
        (&0.into(), &0.into()),
        "{asked}"
    );

    wait("the job has succeeded and its sidecar ended", LIMIT, || {
        let status = pods.pod("job")["status"].clone();
        let ended = status["initContainerStatuses"][0]["state"]["terminated"].is_object();
        if status["phase"] == "Succeeded" && ended {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });

    // One that ends comes back, and what it serves is not restarted.
    let kill = [
        "exec",
        "-t",
        &pods.lab.file,
        "--pod",
        "default/served",
        "-c",
        "side",
        "--",
        "sh",
        "-c",
        "kill -9 2",
    ];
    // The container's end takes the command that brought it about along.
    pods.command(&kill).status().unwrap();
    wait("the sidecar is restarted", LIMIT, || {
        let side = side();
        if side["restartCount"] == 1 && side["ready"] == true {
            Ok(())
        } else {
            Err(side.to_string())
        }
    });
    assert_eq!(pods.pod("served")["status"]["containerStatuses"][0]["restartCount"], 0);

    pods.kubectl(&["delete", "pod", "served", "--timeout=60s"]).unwrap();
    let told = pods.run(&["exec", "-t", &pods.lab.file, "n1", "--", "cat", "/root/told"]);
    assert_eq!(told, "served", "the sidecar ends after what it serves");
}
