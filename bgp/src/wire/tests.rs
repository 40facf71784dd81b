//! Literal bytes in both directions, the reactions of RFC 7606, and random round trips.

use std::net::IpAddr;

use bytes::BytesMut;
use ipnetwork::IpNetwork;
use proptest::prelude::*;

use super::*;
use crate::prefix::truncate;

const AS4: Options = Options { as4: true, ibgp: false };
const AS2: Options = Options {
    as4: false,
    ibgp: false,
};
const IBGP: Options = Options { as4: true, ibgp: true };

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap())
        .collect()
}

/// A whole message from its type and body.
fn message(kind: &str, body: &str) -> Vec<u8> {
    let body = hex(body);
    let mut out = vec![0xff; 16];
    out.extend(((body.len() + 19) as u16).to_be_bytes());
    out.extend(hex(kind));
    out.extend(body);
    out
}

fn read(bytes: &[u8], options: Options) -> Result<Message, Notification> {
    let mut buf = BytesMut::from(bytes);
    let (kind, body) = frame(&mut buf)?.expect("a whole message");
    assert!(buf.is_empty());
    Message::decode(kind, &body, options)
}

fn net(s: &str) -> IpNetwork {
    s.parse().unwrap()
}

fn update(bytes: &[u8], options: Options) -> Update {
    match read(bytes, options) {
        Ok(Message::Update(update)) => *update,
        other => panic!("expected an UPDATE, got {other:?}"),
    }
}

#[track_caller]
fn both_ways(bytes: &[u8], expected: &Message, options: Options) {
    assert_eq!(read(bytes, options).as_ref(), Ok(expected));
    assert_eq!(expected.encode(options).as_ref(), bytes);
}

#[test]
fn keepalive() {
    both_ways(&message("04", ""), &Message::Keepalive, AS4);
}

#[test]
fn open_with_capabilities() {
    let open = Open {
        my_as: AS_TRANS,
        hold_time: 90,
        router_id: [10, 0, 0, 1].into(),
        capabilities: vec![
            Capability::Multiprotocol(Family::Ipv4),
            Capability::Multiprotocol(Family::Ipv6),
            Capability::RouteRefresh,
            Capability::GracefulRestart(GracefulRestart {
                restarted: true,
                restart_time: 120,
                families: vec![
                    GracefulFamily {
                        family: Family::Ipv4,
                        forwarding: true,
                    },
                    GracefulFamily {
                        family: Family::Ipv6,
                        forwarding: false,
                    },
                ],
            }),
            Capability::FourOctetAs(4_200_000_001),
            Capability::Other {
                code: 70,
                value: vec![],
            },
        ],
    };
    assert_eq!(open.asn(), 4_200_000_001);
    both_ways(
        &message(
            "01",
            "04 5ba0 005a 0a000001 24
             02 22 0104 0001 0001  0104 0002 0001  0200  400a 8078 00010180 00020100  4104 fa56ea01  4600",
        ),
        &Message::Open(open),
        AS4,
    );
}

#[test]
fn open_from_an_old_speaker() {
    let Ok(Message::Open(open)) = read(&message("01", "04 fde8 00b4 c0000201 00"), AS4) else {
        panic!()
    };
    assert_eq!(
        (open.asn(), open.families(), open.as4()),
        (65000, vec![Family::Ipv4], false)
    );
}

#[test]
fn open_with_extended_parameters_rfc9072() {
    let got = read(
        &message("01", "04 fde8 00b4 c0000201 ff ff 0009 02 0006 0104 0001 0001"),
        AS4,
    );
    let Ok(Message::Open(open)) = got else {
        panic!("{got:?}")
    };
    assert_eq!(open.capabilities, [Capability::Multiprotocol(Family::Ipv4)]);
    assert!(
        read(
            &message("01", "04 fde8 00b4 c0000201 ff ff 0007 02 0004 0104 0001 0001"),
            AS4
        )
        .is_err()
    );
}

#[test]
fn bad_opens_are_answered_by_subcode() {
    let cases = [
        ("03 fde8 00b4 c0000201 00", 1),
        ("04 fde8 0002 c0000201 00", 6),
        ("04 fde8 00b4 00000000 00", 3),
        ("04 fde8 00b4 c0000201 02 0100", 4),
        ("04 fde8 00b4 c0000201 04 0202 4104", 0),
        ("04 fde8 00b4 c0000201 09 0202", 0),
    ];
    for (body, subcode) in cases {
        let notification = read(&message("01", body), AS4).unwrap_err();
        assert_eq!((notification.code, notification.subcode), (2, subcode), "{body}");
    }
}

#[test]
fn notification_and_its_words() {
    let expected = Notification::new(6, 2, b"\x05later");
    both_ways(
        &message("03", "06 02 05 6c61746572"),
        &Message::Notification(expected.clone()),
        AS4,
    );
    assert_eq!(expected.to_string(), "cease/administrative shutdown (6/2) \"later\"");
    assert_eq!(
        Notification::open(2, &[0xfd, 0xe8]).to_string(),
        "OPEN error/bad peer AS (2/2) data fd e8"
    );
}

#[test]
fn route_refresh() {
    both_ways(
        &message("05", "0002 00 01"),
        &Message::RouteRefresh(Some(Family::Ipv6)),
        AS4,
    );
    assert_eq!(read(&message("05", "0019 00 41"), AS4), Ok(Message::RouteRefresh(None)));
}

#[test]
fn headers_that_lie() {
    let code = |bytes: &[u8]| {
        let n = frame(&mut BytesMut::from(bytes)).unwrap_err();
        (n.code, n.subcode, n.data)
    };
    assert_eq!(code(&[0xff, 0xff, 0x00]), (1, 1, vec![]));
    let mut short = message("04", "");
    short[17] = 18;
    assert_eq!(code(&short), (1, 2, vec![0, 18]));
    let mut unknown = message("04", "");
    unknown[18] = 9;
    assert_eq!(code(&unknown), (1, 3, vec![9]));
    assert_eq!(frame(&mut BytesMut::from(&message("04", "")[..18])), Ok(None));
}

fn ipv4_announcement() -> (Vec<u8>, Update) {
    let bytes = message(
        "02",
        "0004 18 0a0901
         005b
         400101 00
         40020e 0203 0000fde9 0000fdea 0000fdeb
         400304 0a010101
         800404 00000032
         400600
         c00708 0000fdeb 0a000003
         c00808 fde90064 ffffff01
         c01008 0002fde900000064
         c0200c 0000fde9 00000001 00000002
         e06302 beef
         18 0ac001  00",
    );
    let update = Update {
        withdrawn: vec![net("10.9.1.0/24")],
        attributes: Some(PathAttributes {
            origin: Origin::Igp,
            as_path: AsPath::sequence(&[65001, 65002, 65003]),
            med: Some(50),
            local_pref: None,
            atomic_aggregate: true,
            aggregator: Some(Aggregator {
                asn: 65003,
                router_id: [10, 0, 0, 3].into(),
            }),
            communities: vec!["65001:100".parse().unwrap(), Community::NO_EXPORT],
            originator_id: None,
            cluster_list: vec![],
            ext_communities: vec![[0, 2, 0xfd, 0xe9, 0, 0, 0, 0x64]],
            large_communities: vec![LargeCommunity([65001, 1, 2])],
            partial: Vec::new(),
            unknown: vec![UnknownAttribute {
                flags: 0xe0,
                code: 0x63,
                value: vec![0xbe, 0xef],
            }],
        }),
        next_hop: Some([10, 1, 1, 1].into()),
        nlri: vec![net("10.192.1.0/24"), net("0.0.0.0/0")],
        ..Update::default()
    };
    (bytes, update)
}

#[test]
fn update_with_every_attribute() {
    let (bytes, expected) = ipv4_announcement();
    both_ways(&bytes, &Message::from(expected), AS4);
}

#[test]
fn update_inside_the_as() {
    let bytes = message(
        "02",
        "0000 0027 400101 02 400200 400304 0a010101 400504 00000064 800904 0a000009 800a08 0a000007 0a000008 20 0a000001",
    );
    let update = Update {
        attributes: Some(PathAttributes {
            origin: Origin::Incomplete,
            local_pref: Some(100),
            originator_id: Some([10, 0, 0, 9].into()),
            cluster_list: vec![[10, 0, 0, 7].into(), [10, 0, 0, 8].into()],
            ..PathAttributes::default()
        }),
        next_hop: Some([10, 1, 1, 1].into()),
        nlri: vec![net("10.0.0.1/32")],
        ..Update::default()
    };
    both_ways(&bytes, &Message::from(update), IBGP);
}

#[test]
fn ipv6_reach_with_link_local_and_unreach() {
    let bytes = message(
        "02",
        "0000 004c
         800e 2f 0002 01 20 fd000000000000000000000000000001 fe800000000000000000000000000001 00
              40 fd00001002440000  00
         800f 0a 0002 01 30 fd0000990000
         400101 00 400206 0201 0000fde9",
    );
    let update = Update {
        attributes: Some(PathAttributes {
            origin: Origin::Igp,
            as_path: AsPath::sequence(&[65001]),
            ..PathAttributes::default()
        }),
        mp_reach: Some(MpReach {
            family: Family::Ipv6,
            next_hop: NextHop {
                addr: "fd00::1".parse().unwrap(),
                link_local: Some("fe80::1".parse().unwrap()),
            },
            nlri: vec![net("fd00:10:244::/64"), net("::/0")],
        }),
        mp_unreach: Some(MpUnreach {
            family: Family::Ipv6,
            nlri: vec![net("fd00:99::/48")],
        }),
        ..Update::default()
    };
    both_ways(&bytes, &Message::from(update), AS4);
}

#[test]
fn end_of_rib_markers_rfc4724() {
    both_ways(
        &message("02", "0000 0000"),
        &Message::from(Update::marker(Family::Ipv4)),
        AS4,
    );
    both_ways(
        &message("02", "0000 0006 800f03 000201"),
        &Message::from(Update::marker(Family::Ipv6)),
        AS4,
    );
    assert_eq!(Update::marker(Family::Ipv4).end_of_rib(), Some(Family::Ipv4));
    assert_eq!(Update::marker(Family::Ipv6).end_of_rib(), Some(Family::Ipv6));
    // The marker of a family we do not carry is not ours.
    assert_eq!(
        update(&message("02", "0000 0006 800f03 001941"), AS4).end_of_rib(),
        None
    );
    assert_eq!(ipv4_announcement().1.end_of_rib(), None);
}

#[test]
fn four_octet_numbers_behind_an_old_speaker_rfc6793() {
    let update = Update {
        attributes: Some(PathAttributes {
            origin: Origin::Igp,
            as_path: AsPath::sequence(&[65001, 4_200_000_001]),
            aggregator: Some(Aggregator {
                asn: 4_200_000_001,
                router_id: [10, 0, 0, 3].into(),
            }),
            ..PathAttributes::default()
        }),
        next_hop: Some([10, 1, 1, 1].into()),
        nlri: vec![net("10.0.0.0/8")],
        ..Update::default()
    };
    both_ways(
        &message(
            "02",
            "0000 0035 400101 00 400206 0202 fde9 5ba0 400304 0a010101 c00706 5ba0 0a000003
             c0110a 0202 0000fde9 fa56ea01 c01208 fa56ea01 0a000003
             08 0a",
        ),
        &Message::from(update),
        AS2,
    );
    // The old speaker put itself in front without touching AS4_PATH.
    let merged = super::tests::update(
        &message(
            "02",
            "0000 0023 400101 00 400208 0203 fdea fde9 5ba0 400304 0a010101 c0110a 0202 0000fde9 fa56ea01 08 0a",
        ),
        AS2,
    );
    assert_eq!(merged.attributes.unwrap().as_path.to_string(), "65002 65001 4200000001");
}

#[test]
fn malformed_attributes_withdraw_the_routes_rfc7606() {
    let base = "400101 00 400206 0201 0000fde9 400304 0a010101";
    // (attributes, faulty attribute, routes withdrawn)
    let cases: &[(String, u8, bool)] = &[
        ("400101 07 400206 0201 0000fde9 400304 0a010101".into(), 1, true),
        ("400101 00 400206 0202 0000fde9 400304 0a010101".into(), 2, true),
        ("400101 00 400206 0901 0000fde9 400304 0a010101".into(), 2, true),
        ("400101 00 400206 0201 0000fde9 400303 0a0101".into(), 3, true),
        ("400101 00 400206 0201 0000fde9 400304 00000000".into(), 3, true),
        ("400101 00 400206 0201 0000fde9".into(), 3, true),
        ("400101 00 400304 0a010101".into(), 2, true),
        ("c00101 00 400206 0201 0000fde9 400304 0a010101".into(), 1, true),
        (format!("{base} 800403 000000"), 4, true),
        (format!("{base} 400504 00000064"), 5, false),
        (format!("{base} 400601 00"), 6, false),
        (format!("{base} c00707 00000000000000"), 7, false),
        (format!("{base} c00803 000000"), 8, true),
        (format!("{base} c00800"), 8, true),
        (format!("{base} 800904 0a000001"), 9, false),
        (format!("{base} c01007 00000000000000"), 16, true),
        (format!("{base} c01106 0201 0000fde9"), 17, false),
        // AS 0, and the inside of a confederation that we are not in.
        ("400101 00 400206 0201 00000000 400304 0a010101".into(), 2, true),
        ("400101 00 400206 0301 0000fde9 400304 0a010101".into(), 2, true),
        ("400101 00 400206 0401 0000fde9 400304 0a010101".into(), 2, true),
        (format!("{base} c00708 00000000 0a000003"), 7, false),
        (format!("c00f03 000201 {base}"), 15, true),
        (format!("{base} c0200b 0000000000000000000000"), 32, true),
        (format!("{base} 400101 01"), 1, false),
        (format!("{base} c008ff 00"), 0, true),
    ];
    for (attributes, code, withdrawn) in cases {
        let len = hex(attributes).len();
        let body = format!("0000 {len:04x} {attributes} 18 0a0101");
        let got = update(&message("02", &body), AS4);
        assert_eq!(
            got.faults.iter().map(|f| (f.code, f.withdrawn)).collect::<Vec<_>>(),
            [(*code, *withdrawn)],
            "{attributes}"
        );
        if *withdrawn {
            assert_eq!(
                (got.withdrawn, got.nlri, got.attributes),
                (vec![net("10.1.1.0/24")], vec![], None),
                "{attributes}"
            );
        } else {
            assert_eq!(
                (got.nlri, got.withdrawn),
                (vec![net("10.1.1.0/24")], vec![]),
                "{attributes}"
            );
        }
    }
}

#[test]
fn routes_with_the_wrong_flags_are_withdrawn_rfc7606_3c() {
    let reach = "c00e18 0002 01 10 fd000000000000000000000000000001 00 10fd00";
    let body = format!("0000 0028 {reach} 400101 00 400206 0201 0000fde9");
    let got = update(&message("02", &body), AS4);
    assert_eq!(
        got.faults.iter().map(|f| (f.code, f.withdrawn)).collect::<Vec<_>>(),
        [(14, true)]
    );
    assert_eq!((got.mp_reach, got.attributes), (None, None));
    assert_eq!(got.mp_unreach.map(|u| u.nlri), Some(vec![net("fd00::/16")]));
}

#[test]
fn the_partial_bit_stays_rfc4271_5() {
    let bytes = message(
        "02",
        "0000 001b 400101 00 400206 0201 0000fde9 400304 0a010101 e00804 fde80001 08 0a",
    );
    let got = update(&bytes, AS4);
    assert_eq!(Message::from(got).encode(AS4).as_ref(), bytes);
}

#[test]
fn what_cannot_be_parsed_resets_the_session_rfc7606() {
    let cases = [
        ("0005 18 0a0901 0000", 1),
        ("0000 0001", 1),
        ("0000 0000 21 0a000000", 10),
        ("0002 18 0a 0000", 10),
        ("0000 0004 4063 01 00", 2),
        (
            "0000 0006 800f03 000201 800f03 000201".replace("0006", "000c").leak(),
            1,
        ),
        ("0000 000a 800e 07 0002 01 10 fd0000", 9),
        ("0000 0007 800f 04 0002 01 81", 9),
        // The attributes end in the midst of one, and no route is in sight.
        ("0000 0005 4001ff 00 00", 1),
    ];
    for (body, subcode) in cases {
        let notification = read(&message("02", body), AS4).unwrap_err();
        assert_eq!((notification.code, notification.subcode), (3, subcode), "{body}");
    }
}

#[test]
fn many_prefixes_are_packed_into_full_messages() {
    let (_, template) = ipv4_announcement();
    let attributes = template.attributes.unwrap();
    let prefixes: Vec<IpNetwork> = (0u32..3000)
        .map(|i| truncate(IpAddr::from((0x0a00_0000 + (i << 8)).to_be_bytes()), 24))
        .collect();
    let next_hop = NextHop::from(IpAddr::from([10, 1, 1, 1]));
    let messages = update::pack_announce(&attributes, next_hop, Family::Ipv4, &prefixes, AS4).unwrap();
    assert_eq!(messages.len(), 4);
    assert!(messages.iter().all(|m| m.len() <= MAX_LEN));
    let got: Vec<IpNetwork> = messages
        .iter()
        .flat_map(|m| super::tests::update(m, AS4).nlri)
        .collect();
    assert_eq!(got, prefixes);

    let v6: Vec<IpNetwork> = (0u16..1000)
        .map(|i| truncate(IpAddr::from([0xfd00, i, 0, 0, 0, 0, 0, 0]), 64))
        .collect();
    let withdrawals = update::pack_withdraw(Family::Ipv6, &v6, AS4);
    assert!(withdrawals.len() == 3 && withdrawals.iter().all(|m| m.len() <= MAX_LEN));
    let got: Vec<IpNetwork> = withdrawals
        .iter()
        .flat_map(|m| super::tests::update(m, AS4).mp_unreach.unwrap().nlri)
        .collect();
    assert_eq!(got, v6);

    let huge = PathAttributes {
        communities: (0..1100).map(Community).collect(),
        ..attributes
    };
    assert_eq!(
        update::pack_announce(&huge, next_hop, Family::Ipv4, &prefixes, AS4),
        None
    );
}

fn any_prefix(family: Family) -> BoxedStrategy<IpNetwork> {
    match family {
        Family::Ipv4 => (any::<[u8; 4]>(), 0u8..=32)
            .prop_map(|(a, l)| truncate(a.into(), l))
            .boxed(),
        Family::Ipv6 => (any::<[u8; 16]>(), 0u8..=128)
            .prop_map(|(a, l)| truncate(a.into(), l))
            .boxed(),
    }
}

fn any_path() -> impl Strategy<Value = AsPath> {
    let asns = prop::collection::vec(1u32.., 1..6);
    let segment = prop_oneof![asns.clone().prop_map(Segment::Sequence), asns.prop_map(Segment::Set),];
    prop::collection::vec(segment, 0..4).prop_map(AsPath)
}

fn any_attributes() -> impl Strategy<Value = PathAttributes> {
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let id = any::<[u8; 4]>().prop_map(std::net::Ipv4Addr::from);
    let unknown =
        (any::<bool>(), 100u8..250, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(_, code, value)| {
            UnknownAttribute {
                flags: 0xe0,
                code,
                value,
            }
        });
    (
        (
            origin,
            any_path(),
            any::<Option<u32>>(),
            any::<Option<u32>>(),
            any::<bool>(),
        ),
        (
            prop::option::of((1u32.., id.clone()).prop_map(|(asn, router_id)| Aggregator { asn, router_id })),
            prop::collection::vec(any::<u32>().prop_map(Community), 0..80),
            prop::option::of(id.clone()),
            prop::collection::vec(id, 0..4),
            prop::collection::vec(any::<[u8; 8]>(), 0..4),
            prop::collection::vec(any::<[u32; 3]>().prop_map(LargeCommunity), 0..4),
            prop::option::of(unknown),
        ),
    )
        .prop_map(|((origin, as_path, med, local_pref, atomic_aggregate), rest)| {
            let (aggregator, communities, originator_id, cluster_list, ext_communities, large_communities, unknown) =
                rest;
            PathAttributes {
                origin,
                as_path,
                med,
                local_pref,
                atomic_aggregate,
                aggregator,
                communities,
                originator_id,
                cluster_list,
                ext_communities,
                large_communities,
                partial: Vec::new(),
                unknown: unknown.into_iter().collect(),
            }
        })
}

fn any_update() -> impl Strategy<Value = Update> {
    let v4 = || prop::collection::vec(any_prefix(Family::Ipv4), 0..20);
    let v6 = || prop::collection::vec(any_prefix(Family::Ipv6), 0..20);
    let hop = (any::<[u8; 16]>(), any::<bool>()).prop_map(|(addr, both)| NextHop {
        addr: IpAddr::from(addr),
        link_local: both.then(|| "fe80::77".parse().unwrap()),
    });
    (
        v4(),
        v4(),
        prop::option::of((hop, v6())),
        prop::option::of(v6()),
        any_attributes(),
    )
        .prop_map(|(withdrawn, nlri, reach, unreach, attributes)| {
            let announces = !nlri.is_empty() || reach.is_some();
            Update {
                withdrawn,
                attributes: announces.then_some(attributes),
                next_hop: (!nlri.is_empty()).then_some([192, 0, 2, 1].into()),
                nlri,
                mp_reach: reach.map(|(next_hop, nlri)| MpReach {
                    family: Family::Ipv6,
                    next_hop,
                    nlri,
                }),
                mp_unreach: unreach.map(|nlri| MpUnreach {
                    family: Family::Ipv6,
                    nlri,
                }),
                faults: vec![],
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn updates_survive_the_round_trip(update in any_update()) {
        let bytes = Message::from(update.clone()).encode(IBGP);
        prop_assume!(bytes.len() <= MAX_LEN);
        // An unspecified next hop with a link-local one is read as the latter.
        prop_assume!(update.mp_reach.as_ref().is_none_or(|r| r.next_hop.addr != IpAddr::from([0u16; 8])));
        prop_assert_eq!(read(&bytes, IBGP), Ok(Message::from(update)));
    }

    #[test]
    fn two_octet_speakers_lose_no_as_number(path in prop::collection::vec(1u32.., 1..20)) {
        let attributes = PathAttributes { as_path: AsPath::sequence(&path), ..PathAttributes::default() };
        let update = Update {
            attributes: Some(attributes),
            next_hop: Some([192, 0, 2, 1].into()),
            nlri: vec![net("10.0.0.0/8")],
            ..Update::default()
        };
        let bytes = Message::from(update.clone()).encode(AS2);
        prop_assert_eq!(read(&bytes, AS2), Ok(Message::from(update)));
    }

    #[test]
    fn arbitrary_bodies_never_panic_and_what_is_read_can_be_written(
        kind in 0usize..5, body in prop::collection::vec(any::<u8>(), 0..200), as4: bool, ibgp: bool,
    ) {
        let kinds = [Kind::Open, Kind::Update, Kind::Notification, Kind::Keepalive, Kind::RouteRefresh];
        let options = Options { as4, ibgp };
        if let Ok(message) = Message::decode(kinds[kind], &body, options) {
            message.encode(options);
        }
    }
}
