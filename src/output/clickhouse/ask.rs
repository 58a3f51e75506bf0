//! What `lint --connect` asks of a server: the questions of `connect`, without the trial insert and without creating the
//! table.
use std::{sync::Arc, time::Duration};

use serde::Deserialize;

use super::{insert::Writer, once, review::Review, table::Abilities};
use crate::{
    client::{clickhouse::Failure, probe},
    diagnostic::Fault,
    output::Once,
    shape::Shape,
};

/// A server that is asked.
pub struct Ask {
    pub writer: Arc<Writer>,
    pub user: String,
    /// The output has statements that create the table.
    pub creates: bool,
    pub once: Once,
    /// What it is given to write.
    pub payload: Shape,
    /// What is to be said of that where the server does not tell the columns.
    pub untold: Vec<Fault>,
    /// The time for all questions.
    pub limit: Duration,
}

impl Ask {
    /// Everything that speaks against writing to the table.
    pub async fn all(self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut told = false;
        match tokio::time::timeout(self.limit, self.questions(&mut faults, &mut told)).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => faults.push(self.failed(&failure)),
            Err(_) => {
                let reason = format!("no answer within {} s", self.limit.as_secs_f32());
                faults.push(probe::unreachable("url", &self.server(), &reason));
            }
        }
        if !told {
            faults.extend(self.untold);
        }
        faults
    }

    async fn questions(&self, faults: &mut Vec<Fault>, told: &mut bool) -> Result<(), Failure> {
        let Writer { server, name, url, .. } = &*self.writer;
        let user = &self.user;
        let abilities = Abilities::ask(server).await?;
        if abilities.read_only {
            let title = format!("user `{user}` at `{url}` is read-only");
            faults.push(
                Fault::new("missing-right", "user", title)
                    .label("may not write")
                    .help("give the output a user whose setting `readonly` is 0"),
            );
        }
        let listed = name.columns(server).await?;
        if listed.is_empty() {
            let title = format!("there is no table `{name}` at `{url}`, or user `{user}` may not see it");
            let fault = Fault::new("absent-table", "table", title).label("no such table");
            faults.push(if self.creates {
                fault.help("the output creates it at its start, with the statements of `create`").into_note()
            } else {
                fault.help(self.writer.how_to_create())
            });
            return Ok(());
        }
        let unfit = match self.writer.schema(listed, abilities.clone(), false) {
            Ok(schema) if schema.table.writable().next().is_some() => {
                *told = true;
                faults.extend(Review::of(schema.table, self.writer.rules, name, true).payload(&self.payload));
                None
            }
            Ok(_) => Some(format!("cannot insert into `{name}` at `{url}`: it has no column that can be written")),
            Err(title) => Some(title),
        };
        if let Some(title) = unfit {
            faults.push(Fault::new("unfit-table", "table", title).label("cannot be written to"));
        }
        if !abilities.read_only && self.may_insert().await == Some(false) {
            let title = format!("user `{user}` may not insert into `{name}` at `{url}`");
            faults.push(
                Fault::new("missing-right", "user", title)
                    .label("may not write")
                    .help(format!("grant it: `GRANT SELECT, INSERT ON {} TO {user}`", name.quoted())),
            );
        }
        if self.once != Once::No {
            for what in once::inspect(server, name, &abilities).await?.faults {
                faults.push(self.doubled(&what));
            }
        }
        Ok(())
    }

    /// A resent insert may leave its rows twice.
    fn doubled(&self, what: &str) -> Fault {
        let fault = Fault::new("no-deduplication", "table", format!("rows may be there twice after a crash: {what}"))
            .label("does not recognise an insert that comes again");
        match self.once {
            Once::Demanded => fault.help("do that, or write `delivery: at_least_once`"),
            Once::IfPossible | Once::No => {
                fault.help("do that, or leave it: without it delivery is at least once").into_warning()
            }
        }
    }

    /// Whether the user may write to the table, where the server can say so (since 24.10).
    async fn may_insert(&self) -> Option<bool> {
        #[derive(Deserialize)]
        struct Answer {
            result: u8,
        }
        let sql = format!("CHECK GRANT INSERT ON {}", self.writer.name.quoted());
        let answer: Vec<Answer> = self.writer.server.rows(&sql).await.ok()?;
        Some(answer.first()?.result == 1)
    }

    /// A question that was not answered.
    fn failed(&self, failure: &Failure) -> Fault {
        let what = self.server();
        // What follows tells how to find a forgotten password.
        let reason = failure.to_string().split(" If you use ClickHouse Cloud").next().unwrap_or_default().to_owned();
        match failure {
            Failure::Network(_) | Failure::Timeout => probe::unreachable("url", &what, &reason),
            Failure::Server { code: 192..=194 | 516, .. } => {
                probe::refused_sign_in("password", &what, &reason).help(failure.advice())
            }
            Failure::Server { code: 195, .. } => probe::refused_sign_in("user", &what, &reason).help(failure.advice()),
            Failure::Server { .. } => probe::not_checked("table", &what, &reason).help(failure.advice()),
        }
    }

    fn server(&self) -> String {
        format!("ClickHouse at `{}`", self.writer.url)
    }
}
