//! Recovery, damage, and making room, on the disk of [`super::sim`].

use super::sim::{SimDisk, dump, dump_of};
use super::*;
use crate::store::MemoryEngine;

const SMALL: LogOptions = LogOptions { segment_bytes: 2_000, slack_bytes: 1_000, salvage: false };

fn push(queue: u64, seq: u64, text: &str) -> Change {
    Change::Push { queue, seq, body: None, bytes: text.as_bytes().into() }
}

fn open(disk: &SimDisk) -> LogEngine {
    LogEngine::on(Box::new(disk.clone()), SMALL).unwrap()
}

fn refused(disk: &SimDisk) -> Fault {
    LogEngine::on(Box::new(disk.clone()), SMALL).expect_err("it is refused")
}

#[test]
fn what_was_committed_is_there_after_opening_it_again() {
    let disk = SimDisk::new();
    let mut engine = open(&disk);
    assert_eq!(engine.starts(), 1);
    let body = Change::PutBody { id: 9, bytes: Box::from(*b"shared") };
    let point = |queue| Change::Push { queue, seq: 4, body: Some(9), bytes: Box::from(*b"own") };
    engine.commit(&[Change::PutSession { id: 1, bytes: Box::from(*b"one") }, push(1, 1, "a")]).unwrap();
    engine.commit(&[body, point(1), point(2), push(1, 7, "b")]).unwrap();
    engine.commit(&[Change::Pop { queue: 1, seq: 1 }]).unwrap();
    engine.commit(&[Change::SetRetained { topic: "t/x".into(), bytes: Box::from(*b"r") }]).unwrap();
    engine.commit(&[Change::PutMeta { key: "ban".into(), bytes: Box::default() }]).unwrap();
    let before = dump(&mut engine);
    assert!(before.contains("shared") && before.contains("t/x"), "{before}");
    drop(engine);
    let mut engine = open(&disk);
    assert_eq!(engine.starts(), 2);
    assert_eq!(dump(&mut engine), before);
    let read = Read { queue: 1, from: 2, entries_max: 1, bytes_max: 100 };
    let found = engine.read(&read).unwrap();
    assert_eq!((found.entries.len(), found.entries[0].seq, found.more), (1, 4, true));
    assert_eq!(found.entries[0].body, Some((9, Box::from(*b"shared"))));
    assert_eq!(engine.figures().bodies, 1);
}

#[test]
fn an_open_writes_nothing_and_starts_are_counted_by_commits() {
    let disk = SimDisk::new();
    drop(open(&disk));
    assert_eq!(disk.writes(), 0);
    assert_eq!(open(&disk).starts(), 1);
    open(&disk).commit(&[]).unwrap();
    assert_eq!(open(&disk).starts(), 2);
}

/// A file that version 1 wrote: it opens, or the version counts up and this file is upgraded.
#[test]
fn a_file_of_version_1_can_be_read() {
    let disk = SimDisk::new();
    drop(disk.create(&name_of(1)).unwrap());
    disk.edit(&name_of(1), |bytes| *bytes = include_bytes!("../../../tests/store/v1.log").to_vec());
    let mut engine = open(&disk);
    assert_eq!((engine.starts(), engine.damages.len()), (2, 0));
    let lines = "meta ban/c why\nqueue 1 4 own Some(\"9 shared\")\nqueue 2 4 own Some(\"9 shared\")";
    let text = dump(&mut engine);
    for line in lines.lines().chain(["queue 1 7 alone None", "retained t/x kept", "session 1 state of 1"]) {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert_eq!(engine.figures().entries, 3);
}

/// What lives long is not written again and again, and what is garbage goes.
#[test]
fn a_queue_that_moves_on_needs_a_bounded_disk() {
    let disk = SimDisk::new();
    let mut engine = open(&disk);
    for id in 0..10 {
        engine.commit(&[Change::PutSession { id, bytes: Box::from([7; 100]) }]).unwrap();
    }
    for seq in 0..2_000 {
        engine.commit(&[push(3, seq, "some text of a message")]).unwrap();
        if seq >= 5 {
            engine.commit(&[Change::Pop { queue: 3, seq: seq - 5 }]).unwrap();
        }
        while engine.tidy().unwrap() {}
        let figures = engine.figures();
        assert!(figures.bytes_disk <= 2 * figures.bytes_live + 1_000 + 2 * 2_100, "{figures:?}");
    }
    let figures = engine.figures();
    assert!(figures.bytes_written < 3 * 2_000 * 130, "{figures:?}");
    let before = dump(&mut engine);
    drop(engine);
    assert_eq!(dump(&mut open(&disk)), before);
}

#[test]
fn another_version_is_refused() {
    let disk = SimDisk::new();
    let mut engine = open(&disk);
    engine.commit(&[push(1, 1, "a")]).unwrap();
    disk.edit(&name_of(1), |bytes| {
        bytes[8] = 7;
        let crc = crc32fast::hash(&bytes[..24]);
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    });
    let fault = refused(&disk);
    assert_eq!(fault.kind, FaultKind::Version);
    assert!(fault.text.contains("version 7, expected 1"), "{fault}");
}

/// A bit that flips anywhere is noticed, and costs one record, or is named as more than that.
#[test]
fn a_flipped_bit_is_fenced_or_refused() {
    let disk = SimDisk::new();
    let mut engine = open(&disk);
    let count = 12;
    for seq in 1..=count {
        engine
            .commit(&[push(1, seq, "text"), Change::PutSession { id: seq, bytes: Box::default() }])
            .unwrap();
    }
    let whole = disk.bytes(&name_of(1));
    let last_group = whole.windows(4).rposition(|w| w == format::GROUP_MARK).unwrap();
    let (mut fenced, mut refusals) = (0, 0);
    for byte in HEAD_BYTES..last_group {
        disk.edit(&name_of(1), |bytes| bytes[byte] ^= 1 << (byte % 8));
        match LogEngine::on(Box::new(disk.clone()), SMALL) {
            Ok(mut engine) => {
                fenced += 1;
                assert_eq!(engine.figures().damaged, 1, "byte {byte}");
                let figures = engine.figures();
                let items = figures.entries + figures.sessions;
                assert!(items + 1 >= 2 * count && items <= 2 * count, "byte {byte}: {figures:?}");
                let first = dump(&mut engine);
                engine.commit(&[push(5, 1, "more")]).unwrap();
                assert!(first.len() < dump(&mut engine).len());
                disk.remove(&name_of(2)).unwrap();
            }
            Err(fault) => {
                refusals += 1;
                assert_eq!(fault.kind, FaultKind::Damaged);
                assert!(fault.text.contains("ringmq store salvage"), "{fault}");
                let options = LogOptions { salvage: true, ..SMALL };
                let engine = LogEngine::on(Box::new(disk.clone()), options).unwrap();
                let figures = engine.figures();
                assert!(figures.damaged >= 1, "byte {byte}");
                assert!(figures.entries + figures.sessions >= 2 * count - 2, "byte {byte}: {figures:?}");
            }
        }
        disk.edit(&name_of(1), |bytes| bytes.copy_from_slice(&whole));
    }
    assert!(fenced > refusals, "{fenced} fenced, {refusals} refused");
    // The head of a segment says nothing that is not known otherwise.
    disk.edit(&name_of(1), |bytes| bytes[3] ^= 1);
    assert_eq!(open(&disk).figures().entries, count);
}

#[test]
fn a_missing_segment_is_noticed() {
    let disk = SimDisk::new();
    let mut engine = open(&disk);
    for seq in 1..200 {
        engine.commit(&[push(1, seq, "some text of a message")]).unwrap();
    }
    assert!(engine.segments.len() > 3);
    disk.remove(&name_of(2)).unwrap();
    let fault = refused(&disk);
    assert!(fault.kind == FaultKind::Damaged && fault.text.contains("commits"), "{fault}");
    let mut engine = LogEngine::on(Box::new(disk), LogOptions { salvage: true, ..SMALL }).unwrap();
    assert!(dump(&mut engine).len() > 1_000);
}

#[test]
fn a_damaged_entry_is_left_out_of_a_read_and_counted() {
    let disk = SimDisk::new();
    let mut engine = open(&disk);
    for seq in 1..=3 {
        engine.commit(&[push(1, seq, "text")]).unwrap();
    }
    let at = engine.index.entries_from(1, 2).next().unwrap().at;
    disk.edit(&name_of(1), |bytes| bytes[at.offset as usize + RECORD] ^= 1);
    const RECORD: usize = format::RECORD_HEAD_BYTES + 20;
    let found = engine.read(&Read { queue: 1, from: 0, entries_max: 10, bytes_max: 1_000 }).unwrap();
    let seqs: Vec<u64> = found.entries.iter().map(|entry| entry.seq).collect();
    assert_eq!((seqs, found.lost, found.more), (vec![1, 3], 1, false));
    assert_eq!(engine.figures().damaged, 1);
}

/// Commits of a recorded run: `RINGMQ_STORE_COMMITS`, for longer runs than those of every day.
fn commits(usual: u64) -> u64 {
    std::env::var("RINGMQ_STORE_COMMITS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Every cut of a run, with the writes that were not synced lost, there, torn and out of order.
#[test]
fn every_power_cut_keeps_what_was_answered() {
    let run = super::sim::Run::new(1, commits(400), SMALL).with_faults(0);
    let (cuts, faults) = run.check(3);
    println!("{cuts} cuts");
    assert!(cuts > 800, "{cuts} cuts");
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn every_power_cut_of_a_disk_that_fails_keeps_what_was_answered() {
    for seed in 2..6 {
        let run = super::sim::Run::new(seed, commits(150), SMALL).with_faults(12);
        assert!(run.refused() > 5, "{} refused", run.refused());
        let (cuts, faults) = run.check(3);
        println!("seed {seed}: {cuts} cuts, {} commits refused", run.refused());
        assert_eq!(faults, Vec::<String>::new(), "seed {seed}");
    }
}

/// The check can fail: a disk whose sync does nothing loses what was answered.
#[test]
fn a_missing_sync_is_seen() {
    for (files, folder) in [(false, true), (true, false)] {
        let run = super::sim::Run::lying(6, 100, SMALL, files, folder);
        let (_, faults) = run.check(3);
        assert!(!faults.is_empty(), "syncs of files {files}, of the folder {folder}");
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let disk = SimDisk::new();
    let mut engine = open(&disk);
    let mut model = MemoryEngine::new();
    engine.commit(&[push(1, 1, "a")]).unwrap();
    model.commit(&[push(1, 1, "a")]).unwrap();
    disk.set_full(true);
    for _ in 0..5 {
        let fault = engine.commit(&[push(1, 2, "b")]).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Full);
        assert!(fault.text.contains("make room"), "{fault}");
    }
    assert_eq!(dump(&mut engine), dump_of(&mut model));
    disk.set_full(false);
    engine.commit(&[push(1, 3, "c")]).unwrap();
    model.commit(&[push(1, 3, "c")]).unwrap();
    assert_eq!(dump(&mut engine), dump_of(&mut model));
    assert_eq!(dump(&mut open(&disk)), dump_of(&mut model));
}

#[test]
fn a_folder_has_one_owner_and_keeps_what_it_is_given() {
    let path = std::env::temp_dir().join(format!("ringmq-store-{}", std::process::id()));
    let mut engine = LogEngine::open(&path).unwrap();
    engine.commit(&[push(1, 1, "a")]).unwrap();
    let fault = LogEngine::open(&path).expect_err("the folder is taken");
    assert_eq!(fault.kind, FaultKind::Busy);
    assert!(fault.text.contains("another process has the store"), "{fault}");
    drop(engine);
    let mut engine = LogEngine::open(&path).unwrap();
    assert_eq!(engine.figures().entries, 1);
    engine.commit(&[Change::Trim { queue: 1, to: 9 }]).unwrap();
    while engine.tidy().unwrap() {}
    assert_eq!(engine.figures().entries, 0);
    drop(engine);
    std::fs::remove_dir_all(&path).unwrap();
}

#[test]
fn a_backup_of_a_store_in_use_is_a_store() {
    let base = std::env::temp_dir().join(format!("ringmq-backup-{}", std::process::id()));
    let (from, to) = (base.join("from"), base.join("to"));
    let mut engine = LogEngine::on(Box::new(Folder::take(&from).unwrap()), SMALL).unwrap();
    for seq in 0..200 {
        engine.commit(&[push(1, seq, "some text of a message")]).unwrap();
    }
    assert!(engine.segments.len() > 3);
    backup(&from, &to).unwrap();
    let before = dump(&mut engine);
    let fault = backup(&from, &to).unwrap_err();
    assert!(fault.text.contains("expected an empty folder"), "{fault}");
    engine.commit(&[Change::Trim { queue: 1, to: 150 }]).unwrap();
    assert_eq!(dump(&mut LogEngine::open(&to).unwrap()), before);
    std::fs::remove_dir_all(&base).unwrap();
}

#[test]
fn what_is_exported_makes_the_same_store_again() {
    let (disk, other) = (SimDisk::new(), SimDisk::new());
    let mut engine = open(&disk);
    let body = Change::PutBody { id: 9, bytes: Box::from(*b"shared") };
    let point = |queue| Change::Push { queue, seq: 4, body: Some(9), bytes: Box::default() };
    engine.commit(&[push(1, 1, "a"), body, point(1), point(2), push(1, 5, "b")]).unwrap();
    engine.commit(&[Change::SetRetained { topic: "t".into(), bytes: Box::default() }]).unwrap();
    engine.commit(&[Change::PutSession { id: 1, bytes: Box::from(*b"s") }]).unwrap();
    engine.commit(&[Change::PutMeta { key: "k".into(), bytes: Box::from(*b"m") }]).unwrap();
    let mut copy = open(&other);
    copy.go_on_from(engine.starts());
    engine.export(&mut |change| copy.commit(&[change])).unwrap();
    assert_eq!(dump(&mut copy), dump(&mut engine));
    drop(copy);
    let mut copy = open(&other);
    assert_eq!(dump(&mut copy), dump(&mut engine));
    assert_eq!(copy.starts(), 3, "identities do not come again");
}
