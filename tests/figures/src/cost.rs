//! What a process has cost so far, as the kernel tells it in `/proc`: unlike wall time it says much on a machine that others use too.

use std::fmt::Display;
use std::fs;
use std::time::Duration;

use crate::report::{Broken, Report};

/// Clock ticks a second: what Linux shows times in, whatever its own clock.
const TICKS: u64 = 100;

/// Of one process, since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cost {
    user: Duration,
    system: Duration,
    /// Bytes it had written to disk.
    written: u64,
    /// The most memory it ever had, in bytes.
    memory: u64,
}

/// Notes what the process has cost so far.
pub(crate) fn note(report: &mut Report, who: &str, pid: u32) -> Result<(), Broken> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
    let cost = Cost::read(&read("stat")?, &read("io")?, &read("status")?).ok_or_else(|| Broken::new("/proc is not as it used to be"))?;
    report.note(&format!("{who}: processor time, user and system; written to disk; most memory"), &cost.to_string());
    Ok(())
}

impl Cost {
    fn read(stat: &str, io: &str, status: &str) -> Option<Self> {
        // The name of the program, in parentheses, may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let time = |field: usize| Some(Duration::from_millis(fields.get(field)?.parse::<u64>().ok()? * (1000 / TICKS)));
        let number =
            |text: &str, name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
        let memory = number(status, "VmHWM:").map(|kibibytes: u64| kibibytes << 10)?;
        Some(Self { user: time(11)?, system: time(12)?, written: number(io, "write_bytes:")?, memory })
    }
}

impl Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (user, system) = (self.user.as_secs_f64(), self.system.as_secs_f64());
        write!(f, "{user:.1} s and {system:.1} s; {} MB; {} MB", self.written / 1_000_000, self.memory / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_of_a_process_is_read() {
        let stat = "42 (a name) with) S 1 42 42 0 -1 4194304 100 0 0 0 1234 56 0 0 20 0 9 0 100 1000 200";
        let cost =
            Cost::read(stat, "rchar: 1\nwrite_bytes: 3000000\ncancelled_write_bytes: 0\n", "Name:\tx\nVmHWM:\t    2000 kB\n").unwrap();
        let (user, system) = (Duration::from_millis(12_340), Duration::from_millis(560));
        assert_eq!(cost, Cost { user, system, written: 3_000_000, memory: 2_048_000 });
        assert_eq!(cost.to_string(), "12.3 s and 0.6 s; 3 MB; 2 MB");
        assert_eq!(Cost::read("", "", ""), None);
    }

    #[test]
    fn this_process_has_cost_something() {
        let mut report = Report::default();
        note(&mut report, "this one", std::process::id()).unwrap();
    }
}
