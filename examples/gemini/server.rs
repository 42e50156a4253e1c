//! The server: pages, and whose they are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cepa::Side;
use cepa::identity::{
    CertificateInfo, Identity, PeerId, Presented, Refusal, TrustPolicy, UnixTime,
};
use cepa::onion::Onion;
use cepa::tls::{Peer, TlsConfig, Version};
use cepa::transports::{Endpoint, Stream, listen};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::{MAX_URL, Outcome};

/// A handshake and a request take no longer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Accounts and claims that are kept: whoever comes can make them.
const MAX_ACCOUNTS: usize = 10_000;

/// Anyone, with dates that hold or not: each page decides, and says why it refuses.
#[derive(Debug)]
struct Everyone;

impl TrustPolicy for Everyone {
    fn decide(&self, _: &Presented<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn overlooks_dates(&self, _: &Presented<'_>) -> bool {
        true
    }

    fn names(&self, _: &Presented<'_>) -> bool {
        false
    }
}

/// Who has an account, and who claims to have one.
#[derive(Debug, Default)]
struct Accounts {
    names: BTreeMap<PeerId, String>,
    claims: BTreeMap<String, PeerId>,
}

pub(crate) async fn run(port: &str, identity: &str) -> Outcome<()> {
    let identity = Identity::load(identity)?;
    let config = TlsConfig::builder(&identity, Arc::new(Everyone))
        .versions(&[Version::Tls12, Version::Tls13])
        .optional_client_certificate()
        .build()?;
    let mut listener = listen(&format!("tcp:127.0.0.1:{port}").parse::<Endpoint>()?).await?;
    let address = listener.endpoint().to_string();
    println!(
        "LISTENING {}",
        address.rsplit(':').next().unwrap_or_default()
    );
    let accounts = Arc::new(Mutex::new(Accounts::default()));
    let operator = Arc::clone(&accounts);
    tokio::spawn(async move {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            println!("{}", approve(&operator, &line));
        }
    });
    while let Some(stream) = listener.accept().await? {
        let (config, accounts) = (config.clone(), Arc::clone(&accounts));
        tokio::spawn(async move {
            match tokio::time::timeout(PATIENCE, serve(stream, &config, &accounts)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => eprintln!("gemini: {error}"),
                Err(_) => eprintln!("gemini: a client was too slow"),
            }
        });
    }
    Ok(())
}

async fn serve(stream: Stream, config: &TlsConfig, accounts: &Mutex<Accounts>) -> Outcome<()> {
    let mut stream = Onion::new(stream);
    let peer = stream.push(Side::Server, config).await?;
    let mut request = Vec::new();
    let longest = u64::try_from(MAX_URL + 2)?;
    (&mut stream)
        .take(longest)
        .read_until(b'\n', &mut request)
        .await?;
    let answer = match std::str::from_utf8(&request)
        .ok()
        .and_then(|r| r.strip_suffix("\r\n"))
    {
        Some(url) => {
            let mut accounts = accounts.lock().map_err(|_| "the accounts are broken")?;
            answer(url, &peer, &mut accounts)
        }
        None => "59 A request is a URL of up to 1024 bytes and CRLF\r\n".into(),
    };
    stream.write_all(answer.as_bytes()).await?;
    // close_notify: the client must be able to tell a whole page from one that was cut.
    stream.shutdown().await?;
    let _ = stream.read(&mut [0]).await;
    Ok(())
}

/// The page for a URL, as this peer gets it.
fn answer(url: &str, peer: &Peer, accounts: &mut Accounts) -> String {
    let Some(rest) = url.strip_prefix("gemini://") else {
        return "59 Only gemini:// is served here\r\n".into();
    };
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    if path == "/" {
        return page("# Hello\n=> /account Your account\n=> /register Make one\n");
    }
    if !matches!(path, "/account" | "/register" | "/claim") {
        return "51 There is no such page\r\n".into();
    }
    let Some(shown) = peer.certificate().map(CertificateInfo::read) else {
        return "60 A certificate is needed here; one that you sign yourself will do\r\n".into();
    };
    let shown = match shown {
        Ok(shown) => shown,
        Err(error) => return format!("62 {error}\r\n"),
    };
    let now = UnixTime::now();
    if now > shown.not_after || now < shown.not_before {
        return "62 The dates of this certificate do not hold: renew it, with the same key\r\n"
            .into();
    }
    if let Some(old) = predecessor(peer, now, accounts)
        && let Some(name) = accounts.names.remove(&old)
    {
        println!("{name} has a new key: {} instead of {old}", shown.id);
        accounts.names.insert(shown.id, name);
    }
    let account = accounts.names.get(&shown.id);
    let named = query.filter(|query| {
        (1..=32).contains(&query.len()) && query.chars().all(|c| c.is_ascii_alphanumeric())
    });
    match (path, account, named) {
        ("/account" | "/register", Some(name), _) => page(&format!(
            "# {name}\nKey: {}\nCertificate: {}\nSubject: {}\n",
            shown.id,
            shown.sha256.map(|byte| format!("{byte:02x}")).concat(),
            shown.subject
        )),
        ("/account", None, _) => {
            "61 This certificate has no account; see /register, and /claim for one of yours\r\n"
                .into()
        }
        (_, None, None) => "10 Which name? Up to 32 letters and digits\r\n".into(),
        ("/register", None, Some(name)) if accounts.names.values().any(|other| other == name) => {
            "61 Somebody has this name; if that is you, see /claim\r\n".into()
        }
        _ if accounts.names.len() + accounts.claims.len() >= MAX_ACCOUNTS => "44 3600\r\n".into(),
        ("/register", None, Some(name)) => {
            accounts.names.insert(shown.id, name.to_owned());
            page(&format!("# Welcome, {name}\n"))
        }
        (_, None, Some(name)) => {
            println!(
                "{} claims to be {name}: `approve {name}` if that is so",
                shown.id
            );
            accounts.claims.insert(name.to_owned(), shown.id);
            "61 This waits for the operator's approval\r\n".into()
        }
        (_, Some(name), _) => format!("61 This certificate is {name}'s already\r\n"),
    }
}

/// The account's key that names this peer's key as its successor.
fn predecessor(peer: &Peer, now: UnixTime, accounts: &Accounts) -> Option<PeerId> {
    let dates = (peer.not_before(), peer.not_after());
    let presented = Presented::new(peer.id(), peer.certificate(), &[], dates, now, Side::Client);
    let path = presented
        .path_from(|id| accounts.names.contains_key(&id))
        .ok()?;
    path.first().map(cepa::identity::Rotation::old)
}

/// What the operator types.
fn approve(accounts: &Mutex<Accounts>, line: &str) -> String {
    let Some(name) = line.strip_prefix("approve ") else {
        return "commands: approve NAME".into();
    };
    let Ok(mut accounts) = accounts.lock() else {
        return "the accounts are broken".into();
    };
    let Some(id) = accounts.claims.remove(name) else {
        return format!("nobody claims to be {name}");
    };
    accounts.names.retain(|_, other| other != name);
    accounts.names.insert(id, name.to_owned());
    format!("{name} is {id} from now on")
}

fn page(text: &str) -> String {
    format!("20 text/gemini; charset=utf-8\r\n{text}")
}
