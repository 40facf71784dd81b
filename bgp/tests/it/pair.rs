//! The session and graceful restart, between two speakers under a fake clock.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use margay_bgp::fib::{FibHop, FibRoute};
use margay_bgp::prefix::Family;
use margay_bgp::session::{ConnectionId, DownReason, Output, Session, State};
use margay_bgp::wire::{Cease, Message, Notification, Open, Options};

use crate::simulation::{Pair, Side, net, session_config};

const SECOND: Duration = Duration::from_secs(1);

fn via(addr: &str, oif: u32) -> FibRoute {
    FibRoute::Unicast(
        [FibHop {
            via: addr.parse().expect("an address"),
            oif,
        }]
        .into_iter()
        .collect(),
    )
}

fn joined() -> Pair {
    let mut pair = Pair::ebgp();
    pair.a.originate(&["10.244.1.0/26", "fd00:10:244:1::/64"]);
    pair.b.originate(&["10.244.2.0/26", "fd00:10:244:2::/64"]);
    pair.start();
    pair
}

#[test]
fn both_connect_at_once_and_one_session_carries_routes_rfc4271_6_8() {
    let pair = joined();
    assert!(pair.established());
    assert_eq!(pair.a.session.counters().established, 1);
    assert_eq!(pair.b.session.counters().established, 1);
    // The identifier of B is higher, so the connection that B made survives.
    let collisions: Vec<Side> = pair
        .sent
        .iter()
        .filter(|(_, bytes)| bytes[18] == 3 && bytes[19..21] == [6, 7])
        .map(|(side, _)| *side)
        .collect();
    assert!(
        !collisions.is_empty(),
        "two connections were made, so one must have been closed as a collision"
    );
    assert_eq!(pair.a.fib[&net("10.244.2.0/26")], via("10.0.0.2", 1));
    assert_eq!(pair.a.fib[&net("fd00:10:244:2::/64")], via("fd00::2", 1));
    assert_eq!(pair.b.fib[&net("10.244.1.0/26")], via("10.0.0.1", 2));
    assert_eq!(pair.b.fib[&net("fd00:10:244:1::/64")], via("fd00::1", 2));
}

#[test]
fn a_passive_pair_member_waits() {
    let mut a = session_config(65001, 65002, [10, 0, 0, 1]);
    a.passive = true;
    let mut pair = Pair::new(a, session_config(65002, 65001, [10, 0, 0, 2]));
    pair.start();
    assert!(pair.established());
    assert!(
        !pair.sent.iter().any(|(_, b)| b[18] == 3),
        "one connection cannot collide"
    );
}

#[test]
fn keepalives_hold_a_quiet_session() {
    let mut pair = joined();
    pair.pass(SECOND * 3600);
    assert!(pair.established() && pair.a.downs.is_empty());
    let counters = pair.a.session.counters();
    // Thirty seconds, jittered down to no less than three quarters.
    assert!(
        (120..=165).contains(&(counters.messages_in - counters.updates_in)),
        "{counters:?}"
    );
}

#[test]
fn silence_ends_the_session_when_the_hold_timer_expires() {
    let mut pair = joined();
    pair.silent = true;
    pair.pass(SECOND * 59);
    assert!(pair.established());
    pair.pass(SECOND * 32);
    assert_eq!(pair.a.downs, [DownReason::HoldTimer { seconds: 90 }]);
    assert_eq!(
        pair.a.downs[0].to_string(),
        "hold timer expired: nothing heard for 90 s"
    );
    assert!(pair.a.fib.is_empty(), "RFC 4724: a hold timer is no restart");
    pair.silent = false;
    pair.pass(SECOND * 60);
    assert!(pair.established());
    assert_eq!(pair.a.fib.len(), 2);
}

#[test]
fn a_cease_is_told_in_words_and_takes_the_routes_along() {
    let mut pair = joined();
    pair.stop(Side::B, Cease::AdministrativeShutdown);
    assert_eq!(
        pair.a.downs,
        [DownReason::Received(Cease::AdministrativeShutdown.into())]
    );
    assert_eq!(pair.b.session.state(), State::Idle);
    assert!(pair.a.fib.is_empty());
    assert_eq!(
        pair.a.downs[0].to_string(),
        "peer sent NOTIFICATION: cease/administrative shutdown (6/2)"
    );
    pair.pass(SECOND * 600);
    assert!(!pair.established(), "an idle peer refuses");
    let now = pair.now;
    pair.b.session.start(now);
    pair.pass(SECOND * 61);
    assert!(pair.established());
}

#[test]
fn the_wrong_as_is_refused_with_a_reason() {
    let mut pair = Pair::new(
        session_config(65001, 65009, [10, 0, 0, 1]),
        session_config(65002, 65001, [10, 0, 0, 2]),
    );
    pair.start();
    pair.pass(SECOND * 30);
    assert!(!pair.established());
    assert_eq!(pair.a.session.last_error(), Some(&DownReason::WrongAs(65002)));
    let told = pair.b.session.last_error().map(ToString::to_string);
    assert_eq!(
        told.as_deref(),
        Some("peer sent NOTIFICATION: OPEN error/bad peer AS (2/2) data fd ea")
    );
}

#[test]
fn refused_connections_are_retried_ever_more_slowly() {
    let mut pair = Pair::ebgp();
    pair.b.alive = false;
    pair.start();
    let mut attempts = Vec::new();
    let start = pair.now;
    while pair.now < start + SECOND * 400 {
        let before = pair.a.session.poll_timeout().expect("a retry timer");
        attempts.push((before - start).as_secs());
        let wait = before - pair.now;
        pair.pass(wait);
    }
    let gaps: Vec<u64> = attempts.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(
        attempts[0] <= 5 && gaps.windows(2).take(3).all(|w| w[0] < w[1]),
        "{gaps:?}"
    );
    assert!(gaps.iter().all(|g| *g <= 60), "{gaps:?}");
    assert_eq!(
        pair.a.session.last_error().map(ToString::to_string).as_deref(),
        Some("cannot connect: connection refused")
    );
    pair.b.alive = true;
    let now = pair.now;
    pair.b.session.start(now);
    pair.pass(SECOND * 61);
    assert!(pair.established());
}

#[test]
fn messages_out_of_turn_are_fsm_errors_rfc6608() {
    let now = std::time::Instant::now();
    let mut session = Session::new(session_config(65001, 65002, [10, 0, 0, 1]), 1, now);
    session.start(now);
    let id = ConnectionId(1);
    session.handle_connected(id, now);
    let options = Options { as4: true, ibgp: false };
    session.handle_data(id, &Message::Keepalive.encode(options), now);
    let outputs: Vec<Output> = std::iter::from_fn(|| session.poll_output()).collect();
    let expected = Message::Notification(Notification::new(5, 1, &[4])).encode(options);
    assert!(outputs.contains(&Output::Send(id, expected)), "{outputs:?}");
    assert!(outputs.contains(&Output::Close(id)));
    assert_eq!(session.state(), State::Active);
}

#[test]
fn a_session_comes_up_only_when_no_other_connection_is_on_its_way() {
    let now = std::time::Instant::now();
    let options = Options {
        as4: false,
        ibgp: false,
    };
    let open = Message::Open(Open {
        my_as: 65002,
        hold_time: 30,
        router_id: Ipv4Addr::new(10, 0, 0, 2),
        capabilities: vec![],
    });
    let said = |session: &mut Session| -> Vec<Output> { std::iter::from_fn(|| session.poll_output()).collect() };
    let confirmed = Output::Send(ConnectionId(1), Message::Keepalive.encode(options));
    // (what becomes of our own attempt, whether the peer's connection is confirmed and comes up then)
    let fails = |s: &mut Session| s.handle_connect_failed("connection refused", now);
    let opens = |s: &mut Session| {
        s.handle_connected(ConnectionId(2), now);
        assert_ne!(s.state(), State::Established);
        // Our identifier is the lower one: the connection that the peer made stays.
        s.handle_data(ConnectionId(2), &open.encode(options), now);
    };
    let hangs = |s: &mut Session| s.handle_timeout(now + SECOND * 3);
    let ends: [&dyn Fn(&mut Session); 3] = [&fails, &opens, &hangs];
    for end in ends {
        let mut session = Session::new(session_config(65001, 65002, [10, 0, 0, 1]), 1, now);
        session.start(now);
        assert_eq!(said(&mut session), [Output::Connect]);
        session.handle_incoming(ConnectionId(1), now);
        session.handle_data(ConnectionId(1), &open.encode(options), now);
        session.handle_data(ConnectionId(1), &Message::Keepalive.encode(options), now);
        assert!(
            !said(&mut session).contains(&confirmed),
            "the peer would come up and then see our attempt"
        );
        assert_eq!(session.state(), State::OpenConfirm);
        end(&mut session);
        assert!(said(&mut session).contains(&confirmed));
        assert_eq!(session.negotiated().map(|n| n.connection), Some(ConnectionId(1)));
    }
}

#[test]
fn a_mute_connection_does_not_keep_us_from_trying() {
    let now = std::time::Instant::now();
    let mut session = Session::new(session_config(65001, 65002, [10, 0, 0, 1]), 1, now);
    session.start(now);
    session.handle_connect_failed("connection refused", now);
    session.handle_incoming(ConnectionId(1), now);
    assert_eq!(session.state(), State::OpenSent);
    while session.poll_output().is_some() {}
    let later = now + SECOND * 6;
    session.handle_timeout(later);
    assert_eq!(session.poll_output(), Some(Output::Connect));
}

#[test]
fn messages_arrive_in_any_pieces() {
    let now = std::time::Instant::now();
    let mut session = Session::new(session_config(65001, 65002, [10, 0, 0, 1]), 1, now);
    session.start(now);
    let id = ConnectionId(1);
    session.handle_connected(id, now);
    let options = Options { as4: true, ibgp: false };
    let open = Message::Open(Open {
        my_as: 65002,
        hold_time: 30,
        router_id: Ipv4Addr::new(10, 0, 0, 2),
        capabilities: vec![],
    });
    let mut stream = open.encode(options).to_vec();
    stream.extend(Message::Keepalive.encode(options));
    for byte in stream {
        session.handle_data(id, &[byte], now);
    }
    assert_eq!(session.state(), State::Established);
    let negotiated = session.negotiated().expect("established");
    assert_eq!((negotiated.hold_time, negotiated.options.as4), (30, false));
    assert_eq!(negotiated.families, [Family::Ipv4]);
}

#[test]
fn a_killed_speaker_comes_back_without_a_route_moving_rfc4724() {
    let mut pair = joined();
    let (at_a, at_b) = (pair.a.fib.clone(), pair.b.fib.clone());
    pair.kill(Side::A);
    pair.pass(SECOND * 10);
    assert_eq!(pair.b.fib, at_b, "the helper keeps forwarding");
    assert_eq!(pair.b.stale(), 2);
    pair.restart(Side::A, true);
    pair.a.originate(&["10.244.1.0/26", "fd00:10:244:1::/64"]);
    let now = pair.now;
    pair.a.session.start(now);
    pair.pass(SECOND * 61);
    assert!(pair.established());
    assert_eq!((pair.a.fib.clone(), pair.b.fib.clone()), (at_a, at_b));
    assert_eq!(pair.b.stale(), 0, "End-of-RIB has cleared the marks");
    assert!(pair.a.ever_removed.is_empty() && pair.b.ever_removed.is_empty());
    assert!(!pair.a.rib.is_deferring());
}

#[test]
fn routes_that_do_not_come_back_go_at_end_of_rib() {
    let mut pair = joined();
    pair.kill(Side::A);
    pair.restart(Side::A, true);
    pair.a.originate(&["10.244.1.0/26"]);
    let now = pair.now;
    pair.a.session.start(now);
    pair.pass(SECOND * 61);
    assert_eq!(pair.b.fib.keys().copied().collect::<Vec<_>>(), [net("10.244.1.0/26")]);
    assert_eq!(pair.b.ever_removed, [net("fd00:10:244:1::/64")]);
}

#[test]
fn a_speaker_that_lost_its_forwarding_state_loses_its_routes_at_once() {
    let mut pair = joined();
    pair.kill(Side::A);
    assert_eq!(pair.b.fib.len(), 2);
    pair.restart(Side::A, false);
    let now = pair.now;
    pair.a.session.start(now);
    pair.pass(SECOND * 61);
    assert!(pair.established());
    assert!(pair.b.fib.is_empty() && pair.b.ever_removed.len() == 2);
}

#[test]
fn a_speaker_that_never_comes_back_is_forgotten_after_its_restart_time() {
    let mut pair = joined();
    pair.kill(Side::A);
    pair.pass(SECOND * 119);
    assert_eq!(pair.b.fib.len(), 2);
    pair.pass(SECOND * 2);
    assert!(pair.b.fib.is_empty());
}

#[test]
fn without_the_capability_a_death_takes_the_routes_along() {
    let mut config = session_config(65001, 65002, [10, 0, 0, 1]);
    config.restart_time = None;
    let mut pair = Pair::new(config, session_config(65002, 65001, [10, 0, 0, 2]));
    pair.a.originate(&["10.244.1.0/26"]);
    pair.start();
    assert_eq!(pair.b.fib.len(), 1);
    pair.kill(Side::A);
    assert!(pair.b.fib.is_empty());
}

#[test]
fn a_restarted_speaker_touches_nothing_before_the_deferral_timer() {
    let mut pair = joined();
    pair.kill(Side::A);
    pair.b.alive = false;
    pair.restart(Side::A, true);
    pair.a.originate(&["10.244.1.0/26"]);
    let now = pair.now;
    pair.a.session.start(now);
    pair.pass(SECOND * 29);
    assert!(pair.a.rib.is_deferring());
    assert!(pair.a.rib.poll_fib().is_none());
    pair.pass(SECOND * 2);
    assert!(!pair.a.rib.is_deferring());
}

#[test]
fn a_new_connection_replaces_an_old_session_of_a_graceful_peer_rfc4724_5() {
    let mut pair = joined();
    pair.pass(SECOND * 20);
    let before = pair.b.fib.clone();
    // A dies without its sockets telling: B still believes in the session.
    pair.restart(Side::A, true);
    pair.a.originate(&["10.244.1.0/26", "fd00:10:244:1::/64"]);
    let now = pair.now;
    pair.a.session.start(now);
    pair.pass(SECOND * 5);
    assert!(pair.established());
    assert_eq!(pair.b.downs, [DownReason::PeerRestarted]);
    assert_eq!(pair.b.fib, before);
    assert!(pair.b.ever_removed.is_empty());
}

#[test]
fn refresh_sends_everything_again_rfc2918() {
    let mut pair = joined();
    let before = pair.b.session.counters().updates_in;
    pair.b.session.request_refresh(Family::Ipv4);
    pair.settle();
    assert_eq!(pair.b.session.counters().updates_in, before + 1);
    assert_eq!(pair.b.fib.len(), 2);
}

#[test]
fn no_route_is_sent_back_or_accepted_with_our_as_in_it() {
    let pair = joined();
    let counts = pair.a.rib.counts()[&pair.a.peer].clone();
    assert_eq!((counts.received, counts.accepted, counts.advertised), (2, 2, 2));
    let peer: IpAddr = "10.0.0.2".parse().expect("an address");
    assert!(pair.a.rib.routes().iter().all(|r| r.paths.len() == 1));
    assert_eq!(
        pair.a
            .rib
            .routes()
            .iter()
            .filter(|r| r.paths[0].peer == Some(peer))
            .count(),
        2
    );
}

#[test]
fn a_peer_that_stops_reading_is_no_restart_rfc9687() {
    let mut pair = joined();
    let (id, now) = (pair.b.session.negotiated().expect("established").connection, pair.now);
    pair.b.session.handle_stalled(id, now);
    pair.settle();
    assert_eq!(pair.b.downs, [DownReason::SendHoldTimer]);
    assert!(pair.b.fib.is_empty());
}

#[test]
fn only_the_same_router_takes_a_session_over() {
    let mut pair = joined();
    pair.pass(SECOND * 20);
    let before = pair.b.fib.clone();
    let (id, now) = (ConnectionId(99), pair.now);
    pair.b.session.handle_incoming(id, now);
    let open = Message::Open(Open {
        my_as: 65001,
        hold_time: 90,
        router_id: Ipv4Addr::new(10, 0, 0, 66),
        capabilities: vec![],
    });
    let options = Options {
        as4: false,
        ibgp: false,
    };
    pair.b.session.handle_data(id, &open.encode(options), now);
    pair.settle();
    assert!(pair.established() && pair.b.downs.is_empty());
    assert_eq!(pair.b.fib, before);
}

#[test]
fn settings_of_the_next_open_end_no_session_and_others_end_it_so_that_routes_stay() {
    for restart_time in [Some(120), None] {
        let mut config = session_config(65001, 65002, [10, 0, 0, 1]);
        config.restart_time = restart_time;
        let mut pair = Pair::new(config.clone(), session_config(65002, 65001, [10, 0, 0, 2]));
        pair.a.originate(&["10.244.1.0/26"]);
        pair.start();
        let now = pair.now;
        config.hold_time = 60;
        pair.a.session.reconfigure(config.clone(), false, now);
        pair.settle();
        assert!(pair.established() && pair.a.downs.is_empty());
        config.families = vec![Family::Ipv4];
        pair.a.session.reconfigure(config, false, now);
        pair.settle();
        let cease = Cease::OtherConfigurationChange;
        assert_eq!(pair.a.downs, [DownReason::Stopped(cease)]);
        let told = pair.b.downs == [DownReason::Received(cease.into())];
        assert_eq!(told, restart_time.is_none(), "{:?}", pair.b.downs);
        pair.pass(SECOND * 61);
        assert!(pair.established());
        assert_eq!(pair.a.session.negotiated().map(|n| n.hold_time), Some(60));
        assert_eq!(pair.b.ever_removed.is_empty(), restart_time.is_some());
        assert_eq!(pair.b.fib.len(), 1);
    }
}

#[test]
fn a_confirmation_that_waits_keeps_the_hold_timer_going() {
    let (now, options) = (
        std::time::Instant::now(),
        Options {
            as4: false,
            ibgp: false,
        },
    );
    let mut config = session_config(65001, 65002, [10, 0, 0, 1]);
    config.hold_time = 3;
    let mut session = Session::new(config, 1, now);
    session.start(now);
    session.handle_incoming(ConnectionId(1), now);
    let open = Message::Open(Open {
        my_as: 65002,
        hold_time: 3,
        router_id: Ipv4Addr::new(10, 0, 0, 2),
        capabilities: vec![],
    });
    session.handle_data(ConnectionId(1), &open.encode(options), now);
    let later = now + SECOND;
    session.handle_data(ConnectionId(1), &Message::Keepalive.encode(options), later);
    // Our own attempt to connect hangs.
    session.handle_timeout(now + SECOND * 3);
    assert_eq!(session.state(), State::Established, "{:?}", session.last_error());
}
