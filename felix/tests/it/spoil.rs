//! Faults in policies: what an API server would refuse.

use serde_json::{Value, json};

use crate::rng::Rng;

/// Puts one fault into the spec of a valid policy, beside what stands there.
pub(crate) fn spoil(rng: &mut Rng, spec: &mut Value) {
    if rng.chance(35) {
        match rng.below(3) {
            0 => spec["policyTypes"] = json!(["Ingress", "Egress", "Ingress"]),
            1 => add(&mut spec["podSelector"], "matchExpressions", faulty_requirement(rng)),
            _ => {
                let (key, value) = *rng.pick(&[("a b", "x"), ("app", "-"), ("", "x"), ("Example.com/app", "web")]);
                spec["podSelector"]["matchLabels"][key] = json!(value);
            }
        }
        return;
    }
    let (direction, peers) = *rng.pick(&[("ingress", "from"), ("egress", "to")]);
    let (list, fault) = if rng.chance(50) {
        ("ports", faulty_port(rng))
    } else {
        (peers, faulty_peer(rng))
    };
    match spec[direction].as_array_mut() {
        Some(rules) if !rules.is_empty() && rng.chance(60) => {
            let at = rng.below(rules.len());
            add(&mut rules[at], list, fault);
        }
        _ => add(spec, direction, json!({list: [fault]})),
    }
    if rng.chance(50) {
        // A sound rule that would allow everything.
        add(spec, direction, json!({}));
    }
}

fn add(to: &mut Value, list: &str, item: Value) {
    match to[list].as_array_mut() {
        Some(items) => items.push(item),
        None => to[list] = json!([item]),
    }
}

fn faulty_port(rng: &mut Rng) -> Value {
    rng.pick(&[
        json!({"port": 70000}),
        json!({"port": 0}),
        json!({"port": -80, "protocol": "UDP"}),
        json!({"endPort": 443}),
        json!({"port": 443, "endPort": 80}),
        json!({"port": 1, "endPort": 65536}),
        json!({"port": 70000, "endPort": 80000}),
        json!({"port": "http", "endPort": 80}),
        json!({"port": ""}),
        json!({"port": "HTTP"}),
        json!({"port": "80"}),
        json!({"port": "a--b"}),
        json!({"port": "longer-than-15-c"}),
    ])
    .clone()
}

fn faulty_peer(rng: &mut Rng) -> Value {
    match rng.below(4) {
        0 => json!({"podSelector": {"matchExpressions": [faulty_requirement(rng)]}}),
        1 => json!({"namespaceSelector": {"matchExpressions": [faulty_requirement(rng)]}, "podSelector": {}}),
        2 => rng
            .pick(&[
                json!({}),
                json!({"ipBlock": {"cidr": "0.0.0.0/0"}, "podSelector": {}}),
                json!({"ipBlock": {"cidr": "0.0.0.0/0"}, "namespaceSelector": {}}),
                json!({"namespaceSelector": {"matchLabels": {"/": ""}}}),
            ])
            .clone(),
        _ => {
            let (cidr, except) = *rng.pick(&[
                ("", &[] as &[&str]),
                ("0.0.0.0", &[]),
                ("0.0.0.0/33", &[]),
                ("::/129", &[]),
                ("0.0.0.0/0", &["0.0.0.0/0"]),
                ("0.0.0.0/0", &["10.0.0.0/8", "nonsense"]),
                ("10.0.0.0/8", &["11.0.0.0/16"]),
                ("10.0.1.0/24", &["10.0.0.0/16"]),
                ("::/0", &["10.0.0.0/8"]),
                ("::ffff:10.0.0.0/104", &["10.0.1.0/24"]),
            ]);
            json!({"ipBlock": {"cidr": cidr, "except": except}})
        }
    }
}

fn faulty_requirement(rng: &mut Rng) -> Value {
    rng.pick(&[
        json!({"key": "app", "operator": "In"}),
        json!({"key": "app", "operator": "NotIn", "values": []}),
        json!({"key": "team", "operator": "Exists", "values": ["a"]}),
        json!({"key": "team", "operator": "DoesNotExist", "values": ["a"]}),
        json!({"key": "", "operator": "Exists"}),
        json!({"key": "a b", "operator": "DoesNotExist"}),
        json!({"key": "Team.io/a", "operator": "In", "values": ["a"]}),
    ])
    .clone()
}

#[test]
fn a_spoilt_policy_is_faulty_and_others_are_not() {
    use margay_felix::verdict::is_faulty;

    let stored = |spec: &Value| {
        let policy = json!({"metadata": {"namespace": "a", "name": "p"}, "spec": spec});
        serde_json::from_value::<margay_api::slim::NetworkPolicy>(policy)
            .unwrap()
            .defaulted()
    };
    for seed in crate::rng::seeds(500) {
        let mut rng = Rng::new(seed);
        let mut spec = crate::world::random_spec(&mut rng);
        assert!(!is_faulty(&stored(&spec)), "MARGAY_SEED={seed}: {spec}");
        spoil(&mut rng, &mut spec);
        assert!(is_faulty(&stored(&spec)), "MARGAY_SEED={seed}: {spec}");
    }
}
