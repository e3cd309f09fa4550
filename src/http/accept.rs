//! What an upload is answered with, by `Accept` (RFC 9110 section 12.5.1).
//!
//! curl is a first-class client: without a wish it gets the link. Programs name `application/json`; browsers, sending a form
//! without a script, prefer `text/html`.

use actix_web::http::header::{self, HeaderMap};

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The link and a newline.
    Link,
    /// The description.
    Json,
    /// A page with the links.
    Html,
}

/// The form that a client named and likes best; the link where it named none. Equally liked: JSON, then the page.
pub(super) fn form(headers: &HeaderMap) -> Form {
    let mut best = (Form::Link, 0);
    let named = headers.get_all(header::ACCEPT).filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    for element in named {
        let mut parts = element.split(';').map(str::trim);
        let form = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "application/json" => Form::Json,
            "text/html" => Form::Html,
            "text/plain" => Form::Link,
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="))).map_or(1000, thousandths);
        if quality > best.1 || (quality == best.1 && quality > 0 && rank(form) > rank(best.0)) {
            best = (form, quality);
        }
    }
    best.0
}

fn rank(form: Form) -> u8 {
    match form {
        Form::Link => 0,
        Form::Html => 1,
        Form::Json => 2,
    }
}

/// A quality value in thousandths; 0 where it cannot be read.
fn thousandths(text: &str) -> u32 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    match (whole.trim(), digits.parse::<u32>()) {
        ("1", _) => 1000,
        ("0", Ok(thousandths)) => thousandths,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn chosen(accept: &str) -> Form {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
        form(&headers)
    }

    #[test]
    fn no_wish_and_any_wish_get_the_link() {
        assert_eq!(form(&HeaderMap::new()), Form::Link);
        assert_eq!(chosen("*/*"), Form::Link);
        assert_eq!(chosen("text/plain"), Form::Link);
        assert_eq!(chosen("image/png"), Form::Link);
    }

    #[test]
    fn programs_get_json_and_browsers_a_page() {
        assert_eq!(chosen("application/json"), Form::Json);
        assert_eq!(chosen("application/json, text/plain, */*"), Form::Json);
        assert_eq!(chosen("application/json;q=0.5, */*"), Form::Json, "named is named");
        assert_eq!(chosen("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), Form::Html);
        assert_eq!(chosen("text/html, application/json"), Form::Json);
        assert_eq!(chosen("text/html;q=0.9, application/json;q=0.8"), Form::Html);
        assert_eq!(chosen("application/json;q=0"), Form::Link, "refused is not named");
        assert_eq!(chosen("Application/JSON; Q=1.0"), Form::Json);
    }
}
