//! `--connect`: every component asks its own server, all of them side by side. What they answer becomes findings at the
//! settings they concern.
use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::future::join_all;

use super::{
    File,
    payload::{self, Made},
};
use crate::{client::probe, config::Role, diagnostic::Diagnostic, output::Once, shape::Shape};

/// What a component has besides the limit to end in its own words.
const GRACE: Duration = Duration::from_secs(1);

/// Findings with the index of their file.
pub(super) async fn ask(files: &[Option<File<'_>>], limit: Duration) -> Vec<(usize, Diagnostic)> {
    let files = files.iter().enumerate().filter_map(|(index, file)| Some((index, file.as_ref()?)));
    let (mut asked, mut told) = (Vec::new(), Vec::new());
    for (index, file) in files {
        let made = Arc::new(Made::of(file));
        for part in &file.parts {
            let is_output = part.role == Role::Output;
            let once = if is_output { file.once() } else { Once::No };
            let given = if is_output { made.given_to(part) } else { Shape::Any };
            let (kind, component) = (part.role.kind(), &part.component);
            let found = file.registry.find(kind, &component.name);
            let Some(probe) = found.and_then(|found| found.probe(part.role, &component.section, once, &given, limit))
            else {
                if is_output {
                    told.extend(payload::review(file, &made, part).into_iter().map(|found| (index, found)));
                }
                continue;
            };
            let made = made.clone();
            asked.push(async move {
                let answer = tokio::time::timeout(limit + GRACE, probe).await;
                let faults = answer.unwrap_or_else(|_| {
                    let what = format!("{} `{}`", kind.word(), part.label);
                    let reason = format!("no answer within {} s", limit.as_secs_f32());
                    vec![probe::not_checked("", &what, &reason)]
                });
                faults.iter().map(|fault| (index, made.diagnose(part, fault))).collect::<Vec<_>>()
            });
        }
    }
    let mut down = HashSet::new();
    let found = join_all(asked).await.into_iter().flatten().chain(told);
    // One server that is away is one finding, however many components name it.
    found.filter(|(_, found)| found.code != "unreachable-server" || down.insert(found.title.clone())).collect()
}
