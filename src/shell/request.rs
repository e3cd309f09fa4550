//! What is done to every request: an id, a line in the log, problems rendered.
//!
//! 1. A request has one id: the client's own `X-Request-Id` where it is sane, else one made here. It is in the log, in the answer's
//!    header and in every problem.
//! 2. The routes of peers (`/gossip/`) carry no id: their bytes are counted.
//! 3. A request costs one line: at `info`, or at `debug` for the routes of nodes (`/join` too) and of probes, which come every few
//!    seconds.
//! 4. Neither the query nor a header is logged: they may hold secrets.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use actix_web::body::{BodySize, BoxBody, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage};
use rand::TryRng;
use tokio::time::Instant;
use tracing::Instrument;

use crate::problem::{self, Problem};

/// The header that carries the id.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id taken from a client, in bytes.
const MAX_ID: usize = 64;

/// The id of a request; found in the request's extensions.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// As text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    fn accept(value: &HeaderValue) -> Option<Self> {
        let sane = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        let bytes = value.as_bytes();
        (1..=MAX_ID).contains(&bytes.len()).then_some(())?;
        bytes.iter().all(sane).then(|| Self(value.clone()))
    }

    /// A number of this process and one of this request: unique enough to find a line, and cheap.
    fn fresh() -> Self {
        // Without entropy the ids are unique in this process only, which is no reason to refuse requests.
        static PROCESS: LazyLock<u32> = LazyLock::new(|| rand::rngs::SysRng.try_next_u32().unwrap_or_default());
        static REQUESTS: AtomicU32 = AtomicU32::new(0);
        let text = format!("{:08x}-{:08x}", *PROCESS, REQUESTS.fetch_add(1, Ordering::Relaxed));
        Self(HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown")))
    }
}

/// Middleware, the outermost one: gives the request its id, logs it, and makes problems of all errors.
pub async fn observe<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, BoxBody>>, Error> {
    let start = Instant::now();
    let of_peer = request.path().starts_with("/gossip/");
    let quiet = of_peer || matches!(request.path(), "/join" | "/healthz" | "/readyz" | "/metrics");
    let id = (!of_peer).then(|| request.headers().get(&HEADER).and_then(RequestId::accept).unwrap_or_else(RequestId::fresh));
    let text = id.as_ref().map(RequestId::as_str);
    let method = request.method().clone();
    let path = request.path().to_owned();
    if let Some(id) = &id {
        request.extensions_mut().insert(id.clone());
    }
    let span = tracing::info_span!("request", id = text);

    let answer = next.call(request).instrument(span.clone()).await;
    let entered = span.enter();
    let answer = answer.map(|answer| rendered(answer, text)).map_err(|error| of_middleware(&error, text));
    let (status, bytes) = match &answer {
        Ok(answer) => (answer.status(), sized(answer.response().body().size())),
        Err(problem) => (problem.status(), None),
    };
    let (status, micros) = (status.as_u16(), u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
    if quiet {
        tracing::debug!(%method, path, status, bytes, micros, "answered");
    } else {
        tracing::info!(%method, path, status, bytes, micros, "answered");
    }
    drop(entered);

    let mut answer = answer?;
    if let Some(RequestId(value)) = id {
        answer.headers_mut().insert(HEADER, value);
    }
    Ok(answer)
}

fn sized(size: BodySize) -> Option<u64> {
    match size {
        BodySize::None => Some(0),
        BodySize::Sized(bytes) => Some(bytes),
        BodySize::Stream => None,
    }
}

/// An error that a middleware returned: there is no answer yet to put the problem into.
fn of_middleware(error: &Error, id: Option<&str>) -> Problem {
    let problem = error.as_error::<Problem>().cloned().unwrap_or_else(|| Problem::of_error(error));
    log(&problem);
    problem.of_request(id)
}

/// Puts a problem with the request's id into an answer that is an error and not yet a problem with an id.
fn rendered<B: MessageBody + 'static>(answer: ServiceResponse<B>, id: Option<&str>) -> ServiceResponse<EitherBody<B, BoxBody>> {
    let status = answer.status();
    if !status.is_client_error() && !status.is_server_error() {
        return answer.map_into_left_body();
    }
    let json = match answer.response().error() {
        Some(error) => {
            let problem = error.as_error::<Problem>().cloned().unwrap_or_else(|| Problem::of_error(error));
            log(&problem);
            problem.json(id)
        }
        None if is_bare(&answer) => Problem::of_status(status).json(id),
        // A handler's own words.
        None => return answer.map_into_left_body(),
    };
    answer.map_body(|head, _| {
        head.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE));
        EitherBody::right(BoxBody::new(json))
    })
}

/// Whether an answer has no body, such as the framework's own 405.
fn is_bare<B: MessageBody>(answer: &ServiceResponse<B>) -> bool {
    matches!(answer.response().body().size(), BodySize::None | BodySize::Sized(0))
}

fn log(problem: &Problem) {
    let Some(private) = problem.private_message() else { return };
    if problem.status().is_server_error() && problem.status() != StatusCode::SERVICE_UNAVAILABLE {
        tracing::error!(kind = problem.kind(), "{private}");
    } else {
        tracing::debug!(kind = problem.kind(), "{private}");
    }
}

/// Middleware: answers `HEAD` as `GET`; the server leaves the body out. For routes whose bodies are small, since it is made all the same.
pub async fn head_as_get<B: MessageBody + 'static>(mut request: ServiceRequest, next: Next<B>) -> Result<ServiceResponse<B>, Error> {
    if request.method() == Method::HEAD {
        request.head_mut().method = Method::GET;
    }
    next.call(request).await
}

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;
    use actix_web::middleware::from_fn;
    use actix_web::{App, HttpResponse, ResponseError, test, web};

    use super::*;
    use crate::{guard, problem};

    /// Asks an application put together as the crate's documentation says.
    async fn ask(request: test::TestRequest) -> (StatusCode, header::HeaderMap, web::Bytes) {
        let app = App::new()
            .configure(problem::configure)
            .app_data(web::Data::new(problem::Routes::new([("/post".to_owned(), vec![Method::POST])])))
            .service(web::resource("/ok").route(web::get().to(async || "ok")))
            .service(web::resource("/gossip/ok").route(web::get().to(async || "ok")))
            .service(web::resource("/secret").route(web::get().to(async || Err::<&str, _>(Problem::internal("the disk is on fire")))))
            .service(
                web::resource("/foreign")
                    .route(web::get().to(async || Err::<&str, _>(actix_web::error::ErrorImATeapot("short and stout")))),
            )
            .service(web::resource("/own").route(web::get().to(async || HttpResponse::Conflict().body("own words"))))
            .service(web::resource("/number/{n}").route(web::get().to(async |n: web::Path<u8>| n.to_string())))
            .service(web::resource("/json").route(web::post().to(async |n: web::Json<u8>| n.to_string())))
            .default_service(web::to(problem::not_found))
            .wrap(from_fn(head_as_get))
            .wrap(guard::origins(guard::Origins::default()))
            .wrap(guard::hosts(guard::Hosts::default()))
            .wrap(from_fn(observe));
        let app = test::init_service(app).await;
        let request = request.insert_header((header::HOST, "localhost")).to_request();
        match test::try_call_service(&app, request).await {
            Ok(answer) => (answer.status(), answer.headers().clone(), test::read_body(answer).await),
            Err(error) => (error.as_response_error().status_code(), header::HeaderMap::new(), web::Bytes::new()),
        }
    }

    #[actix_web::test]
    async fn a_request_keeps_a_sane_id_and_gets_a_new_one_for_others() {
        let (_, headers, _) = ask(test::TestRequest::get().uri("/ok").insert_header((HEADER, "my-id.1"))).await;
        assert_eq!(headers.get(HEADER).unwrap(), "my-id.1");
        for insane in ["", "a b", &"x".repeat(65), "<script>"] {
            let (_, headers, _) = ask(test::TestRequest::get().uri("/ok").insert_header((HEADER, insane))).await;
            let id = headers.get(HEADER).unwrap().to_str().unwrap().to_owned();
            assert!(id.len() == 17 && id != insane, "{id}");
        }
    }

    #[actix_web::test]
    async fn routes_of_peers_carry_no_id() {
        let (status, headers, _) = ask(test::TestRequest::get().uri("/gossip/ok").insert_header((HEADER, "x"))).await;
        assert_eq!((status, headers.get(HEADER)), (StatusCode::OK, None));
    }

    #[actix_web::test]
    async fn every_error_is_a_problem_with_the_id_of_the_request() {
        let json = (header::CONTENT_TYPE, "application/json");
        for (request, status, kind) in [
            (test::TestRequest::get().uri("/none"), 404, "not-found"),
            (test::TestRequest::get().uri("/post"), 405, "method-not-allowed"),
            (test::TestRequest::post().uri("/ok"), 405, "method-not-allowed"),
            (test::TestRequest::get().uri("/secret"), 500, "internal"),
            (test::TestRequest::get().uri("/foreign"), 418, "refused"),
            (test::TestRequest::get().uri("/number/x"), 400, "bad-path"),
            (test::TestRequest::post().uri("/json").set_payload("1"), 415, "media-type"),
            (test::TestRequest::post().uri("/json").insert_header(json).set_payload("{"), 400, "bad-json"),
            (test::TestRequest::post().uri("/json").insert_header((header::ORIGIN, "http://evil.example")), 403, "origin"),
            (test::TestRequest::get().uri("http://evil.example/ok"), 421, "host"),
        ] {
            let (found, headers, body) = ask(request.insert_header((HEADER, "r1"))).await;
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((found.as_u16(), body["status"].as_u64()), (status, Some(u64::from(status))), "{body}");
            assert_eq!(body["type"], format!("urn:gossip-cdn:problem:{kind}"), "{body}");
            assert_eq!(body["request_id"], "r1", "{body}");
            assert_eq!(headers.get(header::CONTENT_TYPE).unwrap(), problem::MEDIA_TYPE, "{body}");
            assert!(!body.to_string().contains("fire"), "{body}");
        }
    }

    #[actix_web::test]
    async fn a_wrong_method_is_told_the_right_ones() {
        let (_, headers, _) = ask(test::TestRequest::get().uri("/post")).await;
        assert_eq!(headers.get(header::ALLOW).unwrap(), "POST");
        let (_, headers, _) = ask(test::TestRequest::post().uri("/ok")).await;
        assert_eq!(headers.get(header::ALLOW).unwrap(), "GET");
    }

    #[actix_web::test]
    async fn an_error_in_a_handlers_own_words_is_left_alone() {
        let (status, headers, body) = ask(test::TestRequest::get().uri("/own")).await;
        assert_eq!((status, &body[..]), (StatusCode::CONFLICT, &b"own words"[..]));
        assert!(headers.contains_key(HEADER));
    }

    #[actix_web::test]
    async fn head_is_answered_where_get_is() {
        let (status, ..) = ask(test::TestRequest::default().method(Method::HEAD).uri("/ok")).await;
        assert_eq!(status, StatusCode::OK);
    }

    #[::core::prelude::v1::test]
    fn an_error_of_a_middleware_is_a_problem_with_the_id_too() {
        let error = actix_web::error::ErrorServiceUnavailable("the disk is on fire");
        let problem = of_middleware(&error, Some("r1"));
        assert_eq!(problem.error_response().status(), StatusCode::SERVICE_UNAVAILABLE);
        let json: serde_json::Value = serde_json::from_slice(&problem.json(None)).unwrap();
        assert_eq!(json["request_id"], "r1");
    }
}
