//! Messages as bytes. No I/O here: a server with any runtime reads until [`complete`] says so.
//!
//! ```
//! use margay_cni::protocol::{Answer, Request, frame};
//!
//! let mut received = frame::encode_request(&Request::Status);
//! assert_eq!(frame::complete(&received), Ok(Some(received.len())));
//! let answer = match frame::decode_request(&received) {
//!     Ok((version, Request::Status)) => frame::encode_answer(version, &Answer::Done),
//!     Ok(_) => unreachable!(),
//!     Err(complaint) => complaint.answer(),
//! };
//! assert_eq!(frame::decode_answer(&answer), Ok(Answer::Done));
//! ```

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Answer, Failure, MAX_MESSAGE, Request, SERVED, VERSION, code};

/// A message that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No line feed within [`MAX_MESSAGE`] bytes.
    #[error("the message is longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// Not one line of JSON of the expected form.
    #[error("the message is not understood: {0}")]
    Malformed(String),
    /// A version that is not served.
    #[error("protocol version {0} is not served, only {first} to {last}", first = SERVED.start(), last = SERVED.end())]
    Version(u32),
}

impl FrameError {
    /// What to answer, in the oldest version that everybody understands.
    pub fn answer(&self) -> Vec<u8> {
        let failure = match self {
            Self::Version(_) => Failure::try_again(
                format!("the agent and the CNI plugin are of different releases: {self}"),
                "Upgrade the agent (DaemonSet margay-node) first; it installs the matching plugin.",
            ),
            Self::TooLong | Self::Malformed(_) => Failure::new(code::DECODE, self.to_string(), ""),
        };
        encode_answer(*SERVED.start(), &failure.into())
    }
}

/// Looks for a whole message at the start of what was received so far: its length with the line feed, or `None` if more
/// must be read.
pub fn complete(received: &[u8]) -> Result<Option<usize>, FrameError> {
    let end = received.iter().take(MAX_MESSAGE).position(|byte| *byte == b'\n');
    match end {
        None if received.len() >= MAX_MESSAGE => Err(FrameError::TooLong),
        end => Ok(end.map(|at| at + 1)),
    }
}

/// A request as bytes, in [`VERSION`].
pub fn encode_request(request: &Request) -> Vec<u8> {
    line(&Outgoing {
        version: VERSION,
        request: Some(request),
        answer: None,
    })
}

/// A request and the version to answer it in.
pub fn decode_request(message: &[u8]) -> Result<(u32, Request), FrameError> {
    let (version, envelope) = open(message)?;
    if !SERVED.contains(&version) {
        return Err(FrameError::Version(version));
    }
    let request = Request::deserialize(envelope.request).map_err(|e| FrameError::Malformed(e.to_string()))?;
    Ok((version, request))
}

/// An answer as bytes, in the version of the request.
pub fn encode_answer(version: u32, answer: &Answer) -> Vec<u8> {
    line(&Outgoing {
        version,
        request: None,
        answer: Some(answer),
    })
}

/// An answer.
pub fn decode_answer(message: &[u8]) -> Result<Answer, FrameError> {
    let (_, envelope) = open(message)?;
    Answer::deserialize(envelope.answer).map_err(|e| FrameError::Malformed(e.to_string()))
}

#[derive(Serialize)]
struct Outgoing<'a> {
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a Request>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a Answer>,
}

/// The version is read before the rest is looked at: what another version holds is nobody's business here.
#[derive(Deserialize)]
struct Envelope {
    version: u32,
    #[serde(default)]
    request: Value,
    #[serde(default)]
    answer: Value,
}

fn open(message: &[u8]) -> Result<(u32, Envelope), FrameError> {
    if message.len() > MAX_MESSAGE {
        return Err(FrameError::TooLong);
    }
    let envelope: Envelope = serde_json::from_slice(message).map_err(|e| FrameError::Malformed(e.to_string()))?;
    Ok((envelope.version, envelope))
}

fn line(outgoing: &Outgoing<'_>) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(outgoing).expect("messages have string keys and no failing serializers");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Attached, Attachment, Del};

    fn attachment() -> Attachment {
        Attachment {
            container_id: "c1".into(),
            network: "margay".into(),
            ifname: "eth0".into(),
        }
    }

    #[test]
    fn messages_have_the_documented_form() {
        let del = Request::Del(Del {
            attachment: attachment(),
            netns: None,
            pod: None,
        });
        let text = "{\"version\":1,\"request\":{\"type\":\"Del\",\"containerId\":\"c1\",\"network\":\"margay\",\"ifname\":\"eth0\"}}\n";
        assert_eq!(String::from_utf8(encode_request(&del)).unwrap(), text);
        assert_eq!(decode_request(text.as_bytes()), Ok((1, del)));

        let answer = Answer::Attached(Attached {
            interface: "mgy1".into(),
            host_mac: "ee:ee:ee:ee:ee:ee".into(),
            addresses: vec!["10.244.0.5/32".parse().unwrap(), "fd00::5/128".parse().unwrap()],
            gateway_v4: "169.254.1.1".parse().unwrap(),
            gateway_v6: "fe80::1".parse().unwrap(),
            mtu: 1450,
            route_protocol: 177,
        });
        let text = concat!(
            r#"{"version":1,"answer":{"type":"Attached","interface":"mgy1","hostMac":"ee:ee:ee:ee:ee:ee","#,
            r#""addresses":["10.244.0.5/32","fd00::5/128"],"gatewayV4":"169.254.1.1","gatewayV6":"fe80::1","#,
            r#""mtu":1450,"routeProtocol":177}}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(encode_answer(1, &answer)).unwrap(), text);
        assert_eq!(decode_answer(text.as_bytes()), Ok(answer));
    }

    #[test]
    fn another_version_is_answered_by_what_is_served() {
        let error = decode_request(b"{\"version\":7,\"request\":{\"type\":\"Teleport\"}}\n").unwrap_err();
        assert_eq!(error, FrameError::Version(7));
        let Ok(Answer::Error(failure)) = decode_answer(&error.answer()) else {
            panic!("an error")
        };
        assert_eq!(failure.code, code::TRY_AGAIN);
        assert!(
            failure.msg.contains("version 7 is not served, only 1 to 1"),
            "{}",
            failure.msg
        );
    }

    #[test]
    fn unknown_fields_are_ignored_and_nonsense_is_answered() {
        let message = b"{\"version\":1,\"colour\":\"red\",\"request\":{\"type\":\"Status\",\"x\":1}}\n";
        assert_eq!(decode_request(message), Ok((1, Request::Status)));
        for nonsense in [
            "",
            "\n",
            "GET / HTTP/1.1\r\n",
            "{}",
            "{\"version\":1}",
            "{\"version\":1,\"request\":{\"type\":\"Add\"}}",
        ] {
            let error = decode_request(nonsense.as_bytes()).expect_err(nonsense);
            assert!(matches!(error, FrameError::Malformed(_)), "{nonsense}: {error}");
            let Ok(Answer::Error(failure)) = decode_answer(&error.answer()) else {
                panic!("an error")
            };
            assert_eq!(failure.code, code::DECODE);
        }
    }

    #[test]
    fn a_message_without_end_is_refused_at_the_limit() {
        assert_eq!(complete(b"{}"), Ok(None));
        assert_eq!(complete(b"{}\nmore"), Ok(Some(3)));
        assert_eq!(complete(&vec![b' '; MAX_MESSAGE]), Err(FrameError::TooLong));
        let mut whole = vec![b' '; MAX_MESSAGE - 1];
        whole.push(b'\n');
        assert_eq!(complete(&whole), Ok(Some(MAX_MESSAGE)));
    }
}
