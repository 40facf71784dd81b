//! What the rules are where attachments are not as one would expect: names under another prefix, one name twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use margay_felix::calc::{Change, EndpointPolicy, LocalEndpoint, Tier};
use margay_felix::model::{Action, Attachment, EndpointId, Protocol};
use margay_felix::render::{Builtin, Chain, ChainName, Config, Family, Renderer, Table};

use crate::interpreter::{Packet, check_loadable, walk};

fn renderer(prefix: &str) -> Renderer {
    let config = Config {
        interface_prefix: prefix.to_owned(),
        ..Config::default()
    };
    Renderer::new(config, BTreeMap::new())
}

/// An endpoint at `interface`, isolated by a policy without rules, or not at all.
fn endpoint(name: &str, interface: &str, isolated: bool) -> Change {
    let tier = Tier {
        policies: vec![],
        default_action: Action::Deny,
    };
    let tiers = if isolated { vec![tier] } else { vec![] };
    let endpoint = LocalEndpoint {
        attachment: Attachment {
            uid: name.into(),
            interface: interface.into(),
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        },
        policy: Some(EndpointPolicy {
            ingress: tiers.clone(),
            egress: tiers,
        }),
    };
    Change::EndpointUpdated(EndpointId::new("shop", name), Arc::new(endpoint))
}

/// Whether a packet between the endpoint's address and one outside passes these chains.
fn passes(renderer: &Renderer, interfaces: [Option<&str>; 2], source: &str, through: &[(Table, Builtin)]) -> bool {
    check_loadable(renderer.ruleset()).unwrap();
    let [input, output] = interfaces.map(|name| name.map(str::to_owned));
    let packet = Packet {
        source: source.parse().unwrap(),
        destination: if source.contains(':') {
            "2001:db8::1"
        } else {
            "192.0.2.1"
        }
        .parse()
        .unwrap(),
        protocol: Protocol::TCP,
        port: 80,
        input,
        output,
        from_here: false,
    };
    walk(renderer.ruleset(), &packet, through).unwrap().allowed
}

#[test]
fn an_interface_of_another_prefix_is_a_workloads() {
    let mut renderer = renderer("pod");
    renderer.apply(vec![endpoint("a", "mgy0", true), endpoint("b", "pod0", false)]);
    let forward = [(Table::Filter, Builtin::Forward)];
    let (raw, input) = ([(Table::Raw, Builtin::Prerouting)], [(Table::Filter, Builtin::Input)]);
    for own in ["10.0.0.1", "fd00::1"] {
        assert!(
            !passes(&renderer, [Some("mgy0"), Some("eth0")], own, &forward),
            "egress"
        );
        assert!(
            !passes(&renderer, [Some("eth0"), Some("mgy0")], own, &forward),
            "ingress"
        );
        assert!(passes(&renderer, [Some("pod0"), Some("eth0")], own, &forward));
        assert!(
            passes(&renderer, [Some("eth0"), Some("eth1")], own, &forward),
            "the host's own"
        );
        assert!(!passes(&renderer, [Some("mgy0"), None], own, &input));
        assert!(passes(&renderer, [Some("mgy0"), None], own, &raw));
    }
    for foreign in ["10.0.0.2", "fd00::2"] {
        assert!(
            !passes(&renderer, [Some("mgy0"), None], foreign, &raw),
            "not its own address"
        );
    }
    // The link goes after the attachment.
    renderer.apply(vec![Change::EndpointRemoved(EndpointId::new("shop", "a"))]);
    assert!(!passes(&renderer, [Some("mgy0"), Some("eth0")], "10.0.0.1", &forward));
    assert!(!passes(&renderer, [Some("eth0"), Some("mgy0")], "10.0.0.1", &forward));
}

#[test]
fn an_interface_that_two_claim_is_denied_until_one_is_left() {
    let chain = |renderer: &Renderer, direction: &str| -> Option<Chain> {
        let name = ChainName(format!("mgy-{direction}-mgy0").into());
        renderer.ruleset().chain(Family::V4, Table::Filter, &name).cloned()
    };
    let forward = [(Table::Filter, Builtin::Forward)];
    for first_isolated in [true, false] {
        let mut renderer = renderer("mgy");
        renderer.apply(vec![endpoint("a", "mgy0", first_isolated)]);
        let alone = ["tw", "fw"].map(|direction| chain(&renderer, direction));
        assert!(alone.iter().all(Option::is_some));
        renderer.apply(vec![endpoint("b", "mgy0", !first_isolated)]);
        assert!(!passes(&renderer, [Some("mgy0"), Some("eth0")], "10.0.0.1", &forward));
        assert!(!passes(&renderer, [Some("eth0"), Some("mgy0")], "10.0.0.1", &forward));
        renderer.apply(vec![Change::EndpointRemoved(EndpointId::new("shop", "b"))]);
        assert_eq!(["tw", "fw"].map(|direction| chain(&renderer, direction)), alone);
        renderer.apply(vec![endpoint("a", "mgy1", first_isolated)]);
        assert_eq!(chain(&renderer, "tw"), None);
    }
}
