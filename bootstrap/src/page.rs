//! The network as a page. What is sent is useful by itself, a drawing and a table; the modules that node and bootstrap node share put the
//! live map in its place.
//!
//! 1. What members say of themselves stands in it as text, escaped; only addresses become links, and they are checked base URLs.
//! 2. The page runs the embedded modules and nothing else ([`gossip_cdn_shell::page`]).
//! 3. The page has a bound however large the network is.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::fmt::{self, Display};

use actix_web::{HttpRequest, HttpResponse};
use gossip_cdn_shell::assets::Assets;
use gossip_cdn_shell::page::{Page, Text};

use crate::views::{Map, NodeView};

/// Most members in the table.
const ROWS: usize = 256;
/// Most members on the ring; more are dots that touch.
const RING: usize = 48;

/// The files of the page.
pub const ASSETS: Assets = Assets(gossip_cdn_shell::assets!("../../src/web":
    "page.css" "icon.svg" "bootstrap.js" "api.js" "dom.js" "format.js" "live.js" "map.js" "marks.js" "members.js" "notices.js" "texts.js"));

const FOOT: &str =
    "<a href=\"/network\">Network</a><a href=\"/members\">Members</a><a href=\"/metrics\">Metrics</a><a href=\"/openapi.json\">API</a>";

/// The page of `map`.
pub fn respond(request: &HttpRequest, cluster: &str, map: &Map) -> HttpResponse {
    let whose = format!("{cluster} · bootstrap node");
    let body = Content { map }.to_string();
    Page { title: "Network · Gossip CDN", whose: &whose, script: Some("bootstrap.js"), body: &body, foot: FOOT }.respond(
        request,
        ASSETS,
        HttpResponse::Ok(),
    )
}

struct Content<'a> {
    map: &'a Map,
}

impl Display for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<h1>Network</h1><p class=\"lead\">The network as its bootstrap node sees it.</p>\n")?;
        counts(f, &self.map.nodes)?;
        if self.map.nodes.is_empty() {
            return f.write_str(
                "<p>No node has joined yet. Start one with <code>gossip-cdn node</code> and the address of this page as <code>--bootstrap</code>.</p>\n",
            );
        }
        ring(f, self.map)?;
        table(f, &self.map.nodes)
    }
}

fn counts(f: &mut fmt::Formatter<'_>, nodes: &[NodeView]) -> fmt::Result {
    f.write_str("<dl class=\"figures\">\n")?;
    for state in ["alive", "dead", "left"] {
        let count = nodes.iter().filter(|node| node.member.state == state).count();
        writeln!(f, "<div><dt>{state}</dt><dd>{count}</dd></div>")?;
    }
    let mut roots: Vec<&str> = alive(nodes).filter_map(|node| node.root.as_deref()).collect();
    roots.sort_unstable();
    roots.dedup();
    if !roots.is_empty() {
        let agreement = if roots.len() == 1 { "all alive nodes agree" } else { "among the alive nodes" };
        writeln!(f, "<div><dt>Record sets</dt><dd>{}<small> {agreement}</small></dd></div>", roots.len())?;
    }
    f.write_str("</dl>\n")
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
    f.write_str("<div class=\"card\">\n<svg class=\"map\" viewBox=\"0 0 600 520\" role=\"img\" aria-label=\"Members, and who exchanged with whom in the last minute\">\n")?;
    for exchange in &map.exchanges {
        if let (Some((x1, y1)), Some((x2, y2))) = (places.get(exchange.from.as_str()), places.get(exchange.to.as_str())) {
            writeln!(f, "<line class=\"edge\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>")?;
        }
    }
    for node in &shown {
        let Some((x, y)) = places.get(node.member.id.as_str()) else { continue };
        let (state, address) = (node.member.state, Text(&node.member.address));
        writeln!(f, "<circle class=\"dot {state}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"11\"><title>{address} {state}</title></circle>")?;
        if shown.len() <= 12 {
            let name = node.member.address.split("://").nth(1).unwrap_or_default();
            writeln!(f, "<text class=\"label\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>", y + 28.0, Text(name))?;
        }
    }
    f.write_str("</svg>\n</div>\n")
}

fn table(f: &mut fmt::Formatter<'_>, nodes: &[NodeView]) -> fmt::Result {
    f.write_str(
        "<div class=\"card scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Members\">\n<table>\n<caption>Members</caption>\n<thead><tr><th scope=\"col\">State</th><th scope=\"col\">Address</th>\
         <th scope=\"col\">Version</th><th scope=\"col\" class=\"number\">Blobs</th><th scope=\"col\" class=\"number\">Bytes</th><th scope=\"col\" class=\"number\">Incarnation</th>\
         <th scope=\"col\">Last seen</th><th scope=\"col\">Id</th></tr></thead>\n<tbody>\n",
    )?;
    for node in nodes.iter().take(ROWS) {
        let member = &node.member;
        let (state, address) = (member.state, Text(&member.address));
        writeln!(
            f,
            "<tr><td><span class=\"state {state}\">{state}</span></td><td><a href=\"{address}\" rel=\"noreferrer\">{address}</a></td>\
             <td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td>{}</td><td><code>{}</code></td></tr>",
            Text(node.version.as_deref().unwrap_or("–")),
            Said(node.blobs),
            Said(node.payload_bytes),
            member.incarnation,
            member.last_seen.as_deref().unwrap_or("never"),
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
            last_seen: Some("now".to_owned()),
        };
        NodeView { records: Some(7), ..NodeView::new(member, None) }
    }

    fn content(nodes: Vec<NodeView>) -> String {
        Content { map: &Map { nodes, exchanges: vec![] } }.to_string()
    }

    #[test]
    fn what_strangers_say_is_text() {
        let page = content(vec![node(1, "\"><script>alert(1)</script>")]);
        assert!(!page.contains("<script") && page.contains("&quot;&gt;&lt;script&gt;"), "{page}");
    }

    #[test]
    fn a_page_is_bounded_however_large_the_network() {
        let page = content((0..10_000).map(|number| node(number, "http://127.0.0.1:7701")).collect());
        assert!(page.len() < 100_000, "{}", page.len());
        assert!(page.contains("And 9744 more"));
    }
}
