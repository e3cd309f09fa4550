//! What the core does most often: records merged, written and read as peers send them, hashed for the set that is compared, and sets compared.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use gossip_cdn_protocol::item::ItemHasher;
use gossip_cdn_protocol::sketch::{Decoder, Sketch, SketchHasher};
use gossip_cdn_protocol::wire::Entry;
use gossip_cdn_protocol::{BlobId, Content, ContentHash, NodeId, Payload, Record, Sha256Digest, Stamp, VectorClock, Version};
use uuid::Uuid;

/// One write of that node, which had seen what the clock says.
fn version(node: u8, stamp: u64, seen: &VectorClock) -> Version {
    let origin = NodeId::from_public_key(&[node; 32]);
    let mut clock = seen.clone();
    clock.include(origin, Stamp(stamp));
    let payload = Payload {
        hash: ContentHash([node; 32]),
        sha256: Sha256Digest([node; 32]),
        size: 1024,
        media_type: "image/jpeg".to_owned(),
        file_name: Some("photo of a summer.jpg".to_owned()),
    };
    Version { stamp: Stamp(stamp), origin, content: Content::Payload(payload), clock }
}

/// A record of so many concurrent versions, whose writers had all seen an earlier one.
fn record(siblings: u8) -> Record {
    let mut seen = VectorClock::default();
    seen.include(NodeId::from_public_key(&[255; 32]), Stamp(1));
    let mut record = Record::default();
    for node in 0..siblings {
        record.insert(version(node, 1000 + u64::from(node), &seen));
    }
    record
}

/// Items without a pattern: an odd multiplier walks through all numbers.
fn items(from: u128, count: usize) -> impl Iterator<Item = u128> {
    let step = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645_u128;
    (from..).map(move |n| n.wrapping_mul(step)).take(count)
}

fn sketch(items: impl Iterator<Item = u128>) -> Sketch {
    let mut sketch = Sketch::new(SketchHasher::new("bench"), 4096);
    items.for_each(|item| sketch.insert(item));
    sketch
}

fn records(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    for siblings in [1, 4] {
        let (known, mut news) = (record(siblings), Record::default());
        news.insert(version(9, 2000, &known.join()));
        group.bench_function(format!("merge a write over {siblings}"), |bench| {
            bench.iter_batched(|| known.clone(), |mut record| record.merge(black_box(&news)), BatchSize::SmallInput);
        });
        group.bench_function(format!("merge {siblings} that are known"), |bench| {
            let mut record = known.clone();
            bench.iter(|| record.merge(black_box(&known)));
        });
        let entry = Entry { id: BlobId(Uuid::from_u128(1)), versions: known };
        let json = serde_json::to_vec(&entry).unwrap_or_default();
        group.bench_function(format!("encode {siblings}"), |bench| bench.iter(|| serde_json::to_vec(black_box(&entry))));
        group.bench_function(format!("decode {siblings}"), |bench| bench.iter(|| serde_json::from_slice::<Entry>(black_box(&json))));
        let hasher = ItemHasher::new("bench");
        group.bench_function(format!("item of {siblings}"), |bench| {
            bench.iter(|| hasher.item(black_box(entry.id), black_box(&entry.versions)));
        });
    }
    group.finish();
}

fn sketches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sketch");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("insert", |bench| {
        bench.iter_batched_ref(
            || sketch(items(0, 10)),
            |sketch| items(1_000_000, 1000).for_each(|item| sketch.insert(item)),
            BatchSize::LargeInput,
        );
    });
    for differences in [1_usize, 12, 100, 2000] {
        let (theirs, ours) = (sketch(items(0, 10_000 + differences)), sketch(items(0, 10_000)));
        let cells = gossip_cdn_protocol::sketch::cells_for(differences).min(4096);
        group.throughput(Throughput::Elements(differences as u64));
        group.bench_function(format!("decode {differences}"), |bench| {
            bench.iter_batched_ref(
                || Decoder::new(SketchHasher::new("bench"), i128::try_from(differences).unwrap_or(i128::MAX)),
                |decoder| decoder.extend(black_box(&theirs.cells()[..cells]), black_box(&ours.cells()[..cells])),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, records, sketches);
criterion_main!(benches);
