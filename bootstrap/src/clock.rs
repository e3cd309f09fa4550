//! The only reader of the operating system's time and entropy in this crate; a clippy ban guards the time.

use gossip_cdn_protocol::{Instant, Now, WallTime};
use rand::TryRng;
use rand::rngs::{SysError, SysRng};

/// Both clocks, of which the monotonic one starts at zero.
#[derive(Debug, Clone)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// Starts at zero.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn start() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    /// What time it is.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn now(&self) -> Now {
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Now {
            instant: Instant(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)),
            wall: WallTime(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// Thirty-two random bytes.
pub fn entropy() -> Result<[u8; 32], SysError> {
    let mut bytes = [0; 32];
    SysRng.try_fill_bytes(&mut bytes)?;
    Ok(bytes)
}
