//! The registry on disk: `DIR/registry.redb`.
//!
//! 1. A member that was answered is on disk, unless the disk failed; then the bootstrap goes on from memory and is not ready.
//! 2. The folder is of one cluster, and of a format that this release knows; otherwise it is left untouched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gossip_cdn_protocol::NodeId;
use redb::{
    CommitError, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError, TransactionError,
};
use uuid::Uuid;

use crate::registry::{Saved, Unsaved};

/// Node id -> JSON of [`Saved`].
const MEMBERS: TableDefinition<&[u8; 16], &str> = TableDefinition::new("members_v1");
/// `cluster` and `format` as text, `key` in 32 bytes, `founder` in 16 once somebody was named.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta_v1");
/// The format written by this release.
const FORMAT: &str = "1";
/// The registry is small and all of it is in memory anyway.
const CACHE_BYTES: usize = 4 << 20;

/// Why the registry cannot be opened. The texts are for operators and name the flag.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made.
    #[error("--data {}: the folder cannot be made: {source}; name another one", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else has it open.
    #[error("--data {}: another bootstrap uses this folder; stop it or name another folder", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// It was written by a later release.
    #[error("--data {}: the registry has format {found}, this release reads format {FORMAT}; use the newer release or another folder", dir.display())]
    NewerFormat {
        /// The folder.
        dir: PathBuf,
        /// The format found.
        found: String,
    },
    /// It belongs to another network.
    #[error("--data {}: the registry is of cluster {found:?}; start with --cluster {found:?} or name another folder", dir.display())]
    OtherCluster {
        /// The folder.
        dir: PathBuf,
        /// The cluster found.
        found: String,
    },
    /// It cannot be read.
    #[error("--data {}: the registry cannot be opened: {source}; restore the folder or name another one", dir.display())]
    Broken {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: Fault,
    },
}

/// A fault of the database or of what is in it.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The database.
    #[error("{0}")]
    Database(Box<redb::Error>),
    /// A row that cannot be read.
    #[error("a row cannot be read: {0}")]
    Row(#[from] serde_json::Error),
    /// A key of the wrong length.
    #[error("the key is damaged")]
    Key,
}

macro_rules! database_faults {
    ($($error:ty),*) => {$(
        impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )*};
}

database_faults!(TransactionError, TableError, StorageError, CommitError, DatabaseError);

/// The open registry file.
#[derive(Debug)]
pub struct Disk {
    database: Database,
}

/// What was found on disk.
#[derive(Debug)]
pub struct Found {
    /// From which this bootstrap's id is made.
    pub key: [u8; 32],
    /// The members.
    pub members: Vec<Saved>,
    /// Who was named to found the message history.
    pub founder: Option<NodeId>,
}

impl Disk {
    /// Opens the registry in `dir`, or makes one with `fresh_key`.
    pub fn open(dir: &Path, cluster: &str, fresh_key: [u8; 32]) -> Result<(Self, Found), OpenError> {
        fs::create_dir_all(dir).map_err(|source| OpenError::Folder { dir: dir.to_owned(), source })?;
        let broken = |source: Fault| OpenError::Broken { dir: dir.to_owned(), source };
        let database = match Database::builder().set_cache_size(CACHE_BYTES).create(dir.join("registry.redb")) {
            Ok(database) => database,
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(OpenError::Locked { dir: dir.to_owned() }),
            Err(error) => return Err(broken(error.into())),
        };
        let disk = Self { database };
        let Some(meta) = disk.meta().map_err(broken)? else {
            disk.found(cluster, fresh_key).map_err(broken)?;
            return Ok((disk, Found { key: fresh_key, members: Vec::new(), founder: None }));
        };
        if meta.format != FORMAT {
            return Err(OpenError::NewerFormat { dir: dir.to_owned(), found: meta.format });
        }
        if meta.cluster != cluster {
            return Err(OpenError::OtherCluster { dir: dir.to_owned(), found: meta.cluster });
        }
        let members = disk.members().map_err(broken)?;
        let key = meta.key.try_into().map_err(|_| broken(Fault::Key))?;
        let founder = meta.founder.map(|id| id.try_into().map(|id| NodeId(Uuid::from_bytes(id)))).transpose();
        let founder = founder.map_err(|_| broken(Fault::Key))?;
        Ok((disk, Found { key, members, founder }))
    }

    /// Writes all or nothing, and returns when it is durable. It blocks.
    pub fn write(&self, unsaved: &Unsaved) -> Result<(), Fault> {
        let transaction = self.database.begin_write()?;
        if let Some(founder) = unsaved.founder {
            transaction.open_table(META)?.insert("founder", founder.0.as_bytes().as_slice())?;
        }
        {
            let mut table = transaction.open_table(MEMBERS)?;
            for (id, row) in &unsaved.members {
                match row {
                    Some(saved) => _ = table.insert(id.0.as_bytes(), serde_json::to_string(saved)?.as_str())?,
                    None => _ = table.remove(id.0.as_bytes())?,
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn meta(&self) -> Result<Option<Meta>, Fault> {
        let transaction = self.database.begin_read()?;
        let table = match transaction.open_table(META) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let bytes = |name| Ok::<_, Fault>(table.get(name)?.map(|value| value.value().to_vec()).unwrap_or_default());
        let text = |name| Ok::<_, Fault>(String::from_utf8_lossy(&bytes(name)?).into_owned());
        let founder = table.get("founder")?.map(|value| value.value().to_vec());
        Ok(Some(Meta { format: text("format")?, cluster: text("cluster")?, key: bytes("key")?, founder }))
    }

    fn found(&self, cluster: &str, key: [u8; 32]) -> Result<(), Fault> {
        let transaction = self.database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert("format", FORMAT.as_bytes())?;
            meta.insert("cluster", cluster.as_bytes())?;
            meta.insert("key", key.as_slice())?;
            transaction.open_table(MEMBERS)?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn members(&self) -> Result<Vec<Saved>, Fault> {
        let table = self.database.begin_read()?.open_table(MEMBERS)?;
        let mut members = Vec::new();
        for row in table.iter()? {
            members.push(serde_json::from_str(row?.1.value())?);
        }
        Ok(members)
    }
}

struct Meta {
    format: String,
    cluster: String,
    key: Vec<u8>,
    founder: Option<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_keeps_its_key_and_its_cluster() {
        let dir = tempfile::tempdir().unwrap();
        drop(Disk::open(dir.path(), "a", [1; 32]).unwrap());
        let (disk, found) = Disk::open(dir.path(), "a", [2; 32]).unwrap();
        assert_eq!(found.key, [1; 32]);
        assert!(matches!(Disk::open(dir.path(), "a", [3; 32]), Err(OpenError::Locked { .. })));
        assert_eq!(found.founder, None);
        let founder = Some(NodeId::from_public_key(&[1; 32]));
        disk.write(&Unsaved { founder, ..Unsaved::default() }).unwrap();
        drop(disk);
        assert_eq!(Disk::open(dir.path(), "a", [2; 32]).unwrap().1.founder, founder);
        assert!(matches!(Disk::open(dir.path(), "b", [3; 32]), Err(OpenError::OtherCluster { found, .. }) if found == "a"));
    }

    #[test]
    fn a_registry_of_a_newer_format_is_left_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, _) = Disk::open(dir.path(), "a", [1; 32]).unwrap();
        let transaction = disk.database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert("format", b"2".as_slice()).unwrap();
        transaction.commit().unwrap();
        drop(disk);
        let error = Disk::open(dir.path(), "a", [1; 32]).unwrap_err();
        assert!(matches!(&error, OpenError::NewerFormat { found, .. } if found == "2"), "{error}");
        assert!(error.to_string().starts_with("--data "), "{error}");
    }

    #[test]
    fn a_file_that_is_no_registry_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("registry.redb"), "not a database, but long enough to be looked at").unwrap();
        assert!(matches!(Disk::open(dir.path(), "a", [1; 32]), Err(OpenError::Broken { .. })));
    }
}
