//! What other nodes say of themselves, asked when somebody looks.
//!
//! None of it travels with gossip: an idle exchange stays as small as it is, and where nobody looks nothing is asked.
//!
//! 1. However many look, a round of questions begins at most once in [`PAUSE`], asks at most [`AT_ONCE`] members, those asked longest ago first,
//!    and is over after [`PATIENCE`].
//! 2. A report is numbers and short words of an answer that names the member's own id. A member's address is its own word: whatever else
//!    answers there, nothing of it is passed on.
//! 3. Of a node that is no member any more nothing is kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use gossip_cdn_bootstrap::registry::Report;
use gossip_cdn_protocol::io::MemberView;
use gossip_cdn_protocol::summary::Root;
use gossip_cdn_protocol::wire::Program;
use gossip_cdn_protocol::{MemberState, NodeId};
use serde::Deserialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::Peers;

/// How long after a round the next one may begin: half of how often a page asks.
const PAUSE: Duration = Duration::from_secs(2);
/// Most members asked in a round: a page in a network of 200 sees each one anew every half a minute.
const AT_ONCE: usize = 32;
/// How long a round may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a member said, and when.
pub type Said = (Report, Instant);

/// What was heard of each member.
#[derive(Debug, Default)]
pub struct Reports(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    round: Option<Instant>,
    members: BTreeMap<NodeId, Known>,
}

#[derive(Debug, Default)]
struct Known {
    asked: Option<Instant>,
    said: Option<Said>,
}

impl Reports {
    /// Asks living members, if it is time to, and gives what is known of all members. `peers` belongs to the thread that calls.
    pub async fn survey(&self, peers: &Peers, members: &[MemberView]) -> BTreeMap<NodeId, Said> {
        let due = self.due(members);
        let asked = due.into_iter().map(async |(id, address)| (id, peers.status(&address, PATIENCE).await));
        for (id, answer) in join_all(asked).await {
            if let Some(report) = answer.as_deref().and_then(|body| report_of(id, body)) {
                self.heard().members.entry(id).or_default().said = Some((report, Instant::now()));
            }
        }
        let heard = self.heard();
        heard.members.iter().filter_map(|(id, known)| Some((*id, known.said.clone()?))).collect()
    }

    /// Begins a round: whom to ask, and where.
    fn due(&self, members: &[MemberView]) -> Vec<(NodeId, String)> {
        let now = Instant::now();
        let mut heard = self.heard();
        heard.members.retain(|id, _| members.iter().any(|view| view.member.id == *id));
        if heard.round.is_some_and(|round| now.duration_since(round) < PAUSE) {
            return Vec::new();
        }
        heard.round = Some(now);
        let alive = members.iter().filter(|view| !view.is_self && view.member.state == MemberState::Alive);
        let mut due: Vec<&MemberView> = alive.collect();
        due.sort_by_key(|view| heard.members.get(&view.member.id).and_then(|known| known.asked));
        due.truncate(AT_ONCE);
        for view in &due {
            heard.members.entry(view.member.id).or_default().asked = Some(now);
        }
        due.into_iter().map(|view| (view.member.id, view.member.address.clone())).collect()
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        // A panic in between would leave an older report, and no rule broken.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The report in an answer, if it is that node's.
fn report_of(id: NodeId, body: &[u8]) -> Option<Report> {
    #[derive(Deserialize)]
    struct Status {
        id: NodeId,
        #[serde(flatten)]
        program: Program,
        payload_bytes: u64,
        root: Root,
        wanted: u64,
        history: Messages,
        epoch: Epoch,
    }
    #[derive(Deserialize)]
    struct Messages {
        messages: u64,
    }
    #[derive(Deserialize)]
    struct Epoch {
        history: Option<Uuid>,
    }
    let Status { id: said, program, payload_bytes, root, wanted, history, epoch } = serde_json::from_slice(body).ok()?;
    let report = Report {
        records: root.count,
        payload_bytes,
        root,
        wanted,
        messages: history.messages,
        history: epoch.history,
        program: Some(program),
    };
    (said == id && report.program.as_ref().is_some_and(Program::is_plain)).then_some(report)
}

#[cfg(test)]
mod tests {
    use actix_web::{App, HttpResponse, HttpServer, web};
    use gossip_cdn_protocol::{Member, PublicKey};

    use super::*;

    fn view(number: u8, address: &str) -> MemberView {
        let key = [number; 32];
        let id = NodeId::from_public_key(&key);
        let member = Member { id, address: address.to_owned(), incarnation: 1, state: MemberState::Alive, key: PublicKey(key) };
        MemberView { member, is_self: number == 0, last_heard: None }
    }

    fn status(id: NodeId) -> serde_json::Value {
        serde_json::json!({
            "id": id, "version": "1.2.3", "blobs": 7, "records": 9, "payload_bytes": 4096, "wanted": 2, "root": Root { sum: 5, count: 9 },
            "history": { "messages": 3, "slot": 1 }, "epoch": { "history": Uuid::from_u128(1), "number": 1 }, "counters": { "x": 1 },
        })
    }

    fn told(id: NodeId, change: impl FnOnce(&mut serde_json::Value)) -> Option<Report> {
        let mut status = status(id);
        change(&mut status);
        report_of(id, status.to_string().as_bytes())
    }

    #[test]
    fn only_what_names_the_member_and_is_plain_is_passed_on() {
        let (id, other) = (NodeId::from_public_key(&[1; 32]), NodeId::from_public_key(&[2; 32]));
        let report = told(id, |_| ()).unwrap();
        assert_eq!(report.program, Some(Program { version: "1.2.3".into(), blobs: 7 }));
        assert_eq!((report.records, report.payload_bytes, report.wanted, report.messages), (9, 4096, 2, 3));
        assert_eq!((report.root, report.history), (Root { sum: 5, count: 9 }, Some(Uuid::from_u128(1))));
        assert_eq!(told(id, |status| status["id"] = other.to_string().into()), None);
        for version in ["1.2 <b>", "\u{202e}1", &"1".repeat(33)] {
            assert_eq!(told(id, |status| status["version"] = version.into()), None, "{version}");
        }
        assert_eq!(told(id, |status| status["root"] = "secret".into()), None);
        assert!(told(id, |status| status["epoch"]["history"] = serde_json::Value::Null).is_some_and(|report| report.history.is_none()));
        assert_eq!(report_of(id, b"<html>another server</html>"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn members_are_asked_in_turns_however_many_look() {
        let reports = Reports::default();
        let mut members: Vec<MemberView> = (0..=100).map(|number| view(number, "http://127.0.0.1:1")).collect();
        let mut asked = BTreeMap::new();
        for _ in 0..4 {
            let due = reports.due(&members);
            assert_eq!(due.len(), AT_ONCE);
            due.into_iter().for_each(|(id, _)| *asked.entry(id).or_insert(0) += 1);
            assert_eq!(reports.due(&members), [], "another reader, at the same time");
            tokio::time::advance(PAUSE).await;
        }
        assert_eq!(asked.len(), 100, "everybody but the node itself, before anybody a third time");
        assert!(asked.values().all(|times| *times <= 2));
        members.truncate(3);
        members[2].member.state = MemberState::Dead;
        assert_eq!(reports.due(&members).len(), 1, "the dead are not asked");
        assert_eq!(reports.heard().members.len(), 2, "nothing is kept of who is no member any more");
    }

    #[actix_web::test]
    async fn who_does_not_answer_keeps_nobody_waiting_and_what_was_said_before_stays() {
        let id = view(1, "").member.id;
        let answers = move || {
            let well = web::get().to(move || async move { HttpResponse::Ok().json(status(id)) });
            let never = web::get().to(std::future::pending::<HttpResponse>);
            App::new().route("/status", well).route("/never/status", never)
        };
        let server = HttpServer::new(answers).workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", server.addrs()[0]);
        actix_web::rt::spawn(server.run());
        let (reports, peers) = (Reports::default(), Peers::new());
        // The second is another node than the one that answers at its address.
        let members = [view(0, &address), view(1, &address), view(2, &address), view(3, &format!("{address}/never"))];
        let said = reports.survey(&peers, &members).await;
        assert_eq!(said.keys().collect::<Vec<_>>(), [&id]);
        let gone = [view(0, &address), view(1, "http://127.0.0.1:1")];
        assert_eq!(reports.survey(&peers, &gone).await, said);
    }
}
