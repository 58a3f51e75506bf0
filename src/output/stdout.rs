//! Writes messages to standard output, one a line.
//!
//! Guarantee: a message is confirmed once the operating system has taken it.
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;

use super::{Delivery, Output, OutputContext, OutputError, Parcel, WriteError, WriteLimits, lines::frame};
use crate::{
    diagnostic::Fault,
    spec::{Section, Spec, decode, schema_of},
};

pub(super) static SPEC: Spec<dyn Output> = Spec {
    name: "stdout",
    summary: "Writes messages to standard output, one a line.",
    example: "{}",
    scripts: &[],
    schema: schema_of::<Config>,
    build,
};

/// Settings of `stdout`: none.
///
/// Each message is a line. JSON that is spread over several lines is put on one; any other payload with a line end in it
/// is rejected.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {}

struct Stdout;

fn build(section: &Section) -> Result<Box<dyn Output>, Vec<Fault>> {
    if !section.value.is_null() {
        decode::<Config>(section)?;
    }
    Ok(Box::new(Stdout))
}

#[async_trait]
impl Output for Stdout {
    fn limits(&self) -> WriteLimits {
        WriteLimits { in_flight_max: 1, ..WriteLimits::IMMEDIATE }
    }

    async fn connect(&mut self, _: &OutputContext) -> Result<(), OutputError> {
        Ok(())
    }

    async fn write(&mut self, parcel: &Parcel) -> Delivery {
        let (lines, result) = frame(parcel);
        let mut stdout = tokio::io::stdout();
        let written = async {
            stdout.write_all(&lines).await?;
            stdout.flush().await
        };
        let answer = match written.await {
            Ok(()) => result,
            Err(error) => Err(WriteError::retry(format!("cannot write to standard output: {error}"))),
        };
        std::future::ready(answer).boxed()
    }

    async fn close(&mut self, _: Duration) {}
}
