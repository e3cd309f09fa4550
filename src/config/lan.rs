//! `--lan`: the local network on which heartbeats go.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// Where heartbeats go unless told otherwise: a group of the IPv4 local scope (RFC 2365, section 6.1), and a port beside those of nodes.
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 77, 1), 7799);

/// What stands behind `--lan`: nothing or `true`, `false`, or a group or broadcast address with its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lan(Option<SocketAddrV4>);

impl Lan {
    /// The group or broadcast address; `None` where it is switched off.
    pub fn address(self) -> Option<SocketAddrV4> {
        self.0
    }
}

/// What is no [`Lan`].
#[derive(Debug, thiserror::Error)]
#[error("write a multicast group or a broadcast address with its port, such as 239.255.77.1:7799 or 192.168.1.255:7799, or nothing")]
pub struct BadLan;

impl FromStr for Lan {
    type Err = BadLan;

    fn from_str(text: &str) -> Result<Self, BadLan> {
        match text {
            "true" => Ok(Self(Some(GROUP))),
            "false" => Ok(Self(None)),
            _ => {
                let address: SocketAddrV4 = text.parse().map_err(|_| BadLan)?;
                // Whether a broadcast address is one, the interface's mask says; one that cannot be one is a slip of the pen.
                let usable = !address.ip().is_unspecified() && address.port() != 0;
                if usable { Ok(Self(Some(address))) } else { Err(BadLan) }
            }
        }
    }
}

impl<'de> Deserialize<'de> for Lan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Switch(bool),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Switch(on) => on.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_a_broadcast_address_or_nothing_is_taken() {
        let taken = |text: &str| text.parse::<Lan>().unwrap().address();
        assert!(taken("true").unwrap().ip().is_multicast());
        assert_eq!(taken("false"), None);
        assert_eq!(taken("127.255.255.255:9000"), Some("127.255.255.255:9000".parse().unwrap()));
        for wrong in ["", "yes please", "239.255.0.1", "0.0.0.0:7799", "239.255.0.1:0", "[ff15::1]:7799"] {
            assert!(wrong.parse::<Lan>().is_err(), "{wrong}");
        }
    }
}
