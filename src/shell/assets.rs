//! The files of a page: embedded in the binary, so that there is nothing to install and nothing to lose.
//!
//! 1. A file has an entity tag made from its bytes and is asked about each time it is used: a new binary is never seen through old files.
//! 2. Nothing is served under `/assets/` but what is embedded; a page may run scripts from there and from nowhere else ([`crate::page`]).

#![expect(unreachable_pub, reason = "the routing macros put the handler, with the visibility of its route, into a function")]

use std::hash::{DefaultHasher, Hash, Hasher};

use actix_web::http::{StatusCode, header};
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse, get};

use crate::problem::Problem;

/// A file of a page.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// Its name below `/assets/`.
    pub name: &'static str,
    /// What is in it.
    pub body: &'static str,
}

/// Embeds files of a folder, named from the file that calls this.
#[macro_export]
macro_rules! assets {
    ($folder:literal: $($name:literal)*) => {
        &[$($crate::assets::Asset { name: $name, body: include_str!(concat!($folder, "/", $name)) }),*]
    };
}

/// The files of this process's page, in the application's data.
#[derive(Debug, Clone, Copy)]
pub struct Assets(pub &'static [Asset]);

impl Asset {
    fn media_type(&self) -> &'static str {
        match self.name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some(_) | None => "application/octet-stream",
        }
    }

    fn entity_tag(&self) -> String {
        // Of another release it may be computed otherwise: then the file is sent once more.
        let mut hasher = DefaultHasher::new();
        self.body.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }
}

/// A file of the page.
#[utoipa::path(tag = "node", params(("name" = String, Path, description = "A file that the page names")),
    responses((status = 200, description = "The file", body = String), (status = 304, description = "It is still the same"),
        (status = 404, description = "No such file", content_type = "application/problem+json")))]
#[get("/assets/{name}")]
pub async fn asset(request: HttpRequest, name: Path<String>, assets: Data<Assets>) -> Result<HttpResponse, Problem> {
    let Some(asset) = assets.0.iter().find(|asset| asset.name == name.as_str()) else {
        return Err(Problem::of_status(StatusCode::NOT_FOUND));
    };
    let tag = asset.entity_tag();
    let known = request.headers().get(header::IF_NONE_MATCH).and_then(|given| given.to_str().ok());
    let is_known = known.is_some_and(|given| given.split(',').any(|given| given.trim().trim_start_matches("W/") == tag));
    let mut answer = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    answer
        .insert_header((header::ETAG, tag))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"));
    Ok(if is_known { answer.finish() } else { answer.content_type(asset.media_type()).body(asset.body) })
}

#[cfg(test)]
mod tests {
    use actix_web::App;
    use actix_web::test::{TestRequest, call_service, init_service};

    use super::*;

    #[actix_web::test]
    async fn a_file_is_sent_once_and_another_name_is_nothing() {
        let files = Assets(&[Asset { name: "a.js", body: "1" }, Asset { name: "b.css", body: "1" }]);
        let app = init_service(App::new().app_data(Data::new(files)).service(asset)).await;
        let ask = |path: &str| TestRequest::get().uri(path);
        let first = call_service(&app, ask("/assets/a.js").to_request()).await;
        assert_eq!(first.headers().get("content-type").unwrap(), "text/javascript; charset=utf-8");
        let again = ask("/assets/a.js").insert_header(("if-none-match", first.headers().get("etag").unwrap().clone())).to_request();
        assert_eq!(call_service(&app, again).await.status(), StatusCode::NOT_MODIFIED);
        let style = call_service(&app, ask("/assets/b.css").to_request()).await;
        assert_eq!(style.headers().get("content-type").unwrap(), "text/css; charset=utf-8");
        for nothing in ["/assets/c.js", "/assets/..%2fa.js", "/assets/"] {
            assert_eq!(call_service(&app, ask(nothing).to_request()).await.status(), StatusCode::NOT_FOUND, "{nothing}");
        }
    }
}
