//! Waiting that ends when somebody wants an end.

use std::time::{Duration, Instant};

use gossip_cdn_cluster::interruption::go_on;

use crate::report::Broken;

/// Waits until the claim holds; how long that took.
pub(crate) fn wait(what: &str, patience: Duration, mut claim: impl FnMut() -> Result<bool, Broken>) -> Result<Duration, Broken> {
    let start = Instant::now();
    while !claim()? {
        go_on()?;
        if start.elapsed() > patience {
            return Err(Broken::new(format!("not within {patience:?}: {what}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(start.elapsed())
}

/// Waits.
pub(crate) fn pause(duration: Duration) -> Result<(), Broken> {
    let start = Instant::now();
    while start.elapsed() < duration {
        go_on()?;
        std::thread::sleep(Duration::from_millis(100).min(duration));
    }
    Ok(())
}
