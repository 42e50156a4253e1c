//! A command that asks at the control socket of another one.

use std::path::Path;
use std::time::Duration;

use cepa::transports::{self, Stream};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::timeout;

use crate::exit::{Code, Failure};

use super::address;

/// Time for the other command to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest line of an answer in bytes: more than what the most sessions and substreams of a document take.
const MOST: u64 = 16 << 20;

/// What was asked for, and is answered line by line.
pub(crate) struct Asked {
    at: String,
    stream: BufReader<Stream>,
}

impl Asked {
    /// Asks at a socket.
    pub(crate) async fn at(path: &Path, request: &Value) -> Result<Self, Failure> {
        let at = path.display().to_string();
        let stream = transports::dial(&address(path)?).await.map_err(|e| {
            let why = "is a command running with `--control` there (`cepa serve`, `share`, `relay`, `node` or `forward`)?";
            Failure::from(e).with(why)
        })?;
        let mut asked = Self {
            at,
            stream: BufReader::new(stream),
        };
        let line = format!("{request}\n");
        // Where that fails, reading tells more.
        let _ = asked.stream.write_all(line.as_bytes()).await;
        Ok(asked)
    }

    /// The next line; none once there are no more. Waits for one that comes by itself `longer` than for an answer.
    pub(crate) async fn next(&mut self, longer: Duration) -> Result<Option<Value>, Failure> {
        let mut line = Vec::new();
        let mut answer = (&mut self.stream).take(MOST);
        match timeout(PATIENCE + longer, answer.read_until(b'\n', &mut line)).await {
            Ok(Ok(0)) => return Ok(None),
            Ok(Ok(_)) => {}
            Ok(Err(e)) => return Err(self.failed(Code::Lost, &e.to_string())),
            Err(_) => return Err(self.failed(Code::Lost, "no answer in time")),
        }
        if line.last() != Some(&b'\n') {
            return Err(self.failed(Code::Lost, "the answer was cut"));
        }
        let answer: Value = serde_json::from_slice(&line)
            .map_err(|_| self.failed(Code::Connect, "what answers there is not cepa"))?;
        if let Some(error) = answer["error"].as_str() {
            let status = answer["code"].as_u64().and_then(|n| u8::try_from(n).ok());
            let failure = Failure::new(Code::Refused, error);
            return Err(match status {
                Some(status) if status != 0 => failure.exiting(status),
                _ => failure,
            });
        }
        Ok(Some(answer))
    }

    /// The one line that there is to come.
    pub(crate) async fn only(mut self) -> Result<Value, Failure> {
        let answer = self.next(Duration::ZERO).await?;
        answer.ok_or_else(|| self.failed(Code::Lost, "no answer"))
    }

    pub(crate) fn failed(&self, code: Code, why: &str) -> Failure {
        let why = format!("{}: {why}; is the command there still running?", self.at);
        Failure::new(code, why)
    }
}
