//! Many clients on one thread that go on until what is watched meanwhile has ended.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::TryStreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Runtime;

use crate::report::Broken;

/// How far the clients are.
#[derive(Debug, Default)]
struct Progress {
    asked: AtomicU64,
    answered: AtomicU64,
    over: AtomicBool,
}

/// Lets clients, each made for its number, ask one question after the other until `meanwhile` has ended, which may look at how many
/// were answered. A question is asked with its number among all of them.
pub(crate) fn under_load<T: Send, C>(
    runtime: &Runtime,
    clients: usize,
    mut client: impl AsyncFnMut(usize) -> Result<C, Broken>,
    ask: impl AsyncFn(&mut C, u64) -> Result<(), Broken>,
    meanwhile: impl FnOnce(&AtomicU64) -> Result<T, Broken> + Send,
) -> Result<T, Broken> {
    let progress = Progress::default();
    std::thread::scope(|scope| {
        let (progress, ask) = (&progress, &ask);
        let watching = scope.spawn(move || {
            let seen = meanwhile(&progress.answered);
            progress.over.store(true, Ordering::Relaxed);
            seen
        });
        let asked = runtime.block_on(async {
            let asking = FuturesUnordered::new();
            for number in 0..clients {
                let mut client = client(number).await?;
                asking.push(async move {
                    while !progress.over.load(Ordering::Relaxed) {
                        ask(&mut client, progress.asked.fetch_add(1, Ordering::Relaxed)).await?;
                        progress.answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok::<_, Broken>(())
                });
            }
            asking.try_collect::<Vec<()>>().await.map(drop)
        });
        progress.over.store(true, Ordering::Relaxed);
        let seen = watching.join().map_err(|_| Broken::new("the watch panicked"))?;
        asked.and(seen)
    })
}
