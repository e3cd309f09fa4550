//! Errors as `application/problem+json` (RFC 9457).
//!
//! 1. Every answer of 400 and above carries a problem, the framework's own included: [`crate::request::observe`] turns what has none.
//! 2. What is told to the client and what is written to the log are two texts; the private one never leaves the process.
//! 3. A problem is logged once, by [`crate::request::observe`].
//!
//! Only the answers that actix-http gives before there is a request (a head that cannot be read or comes too slowly) have an empty body.

use std::borrow::Cow;
use std::fmt;

use actix_web::body::BoxBody;
use actix_web::dev::ResourceDef;
use actix_web::error::{JsonPayloadError, PathError, QueryPayloadError, UrlencodedError};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue, TryIntoHeaderPair};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, ServiceConfig};
use actix_web::{Error, HttpRequest, HttpResponse, ResponseError};
use serde::Serialize;
use serde_json::{Map, Value};

/// The media type of problems.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// An error as the client sees it, with what only the log may know.
#[derive(Debug, Clone)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    status: StatusCode,
    kind: &'static str,
    title: Cow<'static, str>,
    detail: String,
    members: Map<String, Value>,
    headers: HeaderMap,
    private: Option<String>,
    request_id: Option<String>,
}

impl Problem {
    /// A problem of type `urn:gossip-cdn:problem:<kind>`. `detail` says what happened this time and what to do about it.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            status,
            kind,
            title: Cow::Borrowed(status.canonical_reason().unwrap_or("Error")),
            detail: detail.into(),
            members: Map::new(),
            headers: HeaderMap::new(),
            private: None,
            request_id: None,
        }))
    }

    /// A fault of ours. The client learns that there was one, the log learns what it was.
    pub fn internal(private: impl fmt::Display) -> Self {
        let detail = "Something went wrong here. The log of this node tells more under the request id.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail).private(private)
    }

    /// Replaces the title, which is the reason phrase of the status otherwise.
    #[must_use]
    pub fn title(mut self, title: impl Into<Cow<'static, str>>) -> Self {
        self.0.title = title.into();
        self
    }

    /// Adds a header to the answer. One that cannot be written as a header is left out.
    #[must_use]
    pub fn header(mut self, name: impl TryInto<HeaderName>, value: impl fmt::Display) -> Self {
        if let (Ok(name), Ok(value)) = (name.try_into(), HeaderValue::from_str(&value.to_string())) {
            self.0.headers.append(name, value);
        }
        self
    }

    /// Adds a typed header, such as `header::Allow`, to the answer.
    #[must_use]
    pub fn typed_header(mut self, header: impl TryIntoHeaderPair) -> Self {
        if let Ok((name, value)) = header.try_into_pair() {
            self.0.headers.append(name, value);
        }
        self
    }

    /// Adds an extension member (RFC 9457 section 3.2). One that does not serialise is left out.
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_value(value) {
            self.0.members.insert(name.to_owned(), value);
        }
        self
    }

    /// Adds what only the log may know.
    #[must_use]
    pub fn private(mut self, message: impl fmt::Display) -> Self {
        self.0.private = Some(message.to_string());
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The last part of its type.
    pub fn kind(&self) -> &'static str {
        self.0.kind
    }

    /// What only the log may know.
    pub fn private_message(&self) -> Option<&str> {
        self.0.private.as_deref()
    }

    /// Gives it the id of its request.
    pub(crate) fn of_request(mut self, id: Option<&str>) -> Self {
        self.0.request_id = id.map(ToOwned::to_owned);
        self
    }

    /// The JSON, with the id of the request where there is one.
    pub(crate) fn json(&self, request_id: Option<&str>) -> Vec<u8> {
        let parts = &self.0;
        let body = Body {
            kind: format_args!("urn:gossip-cdn:problem:{}", parts.kind),
            title: &parts.title,
            status: parts.status.as_u16(),
            detail: &parts.detail,
            request_id: request_id.or(parts.request_id.as_deref()),
            members: &parts.members,
        };
        // Strings, a number and values that have serialised already: it cannot fail, and an empty body says less but no wrong.
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// What an error that is no problem looks like as one. The text of a fault of ours stays private.
    pub(crate) fn of_error(error: &Error) -> Self {
        let status = error.as_response_error().status_code();
        if status.is_server_error() { Self::of_status(status).private(error) } else { Self::new(status, kind(status), error.to_string()) }
    }

    /// The problem of a status about which nothing more is known.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let detail = if status == StatusCode::METHOD_NOT_ALLOWED {
            "This method does nothing here; see the Allow header."
        } else if status == StatusCode::NOT_FOUND {
            "There is nothing at this path."
        } else if status.is_server_error() {
            "Something went wrong here. The log of this node tells more under the request id."
        } else {
            "The request cannot be answered as it is."
        };
        Self::new(status, kind(status), detail)
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: fmt::Arguments<'a>,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.0.status).content_type(MEDIA_TYPE).body(self.json(None));
        for (name, value) in &self.0.headers {
            response.headers_mut().append(name.clone(), value.clone());
        }
        response
    }
}

/// The kinds of the framework's own refusals.
fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "bad-request",
        StatusCode::NOT_FOUND => "not-found",
        StatusCode::METHOD_NOT_ALLOWED => "method-not-allowed",
        StatusCode::REQUEST_TIMEOUT => "timeout",
        StatusCode::PAYLOAD_TOO_LARGE => "too-large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "media-type",
        StatusCode::EXPECTATION_FAILED => "expectation",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        _ if status.is_server_error() => "internal",
        _ => "refused",
    }
}

/// Makes the extractors of JSON, path, query and form refuse with problems.
///
/// An application that sets a `JsonConfig` of its own, for another limit, gives it [`on_json`] as error handler.
pub fn configure(config: &mut ServiceConfig) {
    config
        .app_data(web::JsonConfig::default().error_handler(on_json))
        .app_data(web::PathConfig::default().error_handler(on_path))
        .app_data(web::QueryConfig::default().error_handler(on_query))
        .app_data(web::FormConfig::default().error_handler(on_form));
}

/// What a JSON body that is not taken looks like.
pub fn on_json(error: JsonPayloadError, _: &HttpRequest) -> Error {
    let (status, kind) = match error {
        JsonPayloadError::OverflowKnownLength { .. } | JsonPayloadError::Overflow { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
        JsonPayloadError::ContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type"),
        JsonPayloadError::Deserialize(_) | JsonPayloadError::Serialize(_) | JsonPayloadError::Payload(_) | _ => {
            (StatusCode::BAD_REQUEST, "bad-json")
        }
    };
    Problem::new(status, kind, error.to_string()).into()
}

/// What a path that is not taken looks like.
pub fn on_path(error: PathError, _: &HttpRequest) -> Error {
    Problem::new(StatusCode::BAD_REQUEST, "bad-path", error.to_string()).into()
}

/// What a query that is not taken looks like.
pub fn on_query(error: QueryPayloadError, _: &HttpRequest) -> Error {
    Problem::new(StatusCode::BAD_REQUEST, "bad-query", error.to_string()).into()
}

/// What a form that is not taken looks like.
pub fn on_form(error: UrlencodedError, _: &HttpRequest) -> Error {
    let status = error.status_code();
    Problem::new(status, kind(status), error.to_string()).into()
}

/// Which methods each path takes, so that [`not_found`] can tell a wrong method from a wrong path.
#[derive(Clone, Default)]
pub struct Routes(Vec<(ResourceDef, Vec<Method>)>);

impl Routes {
    /// Path patterns as actix-web and OpenAPI write them, each with its methods. `HEAD` comes with `GET`.
    pub fn new(routes: impl IntoIterator<Item = (String, Vec<Method>)>) -> Self {
        let with_head = |mut methods: Vec<Method>| {
            if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
                methods.push(Method::HEAD);
            }
            methods
        };
        Self(routes.into_iter().map(|(pattern, methods)| (ResourceDef::new(pattern), with_head(methods))).collect())
    }

    /// These and others.
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// The methods of the path; none where nothing is.
    pub fn methods(&self, path: &str) -> Vec<Method> {
        let mut methods = Vec::new();
        for method in self.0.iter().filter(|(pattern, _)| pattern.is_match(path)).flat_map(|(_, methods)| methods) {
            if !methods.contains(method) {
                methods.push(method.clone());
            }
        }
        methods
    }
}

/// The default service: 404, or 405 with `Allow` where [`Routes`] in the application's data know the path by another method.
pub async fn not_found(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let allowed = request.app_data::<web::Data<Routes>>().map(|routes| routes.methods(request.path())).unwrap_or_default();
    if allowed.is_empty() || allowed.contains(request.method()) {
        return Err(Problem::of_status(StatusCode::NOT_FOUND));
    }
    Err(Problem::of_status(StatusCode::METHOD_NOT_ALLOWED).typed_header(header::Allow(allowed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(problem: &Problem) -> Value {
        serde_json::from_slice(&problem.json(Some("r1"))).unwrap()
    }

    #[test]
    fn a_problem_says_what_rfc_9457_asks_and_the_request_id() {
        let problem = Problem::new(StatusCode::GONE, "deleted", "It was deleted.").member("version", "v1").header("Retry-After", 7);
        let expected = serde_json::json!({
            "type": "urn:gossip-cdn:problem:deleted", "title": "Gone", "status": 410, "detail": "It was deleted.",
            "request_id": "r1", "version": "v1",
        });
        assert_eq!(json(&problem), expected);
        let response = problem.error_response();
        assert_eq!(response.headers().get("retry-after").unwrap(), "7");
        assert_eq!(response.headers().get("content-type").unwrap(), MEDIA_TYPE);
    }

    #[test]
    fn the_private_text_stays_private() {
        let problem = Problem::internal("the disk is on fire");
        assert!(!json(&problem).to_string().contains("fire"));
        assert!(!problem.to_string().contains("fire"));
        assert_eq!(problem.private_message(), Some("the disk is on fire"));
        let foreign = Problem::of_error(&actix_web::error::ErrorInternalServerError("the disk is on fire"));
        assert!(!json(&foreign).to_string().contains("fire"));
    }

    #[test]
    fn a_header_cannot_be_split_by_what_it_says() {
        let problem = Problem::new(StatusCode::CONFLICT, "x", "x").header("Version", "a\r\nSet-Cookie: b");
        assert!(problem.error_response().headers().get("version").is_none());
    }

    #[test]
    fn routes_know_the_other_methods_of_a_path() {
        let routes = Routes::new([
            ("/blobs/{id}".to_owned(), vec![Method::PUT]),
            ("/blobs/{id}".to_owned(), vec![Method::GET]),
            ("/".to_owned(), vec![Method::GET]),
        ]);
        assert_eq!(routes.methods("/blobs/x"), [Method::PUT, Method::GET, Method::HEAD]);
        assert_eq!(routes.methods("/"), [Method::GET, Method::HEAD]);
        assert!(routes.methods("/blobs/x/y").is_empty());
    }
}
