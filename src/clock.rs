//! The only reader of the operating system's time and entropy.

use std::time::SystemTime;

use gossip_cdn_protocol::{Instant, Now, WallTime};
use rand::TryRng;

/// The two clocks of this process. Copies share their origin.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock whose monotonic part begins now.
    #[expect(clippy::new_without_default, reason = "a clock that starts by default would hide that time is read here")]
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads OS time")]
    pub fn new() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    /// What time it is.
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads OS time")]
    pub fn now(&self) -> Now {
        // A clock before 1970 reads as 1970: stamps stay in order whatever it says.
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { instant: self.instant(), wall: WallTime(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)) }
    }

    fn instant(&self) -> Instant {
        Instant(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// How long until `instant`; zero if it has passed.
    pub fn until(&self, instant: Instant) -> std::time::Duration {
        instant.since(self.instant())
    }

    /// How long ago this clock began.
    pub fn uptime(&self) -> std::time::Duration {
        self.origin.elapsed()
    }
}

/// 32 bytes from the operating system's generator: a key or a seed.
pub fn entropy() -> std::io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(|fault| std::io::Error::other(format!("no entropy: {fault}")))?;
    Ok(bytes)
}
