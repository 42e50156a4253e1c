//! A client: joins, opens a conversation with everyone it is introduced to, and takes those that others open.

use std::sync::Arc;
use std::time::Duration;

use cepa::identity::{AcceptAny, Identity, KeyKind};
use cepa::node::{Access, Hint, Node, NodeConfig, PeerAddr};
use cepa::protocols::introduction::{Introduction, Introductions};
use cepa::protocols::relay::Relays;
use cepa::session::ServiceStream;
use cepa::transports::text::clean;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::sync::broadcast;

use crate::Outcome;

/// Lines of ours that a slow reader may be behind.
const BEHIND: usize = 64;

pub(crate) async fn run(name: &str, server: &str, at: Option<&str>) -> Outcome<()> {
    let server: PeerAddr = server.parse()?;
    // Strangers get nothing but what they were introduced to.
    let config = NodeConfig::new(Identity::generate(KeyKind::Ed25519)?, Arc::new(AcceptAny));
    let node = Node::new(config);
    let (relays, introductions) = (Relays::on(&node)?, Introductions::on(&node)?);
    let (say, _) = broadcast::channel::<String>(BEHIND);

    let (us, says) = (name.to_owned(), say.clone());
    introductions.introducers("chat", Access::peers([server.peer()]));
    node.serve("chat", Access::Nobody, move |call| {
        let (us, says) = (us.clone(), says.subscribe());
        async move {
            let way = way(call.path().is_direct());
            let Ok(stream) = call.accept().await else {
                return;
            };
            let mut lines = BufReader::new(stream).lines();
            if let Ok(Some(them)) = lines.next_line().await {
                let _ = talk(&us, &them, way, lines, says).await;
            }
        }
    })?;
    let hint = if let Some(at) = at {
        Hint::Direct(node.listen(&at.parse()?).await?)
    } else {
        relays.register(&server).await?;
        format!("relay:{}", server.to_string().trim_start_matches("cepa://")).parse()?
    };
    let own = PeerAddr::new(node.id())
        .with_hint(hint)?
        .with_service("chat")?;

    let mut server = BufReader::new(node.open(&server.with_service("join")?).await?);
    server
        .write_all(format!("{name} {own}\n").as_bytes())
        .await?;
    server.flush().await?;
    let mut others = server.lines();
    while let Some(line) = others.next_line().await? {
        let Some((them, introduction)) = line.split_once(' ') else {
            break;
        };
        let introduction: Introduction = introduction.parse()?;
        let mut stream = introductions.open(&introduction).await?;
        stream.write_all(format!("{name}\n").as_bytes()).await?;
        stream.flush().await?;
        let peer = introduction.address().map(PeerAddr::peer);
        let sessions = node.sessions();
        let session = sessions.iter().find(|(id, ..)| Some(*id) == peer);
        let way = way(session.is_some_and(|(_, path, _)| path.is_direct()));
        println!("{name}: introduced to {them}, {way}");
        let (us, them, says) = (name.to_owned(), them.to_owned(), say.subscribe());
        let lines = BufReader::new(stream).lines();
        tokio::spawn(async move { talk(&us, &them, way, lines, says).await });
    }
    println!("{name}: ready");

    let mut typed = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = typed.next_line().await? {
        // Nobody there is nobody's error.
        let _ = say.send(line);
    }
    node.shutdown(Duration::from_secs(1)).await;
    Ok(())
}

fn way(direct: bool) -> &'static str {
    if direct {
        "directly"
    } else {
        "through the relay"
    }
}

/// One conversation, to its end.
async fn talk(
    us: &str,
    them: &str,
    way: &str,
    mut lines: Lines<BufReader<ServiceStream>>,
    mut says: broadcast::Receiver<String>,
) -> Outcome<()> {
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => {
                    // It does nothing to our terminal but stand there.
                    let line = clean(&line, 4096);
                    println!("{us}: {them} says, {way}: {line}");
                }
                None => return Ok(()),
            },
            said = says.recv() => {
                let line = said? + "\n";
                lines.get_mut().write_all(line.as_bytes()).await?;
                lines.get_mut().flush().await?;
            }
        }
    }
}
