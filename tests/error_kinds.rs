//! What a program can match on: for each error, the kind of the `io::Error` that it becomes (tokio, hyper and tonic go by that), whether
//! another attempt may do better, and that the chain of sources leads to what is beneath. One table a conversion; those of dialling and of
//! transports stand beside their types.

use std::error::Error;
use std::fmt::Debug;
use std::io::{self, ErrorKind as Kind};
use std::time::Duration;

use cepa::Side;
use cepa::identity::{self, PeerId, Refusal};
use cepa::link::LinkError;
use cepa::mux::{self, GoAwayCode, LimitKind, MuxError, StreamError, StreamTimeout, Violation};
use cepa::node::{DialError, RouteError, RouteErrorKind};
use cepa::protocols::MessageError;
use cepa::protocols::introduction::{ChainFlaw, Flaw, IntroducedError};
use cepa::protocols::membrane::{MembraneError, MessageFlaw};
use cepa::protocols::pairing::PairingError;
use cepa::protocols::relay::{RegisterError, RelayError, Status};
use cepa::protocols::sealed::{SealFlaw, SealedError};
use cepa::protocols::ticket::{TicketError, TicketRefusal};
use cepa::resume;
use cepa::session::{
    AcceptError, AnswerFault, ConnectError, HelloFault, OpenError, SessionEnd, Terminated,
};
use cepa::stack::{BindingError, NotAdmitted};
use cepa::tls::{Lacking, LocalFault, TlsConfigError, TlsError};

const CUTS: [Kind; 5] = [
    Kind::ConnectionReset,
    Kind::ConnectionAborted,
    Kind::BrokenPipe,
    Kind::UnexpectedEof,
    Kind::TimedOut,
];

fn id() -> PeerId {
    PeerId::from_bytes([1; 32])
}

fn name() -> String {
    "up".into()
}

/// An error with its texts to compare.
type Row<E> = (E, Kind, bool);

fn holds<E>(rows: Vec<Row<E>>, is_transient: impl Fn(&E) -> bool)
where
    E: Debug + Error + Send + Sync + 'static,
    io::Error: From<E>,
{
    for (error, kind, transient) in rows {
        let (debug, text) = (format!("{error:?}"), error.to_string());
        assert!(!text.contains('\n') && !text.is_empty(), "{debug}");
        assert_eq!(is_transient(&error), transient, "transient: {debug}");
        let becomes = io::Error::from(error);
        assert_eq!(becomes.kind(), kind, "{debug}");
        assert_eq!(becomes.to_string(), text);
        // It is still there as what it was.
        assert!(matches!(becomes.get_ref(), Some(inner) if inner.is::<E>()));
    }
}

#[test]
fn of_tls() {
    let refused = |alert| TlsError::RefusedByPeer { alert };
    let (detail, our_side) = (String::new, Side::Client);
    let mut rows = vec![
        (
            TlsError::Refused(Refusal::NoCertificate),
            Kind::PermissionDenied,
            false,
        ),
        (refused(49), Kind::PermissionDenied, false),
        (refused(80), Kind::PermissionDenied, true),
        (TlsError::NotTls { first: vec![0] }, Kind::InvalidData, true),
        (TlsError::Truncated { layer: 1 }, Kind::UnexpectedEof, true),
        (TlsError::GivenUp, Kind::ConnectionAborted, true),
        (TlsError::BadRecord, Kind::InvalidData, true),
        (
            TlsError::Protocol {
                detail: detail(),
                our_side,
            },
            Kind::InvalidData,
            true,
        ),
        (
            TlsError::UnknownName { name: name() },
            Kind::PermissionDenied,
            false,
        ),
        (
            TlsError::NotHere { asked: id() },
            Kind::PermissionDenied,
            false,
        ),
        (
            TlsError::Alpn {
                required: vec![],
                got: None,
            },
            Kind::InvalidData,
            false,
        ),
        (TlsError::Unread, Kind::InvalidInput, false),
        (TlsError::Closed, Kind::BrokenPipe, false),
        (TlsError::Misuse { what: "x" }, Kind::InvalidInput, false),
        (TlsError::TimedOut, Kind::TimedOut, true),
    ];
    for lacking in [
        Lacking::CipherSuite,
        Lacking::KeyExchange,
        Lacking::SignatureScheme,
        Lacking::Version,
        Lacking::KeyForm,
        Lacking::Other(name()),
    ] {
        let error = TlsError::Incompatible { lacking };
        rows.push((error, Kind::InvalidData, false));
    }
    for fault in [
        LocalFault::Clock,
        LocalFault::Random,
        LocalFault::PolicyThread(name()),
        LocalFault::Configuration(name()),
    ] {
        rows.push((TlsError::Local { fault }, Kind::Other, false));
    }
    for kind in CUTS {
        rows.push((TlsError::Io(io::Error::from(kind).into()), kind, true));
        let source = TlsError::Io(io::Error::from(kind).into());
        let failed = TlsError::Failed {
            layer: 1,
            source: source.into(),
        };
        rows.push((failed, kind, true));
    }
    holds(rows, TlsError::is_transient);
}

#[test]
fn of_the_link() {
    let mut rows = vec![
        (LinkError::Restarted, Kind::ConnectionReset, true),
        (LinkError::Reset, Kind::ConnectionReset, true),
        (LinkError::Silent { seconds: 1 }, Kind::TimedOut, true),
        (
            LinkError::Version { theirs: 2, ours: 1 },
            Kind::InvalidData,
            false,
        ),
        (LinkError::Truncated, Kind::UnexpectedEof, true),
        (LinkError::DriverGone, Kind::NotConnected, false),
    ];
    for kind in CUTS {
        rows.push((LinkError::Io(io::Error::from(kind).into()), kind, true));
    }
    holds(rows, LinkError::is_transient);
}

#[test]
fn of_the_mux() {
    let code = GoAwayCode::ShuttingDown;
    let silent = Duration::from_secs(1);
    let mut rows = vec![
        (MuxError::Closed, Kind::NotConnected, false),
        (MuxError::GoAway { code }, Kind::ConnectionAborted, true),
        (MuxError::GaveUp { code }, Kind::ConnectionAborted, true),
        (
            MuxError::Protocol(Violation::PingFlood),
            Kind::InvalidData,
            false,
        ),
        (MuxError::Eof, Kind::UnexpectedEof, true),
        (MuxError::KeepaliveTimeout { silent }, Kind::TimedOut, true),
        (MuxError::DriverGone, Kind::NotConnected, false),
    ];
    for kind in CUTS {
        rows.push((MuxError::Io(io::Error::from(kind).into()), kind, true));
    }
    let ended = |kind: Kind| StreamError::Session(MuxError::Io(io::Error::from(kind).into()));
    let mut streams: Vec<Row<StreamError>> = rows
        .iter()
        .map(|(error, kind, _)| (StreamError::Session(error.clone()), *kind, false))
        .collect();
    let opens = rows
        .iter()
        .map(|(error, kind, _)| (mux::OpenError::Session(error.clone()), *kind, true))
        .chain([
            (
                mux::OpenError::PeerGoneAway { code },
                Kind::ConnectionAborted,
                true,
            ),
            (mux::OpenError::Closing, Kind::ConnectionAborted, true),
            (mux::OpenError::Exhausted, Kind::AddrNotAvailable, true),
        ]);
    holds(opens.collect(), mux::OpenError::is_safe_to_retry);
    let reason = mux::Refusal::Streams;
    streams.extend([
        (
            StreamError::ResetByPeer { code: 0 },
            Kind::ConnectionReset,
            false,
        ),
        (
            StreamError::SessionClosedByPeer,
            Kind::ConnectionReset,
            false,
        ),
        (
            StreamError::RefusedByPeer { reason },
            Kind::ConnectionRefused,
            true,
        ),
        (StreamError::ResetHere, Kind::ConnectionAborted, false),
        (
            StreamError::TimedOut(StreamTimeout::Open),
            Kind::TimedOut,
            false,
        ),
        (StreamError::WriteAfterShutdown, Kind::BrokenPipe, false),
        (ended(Kind::ConnectionReset), Kind::ConnectionReset, false),
    ]);
    holds(streams, StreamError::is_safe_to_retry);
    holds(rows, MuxError::is_transient);
}

fn ends() -> Vec<Row<SessionEnd>> {
    let code = GoAwayCode::Limit(LimitKind::Sessions);
    let refused = TlsError::RefusedByPeer { alert: 46 };
    let reset = || io::Error::from(Kind::ConnectionReset);
    vec![
        (SessionEnd::Closed, Kind::NotConnected, false),
        (SessionEnd::ClosedByPeer, Kind::ConnectionAborted, true),
        (SessionEnd::GoneAway { code }, Kind::ConnectionAborted, true),
        (SessionEnd::GaveUp { code }, Kind::ConnectionAborted, true),
        (
            SessionEnd::Tls(TlsError::Truncated { layer: 1 }),
            Kind::UnexpectedEof,
            true,
        ),
        (SessionEnd::Tls(refused), Kind::PermissionDenied, false),
        (
            SessionEnd::Tls(TlsError::Io(reset().into())),
            Kind::ConnectionReset,
            true,
        ),
        (SessionEnd::Lost(MuxError::Eof), Kind::UnexpectedEof, true),
        (
            SessionEnd::Lost(MuxError::Io(reset().into())),
            Kind::ConnectionReset,
            true,
        ),
        (SessionEnd::NoRuntime, Kind::Unsupported, false),
    ]
}

#[test]
fn of_the_end_of_a_session() {
    holds(ends(), SessionEnd::is_transient);
}

#[test]
fn of_connecting() {
    let code = GoAwayCode::Limit(LimitKind::PeerSessions);
    let cut = || TlsError::Truncated { layer: 1 };
    let hello = |fault| (ConnectError::Hello(fault), Kind::InvalidData, false);
    let full = NotAdmitted {
        code,
        reason: name(),
    };
    let rows = || {
        vec![
            (ConnectError::Tls(TlsError::TimedOut), Kind::TimedOut, true),
            (
                ConnectError::Tls(TlsError::RefusedByPeer { alert: 46 }),
                Kind::PermissionDenied,
                false,
            ),
            (
                ConnectError::ClosedAtOnce(cut()),
                Kind::ConnectionAborted,
                true,
            ),
            (ConnectError::Mux(MuxError::Eof), Kind::UnexpectedEof, true),
            (
                ConnectError::GoneAway { code },
                Kind::ConnectionAborted,
                true,
            ),
            (
                ConnectError::Binding(BindingError::Mismatch),
                Kind::InvalidData,
                false,
            ),
            (
                ConnectError::TimedOut { during: name() },
                Kind::TimedOut,
                true,
            ),
            (
                ConnectError::Layers {
                    layers: name(),
                    reason: "x",
                },
                Kind::InvalidInput,
                false,
            ),
            (
                ConnectError::NotAdmitted(full.clone()),
                Kind::QuotaExceeded,
                true,
            ),
            (
                ConnectError::Config(TlsConfigError::NoVersion),
                Kind::InvalidInput,
                false,
            ),
            (ConnectError::NoRuntime, Kind::Unsupported, false),
            hello(HelloFault::Version(2)),
            hello(HelloFault::Kind(9)),
            hello(HelloFault::Short),
            hello(HelloFault::NameTaken),
            hello(HelloFault::Proof),
            hello(HelloFault::Violation(resume::Violation::BehindEnd)),
        ]
    };
    holds(rows(), ConnectError::is_transient);
    let mut given_up: Vec<Row<Terminated>> = rows()
        .into_iter()
        .map(|(error, kind, _)| (Terminated::Failed(error.into()), kind, false))
        .collect();
    given_up.push((Terminated::Closed, Kind::NotConnected, false));
    given_up.push((Terminated::Gone, Kind::NotConnected, false));
    holds(given_up, |_| false);
}

#[test]
fn of_opening_and_accepting_a_service() {
    let service = name;
    let invalid = |fault| {
        let service = name();
        let error = OpenError::Protocol { service, fault };
        (error, Kind::InvalidData, false)
    };
    let refused = OpenError::Refused {
        service: service(),
        reason: name(),
    };
    let stream = |reason| OpenError::RefusedStream {
        service: name(),
        reason,
    };
    let mut rows = vec![
        (refused, Kind::ConnectionRefused, false),
        (
            OpenError::InnerTlsRequired { service: service() },
            Kind::ConnectionRefused,
            false,
        ),
        (
            OpenError::NoInnerTls { service: service() },
            Kind::ConnectionRefused,
            false,
        ),
        (
            OpenError::InnerTlsEndsBeyond { service: service() },
            Kind::ConnectionRefused,
            false,
        ),
        (
            OpenError::InnerTlsEndsHere { service: service() },
            Kind::ConnectionRefused,
            false,
        ),
        (
            OpenError::InnerBinding { service: service() },
            Kind::InvalidData,
            false,
        ),
        (
            OpenError::DialInstead { service: service() },
            Kind::ConnectionRefused,
            false,
        ),
        (
            OpenError::Dropped { service: service() },
            Kind::ConnectionReset,
            false,
        ),
        (stream(mux::Refusal::Streams), Kind::ConnectionRefused, true),
        (
            stream(mux::Refusal::GoingAway),
            Kind::ConnectionRefused,
            true,
        ),
        (
            stream(mux::Refusal::Application),
            Kind::ConnectionRefused,
            false,
        ),
        (
            OpenError::NoRoom { service: service() },
            Kind::QuotaExceeded,
            true,
        ),
        (OpenError::NoRuntime, Kind::Unsupported, false),
        (
            OpenError::TimedOut { service: service() },
            Kind::TimedOut,
            true,
        ),
        (
            OpenError::Name { service: service() },
            Kind::InvalidInput,
            false,
        ),
        invalid(AnswerFault::Version(2)),
        invalid(AnswerFault::Flags(0x80)),
        invalid(AnswerFault::Status(99)),
        invalid(AnswerFault::Text),
        invalid(AnswerFault::NotUnderstood),
        invalid(AnswerFault::InnerTls { got: 2, due: 1 }),
        (
            OpenError::Tls(TlsError::BadRecord),
            Kind::InvalidData,
            false,
        ),
        (
            OpenError::Mux(mux::OpenError::Exhausted),
            Kind::AddrNotAvailable,
            true,
        ),
    ];
    let mut accepts = vec![
        (AcceptError::WantsInnerTls, Kind::ConnectionRefused, false),
        (AcceptError::WantsNoInnerTls, Kind::ConnectionRefused, false),
        (
            AcceptError::WantsInnerTlsThrough,
            Kind::ConnectionRefused,
            false,
        ),
        (
            AcceptError::WantsInnerTlsHere,
            Kind::ConnectionRefused,
            false,
        ),
        (AcceptError::InnerBinding, Kind::InvalidData, false),
        (AcceptError::Tls(TlsError::TimedOut), Kind::TimedOut, true),
        (AcceptError::Dropped, Kind::ConnectionReset, true),
        (AcceptError::TimedOut, Kind::TimedOut, true),
    ];
    for (end, kind, transient) in ends() {
        accepts.push((AcceptError::Session(end.clone()), kind, transient));
        // In another session it may be opened, whoever has closed this one.
        let transient = !matches!(end, SessionEnd::NoRuntime);
        rows.push((OpenError::Session(end), kind, transient));
    }
    holds(rows, OpenError::is_transient);
    holds(accepts, AcceptError::is_transient);
}

#[test]
fn of_routes_and_relays() {
    let route = |kind| RouteError::new(kind, io::Error::other("x"));
    let rows = vec![
        (
            route(RouteErrorKind::Refused),
            Kind::PermissionDenied,
            false,
        ),
        (route(RouteErrorKind::Full), Kind::QuotaExceeded, true),
        (
            route(RouteErrorKind::Unreachable),
            Kind::HostUnreachable,
            true,
        ),
        (route(RouteErrorKind::Lost), Kind::ConnectionAborted, true),
        (route(RouteErrorKind::TimedOut), Kind::TimedOut, true),
        (
            route(RouteErrorKind::DialInstead),
            Kind::ConnectionRefused,
            false,
        ),
        (route(RouteErrorKind::Protocol), Kind::InvalidData, false),
    ];
    holds(rows, |error| error.kind().is_transient());
    let relay = id();
    let said = |status| RelayError::Refused {
        relay,
        status,
        reason: String::new(),
    };
    let no_relay = |source| RelayError::NoRelay { relay, source };
    let end = SessionEnd::Lost(MuxError::Eof);
    let rows = || {
        vec![
            (said(Status::NotAllowed), Kind::PermissionDenied, false),
            (said(Status::Refused), Kind::PermissionDenied, false),
            (said(Status::Full), Kind::QuotaExceeded, true),
            (said(Status::Quota), Kind::QuotaExceeded, true),
            (said(Status::NotRegistered), Kind::HostUnreachable, true),
            (said(Status::Unreachable), Kind::HostUnreachable, true),
            (said(Status::Loop), Kind::InvalidInput, false),
            (said(Status::Malformed), Kind::InvalidData, false),
            (said(Status::Other(99)), Kind::InvalidData, false),
            (
                RelayError::Protocol {
                    relay,
                    fault: MessageError::Version(2),
                },
                Kind::InvalidData,
                false,
            ),
            (
                RelayError::NoAnswer {
                    relay,
                    source: io::Error::from(Kind::UnexpectedEof).into(),
                },
                Kind::InvalidData,
                false,
            ),
            (RelayError::TimedOut { relay }, Kind::TimedOut, true),
            (
                RelayError::Lost {
                    relay,
                    end: end.clone(),
                },
                Kind::UnexpectedEof,
                true,
            ),
            (
                no_relay(OpenError::TimedOut { service: name() }),
                Kind::TimedOut,
                true,
            ),
            (
                no_relay(OpenError::DialInstead { service: name() }),
                Kind::ConnectionRefused,
                false,
            ),
        ]
    };
    let mut registers: Vec<Row<RegisterError>> = rows()
        .into_iter()
        .map(|(error, kind, transient)| (error.into(), kind, transient))
        .collect();
    registers.extend([
        (
            DialError::NoHints { peer: relay }.into(),
            Kind::NotFound,
            true,
        ),
        (
            RegisterError::TakenBack { relay },
            Kind::NotConnected,
            false,
        ),
    ]);
    holds(rows(), RelayError::is_transient);
    holds(registers, RegisterError::is_transient);
}

#[test]
fn of_tickets() {
    let refused = |why| TicketError::Refused(why);
    let wait = Duration::from_secs(1);
    let rows = vec![
        (
            TicketError::WrongPeer {
                expected: id(),
                found: id(),
            },
            Kind::PermissionDenied,
            false,
        ),
        (
            TicketError::Open(OpenError::TimedOut { service: name() }),
            Kind::TimedOut,
            true,
        ),
        (refused(TicketRefusal::Taken), Kind::PermissionDenied, false),
        (
            refused(TicketRefusal::UsedUp),
            Kind::PermissionDenied,
            false,
        ),
        (
            refused(TicketRefusal::TooManyTries { wait }),
            Kind::PermissionDenied,
            true,
        ),
        (TicketError::Protocol(None), Kind::InvalidData, false),
        (TicketError::TimedOut, Kind::TimedOut, true),
        (
            TicketError::Io(io::Error::from(Kind::ConnectionReset)),
            Kind::ConnectionReset,
            true,
        ),
    ];
    holds(rows, TicketError::is_transient);
}

#[test]
fn of_introductions_membranes_and_invitations() {
    let owner = id();
    let open = || OpenError::TimedOut { service: name() };
    let reset = || io::Error::from(Kind::ConnectionReset);
    let refused = |flaw| IntroducedError::Refused { owner, flaw };
    let hint = "exec:x".parse().unwrap();
    let rows = vec![
        (
            IntroducedError::Flaw(Flaw::Malformed(name())),
            Kind::InvalidInput,
            false,
        ),
        (
            refused(Flaw::Chain(ChainFlaw::GivesMore)),
            Kind::PermissionDenied,
            false,
        ),
        (
            IntroducedError::Flaw(Flaw::Expired),
            Kind::PermissionDenied,
            false,
        ),
        (
            IntroducedError::Dial(DialError::NoRuntime),
            Kind::Unsupported,
            false,
        ),
        (
            IntroducedError::LocalHints { owner, hint },
            Kind::PermissionDenied,
            false,
        ),
        (
            IntroducedError::Show {
                owner,
                error: open(),
            },
            Kind::TimedOut,
            true,
        ),
        (
            IntroducedError::Protocol {
                owner,
                fault: MessageError::TooLong(4097, 4096),
            },
            Kind::InvalidData,
            false,
        ),
        (IntroducedError::TimedOut { owner }, Kind::TimedOut, true),
        (
            IntroducedError::Io {
                owner,
                source: reset(),
            },
            Kind::ConnectionReset,
            true,
        ),
        (refused(Flaw::UsedUp), Kind::PermissionDenied, false),
        (refused(Flaw::Full), Kind::PermissionDenied, true),
        (IntroducedError::Open(open()), Kind::TimedOut, true),
    ];
    holds(rows, IntroducedError::is_transient);
    let rows = vec![
        (MembraneError::Revoked, Kind::PermissionDenied, false),
        (MembraneError::TakenBack, Kind::QuotaExceeded, true),
        (MembraneError::Full, Kind::QuotaExceeded, true),
        (
            MembraneError::NotForUs {
                recipient: owner,
                node: owner,
            },
            Kind::PermissionDenied,
            false,
        ),
        (
            MembraneError::TooManyMembranes,
            Kind::PermissionDenied,
            false,
        ),
        (MembraneError::Own, Kind::PermissionDenied, false),
        (
            MembraneError::Flaw(Flaw::Expired),
            Kind::PermissionDenied,
            false,
        ),
        (
            MembraneError::Message(MessageFlaw::TooDeep),
            Kind::InvalidData,
            false,
        ),
        (MembraneError::Io(reset()), Kind::ConnectionReset, true),
    ];
    holds(rows, MembraneError::is_transient);
    let wrong = PairingError::WrongPeer {
        expected: owner,
        found: owner,
    };
    let rows = vec![
        (wrong, Kind::PermissionDenied, false),
        (PairingError::Open(open()), Kind::TimedOut, true),
        (
            PairingError::NotAdmitted(identity::NotAdmitted::Expired),
            Kind::PermissionDenied,
            false,
        ),
        (PairingError::NoAnswer, Kind::ConnectionRefused, false),
        (PairingError::TimedOut, Kind::TimedOut, true),
        (PairingError::Io(reset()), Kind::ConnectionReset, true),
        (
            PairingError::Accept(AcceptError::Dropped),
            Kind::ConnectionReset,
            true,
        ),
    ];
    holds(rows, PairingError::is_transient);
}

#[test]
fn of_sealed_messages() {
    let (carrier, recipient) = (id(), id());
    let brought = |status| SealedError::NotBrought {
        carrier,
        recipient,
        status,
        reason: name(),
    };
    let error = OpenError::Dropped { service: name() };
    let altered = SealedError::Altered {
        carrier,
        recipient,
        flaw: SealFlaw::Unopened,
    };
    let source = io::Error::from(Kind::BrokenPipe);
    let rows = vec![
        (
            SealedError::Flaw(SealFlaw::Suite),
            Kind::InvalidInput,
            false,
        ),
        (
            SealedError::Dial(DialError::ShutDown),
            Kind::NotConnected,
            false,
        ),
        (
            SealedError::NoCarrier { carrier, error },
            Kind::ConnectionReset,
            false,
        ),
        (brought(Status::NotAllowed), Kind::PermissionDenied, false),
        (brought(Status::Full), Kind::QuotaExceeded, true),
        (brought(Status::NotRegistered), Kind::HostUnreachable, true),
        (altered, Kind::InvalidData, false),
        (
            SealedError::Refused {
                recipient,
                reason: name(),
            },
            Kind::PermissionDenied,
            false,
        ),
        (
            SealedError::Protocol {
                carrier,
                fault: MessageError::Cbor(name()),
            },
            Kind::InvalidData,
            false,
        ),
        (SealedError::Io { carrier, source }, Kind::BrokenPipe, true),
        (SealedError::TimedOut { carrier }, Kind::TimedOut, true),
    ];
    holds(rows, SealedError::is_transient);
}

/// Whether an error of type `E` is in the chain.
fn leads_to<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        if error.is::<E>() {
            return true;
        }
        at = error.source();
    }
    false
}

#[test]
fn sources_lead_to_what_the_system_said() {
    let reset = || io::Error::from(Kind::ConnectionReset);
    let tls = || TlsError::Io(reset().into());
    let lost = || SessionEnd::Lost(MuxError::Io(reset().into()));
    let failed = TlsError::Failed {
        layer: 1,
        source: tls().into(),
    };
    let relay = id();
    let errors: Vec<Box<dyn Error>> = vec![
        failed.into(),
        LinkError::Io(reset().into()).into(),
        StreamError::Session(MuxError::Io(reset().into())).into(),
        ConnectError::Tls(tls()).into(),
        ConnectError::Mux(MuxError::Io(reset().into())).into(),
        SessionEnd::Tls(tls()).into(),
        lost().into(),
        OpenError::Session(lost()).into(),
        AcceptError::Session(lost()).into(),
        Terminated::Failed(ConnectError::Tls(tls()).into()).into(),
        RelayError::Lost { relay, end: lost() }.into(),
        RouteError::from(RelayError::Lost { relay, end: lost() }).into(),
        RegisterError::Relay(RelayError::Lost { relay, end: lost() }).into(),
        IntroducedError::Open(OpenError::Session(lost())).into(),
        IntroducedError::Io {
            owner: relay,
            source: reset(),
        }
        .into(),
        SealedError::NoCarrier {
            carrier: relay,
            error: OpenError::Session(lost()),
        }
        .into(),
        SealedError::Io {
            carrier: relay,
            source: reset(),
        }
        .into(),
        PairingError::Open(OpenError::Session(lost())).into(),
    ];
    for error in errors {
        assert!(leads_to::<io::Error>(&*error), "{error:?}");
    }
    let refused = || TlsError::RefusedByPeer { alert: 46 };
    assert!(leads_to::<TlsError>(&ConnectError::Tls(refused())));
    assert!(leads_to::<TlsError>(&OpenError::Tls(refused())));
    assert!(leads_to::<TlsError>(&SessionEnd::Tls(refused())));
    let failed = ConnectError::Tls(TlsError::Failed {
        layer: 1,
        source: refused().into(),
    });
    assert!(leads_to::<TlsError>(&Terminated::Failed(failed.into())));
}
