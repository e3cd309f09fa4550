//! How many files the process may have open: each connection is one, and each payload that is being read.

/// Raises what is allowed to what the system would allow, and tells how many that is; `None` if it cannot be told, or there is no end to it.
///
/// A shell and a service manager start programs with 1024, for the sake of programs that use `select(2)`. None here does.
pub(super) fn raise() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is");
            limit.current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_open_what_the_system_allows_and_no_more_is_asked_for_again() {
        let allowed = raise();
        assert_eq!(allowed, rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum);
        assert_eq!(raise(), allowed);
    }
}
