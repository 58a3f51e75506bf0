//! Confirms every message and writes none: for benchmarks, and for branches that are not wanted.
//!
//! Guarantee: nothing is kept, on purpose.
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Delivery, Output, OutputContext, OutputError, Parcel, WriteLimits};
use crate::{
    diagnostic::Fault,
    spec::{Section, Spec, decode, schema_of},
};

pub(super) static SPEC: Spec<dyn Output> = Spec {
    name: "drop",
    summary: "Confirms every message and writes none.",
    example: "{}",
    scripts: &[],
    schema: schema_of::<Config>,
    build,
};

/// Settings of `drop`: there are none.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {}

struct Drop;

fn build(section: &Section) -> Result<Box<dyn Output>, Vec<Fault>> {
    if !section.value.is_null() {
        decode::<Config>(section)?;
    }
    Ok(Box::new(Drop))
}

#[async_trait]
impl Output for Drop {
    fn limits(&self) -> WriteLimits {
        WriteLimits::IMMEDIATE
    }

    async fn connect(&mut self, _: &OutputContext) -> Result<(), OutputError> {
        Ok(())
    }

    async fn write(&mut self, _: &Parcel) -> Delivery {
        std::future::ready(Ok(())).boxed()
    }

    async fn close(&mut self, _: Duration) {}
}
