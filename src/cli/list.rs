//! `ls`, `rm`, `versions`, `holders`: what there is.

use awc::http::{Method, header};
use clap::{Args, ValueEnum};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::address::BlobRef;
use super::client::Client;
use super::described::{Described, Holders, Page, Versions};
use super::fault::{Fault, Tally};
use super::screen::{Screen, bytes, printable, table};
use super::{Connection, NodeUrl, Outcome};

/// Blobs asked for at a time with `--all`: the most a node gives.
const PAGE: u32 = 1000;

/// Arguments of `ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Order of the list [default: newest; with --name: name]
    #[arg(long, value_enum)]
    order: Option<Order>,
    /// Only blobs whose file name begins so
    #[arg(long, value_name = "PREFIX")]
    name: Option<String>,
    /// List deleted blobs instead, the newest first
    #[arg(long, conflicts_with_all = ["name", "order"])]
    deleted: bool,
    /// Blobs to list at most; a node gives a thousand at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Go on after this cursor, from the note below a list or the `next` of --json
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// List everything, page after page
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Print the node's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    Newest,
    Name,
    Id,
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Name => "name",
            Self::Id => "id",
        }
    }
}

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Ids, or links (only the id in them counts: the node named with --node deletes, and all others follow)
    #[arg(required = true, value_name = "ID|LINK")]
    blobs: Vec<BlobRef>,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of commands about one blob.
#[derive(Debug, Args)]
pub struct BlobArgs {
    /// Id or link
    #[arg(value_name = "ID|LINK")]
    blob: BlobRef,
    /// Print the node's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

pub(crate) async fn ls(screen: &Screen, arguments: LsArgs) -> Outcome {
    let LsArgs { order, name, deleted, limit, after, all, json, connection } = arguments;
    if name.is_some() && order.is_some_and(|order| order != Order::Name) {
        return Err(Fault::Usage("--name lists in the order of names: leave --order out".into()));
    }
    let (client, node) = connection.client();
    let order = order.unwrap_or(if name.is_some() { Order::Name } else { Order::Newest });
    let query = Query { order, name, deleted, limit: if all { Some(PAGE) } else { limit } };
    let mut after = after;
    let mut printed = 0_u64;
    if json {
        screen.raw("{\"blobs\":[")?;
    }
    loop {
        let page: Page = client.json(&node, &query.path(after.as_deref())).await?;
        screen.raw(&if json { json_entries(&page, printed > 0) } else { rows(&node, &page)? })?;
        printed += u64::try_from(page.blobs.len()).unwrap_or(0);
        // A cursor that does not move would be asked for ever.
        let moved = page.next != after;
        after = page.next;
        if after.is_none() || !all {
            break;
        }
        if !moved {
            return Err(Fault::Failed(format!("{node} gives the same page of the list again and again")));
        }
    }
    if json {
        screen.line(&format!("],\"next\":{}}}", Value::from(after.clone())))?;
    } else if let Some(next) = after {
        screen.note(&format!("there is more: --all, or --after {}", printable(&next)));
    }
    Ok(Tally::default())
}

/// What a list is asked with, page after page.
struct Query {
    order: Order,
    name: Option<String>,
    deleted: bool,
    limit: Option<u32>,
}

impl Query {
    fn path(&self, after: Option<&str>) -> String {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut path = format!("/blobs?order={}", self.order.name());
        if let Some(name) = &self.name {
            path.push_str(&format!("&name={}", encode(name)));
        }
        if self.deleted {
            path.push_str("&deleted=true");
        }
        if let Some(limit) = self.limit {
            path.push_str(&format!("&limit={limit}"));
        }
        if let Some(after) = after {
            path.push_str(&format!("&after={}", encode(after)));
        }
        path
    }
}

/// The entries of a page, as a piece of one long JSON list.
fn json_entries(page: &Page, continued: bool) -> String {
    let entries: Vec<String> = page.blobs.iter().map(Value::to_string).collect();
    let comma = if continued && !entries.is_empty() { ",\n" } else { "" };
    format!("{comma}{}", entries.join(",\n"))
}

fn rows(node: &NodeUrl, page: &Page) -> Result<String, Fault> {
    let mut rows = Vec::new();
    for entry in &page.blobs {
        let blob: Described = serde_json::from_value(entry.clone())
            .map_err(|error| Fault::Failed(format!("{node} describes a blob in a way that this version does not understand: {error}")))?;
        rows.push(vec![
            blob.id.to_string(),
            printable(&blob.created.unwrap_or_default()),
            blob.size.map(bytes).unwrap_or_default(),
            printable(&blob.media_type.unwrap_or_default()),
            printable(&blob.file_name.unwrap_or_default()),
        ]);
    }
    Ok(table(&rows))
}

pub(crate) async fn rm(screen: &Screen, arguments: RmArgs) -> Outcome {
    let RmArgs { blobs, connection } = arguments;
    let (client, node) = connection.client();
    let mut tally = Tally::default();
    for blob in blobs {
        let request = client.write(Method::DELETE, &node, &format!("/blobs/{}", blob.id));
        match client.send(&node, request).await {
            Ok(_) => {}
            Err(fault @ Fault::Unreachable(_)) => return Err(fault),
            Err(fault) => {
                screen.note(&format!("{}: {fault}", blob.id));
                tally.add(fault);
            }
        }
    }
    Ok(tally)
}

pub(crate) async fn versions(screen: &Screen, arguments: BlobArgs) -> Outcome {
    let BlobArgs { blob, json, connection } = arguments;
    let (client, node) = connection.client();
    let Some(listing) = fetch::<Versions>(screen, &client, blob.node_or(&node), &format!("/blobs/{}/versions", blob.id), json).await?
    else {
        return Ok(Tally::default());
    };
    let rows = listing.versions.iter().map(|version| {
        vec![
            if version.version == listing.winner { "winner" } else { "sibling" }.into(),
            version.version.to_string(),
            if version.deleted { "deleted".into() } else { version.size.map(bytes).unwrap_or_default() },
            printable(version.media_type.as_deref().unwrap_or_default()),
            printable(version.file_name.as_deref().unwrap_or_default()),
        ]
    });
    screen.raw(&table(&rows.collect::<Vec<_>>()))?;
    if let Some(reason) = listing.reason {
        screen.note(&printable(&reason));
    }
    Ok(Tally::default())
}

pub(crate) async fn holders(screen: &Screen, arguments: BlobArgs) -> Outcome {
    let BlobArgs { blob, json, connection } = arguments;
    let (client, node) = connection.client();
    let Some(found) = fetch::<Holders>(screen, &client, blob.node_or(&node), &format!("/blobs/{}/holders", blob.id), json).await? else {
        return Ok(Tally::default());
    };
    let rows: Vec<_> = found.holders.iter().map(|holder| vec![holder.id.to_string(), printable(&holder.address)]).collect();
    screen.raw(&table(&rows))?;
    screen.note(&format!(
        "{} of {} live members are known to hold version {}; {} others were asked",
        found.holders.len(),
        found.members,
        found.version,
        found.asked
    ));
    Ok(Tally::default())
}

/// Reads JSON, or passes it on as it came where JSON is wanted.
pub(crate) async fn fetch<T: serde::de::DeserializeOwned>(
    screen: &Screen,
    client: &Client,
    node: &NodeUrl,
    path: &str,
    json: bool,
) -> Result<Option<T>, Fault> {
    let request = client.read(node, path).insert_header((header::ACCEPT, "application/json"));
    let body = super::client::collect(client.send(node, request).await?).await.map_err(|cut| Fault::Failed(format!("{node}: {cut}")))?;
    if !json {
        return super::client::parse(node, &body).map(Some);
    }
    // Read all the same: what is passed on is JSON.
    let value: Value = super::client::parse(node, &body)?;
    screen.line(&value.to_string())?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_asked_for_with_what_was_given() {
        let plain = Query { order: Order::Newest, name: None, deleted: false, limit: None };
        assert_eq!(plain.path(None), "/blobs?order=newest");
        let full = Query { order: Order::Name, name: Some("a&b/".into()), deleted: true, limit: Some(7) };
        assert_eq!(full.path(Some("x+=")), "/blobs?order=name&name=a%26b%2F&deleted=true&limit=7&after=x%2B%3D");
    }

    #[test]
    fn pages_join_to_one_json_list() {
        let page = |blobs: &str| serde_json::from_str::<Page>(&format!(r#"{{"blobs": [{blobs}], "next": null}}"#)).unwrap();
        let text = [json_entries(&page("1, 2"), false), json_entries(&page(""), true), json_entries(&page("3"), true)].concat();
        assert_eq!(serde_json::from_str::<Value>(&format!("[{text}]")).unwrap(), serde_json::json!([1, 2, 3]));
    }

    #[test]
    fn deleted_blobs_have_rows_too() {
        let node = "http://a:1".parse().unwrap();
        let page: Page = serde_json::from_str(r#"{"blobs": [{"id": "67e55044-10b1-426f-9247-bb680e5fe0c8"}], "next": null}"#).unwrap();
        assert_eq!(rows(&node, &page).unwrap(), "67e55044-10b1-426f-9247-bb680e5fe0c8\n");
    }
}
