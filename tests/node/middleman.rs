//! A relay between a client and a node that stops, cuts or spoils what the node answers, at a byte that the test names.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use gossip_cdn_cluster::Node;

/// What the middleman does to the answers of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hold {
    /// Nothing.
    Never,
    /// Passes on that many bytes, and no more until it is released or cut.
    After(usize),
    /// Turns the byte at that place into another.
    SpoilAt(usize),
}

#[derive(Debug, Default)]
struct State {
    holding: bool,
    released: bool,
    cut: bool,
    requested: String,
}

/// A process of the test's own between a client and a node.
pub(crate) struct Middleman {
    /// The base URL that leads through it.
    pub(crate) url: String,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Middleman {
    /// Stands before a node.
    pub(crate) fn start(node: &Node, hold: Hold) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let (state, upstream) = (Arc::clone(&shared), node.server.authority().to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A node that is gone leaves its clients without an answer.
                let Ok(node) = TcpStream::connect(&upstream) else { continue };
                let (requests, answers) = ((client.try_clone().unwrap(), node.try_clone().unwrap()), (node, client));
                let (asking, answering) = (Arc::clone(&state), Arc::clone(&state));
                std::thread::spawn(move || record(requests, &asking));
                std::thread::spawn(move || pass(answers, hold, &answering));
            }
        });
        Self { url, shared }
    }

    /// Whether an answer is being held.
    pub(crate) fn is_holding(&self) -> bool {
        self.shared.0.lock().unwrap().holding
    }

    /// Lets everything pass from now on.
    pub(crate) fn release(&self) {
        self.shared.0.lock().unwrap().released = true;
        self.shared.1.notify_all();
    }

    /// Closes the connections that are held, and lets everything pass on later ones.
    pub(crate) fn cut(&self) {
        self.shared.0.lock().unwrap().cut = true;
        self.release();
    }

    /// What the clients have sent, in small letters.
    pub(crate) fn requested(&self) -> String {
        self.shared.0.lock().unwrap().requested.clone()
    }
}

fn record((mut client, mut node): (TcpStream, TcpStream), shared: &(Mutex<State>, Condvar)) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(length @ 1..) = client.read(&mut piece) {
        shared.0.lock().unwrap().requested.push_str(&String::from_utf8_lossy(&piece[..length]).to_lowercase());
        if node.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    // Whoever hears it may be gone.
    drop(node.shutdown(Shutdown::Write));
}

fn pass((mut node, mut client): (TcpStream, TcpStream), hold: Hold, shared: &(Mutex<State>, Condvar)) {
    let mut piece = vec![0; 64 << 10];
    let mut passed = 0;
    while let Ok(length @ 1..) = node.read(&mut piece) {
        match hold {
            Hold::SpoilAt(place) if (passed..passed + length).contains(&place) => piece[place - passed] ^= 1,
            Hold::After(most) if passed + length > most => {
                let mut state = shared.0.lock().unwrap();
                // What comes after a cut passes: only who was held then is cut off.
                let held = !state.released;
                state.holding |= held;
                while !state.released {
                    state = shared.1.wait(state).unwrap();
                }
                if held && state.cut {
                    break;
                }
            }
            Hold::Never | Hold::After(_) | Hold::SpoilAt(_) => {}
        }
        if client.write_all(&piece[..length]).is_err() {
            break;
        }
        passed += length;
    }
    drop(client.shutdown(Shutdown::Both));
    drop(node.shutdown(Shutdown::Both));
}
