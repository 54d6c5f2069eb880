//! Files whose weights were rounded.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::common::{BF16, Random, cmz, command, contents, folder, safetensors, weights, with_model};

const RECIPE: [&str; 3] = ["c", "model.safetensors", "--recipe=int4:group=64"];

/// A checkpoint with matrices, vectors, and bytes.
fn model() -> Vec<u8> {
    safetensors(&[
        ("a.weight", "BF16", vec![96, 128], weights(96 * 128, 1)),
        ("a.bias", "BF16", vec![128], weights(128, 2)),
        ("b.weight", "BF16", vec![3000, 512], weights(3000 * 512, 3)),
        ("bytes", "U8", vec![64, 64], vec![7; 4096]),
        ("c.weight", "BF16", vec![40, 100], weights(4000, 4)),
    ])
}

fn tensors(json: &Value) -> Vec<(String, Option<f64>)> {
    let rows = json["files"][0]["tensors"].as_array().unwrap().iter();
    rows.map(|row| (row["name"].as_str().unwrap().to_owned(), row["lossy"]["error"].as_f64())).collect()
}

#[test]
fn real_weights_say_that_they_were_rounded() {
    let dir = with_model(BF16);
    let done = cmz(dir.path(), &RECIPE).expect(0);
    assert!(done.out.contains("6 tensors rounded, relative error up to 0.0"), "{done:?}");
    assert!(done.err.contains("stored exactly, as they are no matrices of floats"), "{done:?}");
    let shown = cmz(dir.path(), &["ls", "model.cmz", "--tensors"]).expect(0).out;
    for text in ["6 tensors rounded", "at 3.", "int4:group=64,form=symmetric", "output error"] {
        assert!(shown.contains(text), "no {text:?} in\n{shown}");
    }
    let verified = cmz(dir.path(), &["verify", "model.cmz"]).expect(0).out;
    assert!(verified.contains("not the original: 6 tensors rounded"), "{verified}");
    let restored = cmz(dir.path(), &["d", "model.cmz", "-o", "restored.safetensors"]).expect(0).out;
    assert!(restored.contains("6 tensors rounded") && !restored.contains("identical"), "{restored}");
    let different = cmz(dir.path(), &["verify", "model.cmz", "--against", "model.safetensors"]).expect(3);
    different.says(&["CMZ3011", "it is not to be the same: 6 tensors rounded"]);
    // What was rounded is a checkpoint like any other, and what is stored against it is exact.
    let again = cmz(dir.path(), &["c", "restored.safetensors", "--base", "model.cmz"]).expect(0).out;
    assert!(again.contains("verified: every bit") && !again.contains("rounded"), "{again}");
}

#[test]
fn only_what_is_named_is_rounded_and_all_else_is_exact() {
    let dir = folder();
    fs::write(dir.path().join("model.safetensors"), model()).unwrap();
    let done = cmz(dir.path(), &["--json", RECIPE[0], RECIPE[1], RECIPE[2], "--only", "[bc].*"]).expect(0).json();
    let lossy = done["files"][0]["lossy"].as_array().unwrap();
    assert_eq!(lossy.iter().map(|l| &l["tensor"]).collect::<Vec<_>>(), ["b.weight", "c.weight"]);
    assert!(lossy.iter().all(|l| (0.01..0.2).contains(&l["error"].as_f64().unwrap())), "{lossy:?}");
    let shown = cmz(dir.path(), &["--json", "ls", "model.cmz", "--tensors"]).expect(0).json();
    let errors = tensors(&shown);
    assert_eq!(errors.iter().map(|(_, error)| error.is_some()).collect::<Vec<_>>(), [false, false, true, false, true]);
    assert_eq!(shown["files"][0]["lossy"].as_array(), Some(lossy));
    cmz(dir.path(), &["d", "model.cmz", "-o", "restored.safetensors"]).expect(0);
    let restored = fs::read(dir.path().join("restored.safetensors")).unwrap();
    let (original, ends) = (model(), 96 * 128 * 2 + 256);
    let header = 8 + u64::from_le_bytes(original[..8].try_into().unwrap()) as usize;
    assert_eq!(restored.len(), original.len());
    assert!(restored[..header + ends] == original[..header + ends]);
    assert!(restored[header + ends..] != original[header + ends..]);
}

#[test]
fn the_same_for_any_number_of_threads() {
    let dir = folder();
    fs::write(dir.path().join("model.safetensors"), model()).unwrap();
    for threads in ["1", "2", "5"] {
        cmz(dir.path(), &["-T", threads, RECIPE[0], RECIPE[1], RECIPE[2], "-o", &format!("{threads}.cmz")]).expect(0);
    }
    let files = contents(dir.path());
    assert!(files["1.cmz"] == files["2.cmz"] && files["1.cmz"] == files["5.cmz"]);
}

#[test]
fn a_killed_conversion_goes_on() {
    let dir = folder();
    fs::write(dir.path().join("model.safetensors"), model()).unwrap();
    cmz(dir.path(), &[&RECIPE[..], &["-o", "expected.cmz"]].concat()).expect(0);
    let expected = fs::read(dir.path().join("expected.cmz")).unwrap();
    // Whatever a killed run leaves is a piece of the file.
    let mut random = Random(5);
    let mut most = 0;
    for round in 0..24 {
        let len = if round == 0 { expected.len() } else { random.below(expected.len() as u64) as usize };
        fs::write(dir.path().join("model.cmz.partial"), &expected[..len]).unwrap();
        let done = cmz(dir.path(), &[&RECIPE[..], &["--json", "-f"]].concat()).expect(0).json();
        assert!(fs::read(dir.path().join("model.cmz")).unwrap() == expected, "from {len} bytes");
        most = most.max(done["files"][0]["resumed_blocks"].as_u64().unwrap());
    }
    assert_eq!(most, 13, "five descriptors, seven blocks, and the header of the source");
    // Other options, or another source, do not go on with it.
    fs::remove_file(dir.path().join("model.cmz")).unwrap();
    fs::write(dir.path().join("model.cmz.partial"), &expected[..expected.len() / 2]).unwrap();
    cmz(dir.path(), &["c", "model.safetensors", "--recipe=int5"]).expect(5).says(&["another conversion"]);
    let mut other = model();
    let last = other.len() - 1;
    other[last] ^= 1;
    fs::write(dir.path().join("model.safetensors"), &other).unwrap();
    cmz(dir.path(), &RECIPE).expect(5).says(&["another conversion"]);
}

#[test]
fn a_process_that_is_killed_leaves_no_file() {
    let dir = folder();
    fs::write(dir.path().join("model.safetensors"), model()).unwrap();
    cmz(dir.path(), &[&RECIPE[..], &["-o", "expected.cmz"]].concat()).expect(0);
    let expected = fs::read(dir.path().join("expected.cmz")).unwrap();
    for delay in [1, 5, 20, 60] {
        let mut child = command(dir.path()).args(RECIPE).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        let target = dir.path().join("model.cmz");
        if !target.exists() {
            cmz(dir.path(), &RECIPE).expect(0);
        }
        assert!(fs::read(&target).unwrap() == expected);
        fs::remove_file(target).unwrap();
    }
}

#[test]
fn a_folder_keeps_what_is_done() {
    let dir = folder();
    fs::create_dir(dir.path().join("model")).unwrap();
    for (name, seed) in [("one", 1), ("two", 2)] {
        let tensor = format!("{name}.weight");
        let shard = safetensors(&[(&*tensor, "BF16", vec![64, 64], weights(4096, seed))]);
        fs::write(dir.path().join(format!("model/{name}.safetensors")), shard).unwrap();
    }
    let args = ["c", "model", "-o", "out", "--recipe=int4", "--only=one.*"];
    let first = cmz(dir.path(), &args).expect(0);
    assert!(first.out.contains("1 tensor rounded"), "{first:?}");
    fs::remove_file(dir.path().join("out/two.cmz")).unwrap();
    cmz(dir.path(), &args).expect(0).says(&["one.cmz is up to date"]);
    // Without the recipe it would be another file, and what is there is not what was asked for.
    cmz(dir.path(), &["c", "model", "-o", "out"]).expect(5);
    cmz(dir.path(), &["d", "out", "-o", "back"]).expect(0);
    let (before, after) = (contents(&dir.path().join("model")), contents(&dir.path().join("back")));
    assert!(before["two.safetensors"] == after["two.safetensors"]);
    assert!(before["one.safetensors"] != after["one.safetensors"]);
}

#[test]
fn plans_name_recipes() {
    let dir = folder();
    fs::write(dir.path().join("model.safetensors"), model()).unwrap();
    let plan = "
        # The first rule that names a tensor counts.
        [[rule]]
        tensors = 'a.*'
        recipe = 'lossless'
        [[rule]]
        tensors = ['*.weight', 'nothing else']
        recipe = 'int3:group=32,form=zero_point'
    ";
    fs::write(dir.path().join("plan.toml"), plan).unwrap();
    let args = ["--json", "c", "model.safetensors", "--plan", "plan.toml"];
    cmz(dir.path(), &args).expect(2);
    fs::write(dir.path().join("plan.toml"), plan.replace("nothing else", "?.bias")).unwrap();
    let done = cmz(dir.path(), &args).expect(0).json();
    let lossy = done["files"][0]["lossy"].as_array().unwrap();
    assert_eq!(lossy.iter().map(|l| &l["tensor"]).collect::<Vec<_>>(), ["b.weight", "c.weight"]);
    assert!(lossy.iter().all(|l| l["recipe"].as_str().unwrap().starts_with("int3:group=32,form=zero_point,")));
}

#[test]
fn what_cannot_be_is_refused() {
    let dir = folder();
    let mut bad = weights(4096, 9);
    bad[2 * (64 * 3 + 5)..][..2].copy_from_slice(&0x7f80u16.to_le_bytes());
    let file = safetensors(&[("w", "BF16", vec![64, 64], bad), ("v", "BF16", vec![8], weights(8, 1))]);
    fs::write(dir.path().join("model.safetensors"), file).unwrap();
    let fails = |args: &[&str], code: i32, texts: &[&str]| {
        cmz(dir.path(), &[&["c", "model.safetensors"], args].concat()).expect(code).says(texts);
        // Nothing is left that would be in the way of other options.
        assert!(!dir.path().join("model.cmz").exists() && !dir.path().join("model.cmz.partial").exists());
    };
    fails(&["--recipe=int4"], 2, &["row 3, column 5 is inf", "tensor w", "lossless"]);
    fails(&["--recipe=itn4"], 2, &["no recipe \"itn4\"", "did you mean \"int4\"?"]);
    fails(&["--recipe=int9"], 2, &["no recipe \"int9\"", "there are int2 … int8"]);
    fails(&["--recipe=Q4_K"], 2, &["no recipe \"Q4_K\"", "the recipes are int2 … int8, nf4"]);
    fails(&["--recipe=NF4"], 2, &["did you mean \"nf4\"?"]);
    fails(&["--recipe=lossless"], 2, &["the plan rounds no tensor", "everything is stored exactly"]);
    fails(&["--recipe=spqr3:outliers=nan"], 2, &["outliers cannot be \"nan\"", "a number from 0 to"]);
    fails(&["--recipe=int4:gruop=5"], 2, &["no parameter \"gruop\"", "did you mean \"group\"?"]);
    fails(&["--recipe=int4:group=-1"], 2, &["group cannot be \"-1\"", "a whole number from 0 to 16777216"]);
    fails(&["--recipe=int4:group=4,group=4"], 2, &["given twice"]);
    fails(&["--recipe=int4:group"], 2, &["name=value"]);
    fails(&["--recipe=int4", "--only=x*"], 2, &["\"x*\" matches no tensor"]);
    fails(&["--recipe=int4", "--only=v"], 2, &["the plan rounds no tensor", "two or more dimensions"]);
    fails(&["--recipe=int4", "--only=[x"], 2, &["the pattern \"[x\""]);
    fails(&["--recipe=int4", "--rm"], 2, &["--rm would remove weights"]);
    fails(&["--recipe=int4", "--plan=p"], 2, &["--plan"]);
    fails(&["--only=w"], 2, &["--recipe"]);
    fails(&["--plan=missing.toml"], 1, &["cannot read the plan", "missing.toml"]);
    for (plan, texts) in [
        ("[[rule]", vec!["line 1: "]),
        ("[[rule]]\ntensors = 'w'\nrecipe = 'int4'\ngroup = 3", vec!["unknown field `group`"]),
        ("[[rules]]\n", vec!["unknown field `rules`"]),
        (
            "[[rule]]\ntensors = 'w'\nrecipe = 'int4:form=odd'",
            vec!["form cannot be \"odd\"", "symmetric, zero_point, bias"],
        ),
    ] {
        fs::write(dir.path().join("plan.toml"), plan).unwrap();
        fails(&["--plan=plan.toml"], 2, &[&texts[..], &["plan.toml"]].concat());
    }
}

#[test]
fn targets_spread_bits() {
    let dir = folder();
    // The second matrix matters less: its weights are all alike.
    let flat = (0..200 * 128).flat_map(|i| [i as u8 & 1, 0x3c]).collect();
    let file = safetensors(&[
        ("a", "BF16", vec![200, 128], weights(200 * 128, 1)),
        ("b", "BF16", vec![200, 128], flat),
        ("c", "BF16", vec![200, 128], weights(200 * 128, 3)),
        ("exact", "BF16", vec![3000], weights(3000, 4)),
    ]);
    fs::write(dir.path().join("model.safetensors"), file).unwrap();
    let convert = |args: &[&str]| {
        let done =
            cmz(dir.path(), &[&["--json", "c", "-f", "model.safetensors", "--recipe=int4"], args].concat()).expect(0);
        let shown = cmz(dir.path(), &["--json", "ls", "model.cmz"]).expect(0).json();
        (done.json()["files"][0].clone(), shown["files"][0]["lossy_bits_per_weight"].as_f64().unwrap())
    };
    let mut last = f64::INFINITY;
    for bits in ["3", "4.1", "32"] {
        let (done, stored) = convert(&["--target-bpw", bits]);
        assert!(stored <= bits.parse().unwrap(), "{stored} of {bits}");
        let errors = done["lossy"].as_array().unwrap().iter().map(|l| l["error"].as_f64().unwrap());
        let error: f64 = errors.map(|error| error * error).sum();
        assert!(error < last, "{error} at {bits} bits, {last} with fewer");
        last = error;
    }
    assert!(convert(&["--target-bpw=4.1"]).1 > 3.3, "the bits are used");
    let (done, _) = convert(&["--target-size=40000"]);
    let len = done["len"].as_f64().unwrap();
    assert!((30_000.0..41_000.0).contains(&len), "{len} bytes");
    let one = fs::read(dir.path().join("model.cmz")).unwrap();
    convert(&["--target-size=40000", "-T1"]);
    assert!(one == fs::read(dir.path().join("model.cmz")).unwrap());
    let fails = |args: &[&str], texts: &[&str]| {
        let args = [&["c", "-f", "model.safetensors", "--recipe=int4"], args].concat();
        cmz(dir.path(), &args).expect(2).says(texts);
    };
    fails(&["--target-bpw=0.5"], &["the target is 0.5 bits for a weight, and the least is"]);
    fails(&["--target-size=100"], &["the target is 100 bytes, and the least is about"]);
    // What is said to be the least can be had.
    for (option, little) in [("--target-bpw", "0.5"), ("--target-size", "100")] {
        let refused = cmz(dir.path(), &["c", "-f", "model.safetensors", "--recipe=int4", option, little]);
        let least = refused.err.split("least is ").nth(1).unwrap().trim_start_matches("about ");
        convert(&[option, least.split_whitespace().next().unwrap()]);
    }
    fails(&["--target-bpw=-1"], &["a target of -1 bits per weight"]);
    fails(&["--target-bpw=0"], &["a target of 0 bits per weight"]);
    fails(&["--target-bpw=nan"], &["a target of NaN bits per weight"]);
    fails(&["--target-bpw=3", "--target-size=3"], &["--target-size"]);
    cmz(dir.path(), &["c", "-f", "model.safetensors", "--target-bpw=3"]).expect(2).says(&["nothing is to be rounded"]);
}

/// A file of statistics with these elements for the tensor `w` of 64 columns.
fn statistics(element: impl Fn(usize, usize) -> f32, size: u64) -> Vec<u8> {
    let at = |i: u64| element((i / size) as usize, (i % size) as usize);
    let bytes = (0..size * size).flat_map(|i| at(i).to_le_bytes()).collect();
    safetensors(&[("w.hessian", "F32", vec![size, size], bytes)])
}

#[test]
fn statistics_make_outputs_better() {
    let dir = folder();
    fs::write(dir.path().join("model.safetensors"), safetensors(&[("w", "BF16", vec![64, 64], weights(4096, 3))]))
        .unwrap();
    // Inputs that are correlated, and one that is always 0.
    let element = |i: usize, j: usize| match (i, j) {
        (9, _) | (_, 9) => 0.0,
        _ => 0.95f32.powi(i.abs_diff(j) as i32) * (1.0 + i as f32) * (1.0 + j as f32),
    };
    fs::write(dir.path().join("stats.safetensors"), statistics(element, 64)).unwrap();
    let output_error = |recipe: &str| {
        let args = ["--json", "c", "-f", "model.safetensors", "--statistics=stats.safetensors", "--recipe", recipe];
        let done = cmz(dir.path(), &args).expect(0).json();
        done["files"][0]["lossy"][0]["output_error"].as_f64().unwrap()
    };
    let nearest = output_error("int3:group=32");
    for recipe in ["int3:group=32,solver=gptq", "int3:group=32,solver=gptq,order=activation"] {
        assert!(output_error(recipe) < nearest * 0.8, "{recipe}: {} of {nearest}", output_error(recipe));
    }
}

#[test]
fn statistics_that_do_not_fit() {
    let dir = folder();
    let model = [("w", "BF16", vec![64, 64], weights(4096, 3)), ("v", "BF16", vec![8], weights(8, 1))];
    fs::write(dir.path().join("model.safetensors"), safetensors(&model)).unwrap();
    let gptq = "--recipe=int4:solver=gptq";
    let fails = |file: &[u8], recipe: &str, texts: &[&str]| {
        fs::write(dir.path().join("s.safetensors"), file).unwrap();
        let run = cmz(dir.path(), &["c", "model.safetensors", "--statistics=s.safetensors", recipe]);
        assert!([2, 3].contains(&run.code), "{run:?}");
        run.says(texts);
        assert!(!dir.path().join("model.cmz").exists());
    };
    cmz(dir.path(), &["c", "model.safetensors", gptq]).expect(2).says(&["needs statistics", "--statistics"]);
    let unit = |i, j| f32::from(u8::from(i == j));
    for recipe in [gptq, "--recipe=int4"] {
        fails(&statistics(unit, 63), recipe, &["[63, 63]", "w.hessian"]);
        fails(&statistics(|i, j| if i == 3 && j == 3 { f32::NAN } else { unit(i, j) }, 64), recipe, &["s.safetensors"]);
        fails(
            &safetensors(&[("w.hessian", "F16", vec![1, 1], vec![0; 2])]),
            recipe,
            &["of type F32", "this is of F16"],
        );
        fails(&safetensors(&[("w", "F32", vec![1, 1], vec![0; 4])]), recipe, &["NAME.hessian"]);
        fails(b"no safetensors", recipe, &["s.safetensors"]);
    }
    let of = |names: &[&'static str]| {
        safetensors(&names.iter().map(|&name| (name, "F32", vec![1, 1], vec![0; 4])).collect::<Vec<_>>())
    };
    let unknown = ["for \"x\" and 1 more, which the source does not have", "s.safetensors", "`cmz inspect --tensors`"];
    fails(&of(&["y.hessian", "x.hessian"]), "--recipe=int4", &unknown);
    let vector = ["for \"v\", which is no matrix", "s.safetensors", "tensor v.hessian", "take them out"];
    fails(&of(&["v.hessian"]), "--recipe=int4", &vector);
    cmz(dir.path(), &["c", "model.safetensors", "--statistics=s.safetensors"])
        .expect(2)
        .says(&["nothing is to be rounded"]);
}

/// A column without inputs is stored as zeros, and the last group of a row may be shorter.
#[test]
fn dead_columns_and_short_groups() {
    const DEAD: usize = 9;
    let dir = folder();
    fs::write(dir.path().join("model.safetensors"), safetensors(&[("w", "BF16", vec![64, 100], weights(6400, 3))]))
        .unwrap();
    let element = |i: usize, j: usize| match (i, j) {
        (DEAD, _) | (_, DEAD) => 0.0,
        _ => 0.9f32.powi(i.abs_diff(j) as i32),
    };
    let bytes = (0..10_000).flat_map(|i| element(i / 100, i % 100).to_le_bytes()).collect();
    let statistics = safetensors(&[("w.hessian", "F32", vec![100, 100], bytes)]);
    fs::write(dir.path().join("s.safetensors"), statistics).unwrap();
    for (recipe, dead) in [
        ("int4:group=48,solver=gptq", Some(true)),
        ("nf4:group=48,solver=gptq,order=activation", Some(true)),
        ("int4:group=48", Some(false)),
        // What they can store need not include 0.
        ("spqr4:group=24", None),
        ("bcq4:group=48,solver=gptq", None),
    ] {
        let args = ["--json", "c", "-f", "model.safetensors", "--statistics=s.safetensors", "--recipe", recipe];
        let done = cmz(dir.path(), &args).expect(0).json();
        let error = done["files"][0]["lossy"][0]["error"].as_f64().unwrap();
        assert!(error < 0.25, "{recipe}: {error}");
        cmz(dir.path(), &["d", "-f", "model.cmz", "-o", "back.safetensors"]).expect(0);
        let back = fs::read(dir.path().join("back.safetensors")).unwrap();
        let elements: Vec<u16> =
            back[back.len() - 12_800..].as_chunks().0.iter().map(|&e| u16::from_le_bytes(e)).collect();
        let zeros = |column: usize| elements.iter().skip(column).step_by(100).all(|bits| bits & 0x7fff == 0);
        assert!(dead.is_none_or(|dead| zeros(DEAD) == dead), "{recipe}");
        assert!((0..100).all(|column| column == DEAD || !zeros(column)), "{recipe}");
    }
}
