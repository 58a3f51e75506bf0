//! Several pipelines of one process, replaced, removed and stopped.
use super::*;

/// What a test's pipelines write, in the order of all their writes.
type Log = Arc<Mutex<Vec<String>>>;

/// A pipeline that writes `payloads` with its name to a log, and reads on until it is stopped.
fn pipeline(name: &str, payloads: &[&str], log: &Log) -> Pipeline {
    let (own, all) = (name.to_owned(), log.clone());
    let (out, _) = output(move |written| {
        all.lock().extend(written.iter().map(|payload| format!("{own} {payload}")));
        Some(Ok(()))
    });
    let mut pipeline = bench(&[], out, None).pipeline;
    pipeline.name = name.into();
    let batches = payloads.iter().map(|payload| vec![(*payload).to_owned()]).collect();
    pipeline.inputs[0].input = Box::new(FakeInput { batches, ends: false, token: 0, outcomes: Arc::default() });
    pipeline
}

fn supervisor() -> (Supervisor, HealthBoard) {
    let (out, _) = accepts();
    let Bench { environment, .. } = bench(&[], out, None);
    let board = environment.health.clone();
    (Supervisor::new(environment), board)
}

/// Lets what runs go on until nothing is left to do but wait.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_replaced_pipeline_writes_what_it_has_read_before_its_successor_starts() {
    let (mut supervisor, _) = supervisor();
    let log = Log::default();
    supervisor.start("file", pipeline("old", &["a", "b"], &log));
    // At once: the first one has read nothing yet, and what it reads until it stops still comes first.
    tokio::task::yield_now().await;
    supervisor.start("file", pipeline("new", &["c"], &log));
    assert!(supervisor.next().await);
    settle().await;
    let written = log.lock().clone();
    let first_new = written.iter().position(|line| line.starts_with("new")).expect("the successor runs");
    assert_eq!(written[first_new..], ["new C"], "{written:?}");
    assert!(!supervisor.has_failed());
}

#[tokio::test(start_paused = true)]
async fn of_several_that_wait_for_a_stop_only_the_last_one_starts() {
    let (mut supervisor, _) = supervisor();
    let log = Log::default();
    for name in ["first", "second", "third"] {
        supervisor.start("file", pipeline(name, &["x"], &log));
        if name == "first" {
            settle().await;
        }
    }
    assert!(supervisor.next().await);
    settle().await;
    assert_eq!(*log.lock(), ["first X", "third X"]);
}

#[tokio::test(start_paused = true)]
async fn a_removed_pipeline_stops_and_leaves_the_health_board() {
    let (mut supervisor, board) = supervisor();
    let log = Log::default();
    supervisor.start("gone", pipeline("gone", &["x"], &log));
    supervisor.start("stays", pipeline("stays", &["x"], &log));
    supervisor.remove("unknown");
    settle().await;
    supervisor.remove("gone");
    assert!(supervisor.next().await);
    assert_eq!(board.report().faults, []);
    // It may come again.
    supervisor.start("gone", pipeline("again", &["y"], &log));
    settle().await;
    assert!(log.lock().contains(&"again Y".to_owned()));
    supervisor.stop();
    assert!(supervisor.next().await && supervisor.next().await && !supervisor.next().await);
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_is_remembered_and_the_others_go_on() {
    let (mut supervisor, board) = supervisor();
    let log = Log::default();
    supervisor.start("bad", pipeline("bad", &["bad"], &log));
    supervisor.start("good", pipeline("good", &["x"], &log));
    assert!(supervisor.next().await);
    assert!(supervisor.has_failed());
    settle().await;
    assert_eq!(*log.lock(), ["good X"]);
    assert!(!board.report().ready, "a pipeline that has failed is missed until it is replaced");
    supervisor.start("bad", pipeline("better", &["y"], &log));
    settle().await;
    assert!(board.report().ready, "{:?}", board.report().faults);
    assert!(supervisor.has_failed(), "the exit code tells of it all the same");
    assert_eq!(*log.lock(), ["good X", "better Y"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_for_good() {
    let (mut supervisor, _) = supervisor();
    let log = Log::default();
    supervisor.start("file", pipeline("old", &["a"], &log));
    settle().await;
    supervisor.start("file", pipeline("waits", &["b"], &log));
    supervisor.stop();
    supervisor.start("file", pipeline("late", &["c"], &log));
    supervisor.start("other", pipeline("other", &["d"], &log));
    assert!(supervisor.next().await);
    assert!(!supervisor.next().await, "nothing is left");
    assert_eq!(*log.lock(), ["old A"]);
    assert!(!supervisor.has_failed());
}
