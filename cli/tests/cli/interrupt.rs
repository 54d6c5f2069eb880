//! Conversions that are killed.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::{Random, cmz, command, contents, folder, safetensors, weights};

/// Kills in all.
const KILLS: usize = 220;

/// A checkpoint of a few small tensors, a large one and one that cannot be compressed.
fn model(path: &Path, seed: u64) {
    let names: Vec<_> = (0..6).map(|i| format!("layer.{i}.weight")).collect();
    let mut tensors: Vec<_> = names
        .iter()
        .zip(seed..)
        .map(|(name, seed)| (name.as_str(), "BF16", vec![96, 128], weights(96 * 128, seed)))
        .collect();
    let mut random = Random(seed + 1);
    tensors.push(("noise", "U8", vec![1 << 20], (0..1 << 20).map(|_| random.next() as u8).collect()));
    tensors.push(("head", "BF16", vec![1024, 1024], weights(1 << 20, seed + 99)));
    fs::write(path, safetensors(&tensors)).unwrap();
}

/// Runs the command and kills it after a while, unless it ends before. The time is counted
/// from when `begun` appears, if that is asked for.
fn kill_after(folder: &Path, args: &[&str], begun: Option<&str>, delay: Duration) {
    let mut child = command(folder).args(args).stdout(Stdio::null()).spawn().unwrap();
    while begun.is_some_and(|name| !folder.join(name).exists()) && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_micros(200));
    }
    std::thread::sleep(delay);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// How long a command takes.
fn duration(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

#[test]
fn a_killed_conversion_leaves_the_old_or_the_new_file() {
    let dir = folder();
    let (source, target) = (dir.path().join("model.safetensors"), dir.path().join("model.cmz"));
    model(&source, 1);
    let whole = duration(|| drop(cmz(dir.path(), &["c", "model.safetensors", "-o", "expected.cmz"]).expect(0)));
    let expected = fs::read(dir.path().join("expected.cmz")).unwrap();
    let mut random = Random(42);
    // Adapted to the machine and its load, so that about a third of the runs finish.
    let mut span = whole / 2;
    let (mut resumed, mut finished, mut left_partial) = (0, 0, 0);
    for round in 0..KILLS {
        // Every other round there is an old file that is to be replaced.
        let old = (round % 2 == 1).then_some(&b"the old file"[..]);
        match old {
            Some(old) => fs::write(&target, old).unwrap(),
            None => drop(fs::remove_file(&target)),
        }
        let threads = ["1", "2", "3", "8"][round % 4];
        let mut args = vec!["c", "-q", "model.safetensors", "-T", threads];
        args.extend(old.map(|_| "-f"));
        let delay = Duration::from_nanos(random.below(span.as_nanos() as u64));
        // Most are killed while they write, some while they plan.
        let begun = (round % 4 != 0).then_some("model.cmz.partial");
        kill_after(dir.path(), &args, begun, delay);
        let found = fs::read(&target).ok();
        let done = found.as_ref() == Some(&expected);
        assert!(done || found.as_deref() == old, "round {round}: a partial file after {delay:?}");
        finished += usize::from(done);
        span = if done { span * 9 / 10 } else { span * 21 / 20 };
        left_partial += usize::from(dir.path().join("model.cmz.partial").exists());
        if round % 8 != 7 {
            continue;
        }
        // The rerun goes on where the killed ones stopped.
        let json = cmz(dir.path(), &["c", "-f", "model.safetensors", "--json"]).expect(0).json();
        resumed += usize::from(json["files"][0]["resumed_blocks"].as_u64() > Some(0));
        assert_eq!(fs::read(&target).unwrap(), expected, "round {round}: another file");
    }
    let counts = format!("{left_partial} unfinished, {resumed} resumed, {finished} finished");
    assert!(left_partial > KILLS / 4 && resumed > 4 && finished > 4, "{counts}");
}

#[test]
fn a_killed_restoration_leaves_nothing_or_the_whole_file() {
    let dir = folder();
    model(&dir.path().join("model.safetensors"), 5);
    cmz(dir.path(), &["c", "model.safetensors"]).expect(0);
    let expected = fs::read(dir.path().join("model.safetensors")).unwrap();
    let target = dir.path().join("back.safetensors");
    let args = ["d", "-q", "model.cmz", "-o", "back.safetensors"];
    let whole = duration(|| drop(cmz(dir.path(), &args).expect(0)));
    let mut random = Random(4711);
    for round in 0..40 {
        let _ = fs::remove_file(&target);
        kill_after(dir.path(), &args, None, Duration::from_nanos(random.below(whole.as_nanos() as u64)));
        let found = fs::read(&target).ok();
        assert!(found.is_none() || found.as_ref() == Some(&expected), "round {round}");
    }
    let _ = fs::remove_file(&target);
    cmz(dir.path(), &args).expect(0);
    assert_eq!(fs::read(&target).unwrap(), expected);
}

#[test]
fn a_killed_folder_goes_on_file_by_file() {
    let dir = folder();
    let source = dir.path().join("model");
    fs::create_dir(&source).unwrap();
    for shard in 0..3 {
        model(&source.join(format!("{shard}.safetensors")), 10 * shard + 1);
    }
    fs::write(source.join("config.json"), "{}").unwrap();
    let whole = duration(|| drop(cmz(dir.path(), &["c", "model", "-o", "expected"]).expect(0)));
    let expected = contents(&dir.path().join("expected"));
    let out = dir.path().join("out");
    let mut random = Random(7);
    for _ in 0..15 {
        let _ = fs::remove_dir_all(&out);
        for _ in 0..2 {
            kill_after(
                dir.path(),
                &["c", "-q", "model", "-o", "out"],
                None,
                Duration::from_nanos(random.below(whole.as_nanos() as u64)),
            );
            let found = if out.is_dir() { contents(&out) } else { Default::default() };
            let finished = |name: &str| found.get(name) == expected.get(name);
            for name in found.keys().filter(|name| !name.ends_with(".partial")) {
                assert!(finished(name), "{name} is partial");
            }
            let marked = found.contains_key("model.cmz.index.json");
            assert!(!marked || expected.keys().all(|name| finished(name)), "marked as complete too early");
        }
        cmz(dir.path(), &["c", "-q", "model", "-o", "out"]).expect(0);
        assert_eq!(contents(&out), expected);
    }
}
