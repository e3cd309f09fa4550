//! How people name nodes and blobs on the command line.

use std::fmt;
use std::str::FromStr;

use gossip_cdn_protocol::member::is_base_url;
use gossip_cdn_protocol::{BlobId, VersionId};

/// The base URL of a node, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct NodeUrl(String);

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let base = text.trim_end_matches('/');
        if base.starts_with("https://") {
            return Err("nodes speak plain HTTP: use http://, or a proxy that ends TLS on this machine".into());
        }
        if is_base_url(base) {
            return Ok(Self(base.into()));
        }
        let guess = format!("http://{base}");
        let hint = if !base.contains("://") && is_base_url(&guess) { guess } else { "http://127.0.0.1:7701".into() };
        Err(format!("the address of a node looks like {hint}"))
    }
}

/// A blob as it is named on the command line: by its id, or by a link to it at some node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlobRef {
    /// The node in the link, if it was a link.
    pub(crate) node: Option<NodeUrl>,
    pub(crate) id: BlobId,
    /// The version the link asks for, if it does.
    pub(crate) version: Option<VersionId>,
}

impl BlobRef {
    /// Where to ask for it: at the link's own node, else at `default`.
    pub(crate) fn node_or<'a>(&'a self, default: &'a NodeUrl) -> &'a NodeUrl {
        self.node.as_ref().unwrap_or(default)
    }
}

impl FromStr for BlobRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains("://") {
            return Ok(Self { node: None, id: parse_id(text)?, version: None });
        }
        let link = text.split('#').next().unwrap_or_default();
        let (path, query) = link.split_once('?').unwrap_or((link, ""));
        let (node, id) =
            path.split_once("/blobs/").ok_or("a link looks like http://127.0.0.1:7701/blobs/67e55044-10b1-426f-9247-bb680e5fe0c8")?;
        let version = query.split('&').find_map(|pair| pair.strip_prefix("version="));
        Ok(Self {
            node: Some(node.parse()?),
            id: parse_id(id)?,
            version: version.map(str::parse).transpose().map_err(|bad: gossip_cdn_protocol::ids::BadName| bad.to_string())?,
        })
    }
}

fn parse_id(text: &str) -> Result<BlobId, String> {
    text.parse().map_err(|bad: gossip_cdn_protocol::ids::BadName| bad.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    const VERSION: &str = "0199d2a0b1c20000.67e55044-10b1-826f-9247-bb680e5fe0c8";

    #[test]
    fn a_node_is_named_by_its_base_url() {
        for good in ["http://127.0.0.1:7701", "http://localhost:7701/", "http://[::1]:7701"] {
            assert_eq!(good.parse::<NodeUrl>().unwrap().to_string(), good.trim_end_matches('/'));
        }
        assert!("127.0.0.1:7701".parse::<NodeUrl>().unwrap_err().ends_with("http://127.0.0.1:7701"));
        for bad in ["", "ftp://x", "http://a/b", "https://a"] {
            assert!(bad.parse::<NodeUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_blob_is_named_by_id_or_link() {
        let plain: BlobRef = ID.parse().unwrap();
        assert_eq!((plain.node.clone(), plain.id.to_string().as_str()), (None, ID));
        let link: BlobRef = format!("http://a:1/blobs/{ID}?download&version={VERSION}#top").parse().unwrap();
        assert_eq!(link.node.as_ref().unwrap().to_string(), "http://a:1");
        assert_eq!(link.version.unwrap().to_string(), VERSION);
        let default: NodeUrl = "http://b:2".parse().unwrap();
        assert_eq!(link.node_or(&default).to_string(), "http://a:1");
        assert_eq!(plain.node_or(&default), &default);
    }

    #[test]
    fn what_is_no_link_is_refused() {
        for bad in [
            String::new(),
            ID.to_uppercase(),
            format!("http://a:1/{ID}"),
            format!("http://a:1/blobs/{ID}/versions"),
            format!("http://a:1/blobs/{ID}?version=7"),
            format!("a:1/blobs/{ID}"),
        ] {
            assert!(bad.parse::<BlobRef>().is_err(), "{bad}");
        }
    }
}
