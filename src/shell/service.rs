//! The four service routes: how this process is, what it counted, what it can.
//!
//! Each looks for its source in the application's data: [`Ready`], [`Metrics`], [`Document`].

#![expect(unreachable_pub, reason = "the routing macros put the handler, with the visibility of its route, into a function")]

use std::fmt;
use std::sync::Arc;

use actix_web::http::{Method, StatusCode};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpResponse, get};
use prometheus_client::registry::Registry;
use utoipa::openapi::{OpenApi, PathItem};

use crate::problem::{Problem, Routes};

/// Tells whether requests can be served, or why not.
#[derive(Clone)]
pub struct Ready(Arc<dyn Fn() -> Result<(), String> + Send + Sync>);

impl Ready {
    /// Asks `check` each time; it must not wait for anything.
    pub fn new(check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(check))
    }
}

/// What is counted, and the way to bring it up to date before it is shown.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    refresh: Arc<dyn Fn() + Send + Sync>,
}

impl Metrics {
    /// Shows `registry`.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry, refresh: Arc::new(|| ()) }
    }

    /// Calls `refresh` before each showing, for gauges that are read elsewhere; it must not wait for anything.
    #[must_use]
    pub fn refreshed_by(mut self, refresh: impl Fn() + Send + Sync + 'static) -> Self {
        self.refresh = Arc::new(refresh);
        self
    }

    fn text(&self) -> Result<String, fmt::Error> {
        (self.refresh)();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// The OpenAPI description, serialised once.
#[derive(Clone)]
pub struct Document(Bytes);

impl Document {
    /// Serialises `api`.
    ///
    /// # Panics
    ///
    /// Where a schema in `api` has a key that is no text, which none made by utoipa has.
    pub fn new(api: &OpenApi) -> Self {
        Self(Bytes::from(serde_json::to_vec(api).expect("an OpenAPI description is plain data")))
    }
}

/// Which methods each path of `api` takes.
pub fn routes(api: &OpenApi) -> Routes {
    Routes::new(api.paths.paths.iter().map(|(path, item)| (path.clone(), methods(item))))
}

fn methods(item: &PathItem) -> Vec<Method> {
    let operations = [
        (&item.get, Method::GET),
        (&item.head, Method::HEAD),
        (&item.put, Method::PUT),
        (&item.post, Method::POST),
        (&item.delete, Method::DELETE),
        (&item.patch, Method::PATCH),
        (&item.options, Method::OPTIONS),
        (&item.trace, Method::TRACE),
    ];
    operations.into_iter().filter(|(operation, _)| operation.is_some()).map(|(_, method)| method).collect()
}

/// The process lives. If it cannot serve, it says why: no restart is asked for, for it goes on by itself when it can.
#[utoipa::path(tag = "service", responses(
    (status = 200, description = "The process lives: ok, or what ails it", body = String, content_type = "text/plain"),
))]
#[get("/healthz")]
pub async fn healthz(ready: Data<Ready>) -> HttpResponse {
    match (ready.0)() {
        Ok(()) => plain("ok\n".to_owned()),
        Err(why) => plain(format!("ailing: {why}\n")),
    }
}

/// The process can serve.
#[utoipa::path(tag = "service", responses(
    (status = 200, description = "It can serve", body = String, content_type = "text/plain"),
    (status = 503, description = "It cannot, and why", content_type = "application/problem+json"),
))]
#[get("/readyz")]
pub async fn readyz(ready: Data<Ready>) -> Result<HttpResponse, Problem> {
    (ready.0)().map_err(|why| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", why).header("Retry-After", 1))?;
    Ok(plain("ready\n".to_owned()))
}

/// What was counted, in the text format of OpenMetrics, which Prometheus reads.
#[utoipa::path(tag = "service", responses((status = 200, description = "Metrics", body = String, content_type = "application/openmetrics-text")))]
#[get("/metrics")]
pub async fn metrics(metrics: Data<Metrics>) -> Result<HttpResponse, Problem> {
    let text = metrics.text().map_err(Problem::internal)?;
    Ok(HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .insert_header(("cache-control", "no-store"))
        .body(text))
}

/// This description.
#[utoipa::path(tag = "service", responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")))]
#[get("/openapi.json")]
pub async fn openapi(document: Data<Document>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").insert_header(("cache-control", "no-cache")).body(document.0.clone())
}

fn plain(text: String) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").insert_header(("cache-control", "no-store")).body(text)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use actix_web::{App, test};
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    #[actix_web::test]
    async fn a_process_that_cannot_serve_says_why() {
        let ready = Data::new(Ready::new(|| Err("the store is opening".to_owned())));
        let app = test::init_service(App::new().app_data(ready).service(readyz).service(healthz)).await;
        let answer = test::call_service(&app, test::TestRequest::get().uri("/readyz").to_request()).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers().contains_key("retry-after"));
        assert!(test::read_body(answer).await.windows(20).any(|text| text == b"the store is opening"));
        let answer = test::call_service(&app, test::TestRequest::get().uri("/healthz").to_request()).await;
        assert_eq!(answer.status(), StatusCode::OK, "it lives");
        assert_eq!(test::read_body(answer).await, "ailing: the store is opening\n");
    }

    #[actix_web::test]
    async fn gauges_are_brought_up_to_date_before_they_are_shown() {
        let gauge = Gauge::<u64, AtomicU64>::default();
        let mut registry = Registry::default();
        registry.register("members", "Members known", gauge.clone());
        let counted = Data::new(Metrics::new(Arc::new(registry)).refreshed_by(move || _ = gauge.inner().fetch_add(1, Ordering::Relaxed)));
        let app = test::init_service(App::new().app_data(counted).service(metrics)).await;
        for expected in ["members 1\n", "members 2\n"] {
            let body = test::call_and_read_body(&app, test::TestRequest::get().uri("/metrics").to_request()).await;
            assert!(str::from_utf8(&body).unwrap().contains(expected));
        }
    }
}
