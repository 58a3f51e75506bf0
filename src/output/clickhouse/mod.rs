//! Writes rows into a ClickHouse table over HTTP.
//!
//! Delivery: exactly once from an input that records its ranges (`kafka`), into a table that remembers inserts (`once`);
//! else at least once. A write is confirmed when the server has written the whole INSERT, which is one block and so all or
//! nothing. After a timeout or a broken connection it is not known whether that happened, and the rows are sent again: a
//! recorded range under the same token, which the server then drops if it had arrived. Each payload is one JSON object;
//! columns and types come from the table, values are checked and made binary here, and a value that does not fit is
//! refused alone, with the column's name.
mod ask;
mod block;
mod compare;
mod create;
mod encode;
mod insert;
mod once;
mod received;
mod review;
mod rows;
mod settings;
mod table;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tracing::{info, warn};

pub use compare::{Compared, Judged};

use self::{
    insert::Writer,
    review::Review,
    table::{Abilities, ListedColumn, Table},
};
use super::{Column, Delivery, Once, Output, OutputContext, OutputError, Parcel, WriteLimits};
use crate::{
    client::{Contact, Probe, clickhouse::Failure},
    diagnostic::Fault,
    shape::Shape,
    spec::{Section, Spec, schema_of},
};

pub static SPEC: Spec<dyn Output> = Spec {
    name: "clickhouse",
    summary: "Writes rows into a ClickHouse table.",
    example: "url: http://localhost:8123\ntable: iot.telemetry\n",
    scripts: &[],
    schema: schema_of::<settings::Config>,
    build,
};

struct ClickHouse {
    writer: Arc<Writer>,
    limits: WriteLimits,
    user: String,
    /// Settings about fields of payloads that differ from what is usual.
    of_payloads: Vec<&'static str>,
    create: Vec<String>,
    /// What was said last about rows that may be there twice.
    said: Option<String>,
}

fn build(section: &Section) -> Result<Box<dyn Output>, Vec<Fault>> {
    Ok(Box::new(settings::output(section)?))
}

#[async_trait]
impl Output for ClickHouse {
    fn limits(&self) -> WriteLimits {
        self.limits
    }

    fn archive(&mut self, pipeline: &str) -> Option<Vec<Fault>> {
        let writer = Arc::get_mut(&mut self.writer).expect("it is shared by writes only, and there is none yet");
        writer.archive = Some(pipeline.to_owned());
        let fault = |field: &&str| {
            Fault::new("conflicting-fields", field, format!("`{field}` does not go together with `archive`"))
                .label("an archive keeps payloads as they are")
                .help("remove it")
        };
        Some(self.of_payloads.iter().map(fault).collect())
    }

    fn contact(&self) -> Option<Contact> {
        Some(Contact { server: self.writer.url.clone(), linger: self.limits.linger, ..Contact::default() })
    }

    fn columns(&self) -> Vec<Column> {
        let listed = create::columns(&self.create, &self.writer.name).into_iter().flatten();
        let column = |ListedColumn { name, type_text, default_kind }| Column { name, kind: type_text, default_kind };
        listed.map(column).collect()
    }

    fn review(&self, payload: &Shape) -> Vec<Fault> {
        let Writer { name, rules, .. } = &*self.writer;
        // In UTC, and with all that a server may know: the file does not say what server it is for.
        let listed = create::columns(&self.create, name);
        let table = listed.and_then(|listed| Table::new(listed, "UTC", true).ok());
        table.map_or(Vec::new(), |table| Review::of(Arc::new(table), *rules, name, false).payload(payload))
    }

    fn probe(&self, once: Once, payload: &Shape, limit: Duration) -> Option<Probe> {
        let probe = ask::Ask {
            writer: self.writer.clone(),
            user: self.user.clone(),
            creates: !self.create.is_empty(),
            once,
            payload: payload.clone(),
            untold: self.review(payload),
            limit,
        };
        Some(Box::pin(probe.all()))
    }

    async fn connect(&mut self, context: &OutputContext) -> Result<(), OutputError> {
        let writer = self.writer.clone();
        let Writer { server, name, url, .. } = &*writer;
        let explain = |tried: &str, failure: &Failure| OutputError(writer.explain(tried, failure));
        let abilities = Abilities::ask(server).await.map_err(|failure| {
            OutputError(format!("cannot ask `{url}` as user `{}`: {failure}; {}", self.user, failure.advice()))
        })?;
        if abilities.read_only {
            return Err(OutputError(format!(
                "user `{}` at `{url}` is read-only; give the output a user whose setting `readonly` is 0",
                self.user
            )));
        }
        let mut listed = name.columns(server).await.map_err(|failure| explain("read the columns of", &failure))?;
        if listed.is_empty() {
            listed = self.create_table().await?;
        }
        let mut schema = writer.schema(listed, abilities, false).map_err(OutputError)?;
        if schema.table.writable().next().is_none() {
            return Err(OutputError(format!("the table `{name}` at `{url}` has no column that can be written")));
        }
        let once = context.once != Once::No;
        if once {
            schema.has_views = self.check_once(context, &schema.abilities).await?;
        }
        self.writer.set_owner(once.then(|| format!("{}/{}", context.pipeline, context.label)));
        self.writer.probe(&schema).await.map_err(|failure| explain("insert into", &failure))?;

        let (version, columns) = (schema.abilities.version.as_str(), schema.table.columns.len());
        info!(output = context.label, url, table = %name, columns, version, "connected to clickhouse");
        let defaults = || schema.table.columns.iter().filter(|c| c.has_default).map(|c| c.name.as_str());
        if schema.abilities.format(true).is_none() && defaults().next().is_some() {
            let columns = defaults().collect::<Vec<_>>().join(", ");
            warn!(
                output = context.label,
                columns,
                version,
                "this server cannot compute a DEFAULT for single rows: where only some messages of a batch have such a \
                 field, the others get zero or an empty value"
            );
        }
        self.writer.set_schema(schema);
        Ok(())
    }

    fn recognises(&self) -> bool {
        true
    }

    async fn write(&mut self, parcel: &Parcel) -> Delivery {
        let (writer, parcel) = (self.writer.clone(), parcel.clone());
        Box::pin(async move { writer.deliver(&parcel).await })
    }

    async fn close(&mut self, _deadline: Duration) {}
}

impl ClickHouse {
    /// Whether the table leaves every row once, which is said in the log. Answers whether views hang on it.
    async fn check_once(&mut self, context: &OutputContext, abilities: &Abilities) -> Result<bool, OutputError> {
        let Writer { server, name, url, .. } = &*self.writer;
        let memory = once::inspect(server, name, abilities).await;
        let memory = memory.map_err(|failure| OutputError(self.writer.explain("read the settings of", &failure)))?;
        let faults = memory.faults.join("; ");
        if context.once == Once::Demanded && !faults.is_empty() {
            return Err(OutputError(format!(
                "`{name}` at `{url}` cannot give `delivery: exactly_once`: {faults}; or write `at_least_once`"
            )));
        }
        if self.said.as_ref() != Some(&faults) {
            if faults.is_empty() {
                info!(output = context.label, table = %name, "every row is written once, also after a crash");
            } else {
                warn!(output = context.label, table = %name, faults, "after a crash some rows may be there twice");
            }
            self.said = Some(faults);
        }
        Ok(memory.has_views)
    }

    /// Runs the statements of `create` and answers the columns of what they have made.
    async fn create_table(&self) -> Result<Vec<ListedColumn>, OutputError> {
        let Writer { server, name, url, .. } = &*self.writer;
        if self.create.is_empty() {
            return Err(OutputError(format!(
                "there is no table `{name}` at `{url}`, or user `{}` may not see it; {}",
                self.user,
                self.writer.how_to_create()
            )));
        }
        info!(table = %name, "creating the missing table");
        let mut first = None;
        for statement in &self.create {
            if let Err(failure) = server.execute(statement).await {
                // Another instance may be doing the same just now; what counts is that the table is there in the end.
                first = Some(failure);
                break;
            }
        }
        let columns = name.columns(server).await;
        match (columns, first) {
            (Ok(columns), _) if !columns.is_empty() => Ok(columns),
            (_, Some(failure)) => Err(OutputError(self.writer.explain("create", &failure))),
            (Err(failure), _) => Err(OutputError(self.writer.explain("read the columns of", &failure))),
            (Ok(_), None) => Err(OutputError(format!(
                "the statements of `create` ran, but there is still no table `{name}` at `{url}`; they create another one"
            ))),
        }
    }
}
