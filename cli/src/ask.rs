//! A person at a terminal, asked. Only when standard error is a terminal: a program that runs us and
//! reads what we say there is no person. The question and the answer go by `/dev/tty`, since standard
//! input and output carry the data of the service.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};

use cepa::identity::{KnownPeer, PeerId};
use cepa::transports::Endpoint;
use cepa::transports::endpoint::hidden;
use cepa::transports::text::clean;

use crate::exit::{Code, Failure};
use crate::folder;
use crate::words::peer_id;

/// Questions that are put once more when the answer is neither yes nor no.
const TRIES: usize = 3;

/// The terminal, where there is a person at it.
pub(crate) fn terminal() -> Option<File> {
    if !io::stderr().is_terminal() {
        return None;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .ok()
}

/// Whether a peer that was never met at this address is to be trusted there from now on.
pub(crate) async fn first_contact(
    terminal: File,
    address: &Endpoint,
    id: PeerId,
) -> Result<bool, Failure> {
    let address = clean(&address.to_string(), usize::MAX).into_owned();
    let question = match folder::known_as(id).first() {
        Some(peer) => of_known(&address, peer),
        None => question(&address, id),
    };
    let answer = tokio::task::spawn_blocking(move || ask(&terminal, &question, id)).await;
    answer
        .map_err(io::Error::other)
        .and_then(|answer| answer)
        .map_err(|e| Failure::new(Code::Other, format!("cannot ask at the terminal: {e}")))
}

/// About one that is known by its key, at another place.
fn of_known(address: &str, peer: &KnownPeer) -> String {
    format!(
        "At {address}\nyour known peer {} answered, which is\n{}.\n\
         Add this address to it? [yes/no, or paste its id] ",
        peer.name(),
        places(peer).replace(", ", ",\n")
    )
}

/// Where a peer is known.
pub(crate) fn places(peer: &KnownPeer) -> String {
    if peer.places.is_empty() {
        "known without an address".to_owned()
    } else {
        let places: Vec<String> = peer.places.iter().map(|place| hidden(place)).collect();
        let places = clean(&places.join(", "), usize::MAX).into_owned();
        format!("known at {places}")
    }
}

/// In lines that a terminal of 80 columns has room for, so that it cuts no word; an address may be longer.
fn question(address: &str, id: PeerId) -> String {
    let words = id.words();
    let mut lines = String::new();
    for (index, word) in words.split(' ').enumerate() {
        lines.push_str(if index % 8 == 0 { "\n    " } else { " " });
        lines.push_str(word);
    }
    format!(
        "At {address}\nan unknown peer answered. Its peer id is\n    {id}\n\
         or, in words,{lines}\n\
         Compare it with the id that its owner sees (`cepa id show`, or --words).\n\
         Trust it from now on? [yes/no, or paste its id] "
    )
}

/// What somebody has typed: yes, no, or neither. The peer's id, or its words, are a yes, and another one's are a no.
fn answered(line: &str, id: PeerId) -> Option<bool> {
    let line = line.trim();
    match line.to_lowercase().as_str() {
        "yes" | "y" => Some(true),
        "no" | "n" => Some(false),
        _ => peer_id(line).ok().map(|it| it == id),
    }
}

/// The end of input is a no.
fn ask(mut terminal: &File, question: &str, id: PeerId) -> io::Result<bool> {
    let mut lines = BufReader::new(terminal);
    let mut text = question;
    for _ in 0..TRIES {
        terminal.write_all(text.as_bytes())?;
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        match answered(&line, id) {
            Some(yes) => return Ok(yes),
            None => text = "Please write yes or no: ",
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_word_or_the_id_that_was_meant() {
        let (id, other) = (PeerId::from_bytes([7; 32]), PeerId::from_bytes([8; 32]));
        for yes in ["yes", "YES", "y", " Yes\r\n", &id.to_string(), &id.words()] {
            assert_eq!(answered(yes, id), Some(true), "{yes}");
        }
        let upper = format!("{}\n", id.words().to_uppercase());
        assert_eq!(answered(&upper, id), Some(true));
        for no in ["no", "N", "No\n", &other.to_string(), &other.words()] {
            assert_eq!(answered(no, id), Some(false), "{no}");
        }
        for neither in ["", "yesno", "perhaps", &id.to_string()[..51]] {
            assert_eq!(answered(neither, id), None, "{neither}");
        }
    }

    #[test]
    fn the_question_fits_a_terminal_of_80_columns() {
        let id = PeerId::from_bytes([0xa7; 32]);
        let text = question("tcp:host:7000", id);
        for line in text.lines() {
            assert!(line.len() <= 80, "{line}");
        }
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(&id.words()), "{flat}");
    }
}
