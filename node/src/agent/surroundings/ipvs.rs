//! Whether kube-proxy balances by IPVS, which forwards past the chains in which policy is.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::super::findings::{Finding, Findings};
use crate::persist::aside;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(10);

/// The link on which kube-proxy keeps the addresses of Services in this mode.
const LINK: &str = "kube-ipvs0";

/// Looks from time to time, for ever.
pub(super) async fn watch(findings: Findings) {
    loop {
        let read = || (read("/proc/net/dev"), read("/proc/net/ip_vs"));
        let (links, services) = aside(read).await;
        findings.set("ipvs", finding(&links, &services));
        tokio::time::sleep(INTERVAL).await;
    }
}

/// What the kernel says; nothing where it does not have the file, as without IPVS.
fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::debug!(%error, path = %path.display(), "not read");
            }
            String::new()
        }
    }
}

/// From `/proc/net/dev` and `/proc/net/ip_vs`. That IPVS is loaded is nothing: only with services it forwards.
fn finding(links: &str, services: &str) -> Option<Finding> {
    let mut links = links.lines().filter_map(|line| line.split_once(':'));
    let link = links.any(|(name, _)| name.trim() == LINK);
    let kinds = ["TCP ", "UDP ", "SCTP ", "FWM "];
    let balanced = services
        .lines()
        .filter(|line| kinds.iter().any(|kind| line.starts_with(kind)))
        .count();
    let seen = match (link, balanced) {
        (false, 0) => return None,
        (true, 0) => format!("the link {LINK} is there"),
        (_, balanced) => format!("/proc/net/ip_vs lists services ({balanced})"),
    };
    Some(Finding {
        reason: "IPVSNotSupported",
        message: format!(
            "{seen}: kube-proxy in IPVS mode is not supported, as packets to Services do not pass the chains in which others \
             refuse and accept them; set `mode: iptables` or `mode: nftables` in kube-proxy's configuration, run \
             `kube-proxy --cleanup` on the node and restart kube-proxy"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINKS: &str = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets\n    \
                         lo:   84 1 0 0\n  eth0: 1 1 0 0\n";
    const LOADED: &str = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> \
                          RemoteAddress:Port Forward Weight ActiveConn InActConn\n";

    #[test]
    fn a_node_without_ipvs_is_fine() {
        assert_eq!(finding(LINKS, ""), None);
        assert_eq!(finding(LINKS, LOADED), None, "loaded and not used");
    }

    #[test]
    fn kube_proxys_link_tells() {
        let links = format!("{LINKS}kube-ipvs0: 0 0 0 0\n");
        let found = finding(&links, LOADED).unwrap();
        assert_eq!(found.reason, "IPVSNotSupported");
        assert!(
            found
                .message
                .starts_with("the link kube-ipvs0 is there: kube-proxy in IPVS mode is not supported")
        );
        assert_eq!(finding(&links.replace("kube-ipvs0", "kube-ipvs01"), ""), None);
    }

    #[test]
    fn balanced_services_tell() {
        let services = format!(
            "{LOADED}TCP  0A600001:01BB rr \n  -> 0A0A0001:1920      Masq    1      0          0         \n\
             UDP  [fd00:0000:0000:0000:0000:0000:0000:000a]:0035 rr\n"
        );
        let found = finding(LINKS, &services).unwrap();
        assert!(found.message.starts_with("/proc/net/ip_vs lists services (2): "));
    }
}
