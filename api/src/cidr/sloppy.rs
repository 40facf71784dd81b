//! CIDRs in the spellings that an API server keeps in objects stored before it became strict.

use ipnetwork::IpNetwork;

use super::{CidrError, host, masked, parse};

/// A CIDR of a NetworkPolicy, read as the API server reads it (`ParseCIDRSloppy` of k8s.io/utils/net).
///
/// Digits are decimal and their leading zeros count for nothing, bits beyond the prefix are cleared, and IPv6 that maps
/// IPv4 stands for the IPv4 network. Servers from 1.36 on refuse such spellings in new objects (KEP-4858,
/// `StrictIPCIDRValidation`) and keep those they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sloppy {
    /// With its host bits, and of the family it is written in.
    written: IpNetwork,
}

impl Sloppy {
    /// Reads `address/prefix`.
    ///
    /// # Errors
    /// When an API server would refuse it, however old.
    pub fn parse(text: &str) -> Result<Self, CidrError> {
        let read = || {
            let (address, prefix) = text.split_once('/')?;
            let digits = prefix.bytes().all(|b| b.is_ascii_digit());
            let prefix = without_zeros(prefix).parse().ok().filter(|_| digits)?;
            let written = IpNetwork::new(without_zeros(address).parse().ok()?, prefix).ok()?;
            Some(Self { written })
        };
        read().ok_or_else(|| CidrError::Syntax(text.to_owned()))
    }

    /// The network that it stands for.
    pub fn network(self) -> IpNetwork {
        let network = masked(self.written);
        let mapped = match network {
            IpNetwork::V6(v6) => v6.ip().to_ipv4_mapped().zip(v6.prefix().checked_sub(96)),
            IpNetwork::V4(_) => None,
        };
        mapped
            .and_then(|(v4, prefix)| IpNetwork::new(v4.into(), prefix).ok())
            .unwrap_or(network)
    }

    /// Whether `except` may stand beside this CIDR: it begins inside and has a longer prefix. Prefixes compare as they
    /// are written, also where one of the two maps IPv4.
    pub fn may_except(self, except: Self) -> bool {
        self.network().contains(except.network().network()) && self.written.prefix() < except.written.prefix()
    }

    /// What to write instead, when `text` is not how this CIDR should be written.
    pub fn advice(self, text: &str) -> Option<String> {
        let network = self.network();
        match parse(text) {
            Ok(strict) if strict == network => None,
            Err(CidrError::HostBits { .. }) => Some(format!(
                "\"{text}\" is read as {network}: write that, or {} for the one address",
                host(self.written.ip().to_canonical())
            )),
            Ok(_) | Err(CidrError::Syntax(_)) => Some(format!("\"{text}\" is read as {network}: write that")),
        }
    }
}

/// Every number without its leading zeros, of which the standard library takes none, or a few.
fn without_zeros(text: &str) -> String {
    let number = |number: &str| {
        let significant = number.trim_start_matches('0');
        let is_zero = number.starts_with('0') && !significant.starts_with(|c: char| c.is_ascii_hexdigit());
        format!("{}{significant}", if is_zero { "0" } else { "" })
    };
    text.split_inclusive([':', '.']).map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Option<String> {
        Sloppy::parse(text).ok().map(|sloppy| sloppy.network().to_string())
    }

    #[test]
    fn reads_what_the_api_server_reads() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/08", "10.0.0.0/8"),
            ("10.10.1.12/24", "10.10.1.0/24"),
            ("10.0.0.0/0", "0.0.0.0/0"),
            ("010.020.030.000/24", "10.20.30.0/24"),
            ("0000192.0.2.0/00024", "192.0.2.0/24"),
            ("192.0.2.0/024", "192.0.2.0/24"),
            ("FD00:0:0:7::1/64", "fd00:0:0:7::/64"),
            ("fd00::00000000001/128", "fd00::1/128"),
            ("::/000", "::/0"),
            ("::/0", "::/0"),
            ("64:ff9b::010.1.2.3/128", "64:ff9b::a01:203/128"),
            ("::ffff:10.40.0.0/112", "10.40.0.0/16"),
            ("::ffff:010.040.1.2/112", "10.40.0.0/16"),
            ("::ffff:a28:0/112", "10.40.0.0/16"),
            ("::ffff:192.0.2.1/128", "192.0.2.1/32"),
            ("::ffff:192.0.2.1/96", "0.0.0.0/0"),
            // Its mask leaves nothing of the mapping.
            ("::ffff:192.0.2.1/95", "::fffe:0:0/95"),
            ("::ffff:192.0.2.1/64", "::/64"),
        ] {
            assert_eq!(network(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_the_api_server_refuses() {
        for text in [
            "",
            "/",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/8 ",
            " 10.0.0.0/8",
            "10.0.0.0/8/8",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0/4294967304",
            "10.0.0/8",
            "10.0.0.0.0/8",
            "10..0.0/8",
            "10.0.0.256/8",
            "0x0a.0.0.0/8",
            "a/8",
            "::/129",
            ":/8",
            ":::/8",
            "1::2::3/64",
            "1:2:3:4:5:6:7/64",
            "1:2:3:4:5:6:7:8:9/64",
            "1:2:3:4::5:6:7:8/64",
            "fd00::10000/64",
            "fd00::1%eth0/64",
            "fd00::10.0.0/64",
            "fd00:10.0.0.1::/64",
            "1:2:3:4:5:6:7:10.0.0.1/64",
        ] {
            assert_eq!(network(text), None, "{text}");
        }
    }

    #[test]
    fn an_except_begins_inside_and_is_longer() {
        let may = |cidr, except| Sloppy::parse(cidr).unwrap().may_except(Sloppy::parse(except).unwrap());
        for (cidr, except, expected) in [
            ("10.10.1.12/24", "10.10.1.200/26", true),
            ("10.0.0.0/8", "10.0.0.0/8", false),
            ("10.0.0.0/8", "010.1.0.0/016", true),
            ("10.0.0.0/8", "11.0.0.0/16", false),
            ("10.1.0.0/16", "10.0.0.0/8", false),
            ("10.0.0.0/8", "fd00::/64", false),
            ("::/0", "10.0.0.0/8", false),
            ("10.0.0.0/8", "::ffff:10.40.0.0/112", true),
            ("10.40.0.0/16", "::ffff:10.40.0.0/112", true),
            ("::ffff:10.0.0.0/104", "10.40.0.0/16", false),
        ] {
            assert_eq!(may(cidr, except), expected, "{cidr} {except}");
        }
    }

    #[test]
    fn advises_how_to_write_it() {
        let advice = |text| Sloppy::parse(text).unwrap().advice(text);
        for fine in ["10.0.0.0/8", "fd00::/64", "FD00:0:0:7::/64", "0.0.0.0/0"] {
            assert_eq!(advice(fine), None, "{fine}");
        }
        assert_eq!(
            advice("010.020.030.000/24").unwrap(),
            "\"010.020.030.000/24\" is read as 10.20.30.0/24: write that"
        );
        assert_eq!(
            advice("10.10.1.12/24").unwrap(),
            "\"10.10.1.12/24\" is read as 10.10.1.0/24: write that, or 10.10.1.12/32 for the one address"
        );
        assert_eq!(
            advice("::ffff:10.40.0.0/112").unwrap(),
            "\"::ffff:10.40.0.0/112\" is read as 10.40.0.0/16: write that"
        );
    }
}
