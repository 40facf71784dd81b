//! Many allocators at once over the API server: no address twice, no block with two owners.

use std::{
    collections::BTreeMap,
    net::{IpAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use margay_apiserver::{Config, Server};
use margay_ipam::{
    Allocator, Attributes, Request,
    store::{Resource, Settings, Store, StoreError, Stored},
};
use margay_node::kube::{Api, client::ApiAddress, ipam_store::KubeStore};
use margay_testkit::{repository, shell::Shell};
use serde_json::{Value, json};

const WRITERS: usize = 6;
const ROUNDS: usize = 25;

/// The CRD store, with its conflicts counted. A blind one overwrites whatever is there.
#[derive(Clone)]
struct Watched {
    store: KubeStore,
    conflicts: Arc<AtomicUsize>,
    blind: bool,
}

impl Watched {
    /// What a write replaces.
    async fn replaced<R: Resource>(&self, old: &Stored<R>) -> Result<Stored<R>, StoreError> {
        let latest = if self.blind {
            self.store.get_latest(&old.name).await?
        } else {
            None
        };
        Ok(latest.unwrap_or_else(|| old.clone()))
    }

    fn counted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Conflict(_) | StoreError::AlreadyExists(_)) = &result {
            self.conflicts.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

impl Store for Watched {
    async fn get<R: Resource>(&self, name: &str) -> Result<Option<Stored<R>>, StoreError> {
        self.store.get(name).await
    }

    async fn get_latest<R: Resource>(&self, name: &str) -> Result<Option<Stored<R>>, StoreError> {
        self.store.get_latest(name).await
    }

    async fn list<R: Resource>(&self, label: Option<(&str, &str)>) -> Result<Vec<Stored<R>>, StoreError> {
        self.store.list(label).await
    }

    async fn create<R: Resource>(&self, spec: R, node: &str) -> Result<Stored<R>, StoreError> {
        self.counted(self.store.create(spec, node).await)
    }

    async fn update<R: Resource>(&self, old: &Stored<R>, spec: R) -> Result<Stored<R>, StoreError> {
        let old = self.replaced(old).await?;
        self.counted(self.store.update(&old, spec).await)
    }

    async fn delete<R: Resource>(&self, old: &Stored<R>) -> Result<(), StoreError> {
        let old = self.replaced(old).await?;
        self.counted(self.store.delete(&old).await)
    }

    async fn settings(&self, node: &str) -> Result<Settings, StoreError> {
        self.store.settings(node).await
    }

    fn now(&self) -> SystemTime {
        self.store.now()
    }
}

/// Assigns in rounds and gives every third address back. Says which address was given out twice.
async fn write(store: Watched, writer: usize, held: Arc<Mutex<BTreeMap<IpAddr, String>>>) -> Result<(), String> {
    // Three nodes with two writers each: they meet in blocks, claims and, the pool being small, in each other's blocks.
    let allocator = Allocator::new(store, format!("node{}", writer % 3));
    for round in 0..ROUNDS {
        let handle = format!("net.{writer}-{round}");
        let request = Request {
            handle: handle.clone(),
            attributes: Attributes::default(),
            v4: 1,
            ..Request::default()
        };
        let assigned = allocator.auto_assign(request).await.map_err(|e| e.to_string())?;
        let address = assigned.addresses[0].address;
        if let Some(other) = held.lock().unwrap().insert(address, handle.clone()) {
            return Err(format!("{address} was given to {handle} while {other} had it"));
        }
        if round % 3 == 0 {
            // From the release on it may be another's.
            held.lock().unwrap().remove(&address);
            allocator.release_by_handle(&handle).await.map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

/// What the API server's objects contradict, read without the code under test.
fn contradictions(shell: &Shell, held: &BTreeMap<IpAddr, String>) -> Vec<String> {
    let list = |plural: &str| -> Value {
        let text = shell.kubectl(&["get", plural, "-o", "json"]).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["items"].take()
    };
    let mut wrong = Vec::new();
    let mut holders = BTreeMap::new();
    let mut owners = BTreeMap::new();
    for block in list("ipamblocks").as_array().unwrap() {
        let spec = &block["spec"];
        let cidr = spec["cidr"].as_str().unwrap().to_owned();
        let network: ipnetwork::Ipv4Network = cidr.parse().unwrap();
        for (address, index) in network.iter().zip(spec["allocations"].as_array().unwrap()) {
            if let Some(index) = index.as_u64() {
                let handle = spec["attributes"][usize::try_from(index).unwrap()]["handle_id"].clone();
                holders.insert(IpAddr::from(address), handle);
            }
        }
        owners.insert(cidr, spec["affinity"].clone());
    }
    for (address, handle) in held {
        let holder = holders.remove(address).unwrap_or_default();
        if holder != handle.as_str() {
            wrong.push(format!("{address} was given to {handle}, its block says {holder}"));
        }
    }
    wrong.extend(
        holders
            .iter()
            .map(|(address, holder)| format!("{address} is nobody's, its block says {holder}")),
    );
    for claim in list("blockaffinities").as_array().unwrap() {
        let spec = &claim["spec"];
        let owner = json!(format!("host:{}", spec["node"].as_str().unwrap()));
        if spec["state"] == "confirmed" && owners.get(spec["cidr"].as_str().unwrap()) != Some(&owner) {
            wrong.push(format!("{claim} is confirmed, the blocks say {owners:?}"));
        }
    }
    wrong
}

/// Lets all write at once; the conflicts they had, and what went wrong.
fn run(blind: bool) -> (usize, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::start(Config::new(vec![listener], "test")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let url = format!("https://{}", server.addresses()[0]);
    std::fs::write(&kubeconfig, server.kubeconfig(&url)).unwrap();
    let shell = Shell {
        bin: PathBuf::new(),
        topology: PathBuf::new(),
        kubeconfig: Some(kubeconfig.clone()),
        labs_dir: None,
    };
    let pool = dir.path().join("pool.json");
    let object = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "small"},
        "spec": {"cidr": "10.60.0.0/25", "blockSize": 29},
    });
    std::fs::write(&pool, object.to_string()).unwrap();
    for manifest in [&repository().join("deploy/crds"), &pool] {
        shell.kubectl(&["apply", "-f", &manifest.to_string_lossy()]).unwrap();
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let conflicts = Arc::new(AtomicUsize::new(0));
    let held = Arc::new(Mutex::new(BTreeMap::new()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut wrong = runtime.block_on(async {
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let address = ApiAddress {
                kubeconfig: Some(&kubeconfig),
                server: None,
                manager: "test",
            };
            let store = Watched {
                store: KubeStore::reading_settings(Api::connect(&address).await.unwrap()),
                conflicts: Arc::clone(&conflicts),
                blind,
            };
            writers.push(tokio::spawn(write(store, writer, Arc::clone(&held))));
        }
        let mut wrong = Vec::new();
        for writer in writers {
            wrong.extend(writer.await.unwrap().err());
        }
        wrong
    });
    wrong.extend(contradictions(&shell, &held.lock().unwrap()));
    let conflicts = conflicts.load(Ordering::Relaxed);
    println!(
        "{WRITERS} writers, {} addresses held, {conflicts} conflicts: {wrong:?}",
        held.lock().unwrap().len()
    );
    (conflicts, wrong)
}

#[test]
fn conflicting_writers_give_no_address_twice() {
    let (conflicts, wrong) = run(false);
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(conflicts > 0, "writers that never meet show nothing");
}

/// The control: the same writers are caught when they overwrite what they did not read.
#[test]
fn writers_that_ignore_revisions_are_caught() {
    let (_, wrong) = run(true);
    assert!(!wrong.is_empty());
}
