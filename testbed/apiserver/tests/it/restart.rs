//! What was acknowledged survives a kill.

use serde_json::json;

use super::support::Child;

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().expect("directory");
    let maps = "/api/v1/namespaces/default/configmaps";
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let mut child = Child::start(dir.path());
        for name in &acknowledged {
            assert_eq!(
                child.client.get(&format!("{maps}/{name}")).code,
                200,
                "{name} after {round} kills"
            );
        }
        let writer = child.client.clone();
        let (sender, receiver) = std::sync::mpsc::channel();
        // Writes go on until the kill cuts one off, which ends the thread with a panic.
        let thread = std::thread::spawn(move || {
            for i in 0.. {
                let name = format!("m-{round}-{i}");
                let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
                writer.post(maps, &body).ok();
                sender.send(name).expect("receiver");
            }
        });
        acknowledged.extend(receiver.iter().take(20));
        child.kill();
        assert!(thread.join().is_err(), "the kill came while it was writing");
        acknowledged.extend(receiver.try_iter());
    }
    let child = Child::start(dir.path());
    let list = child.client.get(maps).ok();
    let kept: Vec<_> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|o| o["metadata"]["name"].as_str())
        .collect();
    assert!(acknowledged.len() >= 60);
    assert!(acknowledged.iter().all(|name| kept.contains(&name.as_str())));
    println!(
        "{} acknowledged writes, {} kept, 3 kills",
        acknowledged.len(),
        kept.len()
    );
    // The control: a name that nobody wrote is not there.
    assert_eq!(child.client.get(&format!("{maps}/never")).code, 404);
}
