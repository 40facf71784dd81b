//! The commands of the plugin.
//!
//! ADD asks first and plumbs then, so that a refusal changes nothing; DEL unplumbs first and tells then, so that no address
//! is given out again while a pod still has it. A call that was killed half-way is healed by the next one, whichever it
//! is: the agent answers the same to the same attachment, and links are compared with what they should be.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::protocol::{Answer, Attachment, Check, Del, Failure, Request, code};
use crate::queue::Queue;
use crate::spec::config::MAX_CONFIG;
use crate::spec::result::error_document;
use crate::spec::{Call, CniVersion, Command, Config};

mod add;
mod check;
mod client;
mod plumb;

/// Carries out the call that `env` and `input` describe, writes the result or error document to `output`, and returns the
/// exit status: 0, or 1 after an error.
pub fn run(env: &dyn Fn(&str) -> Option<String>, input: impl Read, mut output: impl Write) -> u8 {
    // The error document is in the version of the configuration once that is known.
    let mut version = CniVersion::LATEST;
    let (document, status) = match execute(env, input, &mut version) {
        Ok(None) => return 0,
        Ok(Some(document)) => (document, 0),
        Err(failure) => (error_document(&failure, version), 1),
    };
    match writeln!(output, "{document:#}").and_then(|()| output.flush()) {
        Ok(()) => status,
        Err(_) => 1,
    }
}

fn execute(
    env: &dyn Fn(&str) -> Option<String>,
    input: impl Read,
    version: &mut CniVersion,
) -> Result<Option<Value>, Failure> {
    let command = Command::from_env(env)?;
    if command == Command::Version {
        return Ok(Some(CniVersion::document()));
    }
    let call = Call::from_env(command, env)?;
    let mut text = Vec::new();
    input.take(MAX_CONFIG as u64 + 1).read_to_end(&mut text).map_err(|e| {
        Failure::new(
            code::IO,
            format!("read the network configuration from standard input: {e}"),
            "",
        )
    })?;
    let config = Config::parse(&text, command)?;
    *version = config.version;
    match command {
        Command::Add => add::add(&call, &config).map(|success| Some(success.document(config.version))),
        Command::Del => del(&call, &config).map(|()| None),
        Command::Check => check::check(&call, &config).map(|()| None),
        Command::Status => status(&config).map(|()| None),
        Command::Version => Ok(None),
    }
}

fn attachment(call: &Call, config: &Config) -> Attachment {
    Attachment {
        container_id: call.container_id.clone(),
        network: config.name.clone(),
        ifname: call.ifname.clone(),
    }
}

/// Succeeds when nothing is left, or nothing but what the agent will do later.
fn del(call: &Call, config: &Config) -> Result<(), Failure> {
    if !call.netns.is_empty() {
        plumb::detach(&call.netns, &call.ifname)?;
    }
    let del = Del {
        attachment: attachment(call, config),
        netns: Some(call.netns.clone()).filter(|path| !path.is_empty()),
        pod: call.args.pod.clone(),
    };
    match client::ask(&config.socket, &Request::Del(del.clone())) {
        Ok(Answer::Error(failure)) if failure.code != code::UNKNOWN_CONTAINER => Err(client::from_agent(failure)),
        // What is in the queue stays, also of this attachment: the agent answers the same when it has only written it down.
        Ok(_) => Ok(()),
        Err(unreachable) => Queue::new(&config.state_dir).push(&del).map_err(|error| {
            let details = format!("The DEL could not be kept for later either: {error}");
            Failure::try_again(unreachable.msg, details)
        }),
    }
}

fn status(config: &Config) -> Result<(), Failure> {
    let unavailable = |failure: Failure| Failure {
        code: if failure.code == code::LIMITED {
            code::LIMITED
        } else {
            code::NOT_AVAILABLE
        },
        ..failure
    };
    let deadline = Instant::now() + RESTART;
    loop {
        match client::ask(&config.socket, &Request::Status) {
            Ok(Answer::Error(failure)) => return Err(unavailable(failure)),
            Ok(_) => return Ok(()),
            Err(failure) if Instant::now() >= deadline => return Err(unavailable(failure)),
            Err(_) => pause(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "between attempts that have a deadline")]
fn pause() {
    std::thread::sleep(Duration::from_millis(200));
}

/// How long an agent may take to be replaced. A runtime that hears that there is none makes the whole node NotReady, and with
/// it all pods that serve: an upgrade of the agents must not do that.
const RESTART: Duration = Duration::from_secs(10);

fn ask_check(call: &Call, config: &Config) -> Result<crate::protocol::Attached, Failure> {
    let check = Check {
        attachment: attachment(call, config),
        netns: call.netns.clone(),
    };
    client::attached(client::ask(&config.socket, &Request::Check(check))?)
}
