//! Crashes, damage and full disks, on real files.
use tempfile::TempDir;

use super::*;
use crate::{message::SourceBuilder, pipeline::spool::block::BlockWriter};

const SEGMENT: u64 = 4096;

struct Bench {
    folder: TempDir,
    log: Log,
}

/// A block of messages whose payloads begin with their numbers.
fn block(first: u64, messages: u32, padding: usize) -> Vec<u8> {
    let mut source = SourceBuilder::new("mqtt");
    for number in first..first + u64::from(messages) {
        source.push(format!("{number} {}", "x".repeat(padding)).as_bytes(), |_, _| Ok(())).unwrap();
    }
    let source = source.finish();
    let mut writer = BlockWriter::new(&source, 1);
    writer.push(&source);
    writer.finish(first)
}

fn append(log: &mut Log, messages: u32, padding: usize) -> Result<(), LogError> {
    log.append(&block(log.end, messages, padding), messages, 1)
}

/// Opens a log that was open just now. The lock may be held a moment longer by a process that another test starts: it has
/// all our files until it is the program it is meant to be.
fn open(folder: &Path) -> Result<Log, LogError> {
    loop {
        match Log::open(folder, SEGMENT) {
            Err(LogError::Locked(_)) => std::thread::sleep(std::time::Duration::from_millis(1)),
            opened => return opened,
        }
    }
}

/// Numbers of all messages from the cursor on.
fn read_all(log: &Log) -> Result<Vec<u64>, LogError> {
    let (mut at, mut found) = (log.start()?, Vec::new());
    while at.number < log.end {
        let block = read(&log.folder, at)?;
        assert_eq!(block.first, at.number.max(block.first));
        for origin in block.source.origins() {
            let text = std::str::from_utf8(block.source.original(origin)).unwrap();
            found.push(text.split(' ').next().unwrap().parse().unwrap());
        }
        at = block.next;
    }
    Ok(found)
}

impl Bench {
    /// A log with blocks of 3 messages each.
    fn new(blocks: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), SEGMENT).unwrap();
        for _ in 0..blocks {
            append(&mut log, 3, 200).unwrap();
        }
        Self { folder, log }
    }

    /// As after a crash.
    fn reopen(self) -> Result<Self, LogError> {
        let Self { folder, log } = self;
        drop(log);
        open(folder.path()).map(|log| Self { folder, log })
    }

    fn last_segment(&self) -> PathBuf {
        segment_file(self.folder.path(), self.log.segments.back().unwrap().first)
    }

    fn change(&self, file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        assert!(file.starts_with(self.folder.path()));
        let mut bytes = std::fs::read(file).unwrap();
        change(&mut bytes);
        std::fs::write(file, bytes).unwrap();
    }
}

#[test]
fn messages_come_out_in_order_over_segments_and_restarts() {
    let mut bench = Bench::new(0);
    for round in 1..=30 {
        append(&mut bench.log, 3, 200).unwrap();
        assert_eq!(read_all(&bench.log).unwrap(), (0..round * 3).collect::<Vec<_>>());
        bench = bench.reopen().unwrap();
    }
    assert!(bench.log.segments.len() > 3, "{} segments", bench.log.segments.len());
}

#[test]
fn what_is_delivered_is_removed_and_not_read_again() {
    let mut bench = Bench::new(30);
    let bytes = bench.log.bytes();
    bench.log.delivered_below(50).unwrap();
    assert!(bench.log.bytes() < bytes);
    let mut bench = bench.reopen().unwrap();
    assert_eq!(read_all(&bench.log).unwrap(), (50..90).collect::<Vec<_>>(), "the cursor stands inside a block");
    bench.log.delivered_below(90).unwrap();
    assert_eq!(bench.log.bytes(), 0);
    assert!(!holds_messages(bench.folder.path()));
    append(&mut bench.log, 2, 10).unwrap();
    let bench = bench.reopen().unwrap();
    assert_eq!(read_all(&bench.log).unwrap(), [90, 91], "numbers go on");
}

#[test]
fn a_lost_cursor_only_repeats() {
    let mut bench = Bench::new(3);
    bench.log.delivered_below(7).unwrap();
    std::fs::write(bench.folder.path().join("cursor"), [7; 700]).unwrap();
    let bench = bench.reopen().unwrap();
    assert_eq!(read_all(&bench.log).unwrap(), (0..9).collect::<Vec<_>>());
}

#[test]
fn a_torn_cursor_falls_back_to_the_one_before() {
    let mut bench = Bench::new(3);
    bench.log.delivered_below(4).unwrap();
    bench.log.delivered_below(6).unwrap();
    let file = bench.folder.path().join("cursor");
    bench.change(&file, |bytes| {
        let at = bytes.chunks(8).position(|number| number == 6u64.to_le_bytes()).unwrap() * 8;
        bytes[at] = 8;
    });
    let bench = bench.reopen().unwrap();
    assert_eq!(read_all(&bench.log).unwrap()[0], 4);
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_off_and_the_log_goes_on() {
    let bench = Bench::new(4);
    let file = bench.last_segment();
    let whole = std::fs::read(&file).unwrap();
    let last = block(9, 3, 200).len();
    let mut bench = bench;
    for kept in whole.len() - last..whole.len() {
        std::fs::write(&file, &whole[..kept]).unwrap();
        bench = bench.reopen().unwrap();
        assert_eq!(read_all(&bench.log).unwrap(), (0..9).collect::<Vec<_>>(), "{kept} bytes are left");
        append(&mut bench.log, 1, 0).unwrap();
        assert_eq!(read_all(&bench.log).unwrap(), (0..10).collect::<Vec<_>>());
    }
}

#[test]
fn a_tail_with_sectors_that_never_reached_the_disk_is_cut_off() {
    let mut bench = Bench::new(2);
    append(&mut bench.log, 10, 400).unwrap();
    let file = bench.last_segment();
    let whole = std::fs::read(&file).unwrap();
    let start = whole.len() - block(6, 10, 400).len();
    for sector in (start.next_multiple_of(SECTOR)..whole.len()).step_by(SECTOR) {
        std::fs::write(&file, &whole).unwrap();
        bench.change(&file, |bytes| {
            let end = bytes.len().min(sector + SECTOR);
            bytes[sector..end].fill(0);
        });
        bench = bench.reopen().unwrap();
        assert_eq!(read_all(&bench.log).unwrap(), (0..6).collect::<Vec<_>>());
    }
    std::fs::write(&file, &whole).unwrap();
    bench.change(&file, |bytes| bytes[start..].fill(0));
    bench = bench.reopen().unwrap();
    assert_eq!(read_all(&bench.log).unwrap(), (0..6).collect::<Vec<_>>());
}

#[test]
fn damage_is_an_error_that_names_file_and_byte() {
    let block_bytes = block(0, 3, 200).len();
    let Bench { folder, log } = Bench::new(2);
    let (count, file) = (log.bytes() as usize, segment_file(folder.path(), 0));
    drop(log);
    let whole = std::fs::read(&file).unwrap();
    // Every byte of the first block of two, which was confirmed, and of the second: a changed byte is no torn write.
    for at in 0..count {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        std::fs::write(&file, bytes).unwrap();
        let opened = open(folder.path());
        let error = opened.err().unwrap_or_else(|| panic!("byte {at} was not missed")).to_string();
        let place = format!("`{}` is damaged at byte {}:", file.display(), at / block_bytes * block_bytes);
        assert!(error.contains(&place), "{error}");
    }
}

#[test]
fn damage_in_an_earlier_segment_is_met_when_it_is_read() {
    let bench = Bench::new(30);
    let file = segment_file(bench.folder.path(), bench.log.segments[1].first);
    bench.change(&file, |bytes| bytes[100] ^= 1);
    let first = bench.log.segments[1].first;
    let bench = bench.reopen().unwrap();
    let error = read_all(&bench.log).unwrap_err().to_string();
    assert!(error.contains(&format!("`{}` is damaged at byte 0:", file.display())), "{error}");
    assert!(error.contains(&format!("from number {first} on")), "{error}");

    std::fs::remove_file(&file).unwrap();
    let error = read_all(&bench.log).unwrap_err().to_string();
    assert!(error.contains("it is missing"), "{error}");
}

#[test]
fn a_shortened_segment_in_the_middle_is_damage() {
    let bench = Bench::new(30);
    let first = bench.log.segments[1].first;
    let file = segment_file(bench.folder.path(), first);
    bench.change(&file, |bytes| bytes.truncate(bytes.len() - 1));
    let bench = bench.reopen().unwrap();
    let error = read_all(&bench.log).unwrap_err().to_string();
    assert!(error.contains("ends in the middle of a block"), "{error}");
    // Whole blocks that are missing are missed too.
    let whole = block(first, 3, 200).len();
    bench.change(&file, |bytes| bytes.truncate(bytes.len() / whole * whole));
    let error = read_all(&bench.log).unwrap_err().to_string();
    assert!(error.contains("is missing"), "{error}");
}

#[test]
fn a_segment_that_the_user_gives_up_is_passed_over() {
    let bench = Bench::new(30);
    let (first, next) = (bench.log.segments[1].first, bench.log.segments[2].first);
    let file = segment_file(bench.folder.path(), first);
    std::fs::rename(&file, file.with_extension("log.damaged")).unwrap();
    let bench = bench.reopen().unwrap();
    assert_eq!(read_all(&bench.log).unwrap(), (0..first).chain(next..90).collect::<Vec<_>>());
}

#[test]
fn a_first_segment_that_is_missing_is_missed() {
    let mut bench = Bench::new(30);
    bench.log.delivered_below(5).unwrap();
    let file = segment_file(bench.folder.path(), 0);
    let given_up = file.with_extension("log.damaged");
    std::fs::rename(&file, &given_up).unwrap();
    let bench = bench.reopen().unwrap();
    let next = bench.log.segments[0].first;
    assert_eq!(read_all(&bench.log).unwrap(), (next..90).collect::<Vec<_>>(), "given up");
    std::fs::remove_file(&given_up).unwrap();
    let error = read_all(&bench.log).unwrap_err().to_string();
    assert!(error.contains("it is missing") && error.contains("from number 5 on"), "{error}");
}

#[test]
fn one_process_at_a_time() {
    let bench = Bench::new(1);
    let error = Log::open(bench.folder.path(), SEGMENT).err().unwrap().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    assert!(bench.reopen().is_ok());
}

/// The kernel refuses to write past a limit, as it does on a full disk. In a process of its own: the limit is one of
/// the process.
#[test]
fn a_write_that_the_disk_refuses_counts_for_nothing_and_may_be_tried_again() {
    const LIMITED: &str = "STREAMER_TEST_LIMITED_FOLDER";
    let Ok(folder) = std::env::var(LIMITED) else {
        let folder = tempfile::tempdir().unwrap();
        let name =
            "pipeline::spool::log::tests::a_write_that_the_disk_refuses_counts_for_nothing_and_may_be_tried_again";
        // Blocks of 512 bytes in `sh`: files may have 8 KiB.
        let script = format!("trap '' XFSZ; ulimit -f 16; exec \"$0\" --exact {name}");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script]).arg(std::env::current_exe().unwrap()).env(LIMITED, folder.path());
        let done = command.output().unwrap();
        let text = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && text.contains("1 passed"), "{text}");
        // Without the limit the same files are whole, and take what was refused.
        let mut log = Log::open(folder.path(), 1 << 20).unwrap();
        let before = read_all(&log).unwrap();
        assert_eq!(before.len(), 6);
        append(&mut log, 3, 200).unwrap();
        assert_eq!(read_all(&log).unwrap().len(), before.len() + 3);
        return;
    };
    let mut log = Log::open(Path::new(&folder), 1 << 20).unwrap();
    let mut written = 0;
    let refused = loop {
        match append(&mut log, 3, 200) {
            Ok(()) => written += 3,
            Err(error) => break error,
        }
        assert!(written < 1000, "there is no limit");
    };
    assert!(written > 0 && matches!(refused, LogError::Io { .. }), "{written}: {refused}");
    for _ in 0..3 {
        assert!(append(&mut log, 3, 200).is_err());
        assert_eq!(read_all(&log).unwrap(), (0..written).collect::<Vec<_>>());
    }
    log.delivered_below(written).unwrap();
    append(&mut log, 3, 200).unwrap();
    append(&mut log, 3, 200).unwrap();
    assert_eq!(read_all(&log).unwrap(), (written..written + 6).collect::<Vec<_>>(), "there is room again");
}
