//! Which cluster is meant: kubeconfig files, as kubectl reads them.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::cli::Target;

/// Whom requests go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Context {
    /// The context's name; none for the service account of this pod.
    pub(crate) name: Option<String>,
    /// The API server's URL.
    pub(crate) server: String,
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "the API server {} (context {name})", self.server),
            None => write!(f, "the API server {} (as this pod's service account)", self.server),
        }
    }
}

/// The configuration of the cluster that the user means.
pub(super) async fn load(target: &Target) -> anyhow::Result<(Config, Context)> {
    let home = env::home_dir().map(|home| home.join(".kube/config"));
    let files = match &target.kubeconfig {
        Some(file) if !file.exists() => bail!("kubeconfig {} does not exist", file.display()),
        Some(file) => vec![file.clone()],
        None => found(env::var_os("KUBECONFIG").as_deref(), home.as_deref())?,
    };
    if files.is_empty() {
        if target.context.is_none()
            && env::var_os("KUBERNETES_SERVICE_HOST").is_some()
            && let Ok(config) = Config::incluster()
        {
            let context = Context {
                name: None,
                server: server(&config),
            };
            return Ok((config, context));
        }
        bail!(
            "no cluster is known: there is no ~/.kube/config, and $KUBECONFIG names no file. \
             Name one with --kubeconfig, or an agent with --socket"
        );
    }
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let origin = names.join(", ");
    let kubeconfig = merged(&files)?;
    let name = choose(&kubeconfig, target.context.as_deref()).with_context(|| origin.clone())?;
    let options = KubeConfigOptions {
        context: Some(name.clone()),
        ..KubeConfigOptions::default()
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| anyhow!("{origin}: context {name}: {error}"))?;
    let context = Context {
        name: Some(name),
        server: server(&config),
    };
    Ok((config, context))
}

/// The files of `$KUBECONFIG`, of which some may be missing; without it, the one at home if it is there.
fn found(variable: Option<&std::ffi::OsStr>, home: Option<&Path>) -> anyhow::Result<Vec<PathBuf>> {
    let listed: Vec<PathBuf> = variable
        .map(env::split_paths)
        .into_iter()
        .flatten()
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    if listed.is_empty() {
        return Ok(home
            .filter(|path| path.exists())
            .map(Path::to_owned)
            .into_iter()
            .collect());
    }
    let there: Vec<PathBuf> = listed.iter().filter(|path| path.exists()).cloned().collect();
    if there.is_empty() {
        let names: Vec<String> = listed.iter().map(|path| path.display().to_string()).collect();
        bail!("$KUBECONFIG names {}, which does not exist", names.join(", "));
    }
    Ok(there)
}

/// All files as one: what an earlier one says stands.
fn merged(files: &[PathBuf]) -> anyhow::Result<Kubeconfig> {
    files.iter().try_fold(Kubeconfig::default(), |all, file| {
        let next = Kubeconfig::read_from(file).with_context(|| format!("kubeconfig {}", file.display()))?;
        all.merge(next)
            .with_context(|| format!("kubeconfig {}", file.display()))
    })
}

/// The context that is wanted, else the current one.
fn choose(kubeconfig: &Kubeconfig, wanted: Option<&str>) -> anyhow::Result<String> {
    let names: Vec<&str> = kubeconfig
        .contexts
        .iter()
        .map(|context| context.name.as_str())
        .collect();
    let have = match names.as_slice() {
        [] => "it has none: is it a kubeconfig?".to_owned(),
        names => format!("it has {}", names.join(", ")),
    };
    let current = kubeconfig.current_context.as_deref().filter(|name| !name.is_empty());
    match wanted.or(current) {
        Some(name) if names.contains(&name) => Ok(name.to_owned()),
        Some(name) => bail!("no context {name}: {have}"),
        None => bail!("no current context; choose one with --context: {have}"),
    }
}

fn server(config: &Config) -> String {
    config.cluster_url.to_string().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn kubeconfig(text: &str) -> Kubeconfig {
        Kubeconfig::from_yaml(text).expect("a kubeconfig")
    }

    #[test]
    fn the_context_wanted_else_the_current_one() {
        let two =
            "{current-context: b, contexts: [{name: a, context: {cluster: c}}, {name: b, context: {cluster: c}}]}";
        let none_current = "{contexts: [{name: a, context: {cluster: c}}]}";
        let gone = "{current-context: gone, contexts: [{name: a, context: {cluster: c}}]}";
        for (text, wanted, expected) in [
            (two, None, Ok("b")),
            (two, Some("a"), Ok("a")),
            (two, Some("z"), Err("no context z: it has a, b")),
            (none_current, Some("a"), Ok("a")),
            (
                none_current,
                None,
                Err("no current context; choose one with --context: it has a"),
            ),
            (gone, None, Err("no context gone: it has a")),
            (
                "{}",
                None,
                Err("no current context; choose one with --context: it has none: is it a kubeconfig?"),
            ),
        ] {
            let chosen = choose(&kubeconfig(text), wanted).map_err(|error| error.to_string());
            assert_eq!(chosen.as_deref().map_err(String::as_str), expected, "{text} {wanted:?}");
        }
    }

    #[test]
    fn files_are_those_of_the_variable_else_the_one_at_home() {
        let folder = tempfile::tempdir().expect("a folder");
        let (there, missing) = (folder.path().join("there"), folder.path().join("missing"));
        fs::write(&there, "{}").expect("a file");
        let variable = env::join_paths([&missing, &there]).expect("paths");
        let of = |variable, home| found(variable, home).map_err(|error| error.to_string());
        assert_eq!(of(Some(&variable), Some(&missing)), Ok(vec![there.clone()]));
        assert_eq!(of(None, Some(&there)), Ok(vec![there.clone()]));
        assert_eq!(of(Some("".as_ref()), Some(&there)), Ok(vec![there.clone()]));
        assert_eq!(of(None, Some(&missing)), Ok(Vec::new()));
        let told = of(Some(missing.as_os_str()), None).expect_err("no file");
        assert_eq!(
            told,
            format!("$KUBECONFIG names {}, which does not exist", missing.display())
        );
    }
}
