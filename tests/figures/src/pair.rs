//! Two nodes with a cable between them, the same records and the same message history.

use std::time::Duration;

use gossip_cdn_cluster::Node;
use tempfile::TempDir;

use crate::agreement::{acquainted, introduce, same_records};
use crate::client::Client;
use crate::filling::Giver;
use crate::histories::voters;
use crate::namespaces::{Flow, Places};
use crate::report::{Broken, claim, remark};
use crate::waiting::{pause, wait};

const PATIENCE: Duration = Duration::from_secs(900);
/// How long the nodes are left to themselves before they are listened to: members and bytes are through by then.
const SETTLING: Duration = Duration::from_secs(5);

pub(crate) struct Pair {
    pub(crate) clients: Vec<Client>,
    places: Places,
    _nodes: Vec<Node>,
    _folder: TempDir,
}

impl Pair {
    /// Gives each the same so many records, and makes them known to each other.
    pub(crate) fn with(records: u64) -> Result<Self, Broken> {
        let places = Places::of(&[1, 1])?;
        let folder = TempDir::new()?;
        let data = |number: usize| folder.path().join(number.to_string());
        let flags = |number: usize| if number == 0 { &["--found"][..] } else { &[] };
        let nodes = places.all().iter().enumerate().map(|(number, place)| place.node(&data(number), flags(number)));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        let mut clients = places.all().iter().map(|place| place.client()).collect::<Result<Vec<_>, _>>()?;
        for client in &mut clients {
            // The bytes of all the records.
            client.write(b"")?;
            Giver::stranger(client)?.give(client, 0..records)?;
        }
        introduce(&mut clients[0], &places.all()[1].address())?;
        acquainted(&mut clients, 2)?;
        wait("both vote", PATIENCE, || clients.iter_mut().try_fold(true, |all, client| Ok(all && voters(client)? == 2)))?;
        let said = clients[0].send("POST", "/messages?wait=delivered", b"hello")?;
        claim(said.status == 201, || format!("a message is not delivered: {}", said.status))?;
        let mut pair = Self { clients, places, _nodes: nodes, _folder: folder };
        let took = pair.agree()?;
        remark(&format!("both have the same {records} records, {:.1} s after they met", took.as_secs_f64()));
        pause(SETTLING)?;
        Ok(pair)
    }

    /// Waits until both have the same records.
    pub(crate) fn agree(&mut self) -> Result<Duration, Broken> {
        wait("both have the same records", PATIENCE, || same_records(&mut self.clients))
    }

    /// What both have sent to each other so far.
    pub(crate) fn traffic(&self) -> Result<Flow, Broken> {
        Flow::sent(self.places.all())
    }
}
