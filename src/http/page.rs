//! The node's page: what it is, a form, the newest blobs, the members. No script.
//!
//! 1. Names and types come from strangers; everything that is put into the page goes through [`Text`].
//! 2. The page may load and run nothing: the one style sheet is named by its hash in the policy.

use std::fmt::{self, Write as _};
use std::sync::LazyLock;

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, get};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gossip_cdn_protocol::io::{MemberView, Status};
use gossip_cdn_shell::problem::Problem;
use sha2::{Digest as _, Sha256};

use super::Context;
use super::described::{Described, origin_of};
use super::errors::Fault;
use super::list::describe;
use crate::store::{ListQuery, Order};

/// How many blobs the page shows.
const NEWEST: usize = 20;
/// How many members the page shows.
const MEMBERS: usize = 50;

const STYLE: &str = include_str!("../web/page.css");

static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
});

/// The node's page.
#[utoipa::path(tag = "node", responses((status = 200, description = "The page", body = String, content_type = "text/html")))]
#[get("/")]
pub(super) async fn page(request: HttpRequest, context: Data<Context>) -> Result<HttpResponse, Problem> {
    let status = context.driver.status().await.map_err(Fault::from)?;
    let members = context.driver.members().await.map_err(Fault::from)?;
    let query = ListQuery { order: Order::Newest, name_prefix: None, deleted: false, after: None, limit: NEWEST };
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
    Ok(html(HttpResponse::Ok(), &view.render().map_err(Problem::internal)?))
}

/// What a form is answered with: the links.
pub(super) fn uploaded(answer: HttpResponseBuilder, blobs: &[Described]) -> HttpResponse {
    let mut body = String::from("<header><h1>Stored</h1><p>On disk here, and on its way to every other node.</p></header><section>");
    // Writing to a String does not fail.
    let written = blob_list(&mut body, blobs).and_then(|()| body.write_str("</section><p><a href=\"/\">Back to the node</a></p>"));
    if written.is_err() {
        body.clear();
    }
    html(answer, &document("Stored", &body))
}

fn html(mut answer: HttpResponseBuilder, text: &str) -> HttpResponse {
    answer
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY.as_str()))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "same-origin"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(text.to_owned())
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><style>{STYLE}</style></head><body><main>{body}</main></body></html>",
        Text(title)
    )
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
        Ok(document("Gossip CDN node", &body))
    }

    fn head(&self, body: &mut String) -> fmt::Result {
        let Status { id, cluster, payload_bytes, live_members, wanted, .. } = self.status;
        write!(
            body,
            "<header><h1>Gossip CDN node</h1><p>One of the equal nodes of the cluster <b>{}</b>: what is uploaded to any of them can be downloaded \
             from every one.</p><p>Node <code>{id}</code></p></header>",
            Text(cluster)
        )?;
        body.push_str("<section aria-label=\"Figures\"><dl>");
        let figures = [
            ("Blobs", self.live.to_string()),
            ("Payloads here", Size(*payload_bytes).to_string()),
            ("On their way here", wanted.to_string()),
            ("Live members", live_members.to_string()),
        ];
        for (name, value) in figures {
            write!(body, "<div><dt>{name}</dt><dd>{value}</dd></div>")?;
        }
        body.push_str("</dl></section>");
        Ok(())
    }

    fn form(&self, body: &mut String) -> fmt::Result {
        body.push_str("<section><h2>Upload</h2>");
        if self.context.settings.write_token.is_none() {
            body.push_str(
                "<form action=\"/blobs\" method=\"post\" enctype=\"multipart/form-data\"><label>Files\
                 <input type=\"file\" name=\"file\" multiple required></label><button>Upload</button></form>",
            );
            write!(body, "<p class=\"soft\">Or from a terminal: <code>curl -T FILE {}/</code></p></section>", Text(self.origin))
        } else {
            // A plain form cannot send a header, and the token has no business in a cookie.
            body.push_str("<p class=\"soft\">Writing here needs the node's token. From a terminal: ");
            write!(body, "<code>curl -H \"Authorization: Bearer $TOKEN\" -T FILE {}/</code></p></section>", Text(self.origin))
        }
    }

    fn newest(&self, body: &mut String) -> fmt::Result {
        body.push_str("<section><h2>Newest blobs</h2>");
        blob_list(body, self.blobs)?;
        if self.more {
            body.push_str("<p class=\"soft\">All of them: <a href=\"/blobs\">/blobs</a></p>");
        }
        body.push_str("</section>");
        Ok(())
    }

    fn people(&self, body: &mut String) -> fmt::Result {
        body.push_str("<section><h2>Members</h2><ul>");
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
        body.push_str("</section><p class=\"soft\"><a href=\"/status\">Status</a> · <a href=\"/metrics\">Metrics</a> · <a href=\"/openapi.json\">API</a></p>");
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

/// Text put into HTML, between tags or in a quoted attribute.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// Bytes for people.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(unit, _)| self.0 >= *unit) {
            Some((unit, name)) => {
                let tenths = u128::from(self.0) * 10 / u128::from(unit);
                write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
            }
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_strangers_stays_text() {
        let hostile = "<script>alert('x')</script>\" onclick=\"&";
        let text = Text(hostile).to_string();
        assert!(!text.contains(['<', '>', '"', '\'']), "{text}");
        assert!(document(hostile, "").contains("&lt;script&gt;"));
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(Size(0).to_string(), "0 bytes");
        assert_eq!(Size(1023).to_string(), "1023 bytes");
        assert_eq!(Size(1536).to_string(), "1.5 KiB");
        assert_eq!(Size(u64::MAX).to_string(), "16777215.9 TiB");
    }

    #[test]
    fn the_policy_names_the_style_and_allows_no_script() {
        assert!(POLICY.contains("style-src 'sha256-") && POLICY.starts_with("default-src 'none'"));
        assert!(!POLICY.contains("script-src") && !POLICY.contains("unsafe"));
        assert!(!STYLE.contains("</"), "the sheet cannot end its element");
    }
}
