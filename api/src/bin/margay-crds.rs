//! Writes `deploy/crds`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let default = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds"));
    let directory = std::env::args_os().nth(1).map_or_else(default, PathBuf::from);
    std::fs::create_dir_all(&directory)?;
    for crd in margay_api::crd::all() {
        let path = directory.join(&crd.file);
        std::fs::write(&path, crd.yaml()?).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("{}", crd.file);
    }
    Ok(())
}
