//! The network as a page: no script, no other file, nothing from elsewhere.
//!
//! 1. What members say of themselves stands in it as text, escaped; only addresses become links, and they are checked base URLs.
//! 2. [`POLICY`] names the one style sheet by its hash and forbids the rest.
//! 3. The page has a bound however large the network is.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::fmt::{self, Display, Write};
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use crate::views::{Map, NodeView};

const STYLE: &str = include_str!("page.css");
/// Most members in the table.
const ROWS: usize = 256;
/// Most members on the ring; more are dots that touch.
const RING: usize = 48;

/// The content security policy of the page.
pub static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{style}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
});

/// The page of `map`.
pub fn render(cluster: &str, map: &Map) -> String {
    Page { cluster, map }.to_string()
}

struct Page<'a> {
    cluster: &'a str,
    map: &'a Map,
}

impl Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="5">
<title>{cluster} · Gossip CDN</title>
<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E%3Ccircle cx='4' cy='4' r='3' fill='%230b7a53'/%3E%3C/svg%3E">
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{cluster}</h1>
<p>The network as its bootstrap node sees it. For programs: <a href="/network">network</a>, <a href="/members">members</a>, <a href="/openapi.json">OpenAPI</a>.</p>
"#,
            cluster = Escaped(self.cluster),
        )?;
        counts(f, &self.map.nodes)?;
        if self.map.nodes.is_empty() {
            f.write_str("<p>No node has joined yet. Start one with <code>gossip-cdn node</code> and the address of this page as <code>--bootstrap</code>.</p>\n")?;
        } else {
            ring(f, self.map)?;
            table(f, &self.map.nodes)?;
        }
        f.write_str("</main>\n</body>\n</html>\n")
    }
}

fn counts(f: &mut fmt::Formatter<'_>, nodes: &[NodeView]) -> fmt::Result {
    f.write_str("<ul class=\"counts\">\n")?;
    for state in ["alive", "dead", "left"] {
        let count = nodes.iter().filter(|node| node.member.state == state).count();
        writeln!(f, "<li><b>{count}</b>{state}</li>")?;
    }
    let mut roots: Vec<&str> = alive(nodes).filter_map(|node| node.root.as_deref()).collect();
    roots.sort_unstable();
    roots.dedup();
    let agreement = match roots.len() {
        0 => return f.write_str("</ul>\n"),
        1 => "record set: all alive nodes agree",
        _ => "record sets among the alive nodes",
    };
    writeln!(f, "<li><b>{}</b>{agreement}</li>\n</ul>", roots.len())
}

fn alive(nodes: &[NodeView]) -> impl Iterator<Item = &NodeView> {
    nodes.iter().filter(|node| node.member.state == "alive")
}

/// The living members on a circle, and lines between those that exchanged lately.
fn ring(f: &mut fmt::Formatter<'_>, map: &Map) -> fmt::Result {
    let shown: Vec<&NodeView> = alive(&map.nodes).chain(map.nodes.iter().filter(|node| node.member.state != "alive")).take(RING).collect();
    let mut places = BTreeMap::new();
    let mut angle = -TAU / 4.0;
    let step = TAU / f64::from(u32::try_from(shown.len()).unwrap_or(u32::MAX).max(1));
    for node in &shown {
        places.insert(node.member.id.as_str(), (300.0 + 220.0 * angle.cos(), 260.0 + 200.0 * angle.sin()));
        angle += step;
    }
    f.write_str("<div class=\"card\">\n<svg viewBox=\"0 0 600 520\" role=\"img\" aria-label=\"Members, and who exchanged with whom in the last minute\">\n")?;
    for exchange in &map.exchanges {
        if let (Some((x1, y1)), Some((x2, y2))) = (places.get(exchange.from.as_str()), places.get(exchange.to.as_str())) {
            writeln!(f, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>")?;
        }
    }
    for node in &shown {
        let Some((x, y)) = places.get(node.member.id.as_str()) else { continue };
        let (state, address) = (node.member.state, Escaped(&node.member.address));
        writeln!(f, "<circle class=\"{state}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"11\"><title>{address} {state}</title></circle>")?;
        if shown.len() <= 12 {
            let name = node.member.address.split("://").nth(1).unwrap_or_default();
            writeln!(f, "<text x=\"{x:.1}\" y=\"{:.1}\">{}</text>", y + 28.0, Escaped(name))?;
        }
    }
    f.write_str("</svg>\n</div>\n")
}

fn table(f: &mut fmt::Formatter<'_>, nodes: &[NodeView]) -> fmt::Result {
    f.write_str(
        "<div class=\"card\">\n<table>\n<caption>Members</caption>\n<thead><tr><th scope=\"col\">State</th><th scope=\"col\">Address</th>\
         <th scope=\"col\" class=\"number\">Records</th><th scope=\"col\" class=\"number\">Bytes</th><th scope=\"col\" class=\"number\">Incarnation</th>\
         <th scope=\"col\">Last seen</th><th scope=\"col\">Id</th></tr></thead>\n<tbody>\n",
    )?;
    for node in nodes.iter().take(ROWS) {
        let member = &node.member;
        let (state, address) = (member.state, Escaped(&member.address));
        writeln!(
            f,
            "<tr><td><span class=\"state {state}\">{state}</span></td><td><a href=\"{address}\" rel=\"noreferrer\">{address}</a></td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td>{}</td><td><code>{}</code></td></tr>",
            Said(node.records),
            Said(node.payload_bytes),
            member.incarnation,
            member.last_seen,
            member.id,
        )?;
    }
    f.write_str("</tbody>\n</table>\n</div>\n")?;
    match nodes.len().checked_sub(ROWS) {
        None | Some(0) => Ok(()),
        Some(more) => writeln!(f, "<p>And {more} more: see <a href=\"/network\">network</a>.</p>"),
    }
}

/// A number, or a dash where nothing was said.
struct Said(Option<u64>);

impl Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => number.fmt(f),
            None => f.write_str("–"),
        }
    }
}

/// Text that can stand in HTML, between tags and in quoted attributes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::MemberView;

    fn node(number: usize, address: &str) -> NodeView {
        let member = MemberView {
            id: format!("n{number}"),
            address: address.to_owned(),
            state: "alive",
            incarnation: 1,
            last_seen: "now".to_owned(),
        };
        NodeView { member, records: Some(7), payload_bytes: None, root: None }
    }

    #[test]
    fn what_strangers_say_is_text() {
        let nodes = vec![node(1, "\"><script>alert(1)</script>")];
        let page = render("<b>'&", &Map { nodes, exchanges: vec![] });
        assert!(!page.contains("<script") && !page.contains("<b>'"), "{page}");
        assert!(page.contains("&lt;b&gt;&#39;&amp;"), "{page}");
    }

    #[test]
    fn a_page_is_bounded_however_large_the_network() {
        let nodes = (0..10_000).map(|number| node(number, "http://127.0.0.1:7701")).collect();
        let page = render("c", &Map { nodes, exchanges: vec![] });
        assert!(page.len() < 100_000, "{}", page.len());
        assert!(page.contains("And 9744 more"));
    }

    #[test]
    fn the_policy_allows_the_style_sheet_and_no_script() {
        assert!(POLICY.starts_with("default-src 'none'; style-src 'sha256-"));
        assert!(!POLICY.contains("script-src") && !POLICY.contains("unsafe"));
    }
}
