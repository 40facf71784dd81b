//! Our own restart.

use super::*;
use crate::wire::{GracefulFamily, GracefulRestart};

#[test]
fn selection_waits_only_for_peers_that_will_say_when_they_are_done_rfc4724_4_1() {
    let families = |forwarding| Family::ALL.map(|family| GracefulFamily { family, forwarding }).to_vec();
    let capability = |restarted| GracefulRestart {
        restarted,
        restart_time: 120,
        families: families(true),
    };
    for (graceful, waits) in [
        (Some(capability(false)), true),
        (Some(capability(true)), false),
        (None, false),
    ] {
        let (mut rib, now) = (rib(), Instant::now());
        rib.defer_selection(Duration::from_secs(30), now);
        let a = rib.add_peer(policy(1, 65001));
        assert!(rib.is_deferring());
        let up = PeerUp {
            graceful: graceful.clone(),
            ..up(1, false)
        };
        rib.peer_up(a, up, now);
        assert_eq!(rib.is_deferring(), waits, "{graceful:?}");
    }
}
