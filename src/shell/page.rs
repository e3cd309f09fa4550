//! What the pages of node and bootstrap node have in common: the frame around them, and what they may do.
//!
//! 1. Text of strangers stands in a page through [`Text`] only.
//! 2. [`policy`] lets a page run and look like what is embedded under `/assets/`, and nothing else: no script in the page itself, none
//!    from a blob, and none that a script would make of a text (trusted types).

use std::fmt::{self, Write as _};

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};

use crate::assets::Assets;

/// What a page is made of.
#[derive(Debug)]
pub struct Page<'a> {
    /// Its title.
    pub title: &'a str,
    /// What stands at the right of its head: text.
    pub whose: &'a str,
    /// The script that makes it live, below `/assets/`; none for a page that stays as it is.
    pub script: Option<&'a str>,
    /// Its content without a script: HTML.
    pub body: &'a str,
    /// Its foot: HTML.
    pub foot: &'a str,
}

/// The content security policy of a page asked for under that authority, with a script or without.
fn policy(authority: Option<&str>, live: bool) -> String {
    // A source with a path needs a host, and a policy can name no IPv6 address.
    let plain = |authority: &&str| authority.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':'));
    let place = authority.filter(plain).map_or_else(|| "'self'".to_owned(), |authority| format!("{authority}/assets/"));
    let scripts = if live { format!("script-src {place}; ") } else { String::new() };
    format!(
        "default-src 'none'; {scripts}style-src {place}; img-src 'self'; media-src 'self'; connect-src 'self'; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
}

impl Page<'_> {
    /// Answers with this page.
    pub fn respond(&self, request: &HttpRequest, assets: Assets, mut answer: HttpResponseBuilder) -> HttpResponse {
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        answer
            .content_type("text/html; charset=utf-8")
            .insert_header((header::CONTENT_SECURITY_POLICY, policy(host, self.script.is_some())))
            .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .insert_header((header::REFERRER_POLICY, "same-origin"))
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .body(self.document(assets))
    }

    fn document(&self, assets: Assets) -> String {
        let scripts = self.script.map_or_else(String::new, |script| {
            let others = assets.0.iter().filter(|asset| asset.name.ends_with(".js") && asset.name != script);
            let early: String = others.map(|asset| format!("<link rel=\"modulepreload\" href=\"/assets/{}\">", asset.name)).collect();
            format!("{early}<script type=\"module\" src=\"/assets/{script}\"></script>")
        });
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\
             <link rel=\"icon\" href=\"/assets/icon.svg\" type=\"image/svg+xml\"><link rel=\"stylesheet\" href=\"/assets/page.css\">{scripts}</head>\
             <body><a class=\"skip\" href=\"#page\">Skip to the content</a>\
             <header class=\"top\"><div><a class=\"brand\" href=\"/\"><img src=\"/assets/icon.svg\" alt=\"\">Gossip CDN</a>\
             <nav id=\"views\" aria-label=\"Views\"></nav><span class=\"where\">{whose}</span></div></header>\
             <div id=\"banner\" role=\"alert\" hidden></div><main id=\"page\" tabindex=\"-1\"><div class=\"plain\">{body}</div></main>\
             <div id=\"said\" class=\"unseen\" role=\"status\"></div><div id=\"toasts\" role=\"status\"></div><footer>{foot}</footer></body></html>\n",
            title = Text(self.title),
            whose = Text(self.whose),
            body = self.body,
            foot = self.foot,
        )
    }
}

/// Text put into HTML, between tags or in a quoted attribute.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a>(pub &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            other => f.write_char(other),
        })
    }
}

/// Bytes for people.
#[derive(Debug, Clone, Copy)]
pub struct Size(pub u64);

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
    fn text_cannot_leave_its_place() {
        assert_eq!(
            Text("<img src=x onerror='alert(\"1\")'>&").to_string(),
            "&lt;img src=x onerror=&#39;alert(&quot;1&quot;)&#39;&gt;&amp;"
        );
    }

    #[test]
    fn scripts_come_from_the_embedded_files_alone() {
        assert!(policy(Some("127.0.0.1:7701"), true).contains("script-src 127.0.0.1:7701/assets/; style-src 127.0.0.1:7701/assets/;"));
        assert!(policy(Some("[::1]:7701"), true).contains("script-src 'self';"));
        for sly in [Some("a; script-src *"), Some("a 'unsafe-inline'"), Some("a,b"), None] {
            assert!(policy(sly, true).contains("script-src 'self';"), "{sly:?}");
        }
        assert!(!policy(Some("127.0.0.1:7701"), false).contains("script-src"), "none but by default, which is none");
    }

    #[test]
    fn sizes_are_cut_to_a_tenth() {
        let said = |size| Size(size).to_string();
        assert_eq!([said(0), said(1023), said(1024), said(1 << 30)], ["0 bytes", "1023 bytes", "1.0 KiB", "1.0 GiB"]);
        assert_eq!(said(u64::MAX), "16777215.9 TiB");
    }
}
