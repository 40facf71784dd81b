//! ADD.

use margay_netlink::{Mac, Netns, check_name};

use super::{attachment, client, plumb};
use crate::protocol::{Add, Attached, Attachment, Del, Failure, Pod, Request, code};
use crate::spec::{Call, Config, Success};

pub(super) fn add(call: &Call, config: &Config) -> Result<Success, Failure> {
    let pod = call.args.pod.clone().ok_or_else(|| {
        Failure::new(
            code::INVALID_ENVIRONMENT,
            "CNI_ARGS does not name the pod",
            "It must hold K8S_POD_NAMESPACE=…;K8S_POD_NAME=… as container runtimes for Kubernetes set them.",
        )
    })?;
    let netns = plumb::open(&call.netns)?;
    let attachment = attachment(call, config);

    let mac = call.args.mac.or(config.mac);
    let ips = if call.args.ips.is_empty() {
        config.ips.clone()
    } else {
        call.args.ips.clone()
    };
    let request = Request::Add(Add {
        attachment: attachment.clone(),
        netns: call.netns.clone(),
        pod: pod.clone(),
        hw_addr: mac.map(|mac| mac.to_string()),
        mtu: config.mtu,
        ips,
    });
    let attached = client::attached(client::ask(&config.socket, &request)?)?;
    match plumb_as_told(&netns, call, &attached, mac) {
        Ok(mac) => Ok(Success {
            attached,
            ifname: call.ifname.clone(),
            mac: mac.to_string(),
            netns: call.netns.clone(),
        }),
        Err(failure) => Err(roll_back(failure, attachment, pod, call, config)),
    }
}

fn plumb_as_told(netns: &Netns, call: &Call, attached: &Attached, mac: Option<Mac>) -> Result<Mac, Failure> {
    let nonsense = |what: String| Failure::new(code::DECODE, format!("the agent's answer is wrong: {what}"), "");
    check_name(&attached.interface).map_err(|error| nonsense(error.to_string()))?;
    let host_mac = attached
        .host_mac
        .parse()
        .map_err(|error: margay_netlink::Error| nonsense(error.to_string()))?;
    if attached.addresses.is_empty() {
        return Err(nonsense("it holds no address".into()));
    }
    plumb::attach(netns, &call.ifname, attached, host_mac, mac)
}

/// After a failure nothing stays: the runtime may retry with a new sandbox and never come back to this one.
fn roll_back(failure: Failure, attachment: Attachment, pod: Pod, call: &Call, config: &Config) -> Failure {
    let del = Del {
        attachment,
        netns: Some(call.netns.clone()),
        pod: Some(pod),
    };
    match client::ask(&config.socket, &Request::Del(del)) {
        Ok(crate::protocol::Answer::Error(second)) | Err(second) => {
            let more = format!(
                "Taking the address back failed, too; the runtime's DEL will: {}",
                second.msg
            );
            let details = [failure.details.as_str(), more.as_str()].join(" ").trim().to_owned();
            Failure { details, ..failure }
        }
        Ok(_) => failure,
    }
}
