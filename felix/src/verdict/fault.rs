//! Policies that no API server would have stored, or that are too much for a node.

use margay_api::slim::{IntOrString, IpBlock, NetworkPolicy, Peer, PolicyPort};

use super::cidr::Cidr;
use super::decision::Direction;
use super::{rule, selector};

/// The most ranges that a policy's ipBlocks may come to without their excepts.
const MOST_RANGES: usize = 65_536;

/// Whether something is wrong with a policy, so that it allows nothing: a field anywhere in it that the API server would
/// refuse, or ipBlocks that come to more than 65,536 ranges in the directions that it isolates.
pub fn is_faulty(policy: &NetworkPolicy) -> bool {
    let spec = &policy.spec;
    let mut ports = spec.ingress.iter().flat_map(|rule| &rule.ports);
    let mut more_ports = spec.egress.iter().flat_map(|rule| &rule.ports);
    let mut peers = spec.ingress.iter().flat_map(|rule| &rule.from);
    let mut more_peers = spec.egress.iter().flat_map(|rule| &rule.to);
    spec.policy_types.len() > 2
        || selector::is_faulty(&spec.pod_selector)
        || ports.any(faulty_port)
        || more_ports.any(faulty_port)
        || peers.any(faulty_peer)
        || more_peers.any(faulty_peer)
        || ranges(policy) > MOST_RANGES
}

fn faulty_port(port: &PolicyPort) -> bool {
    let is_port = |number: &i32| (1..=65_535).contains(number);
    match (&port.port, &port.end_port) {
        (None, end) => end.is_some(),
        (Some(IntOrString::Int(number)), None) => !is_port(number),
        (Some(IntOrString::Int(first)), Some(last)) => !is_port(first) || !is_port(last) || last < first,
        (Some(IntOrString::String(_)), Some(_)) => true,
        (Some(IntOrString::String(name)), None) => !is_service_name(name),
    }
}

/// RFC 6335 section 5.1, in lower case.
fn is_service_name(name: &str) -> bool {
    let mut words = name.split('-');
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.len() <= 15 && words.all(is_word) && name.bytes().any(|byte| byte.is_ascii_lowercase())
}

fn faulty_peer(peer: &Peer) -> bool {
    let mut selectors = peer.pod_selector.iter().chain(&peer.namespace_selector).peekable();
    match &peer.ip_block {
        Some(block) => selectors.peek().is_some() || faulty_block(block),
        None => selectors.peek().is_none() || selectors.any(selector::is_faulty),
    }
}

fn faulty_block(block: &IpBlock) -> bool {
    let Some(whole) = Cidr::parse(&block.cidr) else {
        return true;
    };
    let may = |text: &String| Cidr::parse(text).is_some_and(|except| whole.may_except(except));
    !block.except.iter().all(may)
}

/// How many prefixes the policy's blocks come to, each block counted by itself.
fn ranges(policy: &NetworkPolicy) -> usize {
    let directions = [Direction::Ingress, Direction::Egress].into_iter();
    let rules = directions
        .filter(|direction| rule::isolates(policy, *direction))
        .flat_map(|direction| rule::rules(policy, direction));
    let blocks = rules.flat_map(|rule| rule.peers.iter().filter_map(|peer| peer.ip_block.as_ref()));
    blocks.map(ranges_of).sum()
}

/// How many prefixes it takes to write down a block without its excepts: the gaps between these, in order, each filled
/// from its lower end with the largest prefixes that fit.
fn ranges_of(block: &IpBlock) -> usize {
    let Some(whole) = Cidr::parse(&block.cidr) else {
        return 0;
    };
    let excepts = block.except.iter().filter_map(|text| Cidr::parse(text));
    let mut holes: Vec<(u128, u128)> = excepts.map(|except| (except.first(), except.last())).collect();
    holes.sort_unstable();
    let (mut next, mut count) = (Some(whole.first()), 0);
    for (first, last) in holes {
        let Some(start) = next else { break };
        if first > start {
            count += prefixes(start, first - 1);
        }
        next = next.max(last.checked_add(1)).filter(|_| last != u128::MAX);
    }
    match next {
        Some(start) if start <= whole.last() => count + prefixes(start, whole.last()),
        _ => count,
    }
}

/// The number of prefixes that cover exactly these addresses.
fn prefixes(mut start: u128, last: u128) -> usize {
    let mut count = 0;
    loop {
        count += 1;
        // The largest prefix that begins here and ends in time.
        let mut beyond = match start {
            0 => u128::MAX,
            _ => (1 << start.trailing_zeros()) - 1,
        };
        while beyond > last - start {
            beyond >>= 1;
        }
        match start.checked_add(beyond).and_then(|end| end.checked_add(1)) {
            Some(next) if next <= last => start = next,
            _ => return count,
        }
    }
}

#[cfg(test)]
mod tests {
    use margay_api::slim::IpBlock;

    use super::{prefixes, ranges_of};

    fn ranges(cidr: &str, except: &[&str]) -> usize {
        ranges_of(&IpBlock {
            cidr: cidr.to_owned(),
            except: except.iter().map(|text| (*text).to_owned()).collect(),
        })
    }

    #[test]
    fn prefixes_that_cover_a_range() {
        for (start, last, expected) in [
            (0, 0, 1),
            (0, 3, 1),
            (1, 3, 2),
            (1, 6, 4),
            (0, u128::MAX, 1),
            (1, u128::MAX, 128),
            (0, u128::MAX - 1, 128),
        ] {
            assert_eq!(prefixes(start, last), expected, "{start} to {last}");
        }
    }

    #[test]
    fn ranges_of_a_block_without_its_excepts() {
        for (cidr, except, expected) in [
            ("10.0.0.0/8", &[][..], 1),
            ("10.0.0.0/30", &["10.0.0.1/32"], 2),
            ("10.0.0.0/24", &["10.0.0.64/26", "10.0.0.0/25"], 1),
            ("10.0.0.0/24", &["10.0.0.128/25", "10.0.0.0/25"], 0),
            ("10.0.0.0/24", &["10.0.0.0/25", "10.0.0.0/26"], 1),
            ("0.0.0.0/0", &["10.0.0.7/32"], 32),
            ("0.0.0.0/0", &["255.255.255.255/32"], 32),
            ("::/0", &["fd00::1/128"], 128),
            ("::/0", &["8000::/1"], 1),
            ("::/0", &["::/1"], 1),
            ("10.0.0.0/16", &["::ffff:10.0.0.0/104"], 0),
        ] {
            assert_eq!(ranges(cidr, except), expected, "{cidr} {except:?}");
        }
    }
}
