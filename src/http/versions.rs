//! The live versions of a blob, and why one of them is the winner.

use std::collections::BTreeMap;

use actix_web::web::{Data, Path};
use actix_web::{HttpResponse, get};
use gossip_cdn_protocol::{BlobId, Record, Version};
use gossip_cdn_shell::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;

use super::Context;
use super::conditional::entity_tag;
use super::described::rfc3339;
use super::errors::Fault;

/// The live versions of a blob.
#[derive(Debug, Serialize, ToSchema)]
struct Versions {
    /// The blob.
    id: String,
    /// The version that counts.
    winner: String,
    /// Why.
    reason: String,
    /// All of them, the winner first.
    versions: Vec<Shown>,
}

/// One version.
#[derive(Debug, Serialize, ToSchema)]
struct Shown {
    /// Its name.
    version: String,
    /// What its writer had seen: node id to the stamp of that node's last write included.
    clock: BTreeMap<String, String>,
    /// When it was written, on the hybrid clock of its origin, in hexadecimal.
    stamp: String,
    /// The same, as a time.
    created: String,
    /// The node that wrote it.
    origin: String,
    /// Whether it is a tombstone; then the rest is null.
    deleted: bool,
    /// Bytes.
    size: Option<u64>,
    /// Entity tag.
    etag: Option<String>,
    /// Media type.
    media_type: Option<String>,
    /// File name.
    file_name: Option<String>,
    /// BLAKE3 of the bytes, in hexadecimal.
    blake3: Option<String>,
    /// SHA-256 of the bytes, in hexadecimal.
    sha256: Option<String>,
}

/// Lists the winner and its siblings.
#[utoipa::path(tag = "blobs", params(("id" = String, Path, description = "The blob's GUID")),
    responses((status = 200, description = "The live versions, the winner first", body = Versions),
        (status = 404, description = "Unknown", content_type = "application/problem+json")))]
#[get("/blobs/{id}/versions")]
pub(super) async fn versions(id: Path<String>, context: Data<Context>) -> Result<HttpResponse, Problem> {
    let blob = id.parse::<BlobId>().map_err(Fault::from)?;
    let record = context.store.blob(blob).map_err(Fault::from)?.unwrap_or_default();
    let winner = record.winner().ok_or(Fault::Unknown(blob))?;
    let answer = Versions {
        id: blob.to_string(),
        winner: winner.id().to_string(),
        reason: reason(&record),
        versions: record.versions().iter().map(shown).collect(),
    };
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-cache")).json(answer))
}

fn shown(version: &Version) -> Shown {
    let payload = version.content.payload();
    Shown {
        version: version.id().to_string(),
        clock: version.clock.iter().map(|(node, stamp)| (node.to_string(), stamp.to_string())).collect(),
        stamp: version.stamp.to_string(),
        created: rfc3339(version.stamp),
        origin: version.origin.to_string(),
        deleted: payload.is_none(),
        size: payload.map(|payload| payload.size),
        etag: payload.map(|payload| entity_tag(&payload.hash)),
        media_type: payload.map(|payload| payload.media_type.clone()),
        file_name: payload.and_then(|payload| payload.file_name.clone()),
        blake3: payload.map(|payload| payload.hash.to_string()),
        sha256: payload.map(|payload| payload.sha256.to_string()),
    }
}

/// The rule that picked the winner, in words, with what it compared.
fn reason(record: &Record) -> String {
    match record.versions() {
        [] => "The blob was never written.".to_owned(),
        [only] => {
            format!(
                "The only live version: its vector clock includes every other write this node knows, so no rule was needed ({}).",
                only.id()
            )
        }
        [winner, second, ..] if winner.stamp > second.stamp => format!(
            "Concurrent versions: none of their vector clocks includes another, so the greatest (stamp, origin) wins. Stamp {} of origin {} is \
             greater than stamp {} of origin {}.",
            winner.stamp, winner.origin, second.stamp, second.origin
        ),
        [winner, second, ..] => format!(
            "Concurrent versions: none of their vector clocks includes another, so the greatest (stamp, origin) wins. The stamps are equal ({} and \
             {}), and origin {} is greater than origin {}.",
            winner.stamp, second.stamp, winner.origin, second.origin
        ),
    }
}

#[cfg(test)]
mod tests {
    use gossip_cdn_protocol::{Content, NodeId, Stamp, VectorClock};

    use super::*;

    fn version(node: u8, stamp: u64) -> Version {
        let origin = NodeId::from_public_key(&[node; 32]);
        let stamp = Stamp(stamp);
        Version { stamp, origin, content: Content::Tombstone, clock: VectorClock::from_iter([(origin, stamp)]) }
    }

    #[test]
    fn the_reason_names_the_rule_both_stamps_and_both_origins() {
        let (a, b) = (version(1, 5), version(2, 9));
        let text = reason(&Record::from(vec![a.clone(), b.clone()]));
        for part in [&a.stamp.to_string(), &b.stamp.to_string(), &a.origin.to_string(), &b.origin.to_string(), "greatest (stamp, origin)"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(reason(&Record::from(vec![version(1, 7), version(2, 7)])).contains("The stamps are equal"));
        assert!(reason(&Record::from(vec![a])).contains("only live version"));
    }
}
