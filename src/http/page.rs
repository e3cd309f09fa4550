//! The node's page. What is sent is useful by itself: what the node is, a form, the newest blobs, the members. The modules of `src/web`
//! put the live page in its place.
//!
//! 1. Names and types come from strangers; everything that is put into the page goes through [`Text`].
//! 2. The page runs the embedded modules and nothing else ([`gossip_cdn_shell::page`]); together they have less than 150 KB.

use std::fmt::{self, Write as _};

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, get};
use gossip_cdn_protocol::io::{MemberView, Status};
use gossip_cdn_shell::assets::Assets;
use gossip_cdn_shell::page::{Page, Size, Text};
use gossip_cdn_shell::problem::Problem;

use super::Context;
use super::described::{Described, origin_of};
use super::errors::Fault;
use super::list::describe;
use crate::store::{ListQuery, Order};

/// How many blobs the page shows.
const NEWEST: usize = 20;
/// How many members the page shows.
const MEMBERS: usize = 50;

/// The module that begins.
const SCRIPT: &str = "node.js";

/// The files of the page.
pub(super) const ASSETS: Assets = Assets(gossip_cdn_shell::assets!("../web":
    "page.css" "icon.svg" "node.js" "api.js" "blob.js" "blobs.js" "conflicts.js" "dom.js" "format.js" "live.js" "map.js" "marks.js"
    "members.js" "messages.js" "network.js" "notices.js" "preview.js" "spread.js" "texts.js" "uploads.js"));

const FOOT: &str = "<a href=\"/status\">Status</a><a href=\"/metrics\">Metrics</a><a href=\"/openapi.json\">API</a>";

/// The node's page.
#[utoipa::path(tag = "node", responses((status = 200, description = "The page", body = String, content_type = "text/html")))]
#[get("/")]
pub(super) async fn page(request: HttpRequest, context: Data<Context>) -> Result<HttpResponse, Problem> {
    let status = context.driver.status().await.map_err(Fault::from)?;
    let members = context.driver.members().await.map_err(Fault::from)?;
    let query = ListQuery { order: Order::Newest, limit: NEWEST, ..ListQuery::default() };
    let newest = context.store.list(&query).map_err(Fault::from)?;
    let origin = origin_of(&request, &context.settings.address);
    let blobs: Vec<Described> = newest.entries.iter().filter_map(|(blob, record)| describe(&origin, *blob, record)).collect();
    let view = View {
        context: &context,
        origin: &origin,
        status: &status,
        live: context.store.usage().live_blobs,
        members: &members,
        blobs: &blobs,
        more: newest.next.is_some(),
    };
    let body = view.render().map_err(Problem::internal)?;
    let host = origin.split_once("://").map_or(origin.as_str(), |(_, host)| host);
    let whose = format!("{} · {host}", status.cluster);
    Ok(respond(&request, HttpResponse::Ok(), "Gossip CDN", &whose, Some(SCRIPT), &body))
}

/// What a form is answered with: the links.
pub(super) fn uploaded(request: &HttpRequest, answer: HttpResponseBuilder, blobs: &[Described]) -> HttpResponse {
    let mut body =
        String::from("<h1>Stored</h1><p class=\"lead\">On disk here, and on its way to every other node.</p><section class=\"card\">");
    // Writing to a String does not fail.
    let written = blob_list(&mut body, blobs).and_then(|()| body.write_str("</section><p><a href=\"/\">Back to the node</a></p>"));
    if written.is_err() {
        body.clear();
    }
    respond(request, answer, "Stored · Gossip CDN", "", None, &body)
}

/// A page around `body`, which is HTML; `script` makes it live.
fn respond(request: &HttpRequest, answer: HttpResponseBuilder, title: &str, whose: &str, script: Option<&str>, body: &str) -> HttpResponse {
    Page { title, whose, script, body, foot: FOOT }.respond(request, ASSETS, answer)
}

struct View<'a> {
    context: &'a Context,
    origin: &'a str,
    status: &'a Status,
    live: u64,
    members: &'a [MemberView],
    blobs: &'a [Described],
    more: bool,
}

impl View<'_> {
    fn render(&self) -> Result<String, fmt::Error> {
        let mut body = String::with_capacity(8 << 10);
        self.head(&mut body)?;
        self.form(&mut body)?;
        self.newest(&mut body)?;
        self.people(&mut body)?;
        Ok(body)
    }

    fn head(&self, body: &mut String) -> fmt::Result {
        let Status { id, cluster, payload_bytes, live_members, wanted, .. } = self.status;
        write!(
            body,
            "<h1>Gossip CDN node</h1><p class=\"lead\">One of the equal nodes of the cluster <b>{}</b>: what is uploaded to any of them can be \
             downloaded from every one. Node <code>{id}</code></p>",
            Text(cluster)
        )?;
        body.push_str("<dl class=\"figures\">");
        let figures = [
            ("Blobs", self.live.to_string()),
            ("Payloads here", Size(*payload_bytes).to_string()),
            ("On their way here", wanted.to_string()),
            ("Live members", live_members.to_string()),
        ];
        for (name, value) in figures {
            write!(body, "<div><dt>{name}</dt><dd>{value}</dd></div>")?;
        }
        body.push_str("</dl>");
        Ok(())
    }

    fn form(&self, body: &mut String) -> fmt::Result {
        body.push_str("<section class=\"card\"><h2>Upload</h2>");
        if self.context.settings.write_token.is_none() {
            body.push_str(
                "<form action=\"/blobs\" method=\"post\" enctype=\"multipart/form-data\"><label>Files\
                 <input type=\"file\" name=\"file\" multiple required></label><p class=\"row\"><button>Upload</button></p></form>",
            );
            write!(body, "<p class=\"soft\">Or from a terminal: <code>curl -T FILE {}/</code></p></section>", Text(self.origin))
        } else {
            // A plain form cannot send a header, and the token has no business in a cookie.
            body.push_str("<p class=\"soft\">Writing here needs the node's token. From a terminal: ");
            write!(body, "<code>curl -H \"Authorization: Bearer $TOKEN\" -T FILE {}/</code></p></section>", Text(self.origin))
        }
    }

    fn newest(&self, body: &mut String) -> fmt::Result {
        body.push_str("<section class=\"card\"><h2>Newest blobs</h2>");
        blob_list(body, self.blobs)?;
        if self.more {
            body.push_str("<p class=\"soft\">All of them: <a href=\"/blobs\">/blobs</a></p>");
        }
        body.push_str("</section>");
        Ok(())
    }

    fn people(&self, body: &mut String) -> fmt::Result {
        body.push_str("<section class=\"card\"><h2>Members</h2><ul>");
        for view in self.members.iter().take(MEMBERS) {
            let address = Text(&view.member.address);
            let state = view.member.state.name();
            let note = if view.is_self { " (this node)" } else { "" };
            write!(
                body,
                "<li><a href=\"{address}/\" rel=\"noreferrer\">{address}</a><span>{} <b class=\"{state}\">{state}</b>{note}</span></li>",
                view.member.id
            )?;
        }
        body.push_str("</ul>");
        if self.members.len() > MEMBERS {
            write!(body, "<p class=\"soft\">All {}: <a href=\"/members\">/members</a></p>", self.members.len())?;
        }
        body.push_str("</section>");
        Ok(())
    }
}

fn blob_list(body: &mut String, blobs: &[Described]) -> fmt::Result {
    if blobs.is_empty() {
        body.push_str("<p class=\"soft\">Nothing yet.</p>");
        return Ok(());
    }
    body.push_str("<ul>");
    for blob in blobs {
        let size = blob.size().map(Size).map(|size| size.to_string()).unwrap_or_default();
        let (url, name, created) = (Text(blob.url()), Text(blob.name()), blob.created());
        write!(body, "<li><a href=\"{url}\">{name}</a><span>{size} · <a href=\"{url}/qr\">QR</a> · <time>{created}</time></span></li>")?;
    }
    body.push_str("</ul>");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page of http.md in whole, compressed by nobody.
    const BUDGET: usize = 150_000;

    #[test]
    fn the_page_is_small() {
        let bytes: usize = ASSETS.0.iter().map(|asset| asset.body.len()).sum();
        assert!(bytes < BUDGET, "{bytes}");
    }

    #[test]
    fn modules_import_what_is_embedded_and_nothing_from_elsewhere() {
        let known: Vec<&str> = ASSETS.0.iter().map(|asset| asset.name).collect();
        for asset in ASSETS.0.iter().filter(|asset| asset.name.ends_with(".js")) {
            for import in asset.body.lines().filter(|line| line.starts_with("import ")) {
                let from = import.rsplit_once("from '").map_or(import, |(_, from)| from).trim_end_matches("';");
                assert!(from.strip_prefix("./").is_some_and(|name| known.contains(&name)), "{}: {import}", asset.name);
            }
        }
    }

    #[test]
    fn nothing_is_ever_made_of_markup() {
        let makers =
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "srcdoc", "eval(", "Function(", "style="];
        for asset in ASSETS.0.iter().filter(|asset| asset.name.ends_with(".js")) {
            for maker in makers {
                assert!(!asset.body.contains(maker), "{}: {maker}", asset.name);
            }
        }
    }
}
