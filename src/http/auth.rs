//! Who may write: whoever shows the write token, where there is one.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};
use gossip_cdn_shell::problem::Problem;

use super::Context;
use super::errors::Fault;

/// Extracted first by every route that changes something, so that nothing of the body is read without it.
pub(super) struct MayWrite;

impl FromRequest for MayWrite {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let token = request.app_data::<Data<Context>>().map(|context| context.settings.write_token.as_deref());
        ready(match token {
            Some(None) => Ok(Self),
            Some(Some(token)) if shows(request.headers(), token) => Ok(Self),
            Some(Some(_)) => Err(Fault::Unauthorised.into()),
            None => Err(Problem::internal("a route without its context")),
        })
    }
}

fn shows(headers: &HeaderMap, token: &str) -> bool {
    let Some(value) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) else { return false };
    let Some((scheme, shown)) = value.split_once(' ') else { return false };
    // Hashes of equal length, compared by blake3 in constant time: neither the token nor its length shows in the time it takes.
    scheme.eq_ignore_ascii_case("bearer") && blake3::hash(shown.trim().as_bytes()) == blake3::hash(token.as_bytes())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn only_the_token_as_a_bearer_is_taken() {
        let shown = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            shows(&headers, "secret")
        };
        assert!(shown("Bearer secret") && shown("bearer  secret"));
        for other in ["", "Bearer", "Bearer ", "Bearer secre", "Bearer secret2", "Basic secret", "secret"] {
            assert!(!shown(other), "{other}");
        }
        assert!(!shows(&HeaderMap::new(), "secret"));
    }
}
