//! Downloads and uploads, row by row: the same load for the node and for its peer, in turn.
//!
//! 1. Both have what they serve in the system's memory when it is measured: it is read once before.
//! 2. The turns of a pair follow each other at once, and who begins alternates.
//! 3. Every turn of uploads begins with an empty folder, on a disk that has everything that was written before: nobody waits for another's writes.
//! 4. Small files stay until all rows are measured. ext4 looks for a free inode among those freed in the last minutes, one by one: thousands of files
//!    that were just removed would slow down whoever makes the next ones.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use gossip_cdn_cluster::interruption::go_on;
use gossip_cdn_cluster::send;
use tempfile::TempDir;

use crate::load::Load;
use crate::nginx::Nginx;
use crate::rows::{ROWS, SMALL, Work};
use crate::served::Served;
use crate::table::{Failed, Row, Table, Unit, median, remark};
use crate::{Bytes, plain};

/// Measures the rows that are asked for.
pub(crate) fn measure(how: &Bytes) -> Result<Table, Failed> {
    let asked = how.rows.as_deref().unwrap_or_default().to_lowercase();
    let (mut table, mut folders) = (Table::default(), Vec::new());
    remark("Garage is not started here: its figures are those that were recorded on a machine of this kind, and are named so");
    for plan in ROWS.iter().filter(|plan| plan.what.to_lowercase().starts_with(&asked)) {
        let folder = TempDir::new_in(&how.data)?;
        let (turns, memory) = match plan.work {
            Work::Get { size, blobs } => Gets::new(folder.path(), size, blobs)?.measure(how)?,
            Work::GetLarge { size } => GetLarge::new(folder.path(), size)?.measure(how)?,
            Work::Put { size } => puts(folder.path(), how, size)?,
            Work::PutLarge { size } => put_large(folder.path(), how, size)?,
        };
        table.add(Row { what: plan.what.to_owned(), unit: plan.unit(), turns, peer: plan.peer(), goal: plan.goal, memory });
        if plan.work.leaves_small_files() {
            folders.push(folder);
        }
    }
    Ok(table)
}

/// The figures of a row, turn by turn, and the most memory the node had.
type Measured = (Vec<(f64, f64)>, u64);

/// Both in turn, so often; who begins alternates.
fn in_turn(
    pairs: usize,
    mut ours: impl FnMut(usize) -> Result<f64, Failed>,
    mut theirs: impl FnMut(usize) -> Result<f64, Failed>,
) -> Result<Vec<(f64, f64)>, Failed> {
    (0..pairs)
        .map(|turn| {
            if turn.is_multiple_of(2) {
                let first = ours(turn)?;
                Ok((first, theirs(turn)?))
            } else {
                let first = theirs(turn)?;
                Ok((ours(turn)?, first))
            }
        })
        .collect()
}

/// Bytes that are not all the same, `seed` making them others.
fn noise(size: u64, seed: usize) -> Vec<u8> {
    // xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
    let mut state = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(usize::try_from(size).unwrap_or(usize::MAX)).collect()
}

/// A node and an nginx that have the same blobs.
struct Gets {
    node: Served,
    nginx: Nginx,
    /// What they are called at each: one, or a list in a file.
    paths: [Paths; 2],
}

enum Paths {
    One(String),
    Listed(String),
}

impl Gets {
    fn new(folder: &Path, size: u64, blobs: usize) -> Result<Self, Failed> {
        let (node, nginx) = (Served::start(&folder.join("node"))?, Nginx::start(&folder.join("nginx"))?);
        // Several at once: each waits for the disk.
        const UPLOADERS: usize = 32;
        let uploaded = std::thread::scope(|scope| {
            let uploader = |first| (first..blobs).step_by(UPLOADERS).map(|number| upload(&node, &nginx, size, number)).collect::<Vec<_>>();
            let uploaders: Vec<_> = (0..UPLOADERS.min(blobs)).map(|first| scope.spawn(move || uploader(first))).collect();
            let panicked = |_| Failed("an uploader panicked".to_owned());
            uploaders.into_iter().map(|uploader| uploader.join().map_err(panicked)).collect::<Result<Vec<_>, _>>()
        })?;
        let (ours, theirs) = uploaded.into_iter().flatten().collect::<Result<_, _>>()?;
        let paths = [Paths::new(ours, &folder.join("node/paths"))?, Paths::new(theirs, &folder.join("nginx/paths"))?];
        Ok(Self { node, nginx, paths })
    }

    fn measure(&self, how: &Bytes) -> Result<Measured, Failed> {
        let [ours, theirs] = &self.paths;
        let (node, nginx) = (self.node.server.authority(), self.nginx.authority.as_str());
        // Once to warm up; not counted.
        ours.load(how, 1, node)?;
        theirs.load(how, 1, nginx)?;
        self.node.forget_peak()?;
        let turns = in_turn(how.pairs, |_| ours.load(how, how.seconds, node), |_| theirs.load(how, how.seconds, nginx))?;
        Ok((turns, self.node.peak()?))
    }
}

impl Paths {
    fn new(mut names: Vec<String>, list: &Path) -> Result<Self, Failed> {
        if names.len() == 1 {
            return Ok(Self::One(names.remove(0)));
        }
        fs::write(list, names.join("\n"))?;
        fs::write(list.with_extension("lua"), include_str!("get.lua"))?;
        Ok(Self::Listed(list.display().to_string()))
    }

    fn load(&self, how: &Bytes, seconds: u64, authority: &str) -> Result<f64, Failed> {
        let load = Load { connections: how.connections, seconds, script: None };
        match self {
            Self::One(path) => load.give(&format!("http://{authority}{path}")),
            Self::Listed(list) => {
                let script = Path::new(list).with_extension("lua");
                Load { script: Some((&script, std::slice::from_ref(list))), ..load }.give(&format!("http://{authority}/"))
            }
        }
    }
}

/// Gives both a blob of noise; what it is called at each.
fn upload(node: &Served, nginx: &Nginx, size: u64, number: usize) -> Result<(String, String), Failed> {
    go_on()?;
    let bytes = noise(size, number);
    let answer = send("PUT", &format!("{}/{number}", node.server.url), &[], Some(&bytes));
    let link = answer.text();
    let path = link.trim().strip_prefix(&node.server.url).filter(|_| answer.status == 201);
    let path = path.ok_or_else(|| Failed(format!("an upload was answered with {}: {link}", answer.status)))?;
    fs::write(nginx.files.join(number.to_string()), &bytes)?;
    Ok((path.to_owned(), format!("/{number}")))
}

/// A node and an nginx that have the same large blob.
struct GetLarge {
    node: Served,
    nginx: Nginx,
    path: String,
    size: u64,
}

impl GetLarge {
    fn new(folder: &Path, size: u64) -> Result<Self, Failed> {
        let (node, nginx) = (Served::start(&folder.join("node"))?, Nginx::start(&folder.join("nginx"))?);
        let file = nginx.files.join("large");
        fill(&file, size)?;
        // Under a name that is chosen, so that no answer has to be read.
        let path = "/blobs/00000000-0000-4000-8000-000000000001".to_owned();
        plain::put(node.server.authority(), &path, &file)?;
        Ok(Self { node, nginx, path, size })
    }

    fn measure(&self, how: &Bytes) -> Result<Measured, Failed> {
        let ours = || plain::get(self.node.server.authority(), &self.path, self.size);
        let theirs = || plain::get(&self.nginx.authority, "/large", self.size);
        ours()?;
        theirs()?;
        self.node.forget_peak()?;
        let (file, mut limits) = (self.nginx.files.join("large"), Vec::new());
        let turns = in_turn(
            how.pairs,
            |_| ours(),
            |_| {
                limits.push(plain::get_from_a_loop(&file, self.size)?);
                theirs()
            },
        )?;
        let limit = Unit::Bytes.show(median(limits.into_iter()));
        remark(&format!("a loop that reads that file and writes it to the connection, and does nothing else: {limit}"));
        Ok((turns, self.node.peak()?))
    }
}

/// Makes a file of that size.
fn fill(file: &Path, size: u64) -> io::Result<()> {
    let piece = noise(1 << 20, 1);
    let mut file = File::create(file)?;
    let mut left = size;
    // Each piece differs from the one before, or a clever disk would keep one.
    while left > 0 {
        file.write_all(&left.to_le_bytes())?;
        let rest = (left - 8).min(piece.len() as u64 - 8);
        io::copy(&mut piece.as_slice().take(rest), &mut file)?;
        left -= rest + 8;
    }
    file.sync_all()
}

fn puts(folder: &Path, how: &Bytes, size: u64) -> Result<Measured, Failed> {
    let script = folder.join("put.lua");
    fs::write(&script, include_str!("put.lua"))?;
    let put = |authority: &str, turn: usize| {
        let arguments = [size.to_string(), turn.to_string()];
        let load = Load { connections: how.connections, seconds: how.seconds, script: Some((&script, &arguments)) };
        load.give(&format!("http://{authority}/"))
    };
    let mut memory = 0;
    let ours = |turn| {
        let folder = Turn::new(folder, size)?;
        let node = Served::start(&folder.path)?;
        let rate = put(node.server.authority(), turn)?;
        memory = memory.max(node.peak()?);
        Ok(rate)
    };
    let theirs = |turn| {
        let folder = Turn::new(folder, size)?;
        let nginx = Nginx::start(&folder.path)?;
        put(&nginx.authority, turn)
    };
    let turns = in_turn(how.pairs, ours, theirs)?;
    Ok((turns, memory))
}

/// A folder for one turn of uploads.
struct Turn {
    path: PathBuf,
    /// `None`: it stays with the folder of its row.
    _removed: Option<TempDir>,
}

impl Turn {
    fn new(row: &Path, size: u64) -> Result<Self, Failed> {
        rustix::fs::syncfs(File::open(row)?)?;
        let folder = TempDir::new_in(row)?;
        if size < SMALL {
            Ok(Self { path: folder.keep(), _removed: None })
        } else {
            Ok(Self { path: folder.path().to_owned(), _removed: Some(folder) })
        }
    }
}

fn put_large(folder: &Path, how: &Bytes, size: u64) -> Result<Measured, Failed> {
    let file = folder.join("large");
    fill(&file, size)?;
    let mut memory = 0;
    let ours = |_| {
        rustix::fs::syncfs(File::open(folder)?)?;
        let folder = TempDir::new_in(folder)?;
        let node = Served::start(folder.path())?;
        let rate = plain::put(node.server.authority(), "/large", &file)?;
        memory = memory.max(node.peak()?);
        Ok(rate)
    };
    let theirs = |_| {
        rustix::fs::syncfs(File::open(folder)?)?;
        let folder = TempDir::new_in(folder)?;
        plain::dd(&file, &folder.path().join("large"))
    };
    let turns = in_turn(how.pairs, ours, theirs)?;
    Ok((turns, memory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_begins_alternates() {
        let order = std::cell::RefCell::new(Vec::new());
        let note = |who: f64| {
            order.borrow_mut().push(who);
            Ok(who)
        };
        let turns = in_turn(3, |_| note(1.0), |_| note(2.0)).unwrap();
        assert_eq!(turns, [(1.0, 2.0); 3]);
        assert_eq!(order.into_inner(), [1.0, 2.0, 2.0, 1.0, 1.0, 2.0]);
    }

    #[test]
    fn a_file_has_the_size_that_was_asked_for() {
        let folder = TempDir::new().unwrap();
        for size in [1 << 20, (3 << 20) + 100] {
            let file = folder.path().join("file");
            fill(&file, size).unwrap();
            assert_eq!(fs::metadata(&file).unwrap().len(), size);
        }
    }

    #[test]
    fn no_two_blobs_are_alike() {
        assert_ne!(noise(1024, 1), noise(1024, 2));
        assert_eq!(noise(1000, 1).len(), 1000);
    }
}
