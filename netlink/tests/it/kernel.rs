//! What the tests share.

use margay_netlink::{Connection, IpNetwork, Link, Netns, Op, VethSpec};

/// A namespace of the test's own, or `None`, said aloud, where that is not allowed. In CI that is a failure.
pub(crate) fn private(test: &str) -> Option<Netns> {
    match Netns::create() {
        Ok(netns) => Some(netns),
        Err(error) if std::env::var_os("CI").is_some() => panic!("{test}: {error}"),
        Err(error) => {
            println!("SKIPPED {test}: needs root: {error}");
            None
        }
    }
}

/// Two namespaces with a veth between them, both ends up and addressed: 10.0.0.1 and .2, fd00::1 and ::2.
pub(crate) struct Pair {
    pub(crate) here: Netns,
    pub(crate) there: Netns,
    pub(crate) near: Link,
}

impl Pair {
    pub(crate) fn new(test: &str) -> Option<Self> {
        let (here, there) = (private(test)?, private(test)?);
        let mut connection = Connection::open_in(&here).expect("connects");
        let spec = VethSpec {
            name: "near",
            peer_name: "far",
            peer_netns: Some(&there),
            ..VethSpec::default()
        };
        let near = connection.create_veth(&spec).expect("makes a veth");
        // In this order the near end has carrier from the start; else the kernel may take a second to notice.
        address(&there, "far", &["10.0.0.2/24", "fd00::2/64"]);
        address(&here, "near", &["10.0.0.1/24", "fd00::1/64"]);
        Some(Self { here, there, near })
    }
}

pub(crate) fn address(netns: &Netns, link: &str, networks: &[&str]) {
    let mut connection = Connection::open_in(netns).expect("connects");
    let link = connection.link_by_name(link).expect("exists").index;
    let addrs = networks
        .iter()
        .map(|text| Op::AddAddr(margay_netlink::Addr::new(link, net(text)).nodad()));
    let ops: Vec<Op> = std::iter::once(Op::SetUp(link, true)).chain(addrs).collect();
    connection.apply_all(&ops).expect("adds addresses");
}

pub(crate) fn net(text: &str) -> IpNetwork {
    text.parse().expect("a network")
}
