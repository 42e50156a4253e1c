//! The command line of `cepa demo`: its words and their help.

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// MiB to send through each substream in each direction
    #[arg(long, value_name = "MIB", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) size: u32,
    /// Try only these transports
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) only: Vec<Transport>,
}

/// The transports of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    Tcp,
    #[cfg(feature = "ws")]
    Ws,
    #[cfg(feature = "quic")]
    Quic,
    Unix,
    Exec,
    Serial,
    #[cfg(feature = "rfc2217")]
    Rfc2217,
}

impl Demo {
    /// Those to try, in their order.
    pub(crate) fn transports(&self) -> Vec<Transport> {
        let all = Transport::value_variants().iter().copied();
        all.filter(|it| self.only.is_empty() || self.only.contains(it))
            .collect()
    }
}

impl Transport {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            #[cfg(feature = "ws")]
            Self::Ws => "WebSocket",
            #[cfg(feature = "quic")]
            Self::Quic => "QUIC",
            Self::Unix => "Unix socket",
            Self::Exec => "subprocess",
            Self::Serial => "serial line",
            #[cfg(feature = "rfc2217")]
            Self::Rfc2217 => "serial server",
        }
    }
}
