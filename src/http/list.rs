//! Lists of blobs, in the orders that have an index.

use actix_web::web::{Data, Query};
use actix_web::{HttpRequest, HttpResponse, get};
use gossip_cdn_protocol::{BlobId, Record};
use gossip_cdn_shell::problem::Problem;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Context;
use super::described::{Described, origin_of};
use super::download::is_set;
use super::errors::Fault;
use crate::store::{ListQuery, Order, Which};

/// Entries of a page if nothing is said.
const LIMIT: usize = 100;
/// Most entries of a page; a larger wish is cut.
const MAX_LIMIT: usize = 1000;

/// What the query of a list says.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wish {
    /// `newest` (first), `name` or `id`; newest if absent, name where `name` is given.
    order: Option<String>,
    /// Only blobs whose file name begins so; in the order of names.
    name: Option<String>,
    /// The cursor of the page before.
    after: Option<String>,
    /// Entries, 1 to 1000: 100 if absent.
    limit: Option<usize>,
    /// Deleted blobs instead of live ones, newest first.
    deleted: Option<String>,
    /// Only blobs with concurrent versions, newest first; those of them whose winner says deleted too.
    conflicts: Option<String>,
}

/// A page of blobs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page {
    /// The blobs.
    blobs: Vec<Described>,
    /// The cursor of the next page; null at the end.
    next: Option<String>,
}

/// Lists live blobs, or deleted ones.
#[utoipa::path(tag = "blobs", params(Wish), responses((status = 200, description = "A page of blobs", body = Page),
    (status = 400, description = "No such order, or a foreign cursor", content_type = "application/problem+json")))]
#[get("/blobs")]
pub(super) async fn list(request: HttpRequest, wish: Query<Wish>, context: Data<Context>) -> Result<HttpResponse, Problem> {
    let query = query(wish.into_inner())?;
    let page = context.store.list(&query).map_err(Fault::from)?;
    let origin = origin_of(&request, &context.settings.address);
    let blobs = page.entries.iter().filter_map(|(blob, record)| describe(&origin, *blob, record)).collect();
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-cache")).json(Page { blobs, next: page.next }))
}

/// Describes the winner of a blob; a record that is stored has one.
pub(super) fn describe(origin: &str, blob: BlobId, record: &Record) -> Option<Described> {
    let winner = record.winner()?;
    Some(Described::new(origin, blob, winner.id(), winner.content.payload()).conflict(record.versions().len() > 1))
}

fn query(wish: Wish) -> Result<ListQuery, Fault> {
    let bad = |detail: &str| Err(Fault::Bad("bad-query", detail.to_owned()));
    let set = |flag: &Option<String>| flag.as_deref().is_some_and(is_set);
    let which = match (set(&wish.deleted), set(&wish.conflicts)) {
        (false, false) => Which::Live,
        (true, false) => Which::Deleted,
        (false, true) => Which::Conflicts,
        (true, true) => return bad("Deleted blobs are among the conflicts already."),
    };
    let order = match wish.order.as_deref() {
        None if wish.name.is_some() => Order::Name,
        None | Some("newest") => Order::Newest,
        Some("name") => Order::Name,
        Some("id") => Order::Id,
        Some(_) => return bad("order is newest, name or id."),
    };
    if wish.name.is_some() && order != Order::Name {
        return bad("name goes with order=name: no other order has an index of names.");
    }
    if which != Which::Live && order != Order::Newest {
        return bad("Deleted blobs and conflicts are listed newest first only.");
    }
    let limit = match wish.limit.unwrap_or(LIMIT) {
        0 => return bad("limit is a number from 1."),
        limit => limit.min(MAX_LIMIT),
    };
    Ok(ListQuery { order, name_prefix: wish.name, which, after: wish.after, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_means_the_order_of_names_and_no_other() {
        let named = |order: Option<&str>| {
            query(Wish { name: Some("a".to_owned()), order: order.map(ToOwned::to_owned), ..Wish::default() }).map(|query| query.order).ok()
        };
        assert_eq!(named(None), Some(Order::Name));
        assert_eq!(named(Some("name")), Some(Order::Name));
        assert_eq!(named(Some("newest")), None);
    }

    #[test]
    fn limits_are_cut_and_zero_is_refused() {
        let limit = |limit| query(Wish { limit, ..Wish::default() }).map(|query| query.limit).ok();
        assert_eq!(limit(None), Some(100));
        assert_eq!(limit(Some(5000)), Some(1000));
        assert_eq!(limit(Some(0)), None);
        assert!(query(Wish { order: Some("size".to_owned()), ..Wish::default() }).is_err());
    }
}
