//! How much memory a node takes while large blobs go in and come out.
//!
//! 1. What counts is resident memory: the greatest since the load began as the kernel tells it (VmHWM), and what is resident in the course of an
//!    upload. The system's cache of files is not part of it.
//! 2. No two blobs are alike, and what is sent is made on the way: nothing is read from the disk that the node writes to.
//! 3. Without room for the load and what the node leaves free, nothing begins.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{ScopedJoinHandle, scope, sleep};
use std::time::Duration;

use gossip_cdn_cluster::interruption::go_on;
use tempfile::TempDir;

use crate::plain;
use crate::served::Served;
use crate::table::{Failed, remark};

const GIB: u64 = 1 << 30;
/// What the node leaves free, and a little more.
const SPARE: u64 = 2 * GIB;
/// The goal: what may be resident.
const MOST: u64 = 256 << 20;
/// Between two looks at an upload.
const LOOK: Duration = Duration::from_millis(100);
/// How much more may be resident in the second half of an upload than in the first. A guess, about what an allocator does by itself.
const SLACK: u64 = 8 << 20;

/// How many, how large, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Memory {
    /// The folder to work in, on the disk that is meant; it is left as it was.
    #[arg(long, default_value = ".")]
    data: PathBuf,
    /// Uploads at once, and as many downloads.
    #[arg(long, default_value_t = 10)]
    many: u64,
    /// Bytes of each, in GiB.
    #[arg(long, default_value_t = 1)]
    each: u64,
    /// Bytes of the upload that is watched, in GiB.
    #[arg(long, default_value_t = 10)]
    long: u64,
}

/// Prints the figures.
pub(crate) fn measure(how: &Memory) -> Result<(), Failed> {
    let needed = ((how.many + 1) * how.each).max(how.long) * GIB + SPARE;
    let disk = rustix::fs::statvfs(&how.data)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < needed {
        let (free, needed) = (free / GIB, needed / GIB);
        return Err(Failed(format!("{} has {free} GiB free, {needed} are needed: name another folder with --data", how.data.display())));
    }
    let (idle, at_once) = at_once(how)?;
    let course = course(how)?;
    let mut out = io::stdout().lock();
    writeln!(out, "| quantity | resident | goal | held |\n|---|---|---|---|")?;
    writeln!(out, "| a node that nobody asks | {} MiB | | |", mib(idle))?;
    let goal = format!("at most {} MiB", mib(MOST));
    let (many, each, long) = (how.many, how.each, how.long);
    writeln!(
        out,
        "| {many} uploads and {many} downloads of {each} GiB at once | {} MiB | {goal} | {} |",
        mib(at_once),
        held(at_once <= MOST)
    )?;
    let [first, second] = course.halves();
    let told = format!("first half up to {} MiB, second half up to {} MiB", mib(first), mib(second));
    let flat = second <= first + SLACK && first <= MOST;
    writeln!(out, "| one upload of {long} GiB, {} looks | {told} | {goal}, constant | {} |", course.0.len(), held(flat))?;
    Ok(())
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

fn held(is: bool) -> &'static str {
    if is { "yes" } else { "**no**" }
}

/// Uploads and downloads at once: what is resident before, and the most meanwhile.
fn at_once(how: &Memory) -> Result<(u64, u64), Failed> {
    let folder = TempDir::new_in(&how.data)?;
    let node = Served::start(folder.path())?;
    let idle = node.resident()?;
    let (authority, size) = (node.server.authority(), how.each * GIB);
    plain::put_made(authority, &path(0), size, 0)?;
    node.forget_peak()?;
    remark(&format!("{} uploads and as many downloads begin", how.many));
    scope(|scope| {
        let uploads = (1..=how.many).map(|number| scope.spawn(move || plain::put_made(authority, &path(number), size, number)));
        let downloads = (1..=how.many).map(|_| scope.spawn(|| plain::get(authority, &path(0), size)));
        let all: Vec<_> = uploads.collect::<Vec<_>>().into_iter().chain(downloads.collect::<Vec<_>>()).collect();
        all.into_iter().try_for_each(|one| ended(one).map(drop))
    })?;
    Ok((idle, node.peak()?))
}

fn path(number: u64) -> String {
    format!("/blobs/00000000-0000-4000-8000-{number:012}")
}

fn ended(load: ScopedJoinHandle<'_, Result<f64, Failed>>) -> Result<f64, Failed> {
    load.join().map_err(|_| Failed("a client panicked".to_owned()))?
}

/// What was resident, look by look.
struct Course(Vec<u64>);

impl Course {
    /// The most in the first half, and in the second.
    fn halves(&self) -> [u64; 2] {
        let (first, second) = self.0.split_at(self.0.len() / 2);
        [first, second].map(|half| half.iter().copied().max().unwrap_or_default())
    }
}

/// One long upload, and what is resident in its course.
fn course(how: &Memory) -> Result<Course, Failed> {
    let folder = TempDir::new_in(&how.data)?;
    let node = Served::start(folder.path())?;
    remark(&format!("an upload of {} GiB begins", how.long));
    let over = AtomicBool::new(false);
    scope(|scope| {
        let upload = scope.spawn(|| {
            let uploaded = plain::put_made(node.server.authority(), &path(1), how.long * GIB, 1);
            over.store(true, Ordering::Relaxed);
            uploaded
        });
        let mut looks = Vec::new();
        while !over.load(Ordering::Relaxed) {
            looks.push(node.resident()?);
            go_on()?;
            sleep(LOOK);
        }
        ended(upload).map(|_| Course(looks))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_of_a_course_are_told_apart() {
        assert_eq!(Course(vec![1, 5, 2, 7, 3]).halves(), [5, 7]);
        assert_eq!(Course(vec![]).halves(), [0, 0]);
    }

    #[test]
    fn nothing_begins_without_room() {
        let data = TempDir::new().unwrap();
        let how = Memory { data: data.path().to_owned(), many: 1 << 20, each: 1 << 10, long: 1 };
        let Err(Failed(why)) = measure(&how) else { panic!("there are no pebibytes here") };
        assert!(why.contains("GiB free"), "{why}");
        assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 0);
    }
}
