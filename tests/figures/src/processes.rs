//! What the kernel tells of a process.

use std::time::Duration;

use crate::report::Broken;

/// Processor time that it has used so far, its own and the kernel's for it.
pub(crate) fn processor_time(pid: u32) -> Result<Duration, Broken> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, the second field, stands in parentheses and may hold anything; times are the fields 14 and 15.
    let fields = text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>()).unwrap_or_default();
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<u64>().ok());
    let (Some(user), Some(system)) = (ticks(11), ticks(12)) else {
        return Err(Broken::new("the kernel does not tell what a process used"));
    };
    Ok(Duration::from_secs(user + system) / u32::try_from(rustix::param::clock_ticks_per_second())?)
}
