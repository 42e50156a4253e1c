//! Whether the system has sent all that was written to a socket, for who is about to cut it: a reset throws away what still waits,
//! and with it the end of an answer that a slow reader has not come to yet.
//!
//! There is no safe call for the number itself (`SIOCOUTQ`), and closing with a timeout (`SO_LINGER`) ends a connection in order,
//! which a cut must not. What can be asked is whether the socket takes more, and two of its options make that the same question:
//! with `TCP_NOTSENT_LOWAT` of 1 byte it takes nothing while anything is unsent, and with the least send buffer nothing while more
//! than about 2 kB wait to be acknowledged. Both are for a socket to which nothing is written any more.
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::PollFlags;
use tokio::time::{Sleep, sleep};

use crate::watch::reported;

/// The first look comes after so long, each further one after twice as long.
const FIRST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(50);

/// A wait for one socket.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    waiting: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl Unsent {
    /// Ready once nothing is left to send, and where that cannot be known. The readiness that the runtime keeps for a socket is
    /// that of its last write, so this looks for itself.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, socket: &impl AsFd) -> Poll<()> {
        if self.waiting.is_none() && !prepare(socket) {
            return Poll::Ready(());
        }
        while !is_sent(socket) {
            let (pause, timer) = self
                .waiting
                .get_or_insert_with(|| (FIRST, Box::pin(sleep(FIRST))));
            ready!(timer.as_mut().poll(cx));
            *pause = (*pause * 2).min(LONGEST);
            *timer = Box::pin(sleep(*pause));
        }
        Poll::Ready(())
    }
}

/// False where the system has no such option, or the socket is none any more.
fn prepare(socket: &impl AsFd) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    return socket2::SockRef::from(socket)
        .set_tcp_notsent_lowat(1)
        .is_ok()
        && rustix::net::sockopt::set_socket_send_buffer_size(socket, 1).is_ok();
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    {
        let _ = socket;
        false
    }
}

/// It takes more, or is over.
fn is_sent(socket: &impl AsFd) -> bool {
    !reported(socket, PollFlags::OUT).is_ok_and(|seen| seen.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    /// One whose connections take little that is not read.
    fn small_listener() -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 4096).unwrap();
        listener
    }

    async fn sent(unsent: &mut Unsent, stream: &TcpStream) {
        std::future::poll_fn(|cx| unsent.poll(cx, stream)).await;
    }

    #[tokio::test]
    async fn what_a_reader_has_not_come_to_is_waited_for() {
        use std::io::Write;
        let listener = small_listener();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        // Nothing was written.
        sent(&mut Unsent::default(), &ours).await;
        let mut ours_again = ours.try_clone().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (mut all, piece) = (0, vec![1; 65536]);
        loop {
            match ours_again.write(&piece) {
                Ok(n) => all += n,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(e) => panic!("{e}"),
            }
        }
        let mut unsent = Unsent::default();
        tokio::select! {
            biased;
            () = sent(&mut unsent, &ours) => panic!("{all} bytes are not read"),
            () = sleep(Duration::from_millis(200)) => {}
        }
        let reader = std::thread::spawn(move || {
            let mut read = 0;
            let mut some = vec![0; 4096];
            while let Ok(n @ 1..) = theirs.read(&mut some) {
                read += n;
            }
            read
        });
        sent(&mut unsent, &ours).await;
        socket2::SockRef::from(&ours)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop((ours, ours_again));
        assert_eq!(reader.join().unwrap(), all);
    }

    #[tokio::test]
    async fn nobody_is_waited_for_who_is_gone() {
        use std::io::Write;
        let listener = small_listener();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        let piece = vec![1; 65536];
        while ours.write(&piece).is_ok() {}
        let mut unsent = Unsent::default();
        let mut wait = Box::pin(sent(&mut unsent, &ours));
        assert!(futures::poll!(&mut wait).is_pending());
        drop(theirs);
        wait.await;
    }
}
