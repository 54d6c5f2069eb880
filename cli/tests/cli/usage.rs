//! Help, options, streams and exit codes.

use std::io::Read;
use std::process::Stdio;

use crate::common::{BF16, cmz, command, folder, run, with_cmz, with_model};

const COMMANDS: [&str; 9] =
    ["compress", "decompress", "inspect", "verify", "extract", "recover", "import", "export", "completions"];

#[test]
fn every_help_has_an_example_and_the_common_options() {
    let dir = folder();
    let main = cmz(dir.path(), &["--help"]).expect(0);
    assert!(main.out.contains("Exit codes") && main.out.contains("Examples:"));
    for name in COMMANDS {
        let help = cmz(dir.path(), &[name, "--help"]).expect(0).out;
        assert!(help.contains("Example") && help.contains(&format!("cmz {name}")), "{name}: {help}");
        for option in ["--threads", "--io", "--json", "--progress", "--quiet", "--color"] {
            assert!(help.contains(option), "{name} has no {option}");
        }
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let dir = with_cmz(BF16);
    let wrong: [&[&str]; 12] = [
        &[],
        &["frobnicate"],
        &["compress"],
        &["compress", "model.safetensors", "--level", "huge"],
        &["compress", "model.safetensors", "--codec", "nonsense"],
        &["compress", "model.safetensors", "--rm", "--no-verify"],
        &["inspect", "model.cmz", "-T", "many"],
        &["inspect", "model.cmz", "-q", "-v"],
        &["extract", "model.cmz", "no.such.tensor"],
        &["extract", "model.cmz", "encoder.layer.0.output.dense.weight[5:2]"],
        &["extract", "model.cmz", "encoder.layer.0.output.dense.weight", "-o", "-", "--json"],
        &["compress", "model.safetensors", "-o", "model.safetensors", "-f"],
    ];
    for args in wrong {
        let run = cmz(dir.path(), args).expect(2);
        assert!(!run.err.is_empty() || run.out.contains("CMZ2001"), "{args:?}: {run:?}");
    }
    assert!(!dir.path().join("no.such.tensor.npy").exists());
}

#[test]
fn wrong_usage_is_json_on_demand() {
    let dir = folder();
    let json = cmz(dir.path(), &["compress", "--json"]).expect(2).json();
    assert_eq!((&json["schema"], &json["errors"][0]["exit"]), (&"cmz.usage/1".into(), &2.into()));
}

#[test]
fn aliases_work() {
    let dir = with_model(BF16);
    cmz(dir.path(), &["c", "-k", "model.safetensors"]).expect(0);
    cmz(dir.path(), &["ls", "model.cmz"]).expect(0);
    cmz(dir.path(), &["test", "model.cmz"]).expect(0);
    cmz(dir.path(), &["d", "-k", "model.cmz", "-o", "back.safetensors"]).expect(0);
}

#[test]
fn the_environment_sets_threads_io_and_progress() {
    let dir = with_cmz(BF16);
    let quick = ["verify", "model.cmz", "--quick"];
    run(command(dir.path()).args(quick).env("CMZ_THREADS", "2").env("CMZ_IO", "pread")).expect(0);
    run(command(dir.path()).args(quick).env("CMZ_THREADS", "two")).expect(2);
    run(command(dir.path()).args(quick).env("CMZ_IO", "direct")).expect(2);
    let plain = run(command(dir.path()).args(quick).env("CMZ_PROGRESS", "plain")).expect(0);
    plain.says(&["verifying model.cmz: 100% of 3.55 MB", "ETA"]);
}

#[test]
fn progress_stays_off_without_a_terminal_and_under_quiet() {
    let dir = with_model(BF16);
    let quiet = cmz(dir.path(), &["c", "model.safetensors", "--progress", "plain", "-q"]).expect(0);
    assert_eq!(quiet.err, "");
    let auto = cmz(dir.path(), &["c", "model.safetensors", "-f"]).expect(0);
    assert_eq!(auto.err, "");
}

#[test]
fn colour_is_for_terminals_unless_asked_for() {
    let dir = folder();
    let missing = ["verify", "missing.cmz"];
    assert!(!cmz(dir.path(), &missing).expect(1).err.contains('\u{1b}'));
    let forced = ["--color", "always", "verify", "missing.cmz"];
    assert!(cmz(dir.path(), &forced).expect(1).err.contains('\u{1b}'));
    let never = run(command(dir.path()).args(["--color", "never", "verify", "x"]).env("CLICOLOR_FORCE", "1"));
    assert!(!never.err.contains('\u{1b}'));
    let no_color = run(command(dir.path()).args(missing).env("NO_COLOR", "1"));
    assert!(!no_color.err.contains('\u{1b}'));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let dir = with_cmz(BF16);
    let tensor = "encoder.layer.0.intermediate.dense.weight";
    let commands: [&[&str]; 2] =
        [&["extract", "-q", "model.cmz", tensor, "-o", "-"], &["inspect", "model.cmz", "--blocks"]];
    for args in commands {
        let mut child = command(dir.path()).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn completions_for_every_shell() {
    let dir = folder();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(cmz(dir.path(), &["completions", shell]).expect(0).out.contains("decompress"));
    }
}
