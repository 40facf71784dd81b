//! The CNI plugin: see [`margay_cni`].

use std::process::ExitCode;

fn main() -> ExitCode {
    let env = |name: &str| std::env::var(name).ok();
    ExitCode::from(margay_cni::plugin::run(
        &env,
        std::io::stdin().lock(),
        std::io::stdout().lock(),
    ))
}
