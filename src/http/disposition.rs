//! File names and how a payload is offered: opened in the browser or saved (RFC 6266).
//!
//! 1. Only types of [`INLINE`] open in the browser; everything else, html, svg, xml and pdf included, is saved. What strangers
//!    uploaded never runs on this origin.
//! 2. A file name never leads out of a folder, never hides its extension by writing direction, and never breaks a header.

use actix_web::http::header::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Types that a browser shows without running anything in them.
const INLINE: &[&str] = &[
    "audio/aac",
    "audio/flac",
    "audio/mp4",
    "audio/mpeg",
    "audio/ogg",
    "audio/wav",
    "audio/webm",
    "audio/x-wav",
    "image/avif",
    "image/bmp",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "text/plain",
    "video/mp4",
    "video/ogg",
    "video/quicktime",
    "video/webm",
];

/// What RFC 8187 lets stand in an extended value.
const EXTENDED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// A name without folders, control characters and direction overrides; `None` if nothing is left.
pub(super) fn clean_name(name: &str) -> Option<String> {
    // Some clients send whole paths, of either kind.
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String = last.chars().filter(|c| !c.is_control() && !is_layout_control(*c)).collect();
    let kept = kept.trim();
    if kept.is_empty() || kept == "." || kept == ".." { None } else { Some(kept.to_owned()) }
}

/// Characters that turn the direction of the text around them, or end the line.
fn is_layout_control(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

/// Whether a media type may be opened in the browser.
pub(super) fn is_inline(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    INLINE.iter().any(|inline| essence.eq_ignore_ascii_case(inline))
}

/// The `Content-Disposition` of a payload.
pub(super) fn content_disposition(media_type: &str, file_name: Option<&str>, download: bool) -> HeaderValue {
    let kind = if download || !is_inline(media_type) { "attachment" } else { "inline" };
    let fallback = HeaderValue::from_static(if kind == "inline" { "inline" } else { "attachment" });
    let Some(name) = file_name.and_then(clean_name) else { return fallback };
    let mut text = format!("{kind}; filename=\"{}\"", ascii_name(&name));
    // Percent signs and quotes are read differently by different browsers in the plain form.
    if !name.is_ascii() || name.contains(['%', '"', '\\']) {
        text.push_str("; filename*=UTF-8''");
        text.extend(utf8_percent_encode(&name, EXTENDED));
    }
    HeaderValue::from_str(&text).unwrap_or(fallback)
}

/// The name for clients that know ASCII only.
fn ascii_name(name: &str) -> String {
    name.chars().map(|c| if matches!(c, ' '..='~') && !matches!(c, '"' | '%' | '\\') { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_folders_controls_and_direction_overrides() {
        assert_eq!(clean_name("photo.jpg").as_deref(), Some("photo.jpg"));
        assert_eq!(clean_name("../../etc/passwd").as_deref(), Some("passwd"));
        assert_eq!(clean_name("C:\\temp\\a.txt").as_deref(), Some("a.txt"));
        assert_eq!(clean_name("a\r\nb\u{0}.txt").as_deref(), Some("ab.txt"));
        assert_eq!(clean_name("gpj\u{202E}exe.png").as_deref(), Some("gpjexe.png"));
        assert_eq!(clean_name("ключ 日本.txt").as_deref(), Some("ключ 日本.txt"));
        for nothing in ["", "/", "..", "a/", "\u{202E}", " ", "\\..\\"] {
            assert_eq!(clean_name(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn only_the_listed_types_open_in_the_browser() {
        assert!(is_inline("image/png") && is_inline("TEXT/plain; charset=utf-8") && is_inline("video/mp4"));
        for saved in
            ["text/html", "image/svg+xml", "application/xml", "text/xml", "application/pdf", "application/octet-stream", "text/css", ""]
        {
            assert!(!is_inline(saved), "{saved}");
        }
    }

    #[test]
    fn names_beyond_ascii_are_sent_twice() {
        let header = |name| content_disposition("image/png", Some(name), false).to_str().unwrap().to_owned();
        assert_eq!(header("a b.png"), "inline; filename=\"a b.png\"");
        assert_eq!(header("é.png"), "inline; filename=\"_.png\"; filename*=UTF-8''%C3%A9.png");
        assert_eq!(header("50%\".png"), "inline; filename=\"50__.png\"; filename*=UTF-8''50%25%22.png");
        assert_eq!(content_disposition("image/png", None, false), "inline");
        assert_eq!(content_disposition("image/png", Some("a"), true), "attachment; filename=\"a\"");
        assert_eq!(content_disposition("text/html", Some("a"), false), "attachment; filename=\"a\"");
    }
}
